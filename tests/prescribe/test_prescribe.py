"""Prescriptions against brute force, closed forms and another optimizer."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from shapelaw.counting import flops_exact, flops_per_token, params, params_total
from shapelaw.errors import UserError
from shapelaw.laws import get_law
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.domain import domain_of_sizes
from shapelaw.prescribe.goals import SpendBudget
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.price import Cost, Throughput, measured_cost
from shapelaw.prescribe.surface import Surface, _AnyBound
from shapelaw.prescribe.world import World, rules_of
from shapelaw.runs import RunsTable
from shapelaw.suite import Suite
from worlds import NATURAL, fitted, table

SHAPED = ["interaction", "width_depth_params_tokens", "width_depth_tokens"]
VOCAB = 50_304


def loss_by_hand(
    law: str, width: np.ndarray, depth: np.ndarray, tokens: np.ndarray, counting: str = "total"
) -> np.ndarray:
    columns = {"width": width, "depth": depth, "params": params(width, depth, VOCAB, counting), "tokens": tokens}
    return get_law(law).predict(NATURAL[law], columns)


def every_shape(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    rules = problem.world.rules
    w, d = np.meshgrid(rules.widths(), np.arange(rules.depth_min, rules.depth_max + 1), indexing="ij")
    return w.ravel(), d.ravel()


@pytest.mark.parametrize("law", SHAPED)
@pytest.mark.parametrize("budget", [1e19, 1e21, 1e22])
def test_the_best_of_all_whole_shapes(law: str, budget: float) -> None:
    problem = Problem.of(fitted(law), table())
    answer = problem.best(budget)
    w, d = every_shape(problem)
    tokens = budget / flops_exact(w, d).total
    losses = loss_by_hand(law, w, d, tokens)
    best = int(np.argmin(losses))
    assert (answer.values["width"], answer.values["depth"]) == (w[best], d[best])
    assert answer.values["loss"] == pytest.approx(losses[best], rel=1e-13)
    assert answer.values["tokens"] == pytest.approx(tokens[best], rel=1e-13)
    assert answer.values["flops"] == pytest.approx(budget, rel=1e-12)  # it spends its budget


@pytest.mark.parametrize(
    ("shapes", "widths"),
    [
        ([(32, 2), (64, 4)], [32, 64, 96, 128]),
        ([(16, 1), (32, 2)], [16, 32, 48, 64, 96, 128]),
        ([(48, 4), (32, 2)], [32, 48, 64, 96, 128]),
    ],
)
def test_the_shapes_of_the_runs_are_among_those_allowed(shapes: list[tuple[int, int]], widths: list[int]) -> None:
    """Heads of 16: one and three train as well as an even number, where a run has them."""
    frame = pd.DataFrame({"run": [f"{w}x{d}" for w, d in shapes], "width": 0, "depth": 0, "params": 1e5, "tokens": 1e6})
    frame[["width", "depth"]] = shapes
    rules = rules_of(RunsTable(frame.assign(loss=3.0)), 16)
    assert rules.widths()[: len(widths)] == widths
    assert set(shapes) <= {(shape.width, shape.depth) for shape in rules.shapes()}


@pytest.mark.parametrize("law", SHAPED)
def test_relaxed_is_where_another_optimizer_ends(law: str) -> None:
    problem = Problem.of(fitted(law), table(), space="relaxed")
    answer, whole = problem.best(1e21), Problem.of(fitted(law), table()).best(1e21)
    options = {"xatol": 1e-9, "fatol": 1e-15}
    other = minimize(relaxed_loss(law), np.log([1500.0, 30.0]), method="Nelder-Mead", options=options)
    assert answer.values["loss"] == pytest.approx(other.fun, rel=1e-12)
    assert [answer.values["width"], answer.values["depth"]] == pytest.approx(np.exp(other.x), rel=1e-5)
    assert answer.values["loss"] <= whole.values["loss"]
    assert answer.overrides == ()


@pytest.mark.parametrize(
    ("limits", "bound"),
    [
        (Limits(params_max=1e12), []),
        (Limits(params_max=1e8), ["params is the largest"]),
        (Limits(aspect_max=20.0), ["aspect ratio is the largest"]),
        (Limits(params_min=4e9, aspect_min=100.0), ["params is the smallest", "aspect ratio is the smallest"]),
        (
            Limits(
                params_min=2.4e8, params_max=2.5e8, aspect_min=30.0, aspect_max=31.0
            ),  # less than a first grid's run
            ["params is the largest", "aspect ratio is the largest"],
        ),
        (Limits(params_max=1e8, aspect_ratio=64.0), ["params is the largest"]),
    ],
    ids=str,
)
def test_relaxed_limits_hold_and_the_best_within_is_another_optimizers(limits: Limits, bound: list[str]) -> None:
    answer = Problem.of(fitted("interaction"), table(), limits=limits, space="relaxed").best(1e21)

    def log_params(logs: np.ndarray) -> float:
        return math.log(params_total(*np.exp(logs), VOCAB, relaxed=True))

    ranges = ((log_params, limits.params_min, limits.params_max), (lambda logs: logs[0] - logs[1], *limits.aspects))
    low = [{"type": "ineq", "fun": lambda x, f=f, end=end: f(x) - math.log(end)} for f, end, _ in ranges if end > 0]
    high = [
        {"type": "ineq", "fun": lambda x, f=f, end=end: math.log(end) - f(x)} for f, _, end in ranges if end < math.inf
    ]
    bounds = [np.log([256, 8192]), np.log([2, 255])]
    options = {"ftol": 1e-15, "maxiter": 500}
    other = minimize(
        relaxed_loss("interaction"), np.log([700.0, 20.0]), bounds=bounds, constraints=low + high, options=options
    )
    assert answer.values["loss"] == pytest.approx(other.fun, rel=1e-12)
    assert [answer.values["width"], answer.values["depth"]] == pytest.approx(np.exp(other.x), rel=1e-5)
    assert answer.notes[1:] == tuple(f"the best {one} allowed" for one in bound)


def relaxed_loss(law: str) -> Callable[[np.ndarray], float]:
    """Of 1e21 FLOPs, by log width and log depth."""

    def loss(logs: np.ndarray) -> float:
        w, d = np.exp(logs)
        count = params_total(w, d, VOCAB, relaxed=True)
        columns = {"width": w, "depth": d, "params": count, "tokens": 1e21 / flops_exact(w, d).total}
        return float(get_law(law).predict(NATURAL[law], columns)[0])

    return loss


def test_size_alone_is_chinchillas_closed_form() -> None:
    p = NATURAL["params_tokens"]
    answer = Problem.of(fitted("params_tokens"), table(), space="params").best(5.76e23)
    a = p["beta"] / (p["alpha"] + p["beta"])
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    n_opt = g * (5.76e23 / 6) ** a
    assert answer.values["params"] == pytest.approx(n_opt, rel=1e-7)
    assert answer.values["tokens"] == pytest.approx(5.76e23 / (6 * n_opt), rel=1e-7)
    assert "width" not in answer.values
    limited = Problem.of(fitted("params_tokens"), table(), space="params", limits=Limits(params_max=1e9)).best(5.76e23)
    assert limited.values["params"] == pytest.approx(1e9)
    assert limited.values["flops"] == pytest.approx(5.76e23)
    assert "the best params is the largest allowed" in limited.notes


@pytest.mark.parametrize("budget", [5.76e20, 1e22, 3e25])
def test_a_smooth_best_is_found_closer_than_values_can_be_told_apart(budget: float) -> None:
    p = NATURAL["params_tokens"]
    found = Problem.of(fitted("params_tokens"), table(), space="params").search(SpendBudget(budget)).points.params[0]
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    assert found == pytest.approx(g * (budget / 6) ** (p["beta"] / (p["alpha"] + p["beta"])), rel=5e-9)


def test_the_edge_of_the_rules_is_named_with_the_option_that_moves_it() -> None:
    """By rules that end below the best width; beyond them there is a better shape, and no note."""
    free = Problem.of(fitted("interaction"), table())
    best = free.best(1e21)
    assert not [note for note in best.notes if "allowed" in note]
    width = int(best.values["width"]) - 2 * free.world.rules.head_size
    rules = dataclasses.replace(free.world.rules, width_max=width)
    edge = free.replaced(world=dataclasses.replace(free.world, rules=rules)).best(1e21)
    assert edge.values["width"] == width
    assert edge.values["loss"] > best.values["loss"]
    (note,) = [note for note in edge.notes if "allowed" in note]
    assert note == (
        "the best width is the largest allowed by the suite's rules, and a shape beyond may be better: allow it "
        "with rules.width_max=NUMBER"
    )


def test_sizes_alone_are_counted_and_compared_as_their_law_counts() -> None:
    counting = "no_embedding_and_head"
    answer = Problem.of(fitted("params_tokens", counting=counting), table(), space="params").best(6e16)
    smallest = params(256, 23, VOCAB, counting)
    assert answer.values["params"] < smallest
    assert answer.outside["params"] == pytest.approx(answer.values["params"] / smallest)
    ranges = World.of(fitted("params_tokens"), table()).domains[counting].ranges
    assert ranges["tokens_per_param"] == (1e10 / params(2048, 27, VOCAB, counting), 1e11 / smallest)
    assert answer.units["params"] == "parameters (no_embedding_and_head)"


@pytest.mark.parametrize("law", ["interaction", "width_depth_params_tokens", "kaplan_e", "params_tokens"])
def test_surfaces_are_the_laws_and_their_inverses(law: str) -> None:
    problem = Problem.of(fitted(law, refits=3), table(), limits=Limits(aspect_ratio=64.0))
    assert problem.shapes is not None
    surface, points = problem.surface, problem.shapes
    log_tokens = np.full((4, 1), math.log(3e10))
    fast, plain = surface.at(points), _AnyBound(surface, points)
    losses = fast.loss(log_tokens)
    assert np.allclose(losses, plain.loss(log_tokens), rtol=1e-13)
    target = losses.mean(axis=1, keepdims=True)
    found, searched = fast.log_tokens_for(target), plain.log_tokens_for(target)
    assert np.array_equal(np.isfinite(found), np.isfinite(searched))
    usable = np.isfinite(found) & (found > 0)
    assert np.allclose(found[usable], searched[usable], atol=1e-9)
    back = fast.loss(np.where(np.isfinite(found), found, 0.0))
    assert np.allclose(back[usable], np.broadcast_to(target, back.shape)[usable], rtol=1e-12)


@settings(deadline=None, max_examples=15)
@given(exponent=st.floats(18.5, 24.0), serving=st.sampled_from([0.0, 1e11, 1e13]))
def test_reaching_the_loss_of_a_budget_costs_that_budget(exponent: float, serving: float) -> None:
    problem = Problem.of(fitted("interaction"), table(), Cost(served_tokens=serving), "relaxed")
    budget = 10.0**exponent
    try:
        best = problem.best(budget)
    except UserError:
        return  # the budget does not pay for the serving
    back = problem.reach(best.values["loss"])
    spent = back.values["flops"] + back.values.get("inference_flops", 0.0)
    assert spent == pytest.approx(budget, rel=1e-7)


def test_serving_makes_models_smaller_and_longer_trained() -> None:
    runs, fit = table(), fitted("interaction")
    plain = Problem.of(fit, runs)
    loss = plain.best(1e21).values["loss"]
    cheap = Problem.of(fit, runs, Cost(served_tokens=1e12)).reach(loss)
    assert cheap.values["params"] < plain.reach(loss).values["params"]
    w, d = every_shape(plain)
    counts = flops_exact(w, d)
    tokens = np.exp(plain.surface.at(plain.world.points(w, d)).log_tokens_for(np.array(loss)))[0]
    total = counts.total * tokens + counts.forward * 1e12
    best = int(np.argmin(total))
    assert (cheap.values["width"], cheap.values["depth"]) == (w[best], d[best])
    assert cheap.values["flops"] + cheap.values["inference_flops"] == pytest.approx(total[best], rel=1e-12)


def test_fewest_tokens_are_those_of_the_largest_allowed_model() -> None:
    problem = Problem.of(fitted("params_tokens"), table(), limits=Limits(params_max=1e9, aspect_ratio=64.0))
    answer = problem.reach(2.8, least="tokens")
    assert problem.shapes is not None
    assert answer.values["params"] == problem.shapes.params.max()
    p = NATURAL["params_tokens"]
    rest = 2.8 - p["E"] - p["A"] * answer.values["params"] ** -p["alpha"]
    assert answer.values["tokens"] == pytest.approx((p["B"] / rest) ** (1 / p["beta"]), rel=1e-12)


def test_loss_of_a_given_shape() -> None:
    answer = Problem.of(fitted("interaction"), table()).at(1024, 28, 5e10)
    by_hand = loss_by_hand("interaction", np.array([1024]), np.array([28]), np.array([5e10]))
    assert answer.values["loss"] == pytest.approx(float(by_hand[0]), rel=1e-13)
    assert answer.inside
    assert answer.values["lr_eff"] == pytest.approx(5 / (1024 * math.sqrt(28)))
    assert answer.overrides == (
        "shape.width=1024",
        "shape.depth=28",
        f"tokens={int(5e10 // 2**22) * 2**22}",
        "lr_base=5",
    )


@pytest.mark.parametrize(
    ("width", "changed", "note"),
    [
        (
            1000,
            {},
            "train.py refuses it: shape.width=1000: allowed values are multiples of head_size=128; the nearest are 896",
        ),
        (640, {}, "train.py refuses it: shape.width=640: its 5 query heads of 128 cannot share"),
        (1024, {"suite": ""}, "no command trains it: the runs do not name their suite"),
        (1024, {"suite": "", "batch_tokens": None}, "the runs do not name their suite and batch_tokens"),
    ],
)
def test_what_no_command_trains_is_answered_with_the_reason(width: int, changed: dict[str, object], note: str) -> None:
    answer = Problem.of(fitted("interaction"), table(**changed)).at(width, 28, 5e10)
    assert answer.values["width"] == width
    assert answer.overrides == ()
    assert [one for one in answer.notes if note in one]


def test_every_refit_is_prescribed_for() -> None:
    fit = fitted("interaction", refits=40)
    answer = Problem.of(fit, table()).best(1e21)
    losses, widths = [], []
    for i in range(40):
        parameters = {name: values[i] for name, values in fit.replicates.items()}
        one = Problem.of(dataclasses.replace(fit, parameters=parameters, replicates={}), table()).best(1e21)
        losses.append(one.values["loss"])
        widths.append(one.values["width"])
    assert answer.intervals["loss"] == pytest.approx(np.quantile(losses, [0.05, 0.95]), rel=1e-12)
    assert answer.intervals["width"] == pytest.approx(np.quantile(widths, [0.05, 0.95]))
    assert "flops" not in answer.intervals  # given, not found
    assert any("no refits" in note for note in Problem.of(fitted("interaction"), table()).best(1e21).notes)


def test_failed_refits_are_left_out() -> None:
    fit = fitted("interaction", refits=10)
    drawn = {name: (*values[:9], math.nan) for name, values in fit.replicates.items()}
    assert len(Surface.of(dataclasses.replace(fit, replicates=drawn))) == 10


def test_domain() -> None:
    problem = Problem.of(fitted("interaction"), table())
    inside, outside = problem.at(1024, 28, 5e10), problem.at(4096, 40, 2e12)
    assert inside.domain == "inside the fitted domain"
    assert not outside.inside
    assert outside.outside["width"] == 2.0
    assert outside.outside["tokens"] == pytest.approx(20.0)
    assert "tokens is 20 times the largest fitted" in outside.domain


def test_the_domain_includes_flops_and_a_joint_distance() -> None:
    """Six times the fitted compute was inside the fitted domain: small models were trained longest, large ones shortest."""
    frame = table().frame
    opposed = RunsTable(frame[frame["params"] * frame["tokens"] <= 6e19].reset_index(drop=True))
    problem = Problem.of(fitted("interaction"), opposed)
    shapes = flops_exact(opposed.kept["width"], opposed.kept["depth"]).total * opposed.kept["tokens"].to_numpy()
    corner = problem.at(2048, 27, 1e11)
    assert corner.outside == {"flops": pytest.approx(corner.values["flops"] / shapes.max())}
    assert corner.outside["flops"] > 3
    assert not corner.inside
    assert corner.domain.startswith("outside the fitted domain: flops is")
    assert f"; jointly {corner.jointly:.3g} times beyond the fitted rows" in corner.domain
    plain = corner.plain()
    assert (plain["domain"], plain["jointly_beyond"]) == ("outside", corner.jointly)
    for width, depth, tokens in opposed.kept[["width", "depth", "tokens"]].itertuples(index=False):
        assert problem.at(width, depth, tokens).jointly == pytest.approx(1.0, abs=1e-9)
        assert problem.at(width, depth, tokens).inside


def test_joint_distance_by_hand() -> None:
    domain = domain_of_sizes(table(), "total")
    low, high = domain.ranges["params"]
    for size, tokens, beyond in (
        (high, 1e11, 1.0),
        (2 * high, 1e11, 2.0),
        (2 * high, 2e11, 2 ** math.sqrt(2)),
        (2 * high, 5e9, 2 ** math.sqrt(2)),
        (low / 3, 3e10, 3.0),
    ):
        assert domain.jointly({"params": size, "tokens": tokens}) == pytest.approx(beyond)
    assert domain.jointly({"params": high}) == 1.0
    one = domain_of_sizes(RunsTable(table().frame.head(1)), "total")
    assert one.jointly({"params": 5 * one.ranges["params"][0], "tokens": 1e10}) == pytest.approx(5.0)


@given(
    st.floats(-3, 3), st.floats(-3, 3), st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=8)
)
@settings(deadline=None, max_examples=30)
def test_joint_distance_is_a_lower_bound_of_the_distance_from_every_row(
    size: float, tokens: float, rows: list[tuple[float, float]]
) -> None:
    logs = np.array(rows)
    frame = pd.DataFrame({"params": 1e8 * np.exp(logs[:, 0]), "tokens": 1e10 * np.exp(logs[:, 1]), "loss": 3.0})
    domain = domain_of_sizes(RunsTable(frame.assign(run=[str(i) for i in range(len(frame))])), "total")
    found = domain.jointly({"params": 1e8 * math.exp(size), "tokens": 1e10 * math.exp(tokens)})
    nearest = np.linalg.norm(logs - [size, tokens], axis=1).min()
    excess = np.maximum([size, tokens] - logs.max(axis=0), logs.min(axis=0) - [size, tokens]).max()
    assert max(excess, 0.0) - 1e-9 <= math.log(found) <= nearest + 1e-9


def test_device_hours_of_a_constant_rate() -> None:
    runs, fit = table(rate=1e14), fitted("interaction")
    world = World.of(fit, runs)
    measured = measured_cost(runs, world)
    assert measured.throughput is not None
    assert measured.throughput.rate(world.points([3072], [40])) == pytest.approx(1e14, rel=1e-9)
    by_flops = Problem.of(fit, runs).best(1e21)
    hours = 1e21 / 1e14 / 3600
    for cost in (measured, Cost("device_hours", Throughput.given(2.5e14, 0.4))):
        answer = Problem.of(fit, runs, cost).best(hours)
        assert answer.values["width"] == by_flops.values["width"]
        assert answer.values["tokens"] == pytest.approx(by_flops.values["tokens"], rel=1e-9)
        assert answer.values["device_hours"] == pytest.approx(hours)
    dollars = Problem.of(fit, runs, dataclasses.replace(measured, unit="dollars", price=2.5)).best(2.5 * hours)
    assert dollars.values["tokens"] == pytest.approx(by_flops.values["tokens"], rel=1e-9)
    assert dollars.values["dollars"] == pytest.approx(2.5 * hours)


def test_rates_are_interpolated_over_shape_with_their_error() -> None:
    runs, fit = table(), fitted("interaction", refits=200)
    kept = runs.kept
    uneven = kept["seconds_per_step"] * (kept["width"] / 1024.0) ** -0.5
    world = World.of(fit, runs)
    smooth = Throughput.measured(table(seconds_per_step=uneven), world)
    assert smooth.rate(world.points([1448], [20])) == pytest.approx(1e14 * math.sqrt(1448 / 1024), rel=1e-9)
    assert smooth.error == pytest.approx(0.0, abs=1e-9)
    noise = np.repeat(np.exp(0.1 * np.random.default_rng(1).standard_normal(6)), 3)
    rough = Throughput.measured(table(seconds_per_step=kept["seconds_per_step"] * noise), world)
    assert 0.03 < rough.error < 0.4
    answer = Problem(fit, world, Cost("device_hours", rough)).best(3000.0)
    low, high = answer.intervals["flops"]
    assert low < answer.values["flops"] < high
    assert any("left-out shape" in note for note in answer.notes)


@pytest.mark.parametrize("convention", ["exact", "6n", "kaplan"])
def test_depth_at_given_flops(convention: str) -> None:
    world = World(Suite(vocab_size=VOCAB), flops=convention)
    wanted = flops_per_token(1024, 28, VOCAB, convention=convention)
    assert world.depth_at(np.array([1024.0]), wanted) == pytest.approx(28, rel=1e-12)


def test_relaxed_counts_meet_whole_ones() -> None:
    widths = np.array([256, 512, 1024, 2048])
    assert np.array_equal(params_total(widths, 20, VOCAB), params_total(widths.astype(float), 20, VOCAB, relaxed=True))
    ends = params_total(np.array([511.999, 512.001]), 20, VOCAB, relaxed=True)
    assert np.ptp(ends) / ends[0] < 1e-5  # no step where a head begins


def test_a_nano_suite_has_its_own_rules() -> None:
    small = {"width": 64, "depth": 1, "head_size": 16, "vocab_size": 257, "seq_len": 128, "suite": "nano"}
    runs = table().frame.iloc[:1].assign(**small, params=int(params_total(64, 1, 257, 16)))
    world = World.of(fitted("interaction"), type(table())(runs))
    assert (world.rules.width_min, world.rules.width_max, world.rules.depth_min) == (32, 1024, 1)
    assert (world.suite.vocab_size, world.seq_len, world.suite.name, world.rated.width_unit) == (257, 128, "nano", 8.0)


@pytest.mark.parametrize("budget", [1e12, 1e30])
@pytest.mark.parametrize("space", ["feasible", "relaxed"])
def test_a_best_shape_at_the_end_of_what_is_searched_is_refused(space: str, budget: float) -> None:
    which = "smallest" if budget < 1e20 else "largest"
    problem = Problem.of(fitted("interaction"), table(), space=space)
    with pytest.raises(
        UserError, match=rf"the {which} of all; the smallest shape is 256x2 .* largest 8192x255"
    ) as said:
        problem.best(budget)
    assert "space=relaxed" not in str(said.value)  # it would be refused just so
    assert not problem.serves(budget)
    assert problem.serves(1e21)


def test_what_is_refused() -> None:
    runs, fit = table(), fitted("interaction")
    problem = Problem.of(fit, runs)
    with pytest.raises(UserError, match=r"buys no training token.*smallest shape is 256x2"):
        Problem.of(fit, runs, Cost(served_tokens=1e15)).best(1e18)
    with pytest.raises(UserError, match=r"budget=-1"):
        problem.best(-1.0)
    with pytest.raises(UserError, match=r"no allowed size reaches it.*the lowest is"):
        problem.reach(1.0)
    with pytest.raises(UserError, match=r"prescribes no aspect ratio.*aspect_ratio=NUMBER"):
        Problem.of(fitted("params_tokens"), runs)
    with pytest.raises(UserError, match="no shape of"):
        Problem.of(fit, runs, limits=Limits(params_max=1e3))
    rules = dataclasses.replace(problem.world.rules, width_min=9999, width_max=99)
    inverted = Problem(fit, dataclasses.replace(problem.world, rules=rules), space="relaxed")
    with pytest.raises(UserError, match="no shape of widths 9999 to 99"):
        inverted.best(1e21)
    with pytest.raises(
        UserError, match=r"limits.params_min=2e\+09, limits.params_max=1e\+09: the smallest is above the largest"
    ):
        Limits(params_min=2e9, params_max=1e9)
    with pytest.raises(UserError, match="space=params has neither width nor depth"):
        Problem.of(fitted("params_tokens"), runs, space="params", limits=Limits(aspect_max=64.0))
    by_size = Problem.of(fitted("params_tokens"), runs, space="params")
    with pytest.raises(UserError, match=r"largest of all.* the largest 1e\+16 params.*limits.params_max"):
        by_size.reach(2.5, least="tokens")
    with pytest.raises(UserError, match="reads width and depth"):
        Problem.of(fit, runs, space="params")
    with pytest.raises(UserError, match="lack seconds_per_step"):
        measured_cost(type(runs)(runs.frame.drop(columns="seconds_per_step")), World.of(fit, runs))
    with pytest.raises(UserError, match="vocabulary"):
        Problem.of(fit, type(runs)(runs.frame.drop(columns="vocab_size")))
    with pytest.raises(UserError, match="not a law of the loss"):
        Problem.of(dataclasses.replace(fit, law=None, method="hull"), runs)


def test_a_limit_moves_the_answer_instead_of_refusing_it() -> None:
    answer = Problem.of(fitted("interaction"), table(), limits=Limits(params_max=1e8)).best(1e22)
    assert answer.values["params"] <= 1e8
    lower = Problem.of(fitted("interaction"), table()).best(1e22)
    assert lower.values["loss"] < answer.values["loss"]


def test_memory_is_bounded_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem.of(fitted("interaction", refits=20), table())
    whole = problem.search(SpendBudget(1e21))
    monkeypatch.setattr("shapelaw.prescribe.optimum.CHUNK", 20_000)
    pieces = problem.search(SpendBudget(1e21))
    assert np.array_equal(whole.value, pieces.value)
    assert np.array_equal(whole.points.params, pieces.points.params)


def test_another_architecture_is_noticed() -> None:
    other = table()
    runs = type(other)(other.frame.assign(params=other.frame["params"] * 0.8))
    answer = Problem.of(fitted("interaction"), runs).best(1e21)
    assert any("differ by up to 20%" in note for note in answer.notes)
    assert Problem.of(fitted("interaction", refits=3), other).best(1e21).notes == ()


def test_it_needs_no_training_libraries() -> None:
    code = "import sys, shapelaw.prescribe; print({'torch', 'lightning', 'mlflow', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
