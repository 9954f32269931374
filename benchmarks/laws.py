"""Held-out errors of the laws on the published Gemstones sets and Chinchilla: the tables of docs/laws.md.

    python benchmarks/laws.py [--n 500]

Huber 1e-3. Intervals are 90%, from refits of resampled runs; --n 0 leaves them out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from shapelaw import FitResult, compare, load_runs
from shapelaw.fitting.spec import FitSpec
from shapelaw.fitting.splits import Holdout

LAWS = ("params_tokens", "width_depth_params_tokens", "interaction")
WITHOUT = "params_tokens_interaction"
"""The interaction law for data without shapes, or with one width."""
LARGEST = Holdout("largest", params_from=1.5e9, name="N < 1.5e9 -> the 2B models")
MAIN = (
    LARGEST,
    Holdout("latest", tokens_to=1e11, tokens_from=3e11, name="T <= 100B -> T > 300B"),
    Holdout("largest_and_latest", 1.5e9, 1e11, 3e11, name="both at once"),
    Holdout("leave_one_shape_out", name="leave one shape out"),
)
COSTLIEST = Holdout("where", train="flops <= 1e21", test="flops > 1e21", name="C <= 1e21 -> above")


@dataclass(frozen=True)
class Block:
    """A data set, the laws and the hold-outs that it is tried with."""

    source: str
    subset: str | None
    laws: Sequence[str]
    holdouts: Sequence[Holdout]
    shown: str = "interaction"
    """Law whose parameters are printed."""


BLOCKS = (
    Block("gemstones", "hot_100b+", (*LAWS, "params_tokens:no_embedding_and_head", WITHOUT), MAIN),
    Block("gemstones", "cool_end", ("params_tokens:no_embedding_and_head", *LAWS[1:]), (LARGEST,)),
    Block("gemstones", "lr_ablation_hot", ("params_tokens:no_embedding_and_head", *LAWS[1:]), (LARGEST,)),
    Block("gemstones", "hot_120b+_only", LAWS, (LARGEST,)),
    Block("gemstones", "hot_100b+_512x", ("params_tokens", WITHOUT), (MAIN[1], MAIN[3]), WITHOUT),
    Block(
        "chinchilla",
        None,
        ("params_tokens", WITHOUT, "kaplan_e"),
        (COSTLIEST,),
        WITHOUT,
    ),
)


def main() -> None:
    """Print every block as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=500, help="refits for the intervals")
    n = parser.parse_args().n
    for block in BLOCKS:
        started = time.perf_counter()
        runs = load_runs(block.source, subset=block.subset)
        found = compare(runs, block.laws, block.holdouts, spec=FitSpec(delta=1e-3), refits=n)
        print(f"\n### {block.subset or block.source}\n")
        print(errors(found.table, block.holdouts))
        print(criteria(found.table))
        print(parameters(found.fits[block.shown]))
        print(f"({time.perf_counter() - started:.1f} s)")


def errors(table: pd.DataFrame, holdouts: Sequence[Holdout]) -> str:
    """Held-out errors: mean absolute (interval), signed, and the worst shape's mean where shapes are left out."""
    lines = ["| held out | " + " | ".join(table["law"]) + " |", "| --- |" + " --- |" * len(table)]
    for one in holdouts:
        cells = [_error(row, one) for _, row in table.iterrows()]
        lines.append(f"| {one.label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _error(row: pd.Series, holdout: Holdout) -> str:
    name = holdout.label
    ends = f" ({row[f'{name}_low']:.2%} to {row[f'{name}_high']:.2%})" if f"{name}_low" in row else ""
    worst = f", worst {row[f'{name}_worst']:.1%}" if holdout.kind == "leave_one_shape_out" else ""
    return f"{row[name]:.2%}{ends}, signed {row[f'{name}_signed']:+.2%}{worst}"


def criteria(table: pd.DataFrame) -> str:
    """What the fits to all rows say."""
    lines = ["| law | params counted | parameters | AIC | BIC | between runs | N ~ C^a |", "| --- |" + " --- |" * 6]
    for _, row in table.iterrows():
        share = "-" if pd.isna(row["between_run_share"]) else f"{row['between_run_share']:.0%}"
        cells = [row["law"], row["counting"], row["n_parameters"], f"{row['aic']:.0f}", f"{row['bic']:.0f}", share]
        lines.append("| " + " | ".join(map(str, [*cells, _exponent(row)])) + " |")
    return "\n".join(lines) + "\n"


def parameters(result: FitResult) -> str:
    """Parameters of one fit with their intervals."""
    return f"```\n{result.summary()}\n```\n"


def _exponent(row: pd.Series) -> str:
    name = "compute_optimal_exponent"
    if pd.isna(row[name]):
        return "no closed form"
    ends = f" ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})" if f"{name}_low" in row else ""
    return f"{row[name]:.3f}{ends}"


if __name__ == "__main__":
    main()
