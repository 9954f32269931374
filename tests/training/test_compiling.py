"""The compiled loss is the plain one, in every process and after every validation."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from shapelaw.model import ModelSpec, Transformer
from shapelaw.shapes import Shape
from shapelaw.training.compiling import compile_step, missing_tool

if TYPE_CHECKING:  # this file is a script, too
    from prepared import Prepared


def differences() -> None:
    """Prints the largest difference of a gradient and of a loss from the plain model's, step by step."""
    model = Transformer(ModelSpec(Shape(16, 1, 16), vocab_size=64, seq_len=8))
    model.blocks = torch.nn.ModuleList()  # they take no part in this
    plain = model.softmax
    compile_step(model)
    compiled = model.softmax
    for sequences, trains in ((4, True), (4, False), (4, True), (2, True)):
        tokens = torch.randint(64, (sequences, 9))
        found = []
        for model.softmax in (plain, compiled):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(trains):
                loss = model.loss(tokens)
            if trains:
                loss.backward()
            gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
            found.append(torch.cat([loss.detach()[None], *(gradient.flatten() for gradient in gradients)]))
        sys.stdout.write(f"{float((found[0] - found[1]).abs().max() / found[0].abs().max())}\n")


@pytest.mark.skipif(missing_tool(gpu=False) is not None, reason="needs a C++ compiler")
def test_gradients_after_a_validation_and_from_the_cache(prepared_processes: Prepared, tmp_path: Path) -> None:
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        done = prepared_processes.run(Path(__file__), [], environment, timeout_s=300)
        assert done.returncode == 0, done.stderr
        errors = [float(word) for word in done.stdout.split()]
        assert len(errors) == 4
        assert max(errors) < 1e-5


if __name__ == "__main__":
    differences()
