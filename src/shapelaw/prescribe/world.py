"""The world of a prescription: the suite that the runs came from, its shapes, and the cost of a token for each shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
from shapelaw.prescribe.accuracy import FittedAccuracy
from shapelaw.prescribe.domain import Domain, domain_of_shapes, domain_of_sizes
from shapelaw.runs.table import RunsTable
from shapelaw.shapes import HEAD_SIZE, Shape, ShapeRules, check_heads
from shapelaw.suite import RATE, Suite, differing

Array = NDArray[np.float64]

PAPER_RULES = ShapeRules()
UNKNOWN = Suite()
CONTEXTUAL = ("exact", "kaplan")
"""Conventions of FLOPs that depend on the context."""
SAID = ("name", *RATE, "head_size", "lr_base", "vocab_size", "seq_len", "batch_tokens", "corpus", "tokenizer")
"""Facts of a suite that decide an answer, or whether the losses of its runs follow one law."""
ARCHITECTURE_TOLERANCE = 0.01
"""Relative difference of params up to which the runs count as models of this program's architecture."""


@dataclass(frozen=True)
class Points:
    """Sizes for a law and a price: (n,) or (vectors, n) of them, or grids, (vectors, widths, depths).

    Arrays have that shape; a quantity that depends on one axis of a grid alone may have one entry along the other.

    Args:
        width, depth: width and depth of the shape; None for sizes without one.
        params: all parameters.
        counted: parameters as the law counts them.
        train_flops, serve_flops: FLOPs of one token of training and of inference.
        given: further predictors of the law, the same for all sizes, such as unique_tokens.
    """

    width: Array | None
    depth: Array | None
    params: Array
    counted: Array
    train_flops: Array
    serve_flops: Array
    given: Mapping[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, Array]:
        """The predictors of a law, without tokens."""
        shapes = {} if self.width is None or self.depth is None else {"width": self.width, "depth": self.depth}
        same = {name: np.full_like(self.counted, value) for name, value in self.given.items()}
        return {"params": self.counted, **shapes, **same}

    def beside(self, values: Array) -> Array:
        """Values of parameter vectors, (vectors, k), as k arrays that broadcast against the points."""
        return values.T.reshape(values.shape[1], -1, *(1,) * max(self.params.ndim - 1, 1))

    def take(self, index: NDArray[np.intp]) -> Points:
        """Some of the points, along the last axis."""
        return self.map(lambda values: values[..., index])

    def map(self, change: Callable[[Array], Array]) -> Points:
        """The points with the same change to every array."""
        width, depth = (None if sizes is None else change(sizes) for sizes in (self.width, self.depth))
        return Points(
            width,
            depth,
            params=change(self.params),
            counted=change(self.counted),
            train_flops=change(self.train_flops),
            serve_flops=change(self.serve_flops),
            given=self.given,
        )


@dataclass(frozen=True)
class World:
    """A suite and its counting of sizes, which turn a width and a depth into parameters, FLOPs and a rate.

    Args:
        suite: the record of the suite.
        counting: convention of the law's params.
        flops: convention of the FLOPs.
        rules: rules of a feasible shape.
        domain: domain of the fitted rows, by all parameters.
        domains: the same for sizes without a shape, for each convention that the runs have the columns for.
        here: the record of the suite as train.py composes it now; None if it was not read or is missing.
        remarks: notes for readers of its prescriptions, in addition to `notes`.
        given: further predictors of the law, the same for all sizes (`Points.given`).
        accuracy: turns its losses into accuracies; None if not requested.
    """

    suite: Suite = UNKNOWN
    counting: str = "total"
    flops: str = "exact"
    rules: ShapeRules = PAPER_RULES
    domain: Domain = field(default_factory=Domain)
    domains: Mapping[str, Domain] = field(default_factory=dict)
    here: Suite | None = None
    remarks: tuple[str, ...] = ()
    given: Mapping[str, float] = field(default_factory=dict)
    accuracy: FittedAccuracy | None = None

    @classmethod
    def of(cls, fit: FitResult, runs: RunsTable, here: Suite | None = None) -> World:
        """The world of a fit's runs.

        If the runs mix several values, the value of most rows counts, and a note says so. FLOPs are counted as in the fit, or
        exactly if the fit used a recorded column.

        Args:
            fit: a fitted law.
            runs: its runs.
            here: the record of the runs' suite as train.py composes it now, for facts that the runs do not record; a note
                lists them.

        Raises:
            UserError: if the fit is not a law of the loss.
        """
        asked_law(fit)
        recorded = runs.suite
        flops = fit.settings.get("flops") if fit.settings.get("flops") in FLOPS_CONVENTIONS else "exact"
        suite = _completed(recorded, here) if here else recorded
        world = cls(
            suite=suite,
            counting=str(fit.settings.get("counting") or "total"),
            flops=str(flops),
            rules=rules_of(runs, suite.head_size or HEAD_SIZE),
            domain=domain_of_shapes(runs, str(flops)),
            domains={name: domain_of_sizes(runs, name) for name in PARAMS_CONVENTIONS if runs.counts(name)},
            here=here,
        )
        remarks = (*world._architecture(runs), *_mixed(runs, suite), *_taken(recorded, suite))
        return dataclasses.replace(world, remarks=remarks)

    def _architecture(self, runs: RunsTable) -> tuple[str, ...]:
        """A note if the runs' params are not those of this architecture."""
        if not runs.has_shapes or not self.suite.vocab_size:
            return ()
        kept = runs.kept
        ours = self.points(kept["width"], kept["depth"]).params
        off = float(np.max(np.abs(kept["params"].to_numpy() / ours - 1)))
        if off <= ARCHITECTURE_TOLERANCE:
            return ()
        return (
            f"the runs' params differ by up to {off:.0%} from those of the same shapes here, so their architecture is "
            "another; new shapes and their FLOPs are counted as this program builds them",
        )

    def points(self, width: ArrayLike, depth: ArrayLike, *, relaxed: bool = False) -> Points:
        """Sizes of shapes, whole or relaxed.

        Raises:
            UserError: if the vocabulary is not known.
        """
        vocab_size = self.suite.vocab_size
        if not vocab_size:
            raise UserError(
                "vocab_size: the runs do not name their vocabulary, so shapes have no FLOPs; give vocab_size=NUMBER, "
                "or ask only for the size with space=params"
            )
        sizes = (vocab_size, self.rules.head_size)
        w, d = np.asarray(width), np.asarray(depth)
        total = np.asarray(params_total(w, d, *sizes, relaxed=relaxed), dtype=np.float64)
        train, serve = self._flops(w, d, vocab_size, relaxed)
        return Points(
            width=w.astype(np.float64),
            depth=d.astype(np.float64),
            params=total,
            counted=np.asarray(recount(total, w, vocab_size, self.counting), dtype=np.float64),
            train_flops=np.asarray(train, dtype=np.float64),
            serve_flops=np.asarray(serve, dtype=np.float64),
            given=self.given,
        )

    def _flops(self, width: ArrayLike, depth: ArrayLike, vocab_size: int, relaxed: bool) -> tuple[Array, Array]:
        """FLOPs of a token in training and in serving. The exact count takes most of a search's time, so it is done once."""
        sizes = (vocab_size, self.seq_len, self.rules.head_size)
        if self.flops == "exact":
            counted = flops_exact(width, depth, *sizes)
            return counted.total, counted.forward
        counts = (flops_per_token, flops_per_served_token)
        train, serve = (count(width, depth, *sizes, self.flops, relaxed=relaxed) for count in counts)
        return train, serve

    def sizes(self, params: ArrayLike) -> Points:
        """Sizes without a shape: params as the law counts them, FLOPs 6N and 2N."""
        n = np.asarray(params, dtype=np.float64)
        return Points(None, None, n, n, 6.0 * n, 2.0 * n, self.given)

    def depth_at(self, width: ArrayLike, wanted: ArrayLike, count: str = "train_flops") -> Array:
        """Relaxed depth at which a width has a count of `Points`, by default of FLOPs (each is affine in the depth)."""
        shapes = (self.points(width, np.full(np.shape(width), d), relaxed=True) for d in (1.0, 2.0))
        one, two = (getattr(points, count) for points in shapes)
        block = two - one
        return np.asarray((np.asarray(wanted) - (one - block)) / block)

    @property
    def seq_len(self) -> int:
        """Context in tokens; the paper's if the suite names none, which a note reports."""
        return self.suite.seq_len or SEQ_LEN_GEMSTONES

    @cached_property
    def rated(self) -> Suite:
        """The suite with a rate rule; if it has none, the paper's, with each head counted as one of the paper's."""
        unit = HEAD_SIZE / self.rules.head_size
        return self.suite.completed(Suite(width_unit=unit, lr_rule="width_sqrt_depth", patch=DEFAULT_PATCH))

    def rate(self, width: float, depth: float) -> float:
        """Peak learning rate; a relaxed shape gets that of the nearest whole one."""
        head = self.rules.head_size
        return self.rated.rate(Shape(max(round(width / head), 1) * head, max(round(depth), 1), head))

    def check(self, width: int, depth: int) -> None:
        """Refuse a shape, or a context, that train.py refuses.

        Raises:
            UserError: with the reason.
        """
        check_heads(Shape(width, depth, self.rules.head_size))
        batch, seq_len = self.suite.batch_tokens, self.suite.seq_len
        if batch and seq_len and batch % seq_len:
            raise UserError(f"batch_tokens={batch}: is not a multiple of seq_len={seq_len}; give another seq_len")

    @property
    def settings(self) -> tuple[str, ...]:
        """`key=value` for train.py, for settings of the runs that differ from their suite as it is now."""
        return self.suite.overrides_in(self.here) if self.here else ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for readers of its prescriptions, including assumptions."""
        assumed = (self._assumed_context(), self._assumed_heads(), self._assumed_rate())
        return (*self.remarks, *filter(None, assumed))

    @property
    def assumes_context(self) -> bool:
        """Whether FLOPs are counted at a context that the runs do not name."""
        return not self.suite.seq_len and self.flops in CONTEXTUAL

    def _assumed_context(self) -> str:
        if not self.assumes_context:
            return ""
        return f"the runs do not name their context: {self.seq_len:,} tokens are assumed; give seq_len=NUMBER if that is wrong"

    def _assumed_heads(self) -> str:
        if self.suite.head_size:
            return ""
        return f"the runs do not name their head size: heads of {self.rules.head_size} features are assumed"

    def _assumed_rate(self) -> str:
        missing = self.suite.missing(*RATE)
        if not missing or self.suite.lr_base is None:
            return ""
        taken = self.rated
        words = {
            "width_unit": f"width_unit={taken.width_unit:g}",
            "lr_rule": f"lr_rule={taken.lr_rule}",
            "patch": "the paper's patch for extreme shapes",
        }
        return (
            f"the runs do not record {', '.join(missing)}: lr_eff assumes {', '.join(words[name] for name in missing)}"
        )


def _completed(recorded: Suite, here: Suite) -> Suite:
    """The record, completed from the suite as it is now, except for base rate, corpus and tokenizer."""
    facts = dataclasses.replace(here, lr_base=None, corpus=None, tokenizer=None)
    return dataclasses.replace(recorded.completed(facts), folder=here.folder)


def _taken(recorded: Suite, suite: Suite) -> tuple[str, ...]:
    """A note on the facts taken from the suite as it is now."""
    taken = {name: getattr(suite, name) for name in recorded.missing(*SAID)}
    values = ", ".join(f"{name}={_shown(value)}" for name, value in taken.items() if value is not None)
    return (
        (f"the runs do not record {values}: the current values of the suite {suite.name} are used",) if values else ()
    )


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _mixed(runs: RunsTable, suite: Suite) -> tuple[str, ...]:
    """A note if the kept runs differ in a fact of their suite."""
    apart = differing(runs.suite_rows)
    return tuple(
        f"the runs differ in {name} ({', '.join(map(_shown, apart[name]))}): {_shown(getattr(suite, name))} is used, the value "
        "of most rows"
        for name in SAID
        if name in apart
    )


def law_of(fit: FitResult) -> Law:
    """The law of a fit.

    Raises:
        UserError: if it has none, or one that reads only FLOPs and so prefers no size.
    """
    if fit.law is None:
        raise UserError(
            f"fit: method={fit.method} gives lines of the optimal size, not a law of the loss; fit with method=parametric"
        )
    law = get_law(fit.law)
    if "tokens" not in law.predictors:
        raise UserError(f"law={fit.law}: reads {', '.join(law.predictors)} and prefers no size; fit a law with tokens")
    return law


def asked_law(fit: FitResult) -> Law:
    """The law of a fit that answers some question, including a law of FLOPs alone.

    Raises:
        UserError: if it has none, or one that answers no question.
    """
    law = None if fit.law is None else get_law(fit.law)
    return law if law is not None and law.questions else law_of(fit)


def reads_shapes(law: Law) -> bool:
    """Whether a law distinguishes wide shapes from deep ones."""
    return {"width", "depth"} <= set(law.predictors)


def rules_of(runs: RunsTable, head_size: int) -> ShapeRules:
    """The paper's rules in units of the runs' heads, widened to hold the runs' own shapes.

    Widths of 2 to 64 heads, an even number of them, 2 to 255 blocks (Gemstones, Fig 22). If a run has one head or three,
    which also train well, a shape may have them too.
    """
    rules = ShapeRules(head_size, width_min=2 * head_size, width_max=64 * head_size)
    if not runs.has_shapes:
        return rules
    kept = runs.kept
    return dataclasses.replace(
        rules,
        even_heads=bool((kept["width"] // head_size % 2 == 0).all()),
        width_min=min(rules.width_min, int(kept["width"].min())),
        width_max=max(rules.width_max, int(kept["width"].max())),
        depth_min=min(rules.depth_min, int(kept["depth"].min())),
        depth_max=max(rules.depth_max, int(kept["depth"].max())),
    )
