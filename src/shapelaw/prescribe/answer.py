"""A prescription: sizes, tokens, rate and loss with intervals, the fitted domain, and how to run it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.fitting.new_run import KINDS
from shapelaw.fitting.result import plain
from shapelaw.fitting.settings import SettingLaw
from shapelaw.laws.base import in_loss_unit
from shapelaw.prescribe.domain import JOINTLY_INSIDE, Domain
from shapelaw.prescribe.limits import SAME
from shapelaw.prescribe.optimum import Optimum
from shapelaw.prescribe.search import SizeSearch
from shapelaw.prescribe.surface import LOG_TOKENS_MAX, Surface
from shapelaw.prescribe.world import Points, World
from shapelaw.suite import Suite, exactly

Array = NDArray[np.float64]
PREDICTION = "prediction"
"""Key of a sealed loss curve in a prescription's YAML."""
AMONG = 0.05
"""From this share of failed refits on, a note reports them."""


@dataclass(frozen=True)
class Prescription:
    """One answer.

    Args:
        question: the question, for people.
        law: name of the law.
        values: width, depth, aspect_ratio, params, tokens, tokens_per_param, lr_eff, loss, flops (of training), and
            device_hours, dollars, inference_flops if requested; shapes and rate are omitted if there are none.
        units: unit of each value.
        intervals: name -> (low, high) at `level`, from the fit's refits on resampled runs; values on which all refits agree
            (such as a given budget) have none; empty without refits.
        level: share of refits inside an interval.
        outside: name -> factor beyond the fitted range (above 1: over the largest; below 1: under the smallest).
        overrides: `key=value` for train.py; empty without a shape, or if the notes give a reason.
        notes: what a reader must know.
        ranged: quantities that have a fitted range.
        jointly: factor by which the size lies beyond the fitted rows in all its quantities together; 1 inside.
        tables: title -> further tables, such as the cost of other choices.
        drawn: title of the table that has a figure; empty for none.
        prediction: a loss curve with its hash, for comparison with its run; otherwise empty.
        fit: path of the fit; empty if it was not read from a file.
        command: the command that trains it; empty without overrides.
        flags: flags of the fit.
        loss_of_size: `mean` and `new_run` -> (low, high) of the loss at exactly this size and token count: of the law, and of
            one new run; empty without refits, or if the fit holds no such intervals.
    """

    question: str
    law: str
    values: Mapping[str, float]
    units: Mapping[str, str]
    intervals: Mapping[str, tuple[float, float]]
    level: float
    outside: Mapping[str, float]
    overrides: tuple[str, ...]
    notes: tuple[str, ...] = ()
    ranged: frozenset[str] = frozenset()
    jointly: float = 1.0
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    drawn: str = ""
    prediction: Mapping[str, Any] = field(default_factory=dict)
    fit: str = ""
    command: str = ""
    flags: tuple[str, ...] = ()
    loss_of_size: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def inside(self) -> bool:
        """Whether the size lies in the fitted domain."""
        return not self.outside and self.jointly <= JOINTLY_INSIDE

    def place(self, name: str) -> str:
        """Where a quantity lies: `inside`, a multiple of the largest or smallest fitted value, or nothing without a range."""
        factor = self.outside.get(name)
        if factor is None:
            return "inside" if name in self.ranged else ""
        return f"{factor:.3g} times the {'largest' if factor > 1 else 'smallest'}"

    @property
    def size_told(self) -> str:
        """The two named intervals of the loss at exactly this size; nothing without them."""
        if not self.loss_of_size:
            return ""
        mean, new_run = (" to ".join(f"{end:.5g}" for end in self.loss_of_size[kind]) for kind in KINDS)
        return f"loss of this size, {self.level:.0%} intervals: {mean} by the law, {new_run} for one new run"

    @property
    def domain(self) -> str:
        """`inside the fitted domain`, or which quantities lie outside, and by how much."""
        if self.inside:
            return "inside the fitted domain"
        beyond = [f"{name} is {self.place(name)} fitted" for name in self.outside] or ["no quantity by itself"]
        jointly = f"; jointly {self.jointly:.3g} times beyond the fitted rows" if self.jointly > JOINTLY_INSIDE else ""
        return f"outside the fitted domain: {', '.join(beyond)}{jointly}"

    def plain(self) -> dict[str, Any]:
        """As plain types, for YAML."""
        content = {
            "fit": self.fit,
            "question": self.question,
            "law": self.law,
            "values": {name: _number(value) for name, value in self.values.items()},
            "units": dict(self.units),
            "intervals": {name: [_number(end) for end in ends] for name, ends in self.intervals.items()},
            "level": self.level,
            "domain": "inside" if self.inside else "outside",
            "outside": {name: float(factor) for name, factor in self.outside.items()},
            "jointly_beyond": float(self.jointly),
            "overrides": list(self.overrides),
            "notes": list(self.notes),
            "flags": list(self.flags),
            "loss_of_size": {kind: [_number(end) for end in ends] for kind, ends in self.loss_of_size.items()},
            "command": self.command,
        }
        tables = {title: plain(table) for title, table in self.tables.items()}
        return content | tables | ({PREDICTION: dict(self.prediction)} if self.prediction else {})


UNITS = {
    "width": "features",
    "depth": "blocks",
    "aspect_ratio": "width/depth",
    "params": "parameters",
    "tokens": "tokens",
    "tokens_per_param": "tokens/parameter",
    "lr_eff": "learning rate (peak)",
    "accuracy": "share of right answers",
    "best_lr": "as tuned in the runs",
    "best_batch_tokens": "tokens",
    "loss": "nats per token",
    "flops": "FLOPs",
    "inference_flops": "FLOPs",
    "device_hours": "device hours",
    "dollars": "dollars",
}


def collect(search: SizeSearch, optimum: Optimum, question: str) -> Prescription:
    """The answer of a search: row 0 is the fit itself, the other rows give the intervals."""
    table = quantities(search, optimum)
    values = {name: float(drawn[0]) for name, drawn in table.items()}
    usable = np.isfinite(optimum.value[1:])
    varied = {name: drawn[1:][usable] for name, drawn in table.items() if not _same(drawn[1:][usable])}
    intervals = {name: _interval(drawn, search.level) for name, drawn in varied.items() if usable.sum() > 1}
    domain = domain_of(search.world, values)
    trains, refused = _training(search, values)
    return Prescription(
        question=question,
        law=str(search.fit.law),
        values=values,
        units=_units(search, values),
        intervals=intervals,
        level=search.level,
        outside=domain.outside(values),
        overrides=trains,
        notes=(*_notes(search, values, usable), *refused, *_of_accuracy(search, values)),
        ranged=frozenset(domain.ranges),
        jointly=domain.jointly(values),
        flags=tuple(search.fit.flags),
        loss_of_size=_loss_of_size(search, optimum),
    )


def _of_accuracy(search: SizeSearch, values: Mapping[str, float]) -> list[str]:
    accuracy = search.world.accuracy
    return [] if accuracy is None else accuracy.notes(values["loss"])


def _loss_of_size(search: SizeSearch, optimum: Optimum) -> dict[str, tuple[float, float]]:
    """The law's interval and that of a new run at the fit's own point."""
    fit = search.fit
    if not search.intervals or not fit.new_run or not len(fit.vectors):
        return {}
    point = optimum.points.map(lambda values: values[:1])
    law, log_tokens = search.surface.law, optimum.log_tokens[:1]
    thetas = np.vstack([fit.vector, fit.vectors, *(np.array([row]) for row in fit.ridge_vectors)])
    logs = np.log(Surface(law, thetas).at(point).loss(log_tokens))
    params = point.counted if "params" in law.predictors else point.params
    sizes = {"params": params, "tokens": np.exp(log_tokens)}
    ends = {kind: fit.interval_of(kind, logs[0], logs[1:], sizes) for kind in KINDS}
    return {kind: (float(np.exp(low[0])), float(np.exp(high[0]))) for kind, (low, high) in ends.items()}


def _units(search: SizeSearch, values: Mapping[str, float]) -> dict[str, str]:
    """Unit of each value; params of a size without a shape name how the law counts them."""
    counted = {} if "width" in values else {"params": f"parameters ({search.world.counting})"}
    return in_loss_unit({name: UNITS[name] for name in values}, search.fit.loss_unit) | counted


def quantities(search: SizeSearch, optimum: Optimum) -> dict[str, Array]:
    """Every quantity under every parameter vector, each (vectors,)."""
    points, tokens = optimum.points, np.exp(np.minimum(optimum.log_tokens, LOG_TOKENS_MAX))
    out: dict[str, Array] = {}
    if points.width is not None and points.depth is not None:
        out |= {"width": points.width, "depth": points.depth, "aspect_ratio": points.width / points.depth}
    out |= {"params": points.params, "tokens": tokens, "tokens_per_param": tokens / points.params}
    out["loss"] = _diagonal_losses(search, points, optimum.log_tokens)
    if search.world.accuracy is not None:
        out["accuracy"] = search.world.accuracy.at({"loss": out["loss"], "params": points.counted, "tokens": tokens})
    out["flops"] = points.train_flops * tokens
    if search.world.suite.lr_base is not None and "width" in out:
        rate = np.vectorize(search.world.rate, otypes=[np.float64])
        out["lr_eff"] = rate(out["width"], out["depth"])
    for law in map(SettingLaw.read, search.fit.best_settings):
        out[f"best_{law.setting}"] = law.at({"params": points.counted, "tokens": tokens})
    if search.cost.served_tokens:
        out["inference_flops"] = points.serve_flops * search.cost.served_tokens
    if search.cost.throughput is not None:
        seconds = (out["flops"] + out.get("inference_flops", 0.0)) / _diagonal_rates(search, points)
        out["device_hours"] = seconds / 3600.0
        if search.cost.unit == "dollars":
            out["dollars"] = out["device_hours"] * search.cost.price
    return out


def _diagonal_losses(search: SizeSearch, points: Points, log_tokens: Array) -> Array:
    """Loss of each parameter vector at its own point, one point per vector."""
    return search.surface.at(_column(points)).loss(log_tokens[:, None])[:, 0]


def _diagonal_rates(search: SizeSearch, points: Points) -> Array:
    assert search.cost.throughput is not None
    rates = search.cost.throughput.rate(_column(points), search.coefficients)
    return np.asarray(np.broadcast_to(rates, (len(points.params), 1))[:, 0])


def _column(points: Points) -> Points:
    """Points (vectors,) as (vectors, 1)."""
    return points.map(lambda values: values[:, None])


def domain_of(world: World, values: Mapping[str, float]) -> Domain:
    """The domain that a size is compared with; for a size without a shape, the runs' params are counted as the law does."""
    return world.domain if "width" in values else world.domains.get(world.counting, Domain())


def _training(search: SizeSearch, values: Mapping[str, float]) -> tuple[tuple[str, ...], list[str]]:
    """The overrides for train.py, or notes on why there are none for this shape."""
    if search.space != "feasible" or unnamed(search.world):
        return (), []
    try:
        search.world.check(int(values["width"]), int(values["depth"]))
    except UserError as error:
        return (), [f"train.py refuses it: {error}"]
    return overrides(search.world, values), []


def unnamed(world: World) -> list[str]:
    """Facts that the runs do not name, and without which no command can train one of their shapes."""
    named = {"suite": world.suite.name, "batch_tokens": world.suite.batch_tokens}
    return [name for name, value in named.items() if not value]


def standing(search: SizeSearch) -> list[str]:
    """Notes that hold for every size."""
    missing = unnamed(search.world) if search.space == "feasible" else []
    without = [f"no command trains it: the runs do not name their {' and '.join(missing)}"] if missing else []
    return [*(search.world.notes if search.space != "params" else ()), *without]


def overrides(world: World, values: Mapping[str, float]) -> tuple[str, ...]:
    """Overrides for train.py: the shape, tokens in whole batches (rounded down to stay within the budget), the rate, and the
    settings of the runs that differ from their suite as it is now."""
    batch, lr_base = world.suite.batch_tokens, world.suite.lr_base
    assert batch is not None
    tokens = max(int(values["tokens"] // batch), 1) * batch
    out = [f"shape.width={values['width']:.0f}", f"shape.depth={values['depth']:.0f}", f"tokens={tokens}"]
    rate = [] if lr_base is None else [f"lr_base={exactly(lr_base)}"]
    return (*out, *rate, *world.settings)


def train_command(suite: Suite) -> str:
    """The start of a command that trains in a suite; empty if the suite's place is unknown."""
    return f"SHAPELAW_SUITE={shlex.quote(suite.folder)} shapelaw train" if suite.folder else ""


def command(world: World, given: Sequence[str]) -> str:
    """The shell command that trains with these overrides in the world's suite; empty if there is none."""
    begin = train_command(world.suite)
    return f"{begin} {shlex.join(given)}" if begin and given else ""


def _interval(drawn: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _same(drawn: Array) -> bool:
    """Whether a quantity was given, so that its draws differ by rounding alone."""
    return bool(drawn.size) and float(np.ptp(drawn)) <= 1e-9 * abs(float(drawn[0]))


def _notes(search: SizeSearch, values: Mapping[str, float], usable: NDArray[np.bool_]) -> tuple[str, ...]:
    notes = standing(search)
    if len(search.surface) == 1 and search.intervals:
        notes.append("no intervals: the fit has no refits of resampled runs (bootstrap=runs makes them)")
    failed = int((~usable).sum())
    if failed > AMONG * max(len(usable), 1):
        notes.append(f"{failed} of {len(usable)} refits do not reach it at any size and are left out of the intervals")
    notes += _edges(search, values)
    throughput = search.cost.throughput
    if throughput is not None:
        error = f"; a left-out shape's rate is off by {throughput.error:.1%}" if throughput.error else ""
        notes.append(f"device hours by {throughput.source}{error}")
    return tuple(notes)


def _edges(search: SizeSearch, values: Mapping[str, float]) -> list[str]:
    """Notes on the ends of the allowed ranges at which the best size lies."""
    every = ((name, end, note) for name, ends in edge_notes(search).items() for end, note in ends)
    return [note for name, end, note in every if math.isclose(values[name], end, rel_tol=SAME)]


def edge_notes(search: SizeSearch) -> dict[str, list[tuple[float, str]]]:
    """The smallest and the largest of each allowed range, each with the note for a best size there."""
    return {
        name: [
            (end, f"the best {name.replace('_', ' ')} is the {which} allowed{_wider(search, name, end, which)}")
            for end, which in zip(ends, ("smallest", "largest"), strict=True)
        ]
        for name, ends in search.allowed().items()
    }


def _wider(search: SizeSearch, name: str, end: float, which: str) -> str:
    """What to do if a size lies at an end set by the suite's rules alone; no rule sets the end at one block or one head."""
    rules, rule = search.world.rules, f"{name}_{'min' if which == 'smallest' else 'max'}"
    least = {"depth_min": 1, "width_min": rules.head_size}
    if search.limits.given or getattr(rules, rule, None) != end or least.get(rule) == end:
        return ""
    return f" by the suite's rules, and a shape beyond may be better: allow it with rules.{rule}=NUMBER"


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 2**53 else float(value)
