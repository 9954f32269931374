"""Model shapes: width and depth, the heads that follow from them, and which shapes are feasible.

Source: Gemstones (arXiv 2502.06857), section 3.1 and appendix A: head size 128, as many heads as the width holds,
two query heads to a key-value head, and an MLP four times the width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from shapelaw.errors import UserError

HEAD_SIZE = 128
"""Head size of the Gemstones."""
EXPAND = 4
"""Width of the MLP in units of the model's width."""


@dataclass(frozen=True, order=True)
class Shape:
    """One transformer shape.

    Args:
        width: model width (embedding size), a multiple of head_size.
        depth: number of blocks.
        head_size: features of one attention head.

    Raises:
        UserError: if the heads do not divide the width or a size is not positive.
    """

    width: int
    depth: int
    head_size: int = HEAD_SIZE

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise UserError(
                f"shape.depth={self.depth}: allowed values are whole numbers from 1; give shape.depth=1 or more"
            )
        if self.head_size < 2 or self.head_size % 2:
            raise UserError(
                f"head_size={self.head_size}: rotary positions need an even head size of at least 2; give an even one"
            )
        if self.width < self.head_size or self.width % self.head_size:
            below = max(self.width // self.head_size, 1) * self.head_size
            raise UserError(
                f"shape.width={self.width}: allowed values are multiples of head_size={self.head_size}; "
                f"the nearest are {below} and {below + self.head_size}"
            )

    @property
    def n_head(self) -> int:
        """Query heads: width / head_size."""
        return self.width // self.head_size

    @property
    def n_kv_head(self) -> int:
        """Key-value heads: half the query heads, rounded down, at least one (width 384 of the paper: 3 and 1)."""
        return max(self.n_head // 2, 1)

    @property
    def intermediate(self) -> int:
        """Width of the MLP's hidden layer."""
        return EXPAND * self.width

    @property
    def aspect_ratio(self) -> float:
        """Width over depth."""
        return self.width / self.depth

    @property
    def name(self) -> str:
        """`WIDTHxDEPTH`, as in the names of the published models."""
        return f"{self.width}x{self.depth}"


def heads_share(n_head: int) -> bool:
    """Whether this number of query heads divides evenly over the key-value heads: one, three, or an even number."""
    return n_head % max(n_head // 2, 1) == 0


def check_heads(shape: Shape) -> None:
    """Refuse a shape that cannot be trained.

    Raises:
        UserError: if the query heads do not divide evenly over the key-value heads, naming the nearest widths that work.
    """
    if not heads_share(shape.n_head):
        below, above = ((shape.n_head + step) * shape.head_size for step in (-1, 1))
        raise UserError(
            f"shape.width={shape.width}: its {shape.n_head} query heads of {shape.head_size} cannot share {shape.n_kv_head} "
            "key-value heads evenly; "
            f"allowed values are one, three, or an even number of heads; the nearest widths are {below} "
            f"and {above}"
        )


@dataclass(frozen=True)
class ShapeRules:
    """The rules of a feasible shape in a suite.

    Args:
        head_size: features of one attention head; widths are multiples of it.
        even_heads: whether the number of query heads must be even, so that two share a key-value head; otherwise one and
            three are also allowed.
        width_min, width_max: range of the width, inclusive.
        depth_min, depth_max: range of the depth, inclusive.
    """

    head_size: int = HEAD_SIZE
    even_heads: bool = True
    width_min: int = 256
    width_max: int = 8192
    depth_min: int = 2
    depth_max: int = 255

    def __str__(self) -> str:
        heads = "an even number of heads" if self.even_heads else "one, three or an even number of heads"
        return (
            f"widths {self.width_min} to {self.width_max} ({heads} of {self.head_size}), depths {self.depth_min} to "
            f"{self.depth_max}"
        )

    def widths(self) -> list[int]:
        """Every allowed width."""
        heads = range(math.ceil(self.width_min / self.head_size), self.width_max // self.head_size + 1)
        allowed = (n for n in heads if (n % 2 == 0 if self.even_heads else heads_share(n)))
        return [n * self.head_size for n in allowed]

    def shapes(self) -> list[Shape]:
        """Every allowed shape, by width then depth."""
        depths = range(self.depth_min, self.depth_max + 1)
        return [Shape(width, depth, self.head_size) for width in self.widths() for depth in depths]
