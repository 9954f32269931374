"""A spike that is planted: the batches that make it are known, and the last bits of a processor decide nothing."""

from __future__ import annotations

import hashlib

import pytest
import torch

from shapelaw.data import Loader, load_corpus
from shapelaw.planned_run import corpus_folder
from shapelaw.training.module import RunModule
from support import Compose, prepared

SPIKES = (
    "tokens=12800",
    "lr_base=50",
    "schedule.warmup_tokens=12800",
    "optim.clip_norm=0",
    "spikes.least_steps=16",
    "spikes.every_steps=4",
)
"""100 steps; a loss of 7.3 nats falls to 1.2 by its end where no batch is bad."""
ROLLS_BACK = (*SPIKES, "spikes=rollback", "spikes.lr_factor=0.1")
BAD = (*range(20, 23), *range(60, 63))
"""Batches of the order whose loss and gradient are `FACTOR` times what they would be: two spikes."""
FACTOR = 1e3


def plant(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make batches `BAD` of the order bad wherever they come; a batch is known by its tokens.

    Unclipped, their gradients fill AdamW's second moments, and the weights hardly move for the rest of such a run.
    """
    config, planned = prepared(composed, *SPIKES)
    loader = Loader.of(load_corpus(corpus_folder(config)), planned.seq_len, config.order_seed)
    size = planned.batch_sequences
    bad = {fingerprint(torch.from_numpy(loader.rows(number * size, size))) for number in BAD}
    assert len(bad) == len(BAD)
    real = RunModule._gradients

    def gradients(module: RunModule, batch: torch.Tensor) -> torch.Tensor:
        loss = real(module, batch)
        if fingerprint(batch) not in bad:
            return loss
        for parameter in module.model.parameters():
            assert parameter.grad is not None
            parameter.grad *= FACTOR
        return loss * FACTOR

    monkeypatch.setattr(RunModule, "_gradients", gradients)


def fingerprint(batch: torch.Tensor) -> str:
    """Hash of the tokens of a batch."""
    return hashlib.sha256(batch.numpy().tobytes()).hexdigest()
