"""Training FLOPs of the rows of a runs table, recorded or counted by a convention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from shapelaw.counting import FLOPS_CONVENTIONS, SEQ_LEN_GEMSTONES, flops_per_token
from shapelaw.errors import UserError
from shapelaw.shapes import HEAD_SIZE

if TYPE_CHECKING:
    from shapelaw.runs.table import RunsTable

FLOPS_SOURCES = ("recorded", *FLOPS_CONVENTIONS)


def flops_of(table: RunsTable, convention: str | None) -> NDArray[np.float64]:
    """FLOPs as by `RunsTable.flops`."""
    convention = convention or _convention(table)
    purpose = f"flops={convention}"
    if convention == "recorded":
        return table.column("flops", purpose)
    tokens = table.column("tokens", purpose)
    if convention == "6n":
        return 6.0 * table.column("params", purpose) * tokens
    if convention not in FLOPS_CONVENTIONS:
        raise UserError(f"{purpose}: allowed values are {', '.join(FLOPS_SOURCES)}")
    width, depth, vocab = (table.column(name, purpose) for name in ("width", "depth", "vocab_size"))
    out = np.empty_like(tokens)
    for seq_len, head_size in (sizes := _attention_sizes(table)).drop_duplicates().itertuples(index=False):
        rows = ((sizes["seq_len"] == seq_len) & (sizes["head_size"] == head_size)).to_numpy()
        each = flops_per_token(width[rows], depth[rows], vocab[rows], int(seq_len), int(head_size), convention)
        out[rows] = each * tokens[rows]
    return out


def _attention_sizes(table: RunsTable) -> pd.DataFrame:
    """Sequence length and head size of the kept rows, from their suites; the paper's if none is recorded."""
    defaults = {"seq_len": SEQ_LEN_GEMSTONES, "head_size": HEAD_SIZE}
    kept, suites = table.kept, table.suites
    known = {name: kept["run"].map(lambda run, name=name: getattr(suites[run], name)) for name in defaults}
    own = {name: kept[name].fillna(known[name]) if name in kept else known[name] for name in defaults}
    return pd.DataFrame({name: own[name].astype(float).fillna(value) for name, value in defaults.items()})


def _convention(table: RunsTable) -> str:
    """The best convention that the table has the columns for."""
    kept = table.kept
    if "flops" in kept and bool(kept["flops"].notna().all()):
        return "recorded"
    known = table.has_shapes and "vocab_size" in kept and bool(kept["vocab_size"].notna().all())
    return "exact" if known else "6n"
