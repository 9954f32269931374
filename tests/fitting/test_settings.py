"""Laws of the best rate and batch: planted ones are found, their intervals hold them, prescriptions use them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw import FitResult, RunsTable, fit, load_fit, load_runs
from shapelaw.config import BootstrapOptions
from shapelaw.fitting.settings import SettingLaw, setting_laws
from shapelaw.verbs.prescribe import prescribe
from support import asked

LR = {"c": 1.79, "a": -0.713, "b": 0.307}
BATCH = {"d": 0.58, "e": 0.571}
"""As published (arXiv 2503.04715)."""


def best(n: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return LR["c"] * n ** LR["a"] * t ** LR["b"], BATCH["d"] * t ** BATCH["e"]


def grid(noise: float = 0.0, batches: int = 5) -> pd.DataFrame:
    """Twelve sizes and token counts, each with seven rates, a factor of 1.6 apart, by some batches about the best."""
    rng = np.random.default_rng(3)
    axes = (np.geomspace(5e7, 1e9, 4), np.geomspace(2e9, 4e10, 3), np.arange(-3, 4), np.arange(batches) - batches // 2)
    n, t, i, j = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    lr, batch = best(n, t)
    off = rng.uniform(-0.3, 0.3, len(n) // (7 * batches)).repeat(7 * batches)  # the grid is not centred on the truth
    x, y = np.log(1.6) * i + off, np.log(1.6) * j - off / 2
    base = 1.8 + 410 / n**0.34 + 1200 / t**0.35
    loss = base + 0.03 * x**2 + 0.02 * y**2 + 0.01 * x * y + noise * rng.standard_normal(len(n))
    columns = {"params": n, "tokens": t, "lr": lr * np.exp(x), "batch_tokens": batch * np.exp(y), "loss": loss}
    return pd.DataFrame(columns).assign(run=[f"r{k}" for k in range(len(n))])


def loaded(path: Path, frame: pd.DataFrame) -> RunsTable:
    frame.to_csv(path, index=False)
    return load_runs("csv", path=path, reduce="best", reduce_by=["params", "tokens"])


def test_planted_laws_are_found_exactly(tmp_path: Path) -> None:
    (lr, batch), why = setting_laws(loaded(tmp_path / "runs.csv", grid()), "total")
    assert why == ""
    assert (np.exp(lr.vector[0]), *lr.vector[1:]) == pytest.approx(tuple(LR.values()), rel=1e-6)
    assert (np.exp(batch.vector[0]), *batch.vector[1:]) == pytest.approx(tuple(BATCH.values()), rel=1e-6)
    assert (lr.column, lr.sizes) == ("lr", 12)


def test_where_only_the_rate_differs_there_is_a_law_of_it_alone(tmp_path: Path) -> None:
    (lr,), _ = setting_laws(loaded(tmp_path / "runs.csv", grid(batches=1)), "total")
    assert lr.setting == "lr"
    np.testing.assert_allclose(lr.vector[1:], [LR["a"], LR["b"]], atol=0.02)  # at a batch somewhat off the best


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tuple[FitResult, RunsTable]:
    runs = loaded(tmp_path_factory.mktemp("runs") / "runs.csv", grid(noise=2e-3))
    return fit(runs, bootstrap={"n": 200}), runs


def test_the_intervals_of_noisy_runs_hold_the_truth(result: tuple[FitResult, RunsTable]) -> None:
    lr, batch = map(SettingLaw.read, result[0].best_settings)
    for law, truth in ((lr, (LR["a"], LR["b"])), (batch, (BATCH["e"],))):
        low, high = np.quantile(law.refits[:, 1:], [0.01, 0.99], axis=0)
        assert (low < truth).all()
        assert (truth < high).all()
    (said, _) = (flag for flag in result[0].flags if flag.startswith("best_settings"))
    assert re.search(r"lr = [\d.]+ N\^-0\.\d+ \(-0\.\d+ to -0\.\d+\) T\^0\.\d+ .* from 12 sizes", said)


def test_a_prescription_says_them_with_intervals(result: tuple[FitResult, RunsTable], tmp_path: Path) -> None:
    fitted, runs = result
    fitted.save(tmp_path / "fit", runs)
    assert load_fit(tmp_path / "fit").best_settings == fitted.best_settings
    told = prescribe(asked(fit=str(tmp_path / "fit"), budget=1e19, space="params"))
    lr, batch = map(SettingLaw.read, fitted.best_settings)
    n, t = np.log(told.values["params"]), np.log(told.values["tokens"])
    assert told.values["best_lr"] == pytest.approx(np.exp(lr.vector @ [1, n, t]), rel=1e-12)
    assert told.values["best_batch_tokens"] == pytest.approx(np.exp(batch.vector @ [1, t]), rel=1e-12)
    for name in ("best_lr", "best_batch_tokens"):
        low, high = told.intervals[name]
        assert low < told.values[name] < high


def test_minima_at_the_edge_make_no_law_and_say_so(tmp_path: Path) -> None:
    frame = grid()
    lower = frame[frame["lr"] < 0.7 * best(frame["params"], frame["tokens"])[0]]
    laws, why = setting_laws(loaded(tmp_path / "runs.csv", lower), "total")
    assert laws == ()
    assert re.search(r": 0 of 1\d sizes and token counts have their best value inside the tried range", why)


def test_a_table_of_one_setting_says_nothing_of_settings() -> None:
    frame = grid().drop_duplicates(["params", "tokens"])
    assert setting_laws(RunsTable(frame), "total") == ((), "")
    assert not any("best_settings" in flag for flag in fit(RunsTable(frame)).flags)


def test_one_size_has_no_exponent_of_params(tmp_path: Path) -> None:
    """The batch depends on tokens alone, so its law remains."""
    frame = grid()
    laws, _ = setting_laws(loaded(tmp_path / "runs.csv", frame[frame["params"] == frame["params"].min()]), "total")
    assert [law.setting for law in laws] == ["batch_tokens"]


def test_token_counts_of_the_same_runs_are_drawn_together(tmp_path: Path) -> None:
    """Ten near copies of every row say nothing new: the interval stays as wide, where runs of their own would narrow it."""
    frame = grid(noise=3e-3)
    copies = [frame.assign(tokens=frame["tokens"] * (1 + 1e-3 * k)) for k in range(10)]
    options = BootstrapOptions(n=200)
    (once, _), _ = setting_laws(loaded(tmp_path / "once.csv", frame), "total", options)
    (lr, _), _ = setting_laws(loaded(tmp_path / "copies.csv", pd.concat(copies)), "total", options)
    assert lr.sizes == 120
    for place in (1, 2):
        assert lr.refits[:, place].std() == pytest.approx(once.refits[:, place].std(), rel=0.25)
