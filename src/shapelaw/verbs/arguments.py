"""The words of a command line, checked before Hydra reads them: it answers a wrong flag with its usage or a traceback."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from shapelaw.errors import UserError
from shapelaw.sweep.hydra_internals import arguments_parser
from shapelaw.verbs.meant import word_meant

FLAGS = "allowed beside KEY=VALUE are --help, -m, --cfg job (with --resolve, --package KEY), -cd FOLDER and -cn NAME"
MODES = ("run", "multirun", "cfg", "info", "shell_completion")
"""Modes of Hydra, of which one is used."""
SHELLS = ("bash", "fish", "zsh")


def check_arguments(verb: str, words: Sequence[str], conf: Path) -> None:
    """Refuse flags that a verb does not have, and flags that name missing files.

    Args:
        verb: the verb.
        words: the words after its name.
        conf: folder of its configuration.

    Raises:
        UserError: naming the word and what is allowed.
    """
    given = _parsed(words)
    for word in given.overrides:
        if not word.strip() or word.startswith("="):
            raise UserError(f"{word!r}: not an override; write KEY=VALUE, quoted for the shell")
        if "=" not in word and not word.startswith("~"):
            raise UserError(f"{word}: not an override; {word_meant(verb, word)}")
    modes = [f"--{mode.replace('_', '-')}" for mode in MODES if getattr(given, mode)]
    if len(modes) > 1:
        raise UserError(f"{' '.join(modes)}: contradict each other; give only -m for a sweep, or neither for one run")
    if given.resolve and not (given.cfg or given.info):
        raise UserError("--resolve: changes only what --cfg prints; give --cfg job --resolve")
    if given.shell_completion:
        _check_completion(given.overrides)
    _check_files(verb, given, conf)


class _Parser(argparse.ArgumentParser):
    """Raises errors that argparse would print."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; {FLAGS}")


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = arguments_parser()
    parser.__class__ = _Parser  # Hydra created it
    return parser.parse_intermixed_args(words)


def _check_completion(words: Sequence[str]) -> None:
    """Check the shell completion: Hydra installs, removes or queries it, for a shell that it knows."""
    verbs = ("install", "uninstall", "query")
    if len(words) != 1 or not any(words[0] == f"{verb}={shell}" for verb in verbs for shell in SHELLS):
        raise UserError(
            f"-sc {' '.join(words)}: "
            f"allowed values are install=SHELL and uninstall=SHELL, with SHELL one of {', '.join(SHELLS)}"
        )


def _check_files(verb: str, given: argparse.Namespace, conf: Path) -> None:
    """Check the folders and files that flags name."""
    for flag, folder in (("--config-dir", given.config_dir), ("--config-path", given.config_path)):
        if folder and not Path(folder).is_dir():
            raise UserError(
                f"{flag} {folder}: there is no such folder; give one that holds configurations, or leave it out"
            )
    if given.experimental_rerun and not Path(given.experimental_rerun).is_file():
        raise UserError(f"--experimental-rerun {given.experimental_rerun}: there is no such file")
    if given.config_name:
        _check_name(verb, given.config_name.removesuffix(".yaml"), given, conf)


def _check_name(verb: str, name: str, given: argparse.Namespace, conf: Path) -> None:
    """Check the configuration that replaces the verb's own."""
    folders = [Path(folder) for folder in (given.config_dir, given.config_path or conf) if folder]
    if not any((folder / f"{name}.yaml").is_file() for folder in folders):
        raise UserError(
            f"-cn {name}: there is no such configuration in {' or '.join(map(str, folders))}; leave -cn out, or give "
            "sweeps=NAME for a named sweep (shapelaw sweeps lists them)"
        )
    if name != verb and (conf / f"{name}.yaml").is_file() and not given.config_dir and not given.config_path:
        raise UserError(f"-cn {name}: is not {verb}'s configuration; run: shapelaw {name}")
