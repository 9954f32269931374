"""The result of a fit, and how fit.json is written and read."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.files import as_record, read_sealed, write_sealed
from shapelaw.fitting.new_run import NewRun, check_kind, law_interval
from shapelaw.fitting.shown import Shown
from shapelaw.laws import EXPONENT, LOG_FLOOR, Law, files, get_law
from shapelaw.laws.base import UNITS
from shapelaw.plugins import is_reference
from shapelaw.runs.axes import table_of, with_axes
from shapelaw.runs.columns import guessing
from shapelaw.runs.table import RunsTable
from shapelaw.runs.weights import with_weights

Array = NDArray[np.float64]
Table = RunsTable | pd.DataFrame | Mapping[str, Any]

SCHEMA = "shapelaw.fit"
SCHEMA_VERSION = 2
"""Version of fit.json, documented in docs/fit_json.md. Every change that an older reader would misread raises it."""
READABLE = (1, 2)
"""Versions that can be read. Version 1 holds no theta, so its parameters are taken in natural units."""

RUNS_FILE = "runs.parquet"
"""The fitted table, beside fit.json."""

SHOWN_AS_ZERO = math.exp(LOG_FLOOR + 1e-9)
"""Coefficients up to this were stored as 0 before natural units held all of them."""

SEE_CANDIDATES = " (see candidates)"
"""End of the flag that names the law which law=auto or median3 took."""

OBJECTIVES = {
    "parametric": ("sum over rows", "rows and delta"),
    "staged": ("sum over the rows of stage S", "rows and delta"),
}
OBJECTIVE_OF_LINES = ("sum of squared residuals of log params", "rows")
"""The objective of these methods, and what two objectives must share to be comparable."""


@dataclass(frozen=True, repr=False)
class FitResult(Shown):
    """One fit.

    Args:
        method: `parametric`, `staged`, `hull`, `binning` or `isoflop`.
        law: name of the law, or path/to/file.py:NAME; None for the lines of approaches 1 and 2.
        parameters: in natural units, for people: coefficients rather than their logarithms, E in `loss_unit`, and 0 for
            values too small for a floating-point number.
        units: unit of every parameter.
        objective: the summed Huber function (parametric), or the sum of squared residuals of log params (lines).
        compute_optimal_exponent: a of N ~ C^a for the compute-optimal params; None if the law defines none.
        intervals: name -> (low, high) of parameters and of `compute_optimal_exponent`; empty without resampling.
        flags: what a reader must know before using the numbers, each `code: sentence`.
        not_identified: E, or coefficients of terms, that are nowhere a noticeable part of the loss.
        settings: every setting of the fit.
        search: how the optimum was found: status, n_starts, share_at_best, next_basin.
        replicates: parameter -> its value in each refit; empty without resampling.
        profiles: name -> profile of a parameter or the exponent (`fitting.profile.Profile`), if requested.
        checklist: what a report of a fit must contain (see docs/fit_json.md), as far as the program can know it.
        stages: method=staged: what each stage selected, fitted and left uncertain (see docs/step_batch.md).
        law_sha256: hash of the law's file, or sixteen digits of its package's hash; None for a law that has a name.
        theta: the law's vector, which holds the parameters as they were fitted; empty for lines, and in files of version 1.
        refits: theta of each refit; empty without resampling, for lines, and in files of version 1.
        ridge: parameters, and `compute_optimal_exponent`, that the data do not identify; their values mean nothing.
        new_run: what a new run adds to the law's own interval (`fitting.new_run.NewRun`); empty without resampling.
        best_settings: laws of the best rate and batch (`fitting.settings.SettingLaw`), for tables with several rates per size.
        candidates: law=auto and median3: the laws tried, best first: law, counting, held_out, error, chosen, reason.
        ridge_vectors: theta of laws that fit as well and differ in the parameters of `ridge` as far as the search went.
    """

    method: str
    law: str | None
    parameters: Mapping[str, float]
    units: Mapping[str, str]
    objective: float
    compute_optimal_exponent: float | None
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    not_identified: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)
    replicates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    profiles: Mapping[str, Any] = field(default_factory=dict)
    checklist: Mapping[str, Any] = field(default_factory=dict)
    stages: Mapping[str, Any] = field(default_factory=dict)
    law_sha256: str | None = None
    theta: tuple[float, ...] = ()
    refits: tuple[tuple[float, ...], ...] = ()
    ridge: tuple[str, ...] = ()
    ridge_vectors: tuple[tuple[float, ...], ...] = ()
    new_run: Mapping[str, Any] = field(default_factory=dict)
    best_settings: tuple[Mapping[str, Any], ...] = ()
    candidates: tuple[Mapping[str, Any], ...] = ()

    @property
    def loss_unit(self) -> str:
        """Unit of the fitted losses."""
        return self.units.get("loss", UNITS["loss"])

    @property
    def vector(self) -> Array:
        """The law's vector, (p,), exactly as the solver found it."""
        return np.array(self.theta) if self.theta else self._form_of_law().theta(self.parameters)

    @property
    def vectors(self) -> Array:
        """The law's vector of each refit, (n, p), without the failed ones."""
        law = self._form_of_law()
        if self.refits or not all(name in self.replicates for name in law.parameters):
            return np.array(self.refits).reshape(-1, len(law.parameters))
        drawn = np.array([self.replicates[name] for name in law.parameters]).T
        rows = [law.theta(dict(zip(law.parameters, row, strict=True))) for row in drawn if np.isfinite(row).all()]
        return np.array(rows).reshape(-1, len(law.parameters))

    def _form_of_law(self) -> Law:
        if self.law is None:
            raise UserError(
                f"method={self.method}: gives lines of the optimal size, not a law of the loss; use parametric"
            )
        return get_law(self.law)

    @overload
    def predict(self, table: Table, kind: None = None) -> Array: ...

    @overload
    def predict(self, table: Table, kind: str) -> pd.DataFrame: ...

    def predict(self, table: Table, kind: str | None = None) -> Array | pd.DataFrame:
        """The law's prediction for each (kept) row: loss, in `loss_unit`, or share of wrong answers.

        Args:
            table: a runs table, or canonical columns; params are total and counted as the fit counted them.
            kind: kind of interval. `mean`: where the law lies, by refits of resampled runs. `new_run`: where one new run will
                lie: the same plus the remaining variation between runs and evaluations; beyond the fitted sizes, tokens and
                compute it is widened by as much as the intervals of the fit's own rolling hold-out needed.

        Returns:
            the predictions, shape (n,); with a kind, a frame of the columns predicted, low and high.

        Raises:
            UserError: if the fit is not a law of the loss, a predictor is missing or invalid, or the law gives no number at a
                row; with a kind, if the kind is unknown, the fit has no refits, or a loss exceeds that of guessing.
        """
        law = self._form_of_law()
        runs = with_axes(table if isinstance(table, RunsTable) else _as_runs(pd.DataFrame(table)), law)
        columns = runs.columns_for(law, self.settings["counting"], self.settings["flops"])
        predicted = law.predict_at(self.vector, columns)
        if kind is None:
            return predicted
        check_kind(kind)
        _check_chance(predicted, runs, law, self.loss_unit)
        sizes = {"params": columns.get("params", runs.params()), "tokens": runs.column("tokens", "predict")}
        centre = law.log_prediction(self.vector, columns)
        low, high = self.interval_of(kind, centre, self.log_predictions(columns), sizes)
        with np.errstate(over="ignore"):  # an end above every number is infinite
            return pd.DataFrame({"predicted": predicted, "low": np.exp(low), "high": np.exp(high)})

    def log_predictions(self, columns: Mapping[str, Array]) -> Array:
        """Log prediction of each refit, (k, n), and of laws along a ridge, which fit as well.

        Raises:
            UserError: for a fit without refits.
        """
        law = self._form_of_law()
        if not len(self.vectors):
            raise UserError(
                "kind: the fit has no refits of resampled runs, so it has no interval; fit with bootstrap=runs"
            )
        return law.log_predictions(np.array([*self.vectors, *self.ridge_vectors]), columns)

    def interval_of(self, kind: str, centre: Array, drawn: Array, sizes: Mapping[str, Array]) -> tuple[Array, Array]:
        """(low, high) of the log prediction at points, each (n,).

        Args:
            kind: `mean` or `new_run`.
            centre, drawn: log prediction of the fit, (n,), and of `log_predictions`, (k, n).
            sizes: params, as the law counts them, and tokens of the points.
        """
        level = float((self.settings.get("bootstrap") or {}).get("level", 0.9))
        refits, ridge = np.split(drawn, [len(self.vectors)])
        if kind == "new_run" and self.new_run:
            low, high = NewRun.read(self.new_run).interval(centre, refits, sizes, level)
        elif kind == "new_run":
            raise UserError("kind=new_run: this fit.json does not contain the spread of a new run; fit again")
        else:
            low, high = law_interval(refits, level)
        ends = np.vstack([low, high, ridge])
        return ends.min(axis=0), ends.max(axis=0)

    def save(self, path: str | os.PathLike[str], runs: RunsTable | None = None) -> Path:
        """Write fit.json (aside, then renamed, sealed), and beside it runs.parquet, which prescriptions read.

        Args:
            path: a folder, which is created if needed, or a file whose name ends in .json.
            runs: the fitted table; None omits its file.

        Returns:
            the written fit.json.
        """
        target = Path(path)
        target = target if target.suffix == ".json" else target / "fit.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        if runs is not None:
            self._read(runs).to_parquet(target.with_name(RUNS_FILE))
        content = {"schema": SCHEMA, "version": SCHEMA_VERSION} | dataclasses.asdict(self)
        write_sealed(target, plain(content))
        return target

    def _read(self, runs: RunsTable) -> RunsTable:
        """The table with all columns that the fit read."""
        axes = with_axes(runs, get_law(self.law)) if self.law else runs
        weights = self.settings.get("weights")
        return with_weights(axes, weights) if weights else axes

    def summary(self) -> str:
        """A few lines for people. A vanishing parameter is described in words, not printed as a number."""
        lines = [f"{name} = {self._shown(name, value)}" for name, value in self.parameters.items()]
        if self.compute_optimal_exponent is not None:
            lines.append(self._optimum(self.compute_optimal_exponent))
        kind, equal = OBJECTIVES.get(self.method, OBJECTIVE_OF_LINES)
        equal += ", and over_cost" if "over_cost" in self.settings else ""
        lines.append(f"objective {self.objective:.8g} ({kind}; comparable only at equal {equal})")
        lines += [f"note: {flag}" for flag in self.flags if not (self.candidates and flag.endswith(SEE_CANDIDATES))]
        try:
            head, form = self._head(), [*self._choice(), *self._form()]
        except (KeyError, TypeError, ValueError):  # somebody edited the checklist or settings of fit.json
            head, form = str(self.law or self.method), []
        return "\n".join([head, *(f"  {line}" for line in (*form, *lines))])

    def _head(self) -> str:
        """What was fitted, to which rows and how, as far as the checklist shows."""
        data, head = self.checklist.get("data"), self.law or self.method
        if data:
            excluded = data["rows"] - data["rows_kept"]
            head += (
                f", fitted to {data['rows_kept']} rows of {data['runs']} runs ({data['source']}; {excluded} excluded)"
            )
        costly = f", overestimates at {cost:g} times the cost" if (cost := self.settings.get("over_cost")) else ""
        return head + (f", Huber delta {self.settings['delta']:g}" if self.settings.get("delta") else "") + costly

    def _choice(self) -> list[str]:
        """Why the data chose this law, with the errors of the others; nothing if the user named the law."""
        if not self.candidates:
            return []
        first = self.candidates[0]
        errors = "smallest error" in first["held_out"]
        compared = [
            f"{one['law']} {one['error']:.2%}" if errors else f"{one['law']} {one['error']:.4g}"
            for one in self.candidates
            if one["error"] is not None
        ]
        flag = next((flag for flag in self.flags if flag.endswith(SEE_CANDIDATES)), "")
        said = flag.removesuffix(SEE_CANDIDATES)
        return [f"{said}: {', '.join(compared)}" if len(compared) > 1 else said]

    def _form(self) -> list[str]:
        """The formula, and the meaning of the parentheses."""
        form, drawn = self.checklist.get("form"), self.settings.get("bootstrap") or {}
        if self.intervals and drawn:
            held = f"parentheses: {drawn['level']:.0%} intervals over {drawn['n']} refits of resampled {drawn['by']}"
        else:
            held = "no intervals: bootstrap=none"
        return [form["formula"], held] if form else [held]

    def _optimum(self, exponent: float) -> str:
        if EXPONENT in self.ridge:
            return "compute-optimal exponent: not identified"
        return f"compute-optimal N ~ C^{exponent:.4f}{self._range(EXPONENT)}"

    def _shown(self, name: str, value: float) -> str:
        if name in self.ridge:
            return "not identified"
        if name in self.not_identified:
            return "0 (not identified)"
        unit = self.units.get(name, "1")
        return f"{value:.6g}{self._range(name)}" + (f" {unit}" if unit != "1" else "")

    def _range(self, name: str) -> str:
        if name in (self.settings.get("fixed") or {}):
            return " (fixed)"
        if not self.intervals:
            return ""
        if name not in self.intervals:
            return " (no interval)"
        low, high = self.intervals[name]
        return f" ({low:.4g} to {high:.4g})"


def load_fit(path: str | os.PathLike[str]) -> FitResult:
    """Read fit.json.

    Raises:
        UserError: if the file is missing, has another schema or version, or was changed after it was written.

    >>> from shapelaw import fit
    >>> sizes = pd.DataFrame({"params": [1e8, 2e8, 4e8] * 2, "tokens": [1e9] * 3 + [8e9] * 3})
    >>> result = fit(sizes.assign(run=range(6), loss=1.5 + 400 / sizes.params**0.34 + 400 / sizes.tokens**0.28))
    >>> again = load_fit(result.save("my_fit"))
    >>> bool((again.predict(sizes) == result.predict(sizes)).all())
    True
    """
    source = Path(path)
    source = source / "fit.json" if source.is_dir() else source
    if not source.is_file():
        raise UserError(f"fit={path}: there is no such fit; write one with fit(...).save(path, runs) or shapelaw fit")
    content = read_sealed(source)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"fit={path}: is not a fit (schema {SCHEMA} is missing)")
    if content.get("version") not in READABLE:
        raise UserError(
            f"fit={path}: version {content.get('version')} of the schema; this program reads {READABLE[0]} to "
            f"{SCHEMA_VERSION}; fit again, or read it with the version of shapelaw named in its checklist"
        )
    return _from_plain(content, source).fitted_to(source.with_name(RUNS_FILE))


def _check_chance(predicted: Array, runs: RunsTable, law: Law, unit: str) -> None:
    """Refuse losses above that of guessing, if the vocabulary is known."""
    if law.target != "loss" or "vocab_size" not in runs.kept:
        return
    chance = guessing(runs.kept["vocab_size"].to_numpy(dtype=np.float64), unit)
    above = np.flatnonzero(predicted > chance)
    if len(above):
        row = above[0]
        raise UserError(
            f"row {row}: law {law.name} predicts {predicted[row]:.4g} {unit}, more than the {chance[row]:.4g} of a "
            "uniform guess: the law means nothing so far from the fitted runs"
        )


def _from_plain(content: Mapping[str, Any], path: Path) -> FitResult:
    values = {key: value for key, value in content.items() if key not in ("schema", "version")}
    if isinstance(values.get("replicates"), dict):
        values["replicates"] = {
            name: [math.nan if value is None else value for value in drawn] if isinstance(drawn, list) else drawn
            for name, drawn in values["replicates"].items()
        }
    if isinstance(own := values.get("new_run"), dict) and "widening" not in own:
        values["new_run"] = {}  # written by an earlier version, for another interval
    result = as_record(FitResult, values, path)
    if result.law is not None:
        if is_reference(result.law):
            files.check_unchanged(result.law, result.law_sha256, str(path))
        _check_usable(result, path)
    return result


def _check_usable(result: FitResult, path: Path) -> None:
    """Check that the fit has what a law needs to predict: its parameters, and how params were counted."""
    assert result.law is not None
    needed = {"parameters": get_law(result.law).parameters, "settings": ("counting", "flops")}
    for field_name, names in needed.items():
        missing = [name for name in names if name not in getattr(result, field_name)]
        if missing:
            raise UserError(f"{path}: its {field_name} lack {missing[0]}, which law={result.law} needs; fit again")
    size = len(get_law(result.law).parameters)
    if any(len(row) != size for row in (result.theta, *result.refits, *result.ridge_vectors) if row):
        raise UserError(
            f"{path}: its theta or refits do not have the {size} numbers that law={result.law} needs; fit again"
        )
    natural = get_law(result.law).natural(result.theta) if result.theta else {}
    for name, value in natural.items():
        stored = result.parameters[name]
        shown_as_zero = stored == 0.0 and value <= SHOWN_AS_ZERO
        if name not in result.not_identified and not shown_as_zero and not math.isclose(stored, value, rel_tol=1e-9):
            raise UserError(
                f"{path}: its parameters have {name}={stored:g}, but its theta, from which predictions are made, has "
                f"{value:g}; change both, or leave theta empty to predict from the parameters"
            )


def plain(value: Any) -> Any:
    """The value as JSON types; NaN and infinity, which JSON lacks, become null."""
    if isinstance(value, pd.DataFrame):
        return plain(value.to_dict("records"))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _as_runs(frame: pd.DataFrame) -> RunsTable:
    """A runs table of sizes without measurements, completed so that they are checked and counted like any other."""
    table = frame.assign(run=[str(i) for i in range(len(frame))])
    for name in ("params", "tokens", "loss"):
        if name not in table:
            table[name] = 1.0
    return table_of(table)
