"""What the page's calculator needs: the feasible shapes, the law and its refits, as numbers that lose no bit."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.errors import UserError
from shapelaw.laws import SumLaw
from shapelaw.prescribe.answer import LEVEL, UNITS, standing
from shapelaw.prescribe.problem import Problem


def calculator(problem: Problem) -> dict[str, Any]:
    """The problem as plain types; arrays are base64 of little-endian float64.

    Raises:
        UserError: for a cost other than training FLOPs, a space other than whole shapes, or a law that is no sum of powers.
    """
    law = problem.surface.law
    if problem.cost.unit != "flops" or problem.cost.served_tokens or problem.space != "feasible":
        raise UserError(
            "report: the page's calculator answers budgets of training FLOPs over whole shapes; give objective=flops"
        )
    if not isinstance(law, SumLaw):
        raise UserError(f"report: law={law.name}: the page computes sums of power laws; take a fit of one of them")
    world, shapes = problem.world, problem.shapes
    assert shapes is not None
    assert shapes.width is not None
    assert shapes.depth is not None
    return {
        "law": law.name,
        "form": _form(law),
        "thetas": packed(problem.surface.thetas),
        "vectors": len(problem.surface),
        "width": packed(shapes.width),
        "depth": packed(shapes.depth),
        "params": packed(shapes.params),
        "counted": packed(shapes.counted),
        "flops": packed(shapes.train_flops),
        "level": float((problem.fit.settings.get("bootstrap") or {}).get("level", LEVEL)),
        "ranges": [[name, *ends] for name, ends in world.ranges.items()],
        "units": UNITS,
        "suite": world.suite,
        "batch": world.batch_tokens or 1,
        "notes": standing(problem),
        "lr": None if world.lr_base is None else _rate(problem),
        "limited": problem.limits.given,
    }


def packed(values: ArrayLike) -> str:
    """Base64 of the values as little-endian float64, row after row."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f8").tobytes()).decode("ascii")


def _form(law: SumLaw) -> dict[str, Any]:
    """Terms as [[predictor, sign, place in theta], ...] with fixed powers, and the places of what acts on the sum."""
    place = len(law.terms)
    terms = []
    for j, term in enumerate(law.terms):
        slopes = [[predictor, sign, place + i] for i, (_, predictor, sign) in enumerate(term.exponents)]
        terms.append({"log": j, "slopes": slopes, "fixed": dict(term.fixed)})
        place += len(slopes)
    parameters = len(law.parameters)
    return {
        "terms": terms,
        "parameters": parameters,
        "rho": place if law.power else None,
        "aspect": place + bool(law.power) if law.aspect else None,
        "floor": parameters - 1 if law.irreducible else None,
    }


def _rate(problem: Problem) -> dict[str, Any]:
    world = problem.world
    patch = world.patch
    return {
        "base": world.lr_base,
        "text": f"{world.lr_base:g}",
        "rule": world.lr_rule,
        "unit": world.width_unit,
        "threshold": patch.patch_ratio if np.isfinite(patch.patch_ratio) else None,
        "strict": patch.patch_strict,
        "divisor": patch.patch_divisor,
    }
