"""Each built-in part of a run enters the run's identity by the version of its arithmetic.

The arithmetic is pinned here twice: by what it computes, and by its code. Whoever changes the code has to say whether the
arithmetic is still the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shapelaw import arithmetic
from shapelaw.arithmetic import FILES, PINNED, code, hash_of, pinned, version_of
from shapelaw.config import OptimConfig
from shapelaw.data import SequenceOrder
from shapelaw.fingerprint import BUILT_IN, CORPUS_PART, SPIKE_MONITOR, parts
from shapelaw.lr_rules import DepthPatch, lr_eff
from shapelaw.model import InitSpec, ModelSpec, Transformer, kernels
from shapelaw.model.initialisation import initial_weight
from shapelaw.optim import build_adamw, clip_gradients, set_lr
from shapelaw.schedule import Constant, Cooldown, Cosine, Linear, WarmupStableDecay, lr_factor
from shapelaw.shapes import Shape

GOLDEN = Path(__file__).parents[1] / "golden" / "arithmetic.json"
VERSIONS = {**BUILT_IN, "part of a corpus": CORPUS_PART, "spike monitor": SPIKE_MONITOR}
SPEC = ModelSpec(Shape(16, 2, 8), vocab_size=24, seq_len=12)


def weight_of(name: str, shape: torch.Size) -> torch.Tensor:
    """Weights that are the same on every machine: a sine over their numbers, of the size of real ones."""
    count = math.prod(shape)
    phase = sum(name.encode())
    values = np.sin(0.7 * np.arange(count) + phase) * (0.1 if "norm" in name else 0.4)
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


@pytest.fixture
def model() -> Transformer:
    made = Transformer(SPEC)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(weight_of(name, parameter.shape))
    return made


TOKENS = (torch.arange(4 * 13).reshape(4, 13) * 7 + torch.arange(4)[:, None] ** 2) % 24


def sample(values: torch.Tensor) -> list[float]:
    """Every 29th number, and the root of the mean square of all."""
    flat = values.detach().double().flatten()
    return [*flat[::29].tolist(), float(flat.square().mean().sqrt())]


def computed_by_the_model(model: Transformer) -> dict[str, list[float]]:
    loss = model.loss(TOKENS)
    loss.backward()
    gradients = {f"gradient of {name}": sample(weight.grad) for name, weight in model.named_parameters()}  # type: ignore[arg-type]
    return {"logits": sample(model(TOKENS[:, :-1])), "loss": [loss.item()], **gradients}


def initial_weights() -> dict[str, list[float]]:
    sizes = {name: weight.shape for name, weight in Transformer(SPEC).named_parameters()}
    spec = InitSpec(DepthPatch(patch_ratio=8.0, patch_strict=False, patch_divisor=4.0), 8.0)
    return {name: sample(initial_weight(name, size, SPEC.shape, 3, spec)) for name, size in sizes.items()}


def steps(model: Transformer) -> dict[str, list[float]]:
    """Two steps of AdamW at two rates, their gradients clipped."""
    optimizer = build_adamw(model, 0.01, OptimConfig(eps=1e-3, weight_decay=0.3))
    norms = []
    for rate in (0.01, 0.03):
        set_lr(optimizer, rate)
        model.loss(TOKENS).backward()
        norms.append(float(clip_gradients(model.parameters(), 0.5)))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {"norms": norms, **{name: sample(weight) for name, weight in model.named_parameters()}}


def rates() -> dict[str, list[float]]:
    courses = {
        "constant": Constant(300.0),
        "cosine": Cosine(5000, 300.0, 0.1),
        "linear": Linear(5000, 300.0, 0.1),
        "wsd": WarmupStableDecay(5000, 300.0, 0.3, 0.05),
    }
    tokens = (0, 100, 300, 2000, 3700, 4999)
    found = {name: [lr_factor(at, course, None) for at in tokens] for name, course in courses.items()}
    found["cooldown"] = [lr_factor(at, Constant(300.0), Cooldown(4000, 0.1)) for at in (3999, 4000, 4200, 4399)]
    patch = DepthPatch(patch_ratio=8.0, patch_strict=True, patch_divisor=4.0)
    shapes = (Shape(64, 8, 16), Shape(64, 2, 16))
    for rule in ("width_sqrt_depth", "width", "sqrt_depth", "none"):
        found[rule] = [lr_eff(5.0, shape, rule, 8.0, patch) for shape in shapes]
    return found


def order() -> dict[str, list[float]]:
    taken = SequenceOrder(1000, seed=5)
    return {"sequences": [float(each) for each in taken.indices(1995, 12)]}


COMPUTED: dict[str, Callable[[Transformer], dict[str, list[float]]]] = {
    "model": computed_by_the_model,
    "initial weights": lambda model: initial_weights(),
    "optimizer": steps,
    "schedule": lambda model: rates(),
    "step": lambda model: order(),
}


def golden() -> dict[str, Any]:
    return dict(json.loads(GOLDEN.read_text()))


@pytest.mark.parametrize("fast", [True, False], ids=["own kernels", "torch's"])
@pytest.mark.parametrize("part", COMPUTED)
def test_the_arithmetic_is_that_of_its_version(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, part: str, fast: bool
) -> None:
    """To 2e-5 of the largest number of each kind, which is what float32 sums in another order leave on any processor."""
    if not fast:
        monkeypatch.setattr(kernels, "FAST_THREADS_MAX", 0)
    expected = golden()["numbers"][part]
    for name, found in COMPUTED[part](model).items():
        scale = max(1e-3, *(abs(value) for value in expected[name]))
        assert found == pytest.approx(expected[name], abs=2e-5 * scale), (
            f"{name}: the arithmetic of {part} has changed; raise its version in shapelaw/fingerprint.py, so that runs of "
            f"the old one are not taken for runs of the new, and write {GOLDEN.name} anew: python {__file__}"
        )


@pytest.mark.parametrize("part", FILES)
def test_a_change_of_the_code_is_a_decision(part: str) -> None:
    kept = [golden()["versions"][part], pinned()[part]]
    assert [VERSIONS[part], hash_of(part)] == kept, (
        f"the code of {part} has changed ({', '.join(FILES[part])}). If its arithmetic has, too, raise the version of {part} "
        f"in shapelaw/fingerprint.py; if it is the same, leave it. Then write {GOLDEN.name} anew: python {__file__}"
    )


def test_code_that_was_edited_in_place_is_another_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A model whose activation was exchanged, in a copy of the code; a comment changes nothing."""
    assert parts() == BUILT_IN
    for name in {name for files in FILES.values() for name in files}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((arithmetic.SOURCE / name).read_text())
    monkeypatch.setattr(arithmetic, "SOURCE", tmp_path)
    version_of.cache_clear()
    model = tmp_path / "model/transformer.py"
    model.write_text("# mine\n" + model.read_text())
    assert parts() == BUILT_IN
    version_of.cache_clear()
    edited = model.read_text().replace("self.down(geglu(", "self.down(swiglu(")
    assert edited != model.read_text()
    model.write_text(edited)
    assert parts() == {**BUILT_IN, "model": hash_of("model")}
    version_of.cache_clear()


def test_comments_and_docstrings_are_no_code(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text('"""About."""\n\nX = "#"  # why\n\n\ndef f(x):\n    """It."""\n    return x + 1\n')
    other.write_text('X = "#"\ndef f(x):\n    # another\n    return x + 1\n')
    assert code(one) == code(other) == 'X = "#"\ndef f(x):\n    return x + 1'


def write() -> None:
    """Write the golden numbers and hashes anew."""
    numbers = {}
    for part, compute in COMPUTED.items():
        made = Transformer(SPEC)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                parameter.copy_(weight_of(name, parameter.shape))
        numbers[part] = {name: [float(f"{value:.9g}") for value in values] for name, values in compute(made).items()}
    versions = {part: VERSIONS[part] for part in FILES}
    GOLDEN.write_text(json.dumps({"versions": versions, "numbers": numbers}, indent=1) + "\n")
    PINNED.write_text(json.dumps({part: hash_of(part) for part in FILES}, indent=1) + "\n")


if __name__ == "__main__":
    write()
