"""The results of evaluations: a file for every model and sample, a table of all, and a loss column of our own runs.

outputs/evaluations/CORPUS/MODEL-IDENTITY.json    one evaluation; identity is that of model and sample
                           models.csv             all of them, one row per model
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shapelaw.errors import UserError
from shapelaw.evaluation.measuring import Evaluation, Sample
from shapelaw.evaluation.models import Facts
from shapelaw.files import as_record, read_sealed, write_sealed, write_sealed_table
from shapelaw.run_state import lock
from shapelaw.tracking.journal import JOURNAL, Journal, records
from shapelaw.tracking.protocol import further_loss
from shapelaw.training.stored import StoredCheckpoint

TABLE = "models.csv"
DERIVED = ("loss", "loss_per_byte", "bits_per_byte", "perplexity")


def file_of(folder: Path, model: Facts, sample: Sample) -> Path:
    """File of an evaluation."""
    key = json.dumps([model.identity, asdict(sample)], sort_keys=True)
    name = re.sub(r"[^A-Za-z0-9._+-]", "-", model.name).lstrip(".")[:80]
    return folder / sample.corpus / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"


def partial_of(file: Path) -> Path:
    """File with the progress of an evaluation."""
    return file.with_name(f".{file.stem}.partial.json")


def read(file: Path) -> Evaluation | None:
    """The evaluation in a file; None if the file is missing.

    Raises:
        Damaged: if it was changed after it was written.
    """
    if not file.exists():
        return None
    content = read_sealed(file)
    return as_record(Evaluation, {key: value for key, value in content.items() if key not in DERIVED}, file)


def keep(evaluation: Evaluation, file: Path) -> Path:
    """Write an evaluation, and rewrite the table of all evaluations of its corpus; returns the table's path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    derived = {name: getattr(evaluation, name) for name in DERIVED}
    write_sealed(file, {**asdict(evaluation), **{k: v if v < float("inf") else None for k, v in derived.items()}})
    partial_of(file).unlink(missing_ok=True)
    return write_table(file.parent)


def write_table(folder: Path) -> Path:
    """Write the table of a corpus's evaluations: one row per model and sample, in the order of names."""
    files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    write_sealed_table(folder / TABLE, [row_of(one) for one in map(read, files) if one is not None])
    return folder / TABLE


def row_of(one: Evaluation) -> dict[str, Any]:
    """An evaluation as a row: name, params, width, depth, (training) tokens and loss, as figures of models need them, and the
    other fields."""
    model = {key: getattr(one.model, key) for key in ("name", "params", "width", "depth", "tokens")}
    losses = {name: getattr(one, name) for name in DERIVED}
    measured = {"predicted_tokens": one.predicted_tokens, "text_bytes": one.text_bytes}
    sample = {key: value for key, value in asdict(one.sample).items() if key != "asked_tokens"}
    return {**model, **losses, **measured, **sample, "vocab_size": one.model.vocab_size, "source": one.model.source}


def record_losses(
    run: Path, name: str, losses: Iterable[tuple[StoredCheckpoint, float]], trained: Iterable[str]
) -> int:
    """Append losses to a run's journal as its further loss `name`; returns the number of new ones. The store gets them by
    delivery of the journal.

    Args:
        run: the run's folder.
        name: name of the loss: metric val/NAME/loss, column loss_NAME.
        losses: checkpoint and loss in nats per token.
        trained: names of the further losses that the run measured itself.

    Raises:
        UserError: if the run has another loss with this name, or is in training.
    """
    if not (run / JOURNAL).exists():
        raise UserError(
            f"model={run}: was trained by a version that kept no records without a tracker, so no further loss can be "
            "recorded for it; give record=false"
        )
    if name in trained:
        raise UserError(f"name={name}: {run.name} has a loss with that name from its training; give name=OTHER")
    metric = further_loss(name)
    with lock(run):
        there = _recorded(run, metric)
        new = {one.tokens: loss for one, loss in losses if there.get(one.tokens) != loss}
        if clash := sorted(there.keys() & new.keys()):
            raise UserError(
                f"name={name}: {run.name} has another loss with that name at {clash[0]:,} tokens, "
                f"{there[clash[0]]:.6f} and not "
                f"{new[clash[0]]:.6f}; give name=OTHER, or record=false"
            )
        journal = Journal(run)
        try:
            for tokens, loss in sorted(new.items()):
                journal.append("metrics", tokens=tokens, values={metric: loss})
            journal.sync()
        finally:
            journal.close()
    return len(new)


def _recorded(run: Path, metric: str) -> dict[int, float]:
    """Tokens -> the loss that a run's journal holds."""
    return {
        record["tokens"]: float(record["values"][metric])
        for record, _ in records(run / JOURNAL)
        if record["kind"] == "metrics" and metric in record["values"]
    }
