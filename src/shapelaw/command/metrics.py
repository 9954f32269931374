"""The metrics that a program appends to a file in its run's folder, one JSON object per line."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from shapelaw.errors import Damaged, Diverged, UserError
from shapelaw.files import as_record, read_sealed, write_sealed
from shapelaw.planned_run import PlannedRun
from shapelaw.tracking import VAL_LOSS
from shapelaw.tracking.protocol import DEVICE_HOURS

NAMES = {
    "loss": VAL_LOSS,
    "train_loss": "train/loss",
    "lr": "train/lr",
    "grad_norm": "train/grad_norm",
    "device_hours": DEVICE_HOURS,
    "seconds_per_step": "speed/seconds_per_step",
    "tokens_per_second": "speed/tokens_per_second",
}
"""A program's name of a metric -> its tracked name; any other number keeps its name."""
MODEL = ("params", "flops_per_token")
"""Facts about its model that a program may write once, in its first line."""
LOSSES = ("loss", "train_loss")
SHOWN = 80
"""Characters of a line that a message shows."""
log = logging.getLogger(__name__)


class ProgramFailed(UserError):
    """A program failed; the message names the fault and the log."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True)
class Reading:
    """The content of a line.

    Args:
        tokens: tokens seen so far; None for a line that only describes the model.
        metrics: tracked name -> value.
        model: facts about the model.
    """

    tokens: int | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    model: Mapping[str, float] = field(default_factory=dict)


def read_line(line: bytes, planned: PlannedRun, after: int = 0) -> Reading:
    """The content of a line of a run's metrics.

    Args:
        line: line of the file.
        planned: the run.
        after: tokens of the previous line.

    Raises:
        ProgramFailed: if it is not a line of metrics, or belongs to another run.
        Diverged: if a loss is not finite.
    """
    content = _object(line)
    _check_own(content, planned, line)
    model = {name: _number(content, name, line) for name in MODEL if content.get(name) is not None}
    if content.get("tokens") is None and model and not any(content.get(name) for name in LOSSES):
        return Reading(None, model=model)
    tokens = _tokens(content, planned, after, line)
    for name in LOSSES:
        if content.get(name) is not None and not math.isfinite(value := _number(content, name, line)):
            step = tokens // planned.batch_tokens
            raise Diverged(f"the run diverged at step {step}: the program wrote {name}={value:g}", step)
    said = {name: value for name, value in content.items() if name not in ("tokens", *MODEL, *own(planned))}
    numbers = {name: float(value) for name, value in said.items() if _is_number(value) and math.isfinite(value)}
    return Reading(tokens, {NAMES.get(name, name): value for name, value in numbers.items()} if tokens else {}, model)


def own(planned: PlannedRun) -> dict[str, Any]:
    """Facts of the run for comparison with a line, so that a line of another run is not accepted."""
    return {
        "run": planned.identity,
        "width": planned.shape.width,
        "depth": planned.shape.depth,
        "batch_tokens": planned.batch_tokens,
        "seq_len": planned.seq_len,
        "seed": planned.fingerprint["seed"],
    }


def _object(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise _refused(line, f"is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise _refused(line, "is not a JSON object with tokens and loss")
    return content


def _check_own(content: Mapping[str, Any], planned: PlannedRun, line: bytes) -> None:
    for name, value in own(planned).items():
        if content.get(name) is not None and content[name] != value:
            raise _refused(line, f"says {name}={content[name]}, and this run has {value}: it is another run's")


def _tokens(content: Mapping[str, Any], planned: PlannedRun, after: int, line: bytes) -> int:
    if content.get("tokens") is None:
        raise _refused(line, "does not give its tokens")
    tokens = _number(content, "tokens", line)
    if not math.isfinite(tokens) or tokens != int(tokens) or tokens < 0:
        raise _refused(line, f"says tokens={tokens:g}, which is not a count")
    first = planned.first_step * planned.batch_tokens
    if not first <= tokens <= planned.tokens:
        raise _refused(line, f"says tokens={tokens:,.0f}, and this run goes from {first:,} to {planned.tokens:,}")
    if tokens < after:
        raise _refused(line, f"says tokens={tokens:,.0f} after {after:,}: tokens must not decrease within a start")
    return int(tokens)


def _number(content: Mapping[str, Any], name: str, line: bytes) -> float:
    value = content[name]
    if not _is_number(value):
        raise _refused(line, f"says {name}={value!r}, which is not a number")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(line: bytes, fault: str) -> ProgramFailed:
    shown = line.decode(errors="replace").strip()
    return ProgramFailed(f"the line {shown[:SHOWN]}{'...' if len(shown) > SHOWN else ''} {fault}")


@dataclass(frozen=True)
class _Read:
    """The part of a file that was read: the number of its first bytes, and their SHA-256."""

    bytes: int
    sha256: str


class MetricsFile:
    """Reads complete lines as they arrive, each once. A file that the program rewrites is read from its beginning.

    The progress of reading is recorded beside it (metrics.read.json), so that a later start notices changes.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.note, self.position, self.last = path, path.with_suffix(".read.json"), 0, b""
        self.hash = hashlib.sha256()
        self.renewals = 0
        """How often the file was found rewritten."""
        if path.exists():
            with path.open("rb") as file:  # the unfinished line of a killed program
                os.truncate(path, file.read().rfind(b"\n") + 1)

    def lines(self) -> Iterator[bytes]:
        """The complete lines since the last call; each counts as read when the next one is requested."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position - len(self.last))
            if file.read(len(self.last)) != self.last:  # the file was rewritten
                self.position, self.last, self.renewals, self.hash = 0, b"", self.renewals + 1, hashlib.sha256()
            file.seek(self.position)
            begun = self.position
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if line.strip():
                    yield line
                self.position, self.last = self.position + len(line), line
                self.hash.update(line)
            if self.position != begun:
                write_sealed(self.note, vars(_Read(self.position, self.hash.hexdigest())), durable=False)

    def check(self) -> None:
        """Refuse a file that was changed since an earlier start read it; report one that was cut short.

        Raises:
            Damaged: if it was changed.
        """
        if not (self.path.exists() and self.note.exists()):
            return
        try:
            read = as_record(_Read, read_sealed(self.note), self.note)
        except Damaged as error:
            log.warning("note: %s is not compared with the lines that were read before: %s", self.path, error)
            return
        content = self.path.read_bytes()
        if len(content) < read.bytes:
            log.warning("note: %s lacks lines that were read before; their records stay", self.path)
        elif hashlib.sha256(content[: read.bytes]).hexdigest() != read.sha256:
            raise Damaged(
                f"{self.path} was changed after it was read: restore it, or remove {self.note.name} if you "
                "changed it yourself"
            )

    def set_aside(self) -> Path:
        """Keep a copy of the file under another name, and remove the unread lines from the file."""
        aside = self.path.with_suffix(".rejected.jsonl")
        content = self.path.read_bytes()
        aside.write_bytes(content)
        os.truncate(self.path, min(self.position, len(content)))
        return aside
