"""The held-out loss of one model: a sum over windows that resumes after an interruption, bit for bit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from shapelaw.data.corpus import Int64s
from shapelaw.errors import Damaged
from shapelaw.evaluation.held_out import HeldOut
from shapelaw.evaluation.models import Evaluated, Facts
from shapelaw.files import as_record, read_sealed, write_sealed

NOTE_SECONDS = 2.0
"""Time between two records of a sum's progress."""
Show = Callable[[int, int], None]
"""Called with the number of finished windows and their total."""


@dataclass(frozen=True)
class Sample:
    """The sample on which a model is measured.

    Args:
        corpus: name of the corpus.
        corpus_hash: hash of the corpus's content, tokenizer and split.
        context: predicted tokens of a window.
        asked_tokens: requested number of predicted tokens; None for all.
        batch_sequences: windows of a forward pass.
        precision: precision of the matrix products.
    """

    corpus: str
    corpus_hash: str
    context: int
    asked_tokens: int | None
    batch_sequences: int
    precision: str


@dataclass(frozen=True)
class Evaluation:
    """The held-out loss of a model.

    Args:
        model: facts about the model.
        sample: the sample.
        windows: number of its windows.
        predicted_tokens: windows * context, including separators.
        text_bytes: UTF-8 bytes of the text that these tokens stand for.
        nats: sum of -log p over them.
    """

    model: Facts
    sample: Sample
    windows: int
    predicted_tokens: int
    text_bytes: int
    nats: float

    @property
    def loss(self) -> float:
        """Nats per token of the model's own tokenizer."""
        return self.nats / self.predicted_tokens

    @property
    def loss_per_byte(self) -> float:
        """Nats per byte of text."""
        return self.nats / self.text_bytes

    @property
    def bits_per_byte(self) -> float:
        """loss_per_byte / ln 2."""
        return self.loss_per_byte / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(loss); infinite if that is too large for a number."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


@dataclass(frozen=True)
class _Partial:
    """Progress of a sum: finished windows, and their nats."""

    key: dict[str, Any]
    windows: int = 0
    nats: float = 0.0


def measure(
    model: Evaluated, text: HeldOut, sample: Sample, file: Path, show: Show = lambda done, total: None
) -> Evaluation:
    """The mean loss of a model over windows of a held-out text.

    Args:
        model: the model, on its device.
        text: the text, as the model's tokens.
        sample: selects the windows, and their number per batch.
        file: record of the sum's progress, from which it resumes.
        show: called after every batch.

    Raises:
        UserError: if the text is shorter than one window.
    """
    windows = text.windows(sample.context, sample.asked_tokens)
    at = _partial(file, {"model": model.facts.identity, **asdict(sample), "windows": len(windows)})
    noted = time.monotonic()
    try:
        while at.windows < len(windows):
            chosen = windows[at.windows : at.windows + sample.batch_sequences]
            nats = model.nats(torch.from_numpy(text.rows(chosen, sample.context)))
            at = _Partial(at.key, at.windows + len(chosen), at.nats + nats)
            show(at.windows, len(windows))
            if time.monotonic() - noted > NOTE_SECONDS:
                _note(file, at)
                noted = time.monotonic()
    except BaseException:
        _note(file, at)
        raise
    return _evaluation(model.facts, text, sample, windows, at.nats)


def _evaluation(facts: Facts, text: HeldOut, sample: Sample, windows: Int64s, nats: float) -> Evaluation:
    size = text.predicted_bytes(windows, sample.context)
    return Evaluation(facts, sample, len(windows), len(windows) * sample.context, size, nats)


def _partial(file: Path, key: dict[str, Any]) -> _Partial:
    """The recorded progress of exactly this sum; with a record of another one, or a damaged record, it starts again."""
    try:
        found = as_record(_Partial, read_sealed(file), file)
    except (FileNotFoundError, Damaged):
        return _Partial(key)
    return found if found.key == key else _Partial(key)


def _note(file: Path, at: _Partial) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(file, asdict(at), durable=False)
