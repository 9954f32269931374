"""Units of a file's columns: conversions, and columns whose values cannot be in the intended unit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.errors import UserError
from shapelaw.runs.columns import NATS_PER_TOKEN, VOCAB_SIZE_LARGEST, as_numbers, rules_of

Floats = NDArray[np.float64]
PER_BYTE = {"bits_per_byte": "bits per byte", "nats_per_byte": "nats per byte"}
FEWEST = {"params": 1e3, "tokens": 1e4}
"""Least parameters of the smallest model, and least median tokens of a table's rows, that pass as plain counts."""
LARGEST_FEWEST_PARAMS = 1e4
RATIO = (1e-3, 1e6)
"""Range of the median tokens per parameter in which both pass as plain counts."""
SMALL = {"tokens": 1e9, "params": 1e6}
SMALL_RATIO = (0.1, 1e4)
"""The same if the median of the tokens, or of the params, is below `SMALL`, as they may then be thousands."""
FLOPS_RATIO = (1e-4, 1e3)
"""Range of the median of FLOPs over 6 x params x tokens that passes as FLOPs: experts make it small, attention large."""
PF_DAY = 19.94
TRAINED = {"params": 1e7, "tokens": 1e9}
TRAINED_LOSS = 5.5
"""A language model with enough parameters and tokens is below this many nats per token, whatever the vocabulary."""
LOW_LOSS = 1.5
"""Median loss below which nats per token of text are unusual."""
RISING = 0.9
"""A column cannot be a loss if it rises in this share of pairs of rows of which one has more params and tokens."""
FEWEST_PAIRS, PAIRED_ROWS = 6, 1000
BYTE_VOCABULARY = 512
LOG10_MOST = 30.0
"""Largest decimal logarithm of a count."""


def convert(frame: pd.DataFrame, units: Mapping[str, str | float]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Columns in their canonical units, and the unit of every loss that stays in another one.

    Nats per token are bits * ln 2, ln(perplexity), and, with a column bytes_per_token, bits per byte * ln 2 * bytes per token;
    without it, losses per byte stay unchanged.

    Args:
        frame: canonical columns; those named in `units` hold numbers.
        units: canonical name -> factor or named unit.

    Raises:
        UserError: if a column or a unit is unknown.
    """
    out, kept = frame.copy(), {}
    for name, unit in units.items():
        if name not in out or rules_of(name).text:
            raise UserError(f"units: {name} is not a numeric column; the table has {', '.join(map(str, out.columns))}")
        factor, values = _factor(name, unit), as_numbers(name, out[name])
        if unit == "perplexity":
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.log(values)
        elif unit == "log10":
            with np.errstate(over="ignore"):
                values = 10.0**values
        elif unit in PER_BYTE and "bytes_per_token" in out:
            bits = math.log(2.0) if unit == "bits_per_byte" else 1.0
            values = values * bits * as_numbers("bytes_per_token", out["bytes_per_token"])
        elif unit in PER_BYTE:
            kept[name] = PER_BYTE[str(unit)]
        out[name] = values * factor
    return out, kept


def _factor(name: str, unit: str | float) -> float:
    """Factor of one of the column's named units, or a positive number."""
    named = rules_of(name).units
    if isinstance(unit, str) and unit in named:
        return named[unit]
    if isinstance(unit, bool) or not isinstance(unit, int | float) or not (math.isfinite(unit) and unit > 0):
        raise UserError(f"units: {name}={unit}; allowed values are {', '.join(['positive numbers', *named])}")
    return float(unit)


def refuse_small_counts(frame: pd.DataFrame, named: Iterable[str]) -> None:
    """Refuse params or tokens that are too small for plain counts, unless their unit was named.

    Raises:
        UserError: with the units that would fit.
    """
    open_ones = [name for name in ("params", "tokens") if name not in set(named)]
    values = {name: _positive(frame, name) for name in ("params", "tokens")}
    if not all(map(len, values.values())):
        return
    few = [name for name in open_ones if _few(name, values[name])]
    params, tokens = (float(np.median(values[name])) for name in ("params", "tokens"))
    least = SMALL_RATIO[0] if tokens < SMALL["tokens"] else RATIO[0]
    most = SMALL_RATIO[1] if params < SMALL["params"] else RATIO[1]
    ratio = tokens / params
    if not few and (least <= ratio <= most or not open_ones):
        return
    said = " and ".join(f"{name} are {values[name].min():g} to {values[name].max():g}" for name in few or open_ones)
    fits = _fitting(values, open_ones)
    meant = ", ".join(f"{name}: {unit}" for name, unit in fits.items()) or ", ".join(f"{name}: M" for name in few)
    counts = ", ".join(f"{name}: 1" for name in few or open_ones)
    raise UserError(
        f"runs table: {said}, {'too few to be counts' if few else f'{ratio:.3g} tokens per parameter'}; if they are in another "
        f"unit give 'runs.units={{{meant}}}'{_logarithms(few, values)}, if they are counts 'runs.units={{{counts}}}'"
    )


def refuse_other_flops(frame: pd.DataFrame) -> None:
    """Refuse FLOPs, whose unit was not named, that are far from 6 x params x tokens.

    Raises:
        UserError: with the unit that would fit.
    """
    if "flops" not in frame:
        return
    flops, params, tokens = (as_numbers(name, frame[name]) for name in ("flops", "params", "tokens"))
    rows = np.isfinite(flops * params * tokens) & (flops * params * tokens > 0)
    if not rows.any():
        return
    flops, expected = flops[rows], 6.0 * params[rows] * tokens[rows]
    ratio = float(np.median(flops / expected))
    if FLOPS_RATIO[0] <= ratio <= FLOPS_RATIO[1]:
        return
    power = -math.log10(ratio)
    logarithms = np.abs(flops - np.log10(expected)).max() < -math.log10(FLOPS_RATIO[0])
    fits = "log10" if logarithms else "PF-days" if abs(power - PF_DAY) < 0.5 else f"1e{3 * round(power / 3)}"
    raise UserError(
        f"runs table: flops are {flops.min():g} to {flops.max():g}, {ratio:.3g} of 6 x params x tokens; give their "
        f"unit, such as 'runs.units={{flops: {fits}}}', or give 'runs.units={{flops: 1}}' if they are FLOPs of "
        "training up to the row"
    )


def _logarithms(few: list[str], values: Mapping[str, Floats]) -> str:
    """The option to give if counts may be decimal logarithms."""
    may = [name for name in few if values[name].min() >= 3.0 and values[name].max() <= LOG10_MOST]
    if not may:
        return ""
    meant = ", ".join(f"{name}: log10" for name in may)
    return f", if they are decimal logarithms 'runs.units={{{meant}}}'"


def _positive(frame: pd.DataFrame, name: str) -> Floats:
    values = as_numbers(name, frame[name])
    return values[np.isfinite(values) & (values > 0)]


def _few(name: str, values: Floats) -> bool:
    """Whether the values are too small to be plain counts of that quantity."""
    if name == "tokens":
        return float(np.median(values)) < FEWEST["tokens"]
    return bool(values.min() < FEWEST["params"] or values.max() < LARGEST_FEWEST_PARAMS)


def _fitting(values: Mapping[str, Floats], open_ones: list[str]) -> dict[str, str]:
    """The units in which the values are most like those of language models: about 3e8 parameters, 30 tokens for each."""
    factors = {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
    choices = [list(factors) if name in open_ones else [""] for name in ("params", "tokens")]

    def distance(pair: tuple[str, ...]) -> float:
        params, tokens = (np.median(values[name]) * factors[unit] for name, unit in zip(values, pair, strict=True))
        kept = sum(unit != "" and not _few(name, values[name]) for name, unit in zip(values, pair, strict=True))
        return abs(math.log10(params) - 8.5) / 2 + abs(math.log10(tokens / params) - 1.5) + kept

    best = min(itertools.product(*choices), key=distance)
    return {name: unit for name, unit in zip(values, best, strict=True) if unit}


def refuse_no_losses(frame: pd.DataFrame) -> None:
    """Refuse a column of losses that as a whole cannot be in nats per token, unless its unit was named.

    Raises:
        UserError: if most lie above ln(vocabulary), or most trained models lie above `TRAINED_LOSS`.
    """
    table = pd.DataFrame({name: as_numbers(name, frame[name]) for name in ("params", "tokens", "loss")})
    loss = table["loss"][np.isfinite(table["loss"])]
    if not len(loss):
        return
    uniform = math.log(max(_vocabulary(frame), 2.0))
    trained = loss[(table["params"] >= TRAINED["params"]) & (table["tokens"] >= TRAINED["tokens"])]
    if float(loss.median()) <= uniform and not (len(trained) and trained.median() > TRAINED_LOSS):
        return
    raise UserError(
        f"runs table: the column loss holds {loss.min():.4g} to {loss.max():.4g} (median {loss.median():.4g}), which cannot be "
        "nats per token; if they are perplexities give 'runs.units={loss: perplexity}', if another unit its name (bits, "
        "bits_per_byte, nats_per_byte) or factor, and 'runs.units={loss: nats}' if they are nats"
    )


def refuse_rising(frame: pd.DataFrame) -> None:
    """Refuse losses without a named unit that rise with model and data, as accuracies or negated losses do.

    Raises:
        UserError: if larger models with more tokens nearly always have the higher value, unless data repeat.
    """
    if "unique_tokens" in frame:
        return
    table = pd.DataFrame({name: as_numbers(name, frame[name]) for name in ("params", "tokens", "loss")})
    rows = table.to_numpy()[np.isfinite(table.to_numpy()).all(axis=1)]
    params, tokens, loss = rows[:: max(1, len(rows) // PAIRED_ROWS)].T
    pairs = (params[:, None] > params) & (tokens[:, None] > tokens)
    rises = int((pairs & (loss[:, None] > loss)).sum())
    if (count := int(pairs.sum())) < FEWEST_PAIRS or rises < RISING * count:
        return
    raise UserError(
        f"runs table: the column loss rises with params and tokens, in {rises} of {count} pairs of rows, but losses "
        "fall; give the column of losses in 'runs.columns={loss: COLUMN}' and that of accuracies in "
        "'runs.columns={accuracy: COLUMN}', or 'runs.units={loss: nats}' if they are losses"
    )


def _vocabulary(frame: pd.DataFrame) -> float:
    """The largest vocabulary that a row names; if none does, the largest of all."""
    sizes = _positive(frame, "vocab_size") if "vocab_size" in frame else np.array([])
    return float(sizes.max()) if len(sizes) else float(VOCAB_SIZE_LARGEST)


def odd_losses(frame: pd.DataFrame) -> str:
    """A note if losses without a named unit are low, or some are high, for nats per token of text; else nothing."""
    loss = as_numbers("loss", frame["loss"])
    trained = (as_numbers("params", frame["params"]) >= TRAINED["params"]) & (
        as_numbers("tokens", frame["tokens"]) >= TRAINED["tokens"]
    )
    if high := int((trained & (loss > TRAINED_LOSS) & np.isfinite(loss)).sum()):
        above = f"above {TRAINED_LOSS} {NATS_PER_TOKEN}"
        return f"{high} losses of trained models are {above}: of runs that diverged, or in another unit?"
    if _vocabulary(frame) <= BYTE_VOCABULARY or not np.isfinite(loss).any() or np.nanmedian(loss) >= LOW_LOSS:
        return ""
    return (
        f"losses of {np.nanmin(loss):.4g} to {np.nanmax(loss):.4g} are read as {NATS_PER_TOKEN}, for which they are "
        "low; if they are bits per byte give 'runs.units={loss: bits_per_byte}'"
    )
