"""The run to train next: what tells most about a target for its FLOPs, and how it is planned, printed and refused."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from shapelaw import RunsTable, UserError, fit
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.objective import Penalty
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.laws import get_law
from shapelaw.prescribe.axes import axes_of_sizes
from shapelaw.prescribe.candidates import ROWS, Cadence, Candidates, feasible, rows_of
from shapelaw.prescribe.limits import UNLIMITED, Limits
from shapelaw.prescribe.next_run import BestSize, LossOf, plan
from shapelaw.prescribe.search import SizeSearch
from shapelaw.prescribe.world import World
from shapelaw.runs.axes import table_of, with_axes
from shapelaw.suite import Suite
from support import Program
from worlds import table


def runs_of(params: np.ndarray, tokens: np.ndarray, noise: float = 3e-3) -> RunsTable:
    """Runs of eq 1, a row each."""
    rng = np.random.default_rng(0)
    loss = (1.7 + 400 / params**0.34 + 400 / tokens**0.28) * np.exp(noise * rng.standard_normal(len(params)))
    return RunsTable(
        pd.DataFrame({"run": np.arange(len(params)).astype(str), "params": params, "tokens": tokens, "loss": loss})
    )


def line(sizes: list[float], tokens: list[float]) -> tuple[RunsTable, World]:
    """Every size at every token count, with what a fit of them lives in."""
    params, counts = (values.ravel() for values in np.meshgrid(sizes, tokens))
    runs = runs_of(params, counts)
    return runs, World.of(fit(runs, "params_tokens", delta=1e-2), runs)


def test_what_is_not_known_is_what_is_trained() -> None:
    """Two sizes leave the exponent of the size open, two token counts that of the tokens: a third of these is asked for, a
    replicate of what was trained is not."""
    for sizes, tokens, axis in (
        ([1e8, 2e8], [1e9, 3e9, 9e9, 27e9], "params"),
        ([1e7, 1e8, 1e9], [3e9, 6e9], "tokens"),
    ):
        runs, world = line(sizes, tokens)
        law = fit(runs, "params_tokens", delta=1e-2)
        size = world.sizes([1e8, 4e8, 1e8] if axis == "params" else [1e8, 1e8, 1e7])
        candidates = Candidates(size, np.array([9e9, 9e9, 27e9] if axis == "params" else [6e9, 48e9, 3e9]))
        target = LossOf(law, world.sizes([4e9]), 4e11)
        found = plan(law, runs, candidates, target)[0]
        assert found.place == 1
        assert found.after[1] < 0.8 * found.before
        assert found.after[1] < 0.9 * min(found.after[0], found.after[2])


def test_a_run_that_costs_more_must_tell_more() -> None:
    """The same run twice, at four times the price: it tells as much, its score is half."""
    runs, world = line([1e8, 2e8], [1e9, 3e9, 9e9])
    law = fit(runs, "params_tokens", delta=1e-2)
    size = world.sizes([8e8, 8e8])
    dear = dataclasses.replace(size, train_flops=size.train_flops * np.array([4.0, 1.0]))
    found = plan(law, runs, Candidates(dear, np.array([9e9, 9e9])), LossOf(law, world.sizes([4e9]), 1e11))[0]
    assert found.place == 1
    assert found.after[0] == found.after[1]
    assert found.scores[0] == pytest.approx(found.scores[1] / 2, rel=1e-12, abs=0)
    gained = np.log(found.before**2 / found.after[1] ** 2)
    assert found.scores[1] == pytest.approx(gained / np.sqrt(6 * 8e8 * 9e9), rel=1e-12, abs=0)


def test_a_batch_does_not_ask_twice_for_the_same() -> None:
    """Each run is chosen with those before it counted as trained: the target is known better from one to the next."""
    runs, world = line([1e8, 2e8], [1e9, 3e9, 9e9])
    law = fit(runs, "params_tokens", delta=1e-2)
    target = BestSize(SizeSearch(law, world, space="params", intervals=False), 1e21)
    planned = plan(law, runs, feasible(world, runs, 1e20, UNLIMITED), target, 3)
    sizes = {(found.best.points.params[0], found.best.tokens[0]) for found in planned}
    assert len(sizes) == 3
    for earlier, later in itertools.pairwise(planned):
        assert later.before == pytest.approx(earlier.after[earlier.place], rel=1e-12)
        assert len(later.candidates) == len(earlier.candidates) - 1


def test_the_same_question_has_the_same_answer() -> None:
    runs, world = line([1e8, 2e8, 4e8], [1e9, 3e9])
    law, candidates = fit(runs, "params_tokens", delta=1e-2), feasible(world, runs, 1e19, UNLIMITED)
    first, second = (plan(law, runs, candidates, LossOf(law, world.sizes([4e9]), 4e10))[0] for _ in range(2))
    assert first.place == second.place
    np.testing.assert_array_equal(first.scores, second.scores)


def test_a_target_that_no_candidate_informs_is_said_to_be() -> None:
    """The loss of the smallest run is known as well as it can be; a run of one of the largest tells nothing of it."""
    runs, world = line([1e7, 1e8, 1e9, 1e10], [1e9, 1e10, 1e11, 1e12])
    law = fit(runs, "params_tokens", delta=1e-2)
    candidates = Candidates(world.sizes([1e10]), np.array([1e12]))
    with pytest.raises(
        UserError, match=r"target: none of 1 candidates informs the loss of 1e\+07 parameters at 1e\+09 tokens"
    ):
        plan(law, runs, candidates, LossOf(law, world.sizes([1e7]), 1e9))


def test_candidates_are_affordable_new_and_near() -> None:
    small, near = line([1e8, 2e8, 4e8], [1e9, 4e9])
    found = feasible(near, small, 1e19, UNLIMITED)
    assert (found.flops <= 1e19 * (1 + 1e-9)).all()
    assert (found.points.params >= 1e8 / 4).all()
    assert (found.points.params <= 4e8 * 4 * (1 + 1e-9)).all()
    assert (found.tokens >= 1e9).all()
    assert (found.tokens <= 16e9).all()
    assert len(feasible(near, small, 1e19, Limits(params_max=1e8))) < len(found)
    with pytest.raises(
        UserError, match="buys no new run within a factor of 4 of the sizes and tokens of the table's runs"
    ):
        feasible(near, small, 1e12, UNLIMITED)
    with pytest.raises(UserError, match="no allowed size is within a factor of 4"):
        feasible(near, small, 1e19, Limits(params_min=1e12))


def test_a_candidate_has_the_rows_of_a_run() -> None:
    """35 validations in one run, one in another two: the median run has one, at its end; the long one is thinned and weighs as
    many rows as it has."""
    frame = pd.DataFrame({"run": ["a"] * 35 + ["b", "c"], "tokens": [*np.arange(1, 36) * 1e9, 5e9, 6e9]})
    frame = frame.assign(params=1e8, loss=2.0)
    short = Cadence.of(RunsTable(frame))
    assert (short.shares.tolist(), short.weight) == ([1.0], 1.0)
    long = Cadence.of(RunsTable(frame[frame["run"] == "a"]))
    assert len(long.shares) == ROWS
    assert long.weight * ROWS == pytest.approx(35)
    world = World()
    rows = rows_of(Candidates(world.sizes([1e8, 2e8]), np.array([1e9, 7e9])), 1, long)
    assert set(rows["params"]) == {2e8}
    assert rows["tokens"].max() == 7e9
    assert rows["tokens"].min() == pytest.approx(7e9 / 35)


def test_other_losses_of_the_same_rows_give_the_fit_of_a_table_of_them() -> None:
    """What refits rest on: a search where other losses are measured ends where one of that table does."""
    runs, _ = line([1e8, 2e8, 4e8], [1e9, 3e9, 9e9])
    spec = FitSpec.of("params_tokens", delta=1e-2)
    data = FitData.of(runs, spec)
    other = runs_of(*(data.columns[name] for name in ("params", "tokens")), noise=1e-2)
    prior = Penalty(np.array([0.0, 0.0, 0.3, 0.3, 0.0]), np.array([0.0, 0.0, 1e-3, 1e-3, 0.0]))
    start = np.array([[6.0, 6.0, 0.34, 0.28, 0.5]])
    weights = np.ones(len(data.loss))
    search = Newton(data.problem(spec)).measuring(np.log(other.kept["loss"].to_numpy()), prior)
    theta, objective = search.refit(start, weights)
    plain = Newton(FitData.of(other, spec).problem(spec).with_prior(prior))
    expected, lowest = plain.refit(start, weights)
    np.testing.assert_allclose(theta, expected, rtol=1e-9)
    assert objective == pytest.approx(lowest, rel=1e-12)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A fit of Gemstones' shapes, whose losses follow a law."""
    runs = table()
    kept = runs.kept
    rng = np.random.default_rng(0)
    loss = (1.7 + 400 / kept["params"] ** 0.34 + 400 / kept["tokens"] ** 0.28) * np.exp(
        3e-3 * rng.standard_normal(len(kept))
    )
    runs = RunsTable(kept.assign(loss=loss), runs.about, runs.recorded)
    result = fit(runs, law="params_tokens", delta=1e-2, bootstrap={"n": 5})
    return result.save(tmp_path / "fit", runs).parent


def test_a_plan_is_printed_with_the_commands_of_its_runs(saved: Path, opened: Program, outputs: Path) -> None:
    done = opened("next", f"fit={saved}", "budget=1e20", "next=9")
    assert (done.returncode, done.stderr) == (0, "")
    (file,) = (outputs / "next").glob("params_tokens-*.yaml")
    plan = yaml.safe_load(file.read_text())
    assert plan["target"] == "the best size for 1e+21 training FLOPs"
    assert f"written to {file}" in done.stdout
    assert 1 <= len(plan["runs"]) < 9
    assert "note: next=9: after these runs, no further candidate informs the target\n" in done.stdout
    for run in plan["runs"]:
        assert f"train it:  {run['command']}" in done.stdout
        values = dict(word.split("=") for word in shlex.split(run["command"]) if "=" in word)
        assert (values["shape.width"], values["shape.depth"]) == (f"{run['width']:.0f}", f"{run['depth']:.0f}")
        assert float(values["tokens"]) == run["tokens"]
        assert run["tokens"] % 2**22 == 0
        assert run["flops"] <= 1e20
        assert run["deviation_after"] < 0.99 * run["deviation_before"]
        assert run["candidates"][0]["tokens"] == run["tokens"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["target.tokens=1e9"],
            "target.tokens: allowed values are target.budget alone, target.width, target.depth and target.tokens",
        ),
        (
            ["target.budget=1e21", "target.width=512"],
            "target.budget, target.width: allowed values are target.budget alone",
        ),
        (["next=0"], "next=0: allowed values are whole numbers from 1 to 100"),
        (["budget=1e9"], "budget=1e+09 FLOPs: buys no new run within a factor of 4"),
    ],
    ids=str,
)
def test_what_cannot_be_planned_is_one_line(saved: Path, opened: Program, words: list[str], said: str) -> None:
    done = opened("next", f"fit={saved}", *([] if "budget=1e9" in words else ["budget=1e20"]), *words)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert said in done.stderr


def test_refits_hold_what_the_fit_held() -> None:
    """Parameters that were given stay given: a run that would tell about them alone tells nothing."""
    runs, world = line([1e8, 2e8], [1e9, 3e9, 9e9, 27e9])
    given = {"E": 1.7, "A": 400.0, "alpha": 0.34}
    held = fit(runs, "params_tokens", delta=1e-2, fixed=given)
    free = fit(runs, "params_tokens", delta=1e-2)
    candidates = Candidates(world.sizes([8e8]), np.array([9e9]))
    known, unknown = (plan(law, runs, candidates, LossOf(law, world.sizes([4e9]), 27e9))[0] for law in (held, free))
    assert known.before < 0.2 * unknown.before
    assert 0.5 * known.before < known.after[0] < known.before
    assert held.parameters["E"] == 1.7


def test_refits_weigh_rows_as_the_fit_did() -> None:
    """Spoilt rows of weight 0 have no say, in the refits as in the fit."""
    runs, world = line([1e8, 2e8], [1e9, 3e9, 9e9, 27e9])
    spoilt = runs.rows.assign(run="spoilt " + runs.rows["run"], loss=9.0)
    frame = pd.concat([runs.rows, spoilt], ignore_index=True)
    both = RunsTable(frame, further=pd.DataFrame({"weight": np.repeat([1.0, 0.0], len(runs))}))
    law, clean = fit(both, "params_tokens", delta=1e-2, weights="weight"), fit(runs, "params_tokens", delta=1e-2)
    candidates = Candidates(world.sizes([1e8, 4e8]), np.array([9e9, 9e9]))
    found, expected = (
        plan(one, table, candidates, LossOf(one, world.sizes([4e9]), 4e11))[0]
        for one, table in ((law, both), (clean, runs))
    )
    assert found.place == expected.place == 1
    assert found.before == pytest.approx(expected.before, rel=0.5)
    assert found.after == pytest.approx(expected.after, rel=0.5)


LAW = """
from shapelaw.laws import SumLaw, Term

EXPERTS = SumLaw(
    "experts", "L = A/(params^alpha experts^gamma) + B/tokens^beta + E", "this test",
    (Term("A", falls={"params": "alpha", "experts": "gamma"}), Term("B", falls={"tokens": "beta"})),
)
"""


def experts_of(name: str, rows: list[tuple[float, float, float]]) -> tuple[RunsTable, FitResult, World]:
    """Runs of (params, tokens, experts) with noise, a fit of a law that reads experts, and where its target is at 8 of them."""
    params, tokens, experts = np.array(rows).T
    noise = np.exp(2e-3 * np.random.default_rng(0).standard_normal(len(params)))
    loss = (1.7 + 400 / (params**0.34 * experts**0.2) + 400 / tokens**0.28) * noise
    frame = pd.DataFrame({"params": params, "tokens": tokens, "experts": experts, "loss": loss})
    runs = table_of(frame.assign(run=[f"run {i}" for i in range(len(frame))]))
    law = fit(runs, name, delta=1e-2)
    runs = with_axes(runs, get_law(name))
    return runs, law, dataclasses.replace(World.of(law, runs), given={"experts": 8.0})


def test_a_run_with_other_experts_is_chosen_where_they_are_what_is_not_known(tmp_path: Path) -> None:
    """All runs but a cheap one have one expert: of two runs that differ in experts alone, the one with four is trained. Neither
    is taken for a run that the table holds with other experts."""
    (tmp_path / "law.py").write_text(LAW)
    rows = [(n, t, 1.0) for n in (1e7, 1e8, 1e9) for t in (1e9, 1e10, 1e11)] + [(1e7, 1e9, 4.0), (1e7, 1e10, 4.0)]
    runs, law, world = experts_of(f"{tmp_path}/law.py:EXPERTS", rows)
    candidates = Candidates(world.sizes([3e8, 3e8]), np.array([3e10, 3e10]), {"experts": np.array([1.0, 4.0])})
    found = plan(law, runs, candidates, LossOf(law, world.sizes([1e9]), 1e11))[0]
    assert (found.place, found.best.axes["experts"].tolist()) == (1, [4.0])
    assert found.after[1] < 0.9 * found.after[0]
    tried = feasible(world, runs, 6 * 1e8 * 1e10, UNLIMITED)
    assert set(tried.axes["experts"]) == {1.0, 4.0}


def test_axes_follow_from_the_size_where_they_do_in_the_runs() -> None:
    """Heads are a sixteenth of the width, and so are those of new shapes; of experts, the runs' values are tried. A few sizes
    lie on any line, and tell nothing of that."""
    shapes = [(32, 2), (64, 2), (64, 4), (128, 2), (128, 8), (256, 4)]
    rows = [(w, d, w / 16, e, 3.0 / w) for w, d in shapes for e in (1.0, 4.0, 16.0, 64.0)]
    frame = pd.DataFrame(rows, columns=["width", "depth", "axis_heads", "axis_experts", "axis_ratio"])
    frame = frame.assign(run=np.arange(len(rows)).astype(str), loss=2.0, tokens=1e9, params=1e6, vocab_size=256)
    points = World(suite=Suite(vocab_size=256, head_size=16)).points([512, 48], [4, 3])
    names = ["heads", "experts", "ratio"]
    place, axes = axes_of_sizes(names, RunsTable(frame), points)
    assert place.tolist() == [0, 0, 0, 1, 1, 1]
    assert axes["experts"].tolist() == [1.0, 16.0, 64.0] * 2
    assert axes["heads"].tolist() == [32.0] * 3 + [3.0] * 3
    np.testing.assert_allclose(axes["ratio"], [3 / 512] * 3 + [3 / 48] * 3)
    few = RunsTable(frame[frame["width"] <= 64])
    assert axes_of_sizes(["heads"], few, points)[1]["heads"].tolist() == [2.0, 4.0] * 2
    assert axes_of_sizes([], few, points)[0].tolist() == [0, 1]


def test_next_names_the_experts_of_its_runs(tmp_path: Path, opened: Program, outputs: Path) -> None:
    (tmp_path / "law.py").write_text(LAW)
    rows = [(n, t, e) for n in (1e8, 2e8, 4e8) for t in (1e9, 4e9, 16e9) for e in (1.0, 4.0)]
    runs, law, _ = experts_of(f"{tmp_path}/law.py:EXPERTS", rows)
    law.save(tmp_path / "fit", runs)
    done = opened("next", f"fit={tmp_path}/fit", "budget=1e19", "limits.params_max=4e8", "axes={experts: 8}")
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert "the target holds at experts=8, 2 times outside the fitted 1 to 4: extrapolated" in said
    (file,) = (outputs / "next").glob("*.yaml")
    (run,) = yaml.safe_load(file.read_text())["runs"]
    assert run["experts"] in (1.0, 4.0)
    assert run["experts"] == run["candidates"][0]["experts"]
    refused = opened("next", f"fit={tmp_path}/fit", "budget=1e19", "axes={heads: 8}")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "axes.heads=8: law=experts does not read it; allowed names are experts" in refused.stderr
