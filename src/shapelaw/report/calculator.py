"""The data for the page's calculator: the feasible shapes, the law and its refits, as numbers in full precision."""

from __future__ import annotations

import base64
import shlex
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.errors import UserError
from shapelaw.fitting.new_run import SAME, NewRun
from shapelaw.laws import SumLaw
from shapelaw.laws.base import in_loss_unit
from shapelaw.laws.sums import ABSENT
from shapelaw.prescribe.answer import UNITS, edge_notes, standing, train_command
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.domain import JOINTLY_INSIDE
from shapelaw.prescribe.trust import APART, FAR
from shapelaw.runs.columns import guessing
from shapelaw.suite import Suite, exactly


def calculator(problem: Problem) -> dict[str, Any]:
    """The problem as plain types; arrays are base64 of little-endian float64.

    Raises:
        UserError: for a cost other than training FLOPs, a space other than whole shapes, or a law that is not a sum of powers.
    """
    law = problem.surface.law
    if problem.cost.unit != "flops" or problem.cost.served_tokens or problem.space != "feasible":
        raise UserError(
            "report: the page's calculator answers budgets of training FLOPs over whole shapes; give objective=flops"
        )
    if not isinstance(law, SumLaw):
        raise UserError(f"report: law={law.name}: the page computes only sums of power laws; give a fit of such a law")
    world, shapes = problem.world, problem.shapes
    assert shapes is not None
    assert shapes.width is not None
    assert shapes.depth is not None
    return {
        "law": law.name,
        "form": form_of(law),
        "thetas": packed(problem.surface.thetas),
        "vectors": len(problem.surface),
        "width": packed(shapes.width),
        "depth": packed(shapes.depth),
        "params": packed(shapes.params),
        "counted": packed(shapes.counted),
        "flops": packed(shapes.train_flops),
        "level": problem.level,
        "ranges": [[name, *ends] for name, ends in world.domain.ranges.items()],
        "axes": list(world.domain.axes),
        "faces": [[*face.weights, face.limit] for face in world.domain.faces],
        "near": JOINTLY_INSIDE,
        "newRun": _new_run(problem),
        "ridge": packed(np.array(problem.fit.ridge_vectors).reshape(-1, len(law.parameters))),
        "apart": APART,
        "far": FAR,
        "chance": float(guessing(world.suite.vocab_size or 1e9, problem.fit.loss_unit)),
        "units": in_loss_unit(UNITS, problem.fit.loss_unit),
        "train": train_command(world.suite),
        "settings": [shlex.quote(setting) for setting in world.settings],
        "batch": world.suite.batch_tokens or 1,
        "notes": standing(problem),
        "lr": None if world.suite.lr_base is None else _rate(world.rated),
        "limited": problem.limits.given,
        "edges": {name: [note for _, note in ends] for name, ends in edge_notes(problem).items()},
    }


def _new_run(problem: Problem) -> dict[str, Any] | None:
    """The part that a new run adds to the law's interval: quantiles of noise, and the widening beyond given logarithms."""
    fit = problem.fit
    if not fit.new_run or not len(fit.vectors) or not problem.intervals:
        return None
    own, law = NewRun.read(fit.new_run), problem.surface.law
    return {
        "noise": list(own.noise),
        "widening": own.widening,
        "ends": {name: float(np.log(largest)) + SAME for name, largest in own.largest.items()},
        "counted": "params" in law.predictors,
    }


def packed(values: ArrayLike) -> str:
    """Base64 of the values as little-endian float64, row after row."""
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f8").tobytes()).decode("ascii")


def form_of(law: SumLaw) -> dict[str, Any]:
    """Terms as [[predictor, sign, index in theta], ...] with fixed powers, and the indices of parameters of the whole sum."""
    place = len(law.terms)
    terms = []
    for j, term in enumerate(law.terms):
        slopes = [[predictor, sign, place + i] for i, (_, predictor, sign) in enumerate(term.exponents)]
        terms.append({"log": j, "slopes": slopes, "fixed": dict(term.fixed)})
        place += len(slopes)
    power, aspect, irreducible = (None if at == ABSENT else at for at in law.places)
    return {
        "terms": terms,
        "parameters": len(law.parameters),
        "rho": power,
        "aspect": aspect,
        "floor": irreducible,
    }


def _rate(suite: Suite) -> dict[str, Any]:
    """The rate rule; `base` includes the factor of the batch, `text` is the lr_base that train.py is given."""
    assert suite.lr_base is not None
    assert suite.patch is not None
    return {
        "base": suite.lr_base * suite.batch_factor,
        "text": exactly(suite.lr_base),
        "rule": suite.lr_rule,
        "unit": suite.width_unit,
        "threshold": suite.patch.patch_ratio if np.isfinite(suite.patch.patch_ratio) else None,
        "strict": suite.patch.patch_strict,
        "named": suite.patch.patch_shapes,
        "divisor": suite.patch.patch_divisor,
    }
