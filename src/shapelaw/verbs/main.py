"""Opening a door: find the project and the suite, hand over to Hydra, and say errors in one line."""

from __future__ import annotations

import difflib
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig

from shapelaw import __version__
from shapelaw.collector import collect_seldom
from shapelaw.config.schema import store_schema
from shapelaw.errors import UserError
from shapelaw.files import say_if_open_to_all
from shapelaw.secrets import hidden
from shapelaw.terminal import prepare_streams, write, write_error
from shapelaw.verbs.arguments import check_arguments
from shapelaw.verbs.doors import COMMANDS, command_of, door_of, project_root, schema_of, summary_of, verbs
from shapelaw.verbs.messages import explain
from shapelaw.verbs.suites import environment
from shapelaw.verbs.sweeps import check_sweep

BAD_INPUT = UserError.exit_code
INTERRUPTED = 130
UNREAD = 141
HELP = {"-h", "--help"}
COMPLETION = {"-sc", "--shell-completion"}
PROGRAM = "shapelaw"


def run_verb() -> NoReturn:
    """`shapelaw VERB ...`: open the door that the first argument names, or run a command; without one, list them all."""
    prepare_streams()
    verb, *rest = sys.argv[1:] or ["--help"]
    try:
        if verb in HELP:
            _print_and_end(_list())
        if verb == "--version":
            _print_and_end(f"{PROGRAM} {__version__}\n")
        if verb in COMPLETION:
            _complete(rest)
        _check_verb(verb)
        if verb in COMMANDS:
            _run_command(verb, rest)
    except (Exception, KeyboardInterrupt) as error:
        _end(error)
    sys.argv = [f"{PROGRAM} {verb}", *rest]  # Hydra parses it, and a fit records it as its command
    main(verb, program=sys.argv[0])


def _print_and_end(text: str) -> NoReturn:
    write(text)
    sys.exit(0)


def _complete(words: list[str]) -> NoReturn:
    """Hydra's shell completion: `install=SHELL`, or `query=SHELL` for the line in COMP_LINE, whose first word is a verb."""
    verb, line = "train", os.environ.get("COMP_LINE", "")
    if words and words[0].startswith("query="):
        verb = [*line.split(), "", ""][1]
        if verb not in verbs():
            _print_and_end(" ".join(sorted([*verbs(), *COMMANDS])) + "\n")
        os.environ["COMP_LINE"] = line.replace(f" {verb}", "", 1)
    sys.argv = [PROGRAM, "-sc", *words]
    main(verb)


def _run_command(name: str, words: list[str]) -> NoReturn:
    """Run a command without options, or print its usage."""
    command = command_of(name)
    if HELP & set(words):
        _print_and_end(f"{PROGRAM} {name} {command.usage}".rstrip() + f"\n\n{summary_of(name)}\n")
    set_environment(project_root())
    command.run(words)
    sys.exit(0)


def _list() -> str:
    """Every door and command, with one line each."""
    known = sorted([*verbs(), *COMMANDS])
    width = max(map(len, known))
    lines = "".join(f"  {verb:<{width}}  {summary_of(verb)}\n" for verb in known)
    return f"{PROGRAM} VERB [-m] [GROUP=CHOICE ...] [KEY=VALUE ...]\n\n{lines}\nVERB --help explains a verb and every option.\n"


def _check_verb(verb: str) -> None:
    known = sorted([*verbs(), *COMMANDS])
    if verb not in known:
        near = difflib.get_close_matches(verb, known, n=1, cutoff=0.5)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{verb}: there is no such verb; {meant}the verbs are {', '.join(known)}")


def main(verb: str, work: Callable[[DictConfig], Any] | None = None, program: str | None = None) -> NoReturn:
    """Open a door: compose conf/VERB.yaml with the command line's overrides and do its work.

    Args:
        verb: name of the door.
        work: work to do instead of the door's own.
        program: start of the command, for its help; by default the script of that name.

    Exit codes: 0; 130 when interrupted; 141 when the reader of its output (`--help | head`) stops reading; else the
    error's own: 2 for bad input, 1 if some of the work failed. Both are reported in one line.
    """
    collect_seldom()
    prepare_streams()
    schema = None
    try:
        root = project_root()
        set_environment(root)
        schema = schema_of(verb)
        store_schema(verb, schema)
        if HELP & set(sys.argv[1:]):
            write(_help(root / "conf", verb, program or f"python {verb}.py"))
            sys.exit(0)
        check_arguments(verb, sys.argv[1:], root / "conf")
        check_sweep(verb, sys.argv[1:])
        hydra.main(config_path=str(root / "conf"), config_name=verb)(_Entry(work or door_of(verb)))()
    except SystemExit as ended:  # Hydra has already reported why
        sys.exit(BAD_INPUT if ended.code == 1 else ended.code)
    except (Exception, KeyboardInterrupt, _Failed) as caught:
        _end(caught, schema)
    sys.exit(0)


def _help(conf: Path, verb: str, program: str) -> str:
    """Help of the verb, with the values of the other arguments, unless they are lists."""
    from shapelaw.config.help import help_text

    arguments = sys.argv[1:]
    swept = {"-m", "--multirun"} & set(arguments)
    return help_text(conf, verb, program, [] if swept else [word for word in arguments if not word.startswith("-")])


def _end(caught: BaseException, schema: type | None = None) -> NoReturn:
    """Report an error in one line and end with its exit code; an error that is not the user's is raised unchanged."""
    error = caught.error if isinstance(caught, _Failed) else caught
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted; run the same command again to continue")
        sys.exit(INTERRUPTED)
    if isinstance(error, BrokenPipeError) and _unread():
        sys.exit(UNREAD)
    message = explain(error, schema)
    if message is None:
        raise error from None
    _say(message)
    sys.exit(getattr(error, "exit_code", BAD_INPUT))


class _Failed(BaseException):
    """Carries an error past Hydra, which would print its own lines, and whose own launcher does not report it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Entry:
    """The task function for Hydra; launchers take the task itself from it."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.__name__ = "main"

    def __call__(self, config: DictConfig) -> Any:
        chosen = HydraConfig.get()
        swept = chosen.mode is RunMode.MULTIRUN
        work: Callable[[DictConfig], Any] = self.task if swept else getattr(self.task, "single", self.task)
        try:
            if not swept:
                _check_single(chosen)
                say_if_open_to_all(Path(config.outputs_dir))
            return work(config)
        except Exception as error:
            raise _Failed(error) from error


def _check_single(chosen: HydraConf) -> None:
    """Check that a single run has one choice of every group, and with a named sweep one value of every swept key."""
    from shapelaw.sweep.grid import refuse_lists

    overrides = OverridesParser.create().parse_overrides(list(chosen.overrides.task))
    refuse_lists(overrides, GlobalHydra.instance().config_loader().get_group_options)
    given = [override.key_or_group for override in overrides]
    left = [
        key
        for key in chosen.sweeper.get("params") or {}
        if not any(word == key or word.startswith(f"{key}.") for word in given)
    ]
    if left:
        raise UserError(
            f"sweeps={chosen.runtime.choices.get('sweeps')}: it sweeps {', '.join(left)}; give -m for all its runs, or "
            "one value for each key for one run"
        )


def set_environment(root: Path) -> None:
    """Set the environment variables that conf/ refers to.

    Raises:
        UserError: if SHAPELAW_SUITE does not name a suite.
    """
    os.environ.update(environment(root, os.environ.get("SHAPELAW_SUITE", "nano")))
    os.environ["SHAPELAW_ROOT"] = str(root)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here, to be reported in one line


def _unread() -> bool:
    """Whether nobody reads the output any more; in that case the unflushed rest is discarded."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    closed = any(events & (select.POLLERR | select.POLLHUP) for _, events in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed


def _say(message: str) -> None:
    write_error(f"shapelaw: {hidden(' '.join(message.split()))}\n")
