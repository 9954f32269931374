"""FitSpec, solvers and methods of one's own, and the options of methods, in Python and on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from arrays import data_of
from shapelaw import FitSpec, Holdout, RunsTable, UserError, compare, fit, load_fit, load_runs
from shapelaw.config import BootstrapOptions, FitConfig, LineMethod
from shapelaw.config.schema import to_dataclass
from shapelaw.fitting.line_fit import Lines
from shapelaw.fitting.multistart import Endpoints
from shapelaw.fitting.objective import Problem
from shapelaw.fitting.profile import profile
from shapelaw.fitting.result import FitResult
from shapelaw.fitting.solvers import SOLVERS
from shapelaw.fitting.spec import Method, get_method, method_names
from shapelaw.laws import get_law
from shapelaw.verbs.fit import spec_of
from support import Compose


@dataclass(frozen=True)
class ScaledBfgs:
    """A solver of a user's own: SciPy's L-BFGS-B with our gradient, the objective over delta so that its tolerances bite."""

    name: str = "scaled_bfgs"
    tolerance: float = 1e-12

    def minimise(self, problem: Problem, starts: np.ndarray) -> Endpoints:
        delta, law, columns = problem.delta, problem.law, problem.columns

        def scaled(theta: np.ndarray) -> tuple[float, np.ndarray]:
            psi = np.clip(problem.residuals(theta), -delta, delta) * problem.weights
            return problem.value(theta) / delta, -law.jacobian(theta, columns).T @ psi / delta

        options = {"maxiter": 3000, "ftol": 1e-15, "gtol": self.tolerance}
        with np.errstate(all="ignore"):
            runs = [minimize(scaled, start, jac=True, method="L-BFGS-B", options=options) for start in starts]
        return Endpoints.of([run.x for run in runs], [run.fun * delta for run in runs], [run.success for run in runs])


def frame(n: int = 48, noise: float = 0.01) -> pd.DataFrame:
    """Points of eq 1, four to a run, their noise mostly the run's own."""
    rng = np.random.default_rng(0)
    params, tokens = np.repeat(10 ** rng.uniform(7, 9, n // 4), 4), 10 ** rng.uniform(9, 11, n)
    scatter = noise * (np.repeat(rng.standard_normal(n // 4), 4) + 0.3 * rng.standard_normal(n))
    loss = (1.7 + 400 / params**0.34 + 400 / tokens**0.28) * np.exp(scatter)
    return pd.DataFrame(
        {"run": np.repeat(np.arange(n // 4), 4).astype(str), "params": params, "tokens": tokens, "loss": loss}
    )


@pytest.fixture(scope="module")
def table() -> RunsTable:
    return RunsTable(frame())


def test_a_solver_of_ones_own_fits_refits_and_predicts_what_is_held_out(table: RunsTable, tmp_path: Path) -> None:
    """The same optimum, refits and held-out errors as by the compiled solver, through its one method alone."""
    options: dict[str, Any] = {"law": "power_flops", "delta": 1e-2, "grid_size": 3, "holdouts": ["largest"]}
    options["bootstrap"] = {"n": 4}
    ours = fit(table, **options)
    own = fit(table, solver=ScaledBfgs(), **options)
    assert own.settings["solver"] == own.search["solver"] == "scaled_bfgs"
    assert own.objective == pytest.approx(ours.objective, rel=1e-7)
    for name in ours.parameters:
        np.testing.assert_allclose(own.replicates[name], ours.replicates[name], rtol=1e-4)
    errors = [result.checklist["held_out"][0]["mean_absolute"] for result in (own, ours)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    assert load_fit(own.save(tmp_path)) == own


def test_a_solver_of_ones_own_profiles() -> None:
    law = get_law("power_flops")
    columns = {"flops": np.geomspace(1e18, 1e22, 40)}
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(40))
    data = data_of(law, columns, law.predict({"A": 50.0, "alpha": 0.06}, columns) * noise)
    intervals = []
    for solver in (ScaledBfgs(), "newton"):
        spec = FitSpec.of(law, delta=1e-2, solver=solver, grid_size=2)
        intervals.append(profile(data, spec, "alpha").interval)
    np.testing.assert_allclose(intervals[0], intervals[1], rtol=1e-5)


def test_a_solver_of_ones_own_compares_laws(table: RunsTable) -> None:
    spec = FitSpec.of(delta=1e-2, solver=ScaledBfgs(), grid_size=2)
    found = compare(table, ["power_flops"], [Holdout("largest")], spec=spec, refits=3)
    assert list(found.table["law"]) == ["power_flops"]
    assert {result.settings["solver"] for result in found.fits.values()} == {"scaled_bfgs"}
    assert (found.table["largest_low"] <= found.table["largest_high"]).all()


def test_solvers_with_a_name_are_found_by_it(table: RunsTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "scaled_bfgs", ScaledBfgs())
    assert fit(table, "power_flops", solver="scaled_bfgs", grid_size=2).settings["solver"] == "scaled_bfgs"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("adam", "solver=adam: allowed values are newton, newton_torch, reference"),
        (3, "solver=3: your own solver must be an object with a name and minimise"),
        (object(), "your own solver"),
    ],
)
def test_what_is_no_solver_is_refused(table: RunsTable, wrong: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit(table, solver=wrong)  # type: ignore[arg-type]


def test_a_solver_that_gives_too_few_objectives_is_named(table: RunsTable) -> None:
    class Wrong:
        name = "wrong"

        def minimise(self, problem: Problem, starts: np.ndarray) -> Endpoints:
            return Endpoints.of(starts, [1.0])

    with pytest.raises(UserError, match=r"thetas of shape \(\d+, 5\) and objectives of shape \(1,\)"):
        fit(table, solver=Wrong())


@dataclass(frozen=True)
class Constant(Method):
    """A method of a user's own: the mean loss, as a law without any term would have it."""

    name: str = "constant"

    def fit(self, runs: RunsTable, spec: FitSpec) -> FitResult:
        level = float(runs.kept["loss"].mean())
        return FitResult(
            "constant", None, {"E": level}, {"E": "nats per token"}, 0.0, None, settings={"seed": spec.seed}
        )


def test_a_method_of_ones_own_is_an_object(table: RunsTable) -> None:
    result = fit(table, method=Constant(), seed=3)
    assert result.parameters["E"] == pytest.approx(table.kept["loss"].mean())
    assert result.settings == {"seed": 3}
    with pytest.raises(UserError, match="method=constant makes no predictions that could be held out"):
        Constant().theta(None, FitSpec())  # type: ignore[arg-type]


def test_a_spec_is_every_keyword_at_once(table: RunsTable) -> None:
    keywords: dict[str, Any] = {"delta": 1e-3, "solver": "newton", "seed": 2, "bootstrap": {"n": 4, "by": "rows"}}
    spec = FitSpec.of("params_tokens_interaction", counting="total", **keywords)
    assert fit(table, spec) == fit(table, "params_tokens_interaction", counting="total", **keywords)
    assert spec.bootstrap == BootstrapOptions(n=4, by="rows")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.delta = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta": 0.0}, "delta=0"),
        ({"starts": "one"}, "starts=one: allowed values are varpro, grid"),
        ({"grid_size": 0}, "grid_size=0: allowed values are whole numbers from 1"),
        ({"seed": -1}, "seed=-1"),
        ({"law": "steps_batch"}, "law=steps_batch with method=parametric: .* give method=staged"),
        ({"method": "staged"}, "law=params_tokens with method=staged: .*allowed values are steps_batch, steps_batch_e"),
        (
            {"method": "isoflop", "options": {"tolerance": 0.0}},
            "method.tolerance=0: allowed values are finite numbers above 0; 0.15 is usual",
        ),
        (
            {"method": "staged", "law": "steps_batch", "options": {"staged": {"steps": 3}}},
            "staged: unknown steps; allowed names are",
        ),
    ],
)
def test_a_spec_refuses_what_cannot_be_fitted(options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FitSpec.of(**options)


def test_every_method_is_found_by_its_name() -> None:
    assert method_names() == ("parametric", "staged", "hull", "binning", "isoflop")
    assert [get_method(name).name for name in method_names()] == list(method_names())
    assert get_method("isoflop", {"tolerance": 0.3, "cost": "flops", "staged": None}) == Lines(
        "isoflop", LineMethod(tolerance=0.3)
    )


def test_options_of_methods_are_the_same_on_the_command_line(composed: Compose, data_dir: Path) -> None:
    def asked(*given: str) -> FitSpec:
        config: FitConfig = to_dataclass(composed(*given, "bootstrap=none", name="fit"))
        return spec_of(config)

    assert asked("method=binning", "method.bins=30").method.options["bins"] == 30
    assert asked("method=binning").method == Lines("binning")
    assert asked("method=isoflop").method == Lines("isoflop")
    runs = load_runs("chinchilla")
    spec = asked("method=isoflop", "method.tolerance=0.3")
    assert fit(runs, spec).parameters == fit(runs, method="isoflop", tolerance=0.3).parameters
    assert fit(runs, spec).parameters != fit(runs, method="isoflop").parameters
    with pytest.raises(UserError, match=r"method\.tolerance=-1"):
        asked("method=isoflop", "method.tolerance=-1")
