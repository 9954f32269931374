"""The step-and-batch law's answers against the law itself; predictions that cannot be changed; what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from shapelaw.config import ObjectiveConfig, PrescribeConfig, RulesConfig, ShapeLimits
from shapelaw.counting import params
from shapelaw.errors import UserError
from shapelaw.figures.answers import draw
from shapelaw.fitting.fit import fit
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.prescribe import Basis, Prescription, World
from shapelaw.prescribe.prediction import compare, read_prediction
from shapelaw.prescribe.registry import question_of
from shapelaw.runs.table import RunsTable
from shapelaw.step_batch.ask import Size, StepBatchProblem
from shapelaw.step_batch.law import StepsBatchLaw
from shapelaw.step_batch.noise_scale import LEVELS, compared, summary
from support import ROOT, Script, asked
from worlds import NATURAL as LAWS

NATURAL = LAWS["steps_batch"]
SIZE = Size(5e4)


def law() -> StepsBatchLaw:
    found = get_law("steps_batch")
    assert isinstance(found, StepsBatchLaw)
    return found


def world(*shapes: tuple[int, int]) -> RunsTable:
    """Exact curves of three shapes at three batches."""
    rows = []
    for width, depth in shapes or ((32, 1), (32, 2), (64, 2)):
        counted = float(params(width, depth, 256, "no_embedding_and_head", 16))
        for batch in (512, 2048, 8192):
            steps = np.geomspace(20, 2000, 30).round()
            columns = {
                "params": np.full(30, counted),
                "tokens": steps * batch,
                "batch_tokens": np.full(30, float(batch)),
            }
            sizes = {
                "width": width,
                "depth": depth,
                "params": counted + 512 * width,
                "vocab_size": 256,
                "head_size": 16,
            }
            facts = {"run": f"{width}x{depth}-{batch}", "loss": law().predict(NATURAL, columns), "suite": "nano"}
            rows.append(pd.DataFrame({**columns, **sizes, **facts, "seq_len": 128, "lr_base": 2.5}))
    return RunsTable(pd.concat(rows, ignore_index=True))


def fitted(refits: int = 0) -> FitResult:
    scatter = np.exp(0.01 * np.random.default_rng(0).standard_normal((refits, len(NATURAL))))
    drawn = {name: tuple(value * scatter[:, i]) for i, (name, value) in enumerate(NATURAL.items())}
    settings = {"counting": "no_embedding_and_head", "flops": None, "bootstrap": {"level": 0.9}}
    contours = [{"loss": loss, "b_crit": critical} for loss, critical in ((4.0, None), (2.6, 1.3e3), (1.7, 7.2e3))]
    return FitResult(
        "staged",
        "steps_batch",
        NATURAL,
        law().units,
        0.0,
        None,
        settings=settings,
        replicates=drawn if refits else {},
        stages={"critical_batch": {"contours": contours}},
    )


def answered(options: PrescribeConfig, fit: FitResult, runs: RunsTable, folder: Path = Path("unsaved")) -> Prescription:
    return question_of(options, law()).answer(options, Basis(fit, runs, World.of(fit, runs), folder))


def test_the_four_answers_agree_with_the_law() -> None:
    problem = StepBatchProblem(fitted(20), world())
    lowest = problem.lowest(SIZE)
    assert lowest.values["loss"] == pytest.approx((6e7 / 5e4) ** 0.06, rel=1e-12)
    assert lowest.intervals["loss"][0] < lowest.values["loss"] < lowest.intervals["loss"][1]
    loss = 1.2 * lowest.values["loss"]
    reached = problem.reach(SIZE, loss, 1024).values
    back = law().predict(NATURAL, {"params": [5e4], "tokens": [reached["tokens"]], "batch_tokens": [1024.0]})
    assert back[0] == pytest.approx(loss, rel=1e-10)
    assert (reached["steps_ratio"] - 1) * (reached["tokens_ratio"] - 1) == pytest.approx(1)
    critical = problem.critical(loss)
    assert critical.values["critical_batch"] == pytest.approx(6e4 / loss**4, rel=1e-12)
    middle = critical.tables["trade_off"].iloc[5]
    assert middle["steps_ratio"] == middle["tokens_ratio"] == 2
    assert critical.inside
    assert problem.critical(0.85).outside == {"loss": pytest.approx(0.5)}
    assert problem.critical(5.2).domain == "outside the fitted domain: loss is 2 times the largest fitted"
    curve = problem.trajectory(SIZE, 1024, reached["tokens"])
    assert curve.values["loss"] == pytest.approx(loss, rel=1e-10)
    assert (curve.tables["curve"]["loss_low"] < curve.tables["curve"]["loss_high"]).all()
    assert curve.inside
    assert "params" in problem.lowest(Size(1e7)).outside


def test_what_cannot_be_answered_is_refused_with_the_reachable_range() -> None:
    problem = StepBatchProblem(fitted(), world())
    floor = (6e7 / 5e4) ** 0.06
    with pytest.raises(UserError, match=f"reaches losses between {floor:.4f}"):
        problem.reach(SIZE, 0.9 * floor, 2048)
    with pytest.raises(UserError, match="not a multiple of the context, seq_len=128; the nearest are 896 and 1024"):
        problem.trajectory(SIZE, 1000, 1e6)
    with pytest.raises(UserError, match="above one batch"):
        problem.trajectory(SIZE, 1024, 10)


@pytest.fixture
def saved(outputs: Path) -> Path:
    folder = outputs / "fits" / "steps_batch-1"
    folder.mkdir(parents=True)
    fitted(10).save(folder)
    world().to_parquet(folder / "runs.parquet")
    return folder


def test_a_prediction_is_written_with_its_hash_and_compared(saved: Path, outputs: Path, script: Script) -> None:
    done = script("prescribe.py", f"outputs_dir={outputs}", "width=64", "depth=4", "batch_tokens=1024", "tokens=1e6")
    assert done.returncode == 0, done.stderr
    (path,) = (outputs / "prescriptions").glob("*.yaml")
    assert path.with_suffix(".png").stat().st_size > 10_000
    prediction = read_prediction(path)
    run = world((64, 4)).frame.query("batch_tokens == 2048").assign(batch_tokens=1024.0)
    run["loss"] = 1.02 * law().predict(
        NATURAL, {"params": run["params"] - 512 * 64, "tokens": run["tokens"], "batch_tokens": run["batch_tokens"]}
    )
    found = compare(prediction, RunsTable(run)).plain()
    assert found["mean_absolute_error"] == pytest.approx(1 - 1 / 1.02, rel=1e-6)
    with pytest.raises(UserError, match="no run has"):
        compare(prediction, world())
    content = OmegaConf.load(path)
    content.prediction.parameters.alpha_N = 0.07
    OmegaConf.save(content, path)
    with pytest.raises(UserError, match="was changed after it was written"):
        read_prediction(path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["batch_tokens=1024"], "answers a size alone"),
        (["params=1e5", "loss=0.1"], "reaches losses between"),
        (["params=1e5", "budget=1e9"], "budget=1000000000.0: law=steps_batch answers"),
        (["width=64", "params=1e5"], "give either params, or width and depth"),
    ],
)
def test_bad_questions_are_one_line(saved: Path, outputs: Path, here: Script, given: list[str], said: str) -> None:
    done = here("prescribe.py", f"outputs_dir={outputs}", *given)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"least": "tokens"},
        {"space": "relaxed"},
        {"objective": ObjectiveConfig(name="dollars")},
        {"compare": ["x"]},
        {"rules": RulesConfig(width_max=4096)},
        {"limits": ShapeLimits(params_max=1e9), "vocab_size": 50},
    ],
    ids=str,
)
def test_options_of_other_laws_are_refused(other: dict[str, Any]) -> None:
    assert answered(asked(params=1e5), fitted(), world()).values["loss"] > 0
    with pytest.raises(UserError, match=r"^[\w.]+=\S+(, [\w.]+=\S+)*: law=steps_batch answers a size alone"):
        answered(asked(**{"params": 1e5, **other}), fitted(), world())


def test_a_loss_curve_has_the_command_that_trains_it(saved: Path) -> None:
    options = asked(width=64, depth=4, batch_tokens=1024, tokens=1e6)
    curve = answered(options, fitted(), world(), saved)
    assert curve.overrides == (
        "sweeps=step_batch",
        *("shape.width=64", "shape.depth=4"),
        *("batch_tokens=1024", "tokens=1000000", "validation.every_tokens=39936"),
    )
    assert pd.DataFrame(curve.prediction["points"]).equals(curve.tables["curve"])
    assert (curve.drawn, curve.place("params")) == ("curve", "2 times the largest")
    by_size = answered(asked(params=5e4, batch_tokens=1024, tokens=1e6), fitted(), world())
    assert (by_size.overrides, by_size.prediction, by_size.place("params")) == ((), {}, "inside")


@pytest.mark.parametrize("content", [b"a: [1,\n", b"\x80\x81", b"prediction: {written: 2026-01-01}", b"a", b""])
def test_a_file_without_a_prediction_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"x\.yaml: (is not YAML|contains no prediction|the prediction's hash)") as said:
        read_prediction(path)
    assert "\n" not in str(said.value)


def test_the_noise_scale_stands_beside_the_critical_batch() -> None:
    """Runs whose noise scale is twice the critical batch at every loss, measured along an exact curve."""
    fit = replace(fitted(), stages={"critical_batch": {"contours": [{"loss": 2.6}, {"loss": 2.2}]}})
    frames = []
    for run in ("a", "b"):
        tokens = np.linspace(1e4, 2e6, 20_000)
        loss = 1.5 + 40 * tokens**-0.35
        rows = {"run": run, "width": 32, "depth": 2, "batch_tokens": 2048, "tokens": tokens, "loss": loss}
        frames.append(pd.DataFrame({**rows, "grad_sq": 0.5, "trace": law().critical_batch(NATURAL, loss)}))
    table = compared(fit, pd.concat(frames))
    assert table["ratio"].to_numpy() == pytest.approx(2.0, rel=2e-3)  # the mean of 20 measurements is over a stretch
    found = summary(table)
    assert (found.index[0], found.index[-1], len(found)) == (pytest.approx(2.6), pytest.approx(2.2), LEVELS)
    assert found["runs"].tolist() == [2] * LEVELS
    with pytest.raises(UserError, match="interaction: has no critical batch"):
        compared(replace(fit, law="interaction"), pd.concat(frames))


def test_losses_to_which_no_run_came_near_are_no_answer(tmp_path: Path) -> None:
    """The runs of micro_steps end at 2.1 nats and are extrapolated to 0.00 to 0.4: no number of that is given."""
    runs = RunsTable.read(ROOT / "docs" / "data" / "micro_steps_runs.parquet")
    result = fit(runs, law="steps_batch_e", method="staged", staged={"steps_min": 20}, delta=1e-3, bootstrap=None)
    assert result.ridge == ("N_c", "alpha_N")
    assert [flag for flag in result.flags if flag.startswith("unknown_floors: ")]
    problem = StepBatchProblem(result, runs)
    with pytest.raises(UserError, match="smallest loss of 125,800,000 parameters: most sizes end at more than twice"):
        problem.lowest(Size(1.258e8))
    curve = problem.trajectory(Size(1.258e8), 131072, 98304000)
    assert "lowest_loss" not in curve.values
    assert curve.values["loss"] == pytest.approx(1.9684, abs=1e-3)
    assert draw(curve, tmp_path, "curve")  # without the line of the lowest loss
