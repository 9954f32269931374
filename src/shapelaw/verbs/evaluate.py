"""Held-out loss of models that exist, per token and per byte: shapelaw evaluate model=FOLDER corpus=NAME"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shapelaw.config import EvaluateConfig, part_of_corpus
from shapelaw.config.schema import to_dataclass
from shapelaw.data import Corpus, load_corpus
from shapelaw.devices import check_devices, gpu_names
from shapelaw.extras import require
from shapelaw.files import check_room
from shapelaw.terminal import Terminal, printable, write, write_error
from shapelaw.wording import SILENT_SECONDS

FILES_BYTES = 1e5
"""Approximate bytes of a file for every model, and the table."""


def evaluate_models(config: DictConfig) -> None:
    """Evaluate the models that the configuration names, and print their losses."""
    asked: EvaluateConfig = to_dataclass(config)
    check_devices(asked.accelerator, 1, len(gpu_names()))
    folder, source = part_of_corpus(asked.data_dir, "corpus", asked.corpus)
    corpus = load_corpus(folder, verify_hashes=None).of_source(source)
    require("evaluation", "torch", "safetensors")
    evaluate(asked, corpus, Path(asked.outputs_dir) / "evaluations")


def evaluate(asked: EvaluateConfig, corpus: Corpus, folder: Path) -> None:
    """Evaluate models on a corpus, write the results, and record the losses of our own runs.

    Raises:
        UserError: for the first model that is missing or cannot be evaluated; before any evaluation, if it can be known then.
    """
    import torch

    from shapelaw.evaluation.evaluate import Evaluations, Wanted, subjects_of
    from shapelaw.evaluation.models import place_of

    if asked.threads:
        torch.set_num_threads(asked.threads)
    wanted = Wanted(
        tokens=None if asked.tokens is None else int(asked.tokens),
        context=asked.context,
        all_checkpoints=asked.checkpoints == "all",
        batch_sequences=asked.batch_sequences,
        trained_tokens=asked.trained_tokens,
        revision=asked.revision,
        download=asked.download,
    )
    subjects = subjects_of(asked.names, wanted)
    check_room(folder, len(subjects) * FILES_BYTES, "evaluations")
    evaluations = Evaluations(corpus, folder, wanted, place_of(asked.accelerator, asked.precision))
    measured = []
    for subject in subjects:
        with _shown(subject.facts.name, asked.progress) as show:
            measured.append((subject, evaluations.of(subject, show)))
        write(_line(measured[-1][1]))
    if asked.record:
        _record(asked, measured)
    write(f"written to {folder / asked.corpus}\n")


def _line(one: Any) -> str:
    """A model's losses, in one line."""
    return (
        f"{one.model.name}: {one.loss:.6f} nats per token (perplexity {one.perplexity:.4g}), {one.loss_per_byte:.6f} nats and "
        f"{one.bits_per_byte:.6f} bits per byte, over {one.predicted_tokens:,} tokens of {one.text_bytes:,} bytes\n"
    )


def _record(asked: EvaluateConfig, measured: Sequence[tuple[Any, Any]]) -> None:
    """Record the losses of our own runs, each run once, and deliver them to the store."""
    from shapelaw.evaluation.records import record_losses

    own = [(subject.checkpoint, one.loss) for subject, one in measured if subject.checkpoint is not None]
    count = 0
    for run, losses in itertools.groupby(own, lambda pair: pair[0].run):
        pairs = list(losses)
        trained = pairs[0][0].config.validation.further
        if record_losses(run, asked.loss_name, pairs, trained):
            count += 1
            _deliver(asked, run)
    if count:
        write(f"recorded as val/{asked.loss_name}/loss; to fit it, give runs.loss={asked.loss_name}\n")


def _deliver(asked: EvaluateConfig, run: Path) -> None:
    """Deliver a run's new losses to its store, if that is the present one; otherwise `shapelaw replay` does."""
    if asked.tracker.name == "none":
        return
    from shapelaw.tracking.delivery import Delivery, deliver_left

    delivery = Delivery(run)
    if not delivery.named:
        return  # it is kept in its folder only
    same = delivery.named == asked.tracker.uri
    left = deliver_left(run, artifacts=asked.tracker.artifacts) if same else delivery.line("it is another store")
    if left:
        write_error(f"{left}\n")


@contextmanager
def _shown(name: str, enabled: bool) -> Iterator[Any]:
    """Show finished windows by a bar, or without a terminal by a line at least every 30 s."""
    console = Terminal(stderr=True, quiet=not enabled)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    spoken = time.monotonic()
    with Progress(*columns, console=console, disable=not (enabled and console.is_terminal)) as progress:
        task = progress.add_task(printable(name), total=None)

        def show(done: int, total: int) -> None:
            nonlocal spoken
            progress.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - spoken > SILENT_SECONDS:
                spoken = time.monotonic()
                console.print(f"{name}: {done} of {total} windows")

        yield show


DOOR = evaluate_models
