"""Canonical columns of a runs table: names, units, and what makes a value valid."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from shapelaw.errors import UserError


@dataclass(frozen=True)
class Column:
    """One canonical column.

    Args:
        meaning: its content, with its unit.
        required: whether every table has it.
        whole: whether its values are whole numbers.
        zero: whether 0 is a valid value.
        text: whether it holds text.
        units: named units that a file may hold it in -> factor to the column's own.
        remedy: advice for users who need the column and lack it, if few files have it.
    """

    meaning: str
    required: bool = False
    whole: bool = False
    zero: bool = False
    text: bool = False
    units: Mapping[str, float] = field(default_factory=dict)
    remedy: str = ""


COUNTS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12, "log10": 1.0}
LOSSES = {"nats": 1.0, "bits": math.log(2.0), "perplexity": 1.0, "bits_per_byte": 1.0, "nats_per_byte": 1.0}
"""Factors of units; the last three are placeholders, as `shapelaw.runs.units` converts these units."""
NATS_PER_TOKEN = "nats per token"
BYTE_VALUES = 256.0
_SHOWN = 3
SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0}
HOURS = {"seconds": 1.0 / 3600.0, "minutes": 1.0 / 60.0, "hours": 1.0}
FLOPS = {**COUNTS, "PF-days": 1e15 * 86_400.0}

OF_RATES = (
    "; give a file with one column lr that varies along runs, and step or batch_tokens, or runs that shapelaw tracked with "
    "their schedule"
)

CANONICAL: dict[str, Column] = {
    "run": Column("name of the training run that the row was measured on", required=True, text=True),
    "width": Column("model width (embedding size)", whole=True),
    "depth": Column("number of blocks", whole=True),
    "params": Column("parameters, embedding and head included", required=True, units=COUNTS),
    "tokens": Column("training tokens seen", required=True, units=COUNTS),
    "loss": Column("validation loss, nats per token", required=True, units=LOSSES),
    "accuracy": Column("share of right answers on a downstream task, 0 to 1", zero=True),
    "error": Column("share of wrong answers, 1 - accuracy", zero=True),
    "vocab_size": Column("vocabulary size, padding included", whole=True, units=COUNTS),
    "flops": Column("training FLOPs up to this row", units=FLOPS),
    "device_hours": Column("device hours of training up to this row", units=HOURS),
    "step": Column("optimizer steps taken", whole=True, zero=True, units=COUNTS),
    "lr_base": Column("base learning rate, before it is scaled to the shape"),
    "batch_tokens": Column("tokens of one optimizer step", units=COUNTS),
    "seconds_per_step": Column("seconds of one optimizer step", units=SECONDS),
    "num_devices": Column("devices the run was trained on", whole=True),
    "cooldown": Column("tokens of the cooldown over the tokens before it; 0 at a constant rate", zero=True),
    "unique_tokens": Column(
        "different tokens of the corpus that the run drew from; a longer run repeats them",
        units=COUNTS,
        remedy="; name it with runs.columns, or give 'runs.constants={unique_tokens: NUMBER}'",
    ),
    "lr_area": Column(
        "learning rate summed over the steps up to the row, computed if a column lr varies along runs",
        remedy=OF_RATES,
    ),
    "lr_step": Column("learning rate of the row's step, if it varies along runs", zero=True, remedy=OF_RATES),
    "lr_annealed": Column(
        "how far and how long ago the rate fell, summed likewise; 0 at a constant rate", zero=True, remedy=OF_RATES
    ),
    "compared_set": Column("1 in the set of runs whose speedup over the others is fitted, 0 in the others", zero=True),
    "bytes_per_token": Column(
        "bytes of text that a token stands for on average, which converts losses per byte to losses per token"
    ),
    "seq_len": Column("tokens of one sequence; 2048 if missing", whole=True, units=COUNTS),
    "head_size": Column("features of one attention head; 128 if missing", whole=True),
    "suite": Column("named world of shapes and scale", text=True),
    "corpus": Column("name or hash of the text that the run was trained on", text=True),
    "tokenizer": Column("name or hash of the tokenizer", text=True),
    "evaluation_set": Column("name of the held-out text that the loss is measured on", text=True),
    "validation_tokens": Column("tokens of the held-out sample", whole=True, units=COUNTS),
    "loss_unit": Column("unit of the loss", text=True),
    "lr_rule": Column("how the base rate becomes the rate of a shape", text=True),
    "schedule": Column(
        "course of the rate: constant, or the curve along which it falls (cosine, linear, wsd, ...)", text=True
    ),
    "total_tokens": Column("tokens of the whole run, at which its schedule ends", units=COUNTS),
    "decay_fraction": Column("share of the run, at its end, over which the schedule falls", zero=True),
    "warmup_tokens": Column("tokens over which the rate rises from 0", zero=True, units=COUNTS),
    "optimizer": Column("optimizer, with its settings", text=True),
    "precision": Column("number format of the run's computation", text=True),
    "architecture": Column("name or version of the architecture", text=True),
    "trainer": Column("program that trained the run and measured its loss", text=True),
    "sweep": Column("name of the sweep that the run belongs to", text=True),
    "status": Column("state of the run in its tracker", text=True),
    "rollbacks": Column("rollbacks of the run before the row, each to a lower rate", whole=True, zero=True),
    "diverged_step": Column("step at which the run finally diverged; missing if it did not", whole=True, units=COUNTS),
    "mlflow_run_id": Column("the run in its tracker", text=True),
    "excluded": Column("reason why the row is left out; empty if it is kept", text=True),
}
"""Canonical name -> meaning. Also, `loss_NAME` holds further losses in nats per token, `axis_NAME` further predictors."""

REQUIRED = tuple(name for name, column in CANONICAL.items() if column.required)
FURTHER_LOSS = re.compile(r"loss_(?!unit$)[A-Za-z0-9_]+")
AXIS = "axis_"
"""Prefix of a column that a law reads beside the canonical ones (`shapelaw.runs.axes`)."""
ROW_WEIGHT = "row_weight_"
"""Prefix of a column with the weights of the rows in a fit (`shapelaw.runs.weights`)."""
LOSS_OVER_UNIFORM = 1.5
"""A loss above this multiple of log(vocabulary), the loss of a uniform guess, counts as being in another unit."""
NOT_NATS = "loss far above log(vocab_size), the loss of a uniform guess: not in nats per token, or diverged"
NOT_PER_BYTE = "loss far above 8 bits per byte, the loss of a uniform guess: not per byte, or diverged"
VOCAB_SIZE_LARGEST = 1_000_000
"""Vocabulary that the check of units assumes if a table does not name its own; none in use is larger."""


def is_canonical(name: str) -> bool:
    """Whether a table may hold a column of this name."""
    return name in CANONICAL or name.startswith((AXIS, ROW_WEIGHT)) or FURTHER_LOSS.fullmatch(name) is not None


def column_of(predictor: str) -> str:
    """The column in which a table keeps a predictor of a law.

    >>> column_of("width"), column_of("experts")
    ('width', 'axis_experts')
    """
    return predictor if is_canonical(predictor) else f"{AXIS}{predictor}"


def rules_of(name: str) -> Column:
    """Rules of a canonical column, a further loss, a further axis or a weight."""
    if name.startswith(ROW_WEIGHT):
        return Column("weight of the row in a fit", zero=True)
    if name.startswith(AXIS):
        return Column("further axis of the shapes, which a law reads")
    return CANONICAL.get(name) or Column("further loss, nats per token", units=LOSSES)


def tidy(frame: pd.DataFrame) -> pd.DataFrame:
    """Canonical columns of a frame in canonical order, as text, whole numbers or 64-bit floats.

    If `excluded` is missing, all rows are kept; optional columns without any value are dropped.

    Raises:
        UserError: if a required column is missing, or a value is not a number.
    """
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise UserError(
            f"runs table: no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns)) or 'none'}; "
            "name them with columns={canonical: source}, " + "; ".join(f"{m} = {CANONICAL[m].meaning}" for m in missing)
        )
    further = sorted(name for name in map(str, frame.columns) if name not in CANONICAL and is_canonical(name))
    out = {name: _typed(name, frame[name]) for name in [*CANONICAL, *further] if name in frame.columns}
    out.setdefault("excluded", pd.Series([""] * len(frame), dtype=object))
    empty = [name for name, values in out.items() if not rules_of(name).required and values.isna().all()]
    return pd.DataFrame({name: values for name, values in out.items() if name not in empty or name == "excluded"})


def _typed(name: str, values: pd.Series) -> pd.Series:
    """The column as text, int64 (whole numbers only) or float64, with a fresh index."""
    if rules_of(name).text:
        return pd.Series(as_texts(values))
    found = as_numbers(name, values)
    if rules_of(name).whole and np.isfinite(found).all() and (np.abs(found) < 2**53).all():
        whole = np.rint(found)
        if np.array_equal(whole, found):
            return pd.Series(whole.astype(np.int64))
    return pd.Series(found)


def as_texts(values: pd.Series, strip: bool = False) -> NDArray[np.object_]:
    """A column's values as texts, missing ones empty; each distinct value is converted once."""
    codes, distinct = pd.factorize(values, use_na_sentinel=False)
    texts = ["" if pd.isna(value) else str(value) for value in distinct]
    made = [text.strip() for text in texts] if strip else texts
    return np.array([*made, ""], dtype=object)[codes]


def as_numbers(name: str, values: pd.Series) -> NDArray[np.float64]:
    """A column's values as floats, missing ones as NaN.

    Raises:
        UserError: if a value is not a number.
    """
    try:
        return np.asarray(pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise UserError(f"runs table: column {name} contains something that is not a number ({error})") from None


def faults(frame: pd.DataFrame, loss_unit: str = NATS_PER_TOKEN) -> pd.Series:
    """Reason why each row of a tidy frame is invalid; empty for valid rows."""
    reasons = pd.Series([""] * len(frame), index=frame.index, dtype=object)
    for name in frame.columns:
        for reason, bad in _column_faults(name, frame[name]):
            reasons[bad & (reasons == "")] = reason
    too_high = frame["loss"] > LOSS_OVER_UNIFORM * guessing(_vocabulary(frame), loss_unit)
    reasons[too_high & (reasons == "")] = NOT_PER_BYTE if loss_unit.endswith("per byte") else NOT_NATS
    return reasons


def guessing(vocab_size: ArrayLike, loss_unit: str = NATS_PER_TOKEN) -> NDArray[np.float64]:
    """Loss of a uniform guess among the vocabulary, ln(vocab_size); for losses per byte, among the values of a byte.

    >>> float(guessing(256, "bits per byte")), float(guessing(1))
    (8.0, 0.0)
    """
    if not loss_unit.endswith("per byte"):
        return np.asarray(np.log(np.asarray(vocab_size, dtype=np.float64)))
    one = math.log2(BYTE_VALUES) if loss_unit.startswith("bits") else math.log(BYTE_VALUES)
    return np.full(np.shape(vocab_size), one)


def _column_faults(name: str, values: pd.Series) -> list[tuple[str, pd.Series]]:
    """(reason, mask of the rows) of a column's invalid values; optional numbers may be missing."""
    column = rules_of(name)
    if column.text:
        return [(f"{name} is empty", values == "")] if column.required else []
    numbers = values.astype(np.float64)
    missing = numbers.isna()
    found: list[tuple[str, pd.Series]] = [(f"{name} is infinite", pd.Series(np.isinf(numbers), index=values.index))]
    if column.required:
        found.append((f"{name} is missing or not a number", missing))
    if column.zero:
        found.append((f"{name} is negative", numbers < 0))
    else:
        found.append((f"{name} is zero or negative", numbers <= 0))
    if column.whole:
        found.append((f"{name} is not a whole number", ~missing & (numbers != np.floor(numbers))))
    return found


def _vocabulary(frame: pd.DataFrame) -> pd.Series:
    """Vocabulary of each row for the check of units."""
    if "vocab_size" not in frame:
        return pd.Series(float(VOCAB_SIZE_LARGEST), index=frame.index)
    known = frame["vocab_size"].astype(np.float64)
    return known.where(known > math.e, float(VOCAB_SIZE_LARGEST))


def duplicates(frame: pd.DataFrame) -> pd.Series:
    """Mask of the rows whose key (run, tokens) repeats an earlier kept row's."""
    kept = frame["excluded"] == ""
    repeated = frame[kept].duplicated(["run", "tokens"])
    return repeated.reindex(frame.index, fill_value=False)


def refuse_faults(frame: pd.DataFrame, loss_unit: str) -> None:
    """Refuse invalid kept rows of a tidy frame, naming their faults, number and places.

    Raises:
        UserError: if there are any, or if two kept rows share their run and tokens.
    """
    kept = frame[frame["excluded"] == ""]
    reasons = faults(kept, loss_unit)
    bad = reasons[reasons != ""]
    if len(bad):
        kinds = ", ".join(f"{reason} ({count} rows)" for reason, count in bad.value_counts().items())
        raise UserError(
            f"runs table: {kinds}; first at {_places(kept.loc[bad.index])}; correct them, or leave them out with a "
            "reason in the column excluded (bad_rows=exclude does so)"
        )
    repeated = duplicates(frame)
    if repeated.any():
        raise UserError(
            f"runs table: {int(repeated.sum())} rows repeat a run and token count, first at "
            f"{_places(frame[repeated])}; give each run its own name, or exclude them (bad_rows=exclude)"
        )


def _places(rows: pd.DataFrame) -> str:
    """The first few rows by number, run and tokens."""
    shown = rows.head(_SHOWN)
    return "; ".join(
        f"row {i} (run {r}, tokens {t:.6g})" for i, r, t in zip(shown.index, shown.run, shown.tokens, strict=True)
    )
