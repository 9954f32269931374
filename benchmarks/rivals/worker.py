"""One contestant in a process of its own, which obeys commands, one JSON object a line; it may lack shapelaw.

    {"do": "step", "steps": 3}    -> {"seconds": [...]}: of each step; on a GPU the mean of them all, by its own events
    {"do": "peak"}                -> {"bytes": ...}: the most that is allocated at a time in a step
    {"do": "rate"}                -> {"flops": ...}: FLOP/s of a product of large random matrices (bfloat16 on a GPU)
    {"do": "parity", "given": FILE, "out": FILE}   -> litgpt alone: loads weights and tokens, saves logits, loss, gradients

An answer {"error": ...} says what could not be done. Called by train_step.py with the sizes as one JSON object.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from allocations import Allocations

MODULES = {"shapelaw": "rivals.ours", "litgpt": "rivals.litgpt_gpt", "transformers": "rivals.gemma"}
MATRIX_GPU, MATRIX_CPU = 8192, 1024
PRODUCTS = 20


def timed(step: Callable[[], Any], steps: int, clock: str) -> list[float]:
    """Seconds of each step, or on a GPU their mean, with nothing between them that waits."""
    if clock == "cuda events":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        for _ in range(steps):
            step()
        end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 / steps]
    now, seconds = getattr(time, clock), []
    for _ in range(steps):
        before = now()
        step()
        seconds.append(now() - before)
    return seconds


@dataclass(frozen=True)
class Built:
    """A model, its optimizer and a whole step: gradients, clip, AdamW."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[], Any]


def torch_built(
    model: torch.nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], tokens: torch.Tensor, bf16: bool
) -> Built:
    """A step by torch's own functions: zero_grad, forward, backward, clip, AdamW (fused)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=bf16):
            value = loss(tokens)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return Built(model, optimizer, step)


def peak_bytes(contestant: Built) -> int:
    """As torch counts it on a GPU; on a CPU every allocation of a step is followed."""
    parameters = list(contestant.model.parameters())
    if parameters[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        contestant.step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    moments = [value for state in contestant.optimizer.state.values() for value in state.values()]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    with Allocations([*parameters, *gradients, *moments, *contestant.model.buffers()]) as allocated:
        contestant.step()
    return allocated.peak_bytes


def matrix_rate(gpu: bool, clock: str) -> float:
    """FLOP/s of the best of several products of random matrices."""
    size, device = (MATRIX_GPU, "cuda") if gpu else (MATRIX_CPU, "cpu")
    first, second = (torch.randn(size, size, device=device, dtype=torch.bfloat16 if gpu else None) for _ in range(2))
    out = torch.empty_like(first)
    several = PRODUCTS if gpu else 1
    seconds = min(timed(lambda: torch.mm(first, second, out=out), several, clock)[0] for _ in range(PRODUCTS))
    return 2.0 * size**3 / seconds


def main() -> None:
    """Serves commands until the input ends."""
    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(sizes["threads"])
    torch.manual_seed(0)
    module = importlib.import_module(MODULES[sizes["who"]])
    tokens = torch.randint(sizes["vocab_size"], (sizes["batch"], sizes["seq_len"] + 1))
    try:
        built: Built = module.build(sizes, tokens.to("cuda" if sizes["gpu"] else "cpu"))
    except torch.OutOfMemoryError as error:
        say(error=_line(error))
        return
    params = sum(parameter.numel() for parameter in built.model.parameters())
    say(params=params, torch=torch.__version__, version=module.VERSION)
    for line in sys.stdin:
        try:
            say(**answer(json.loads(line), sizes, module, built))
        except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:  # out of memory, no compiler
            say(error=_line(error))


def answer(command: dict[str, Any], sizes: dict[str, Any], module: Any, built: Built) -> dict[str, Any]:
    """What was asked for."""
    if command["do"] == "step":
        return {"seconds": timed(built.step, command["steps"], sizes["clock"])}
    if command["do"] == "peak":
        return {"bytes": peak_bytes(built)}
    if command["do"] == "rate":
        return {"flops": matrix_rate(sizes["gpu"], sizes["clock"])}
    module.parity(built.model, command["given"], command["out"])
    return {}


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def say(**values: Any) -> None:
    """One line of JSON."""
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main()
