"""Where prescriptions live: the suite that the runs came from, its shapes, and what a token costs each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.config import DepthPatch
from shapelaw.counting import (
    FLOPS_CONVENTIONS,
    PARAMS_CONVENTIONS,
    SEQ_LEN_GEMSTONES,
    flops_exact,
    flops_per_served_token,
    flops_per_token,
    params_total,
    recount,
)
from shapelaw.errors import UserError
from shapelaw.fitting.result import FitResult
from shapelaw.laws import Law, get_law
from shapelaw.lr_rules import DEFAULT_PATCH
from shapelaw.runs.table import RunsTable
from shapelaw.shapes import HEAD_SIZE, ShapeRules

Array = NDArray[np.float64]
Ranges = Mapping[str, tuple[float, float]]

PAPER_RULES = ShapeRules()
ARCHITECTURE_TOLERANCE = 0.01
"""Relative difference of params up to which the runs count as models of this program's architecture."""


@dataclass(frozen=True)
class Points:
    """Sizes that a law and a price are asked about; all arrays have one shape, (n,) or (replicates, n).

    Args:
        width, depth: of the shape; None for sizes without one.
        params: all parameters.
        counted: parameters as the law counts them.
        train_flops, serve_flops: FLOPs of one token of training and of inference.
    """

    width: Array | None
    depth: Array | None
    params: Array
    counted: Array
    train_flops: Array
    serve_flops: Array

    @property
    def columns(self) -> dict[str, Array]:
        """What a law reads, without tokens."""
        shapes = {} if self.width is None or self.depth is None else {"width": self.width, "depth": self.depth}
        return {"params": self.counted, **shapes}

    def take(self, index: NDArray[np.intp]) -> Points:
        """Some of the points, along the last axis."""
        return self.map(lambda values: values[..., index])

    def map(self, change: Callable[[Array], Array]) -> Points:
        """The points with every array changed alike."""
        width, depth = (None if sizes is None else change(sizes) for sizes in (self.width, self.depth))
        counts = (self.params, self.counted, self.train_flops, self.serve_flops)
        return Points(width, depth, *map(change, counts))


@dataclass(frozen=True)
class World:
    """Facts of a suite that turn a width and a depth into parameters, FLOPs and a rate.

    Args:
        vocab_size: rows of the embedding; 0 if the runs do not say.
        seq_len: context in tokens.
        counting: convention of the law's params.
        flops: convention of the FLOPs.
        rules: what makes a shape feasible.
        suite: name of the suite; empty if the runs do not say.
        lr_base: base rate; None if the runs do not say.
        lr_rule, patch: how it becomes the rate of a shape.
        batch_tokens: tokens of one optimizer step; None if the runs do not say.
        ranges: smallest and largest fitted value of each quantity, by all parameters: the fitted domain.
        ranges_by: the same by each convention of counting parameters that the runs can be counted by.
        notes: what a reader of its prescriptions must know.
    """

    vocab_size: int
    seq_len: int = SEQ_LEN_GEMSTONES
    counting: str = "total"
    flops: str = "exact"
    rules: ShapeRules = PAPER_RULES
    suite: str = ""
    lr_base: float | None = None
    lr_rule: str = "width_sqrt_depth"
    patch: DepthPatch = DEFAULT_PATCH
    batch_tokens: int | None = None
    ranges: Ranges = field(default_factory=dict)
    ranges_by: Mapping[str, Ranges] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, fit: FitResult, runs: RunsTable) -> World:
        """The world of the runs that a fit was made from.

        Where the runs mix several values, the one of most rows counts. FLOPs are counted as the fit counted them,
        exactly where it took a recorded column.

        Raises:
            UserError: if the fit is no law of the loss.
        """
        law_of(fit)
        flops = fit.settings.get("flops")
        head_size = int(_usual(runs, "head_size") or HEAD_SIZE)
        batch = _usual(runs, "batch_tokens")
        world = cls(
            vocab_size=int(_usual(runs, "vocab_size") or 0),
            seq_len=int(_usual(runs, "seq_len") or SEQ_LEN_GEMSTONES),
            counting=str(fit.settings.get("counting") or "total"),
            flops=flops if flops in FLOPS_CONVENTIONS else "exact",
            rules=rules_of(runs, head_size),
            suite=suite_of(runs),
            lr_base=_usual(runs, "lr_base"),
            batch_tokens=int(batch) if batch else None,
            ranges=ranges_of(runs),
            ranges_by={name: ranges_of(runs, name) for name in PARAMS_CONVENTIONS if runs.counts(name)},
        )
        return dataclasses.replace(world, notes=world._architecture(runs))

    def _architecture(self, runs: RunsTable) -> tuple[str, ...]:
        """Says so if the runs' params are not those of this architecture."""
        if not runs.has_shapes or self.vocab_size < 1:
            return ()
        kept = runs.kept
        ours = self.points(kept["width"], kept["depth"]).params
        off = float(np.max(np.abs(kept["params"].to_numpy() / ours - 1)))
        if off <= ARCHITECTURE_TOLERANCE:
            return ()
        return (
            f"the runs' params differ by up to {off:.0%} from those of their shapes here: another architecture; new shapes "
            "and their FLOPs are counted as this program builds them",
        )

    def points(self, width: ArrayLike, depth: ArrayLike, *, relaxed: bool = False) -> Points:
        """Sizes of shapes, whole or relaxed.

        Raises:
            UserError: if the vocabulary is not known.
        """
        if self.vocab_size < 1:
            raise UserError(
                "vocab_size: the runs do not name their vocabulary, so shapes have no FLOPs; give vocab_size=NUMBER, "
                "or ask for the size alone by space=params"
            )
        sizes = (self.vocab_size, self.rules.head_size)
        w, d = np.asarray(width), np.asarray(depth)
        total = np.asarray(params_total(w, d, *sizes, relaxed=relaxed), dtype=np.float64)
        train, serve = self._flops(w, d, relaxed)
        return Points(
            width=w.astype(np.float64),
            depth=d.astype(np.float64),
            params=total,
            counted=np.asarray(recount(total, w, self.vocab_size, self.counting), dtype=np.float64),
            train_flops=np.asarray(train, dtype=np.float64),
            serve_flops=np.asarray(serve, dtype=np.float64),
        )

    def _flops(self, width: ArrayLike, depth: ArrayLike, relaxed: bool) -> tuple[Array, Array]:
        """FLOPs of a token in training and in serving; the exact count, which searches spend most time on, once for both."""
        sizes = (self.vocab_size, self.seq_len, self.rules.head_size)
        if self.flops == "exact":
            counted = flops_exact(width, depth, *sizes)
            return counted.total, counted.forward
        counts = (flops_per_token, flops_per_served_token)
        train, serve = (count(width, depth, *sizes, self.flops, relaxed=relaxed) for count in counts)
        return train, serve

    def sizes(self, params: ArrayLike) -> Points:
        """Sizes without a shape: params as the law counts them, FLOPs 6N and 2N."""
        n = np.asarray(params, dtype=np.float64)
        return Points(None, None, n, n, 6.0 * n, 2.0 * n)

    def depth_at(self, width: ArrayLike, wanted: ArrayLike, count: str = "train_flops") -> Array:
        """Relaxed depth at which a width has a count of `Points`, by default of FLOPs (each is affine in the depth)."""
        shapes = (self.points(width, np.full(np.shape(width), d), relaxed=True) for d in (1.0, 2.0))
        one, two = (getattr(points, count) for points in shapes)
        block = two - one
        return np.asarray((np.asarray(wanted) - (one - block)) / block)

    @property
    def width_unit(self) -> float:
        """Widths of the paper's models that one feature stands for, so that one head counts as one head of theirs."""
        return HEAD_SIZE / self.rules.head_size


def law_of(fit: FitResult) -> Law:
    """The law of a fit.

    Raises:
        UserError: if it has none, or one that reads FLOPs alone and so prefers no size.
    """
    if fit.law is None:
        raise UserError(
            f"fit: method={fit.method} gives lines of the optimal size, no law of the loss; fit with method=parametric"
        )
    law = get_law(fit.law)
    if "tokens" not in law.predictors:
        raise UserError(f"law={fit.law}: reads {', '.join(law.predictors)} and prefers no size; fit a law with tokens")
    return law


def reads_shapes(law: Law) -> bool:
    """Whether a law tells wide shapes from deep ones."""
    return {"width", "depth"} <= set(law.predictors)


def rules_of(runs: RunsTable, head_size: int) -> ShapeRules:
    """The paper's rules in units of the runs' heads, widened to hold the runs' own shapes.

    Widths of 2 to 64 heads, an even number of them, 2 to 255 blocks (Gemstones, Fig 22).
    """
    rules = ShapeRules(head_size, width_min=2 * head_size, width_max=64 * head_size)
    if not runs.has_shapes:
        return rules
    kept = runs.kept
    return dataclasses.replace(
        rules,
        width_min=min(rules.width_min, int(kept["width"].min())),
        width_max=max(rules.width_max, int(kept["width"].max())),
        depth_min=min(rules.depth_min, int(kept["depth"].min())),
        depth_max=max(rules.depth_max, int(kept["depth"].max())),
    )


def ranges_of(runs: RunsTable, counting: str = "total") -> Ranges:
    """The fitted domain: ranges of the kept rows, and of their tokens per param and aspect ratio."""
    kept = runs.kept
    values = {
        name: kept[name].to_numpy(dtype=np.float64) for name in ("width", "depth", "params", "tokens") if name in kept
    } | {"params": runs.params(counting)}
    values["tokens_per_param"] = values["tokens"] / values["params"]
    if runs.has_shapes:
        values["aspect_ratio"] = values["width"] / values["depth"]
    return {name: (float(np.nanmin(v)), float(np.nanmax(v))) for name, v in values.items()}


def suite_of(runs: RunsTable) -> str:
    """The suite that the runs name; the published ones do in their source alone. Empty if they name none."""
    if "suite" in runs.kept:
        return str(runs.kept["suite"].iloc[0])
    return "gemstones" if "gemstone" in runs.about.get("source", "") else ""


def _usual(runs: RunsTable, name: str) -> float | None:
    """The most frequent kept value of a column."""
    kept = runs.kept
    if name not in kept or kept[name].isna().all():
        return None
    return float(kept[name].mode().iloc[0])
