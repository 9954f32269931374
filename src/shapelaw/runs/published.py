"""The published tables of the Gemstones and of Chinchilla."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from shapelaw.counting import SEQ_LEN_GEMSTONES, VOCAB_SIZE_GEMSTONES
from shapelaw.errors import UserError
from shapelaw.lr_rules import DEFAULT_PATCH
from shapelaw.runs.fetch import fetch, local_folder
from shapelaw.runs.registry import CHINCHILLA, CHINCHILLA_POINTS, GEMSTONES, SUBSETS, PublishedFile
from shapelaw.runs.table import RunsTable
from shapelaw.shapes import HEAD_SIZE
from shapelaw.suite import Suite

DEFAULT_SUBSET = "hot_100b+"
ALIASES = {"512x": "hot_100b+_512x"}
"""Short names of data sets -> suffix of their file."""
DEVICES_PER_NODE = 8
"""Frontier: four MI250X per node, two dies each, counted separately."""
BATCH_TOKENS = 2048 * SEQ_LEN_GEMSTONES
LR_BASE, LR_BASE_ABLATION = 5.0, 2.5
COOLDOWN = 0.1
CHINCHILLA_OUTLIERS = 5
GEMSTONES_SUITE = Suite(
    name="gemstones",
    folder="gemstones",
    head_size=HEAD_SIZE,
    width_unit=1.0,
    lr_rule="width_sqrt_depth",
    patch=DEFAULT_PATCH,
    lr_batch_scaling="none",
    lr_base=LR_BASE,
    vocab_size=VOCAB_SIZE_GEMSTONES,
    seq_len=SEQ_LEN_GEMSTONES,
    batch_tokens=BATCH_TOKENS,
    validation_tokens=100_000_000,
)
"""The published runs at the main rate; section 3.2, appendix F.2 and the repository of arXiv 2502.06857."""
CHINCHILLA_SUITE = Suite(name="chinchilla", seq_len=2048)
"""Facts of all models of arXiv 2203.15556; the figure gives no vocabulary, batch or rate."""

_GEMSTONES_NAMES = {
    "run": "run_name",
    "width": "width",
    "depth": "depth",
    "params": "params_active_precise",
    "tokens": "tokens",
    "loss": "final_loss",
    "flops": "FLOPs",
    "step": "step",
    "seconds_per_step": "seconds_per_step",
}


def gemstones(subset: str | None = None) -> RunsTable:
    """A data set of "Gemstones" (arXiv 2502.06857) by the suffix of its published file.

    hot: constant rate up to 100B tokens; hot_100b+: all tokens; hot_120b+_only: from 120B; ..._477: every validation;
    ..._512x (or 512x): width 512; lr_ablation_...: half the rate; cool_end: after the cooldowns; cool_begin: the
    checkpoints that these start from; ..._sampled_like_chinchilla: points matched to Chinchilla's; slim_chinchilla and
    lr_ablation_slim_chinchilla: Chinchilla's points matched to those.

    Raises:
        UserError: if there is no such data set.
    """
    name = ALIASES.get(subset or DEFAULT_SUBSET, subset or DEFAULT_SUBSET)
    path = fetch(_subset_file(name), GEMSTONES)
    raw = pd.read_json(path, lines=True)
    frame = pd.DataFrame({ours: raw[theirs] for ours, theirs in _GEMSTONES_NAMES.items() if theirs in raw})
    frame = _add_suite_constants(frame, raw, name) if "run" in frame else _as_single_runs(frame)
    return RunsTable(frame, _gemstones_about(name), dict.fromkeys(frame["run"], _suite(name)))


def _suite(name: str) -> Suite:
    """The record of a data set's runs; some data sets are Chinchilla's own points."""
    if "slim_chinchilla" in name:
        return CHINCHILLA_SUITE
    return replace(GEMSTONES_SUITE, lr_base=_lr_base(name))


def _lr_base(name: str) -> float:
    return LR_BASE_ABLATION if name.startswith("lr_ablation") else LR_BASE


def _subset_file(name: str) -> PublishedFile:
    """The registered file, or a further one in a local folder."""
    if name in SUBSETS:
        return SUBSETS[name]
    folder = local_folder()
    local = f"gemstones/runs/wandb_df_for_fitting_{name}.jsonl"
    if folder is not None and Path(name).name == name and (folder / local).is_file():
        return PublishedFile(local, "", "")
    raise UserError(
        f"subset={name}: allowed values are {', '.join([*SUBSETS, *ALIASES])}; narrow any of them with where=..."
    )


def _add_suite_constants(frame: pd.DataFrame, raw: pd.DataFrame, name: str) -> pd.DataFrame:
    """Facts of the whole suite that its files omit, and device hours.

    Device hours: seconds_per_step * step * devices / 3600 (GPU hours of the paper; nodes of eight devices).
    """
    devices = raw["num_nodes"] * DEVICES_PER_NODE
    return frame.assign(
        vocab_size=VOCAB_SIZE_GEMSTONES,
        num_devices=devices,
        device_hours=(raw["seconds_per_step"] * raw["step"] * devices / 3600.0).where(raw["step"] > 0),
        lr_base=_lr_base(name),
        batch_tokens=BATCH_TOKENS,
        cooldown=COOLDOWN if name == "cool_end" else 0.0,
    )


def _as_single_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Points of Chinchilla's Figure 4: each is the end of a separate run."""
    return frame.assign(run=[f"chinchilla-{i:03d}" for i in range(len(frame))])


def _gemstones_about(name: str) -> dict[str, str]:
    chinchilla = "slim_chinchilla" in name
    schedule = "rate cooled linearly to 0 over a further 10% of the tokens" if name == "cool_end" else "constant rate"
    return {
        "source": f"{GEMSTONES.name}@{GEMSTONES.commit[:12]}, data set {name}",
        "evaluation_set": "MassiveText (training loss)" if chinchilla else "100M held-out tokens of Dolma",
        "loss_unit": "nats per token",
        "smoothing": "training loss smoothed by its authors" if chinchilla else "none: validation loss",
        "params_counting": "as published" if chinchilla else "total: embedding and head included",
        "schedule": "cosine over each run's length" if chinchilla else f"warm-up over 80M tokens, then {schedule}",
        "early_tokens": "as published; no further cut",
    }


def chinchilla() -> RunsTable:
    """Epoch AI's 245 points of Chinchilla's Figure 4, the five highest losses excluded (240 kept).

    Parameters and FLOPs as extracted; tokens = FLOPs / (6 * parameters). Each point is the end of a separate run.

    Source: "Chinchilla Scaling: A replication attempt" (arXiv 2404.10102): the five points lie where the figure's
    colour scale ends and are far off every fit.
    """
    raw = pd.read_csv(fetch(CHINCHILLA_POINTS, CHINCHILLA))
    size, cost = raw["Model Size"], raw["Training FLOP"]
    highest = raw["loss"].rank(ascending=False, method="first") <= CHINCHILLA_OUTLIERS
    reason = f"one of the {CHINCHILLA_OUTLIERS} highest losses: outliers of the figure's extraction (arXiv 2404.10102)"
    frame = pd.DataFrame(
        {
            "run": [f"chinchilla-{i:03d}" for i in range(len(raw))],
            "params": size,
            "tokens": cost / (6.0 * size),
            "loss": raw["loss"],
            "flops": cost,
            "excluded": np.where(highest, reason, ""),
        }
    )
    return RunsTable(frame, _chinchilla_about(), dict.fromkeys(frame["run"], CHINCHILLA_SUITE))


def _chinchilla_about() -> dict[str, str]:
    return {
        "source": f"{CHINCHILLA.name}@{CHINCHILLA.commit[:12]}",
        "evaluation_set": "MassiveText (training loss)",
        "loss_unit": "nats per token",
        "smoothing": "training loss smoothed by its authors, read off a figure",
        "params_counting": "as extracted from the figure",
        "schedule": "cosine over each run's length",
        "early_tokens": "one point per run, at its end",
    }
