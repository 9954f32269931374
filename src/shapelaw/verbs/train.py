"""Training as the work of a sweep. Imports no torch until a cell is trained."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from shapelaw.cell import (
    Cell,
    cell_of,
    checkpoint_path,
    corpus_folder,
    further_folders,
    labels_of,
    parent_checkpoint,
    parent_folder,
)
from shapelaw.cell_state import State, Status, read_state
from shapelaw.config import CheckpointConfig, Keep, SearchConfig, TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.counting import params_total
from shapelaw.data import Corpus, check_repeats, load_corpus, validation
from shapelaw.devices import check_devices, gpu_names
from shapelaw.errors import UserError
from shapelaw.parallel.layout import check_degrees, check_layout, check_noise, check_tasks, layout_of
from shapelaw.sweep.task import Job, Trials, sweep_identity
from shapelaw.tracking_views import training
from shapelaw.training.cost import check_machine, cost_of, device_hours, flops_of

log = logging.getLogger(__name__)
UNPREPARED = "unprepared"
"""Stands for the corpus hash while only costs are asked."""


@dataclass(frozen=True)
class TrainTask:
    """The work of train.py."""

    preload: tuple[str, ...] = ("shapelaw.training.run", "mlflow")
    noun: str = "cell"

    def __call__(self, config: DictConfig) -> float:
        """Train one cell; its last held-out loss, nats per token."""
        train: TrainConfig = to_dataclass(config)
        cell = cell_of(train, _corpus(train).manifest.corpus_hash)
        from shapelaw.training.run import run

        return run(train, cell, _tags(train), _quiet)

    def single(self, config: DictConfig) -> float:
        """Check, then train one cell in this process, with a progress bar."""
        self.check_machine([config])
        jobs = self.plan([config])
        for key, value in self.begin([config], jobs).items():
            OmegaConf.update(config, key, value)
        if jobs[0].done:
            return _finished(jobs[0])
        train: TrainConfig = to_dataclass(config)
        cell = cell_of(train, _corpus(train).manifest.corpus_hash)
        from shapelaw.training.progress import bar
        from shapelaw.training.run import run

        with bar(cell, train.progress) as show:
            return run(train, cell, _tags(train), show)

    def plan(self, configs: Sequence[DictConfig]) -> list[Job]:
        """Check every cell: values, corpus."""
        trains: list[TrainConfig] = [to_dataclass(config) for config in configs]
        verify = {corpus_folder(train): train.data.verify for train in trains}
        corpora = {folder: load_corpus(folder, verify_hashes=how.hashes) for folder, how in verify.items()}
        cells = [cell_of(train, corpora[corpus_folder(train)].manifest.corpus_hash) for train in trains]
        for train, cell in zip(trains, cells, strict=True):
            _check_corpus(train, cell, corpora[corpus_folder(train)])
            _check_further(train, cell, corpora[corpus_folder(train)])
            _check_attention(train, cell)
            check_degrees(train.parallel, cell.shape, cell.vocab_size)
        jobs = _jobs(cells, trains)
        planned = reversed([*zip(jobs, cells, trains, strict=True)])  # of doubles the first is trained
        to_come = {job.identity: (cell, train.checkpoint) for job, cell, train in planned if not job.done}
        for cell in cells:
            if cell.parent in to_come and cell.identity in to_come:
                _check_kept(cell, *to_come[cell.parent])
            elif cell.parent is not None and cell.identity in to_come:
                parent_checkpoint(cell)
        return jobs

    def check_machine(self, configs: Sequence[DictConfig]) -> None:
        """Refuse what this machine has no device for, or what takes it too long or too much memory; needs no corpus."""
        trains: list[TrainConfig] = [to_dataclass(config) for config in configs]
        priced = [(cell_of(train, UNPREPARED), train) for train in trains]
        for cell, train in priced:
            check_devices(train.accelerator, train.devices, len(gpu_names()))
            layout = layout_of(train.parallel, train.devices * train.num_nodes)
            check_layout(layout, cell.shape, cell.vocab_size, cell.batch_sequences)
            if train.noise.every_steps:
                check_noise(layout, cell.batch_sequences, train.micro_batch_sequences)
        check_machine([(cell, cost_of(cell, train)) for cell, train in priced], trains[0])

    def gpus(self, configs: Sequence[DictConfig]) -> int:
        """GPUs that a run takes on this machine: its devices, if there are any and accelerator=cpu does not say otherwise."""
        wanted = [config.devices for config in configs if config.accelerator != "cpu"]
        return max(wanted, default=0) if gpu_names() else 0

    def estimate(self, configs: Sequence[DictConfig]) -> list[Job]:
        """The jobs as far as they are known without a corpus: everything but their identities and states."""
        trains: list[TrainConfig] = [to_dataclass(config) for config in configs]
        return _jobs([cell_of(train, UNPREPARED) for train in trains], trains)

    def device_hours(self, job: Job, device: str) -> float:
        """Hours of one device at its usual share of its rate."""
        return device_hours(job.flops, device)

    def begin(self, configs: Sequence[DictConfig], jobs: Sequence[Job]) -> Mapping[str, Any]:
        """Open the tracking store; for a sweep, its parent run."""
        train: TrainConfig = to_dataclass(configs[0])
        if train.tracker.name == "none":
            return {}
        from shapelaw.tracking import begin

        shared = {}
        if not all(job.done for job in jobs):
            names = {job.identity: job.label for job in jobs}
            shared = begin(train.tracker, train.suite.name, sweep_identity(jobs), names, training())
        _deliver_left(jobs)
        return shared

    def end(self, configs: Sequence[DictConfig], jobs: Sequence[Job], failed: Sequence[str]) -> None:
        """Close the sweep's parent run."""
        tracker = configs[0].tracker
        if tracker.name == "none" or len(jobs) < 2:
            return
        from shapelaw.tracking import close_parent

        close_parent(tracker.uri, configs[0].suite.name, sweep_identity(jobs), failed)

    def begin_search(self, config: DictConfig, trials: Trials) -> Mapping[str, Any]:
        """Open the tracking store and the study's own run."""
        shared = {f"search.{key}": value for key, value in asdict(trials).items()}
        tracker = config.tracker
        if tracker.name == "none":
            return shared
        from shapelaw.tracking import begin, open_search

        train: TrainConfig = to_dataclass(config)
        shared |= begin(train.tracker, train.suite.name, trials.study, {}, training())
        if experiment_id := shared.get("tracker.experiment_id"):
            parent = open_search(tracker.uri, experiment_id, trials.study, trials.storage)
            shared["tracker.parent_run_id"] = parent
        return shared

    def end_search(self, config: DictConfig, study: str, record: Mapping[str, Any]) -> None:
        """Close the study's run with what it found."""
        if config.tracker.name != "none":
            from shapelaw.tracking import close_search

            close_search(config.tracker.uri, config.suite.name, study, record)


def _deliver_left(jobs: Sequence[Job]) -> None:
    """Deliver what finished runs could not, as the store was away."""
    from shapelaw.tracking import deliver_left

    for job in jobs:
        left = deliver_left(job.folder) if job.done else None
        if left:
            log.warning("%s", left)


def _finished(job: Job) -> float:
    loss = read_state(job.folder).val_loss
    assert loss is not None
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{job.label} is already finished: loss {loss:.4f} in {job.folder}")
    return loss


def _jobs(cells: Sequence[Cell], trains: Sequence[TrainConfig]) -> list[Job]:
    return [_job(*each) for each in zip(cells, trains, labels_of(cells), strict=True)]


def _job(cell: Cell, train: TrainConfig, label: str) -> Job:
    done = read_state(cell.folder).status is Status.finished
    shape, flops = cell.shape, flops_of(cell)
    ready = cell.parent is None or checkpoint_path(parent_folder(cell), cell.first_step).exists()
    return Job(
        identity=cell.identity,
        label=label,
        folder=cell.folder,
        cost=flops,
        done=done,
        after=cell.parent,
        after_ready=ready,
        params=int(params_total(shape.width, shape.depth, cell.vocab_size, shape.head_size)),
        tokens=cell.tokens,
        flops=flops,
        footprint=partial(_footprint, cell, train),
        splits=cell.batch_sequences,
        check_tasks=partial(check_tasks, train.parallel, cell.shape, cell.vocab_size, cell.batch_sequences),
        request=train.resources,
    )


def _footprint(cell: Cell, train: TrainConfig, device: str) -> tuple[int, float]:
    cost = cost_of(cell, train, device)
    return cost.micro_sequences, cost.memory_bytes


def _corpus(train: TrainConfig) -> Corpus:
    return load_corpus(corpus_folder(train))


def _check_corpus(train: TrainConfig, cell: Cell, corpus: Corpus) -> None:
    """The vocabulary fits the shards, the context the held-out part, and the corpus is not repeated more than allowed."""
    corpus.check_vocab(cell.vocab_size)
    check_repeats(corpus, cell.seq_len, cell.tokens, train.data.max_epochs)
    validation(corpus, cell.seq_len, int(train.validation.tokens))


def _check_further(train: TrainConfig, cell: Cell, own: Corpus) -> None:
    """Further held-out sets are there and hold a context, made by the training corpus's tokenizer: else losses have another
    unit."""
    for name, folder in further_folders(train).items():
        other = load_corpus(folder)
        if other.manifest.tokenizer != own.manifest.tokenizer:
            raise UserError(
                f"validation.further.{name}={folder.name}: was prepared with another tokenizer than {own.folder.name}, so its "
                "loss has another unit; prepare it again with that tokenizer"
            )
        validation(other, cell.seq_len, int(train.validation.tokens))


def _check_kept(branch: Cell, run: Cell, kept: CheckpointConfig) -> None:
    """The run that a branch of the same sweep continues still has the checkpoint when it has ended."""
    left = run.checkpoints[-kept.newest :]
    if kept.keep is Keep.newest and branch.first_step not in left:
        raise UserError(
            f"cooldown.from_tokens={branch.first_step * branch.batch_tokens:,}: the run it continues removes its checkpoint "
            f"there (checkpoint.keep=newest, checkpoint.newest={kept.newest}); it ends with: "
            f"{', '.join(f'{step * run.batch_tokens:,}' for step in left)}. Give checkpoint.keep=all, or branch at one of these"
        )


def _check_attention(train: TrainConfig, cell: Cell) -> None:
    """Every back end but the default is asked whether it can run here."""
    if train.attention.name == "sdpa":
        return
    import torch

    from shapelaw.model import check_attention

    gpu = train.accelerator != "cpu" and torch.cuda.is_available()
    check_attention(train.attention.name, "cuda" if gpu else "cpu", cell.shape.head_size)


def _tags(train: TrainConfig) -> dict[str, str]:
    return {
        "shapelaw.corpus": _corpus(train).manifest.corpus_hash[:12],
        "shapelaw.git_commit": git_commit(),
        "shapelaw.host": socket.gethostname(),
        **_trial_tags(train.search),
    }


def _trial_tags(search: SearchConfig) -> dict[str, str]:
    if search.study is None:
        return {}
    return {"shapelaw.study": search.study, "shapelaw.trial": str(search.trial)}


def git_commit() -> str:
    """Commit of the code that runs, with a + if it was changed since; unknown outside a repository."""
    root = os.environ.get("SHAPELAW_ROOT", str(Path(__file__).parent))

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if commit and git("status", "--porcelain", "--untracked-files=no") else "") or "unknown"
    except OSError:
        return "unknown"


def _quiet(state: State) -> None:
    """Nothing: the launcher reads the state file."""
