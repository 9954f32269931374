"""The paper's own fits, to draw and compare beside ours (Gemstones, arXiv 2502.06857)."""

from __future__ import annotations

from typing import Any

from shapelaw.errors import UserError
from shapelaw.files import read_json
from shapelaw.fitting.lines import PowerLine
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.runs.fetch import fetch
from shapelaw.runs.registry import FITS, GEMSTONES

_LAWS = {
    "params_tokens": "parameters",
    "width_depth_params_tokens": "width_depth_parameters",
    "width_depth_tokens": "width_depth",
}
_LINE_SUFFIX = {
    "hot_477": "",
    "hot_100b+_477": "_100b+",
    "hot_120b+_only_477": "_120b+_only",
    "lr_ablation_hot_477": "_lr_ablation",
    "cool_end": "_cooldown",
}
_WITHOUT = {"total": "", "no_embedding": "_no_embeds", "no_embedding_and_head": "_no_embeds"}
"""The paper's "no embeds" omits one matrix in approach 3 and both in approach 1."""


DELTAS = {1e-3: "delta_1e-3", 1e-4: "delta_1e-4"}
"""Huber's delta of the published fits -> their folder."""


def published_law(law: str, subset: str, counting: str = "total", delta: float = 1e-4) -> FitResult:
    """A published fit of approach 3, in natural units (its file holds logarithms of coefficients and of E).

    Raises:
        UserError: if the paper has none, or its file is not available.
    """
    if delta not in DELTAS:
        raise UserError(f"delta={delta:g}: the paper has fits only at {', '.join(f'{one:g}' for one in DELTAS)}")
    stem = f"{DELTAS[delta]}/approach_3_{_LAWS.get(law, law)}_grid_search_0_{subset}{_WITHOUT[counting]}"
    content = {key: value["0"] for key, value in _read(stem).items()}
    form = get_law(law)
    theta = (*content["coefficients"], *content["exponents"], content["irreducible_error"])
    parameters = form.natural(theta)
    return FitResult(
        method="parametric",
        law=law,
        parameters=parameters,
        units=form.units,
        objective=content["loss"],
        compute_optimal_exponent=form.compute_optimal_exponent(parameters),
        settings={"counting": counting, "delta": delta, "flops": None, "bootstrap": None},
        theta=theta,
    )


def published_line(target: str, subset: str, counting: str = "total") -> PowerLine:
    """A published line of approach 1 on FLOPs.

    Args:
        target: params, tokens or tokens_per_param.

    Raises:
        UserError: if the paper has none.
    """
    if subset not in _LINE_SUFFIX:
        raise UserError(f"subset={subset}: the paper has no line of approach 1 for this subset")
    content = _read(f"approach_1/approach_1_linear_regression_{target}{_LINE_SUFFIX[subset]}{_WITHOUT[counting]}")
    return PowerLine(content["coef"][0], content["intercept"])


def _read(stem: str) -> dict[str, Any]:
    if stem not in FITS:
        raise UserError(f"{stem}: the paper has no such fit")
    return dict(read_json(fetch(FITS[stem], GEMSTONES)))
