"""Command templates: the command line of a program, with the values of a run in braces.

A template is split into words as a shell would do it; then each word is filled by itself. So a value stays within its word,
whatever it holds, and no shell reads it. Syntax that needs a shell, such as `&&` or `$HOME`, is refused.
"""

from __future__ import annotations

import glob
import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from itertools import pairwise
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from shapelaw.errors import UserError

if TYPE_CHECKING:
    from shapelaw.config import TrainConfig

KEY = "trainer.command"
SCRIPTS = frozenset({".py", ".sh", ".yaml", ".yml", ".json", ".toml"})
"""Endings of files that count as part of a program if its template names them."""
ELSEWHERE = frozenset(
    ("outputs_dir", "data_dir", "suite.folder", "accelerator", "devices", "num_nodes", "threads", "progress", "force")
)
"""Options for the place and devices of training, which do not affect the result."""
ELSEWHERE_GROUPS = frozenset(("tracker", "trainer", "search", "limits", "resources", "cooldown", "sweep"))
"""Groups of such options, and those that a fingerprint holds separately."""
LINE_END = re.compile(r"(?:[ \t]*\\\r?\n)+[ \t]*")
PIECE = re.compile(rf"""{LINE_END.pattern}|\\.|'[^']*'|"(?:\\.|[^"\\])*"|\{{[^{{}}]*\}}|.""", re.DOTALL)
"""A piece of a command line as a shell reads it: a line's end after a backslash, a quoted text, a field, a character."""
OF_A_SHELL = {
    r"[\r\n]": (
        "a line that does not end with a backslash is a separate command",
        "end every line but the last with a backslash, with nothing behind it",
    ),
    r"&&|\|\||[;&|<>]|\$\(|`": (
        "{} joins or redirects programs",
        "put the line into a script that takes the values (bash run.sh {{lr}} {{folder}}), or quote plain text",
    ),
    r"\$[\w{(]+|(?<![^\s=])~(?=/|\s|$)": (
        "{} stands for something else",
        "write what it stands for, or quote plain text with '...'",
    ),
    r"(?<!\S)#\S*": ("{} begins a comment", "leave it out, or quote plain text"),
    r"\A[A-Za-z_]\w*=\S*": ("{} sets a variable", "write env before it: env {} ..."),
}
"""Unquoted syntax that needs a shell -> its meaning, and what to do."""


@dataclass(frozen=True)
class Template:
    """A command template.

    Args:
        text: the text as given.

    >>> Template("train.py --lr {lr:.4f} --name 'run {name}'").filled({"lr": 0.01, "name": "a; rm b"})
    ['train.py', '--lr', '0.0100', '--name', 'run a; rm b']
    """

    text: str

    @property
    def line(self) -> str:
        """Its text, with lines that end with a backslash joined.

        >>> Template("train.py \\\\\\n  --lr {lr}").line
        'train.py --lr {lr}'
        """
        joined = PIECE.sub(lambda piece: _joined(piece[0]), self.text)
        return joined.strip() if joined != self.text else self.text

    @property
    def words(self) -> list[str]:
        """Its words, not filled yet.

        Raises:
            UserError: if a quote is left open, there are no words, or only a shell could read it.
        """
        line = self.line
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UserError(f"{KEY}={self.text}: {error}; close the quote, or write \\' for an apostrophe") from error
        if not words:
            raise UserError(f"{KEY}={self.text!r}: is empty; give the program's command line")
        _refuse_shell(line.strip())
        return words

    @property
    def names(self) -> list[str]:
        """The fields that it names, in order, each once.

        Raises:
            UserError: if a brace is left open.
        """
        return list(dict.fromkeys(name for word in self.words for _, name, _ in self._parts(word) if name is not None))

    @property
    def program(self) -> str:
        """The program in words: the first word, and the scripts and modules that it names.

        >>> Template("torchrun --standalone train.py {lr}").program, Template("{python} -m lab.train").program
        ('torchrun train.py', 'python lab.train')
        """
        first, *rest = self.words
        named = [word for before, word in pairwise(["", *rest]) if word.endswith((".py", ".sh")) or before == "-m"]
        return " ".join([first.strip("{}"), *named])

    def filled(self, values: Mapping[str, Any]) -> list[str]:
        """The words with their fields filled in.

        Raises:
            UserError: for an unknown field, listing the known ones, or a format that its value does not support.
        """
        return ["".join(self._pieces(word, values)) for word in self.words]

    def _pieces(self, word: str, values: Mapping[str, Any]) -> Iterator[str]:
        for literal, name, spec in self._parts(word):
            yield literal
            if name is not None:
                yield self._piece(name, spec, values)

    def _piece(self, name: str, spec: str, values: Mapping[str, Any]) -> str:
        if name not in values:
            raise UserError(
                f"{KEY}: {{{name}}} is not a field; the fields are {', '.join(sorted(values))}; {{{{ is a brace"
            )
        value = plain(values[name])
        try:
            return format(value, spec)
        except ValueError as error:
            raise UserError(f"{KEY}: {{{name}:{spec}}}: {value!r} cannot be written so ({error})") from error

    def _parts(self, word: str) -> Iterator[tuple[str, str | None, str]]:
        """Text, then the field that follows it and its format; None without a field."""
        try:
            for literal, name, spec, conversion in Formatter().parse(word):
                if conversion or "{" in (spec or ""):
                    raise ValueError(f"{{{name}}} takes a format only, such as {{{name}:.4f}}")
                yield literal, name, spec or ""
        except ValueError as error:
            raise UserError(f"{KEY}: {word}: {error}; write fields as {{NAME}}, and double a literal brace") from error


def _joined(piece: str) -> str:
    """A piece of a command line without line ends after a backslash."""
    if piece[0] == '"':
        return re.sub(r"\\(\r?\n|.)", lambda found: "" if found[1].endswith("\n") else found[0], piece, flags=re.DOTALL)
    if LINE_END.fullmatch(piece):
        return " " if re.search(r"[ \t]", piece) else ""
    return piece


def _refuse_shell(line: str) -> None:
    """Refuse syntax that the program would get literally, although a shell would interpret it.

    Raises:
        UserError: naming it, and what to do.
    """
    bare = PIECE.sub(lambda piece: piece[0] if len(piece[0]) == 1 else "_" * len(piece[0]), line)
    for pattern, (what, advice) in OF_A_SHELL.items():
        if found := re.search(pattern, bare):
            name = line[slice(*found.span())]
            raise UserError(f"{KEY}: {what.format(name)} in a shell, and no shell reads this; {advice.format(name)}")
    if found := re.search(r"\$[\w{(]+|`", PIECE.sub(_filled_in, line)):
        raise UserError(
            f"{KEY}: {found[0]} stands for something else in a shell, also between double quotes, and no shell reads this; "
            "write what it stands for, or quote plain text with '...'"
        )


def _filled_in(piece: re.Match[str]) -> str:
    """The part of a piece into which a shell fills variables: text in double quotes."""
    return re.sub(r"\\.", " ", piece[0]) if piece[0].startswith('"') else " "


def plain(value: Any) -> Any:
    """A value in the form for a program: whole numbers without a point, others with all digits; empty for null.

    >>> plain(2e9), plain(0.1), plain(None), plain(True)
    (2000000000, 0.1, '', 'true')
    """
    if value is None or isinstance(value, bool):
        return {None: "", True: "true", False: "false"}[value]
    if isinstance(value, Enum):
        return value.name
    return int(value) if isinstance(value, float) and value.is_integer() else value


def options_in(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every option of a configuration that is a single value, by its dotted name."""
    found: dict[str, Any] = {}
    for one in fields(config):
        value, name = getattr(config, one.name), f"{prefix}{one.name}"
        if is_dataclass(value):
            found |= options_in(value, f"{name}.")
        elif value is None or isinstance(value, str | int | float | Enum):
            found[name] = value
    return found


def trainer_record(config: TrainConfig) -> dict[str, Any]:
    """The record of a program in a fingerprint: its template, the options that it gets, and the scripts that it reads.

    It omits values that follow from the rest of the fingerprint ({lr}, {tokens}, ...) or concern the place of training.

    Raises:
        UserError: for a template that cannot be read, or a missing file of trainer.files.
    """
    template, options = Template(config.trainer.command), options_in(config)
    told = [name for name in template.names if name in options and _decides(name)]
    return {
        "command": template.line,
        "values": {name: plain(options[name]) for name in sorted(told)},
        "files": {path: _hash(Path(path)) for path in [*_scripts(template), *_further(config.trainer.files)]},
    }


def _decides(name: str) -> bool:
    return name not in ELSEWHERE and name.partition(".")[0] not in ELSEWHERE_GROUPS


def _scripts(template: Template) -> list[str]:
    """Scripts that the template names, alone or after an equals sign."""
    named = [word.rpartition("=")[2] for word in template.words]
    return sorted({name for name in named if Path(name).suffix in SCRIPTS and Path(name).is_file()})


def _further(patterns: list[str]) -> Iterator[str]:
    for pattern in patterns:
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
        if not found:
            raise UserError(
                f"trainer.files={pattern}: there is no such file in {Path.cwd()}; correct it, or leave it out"
            )
        yield from found


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
