"""What is measured: sizes, batch, device, and the FLOPs of a step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shapelaw.counting import flops_exact, params_total
from shapelaw.model import ModelSpec
from shapelaw.shapes import Shape

SEQUENCES_GPU = {"256x23": 16, "512x12": 16, "768x45": 8, "1024x28": 8, "2048x27": 4}
"""Sequences of 2048 tokens that all contestants should find room for in 80 GB; 4 for other shapes."""


@dataclass(frozen=True)
class Case:
    """A shape and a batch on a device.

    Args:
        spec: the model's sizes.
        batch: sequences of a step.
        threads: CPU threads.
        gpu: whether on one, in bfloat16 (autocast over float32 weights); else float32.
    """

    spec: ModelSpec
    batch: int
    threads: int
    gpu: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.spec.seq_len

    @property
    def clock(self) -> str:
        """What is read: CPU time of one thread, which other programs disturb least; wall time of more; a GPU's own events."""
        return "cuda events" if self.gpu else "process_time" if self.threads == 1 else "perf_counter"

    @property
    def flops(self) -> float:
        """Exact FLOPs of a step."""
        shape, spec = self.spec.shape, self.spec
        per_token = flops_exact(shape.width, shape.depth, spec.vocab_size, spec.seq_len, shape.head_size).total
        return float(per_token) * self.tokens

    @property
    def flops_6n(self) -> float:
        """6 N FLOPs a token, N all parameters."""
        shape = self.spec.shape
        return 6.0 * float(params_total(shape.width, shape.depth, self.spec.vocab_size, shape.head_size)) * self.tokens

    @property
    def title(self) -> str:
        """One line for people."""
        where = "bfloat16 (autocast), fused AdamW" if self.gpu else f"float32, {self.threads} thread(s)"
        spec = self.spec
        sizes = f"{spec.shape.name} vocabulary {spec.vocab_size}, {self.batch} x {spec.seq_len} tokens"
        return f"{sizes}, {where}, {self.clock}"

    def batch_of_tokens(self) -> torch.Tensor:
        """Random tokens and targets (B, T + 1)."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(self.spec.vocab_size, (self.batch, self.spec.seq_len + 1), generator=generator)

    def sizes(self) -> dict[str, Any]:
        """For a worker, which may not have shapelaw: everything in plain numbers."""
        shape, spec = self.spec.shape, self.spec
        own = {name: getattr(spec, name) for name in ("vocab_size", "seq_len", "rope_base", "norm_eps")}
        names = ("width", "depth", "head_size", "n_head", "n_kv_head", "intermediate")
        heads = {name: getattr(shape, name) for name in names}
        return {**own, **heads, "batch": self.batch, "threads": self.threads, "clock": self.clock, "gpu": self.gpu}


def spec_of(sizes: dict[str, Any]) -> ModelSpec:
    """The model of a worker's sizes."""
    shape = Shape(sizes["width"], sizes["depth"], sizes["head_size"])
    return ModelSpec(shape, sizes["vocab_size"], sizes["seq_len"], sizes["rope_base"], sizes["norm_eps"])


def shape_of(text: str, head_size: int) -> Shape:
    """256x4 -> Shape(256, 4)."""
    width, depth = text.split("x")
    return Shape(int(width), int(depth), head_size)


def processor() -> str:
    """Name of this computer's processor, without what differs between its makes alone."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]}, {len(models)} cores" if models else "unknown processor"


def slug(device: str) -> str:
    """A device's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "_", device.split(",")[0].lower()).strip("_")
