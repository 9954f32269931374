"""Models to evaluate: a run's checkpoint, computed by its own model, and a model of transformers, computed by transformers.

B windows, T predicted tokens, V vocabulary.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from shapelaw.config import Precision
from shapelaw.model import Transformer
from shapelaw.training.stored import StoredCheckpoint

CONTEXT_MAX = 4096
"""Default context of a model of transformers that supports more."""
CHUNK_BYTES = 2**26
"""Most bytes of float32 logits at a time."""
BATCH_BYTES = 2**28
"""Approximate bytes of the logits of one forward pass, if no batch is requested."""
BATCH_MAX = 64


class Evaluated(Protocol):
    """A model on its device."""

    @property
    def facts(self) -> Facts:
        """Facts about it."""

    def nats(self, rows_BT1: torch.Tensor) -> float:
        """Sum of -log p(token t + 1 | tokens 0..t) over all windows and predicted tokens."""


@dataclass(frozen=True)
class Facts:
    """Facts about a model.

    Args:
        name: name for people.
        source: its place.
        identity: changes with its weights.
        params: parameters, including embedding and head.
        width, depth: features of the residual stream, and blocks.
        vocab_size: rows of the head.
        tokens: its training tokens; None if unknown.
    """

    name: str
    source: str
    identity: str
    params: int
    width: int
    depth: int
    vocab_size: int
    tokens: float | None = None


@dataclass(frozen=True)
class Place:
    """Device and precision of a model.

    Args:
        device: device of the forward passes.
        precision: precision of the matrix products; losses and sums are float32 or better.
    """

    device: torch.device
    precision: Precision

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights of a model without a float32 copy."""
        return torch.bfloat16 if self.precision is Precision.bf16 else torch.float32

    def autocast(self) -> AbstractContextManager[Any]:
        """bf16 products of float32 weights, as in training; no effect in float32."""
        if self.precision is Precision.bf16:
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()


def place_of(accelerator: str, precision: Precision) -> Place:
    """The requested device, and the requested precision or else bf16 on a GPU."""
    gpu = accelerator != "cpu" and torch.cuda.is_available()
    if precision is Precision.auto:
        precision = Precision.bf16 if gpu else Precision.fp32
    return Place(torch.device("cuda" if gpu else "cpu"), precision)


def batch_for(context: int, vocab_size: int) -> int:
    """Windows of one forward pass: a function of the model alone, so that an interrupted sum resumes identically."""
    return max(1, min(BATCH_MAX, BATCH_BYTES // (4 * context * vocab_size)))


@dataclass(frozen=True)
class OwnModel:
    """A run's checkpoint.

    Args:
        model: the model with its weights, on its device.
        facts: facts about it.
        place: device and precision.
    """

    model: Transformer = field(repr=False)
    facts: Facts
    place: Place

    @torch.no_grad()
    def nats(self, rows_BT1: torch.Tensor) -> float:
        """Sum of the losses of the windows; the same code that validates a run."""
        with self.place.autocast():
            mean = self.model.loss(rows_BT1.to(self.place.device))
        return float(mean.double()) * rows_BT1[:, 1:].numel()


def own_facts(checkpoint: StoredCheckpoint) -> Facts:
    """Facts about a checkpoint, without reading its weights."""
    from safetensors import safe_open

    from shapelaw.training.checkpoint import MODEL

    with safe_open(checkpoint.path / MODEL, "pt") as file:
        sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    return Facts(
        name=f"{checkpoint.run.name}/step-{checkpoint.step}",
        source=str(checkpoint.path),
        identity=_hash((checkpoint.path / "state.json").read_bytes()),
        params=sum(torch.Size(size).numel() for size in sizes.values()),
        width=checkpoint.shape.width,
        depth=checkpoint.shape.depth,
        vocab_size=sizes["embedding.weight"][0],
        tokens=checkpoint.tokens,
    )


def load_own(checkpoint: StoredCheckpoint, facts: Facts, place: Place) -> OwnModel:
    """A checkpoint, ready to be evaluated.

    Raises:
        UserError: if it is damaged.
    """
    model = Transformer(checkpoint.spec(facts.vocab_size))
    model.load_state_dict(checkpoint.weights())
    return OwnModel(model.eval().to(place.device), facts, place)


@dataclass(frozen=True)
class TransformersModel:
    """A causal model of transformers.

    Args:
        model: the model with its weights, on its device.
        opening: ids that it expects before any text.
        facts: facts about it.
        place: device and precision.
    """

    model: Any = field(repr=False)
    opening: tuple[int, ...]
    facts: Facts
    place: Place

    @torch.inference_mode()
    def nats(self, rows_BT1: torch.Tensor) -> float:
        """Sum of the cross entropies of the logits, in float32 for any precision of the logits."""
        rows = rows_BT1.to(self.place.device)
        opening = rows.new_tensor(self.opening).expand(len(rows), -1)
        inputs = torch.cat([opening, rows[:, :-1]], dim=1)
        logits_BTV = self.model(input_ids=inputs, use_cache=False).logits[:, opening.shape[1] :]
        return _cross_entropy(logits_BTV.flatten(0, 1), rows[:, 1:].flatten())


def _cross_entropy(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> float:
    """Sum over rows, a chunk of rows at a time: a vocabulary of 256,000 makes 4 GB of 4,096 rows in float32."""
    chunk = max(1, CHUNK_BYTES // (4 * logits_NV.shape[1]))
    total = torch.zeros((), dtype=torch.float64, device=logits_NV.device)
    for logits, targets in zip(torch.split(logits_NV, chunk), torch.split(targets_N, chunk), strict=True):
        total += torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").double()
    return float(total)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
