"""Values that follow from a file's other columns, repeated rows, and columns that cannot mean what they seem to mean."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from shapelaw.counting import params_total
from shapelaw.errors import UserError
from shapelaw.runs import names, units
from shapelaw.runs.columns import as_numbers
from shapelaw.runs.file_table import FileOptions, FileTable, excluding
from shapelaw.runs.reduce import RULES, collapse, telling_apart
from shapelaw.runs.schedules import with_areas
from shapelaw.runs.table import WITHOUT_EMBEDDING
from shapelaw.shapes import HEAD_SIZE

_NON_EMBEDDING = re.compile(r"(non|no|without|excl\w*)_?emb")
_TOKENS_PER_PARAM = frozenset(
    ["tokens_per_param", "tokens_per_params", "tokens_per_parameter", "token_per_param", "tokens_params", "d_n", "tpp"]
)
_RATE = re.compile(r"(^|_)(lr|learning_rate)$")
GAPS = 0.4
"""From this share of rows without a size, below others that have one, cells count as merged."""
_UNFINISHED = frozenset(["crashed", "failed", "killed", "running", "preempted", "oom", "diverged", "error", "pending"])
"""States, in trackers, of runs that did not finish properly."""


def derived(table: FileTable, given: FileOptions) -> FileTable:
    """Values that follow from the file's other columns: error, run, params, tokens, and sums of a rate that varies."""
    table = replace(table, frame=_with_error(table.frame))
    return _with_areas(_with_tokens(_with_params(_with_runs(table)), given))


def _with_areas(table: FileTable) -> FileTable:
    """Sums of the rate over the steps, for laws of whole curves, if one column holds a rate that varies along runs."""
    rates = [name for name in table.further if _RATE.search(names.plain_name(str(name)))]
    if len(rates) != 1 or {"lr_area", "lr_annealed"} & set(table.frame):
        return table
    frame = with_areas(table.frame, table.further[rates[0]])
    said = f"lr_area, lr_annealed: sums over steps of the rate {rates[0]}" if "lr_area" in frame else ""
    return replace(table, frame=frame).noting(said)


def _with_tokens(table: FileTable, given: FileOptions) -> FileTable:
    """Tokens from steps, from FLOPs, or from tokens per parameter."""
    frame = table.frame
    _refuse_sequences(frame)
    if "tokens" not in frame and {"step", "batch_tokens"} <= set(frame):
        steps = as_numbers("step", frame["step"])
        frame = frame.assign(tokens=steps * as_numbers("batch_tokens", frame["batch_tokens"]))
        untrained = pd.Series(np.where(steps == 0, "before the first step", ""), index=frame.index, dtype=object)
        source = table.sources.get("batch_tokens", "tokens")
        doubt = "" if "tok" in source.lower() else f"; {source} is read as tokens, not as sequences"
        return replace(table, frame=excluding(frame, untrained)).noting(f"tokens: step * batch_tokens{doubt}")
    if "tokens" not in frame and given.tokens_from == "6n" and {"flops", "params"} <= set(frame):
        tokens = as_numbers("flops", frame["flops"]) / (6.0 * as_numbers("params", frame["params"]))
        return replace(table, frame=frame.assign(tokens=tokens)).noting("tokens: flops / (6 * params)")
    ratios = [str(name) for name in table.further if names.plain_name(str(name)) in _TOKENS_PER_PARAM]
    if "tokens" not in frame and "params" in frame and len(ratios) == 1 and is_numeric_dtype(table.further[ratios[0]]):
        ratio = table.further[ratios[0]].to_numpy(dtype=np.float64)
        frame = frame.assign(tokens=ratio * as_numbers("params", frame["params"]))
        return replace(table, frame=frame).noting(f"tokens: {ratios[0]} * params")
    return table


def _refuse_sequences(frame: pd.DataFrame) -> None:
    """Refuse a batch of fewer tokens than one sequence, which must be a count of sequences.

    Raises:
        UserError: with the factor.
    """
    if not {"batch_tokens", "seq_len"} <= set(frame):
        return
    batch, context = (as_numbers(name, frame[name]) for name in ("batch_tokens", "seq_len"))
    if not (batch < context).any():
        return
    sizes = np.unique(context[np.isfinite(context)])
    factor = (
        f"'runs.units={{batch_tokens: {sizes[0]:g}}}'" if len(sizes) == 1 else "or a column with the tokens of a step"
    )
    raise UserError(
        f"runs table: batch_tokens are {np.nanmin(batch):g}, fewer than the {np.nanmin(context):g} tokens of a sequence; if "
        f"they count sequences give {factor}"
    )


def _with_runs(table: FileTable) -> FileTable:
    if "run" in table.frame:
        return table
    runs = [f"row-{i:05d}" for i in range(len(table.frame))]
    about = {**table.about, "runs": "the file names no runs: each row counts as a separate run"}
    return replace(table, frame=table.frame.assign(run=runs), about=about)


def _with_params(table: FileTable) -> FileTable:
    """Parameters counted from shapes if the file has none; a note if the file's parameters omit the embedding."""
    frame, source = table.frame, table.sources.get("params", "")
    if _NON_EMBEDDING.search(names.plain_name(source)):
        counted = f"{WITHOUT_EMBEDDING}, because the column is named {source}"
        return replace(table, about={**table.about, "params_counting": counted}).noting(f"params: {counted}")
    if "params" in frame or not {"width", "depth", "vocab_size"} <= set(frame):
        return table
    counted = "total: counted from width, depth, vocab_size and head_size (128 if missing)"
    return replace(
        table, frame=frame.assign(params=_counted(frame)), about={**table.about, "params_counting": counted}
    ).noting(f"params: {counted}")


def _counted(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Parameters of each row's shape, including embedding and head; arbitrary for invalid sizes, which are refused later."""
    width, depth, vocab = (as_numbers(name, frame[name]) for name in ("width", "depth", "vocab_size"))
    head = as_numbers("head_size", frame["head_size"]) if "head_size" in frame else np.zeros(len(frame))
    with np.errstate(invalid="ignore"):
        return params_total(width, depth, vocab, np.where(head > 0, head, HEAD_SIZE))


def _with_error(frame: pd.DataFrame) -> pd.DataFrame:
    """Add to accuracies the share of wrong answers, to which the accuracy laws are fitted.

    Raises:
        UserError: if an accuracy is not a share.
    """
    if "accuracy" not in frame:
        return frame
    shares = pd.to_numeric(frame["accuracy"], errors="coerce")
    if ((shares < 0) | (shares > 1)).any():
        raise UserError(
            f"accuracy: {shares.min():g} to {shares.max():g}; allowed values are shares from 0 to 1 (percent: "
            "runs.units={accuracy: 0.01})"
        )
    return frame.assign(error=1.0 - shares)


def _counting_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that are not excluded."""
    return frame[frame["excluded"].fillna("") == ""] if "excluded" in frame else frame


def with_repeats(table: FileTable, given: FileOptions) -> FileTable:
    """Rows that repeat a run and token count with another loss, reduced by the given rule.

    Raises:
        UserError: without a rule, since any of them could count, or if models of several sizes share a run.
    """
    rows = _counting_rows(table.frame)
    rows = rows[rows["loss"].notna() & rows["tokens"].notna()]
    repeated = rows[rows.duplicated(["run", "tokens"], keep=False)]
    if repeated.empty or not repeated.groupby(["run", "tokens"])["loss"].nunique().gt(1).any():
        return table
    if names_of_settings := telling_apart(repeated.join(table.further)):
        told = table.frame.join(table.further)[names_of_settings].astype(str).agg(" ".join, axis=1)
        runs = table.frame["run"].where(~table.frame["run"].isin(repeated["run"]), table.frame["run"] + " " + told)
        return replace(table, frame=table.frame.assign(run=runs)).noting(
            f"run: distinguished by {', '.join(names_of_settings)}"
        )
    if repeated.groupby(["run", "tokens"])["params"].nunique().gt(1).any():
        raise UserError(
            f"runs table: {len(repeated)} rows repeat a run and token count and differ in params; give each run its own name, "
            f"such as 'runs.columns={{run: {table.sources.get('run', 'run')}+{table.sources.get('params', 'params')}}}'"
        )
    if given.reduce not in ("best", "last", "mean"):
        first = repeated.iloc[0]
        raise UserError(
            f"runs table: {len(repeated)} rows repeat a run and token count and differ in loss, first run {first['run']}, "
            f"tokens {first['tokens']:.6g}; give runs.reduce={', '.join(RULES[:-1])}, or each run its own name"
        )
    by = list(dict.fromkeys(["run", "tokens", *given.reduce_by]))
    frame = table.frame if "excluded" in table.frame else table.frame.assign(excluded="")
    frame, said = collapse(frame, rows.join(table.further), given.reduce, by)
    return replace(table, frame=frame, about={**table.about, "repeats": said})


def checked(table: FileTable) -> FileTable:
    """The table, unless whole columns cannot mean what they seem to; columns with a named unit pass."""
    rows = _counting_rows(table.frame)
    if not len(rows):
        return table
    _refuse_gaps(rows)
    units.refuse_small_counts(rows, table.named_units)
    if "flops" not in table.named_units:
        units.refuse_other_flops(rows)
    if "loss" in table.named_units:
        return table
    units.refuse_no_losses(rows)
    units.refuse_rising(rows)
    return table.noting(units.odd_losses(rows))


def _refuse_gaps(rows: pd.DataFrame) -> None:
    """Refuse sizes that appear only in the first row of each group, as merged cells of a spreadsheet produce.

    Raises:
        UserError: with advice to fill them down.
    """
    for name in ("params", "tokens"):
        missing = as_numbers(name, rows[name]) if name in rows else np.zeros(len(rows))
        gaps = ~np.isfinite(missing)
        if gaps.mean() >= GAPS and not gaps[0] and np.isfinite(as_numbers("loss", rows["loss"])[gaps]).all():
            raise UserError(
                f"runs table: {name} is empty in {int(gaps.sum())} of {len(rows)} rows that have a loss: if it stands "
                "only in the first row of each group, as after merged cells, fill it down; else remove these rows from the file"
            )


def unfinished(table: FileTable) -> str:
    """A note on rows whose run did not finish properly, according to its tracker."""
    columns = {"status": table.frame.get("status")} | {
        name: table.further.get(name) for name in ("State", "state", "Status")
    }
    for name, values in columns.items():
        if values is not None and (bad := values.astype(str).str.lower().isin(_UNFINISHED)).any():
            said = ", ".join(sorted(values[bad].astype(str).unique()))
            return f"{int(bad.sum())} rows are of runs whose {name} is {said}: leave them out with subset.where"
    return ""
