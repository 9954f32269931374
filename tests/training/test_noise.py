"""The gradient noise scale: known moments, per-sequence gradients taken directly, and training that does not notice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import load_corpus
from shapelaw.errors import UserError
from shapelaw.model import InitSpec, ModelSpec, Transformer
from shapelaw.model.initialisation import initial_weight
from shapelaw.planned_run import checkpoint_path, corpus_folder, plan_run
from shapelaw.shapes import Shape
from shapelaw.tracking import NOISE_GRAD_SQ, NOISE_SCALE, NOISE_TRACE, NoTracker
from shapelaw.training import run
from shapelaw.training.noise import MicroNorms, Moments, RunningMoments, moments
from support import Compose, Script, train_run


def expected_sq(grad_sq: float, trace: float, batch: float) -> float:
    """E |g|^2 of the mean of a batch."""
    return grad_sq + trace / batch


def test_known_moments_come_back() -> None:
    found = moments(expected_sq(0.3, 500.0, 128), expected_sq(0.3, 500.0, 2048), 128, 2048)
    assert found.grad_sq == pytest.approx(0.3, rel=1e-12)
    assert found.trace == pytest.approx(500.0, rel=1e-12)
    assert found.scale_tokens == pytest.approx(500.0 / 0.3, rel=1e-12)


def test_a_gradient_below_its_noise_has_no_scale() -> None:
    assert np.isnan(Moments(-0.1, 5.0).scale_tokens)


def test_drawn_gradients_give_their_moments_without_bias() -> None:
    """Normal gradients of known G and Sigma: the mean over 4,000 batches lies within four of its standard errors."""
    generator = np.random.default_rng(3)
    truth, spread = generator.normal(size=12) * 0.3, generator.uniform(0.2, 2.0, 12)
    rows = truth + spread * generator.standard_normal((4000, 8, 12))
    small = (rows.reshape(4000, 4, 2, 12).mean(2) ** 2).sum(-1).mean(1)
    big = (rows.mean(1) ** 2).sum(-1)
    each = [moments(s, b, 2, 8) for s, b in zip(small, big, strict=True)]
    for name, exact in (("grad_sq", float(truth @ truth)), ("trace", float((spread**2).sum()))):
        drawn = np.array([getattr(one, name) for one in each])
        assert abs(drawn.mean() - exact) < 4 * drawn.std() / np.sqrt(len(drawn))


def test_the_running_mean_is_of_the_moments_not_of_their_ratio() -> None:
    """A constant is its own mean from the first on; of alternating ones the ratio of the means is kept."""
    assert RunningMoments(10).add(Moments(2.0, 6.0)) == Moments(pytest.approx(2.0), pytest.approx(6.0))
    running = RunningMoments(50)
    for _ in range(500):
        running.add(Moments(1.0, 10.0))
        last = running.add(Moments(3.0, 10.0))
    assert last.scale_tokens == pytest.approx(10 / 2, rel=0.02)  # the mean of the ratios is 6.67


class Linear(nn.Module):
    """A model whose gradient on a row is that row."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        half = self.a.numel()
        return (rows[:, :half] @ self.a + rows[:, half:] @ self.b).mean()


def squared_norms(model: nn.Module, batch: torch.Tensor, size: int) -> tuple[float, float, int]:
    """Weighted mean of the micro-batches' squared norms by hooks, that of the sum, and how many there were."""
    micros = torch.split(batch, size)
    weights = [len(micro) / len(batch) for micro in micros]
    norms = MicroNorms(model.parameters(), weights)
    for micro, weight in zip(micros, weights, strict=True):
        (model.loss(micro) * weight).backward()  # type: ignore[operator]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    big = sum(float(gradient.double().square().sum()) for gradient in gradients)
    model.zero_grad()
    return float(norms.close()), big, len(micros)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_hooks_see_every_micro_batch(size: int) -> None:
    """Micro-batches of equal sizes and with a rest, against the gradients themselves."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 6, generator=generator)
    small, big, micros = squared_norms(Linear(3), rows, size)
    parts = torch.split(rows.double(), size)
    assert micros == len(parts)
    assert small == pytest.approx(sum(len(p) / 8 * float(p.mean(0).square().sum()) for p in parts), rel=1e-6)
    assert big == pytest.approx(float(rows.double().mean(0).square().sum()), rel=1e-6)


@pytest.mark.parametrize("size", [1, 3])
def test_uneven_micro_batches_are_unbiased(size: int) -> None:
    """Over the orders of a small sample, tr(Sigma) comes out as the sample's own; micro-batches of one give it at once."""
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((5, 4)) + 1.0
    trace = float(np.cov(rows.T).trace())
    found = []
    for _ in range(1 if size == 1 else 3000):
        parts = np.split(generator.permutation(rows), range(size, 5, size))
        small = sum(len(p) / 5 * (p.mean(0) ** 2).sum() for p in parts)
        found.append(moments(small, (rows.mean(0) ** 2).sum(), 5 / len(parts), 5).trace)
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - trace) <= max(4 * error, 1e-12)


@pytest.fixture(scope="module")
def sequences() -> tuple[Transformer, torch.Tensor, np.ndarray]:
    """A small transformer, 32 sequences, and the gradient of each, taken one by one."""
    spec = ModelSpec(Shape(16, 2, 8), vocab_size=32, seq_len=12)
    model = Transformer(spec)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(initial_weight(name, parameter.shape, spec.shape, 0, InitSpec()))
    ids = torch.randint(32, (32, 13), generator=torch.Generator().manual_seed(5))
    ids[:, 1:7] = ids[:, :1]  # something to learn, so that the gradient is not all noise
    parameters = list(model.parameters())
    each = [torch.autograd.grad(model.loss(ids[k : k + 1]), parameters) for k in range(len(ids))]
    return model, ids, np.array([np.concatenate([g.numpy().ravel() for g in one]) for one in each], dtype=np.float64)


def test_tr_sigma_of_a_real_model_is_that_of_its_sequences_gradients(
    sequences: tuple[Transformer, torch.Tensor, np.ndarray],
) -> None:
    """Micro-batches of one sequence: the sample covariance's trace, to float32; of four, over many orders, within its error."""
    model, ids, gradients = sequences
    trace = float(gradients.var(axis=0, ddof=1).sum())
    mean_sq = float((gradients.mean(axis=0) ** 2).sum())
    small, big, micros = squared_norms(model, ids, 1)
    found = moments(small, big, 12, 12 * 32)
    assert micros == 32
    assert found.trace == pytest.approx(12 * trace, rel=1e-4)  # a token's is seq_len times that of a sequence
    assert found.grad_sq == pytest.approx(mean_sq - trace / 32, rel=1e-3)  # unbiased: less the noise of the mean itself

    generator, drawn = torch.Generator().manual_seed(0), []
    for _ in range(60):
        small, big, micros = squared_norms(model, ids[torch.randperm(32, generator=generator)], 4)
        drawn.append(moments(small, big, 12 * 32 / micros, 12 * 32).trace)
    assert abs(np.mean(drawn) - 12 * trace) < 4 * np.std(drawn) / np.sqrt(len(drawn))
    assert np.std(drawn) / np.sqrt(len(drawn)) < 0.05 * 12 * trace  # the comparison says something


class Recorder(NoTracker):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        self.rows.append((tokens, dict(metrics)))


def test_training_does_not_notice(composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, moments and losses of a run are the same to the last bit with the noise scale and without."""
    recorders: list[Recorder] = []
    monkeypatch.setattr(run, "tracker_of", lambda *_: recorders.append(Recorder()) or recorders[-1])
    runs = []
    for option in ("noise.every_steps=0", "noise.every_steps=2"):
        overrides = ("accelerator=cpu", "micro_batch_sequences=2", option, f"outputs_dir={tmp_path}/{len(runs)}")
        config: TrainConfig = to_dataclass(composed(*overrides))
        runs.append(plan_run(config, load_corpus(corpus_folder(config)).manifest.corpus_hash))
        train_run(config, runs[-1])
    assert runs[0].identity == runs[1].identity
    for file in ("model.safetensors", "optimizer.safetensors"):
        without, with_ = (load_file(checkpoint_path(planned.folder, 20) / file) for planned in runs)
        assert all(torch.equal(without[name], with_[name]) for name in without)
    losses = [
        [row for row in recorder.rows if "train/loss" in row[1] or "val/loss" in row[1]] for recorder in recorders
    ]
    timed = ("speed/", "cost/device_hours")
    kept = [[(t, {k: v for k, v in m.items() if not k.startswith(timed)}) for t, m in rows] for rows in losses]
    assert kept[0] == kept[1]
    assert not [row for row in recorders[0].rows if NOISE_TRACE in row[1]]
    noise = [row for row in recorders[1].rows if NOISE_TRACE in row[1]]
    assert [tokens for tokens, _ in noise] == [256 * k for k in range(1, 11)]
    assert all(row[NOISE_TRACE] > 0 for _, row in noise)
    assert all(row[NOISE_SCALE] > 0 for _, row in noise if row[NOISE_GRAD_SQ] > 0)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            (),
            "micro_batch_sequences=auto may leave the 8 sequences of a batch in one piece; give micro_batch_sequences=2",
        ),
        (("micro_batch_sequences=8",), "give micro_batch_sequences=2"),
        (("batch_tokens=16", "micro_batch_sequences=1"), "batch_tokens above seq_len"),
        (("parallel=fsdp", "devices=2", "micro_batch_sequences=1"), "parallel=fsdp holds no gradient whole"),
        (("noise.average=0",), "noise.average=0"),
        (("noise.every_steps=1.5",), None),
    ],
)
def test_bad_input(composed: Compose, overrides: tuple[str, ...], words: str | None) -> None:
    from shapelaw.verbs.train import TrainTask

    if words is None:
        with pytest.raises(Exception, match=r"noise\.every_steps"):
            composed("noise.every_steps=1.5")
        return
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        TrainTask().check_machine([composed("noise.every_steps=1", *overrides)])


@pytest.mark.slow
def test_two_processes_measure_what_one_does(script: Script, outputs: Path) -> None:
    """ddp: ranks' micro-batches are those of one process, in another order of sums."""
    common = ("shape=32x1", "accelerator=cpu", "precision=fp32", "noise.every_steps=4", "micro_batch_sequences=2")
    for place in (("devices=2", "parallel=ddp"), ()):
        done = script(
            "train.py",
            *common,
            *place,
            f"tracker.uri=sqlite:///{outputs}/{len(place)}.db",
            f"outputs_dir={outputs}/{len(place)}",
        )
        assert done.returncode == 0, done.stderr
    tables = []
    for count in (2, 0):
        query = f"select key, step, value from metrics where key in ('{NOISE_GRAD_SQ}', '{NOISE_TRACE}') order by 1, 2"
        tables.append(sqlite3.connect(outputs / f"{count}.db").execute(query).fetchall())
    assert len(tables[0]) == 10, json.dumps(tables[0])
    for two, one in zip(*tables, strict=True):
        assert two[:2] == one[:2]
        assert two[2] == pytest.approx(one[2], rel=1e-3)
