"""Solvers against the published fits, the best known optima, scipy, each other and synthetic truth."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from arrays import solve
from shapelaw.errors import UserError
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.objective import Problem, huber, objective
from shapelaw.fitting.projection import non_negative
from shapelaw.fitting.solve import Solution, Status
from shapelaw.fitting.starts import grid_count, grid_levels, grid_starts, random_starts
from shapelaw.laws import LAWS, Law, SumLaw, get_law
from shapelaw.runs import load_runs
from test_laws import NATURAL, table

ROUNDED = 6e-11
"""The published coefficients have ten decimals."""
LAW_OF_FILE = {
    "width_depth_parameters": "width_depth_params_tokens",
    "width_depth": "width_depth_tokens",
    "parameters": "params_tokens",
}
BEST = {
    ("params_tokens", "hot"): 2.0750516e-4,
    ("params_tokens", "hot_100b+"): 6.923289079e-4,
    ("params_tokens", "cool_end"): 2.04779068e-4,
    ("params_tokens", "slim_chinchilla"): 1.3036380e-5,
    ("params_tokens", "hot_100b+_512x"): 1.3065958e-5,
    ("params_tokens", "lr_ablation_hot"): 2.058420824e-4,
    ("width_depth_tokens", "hot_100b+"): 4.199461721e-4,
    ("width_depth_params_tokens", "hot_100b+"): 2.948052764e-4,
    ("width_depth_params_tokens", "hot"): 1.11403794e-4,
    ("width_depth_params_tokens", "cool_end"): 8.9273598e-5,
    ("width_depth_params_tokens", "lr_ablation_hot"): 1.09185236e-4,
}
"""Best known objectives at delta 1e-4, to the digits known."""
FILES = (
    *(f"parameters_{name}" for name in (
        "cool_begin", "cool_begin_no_embeds", "cool_end", "cool_end_no_embeds", "hot", "hot_100b+", "hot_100b+_512x",
        "hot_100b+_no_embeds", "hot_120b+_only", "hot_120b+_only_no_embeds", "hot_no_embeds",
        "hot_sampled_like_chinchilla", "lr_ablation_hot", "lr_ablation_hot_no_embeds",
        "lr_ablation_hot_sampled_like_chinchilla", "slim_chinchilla",
    )),
    "width_depth_hot_100b+",
    *(f"width_depth_parameters_{name}" for name in ("cool_end", "hot", "hot_100b+", "hot_120b+_only", "lr_ablation_hot")),
)  # fmt: skip


def split(file: str) -> tuple[str, str, str]:
    """(law, subset, counting) of a published file."""
    form = next(form for form in LAW_OF_FILE if file.startswith(form + "_"))
    subset = file.removeprefix(form + "_")
    counting = "no_embedding" if subset.endswith("_no_embeds") else "total"
    return LAW_OF_FILE[form], subset.removesuffix("_no_embeds"), counting


@cache
def data(subset: str, counting: str = "total") -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns and losses of a published data set."""
    runs = load_runs("gemstones", subset=subset)
    kept = runs.kept
    columns = {name: kept[name].to_numpy(float) for name in ("width", "depth", "tokens") if name in kept}
    return columns | {"params": np.asarray(runs.params(counting))}, kept["loss"].to_numpy(float)


@cache
def best(law: str, subset: str, counting: str = "total", delta: float = 1e-4, seed: int = 0) -> Solution:
    return solve(get_law(law), *data(subset, counting), delta=delta, seed=seed)


def published(data_dir: Path, file: str) -> tuple[np.ndarray, float]:
    """(theta, objective) of a published file."""
    _, subset, counting = split(file)
    ending = subset + ("_no_embeds" if counting == "no_embedding" else "")
    form = file.removesuffix("_" + ending)
    path = data_dir / f"gemstones/published/delta_1e-4/approach_3_{form}_grid_search_0_{ending}.json"
    saved = json.loads(path.read_text())
    theta = [*saved["coefficients"]["0"], *saved["exponents"]["0"], saved["irreducible_error"]["0"]]
    return np.array(theta), saved["loss"]["0"]


@pytest.mark.parametrize("file", FILES)
def test_published_fit_is_recomputed_and_beaten(data_dir: Path, file: str) -> None:
    name, subset, counting = split(file)
    theta, value = published(data_dir, file)
    assert objective(get_law(name), theta, *data(subset, counting), 1e-4) == pytest.approx(value, abs=ROUNDED)
    ours = best(name, subset, counting)
    assert ours.objective <= value + ROUNDED
    known = BEST.get((name, subset)) if counting == "total" else None
    if known is not None:
        assert ours.objective <= known * (1 + 1e-7)
    assert ours.status is Status.converged


@pytest.mark.parametrize("file", FILES)
def test_two_seeds_agree(data_dir: Path, file: str) -> None:
    name, subset, counting = split(file)
    other = best(name, subset, counting, seed=1)
    assert other.objective == pytest.approx(best(name, subset, counting).objective, rel=1e-8)


@pytest.mark.parametrize("delta", [1e-3, 1e-5])
@pytest.mark.parametrize(
    ("law", "subset"),
    [("params_tokens", "hot"), ("params_tokens", "slim_chinchilla"), ("width_depth_tokens", "hot_100b+")],
)
def test_no_scipy_search_goes_lower(data_dir: Path, law: str, subset: str, delta: float) -> None:
    """L-BFGS-B with our gradient and the objective over delta, so that its tolerances bite, from the best optimum and
    from starts of the grid."""
    form, (columns, loss) = get_law(law), data(subset)
    ours = best(law, subset, delta=delta)
    problem = Problem.of(form, columns, loss, delta)

    def scaled(theta: np.ndarray) -> tuple[float, np.ndarray]:
        psi = np.clip(problem.residuals(theta), -delta, delta)
        return problem.value(theta) / delta, -form.jacobian(theta, columns).T @ psi / delta

    rng = np.random.default_rng(0)
    starts = [
        ours.theta,
        *(ours.theta * (1 + 0.02 * rng.standard_normal((3, len(ours.theta))))),
        *random_starts(form, 3, rng),
    ]
    for start in starts:
        with np.errstate(all="ignore"):
            found = minimize(
                scaled, start, jac=True, method="L-BFGS-B", options={"maxiter": 3000, "ftol": 1e-15, "gtol": 1e-10}
            )
        assert found.fun * delta >= ours.objective * (1 - 1e-9)
    assert best(law, subset, delta=delta, seed=1).objective == pytest.approx(ours.objective, rel=1e-8)


@pytest.mark.parametrize(
    ("subset", "delta", "slope"),
    [
        ("hot", 1e-3, 1 - 0.291182),
        ("hot", 1e-4, 1 - 0.286577),
        ("hot", 1e-5, 1 - 0.285607),
        ("hot_100b+_512x", 1e-4, 0.1024),
        ("slim_chinchilla", 1e-4, 0.7224),
        ("cool_end", 1e-4, 0.6609),
    ],
)
def test_slopes_at_the_optimum(data_dir: Path, subset: str, delta: float, slope: float) -> None:
    law = get_law("params_tokens")
    found = law.compute_optimal_exponent(law.natural(best("params_tokens", subset, delta=delta).theta))
    assert found == pytest.approx(slope, abs=6e-7 if subset == "hot" else 6e-5)


@pytest.mark.parametrize("grid_size", [300, 3125])
@pytest.mark.parametrize("delta", [1e-4, 1e-5])
def test_slope_does_not_depend_on_the_grid(data_dir: Path, grid_size: int, delta: float) -> None:
    """What looks unstable in the paper's Fig 20 is flat to 4e-8."""
    law = get_law("params_tokens")
    found = solve(law, *data("hot"), delta=delta, starts="grid", grid_size=grid_size)
    slopes = [
        law.compute_optimal_exponent(law.natural(one.theta))
        for one in (found, best("params_tokens", "hot", delta=delta))
    ]
    assert slopes[0] == pytest.approx(slopes[1], abs=4e-8)


@pytest.mark.parametrize(
    ("law", "share"), [("params_tokens", 0.8), ("width_depth_tokens", 0.8), ("width_depth_params_tokens", 0.5)]
)
def test_share_of_the_authors_starts_at_the_best(data_dir: Path, law: str, share: float) -> None:
    form = get_law(law)
    starts = random_starts(form, 300, np.random.default_rng(0))
    ends = Newton(Problem.of(form, *data("hot_100b+"))).follow(starts)
    assert np.mean(ends.objectives <= BEST[law, "hot_100b+"] * (1 + 1e-6)) >= share


def test_reference_stops_early_and_says_success(data_dir: Path) -> None:
    law, (columns, loss) = get_law("params_tokens"), data("hot_100b+_512x")
    shown = solve(law, columns, loss, solver="reference", grid_size=4)
    ours = best("params_tokens", "hot_100b+_512x")
    assert shown.status is Status.converged
    assert shown.objective > ours.objective * 1.01


@pytest.mark.parametrize(
    ("law", "subset"),
    [("params_tokens", "hot"), ("width_depth_params_tokens", "cool_end"), ("interaction", "hot"), ("kaplan_e", "hot")],
)
def test_torch_agrees_with_the_compiled_solver(data_dir: Path, law: str, subset: str) -> None:
    pytest.importorskip("torch")
    found = solve(get_law(law), *data(subset), solver="newton_torch", grid_size=8)
    assert found.objective == pytest.approx(best(law, subset).objective, rel=1e-9)


@pytest.mark.parametrize("delta", [1e-5, 1e-3])
@pytest.mark.parametrize("name", LAWS)
def test_noise_free_laws_are_recovered(name: str, delta: float) -> None:
    law, columns = get_law(name), table(seed=3, n=120)
    found = solve(law, columns, law.predict(NATURAL[name], columns), delta=delta)
    assert law.natural(found.theta) == pytest.approx(NATURAL[name], rel=1e-6)
    assert found.share_at_best > 0


class OwnLaw(Law):
    """A law known only through its prediction: L = A/params^alpha + B/tokens^beta + E."""

    name, formula, source = "own", "L = A/params^alpha + B/tokens^beta + E", "this test"
    predictors = ("params", "tokens")
    parameters = ("A", "B", "alpha", "beta", "E")
    log_parameters = frozenset({"A", "B", "E"})
    exponents = ("alpha", "beta")
    irreducible = "E"

    def log_prediction(self, theta: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
        x, y = np.log(columns["params"]), np.log(columns["tokens"])
        return np.logaddexp(np.logaddexp(theta[0] - theta[2] * x, theta[1] - theta[3] * y), theta[4])


class CountingLaw(OwnLaw):
    """Counts its calls."""

    calls = 0

    def log_prediction(self, theta: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
        self.calls += 1
        return super().log_prediction(theta, columns)


class OneVectorLaw(CountingLaw):
    """Takes one vector only: a stack of vectors is an error."""

    def log_prediction(self, theta: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
        return super().log_prediction(np.array([float(entry) for entry in theta]), columns)


class MixingLaw(CountingLaw):
    """Takes a stack of vectors, but mixes them."""

    def log_prediction(self, theta: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
        return super().log_prediction(theta, columns) + (theta[2].min() - theta[2])


def test_a_law_of_ones_own_is_asked_for_many_vectors_at_once_only_if_it_can_answer() -> None:
    columns = table()
    loss = get_law("params_tokens").predict(NATURAL["params_tokens"], columns)
    loss = loss * np.exp(1e-2 * np.random.default_rng(0).standard_normal(len(loss)))
    laws = stacked, single, mixing = CountingLaw(), OneVectorLaw(), MixingLaw()
    best, *others = (solve(law, columns, loss, grid_size=8) for law in laws)
    for other in others:
        np.testing.assert_allclose(other.theta, best.theta, rtol=1e-6)
        assert other.objective == pytest.approx(best.objective, rel=1e-12)
    assert stacked.calls < 0.6 * min(single.calls, mixing.calls)


def test_a_long_table_has_the_optimum_of_a_search_on_all_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts that descend on a sample first end at the same optimum of all rows; each start is counted."""
    rng, law = np.random.default_rng(0), get_law("params_tokens")
    columns = {"params": np.exp(rng.uniform(16, 23, 3000)), "tokens": np.exp(rng.uniform(20, 27, 3000))}
    known = {"A": 400.0, "B": 400.0, "alpha": 0.34, "beta": 0.28, "E": 1.7}
    loss = law.predict(known, columns) * np.exp(5e-3 * rng.standard_normal(3000))
    whole = solve(law, columns, loss, delta=1e-3)
    monkeypatch.setattr("shapelaw.fitting.newton.LONG", 1000)
    monkeypatch.setattr("shapelaw.fitting.newton.LONG_SAMPLE", 400)
    sampled = solve(law, columns, loss, delta=1e-3)
    assert sampled.objective == pytest.approx(whole.objective, rel=1e-12)
    np.testing.assert_allclose(sampled.theta, whole.theta, rtol=1e-7)
    assert sampled.n_starts == whole.n_starts
    assert sampled.share_at_best > 0.9


def test_general_solver_finds_the_same_optimum(data_dir: Path) -> None:
    columns, loss = data("slim_chinchilla")
    own = solve(OwnLaw(), columns, loss, grid_size=8)
    assert own.objective == pytest.approx(best("params_tokens", "slim_chinchilla").objective, rel=1e-8)


def test_authors_grids_have_their_sizes() -> None:
    sizes = {"params_tokens": 4_500, "width_depth_params_tokens": 4_050_000, "width_depth_tokens": 135_000}
    for name, size in sizes.items():
        law = get_law(name)
        assert grid_count(law) == size == math.prod(map(len, grid_levels(law)))
    blocks = list(grid_starts(get_law("params_tokens")))
    starts = np.concatenate(blocks)
    assert len(np.unique(starts, axis=0)) == 4_500
    assert starts.min(axis=0).tolist() == [0, 0, 0, 0, -1]
    assert starts.max(axis=0).tolist() == [25, 25, 2, 2, 1]


def test_large_grids_are_streamed() -> None:
    """The first blocks of 4,050,000 starts come without the rest being built."""
    blocks = grid_starts(get_law("width_depth_params_tokens"))
    assert [len(next(blocks)) for _ in range(3)] == [4096] * 3


@pytest.mark.parametrize("size", [1, 7, 31, 300, 3125, 10_000, 50_000])
def test_other_grid_sizes_are_regular_or_spread(size: int) -> None:
    law = get_law("params_tokens")
    starts = np.concatenate(list(grid_starts(law, size)))
    assert len(starts) == grid_count(law, size) == len(np.unique(starts, axis=0))
    assert abs(len(starts) - size) <= 0.2 * size
    again = np.concatenate(list(grid_starts(law, size, chunk=100)))
    np.testing.assert_array_equal(starts, again)


def test_grid_tally_counts_every_start(data_dir: Path) -> None:
    found = solve(get_law("params_tokens"), *data("slim_chinchilla"), starts="grid", grid_size=4_500)
    assert found.n_starts == 4_500
    assert found.share_at_best > 0.8
    assert found.objective <= BEST["params_tokens", "slim_chinchilla"] * (1 + 1e-7)


def test_weights_count_as_repeated_points(data_dir: Path) -> None:
    columns, loss = data("slim_chinchilla")
    weights = np.random.default_rng(0).integers(0, 4, len(loss))
    repeated = {name: np.repeat(values, weights) for name, values in columns.items()}
    law = get_law("params_tokens")
    weighted, plain = solve(law, columns, loss, weights=weights), solve(law, repeated, np.repeat(loss, weights))
    assert weighted.objective == pytest.approx(plain.objective, rel=1e-9)


def test_order_and_units_of_rows_do_not_matter(data_dir: Path) -> None:
    columns, loss = data("hot")
    order = np.random.default_rng(0).permutation(len(loss))
    law = get_law("params_tokens")
    found = solve(law, {name: 1e-9 * values[order] for name, values in columns.items()}, loss[order])
    assert found.objective == pytest.approx(best("params_tokens", "hot").objective, rel=1e-8)


def test_huber_is_scipys() -> None:
    from scipy.special import huber as scipys

    r = np.random.default_rng(0).normal(size=100)
    np.testing.assert_allclose(huber(r, 0.3), scipys(0.3, r), rtol=1e-15)


GOOD = {"params": np.geomspace(1e8, 1e9, 8), "tokens": np.geomspace(1e10, 1e9, 8)}
LOSS = np.linspace(3.5, 2.5, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"delta": 0.0}, "delta=0: allowed values are finite numbers from 1e-15"),
        ({"delta": 1e-30}, "delta=1e-30: allowed"),
        ({"delta": -1e-3}, "delta=-0.001"),
        ({"delta": float("nan")}, "delta=nan"),
        ({"loss": -LOSS}, "loss has 8 values that are not positive"),
        ({"loss": np.where(np.arange(8) == 3, np.nan, LOSS)}, "row 3"),
        ({"loss": LOSS[:5]}, "different lengths"),
        ({"columns": {"params": GOOD["params"]}}, "missing.*tokens"),
        ({"columns": GOOD | {"tokens": np.zeros(8)}}, "tokens has 8 values"),
        ({"columns": GOOD | {"tokens": np.full(8, np.inf)}}, "not positive and finite"),
        ({"columns": GOOD | {"params": np.full(8, 1e8)}}, "single value 1e\\+08"),
        ({"columns": {name: v[:4] for name, v in GOOD.items()}, "loss": LOSS[:4]}, "4 points for the 5 parameters"),
        ({"columns": GOOD | {"params": np.array(["a"] * 8)}}, "not a number"),
        ({"starts": "random"}, "starts=random"),
        ({"solver": "adam"}, "solver=adam"),
        (
            {"law": "accuracy_sigmoid", "columns": {"loss": LOSS}, "loss": LOSS / 9, "solver": "newton_torch"},
            "law=accuracy_sigm",
        ),
        ({"grid_size": 0}, "grid_size=0"),
        ({"weights": -np.ones(8)}, "weights"),
    ],
)
def test_bad_input_is_named_before_the_first_start(change: dict[str, object], words: str) -> None:
    given_ = {"law": "params_tokens", "columns": GOOD, "loss": LOSS} | change
    law, columns, loss = given_.pop("law"), given_.pop("columns"), given_.pop("loss")
    with pytest.raises(UserError, match=words):
        solve(get_law(law), columns, loss, **given_)


positive = st.floats(1e-3, 1e15, allow_nan=False)
TINY_COEFFICIENT = [
    (15.0, 398345437083628.0, 1.0, 1.0),
    (360548406188704.0, 360548406188704.0, 49.0, 1.0),
    *2 * [(275.0, 646588611030450.0, 15.0, 1.0)],
    *2 * [(12722138459.0, 398345437083628.0, 1.0, 1.0)],
]
"""The best fit to these rows has B = e^-167 beside beta = -4.9."""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(positive, st.sampled_from([1e8, 1e9])),
            positive,
            st.floats(1e-3, 50.0),
            st.sampled_from([1.0, 2.0, 512.0]),
        ),
        min_size=2,
        max_size=30,
    ),
    name=st.sampled_from(sorted(name for name, law in LAWS.items() if isinstance(law, SumLaw))),
    delta=st.sampled_from([1e-5, 1e-3, 1.0]),
)
@example(rows=TINY_COEFFICIENT, name="skaling", delta=1e-5)
def test_random_tables_give_a_number_or_a_message(rows: list[tuple[float, ...]], name: str, delta: float) -> None:
    params, tokens, loss, shape = np.array(rows).T
    columns = {"params": params, "tokens": tokens, "flops": params * tokens, "width": 128 * shape, "depth": tokens**0.1}
    law = get_law(name)
    try:
        found = solve(law, columns, loss, delta=delta, grid_size=4)
    except UserError as error:
        message = str(error)
        if len(message) < 20:
            raise
        return
    assert np.isfinite(found.objective)
    assert found.objective >= 0
    assert np.isfinite(law.predict_at(found.theta, columns)).all()
    parameters = law.natural(found.theta)
    assert all(np.isfinite(value) for value in parameters.values())
    np.testing.assert_allclose(law.predict(parameters, columns), law.predict_at(found.theta, columns), rtol=1e-9)
    assert objective(law, found.theta, columns, loss, delta) == pytest.approx(found.objective, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("columns", [1, 2, 4, 6])
def test_many_small_non_negative_problems_are_solved_as_scipy_solves_each(columns: int) -> None:
    random = np.random.default_rng(columns)
    matrices = random.lognormal(size=(20, 30, columns)) * 10.0 ** random.uniform(-6, 6, size=(20, 1, columns))
    targets = matrices[:, :, 0] / matrices[:, :1, 0] * random.normal(size=(20, 1)) + random.normal(size=(20, 30))
    grams, moments = np.einsum("gni,gnj->gij", matrices, matrices), np.einsum("gni,gn->gi", matrices, targets)
    values, found = non_negative(grams, moments)
    for i in range(20):
        expected, distance = nnls(matrices[i], targets[i])
        np.testing.assert_array_equal(found[i] > 0, expected > 0)
        np.testing.assert_allclose(matrices[i] @ found[i], matrices[i] @ expected, atol=1e-9)
        assert values[i] + targets[i] @ targets[i] == pytest.approx(distance**2, rel=1e-6, abs=1e-6)
