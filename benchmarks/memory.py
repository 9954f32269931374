"""The estimated peak of a training step's memory over the measured one.

    python benchmarks/memory.py [WIDTHxDEPTH,VOCABULARY,CONTEXT,SEQUENCES,MICROS ...]

On a GPU in bfloat16, measured by torch.cuda.max_memory_allocated; on a CPU in float32 (our kernels with few threads) and
in bfloat16, by following every allocation of torch. Exit code 1 if an estimate is off by more than 15%.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

import torch
from allocations import Allocations

from shapelaw.model import ModelSpec, Transformer
from shapelaw.optim import build_adamw, clip_gradients
from shapelaw.shapes import Shape
from shapelaw.thresholds import FAST_THREADS_MAX
from shapelaw.training.memory import Arithmetic, StepMemory

CASES_CPU = ("128x4,1024,128,8,1", "256x4,8192,256,8,2", "256x2,50304,128,8,1")
CASES_GPU = ("256x23,50304,2048,8,1", "512x12,50304,2048,8,2", "1024x28,50304,2048,4,1", "2048x27,50304,2048,2,1")
TOLERANCE = 0.15
STEPS = 3
"""The first makes AdamW's moments."""


@dataclass(frozen=True)
class Case:
    """One step: shape, vocabulary, context, sequences of a micro-batch, micro-batches."""

    shape: Shape
    vocab_size: int
    seq_len: int
    sequences: int
    micros: int

    @staticmethod
    def parsed(text: str) -> Case:
        """Of `WIDTHxDEPTH,VOCABULARY,CONTEXT,SEQUENCES,MICROS`; the head size is the width's, at most 128."""
        name, *numbers = text.split(",")
        width, depth = map(int, name.split("x"))
        vocab_size, seq_len, sequences, micros = map(int, numbers)
        return Case(Shape(width, depth, min(width, 128)), vocab_size, seq_len, sequences, micros)

    def memory(self, work: Arithmetic) -> StepMemory:
        """Its estimate."""
        return StepMemory(self.shape, self.vocab_size, self.seq_len, self.sequences, self.micros, work)


class Step:
    """Model, optimizer and tokens of a case, on the device."""

    def __init__(self, case: Case, work: Arithmetic) -> None:
        self.device, self.bf16 = "cuda" if work.gpu else "cpu", work.bf16
        self.model = Transformer(ModelSpec(case.shape, case.vocab_size, case.seq_len)).to(self.device)
        self.optimizer = build_adamw(self.model, 1e-3)
        size = (case.sequences * case.micros, case.seq_len + 1)
        self.tokens = torch.randint(case.vocab_size, size, device=self.device)
        self.micros = case.micros

    def __call__(self) -> None:
        """As the training loop's."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            for piece in self.tokens.chunk(self.micros):
                torch.autograd.backward(self.model.loss(piece) / self.micros)
            clip_gradients(self.model.parameters())
            self.optimizer.step()
            self.optimizer.zero_grad()


def measured_bytes(step: Step) -> int:
    """The most that is allocated at a time once AdamW's moments are there."""
    if step.device == "cuda":
        step()
        torch.cuda.reset_peak_memory_stats()
        for _ in range(STEPS - 1):
            step()
        return torch.cuda.max_memory_allocated()
    with Allocations([*step.model.parameters(), *step.model.buffers(), step.tokens]) as allocated:
        for _ in range(STEPS):
            allocated.peak_bytes = allocated.bytes
            step()
    return allocated.peak_bytes


def arithmetics() -> dict[str, Arithmetic]:
    """The forms of this device's step."""
    if torch.cuda.is_available():
        return {"bf16": Arithmetic(gpu=True, bf16=True, kernels=False)}
    kernels = torch.get_num_threads() <= FAST_THREADS_MAX
    return {"fp32": Arithmetic(False, False, kernels), "bf16": Arithmetic(False, True, False)}


def main() -> int:
    """One line a case and form; 1 if an estimate is off by more than TOLERANCE."""
    worst = 0.0
    gpu = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    print(f"{name}; torch {torch.__version__}, Python {platform.python_version()}")
    print(f"{'case':<26} {'form':<5} {'estimate MiB':>12} {'measured MiB':>12} {'ratio':>6}")
    for text in sys.argv[1:] or (CASES_GPU if gpu else CASES_CPU):
        case = Case.parsed(text)
        for form, work in arithmetics().items():
            estimate, measured = case.memory(work).peak_bytes, measured_bytes(Step(case, work))
            worst = max(worst, abs(estimate / measured - 1))
            row = f"{estimate / 2**20:>12.1f} {measured / 2**20:>12.1f} {estimate / measured:>6.3f}"
            print(f"{text:<26} {form:<5} {row}", flush=True)
    print(f"largest error {worst:.1%}, allowed {TOLERANCE:.0%}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
