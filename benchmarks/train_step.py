"""Our training step against litgpt's GPT and transformers' Gemma: the same sizes, weights' number, tokens and optimizer.

    python benchmarks/train_step.py [--shape 256x23,512x12] [--device auto] [--rounds 6] [--parity] [--nano] [--parts] ...

A step is zero_grad, forward, backward, clip and AdamW (fused, for all). Every contestant is a process of its own; litgpt
pins an old transformers, so its process is of an environment of its own:

    python3 -m venv .venv-litgpt && .venv-litgpt/bin/pip install litgpt==0.5.13

On a CPU (by default 256x4, 4 x 256 tokens, float32) the contestants take turns, a step each, so that all see the same
machine; the ratio is the median over the rounds. On one thread, CPU time is measured, which other programs disturb least; on
more, wall time. On a GPU (by default five of the Gemstones' shapes, 2048 tokens, bfloat16) they come one after the other, as
each takes much of its memory; a round is several steps between two events.

MFU is a step's FLOPs, by the exact count and by 6 N with all parameters, over the rate of a product of large random matrices
(bfloat16 on a GPU, else float32 on as many threads) in the same run; 6 N counts the embedding, a look-up, as a product, and
so may pass 100% where the vocabulary is most of a model. Peak memory: what torch allocates at a time in a step.
The report is written to benchmarks/results/train_step_DEVICE.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from rivals.case import SEQUENCES_GPU, Case, processor, shape_of, slug
from rivals.entrants import OURS, CouldNot, Entrant, Worker, entrants, python_of

from shapelaw.model import ModelSpec

ROOT = Path(__file__).resolve().parents[1]
STEPS_GPU = 5
"""Steps of a round."""
WARM_UP = 3


@dataclass
class Measured:
    """What a contestant did, or why it did not."""

    seconds: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    version: str = ""
    error: str = ""


def measure(case: Case, contestants: Sequence[Entrant], rounds: int, litgpt: Path) -> dict[str, Measured]:
    """Everyone's seconds a step, round by round; on a CPU all are there at once and take turns."""
    found = {entrant.name: Measured() for entrant in contestants}
    for together in [[one] for one in contestants] if case.gpu else [contestants]:
        with contextlib.ExitStack() as stack:
            workers = []
            for entrant in together:
                with _told(found[entrant.name]):
                    worker = Worker(entrant, case, python_of(entrant, litgpt))
                    stack.callback(worker.close)
                    found[entrant.name].version = worker.about["version"]
                    worker.ask(do="step", steps=WARM_UP)
                    workers.append(worker)
            for _ in range(rounds):
                for worker in workers:
                    _round(worker, found[worker.entrant.name], STEPS_GPU if case.gpu else 1)
            for worker in workers:
                with _told(found[worker.entrant.name]):
                    found[worker.entrant.name].peak_bytes = worker.ask(do="peak")["bytes"]
    return found


def _round(worker: Worker, measured: Measured, steps: int) -> None:
    with _told(measured):
        measured.seconds += worker.ask(do="step", steps=steps)["seconds"]
        if worker.entrant.name == OURS:
            measured.rates.append(worker.ask(do="rate")["flops"])


@contextlib.contextmanager
def _told(measured: Measured) -> Iterator[None]:
    """What could not be done becomes a line of the report."""
    try:
        yield
    except (CouldNot, FileNotFoundError) as error:
        measured.error = measured.error or str(error)


def table(case: Case, found: dict[str, Measured]) -> Iterator[str]:
    """A line a contestant: tokens per second, MFU, memory, and the median of its seconds over ours."""
    ours = found[OURS]
    rates = [rate for one in found.values() for rate in one.rates]
    rate = median(rates) if rates else float("nan")
    yield f"{case.title}; matrix rate {rate / 1e9:,.1f} GFLOP/s"
    head = f"{'tokens/s':>10}{'best':>10}{'GFLOP/s':>11}{'MFU':>7}{'by 6N':>7}{'peak MiB':>10}{'ours is faster by':>19}"
    yield f"{'':24}{head}"
    for name, one in found.items():
        if one.error:
            yield f"{name:24}{one.error}"
            continue
        typical = median(one.seconds)
        speeds = f"{case.tokens / typical:>10,.0f}{case.tokens / min(one.seconds):>10,.0f}"
        shares = f"{case.flops / typical / rate:>7.1%}{case.flops_6n / typical / rate:>7.1%}"
        ratios = [theirs / our for our, theirs in zip(ours.seconds, one.seconds, strict=False)]
        ratio = f"{median(ratios):>18.2f}x" if ratios else f"{'-':>19}"
        yield f"{name:24}{speeds}{case.flops / typical / 1e9:>11,.1f}{shares}{one.peak_bytes / 2**20:>10,.0f}{ratio}"


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", help="WIDTHxDEPTH, several with commas")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--head-size", type=int, default=128)
    parser.add_argument("--context", type=int, help="tokens of a sequence")
    parser.add_argument("--batch", type=int, help="sequences of a step")
    parser.add_argument("--vocab", type=int, default=50_304)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--only", help="contestants whose name holds one of these texts, with commas; ours always")
    parser.add_argument("--parity", action="store_true", help="logits and gradients against litgpt's, and no timing")
    parser.add_argument("--nano", action="store_true", help="tokens/s of nano shapes on a CPU")
    parser.add_argument("--parts", action="store_true", help="AdamW's forms and chunks of the cross entropy on a CPU")
    parser.add_argument("--litgpt-python", type=Path, default=ROOT / ".venv-litgpt" / "bin" / "python")
    parser.add_argument("--out", type=Path, help="file of the report")
    return parser.parse_args()


def cases(asked: argparse.Namespace, gpu: bool) -> list[Case]:
    """The shapes that are asked for, or the device's own."""
    names = (asked.shape or (",".join(SEQUENCES_GPU) if gpu else "256x4")).split(",")
    context = asked.context or (2048 if gpu else 256)
    return [
        Case(
            ModelSpec(shape_of(name, asked.head_size), asked.vocab, context),
            asked.batch or (SEQUENCES_GPU.get(name, 4) if gpu else 4),
            asked.threads,
            gpu,
        )
        for name in names
    ]


def compared(asked: argparse.Namespace, gpu: bool) -> Iterator[str]:
    """The comparison, shape by shape."""
    texts = asked.only.split(",") if asked.only else [""]
    chosen = [one for one in entrants(gpu) if one.name == OURS or any(text in one.name for text in texts)]
    versions: dict[str, str] = {}
    for case in cases(asked, gpu):
        found = measure(case, chosen, asked.rounds, asked.litgpt_python)
        versions |= {one.who: found[one.name].version for one in chosen if found[one.name].version}
        yield from table(case, found)
    yield "versions: " + ", ".join(f"{who} {version}" for who, version in versions.items())


def report(asked: argparse.Namespace, gpu: bool, device: str) -> Iterator[str]:
    """The lines of the report."""
    yield f"{datetime.date.today()}  python benchmarks/train_step.py {' '.join(sys.argv[1:])}".rstrip()
    software = f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    yield f"{device}; {software}; load {os.getloadavg()[0]:.1f}"
    if not (asked.parity or asked.nano or asked.parts):
        yield from compared(asked, gpu)
    torch.set_num_threads(asked.threads)
    case = cases(asked, gpu=False)[0]
    if asked.parity:
        from rivals.parity import parity

        yield case.title
        with contextlib.closing(Worker(entrants(gpu=False)[1], case, asked.litgpt_python)) as worker:
            yield f"litgpt {worker.about['version']}: torch {worker.about['torch']}, {worker.about['params']:,} parameters"
            yield from parity(case, worker)
    if asked.nano or asked.parts:
        from rivals.parts import nano_table, parts_table

        yield from nano_table(asked.threads) if asked.nano else ()
        yield from parts_table(case) if asked.parts else ()


def main() -> None:
    """Prints the report line by line, then writes it."""
    asked = options()
    gpu = asked.device == "cuda" or (asked.device == "auto" and torch.cuda.is_available())
    device = torch.cuda.get_device_name() if gpu else processor()
    kind = "".join(f"_{name}" for name in ("parity", "nano", "parts") if getattr(asked, name))
    out = asked.out or ROOT / "benchmarks" / "results" / f"train_step_{slug(device)}{kind}.txt"
    lines = []
    for line in report(asked, gpu, device):
        print(line, flush=True)
        lines.append(line)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
