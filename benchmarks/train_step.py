"""Our training step against litgpt's GPT and transformers' Gemma: the same sizes, weights' number, tokens and optimiser.

    python benchmarks/train_step.py [--shape 256x4] [--context 256] [--batch 4] [--vocab 50304] [--threads 1]
        [--rounds 6] [--parity] [--nano] [--parts] [--out benchmarks/results/NAME.txt]

A step is zero_grad, forward, backward, clip and AdamW (fused, for all) in float32. The rivals take turns, a step each, so
that all see the same machine; the ratio is the median over the rounds. On one thread, CPU time is measured, which other
programs disturb least; on more, wall time. litgpt pins an old transformers, so it runs in an environment of its own:

    python3 -m venv .venv-litgpt && .venv-litgpt/bin/pip install litgpt==0.5.13
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from shapelaw.counting import flops_exact
from shapelaw.model import ModelSpec, Transformer, gemma_config, initialise, kernels, loss
from shapelaw.model.cpu_memory import keep_freed_memory
from shapelaw.optim import build_adamw, clip_gradients
from shapelaw.shapes import Shape
from shapelaw.thresholds import chunk_rows

ROOT = Path(__file__).resolve().parents[1]
NANO = ("32x2", "64x4", "128x2", "32x16", "256x1")
NANO_HEAD_SIZE = 16
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**31 - 1), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""What `keep_freed_memory` does, for the processes of rivals; the one in our process has it anyway."""

_report: list[str] = []


def say(line: str = "") -> None:
    """Prints a line and keeps it for the results file."""
    print(line, flush=True)
    _report.append(line)


@dataclass(frozen=True)
class Case:
    """What is measured: the model's sizes and the batch."""

    spec: ModelSpec
    batch: int
    threads: int

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.spec.seq_len

    @property
    def clock(self) -> str:
        """Name of the clock in `time`."""
        return "process_time" if self.threads == 1 else "perf_counter"

    @property
    def flops(self) -> float:
        """Exact FLOPs of a step."""
        shape, spec = self.spec.shape, self.spec
        per_token = flops_exact(shape.width, shape.depth, spec.vocab_size, spec.seq_len, shape.head_size).total
        return float(per_token) * self.tokens

    def batch_of_tokens(self) -> torch.Tensor:
        """Random tokens and targets (B, T + 1)."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(self.spec.vocab_size, (self.batch, self.spec.seq_len + 1), generator=generator)

    def sizes(self) -> dict[str, Any]:
        """For the litgpt worker."""
        shape, spec = self.spec.shape, self.spec
        own = {name: getattr(spec, name) for name in ("vocab_size", "seq_len", "rope_base", "norm_eps")}
        names = ("width", "depth", "head_size", "n_head", "n_kv_head", "intermediate")
        heads = {name: getattr(shape, name) for name in names}
        return {**own, **heads, "batch": self.batch, "threads": self.threads, "clock": self.clock}


def shape_of(text: str, head_size: int) -> Shape:
    """256x4 -> Shape(256, 4)."""
    width, depth = text.split("x")
    return Shape(int(width), int(depth), head_size)


def timed(step: Callable[[], Any], steps: int, clock: str) -> list[float]:
    """Seconds of each step."""
    now, seconds = getattr(time, clock), []
    for _ in range(steps):
        start = now()
        step()
        seconds.append(now() - start)
    return seconds


def our_step(case: Case) -> Callable[[], Any]:
    """shapelaw's step."""
    model = Transformer(case.spec)
    initialise(model, seed=0)
    optimiser, tokens = build_adamw(model, 1e-4), case.batch_of_tokens()
    parameters = list(model.parameters())

    def step() -> None:
        optimiser.zero_grad()
        torch.autograd.backward(model.loss(tokens))
        clip_gradients(parameters)
        optimiser.step()

    return step


def gemma_step(case: Case) -> Callable[[], Any]:
    """The same with transformers' GemmaForCausalLM."""
    from transformers import GemmaConfig, GemmaForCausalLM

    model = GemmaForCausalLM(GemmaConfig(**gemma_config(case.spec), use_cache=False))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = case.batch_of_tokens()

    def step() -> None:
        optimiser.zero_grad()
        logits = model(input_ids=tokens[:, :-1]).logits
        torch.autograd.backward(nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()

    return step


class Litgpt:
    """litgpt's GPT in its own environment, obeying over a pipe.

    Args:
        chunk_size: rows of litgpt's chunked cross entropy; its pretraining script uses 128, 0 is unchunked.
        keeps_memory: whether its C library keeps freed memory, as ours does in training.
    """

    def __init__(self, python: Path, case: Case, chunk_size: int, keeps_memory: bool) -> None:
        sizes = json.dumps({**case.sizes(), "chunk_size": chunk_size})
        self._process = subprocess.Popen(
            [str(python), str(ROOT / "benchmarks" / "litgpt_worker.py"), sizes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(case.threads), **(KEEP_MEMORY if keeps_memory else {})},
        )
        self.about = self._answer()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Sends a command and waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"litgpt's process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def rivals(case: Case, litgpt: Mapping[str, Litgpt]) -> dict[str, Callable[[int], list[float]]]:
    """Each contestant as a function from a number of steps to their seconds; ours first."""
    ours, gemma = our_step(case), gemma_step(case)
    asked = {
        name: (lambda steps, worker=worker: worker.ask(do="step", steps=steps)["seconds"])
        for name, worker in litgpt.items()
    }
    return {
        "shapelaw": lambda steps: timed(ours, steps, case.clock),
        **asked,
        "transformers Gemma": lambda steps: timed(gemma, steps, case.clock),
    }


def compare(case: Case, litgpt: Mapping[str, Litgpt], rounds: int) -> None:
    """Prints tokens per second of everyone and the ratios."""
    contestants = rivals(case, litgpt)
    for run in contestants.values():
        run(2)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            seconds[name] += run(1)
    say(f"{'':24}{'tokens/s':>10}{'best':>10}{'GFLOP/s':>10}{'ours is faster by':>20}")
    for name, times in seconds.items():
        ratio = median(theirs / ours for ours, theirs in zip(seconds["shapelaw"], times, strict=True))
        speed = f"{case.tokens / median(times):>10.0f}{case.tokens / min(times):>10.0f}"
        say(f"{name:24}{speed}{case.flops / median(times) / 1e9:>10.1f}{ratio:>19.2f}x")


def litgpt_names(weights: Mapping[str, torch.Tensor], shape: Shape) -> dict[str, torch.Tensor]:
    """Our weights or gradients under litgpt's names (its fused matrix has our order); logits and loss keep theirs."""
    names = {
        "embedding.weight": "transformer.wte.weight",
        "norm.weight": "transformer.ln_f.weight",
        "head.weight": "lm_head.weight",
    }
    renamed = {names.get(old, old): weights[old] for old in (*names, "logits", "loss") if old in weights}
    inside = {"norm_1": "norm_1", "norm_2": "norm_2", "attention.qkv": "attn.qkv", "attention.out": "attn.proj"}
    for layer in range(shape.depth):
        ours, theirs = f"blocks.{layer}.", f"transformer.h.{layer}."
        renamed |= {f"{theirs}{new}.weight": weights[f"{ours}{old}.weight"] for old, new in inside.items()}
        gate, up = weights[ours + "mlp.gate_up.weight"].chunk(2)
        renamed |= {theirs + "mlp.fc_1.weight": gate, theirs + "mlp.fc_2.weight": up}
        renamed[theirs + "mlp.proj.weight"] = weights[ours + "mlp.down.weight"]
    return renamed


def parity(case: Case, worker: Litgpt) -> None:
    """Logits, loss and gradients of both for the same weights, each against ours in float64."""
    model, tokens = Transformer(case.spec), case.batch_of_tokens()
    initialise(model, seed=1)
    shape = case.spec.shape
    with tempfile.TemporaryDirectory() as folder:
        given, out = f"{folder}/given.pt", f"{folder}/out.pt"
        torch.save({"weights": litgpt_names(model.state_dict(), shape), "tokens": tokens}, given)
        worker.ask(do="parity", given=given, out=out)
        theirs = torch.load(out)
    ours, exact = (litgpt_names(_results(m, tokens), shape) for m in (model, copy.deepcopy(model).double()))
    right = True
    say("largest errors over largest values, against float64:")
    for name, values in (("logits", ["logits"]), ("loss", ["loss"]), ("gradients", list(theirs["gradients"]))):
        their_values = theirs["gradients"] if name == "gradients" else theirs
        our_error, their_error = (
            max(_difference(given[value].double(), exact[value]) for value in values) for given in (ours, their_values)
        )
        right &= our_error <= 2 * their_error + 1e-7
        say(f"  {name:10} ours {our_error:.1e}, litgpt {their_error:.1e}")
    say("parity OK" if right else "parity FAILED")


def _results(model: Transformer, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradients by parameter name, logits and loss."""
    value = model.loss(tokens)
    torch.autograd.backward(value)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return {**gradients, "logits": model(tokens[:, :-1]).detach(), "loss": value.detach()}


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def nano_table(threads: int) -> None:
    """Tokens per second of the nano suite's kind of shapes; the batch hardly matters."""
    batches = (16, 32, 64)
    say("nano shapes, head size 16, 128 tokens, vocabulary 256: tokens/s (best), by sequences a batch")
    say(
        f"{'shape':>8}"
        + "".join(f"{batch:>10}" for batch in batches)
        + f"{'GFLOP/s':>10}{'16, without our kernels':>26}"
    )
    for name in NANO:
        cases = [Case(ModelSpec(shape_of(name, NANO_HEAD_SIZE), 256, 128), batch, threads) for batch in batches]
        speeds = [_best_speed(case) for case in cases]
        rate = cases[0].flops / cases[0].tokens * speeds[0] / 1e9
        shown = "".join(f"{speed:>10.0f}" for speed in speeds)
        say(f"{name:>8}{shown}{rate:>10.1f}{_best_speed(cases[0], plain=True):>26.0f}")


def _best_speed(case: Case, plain: bool = False, seconds: float = 3.0) -> float:
    """Tokens per second of the fastest step; `plain` takes torch's own operations."""
    kernels.FAST_THREADS_MAX, before = (0 if plain else kernels.FAST_THREADS_MAX), kernels.FAST_THREADS_MAX
    step, end = our_step(case), time.perf_counter() + seconds
    times: list[float] = []
    while time.perf_counter() < end or len(times) < 5:
        times += timed(step, 1, case.clock)
    kernels.FAST_THREADS_MAX = before
    return case.tokens / min(times)


def parts_table(case: Case) -> None:
    """What the choices inside a step are worth: form of AdamW, chunks of the cross entropy."""
    say("AdamW, milliseconds a step (best of 8)")
    for spec in (case.spec, ModelSpec(Shape(32, 16, NANO_HEAD_SIZE), 256, 128), ModelSpec(Shape(128, 2, 16), 256, 128)):
        times = {
            form: 1e3 * min(timed(_adamw_step(spec, form), 8, case.clock)) for form in ("fused", "foreach", "loop")
        }
        told = "  ".join(f"{form} {value:.2f}" for form, value in times.items())
        say(f"  {spec.shape.name} vocabulary {spec.vocab_size}: {told}")
    for vocab, width in ((256, 32), (50_304, 256)):
        loss_table(vocab, width, case.clock)


def loss_table(vocab: int, width: int, clock: str, rows: int = 1024) -> None:
    """Chunks of the cross entropy, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    head = torch.randn(vocab, width, generator=generator, requires_grad=True)
    targets = torch.randint(vocab, (rows,), generator=generator)

    def milliseconds(value: Callable[[], torch.Tensor]) -> float:
        return 1e3 * min(timed(lambda: torch.autograd.backward(value()), 6, clock))

    def plain() -> torch.Tensor:
        return nn.functional.cross_entropy(hidden @ head.t(), targets)

    say(f"cross entropy of {rows} rows, width {width}, vocabulary {vocab}, forward and backward, ms (best of 6)")
    chosen = chunk_rows(rows, vocab, "cpu")
    for chunk in sorted({32, 128, 256, chosen, rows}):
        ours = milliseconds(partial(loss.cross_entropy, hidden, head, targets, chunk))
        say(f"  {chunk:5} rows a chunk {ours:9.2f}" + ("  (chosen)" if chunk == chosen else ""))
    say(f"  torch, all logits  {milliseconds(plain):9.2f}")


def _adamw_step(spec: ModelSpec, form: str) -> Callable[[], Any]:
    model = Transformer(spec)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    fused, foreach = form == "fused", form == "foreach"
    return torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=fused, foreach=foreach).step


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]}, {len(models)} cores" if models else platform.processor()


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="256x4")
    parser.add_argument("--head-size", type=int, default=128)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=50_304)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--parity", action="store_true", help="logits and gradients against litgpt's, and no timing of it"
    )
    parser.add_argument("--nano", action="store_true", help="tokens/s of nano shapes")
    parser.add_argument("--parts", action="store_true", help="AdamW's forms and chunks of the cross entropy")
    parser.add_argument("--litgpt-python", type=Path, default=ROOT / ".venv-litgpt" / "bin" / "python")
    parser.add_argument("--out", type=Path, help="also write the report here")
    return parser.parse_args()


def main() -> None:
    """Runs what was asked for; without --parity, --nano or --parts, the comparison."""
    asked = options()
    torch.set_num_threads(asked.threads)
    keep_freed_memory()
    case = Case(
        ModelSpec(shape_of(asked.shape, asked.head_size), asked.vocab, asked.context), asked.batch, asked.threads
    )
    say(f"{datetime.date.today()}  python benchmarks/train_step.py {' '.join(sys.argv[1:])}")
    say(f"{_processor()}; {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}")
    only_parts = asked.nano or asked.parts
    if asked.parity or not only_parts:
        against_litgpt(asked, case)
    if asked.nano:
        nano_table(asked.threads)
    if asked.parts:
        parts_table(case)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text("\n".join(_report) + "\n")


def against_litgpt(asked: argparse.Namespace, case: Case) -> None:
    """Parity or the comparison; without litgpt's environment, the comparison with transformers alone."""
    variants = {"litgpt": (128, False), "litgpt, memory kept": (128, True), "litgpt, and loss in one": (0, True)}
    if not asked.litgpt_python.exists():
        say(f"litgpt: no environment at {asked.litgpt_python}; see the top of this file")
        variants = {}
    workers = {name: Litgpt(asked.litgpt_python, case, *variant) for name, variant in variants.items()}
    say(
        f"{case.spec.shape.name} vocabulary {case.spec.vocab_size}, {case.batch} x {case.spec.seq_len} tokens, float32, "
        f"{case.threads} thread(s), {case.clock}"
    )
    for worker in list(workers.values())[:1]:
        say(f"litgpt 0.5.13: torch {worker.about['torch']}, {worker.about['params']:,} parameters")
        if asked.parity:
            parity(case, worker)
    if not asked.parity:
        compare(case, workers, asked.rounds)
    for worker in workers.values():
        worker.close()


if __name__ == "__main__":
    main()
