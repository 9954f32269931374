"""Every feasible shape of given sizes, from which a suite is chosen."""

from __future__ import annotations

from collections.abc import Sequence

from shapelaw.counting import params_total
from shapelaw.errors import UserError
from shapelaw.shapes import Shape, ShapeRules


def feasible_shapes(
    rules: ShapeRules, vocab_size: int, params_targets: Sequence[float], tolerance: float = 0.05
) -> list[Shape]:
    """Shapes whose parameter count lies within `tolerance` (relative) of one of the targets.

    With the paper's rules, vocabulary 50,304 and targets 50M, 100M, 500M, 1B, 2B, 4B and 7B: 386 shapes, 182 of them
    up to 2B (Gemstones, Fig 22).

    Raises:
        UserError: if no shape meets the constraints.
    """

    def near(count: float, targets: Sequence[float]) -> bool:
        return any(abs(count - target) <= tolerance * target for target in targets)

    found = [
        shape
        for shape in rules.shapes()
        if near(float(params_total(shape.width, shape.depth, vocab_size, shape.head_size)), params_targets)
    ]
    if not found:
        raise UserError(
            f"no shape has a parameter count within {tolerance:.0%} of {list(params_targets)} among {rules}; "
            "widen the ranges or the tolerance"
        )
    return found
