"""The staged estimation: exact curves give exact constants, noisy ones fall within intervals; what it warns of and refuses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from shapelaw.config import StagedOptions
from shapelaw.errors import UserError
from shapelaw.fitting.fit import fit
from shapelaw.fitting.spec import FitData
from shapelaw.laws import get_law
from shapelaw.runs.table import RunsTable
from shapelaw.step_batch.law import StepsBatchLaw
from shapelaw.step_batch.pipeline import StagedData, estimate

NATURAL = {"N_c": 6e7, "alpha_N": 0.06, "S_c": 50.0, "alpha_S": 0.6, "B_star": 6e4, "alpha_B": 0.25, "E": 0.5}
SIZES = (4e3, 8e3, 1.5e4, 3e4, 4.6e4, 6.8e4)
BATCHES = (256.0, 768.0, 2048.0, 6144.0, 16384.0)


def known(law: StepsBatchLaw) -> dict[str, float]:
    return {name: NATURAL[name] for name in law.parameters}


def table(
    name: str = "steps_batch",
    sizes: tuple[float, ...] = SIZES,
    batches: tuple[float, ...] = BATCHES,
    points: int = 120,
    steps: tuple[float, float] = (20.0, 2000.0),
    noise: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
) -> pd.DataFrame:
    """Curves of the implicit law, each run as far in adjusted steps; noise of log loss (within, between runs)."""
    law = get_law(name)
    assert isinstance(law, StepsBatchLaw)
    rng, rows = np.random.default_rng(seed), []
    for size in sizes:
        for batch in batches:
            count = np.geomspace(*steps, points) * (1 + float(law.critical_batch(known(law), 2.0)) / batch)
            columns = {"params": np.full(points, size), "tokens": count * batch, "batch_tokens": np.full(points, batch)}
            loss = law.predict(known(law), columns)
            loss = loss * np.exp(noise[0] * rng.standard_normal(points) + noise[1] * rng.standard_normal())
            rows.append(pd.DataFrame({**columns, "run": f"{size:.0f}-{batch:.0f}", "loss": loss}))
    return pd.concat(rows, ignore_index=True)


def stages(frame: pd.DataFrame, name: str = "steps_batch", options: Mapping[str, object] | None = None) -> StagedData:
    columns = {key: frame[key].to_numpy() for key in ("params", "tokens", "batch_tokens")}
    data = FitData(get_law(name), "total", columns, frame["loss"].to_numpy(), frame["run"].to_numpy(dtype=str))
    return StagedData.of(data, StagedOptions(**(options or {})), 1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["steps_batch", "steps_batch_e"])
def test_exact_curves_give_the_constants_to_1e_6(name: str) -> None:
    data = stages(table(name), name)
    found = estimate(data)
    assert found is not None
    law = get_law(name)
    assert isinstance(law, StepsBatchLaw)
    got = law.natural(found.theta)
    for key, value in known(law).items():
        assert got[key] == pytest.approx(value, rel=1e-6), key


def test_resampled_runs_pass_through_all_stages() -> None:
    """On exact curves every draw of runs gives the same constants."""
    data = stages(table(points=60))
    found = estimate(data)
    assert found is not None
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30)).astype(float)
    again = estimate(data, weights, found)
    assert again is not None
    np.testing.assert_allclose(again.theta, found.theta, rtol=1e-5)


def covered(seeds: int, refits: int) -> dict[str, float]:
    """Share of noisy tables whose 90% interval holds the truth."""
    hits = dict.fromkeys(get_law("steps_batch").parameters, 0)
    for seed in range(seeds):
        frame = table(points=40, noise=(0.002, 0.002), seed=seed)
        result = fit(
            frame, "steps_batch", 1e-3, method="staged", bootstrap={"n": refits, "kind": "expanded"}, seed=seed
        )
        for name in hits:
            low, high = result.intervals[name]
            hits[name] += low <= NATURAL[name] <= high
    return {name: count / seeds for name, count in hits.items()}


def test_noisy_curves_fall_within_their_intervals() -> None:
    """Of 3 tables x 6 constants at 90%, 12 hits or fewer have a chance below 0.5%."""
    assert sum(covered(3, 40).values()) * 3 > 12


@pytest.mark.slow
def test_coverage_of_the_intervals() -> None:
    """At 90%, each of 30 tables: 20 hits or fewer have a chance below 0.1% each."""
    assert min(covered(30, 100).values()) > 20 / 30


def test_the_result_tells_every_stage() -> None:
    frame = table(points=40, noise=(0.002, 0.0))
    result = fit(frame, "steps_batch", 1e-3, method="staged", staged={"polish": True}, bootstrap={"n": 5})
    critical, converged, curve, polish = result.stages.values()
    assert critical["contours"]
    assert critical["fit"]["B_star"] == pytest.approx(result.parameters["B_star"])
    assert [row["params"] for row in converged["sizes"]] == list(SIZES)
    assert {"N_c", "alpha_N", "E"} <= set(converged["with_E"])
    assert curve["rows"] == len(frame)
    assert polish["objective"] <= polish["objective_of_the_stages"]
    assert polish["parameters"] != result.parameters
    assert set(result.intervals) == set(result.parameters)
    assert result.predict(frame) == pytest.approx(frame["loss"].to_numpy(), rel=0.02)


def test_batches_on_one_side_are_said() -> None:
    result = fit(table(batches=(6144.0, 16384.0, 65536.0), points=40), "steps_batch", 1e-3, method="staged")
    assert any(flag.startswith("not_straddled") and "smaller batches" in flag for flag in result.flags)


def test_runs_far_from_convergence_and_few_sizes_are_said() -> None:
    frame = table(points=40, sizes=SIZES[:3], steps=(20.0, 100.0))
    flags = fit(frame, "steps_batch", 1e-3, method="staged").flags
    assert any(flag.startswith("not_converged") and "3 of 3 sizes" in flag for flag in flags)
    assert any(flag.startswith("few_sizes") for flag in flags)


def refused(frame: pd.DataFrame, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        fit(RunsTable(frame), "steps_batch", 1e-3, method="staged", staged=options)
    return str(caught.value)


def test_bad_input_is_refused_with_what_helps() -> None:
    frame = table(points=20)
    assert "the single batch 2048" in refused(frame[frame["batch_tokens"] == 2048])
    message = refused(frame, levels=[0.5])
    assert "levels=[0.5]" in message
    assert "give losses between" in message
    assert "2 sizes" in refused(frame[frame["params"] < 1e4])
    assert "method.converged=best: allowed values are" in refused(frame, converged="best")
    with pytest.raises(UserError, match=r"method=parametric: a free fit .* method=staged"):
        fit(frame, "steps_batch")
    with pytest.raises(UserError, match="allowed values are steps_batch, steps_batch_e"):
        fit(frame, "params_tokens", method="staged")
    with pytest.raises(UserError, match="draws whole runs"):
        fit(frame, "steps_batch", method="staged", bootstrap={"n": 5, "by": "rows"})
