"""Held-out loss of models that exist, per token and per byte: shapelaw evaluate model=FOLDER corpus=NAME"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shapelaw.config import Precision, TrackerConfig, part_of_corpus
from shapelaw.config.option import option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.config.values import THREADS_MAX
from shapelaw.data import Corpus, load_corpus
from shapelaw.devices import check_devices, gpu_names
from shapelaw.errors import UserError
from shapelaw.extras import require
from shapelaw.files import check_room
from shapelaw.terminal import Terminal, printable, write, write_error
from shapelaw.verbs.doors import Door
from shapelaw.wording import SILENT_SECONDS

FILES_BYTES = 1e5
"""Of a file for every model, and the table."""


@record()
class EvaluateConfig(PlacesConfig):
    """Held-out loss of models that exist."""

    model: Any = option(
        "What is evaluated: the folder of a run (its newest checkpoint), of a checkpoint, or of a model of transformers; a "
        "name of the Hugging Face hub that is in its cache; a pattern such as 'outputs/runs/nano/*'; or a list of these."
    )
    corpus: str = option(
        "Prepared corpus whose held-out part is taken: its folder under data_dir, such as stdlib-bytes; of a mixture also "
        "CORPUS@SOURCE, the held-out part of one source."
    )
    tokens: float | None = option(
        "Predicted tokens of the sample, spread over the held-out part as a run's validations are; null for all of it.",
        default=None,
        low=1,
        whole=True,
        unit="tokens",
    )
    context: int | None = option(
        "Predicted tokens of one window; null for the run's seq_len, or what a model of transformers takes, up to 4096.",
        default=None,
        low=1,
        unit="tokens",
    )
    checkpoints: str = option("Which of a run's checkpoints are evaluated.", choices=("newest", "all"))
    record: bool = option(
        "Whether the losses of our own runs are recorded with their tracked runs, as val/NAME/loss: a column of the runs table."
    )
    name: str | None = option(
        "Name of that loss, which fit.py takes as runs.loss=NAME; null for the corpus's, letters, digits and _ alone.",
        default=None,
    )
    trained_tokens: float | None = option(
        "Tokens that a model of transformers was trained on, for its row of the table.",
        default=None,
        above=0,
        unit="tokens",
    )
    revision: str | None = option("Branch, tag or commit of a model of the hub.", default=None)
    download: bool = option("Whether a model that is not in the hub's cache is downloaded.")
    batch_sequences: int | None = option(
        "Windows of one forward pass; null for as many as 256 MB of logits take, 64 at most.",
        default=None,
        low=1,
        unit="windows",
    )
    precision: Precision = option("Number format of the matrix products: bf16, fp32; auto: bf16 on a GPU.")
    accelerator: str = option(
        "What it runs on: auto (a GPU where there is one), cpu, gpu.", choices=("auto", "cpu", "gpu")
    )
    threads: int = option("CPU threads; 0 leaves torch's own choice.", low=0, high=THREADS_MAX)
    progress: bool = option("Whether progress is shown: a bar, or without a terminal a line every 30 s.")
    tracker: TrackerConfig

    def check(self) -> None:
        """Models are named by text; the name of a loss is a part of its metric's."""
        if not self.names or not all(isinstance(name, str) and name for name in self.names):
            raise UserError(f"model={self.model}: allowed are folders, patterns and names; give one, or a list of them")
        part_of_corpus(self.data_dir, "corpus", self.corpus)
        if not re.fullmatch(r"[A-Za-z0-9_]+", self.loss_name):
            raise UserError(f"name={self.name}: is no name of a loss; allowed are letters, digits and _; give another")

    @property
    def names(self) -> list[str]:
        """What is evaluated."""
        return list(self.model) if isinstance(self.model, list | tuple) else [self.model]

    @property
    def loss_name(self) -> str:
        """Of the further loss."""
        return self.name if self.name is not None else re.sub(r"\W", "_", self.corpus, flags=re.A)


def evaluate_models(config: DictConfig) -> None:
    """Evaluate the models that the configuration names, and say their losses."""
    asked: EvaluateConfig = to_dataclass(config)
    check_devices(asked.accelerator, 1, len(gpu_names()))
    folder, source = part_of_corpus(asked.data_dir, "corpus", asked.corpus)
    corpus = load_corpus(folder, verify_hashes=None).of_source(source)
    require("evaluation", "torch", "safetensors")
    evaluate(asked, corpus, Path(asked.outputs_dir) / "evaluations")


def evaluate(asked: EvaluateConfig, corpus: Corpus, folder: Path) -> None:
    """Evaluate models on a corpus, write what was measured, and record the losses of our own runs.

    Raises:
        UserError: for the first model that is not there or cannot be evaluated; before any is, as far as that can be seen.
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
    """What a model's losses are."""
    return (
        f"{one.model.name}: {one.loss:.6f} nats per token (perplexity {one.perplexity:.4g}), {one.loss_per_byte:.6f} nats and "
        f"{one.bits_per_byte:.6f} bits per byte, over {one.predicted_tokens:,} tokens of {one.text_bytes:,} bytes\n"
    )


def _record(asked: EvaluateConfig, measured: Sequence[tuple[Any, Any]]) -> None:
    """Record the losses of our own runs, each run once, and bring them to the store."""
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
        write(f"recorded as val/{asked.loss_name}/loss; fit it by runs.loss={asked.loss_name}\n")


def _deliver(asked: EvaluateConfig, run: Path) -> None:
    """Bring a run's new losses to its store, if that is the one in force; else `shapelaw replay` does."""
    if asked.tracker.name == "none":
        return
    from shapelaw.tracking.delivery import Delivery, deliver_left

    delivery = Delivery(run)
    if not delivery.named:
        return  # it is kept in its folder alone
    same = delivery.named == asked.tracker.uri
    left = deliver_left(run, artifacts=asked.tracker.artifacts) if same else delivery.line("it is another store")
    if left:
        write_error(f"{left}\n")


@contextmanager
def _shown(name: str, enabled: bool) -> Iterator[Any]:
    """Shows windows as they are done: a bar, or a line at least every 30 s where there is no terminal."""
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


DOOR = Door(EvaluateConfig, evaluate_models)
