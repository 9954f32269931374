"""What the scripts share: find the suite, hand over to Hydra, and say errors in one line."""

from __future__ import annotations

import difflib
import errno
import os
import re
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.conf import HydraConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from shapelaw.config.option import keys_of
from shapelaw.config.schema import SCRIPTS, store_schemas
from shapelaw.errors import UserError
from shapelaw.secrets import hidden

BAD_INPUT = 2
FAILED = 1
INTERRUPTED = 130
UNREAD = 141
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
UNWRITABLE |= {errno.ENOTDIR, errno.EEXIST, errno.ENOENT}  # of a folder below a file, or where none can be made


def main(root: Path, config_name: str, task: Any) -> NoReturn:
    """Run a script: compose conf/CONFIG_NAME.yaml with the command line's overrides and do the task.

    Args:
        root: the project's folder, which holds conf/.
        config_name: name of the top-level configuration.
        task: called with a composed configuration; `task.single`, if there is one, when it is not a sweep.

    Exit codes: 0; 1 if some work failed; 2 for bad input, said in one line; 130 when interrupted; 141 when whoever reads its
    output (`--help | head`) has read enough.
    """
    try:
        set_environment(root)
        store_schemas()
        if {"-h", "--help"} & set(sys.argv[1:]):
            sys.stdout.write(_help(root / "conf", config_name, sys.argv[1:]))
            sys.exit(0)
        hydra.main(config_path=str(root / "conf"), config_name=config_name)(_Entry(task))()
    except KeyboardInterrupt:
        _say("interrupted; run the same command again to continue")
        sys.exit(INTERRUPTED)
    except (Exception, _Failed) as caught:
        error = caught.error if isinstance(caught, _Failed) else caught
        if isinstance(error, BrokenPipeError) and _unread():
            sys.exit(UNREAD)
        message = explain(error)
        if message is None:
            raise error from None
        _say(message)
        sys.exit(FAILED if type(error).__name__ in ("SweepFailed", "Interrupted", "RankFailed") else BAD_INPUT)
    sys.exit(0)


def _help(conf: Path, script: str, arguments: list[str]) -> str:
    """Its help, with the values of the other arguments, unless they are lists of them."""
    from shapelaw.config.help import help_text

    swept = {"-m", "--multirun"} & set(arguments)
    return help_text(conf, script, [] if swept else [word for word in arguments if not word.startswith("-")])


class _Failed(BaseException):
    """Carries an error past Hydra, which would print lines of its own, and whose own launcher says nothing of it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Entry:
    """The task function that Hydra sees; launchers take the task itself from it."""

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
            return work(config)
        except Exception as error:
            raise _Failed(error) from error


def _check_single(chosen: HydraConf) -> None:
    """One run has one choice of every group; of a named sweep, it is asked for by a value of every key that is swept."""
    from shapelaw.sweep.cells import refuse_lists

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
            f"sweeps={chosen.runtime.choices.get('sweeps')}: it sweeps {', '.join(left)}; give -m for all its cells, or one "
            "value of each for one of them"
        )


def set_environment(root: Path) -> None:
    """Set what conf/ refers to.

    Raises:
        UserError: if SHAPELAW_SUITE names no suite.
    """
    suites = root / "conf" / "suite"
    name = os.environ.get("SHAPELAW_SUITE", "nano")
    folder = Path(name).absolute() if os.sep in name else suites / name
    if not (folder / "suite.yaml").exists():
        have = ", ".join(sorted(path.parent.name for path in suites.glob("*/suite.yaml")))
        raise UserError(f"SHAPELAW_SUITE={name}: allowed are {have}, or a folder with a suite.yaml and shape/*.yaml")
    os.environ["SHAPELAW_SUITE_DIR"] = str(folder)
    os.environ["SHAPELAW_SUITE_NAME"] = folder.name
    os.environ["SHAPELAW_ROOT"] = str(root)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here, to be said in one line


def explain(error: BaseException) -> str | None:
    """One line for the user, or None if the error is not theirs."""
    if isinstance(error, UserError) or type(error).__name__ in ("SweepFailed", "Interrupted", "RankFailed"):
        return str(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return (
            f"{error.filename or 'a file'}: {error.strerror}; free some space or get the right to write there, or give "
            "another outputs_dir; then run the same command again"
        )
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if isinstance(error, OverrideParseException):
        reason = re.sub(r"^Error when parsing index: .*\n", "", str(error)).partition("\n")[0]
        return f"{error.override}: not an override ({reason}); write KEY=VALUE, quoted for the shell"
    if isinstance(error, yaml.YAMLError):
        return _yaml(error)
    if swept := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.+)'", str(error)):
        return f"{swept[1]}: several values need -m; give it, or one value"
    if isinstance(error, ValueError) and str(error).startswith("Config group override"):
        return f"{_line(error)}: a group is given the name of one of its choices; see them with --help"
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException | HydraException):
        return _composition(error)
    return None


def _composition(error: BaseException) -> str:
    """What was wrong with an override, with the nearest right key."""
    if inside := re.match(r"In '([^']+)': \w+ raised while composing config:\n(.+)", str(error)):
        return _in_file(inside[1], inside[2], re.search(r"full_key: (\S+)", str(error)))
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    key = str(getattr(cause, "full_key", None) or "") or _quoted(str(error))
    text = _line(cause)
    if key and (
        "not in" in text or "not in" in str(error) or ("Could not override" in str(error) and "struct" in text)
    ):
        return f"{key}: there is no such key{_nearest(key)}; see them all with --help"
    if "Could not override" in str(error):
        return f"{_line(error)} {text}" if text not in _line(error) else _line(error)
    given = re.match(r"Error merging override (.+)", str(error))
    place = given[1] if given else key if key not in text else ""
    return f"{place + ': ' if place else ''}{text.rstrip('.')}; {_remedy(text)}"


def _in_file(file: str, what: str, key: re.Match[str] | None) -> str:
    """What was wrong in a file of a group, with its key where Hydra's own line leaves it out."""
    if what.startswith(f"Key '{file.partition('/')[0]}' not in"):
        return f"{file}.yaml: its keys are taken for those of a group; make its first line # @package _global_"
    place = f"{file}.yaml: {key[1]}" if key and key[1] not in what else f"{file}.yaml"
    return f"{place}: {what}; see all keys and their types with --help"


def _remedy(text: str) -> str:
    """What to do about a value that is none of its key's."""
    if several := re.match(r"Value '\[(.+)\]' of type 'list'", text):
        return f"several values are written {several[1].replace(', ', ',')}, without brackets, and need -m"
    return "name a key that there is" if text.startswith("Interpolation key") else "give a value of that type"


def _yaml(error: yaml.YAMLError) -> str:
    """Where a file is no YAML."""
    mark: yaml.Mark | None = getattr(error, "problem_mark", None)
    found = f"{mark.name}, line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)
    return f"{found}; correct the file's YAML there: its indentation, quotes and brackets"


def _missing(error: MissingConfigException) -> str:
    name = error.missing_cfg_file or ""
    options = ", ".join(error.options or [])
    group, _, choice = name.rpartition("/")
    return f"{group}={choice}: there is no such choice; allowed are {options}" if group else _line(error)


def _nearest(key: str) -> str:
    known = {key for kind in SCRIPTS.values() for key in keys_of(kind)}
    near = difflib.get_close_matches(key.lstrip("+"), sorted(known), n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _quoted(text: str) -> str:
    found = re.search(r"[\"']([\w.@+/-]+)[\"']", text)
    return found.group(1) if found else ""


def _line(error: BaseException) -> str:
    """First line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip()


def _unread() -> bool:
    """Whether nobody reads the output any more; what is left to be flushed goes nowhere then."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    closed = any(events & (select.POLLERR | select.POLLHUP) for _, events in output.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed


def _say(message: str) -> None:
    sys.stderr.write(f"shapelaw: {hidden(' '.join(message.split()))}\n")
