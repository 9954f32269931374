"""docs/figures.md: what it says that our figures show is what their tables hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from shapelaw.figures import frontiers
from shapelaw.figures.catalogue import CATALOGUE
from shapelaw.figures.entry import Tables
from shapelaw.figures.evidence import Evidence, of_the_paper

PAGE = Path(__file__).parents[2] / "docs" / "figures.md"


def rows_of_the_page() -> dict[str, str]:
    """Name of a figure -> its row of the page's table; a row may be of several."""
    rows = [
        line
        for line in PAGE.read_text().splitlines()
        if line.startswith(("| `fig0", "| `fig1", "| `fig2", "| `beyond"))
    ]
    return {name: row for row in rows for name in row.split("|")[1].split("`")[1::2]}


@pytest.fixture(scope="module")
def page() -> dict[str, str]:
    return rows_of_the_page()


@pytest.fixture(scope="module")
def published(data_dir: Path) -> Evidence:
    return of_the_paper()


def test_every_figure_has_a_row(page: dict[str, str]) -> None:
    assert set(page) == {entry.name if entry.name.startswith("beyond") else entry.name[:5] for entry in CATALOGUE}
    assert all(row.count("|") == 5 for row in page.values())


def _row(curves: pd.DataFrame, kind: str, law: str, budget: float) -> pd.Series:
    """Of a curve, at a budget that it has."""
    some = curves[(curves["kind"] == kind) & (curves["law"] == law)]
    (row,) = (one for _, one in some.iterrows() if np.isclose(one["budget"], budget))
    return row


EQ1, EQ2, EQ3, OURS = "params_tokens", "width_depth_params_tokens", "width_depth_tokens", "interaction"


def _shapes(tables: Tables) -> list[str]:
    studies = tables["studies"]["study"].value_counts()
    counts = f"{studies['Porian et al. 2024']} of Porian et al., {studies['Hoffmann et al. 2022']} of Hoffmann et al."
    return [f"{len(tables['trained'])} shapes", f"{counts} and {len(tables['industry'])} widely used models"]


def _rates(tables: Tables) -> list[str]:
    spread = tables["spread"].set_index("rate_is")["ratio"]
    return [
        f"a factor of {spread['lr_eff']:.1f} apart, those of lr_base a factor of {spread['lr_base']:.2f}",
        f"{tables['rates'].groupby(['width', 'depth']).ngroups} shapes",
    ]


def _hull(tables: Tables) -> list[str]:
    lines = tables["lines"].set_index(["cost", "method", "target"])
    for target in frontiers.TARGETS:
        for name in ("slope", "intercept"):
            ours, theirs = (lines.loc[("flops", method, target), name] for method in ("hull", "published"))
            assert ours == pytest.approx(theirs, abs=1e-9)
    slope = {target: lines.loc[("flops", "hull", target), "slope"] for target in frontiers.TARGETS}
    at_1e21 = np.exp(
        lines.loc[("flops", "hull", "tokens_per_param"), "intercept"] + slope["tokens_per_param"] * np.log(1e21)
    )
    said = {
        "params": f"params as C^{slope['params']:.2f}",
        "tokens_per_param": f"tokens per parameter as C^{slope['tokens_per_param']:.2f}, {at_1e21:.0f} at 1e21 FLOPs",
        "binning": f"by binning as C^{lines.loc[('flops', 'binning', 'tokens_per_param'), 'slope']:.2f}",
    }
    return [*said.values(), "within 1e-9"]


def _short(tables: Tables) -> list[str]:
    said = []
    for kind, law in (("ours", EQ2), ("other law", OURS)):
        found = [_row(tables["curves"], kind, law, 10.0**k) for k in (20, 22, 24)]
        ratios, tokens = ([one[name] for one in found] for name in ("aspect_ratio", "tokens_per_param"))
        said.append(
            "width over depth {:.0f}, {:.0f} and {:.0f} at 1e20, 1e22 and 1e24 FLOPs".format(*ratios)
            + ", tokens per parameter {:.2g}, {:.2g} and {:.2g}".format(*tokens)
        )
    theirs = [_row(tables["curves"], "published", EQ2, 10.0**k)["aspect_ratio"] for k in (20, 22, 24)]
    return [*said, "published {:.0f}, {:.0f} and {:.0f}".format(*theirs)]


def _sizes(budget: float) -> Callable[[Tables], list[str]]:
    def said(tables: Tables) -> list[str]:
        curves = tables["curves"]
        ours = _row(curves, "ours", EQ2, budget)
        text = [f"width over depth {ours['aspect_ratio']:.0f} at {budget:.0e} FLOPs".replace("e+", "e")]
        if "published" in set(curves["kind"]):
            text.append(f"published {_row(curves, 'published', EQ2, budget)['aspect_ratio']:.0f}")
        return text

    return said


def _all_sizes(tables: Tables) -> list[str]:
    ours = tables["curves"][(tables["curves"]["kind"] == "ours") & (tables["curves"]["law"] == EQ2)]
    models = tables["industry"]
    best = np.exp(np.interp(np.log(models["flops"]), np.log(ours["budget"]), np.log(ours["params"])))
    eq1, eq2 = (_row(tables["curves"], "ours", law, 1e20)["params"] / 1e6 for law in (EQ1, EQ2))
    below = "all" if (models["params"] < best).all() else str((models["params"] < best).sum())
    return [f"{below} {len(models)} widely used models lie below", f"{eq1:.0f}M by eq 1, {eq2:.0f}M by eq 2"]


def _eq3(tables: Tables) -> list[str]:
    found = [_row(tables["curves"], "ours", EQ3, 10.0**k) for k in (20, 22, 23)]
    return [
        "width over depth {:.0f}, {:.0f} and {:.0f} at 1e20, 1e22 and 1e23 FLOPs".format(
            *(one["aspect_ratio"] for one in found)
        )
    ]


def _rainbow(tables: Tables) -> list[str]:
    lines = tables["lines"]
    exponents = lines["exponent"].dropna()
    narrow = lines[lines["subset"] == "hot_100b+_512x"].iloc[0]
    assert (lines["method"] == "hull").sum() == 10
    hull = lines[lines["method"] == "hull"]
    assert np.allclose(hull["exponent"], hull["published"], atol=1e-6)
    return [
        f"{len(exponents)} exponents from {exponents.min():.2f} to {exponents.max():.2f}",
        f"{len(lines) - len(exponents)} are not identified",
        f"width 512 alone {narrow['exponent']:.2f}, where the published fit has {narrow['published']:.2f}",
    ]


def _overspend(tables: Tables) -> list[str]:
    worst = tables["overspend"].groupby("unit")[["overspend", "overspend_same_loss"]].max() - 1
    same, hull = ([f"{worst.loc[unit, name]:.0%}" for unit in ("flops", "device_hours")] for name in worst)
    return [f"{same[0]} (FLOPs) and {same[1]} (GPU hours)", f"{hull[0]} and {hull[1]} over the hull"]


def _overtraining(tables: Tables) -> list[str]:
    losses = tables["losses"].set_index(["budget", "factor"])["excess"]
    often, seldom = ([f"{losses[budget, factor]:.1%}" for budget in (1e20, 1e22)] for factor in (4.0, 0.25))
    return [
        f"four times the best tokens raise the loss by {often[0]} at 1e20 FLOPs and {often[1]} at 1e22",
        f"a quarter of them by {seldom[0]} and {seldom[1]}",
    ]


def _delta(tables: Tables) -> list[str]:
    frame = tables["exponents"]
    ours = frame[frame["solver"] == "newton"].groupby(["subset", "delta"])["exponent"].agg(np.ptp)
    theirs = frame[frame["solver"] == "reference"]["exponent"]
    assert ours.max() < 1e-4
    return [
        f"from {theirs.min():.2f} to {theirs.max():.2f}",
        f"from {int(frame['grid_size'].min())} to {frame.loc[frame['solver'] == 'reference', 'grid_size'].max():,} starts",
    ]


def _ratio(tables: Tables) -> list[str]:
    grid, own = tables["grid"], tables["trained"]
    nearest = [
        grid.iloc[int(np.argmin(np.log(grid["width"] / w) ** 2 + np.log(grid["depth"] / d) ** 2))]["ratio"]
        for w, d in own[["width", "depth"]].to_numpy()
    ]
    return [f"from {min(nearest):.2f} to {max(nearest):.2f} for the 22 shapes"]


def _price(tables: Tables) -> list[str]:
    costs = tables["costs"]
    budget = costs["budget"].min()
    some = costs[costs["budget"] == budget].set_index("aspect_ratio")["excess"]
    ends = [f"{some.iloc[int(np.argmin(np.abs(some.index - ratio)))]:.1%}" for ratio in (4, 1024)]
    return [f"{ends[0]} of the loss at a ratio of 4, {ends[1]} at 1,024"]


def _held_out(tables: Tables) -> list[str]:
    errors = tables["errors"].set_index(["held_out", "law"])["error"]
    law, other = (f"{errors['largest_and_latest', name]:.2%}" for name in ("interaction law", "eq 2"))
    return [f"{law} by the interaction law and {other} by eq 2"]


SAID: dict[str, Callable[[Tables], list[str]]] = {
    "fig02_shapes": _shapes,
    "fig03_rates": _rates,
    "fig04_approach_1": _hull,
    "fig05_prescriptions": _short,
    "fig06_rainbow": _rainbow,
    "fig07_overspend": _overspend,
    "fig08_overtraining": _overtraining,
    "fig10_approach_1_half_rate": _hull,
    "fig11_approach_1_cooldown": _hull,
    "fig12_sizes": _all_sizes,
    "fig13_half_rate": _sizes(1e20),
    "fig14_cooldown": _sizes(1e20),
    "fig15_late_tokens": _sizes(1e24),
    "fig17_delta": _sizes(1e20),
    "fig18_delta_half_rate": _sizes(1e20),
    "fig19_delta_cooldown": _sizes(1e20),
    "fig20_delta_grid": _delta,
    "fig21_eq3": _eq3,
    "fig22_feasible_shapes": lambda tables: [f"{len(tables['feasible'])} shapes"],
    "fig24_flops_ratio": _ratio,
    "beyond_aspect_ratio": _price,
    "beyond_held_out": _held_out,
}

LONG = ("fig20_delta_grid", "beyond_held_out")
"""Half of the time that all of them take."""


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.slow] * (one in LONG)) for one in SAID])
def test_the_page_says_what_the_tables_hold(name: str, page: dict[str, str], published: Evidence) -> None:
    (entry,) = (one for one in CATALOGUE if one.name == name)
    row = page[name if name.startswith("beyond") else name[:5]]
    missing = [text for text in SAID[name](entry.tables(published)) if text not in row]
    assert not missing
