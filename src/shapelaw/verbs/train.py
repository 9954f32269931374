"""Training as the work of a sweep. Imports no torch until a run is trained."""

from __future__ import annotations

import logging
import math
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from shapelaw import __version__
from shapelaw.command.checks import check_command, check_found, check_parent, warn_of_same
from shapelaw.command.fields import command_of, reads_corpus
from shapelaw.config import COMMAND, CheckpointConfig, SearchConfig, TrackerConfig, TrainConfig
from shapelaw.config.running import IN_MLFLOW
from shapelaw.config.schema import to_dataclass
from shapelaw.devices import check_devices, gpu_names
from shapelaw.extras import require
from shapelaw.fingerprint import identity_of
from shapelaw.planned_run import PlannedRun, checkpoint_path, labels_of, parent_checkpoint, parent_folder, plan_run
from shapelaw.run_state import State, Status, read_state
from shapelaw.sweep.task import Footprint, Job, Trials, sweep_identity
from shapelaw.terminal import terminal
from shapelaw.tracking_views import training
from shapelaw.training.checks import check_budgets, check_kept, check_parts, check_run, check_tasks
from shapelaw.training.corpora import Corpora, Library
from shapelaw.training.cost import check_machine, cost_of, device_hours, flops_of, machine_of, memory_limit
from shapelaw.training.processes import launch, starts_processes
from shapelaw.training.sizes import sizes_of
from shapelaw.verbs import train_summary
from shapelaw.verbs.doors import is_wheel, project_root
from shapelaw.verbs.migrate import take_over

log = logging.getLogger(__name__)
Show = Callable[[State], None]
MLFLOW = ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "shapelaw.tracking.mlflow_internals")
"""Modules of the tracker; the second, which mlflow imports at its first call, takes 0.8 s."""
MODEL = ("shapelaw.training.run", "shapelaw.training.numba_ready")
"""Modules of a run of the model."""
PROGRAM = ("shapelaw.command.run", "shapelaw.training.progress")
"""Modules of a run that a program trains."""
UNPREPARED = "unprepared"
"""Placeholder for the corpus hash while only costs are needed."""


@dataclass(frozen=True)
class _Located:
    """A checked configuration, the run planned from it, and the corpora that it reads; none if a program has its own."""

    config: TrainConfig
    planned: PlannedRun
    corpora: Corpora | None

    @property
    def is_command(self) -> bool:
        """Whether a program trains it."""
        return self.config.trainer.name == COMMAND


@dataclass(frozen=True)
class TrainTask:
    """The work of train.py.

    Args:
        preload: modules that every job imports.
        noun: noun for a job.
        library: the corpora of this command.
    """

    preload: tuple[str, ...] = ()
    noun: str = "run"
    library: Library = field(default_factory=Library, repr=False, compare=False)

    def __call__(self, config: DictConfig) -> float:
        """Train one planned run; returns its last held-out loss, nats per token."""
        from shapelaw.training.progress import lines

        return _train(_located(to_dataclass(config), self.library), lines())

    def single(self, config: DictConfig) -> float:
        """Check, then train one run in this process, with a progress bar, and a log like that of a sweep's runs."""
        self.check_machine([config])
        jobs = self.plan([config])
        for key, value in {**jobs[0].settings, **self.begin([config], jobs)}.items():
            OmegaConf.update(config, key, value)
        if jobs[0].done:
            return _finished(jobs[0])
        run = _located(to_dataclass(config), self.library)
        from shapelaw.training.progress import bar, logged

        begun = time.monotonic()
        with logged(run.planned.folder) as note, bar(run.planned, run.config.progress) as draw:

            def show(state: State) -> None:
                note(state)
                draw(state)

            loss = _train(run, show)
        if run.config.progress:
            train_summary.say(train_summary.of_run(jobs[0], time.monotonic() - begun, config.tracker.name in IN_MLFLOW))
        return loss

    def plan(self, configs: Sequence[DictConfig]) -> list[Job]:
        """Check every run: values, corpus. Runs of an earlier version are renamed first, so that they are found."""
        take_over(Path(str(configs[0].outputs_dir)).absolute(), str(configs[0].tracker.uri))
        runs = [_located(to_dataclass(config), self.library, check=True) for config in configs]
        for run in runs:
            _check(run)
        if runs[0].config.tracker.own:
            from shapelaw.tracking import check_tracker

            check_tracker(runs[0].config.tracker.name, runs[0].config.tracker.options)
        check_budgets([(run.planned, run.config) for run in runs])
        check_parts([(run.planned, run.config) for run in runs if not run.is_command])
        warn_of_same([(run.config, run.planned) for run in runs if run.is_command])
        jobs = _jobs([run.planned for run in runs], [run.config for run in runs])
        backwards = reversed([*zip(jobs, runs, strict=True)])  # of duplicates, the first is trained
        to_come = {job.identity: (run.planned, run.config.checkpoint) for job, run in backwards if not job.done}
        for run in runs:
            if run.planned.identity in to_come and run.planned.parent is not None:
                _check_continued(run, to_come.get(run.planned.parent))
        return jobs

    def check_machine(self, configs: Sequence[DictConfig]) -> None:
        """Refuse runs for which this machine lacks a device, time or memory; needs no corpus."""
        trains: list[TrainConfig] = [to_dataclass(config) for config in configs]
        priced = [(plan_run(train, UNPREPARED), train) for train in trains]
        for planned, train in priced:
            check_devices(train.accelerator, train.devices, len(gpu_names()))
            if train.trainer.name == COMMAND:
                check_found(train, planned)
            else:
                check_tasks(planned, train, train.devices * train.num_nodes)
        ours = [(planned, train) for planned, train in priced if train.trainer.name != COMMAND]
        check_machine([(planned, cost_of(planned, train)) for planned, train in ours], trains[0])

    def gpus(self, configs: Sequence[DictConfig]) -> int:
        """GPUs that a run takes on this machine: its devices, if there are any, unless accelerator=cpu."""
        wanted = [config.devices for config in configs if config.accelerator != "cpu"]
        return max(wanted, default=0) if gpu_names() else 0

    def estimate(self, configs: Sequence[DictConfig]) -> list[Job]:
        """The jobs as far as they are known without a corpus: everything except their identities and states."""
        trains: list[TrainConfig] = [to_dataclass(config) for config in configs]
        return _jobs([plan_run(train, UNPREPARED) for train in trains], trains)

    def device_hours(self, job: Job, device: str) -> float:
        """Hours of one device at its usual share of its rate."""
        return device_hours(job.flops, device)

    def begin(self, configs: Sequence[DictConfig], jobs: Sequence[Job]) -> Mapping[str, Any]:
        """Open the tracking store; for a sweep, its parent run."""
        if any(config.trainer.name != COMMAND for config in configs):
            require("training", "torch", "lightning", "safetensors")
        train: TrainConfig = to_dataclass(configs[0])
        if train.tracker.in_wandb:
            _begin_wandb(train.tracker, jobs)
        if train.tracker.own:
            _begin_own(train.tracker, jobs)
        if not train.tracker.in_mlflow:
            return {}
        require("tracker=mlflow", "mlflow", instead="give tracker=none")
        from shapelaw.tracking import begin

        shared = {}
        if not all(job.done for job in jobs):
            names = {job.identity: job.label for job in jobs}
            shared = begin(train.tracker, train.suite.name, sweep_identity(jobs), names, training())
        _deliver_left(jobs, train, shared.get("tracker.parent_run_id"))
        return shared

    def end(self, configs: Sequence[DictConfig], jobs: Sequence[Job], failed: Sequence[str]) -> None:
        """Close the sweep's parent run, and print what it trained."""
        tracker, experiment = configs[0].tracker, ""
        if tracker.name in IN_MLFLOW and len(jobs) > 1:
            from shapelaw.tracking import close_parent

            experiment = close_parent(tracker.uri, configs[0].suite.name, sweep_identity(jobs), failed)
        compared = train_summary.compared(str(tracker.uri), experiment)
        train_summary.say(train_summary.of_sweep(jobs, failed, tracker.name in IN_MLFLOW, compared))

    def stopped(self, config: DictConfig, identity: str) -> None:
        """Close the run of a sweep or search whose launcher was stopped."""
        if config.tracker.name in IN_MLFLOW:
            from shapelaw.tracking import close_stopped

            close_stopped(config.tracker.uri, config.suite.name, identity)

    def begin_search(self, config: DictConfig, trials: Trials) -> Mapping[str, Any]:
        """Open the tracking store and the study's own run."""
        shared = {f"search.{key}": value for key, value in asdict(trials).items()}
        tracker = config.tracker
        if tracker.name not in IN_MLFLOW:
            return shared
        from shapelaw.tracking import begin, open_search

        train: TrainConfig = to_dataclass(config)
        shared |= begin(train.tracker, train.suite.name, trials.study, {}, training())
        if experiment_id := shared.get("tracker.experiment_id"):
            parent = open_search(tracker.uri, experiment_id, trials.study, trials.storage)
            shared["tracker.parent_run_id"] = parent
        return shared

    def end_search(self, config: DictConfig, study: str, record: Mapping[str, Any]) -> None:
        """Close the study's run with its result."""
        if config.tracker.name in IN_MLFLOW:
            from shapelaw.tracking import close_search

            close_search(config.tracker.uri, config.suite.name, study, record)


def _begin_wandb(tracker: TrackerConfig, jobs: Sequence[Job]) -> None:
    """Check that wandb logs this user in, and deliver the records of finished runs that it lacks."""
    require("tracker=wandb", "wandb", instead="run: pip install 'shapelaw[wandb]', or give tracker=mlflow or none")
    from shapelaw.tracking import check_login, deliver_to_wandb

    check_login(tracker)
    _warn_left(jobs, lambda folder: deliver_to_wandb(folder, tracker.offline))


def _begin_own(tracker: TrackerConfig, jobs: Sequence[Job]) -> None:
    """Pass the user's tracker the records of finished runs that it lacks."""
    from shapelaw.tracking import deliver_to_own

    _warn_left(jobs, lambda folder: deliver_to_own(folder, tracker.name, tracker.options))


def _warn_left(jobs: Sequence[Job], deliver: Callable[[Path], str | None]) -> None:
    """Deliver the remaining records of finished runs, and report those that could not be delivered."""
    for job in jobs:
        if job.done and (left := deliver(job.folder)):
            log.warning("%s", left)


def _deliver_left(jobs: Sequence[Job], train: TrainConfig, parent_run_id: str | None) -> None:
    """Deliver records of finished runs that the store lacks: it was away, or they were recorded elsewhere or not tracked."""
    from shapelaw.tracking import Store, deliver_to

    store = Store.of(train.tracker, train.suite.name)
    _warn_left(jobs, lambda folder: deliver_to(folder, store, parent_run_id))


def _finished(job: Job) -> float:
    loss = read_state(job.folder).val_loss
    assert loss is not None
    console = terminal(stderr=True)
    console.print(f"{job.label} is already finished: loss {loss:.4f} in {job.folder}")
    return loss


def _jobs(runs: Sequence[PlannedRun], trains: Sequence[TrainConfig]) -> list[Job]:
    return [_job(*each) for each in zip(runs, trains, labels_of(runs), strict=True)]


def _job(planned: PlannedRun, train: TrainConfig, label: str) -> Job:
    done = read_state(planned.folder).status is Status.finished
    flops = flops_of(planned)
    tracked = MLFLOW if train.tracker.in_mlflow else ()
    if train.trainer.name == COMMAND:
        ready = planned.parent is None or read_state(parent_folder(planned)).status is Status.finished
        resume = read_state(planned.folder).attempts > 0
        how: dict[str, Any] = {
            "preload": (*PROGRAM, *tracked),
            "command": shlex.join(command_of(train, planned, resume)),
        }
    else:
        ready = planned.parent is None or checkpoint_path(parent_folder(planned), planned.first_step).exists()
        how = {"preload": (*MODEL, *tracked), "footprint": partial(_footprint, planned, train)}
        how |= {"splits": planned.batch_sequences, "check_tasks": partial(check_tasks, planned, train)}
    return Job(
        identity=planned.identity,
        label=label,
        folder=planned.folder,
        cost=flops,
        done=done,
        after=planned.parent,
        after_ready=ready,
        params=sizes_of(planned).params,
        tokens=planned.tokens,
        flops=flops,
        request=train.resources,
        settings={"precision": planned.fingerprint["precision"]},
        **how,
    )


def _footprint(planned: PlannedRun, train: TrainConfig, device: str) -> Footprint:
    cost, machine = cost_of(planned, train, device), machine_of(device, train.accelerator)
    limit = math.inf if train.force else memory_limit(train, machine.memory_bytes, machine.gpu)
    return Footprint(cost.micro_sequences, cost.memory_bytes, limit)


def _located(config: TrainConfig, library: Library, check: bool = False) -> _Located:
    """Plan the run of a configuration on its corpus."""
    if config.trainer.name == COMMAND and not reads_corpus(config):
        return _Located(config, plan_run(config, None), None)
    corpora = library.of(config, check)
    planned = plan_run(config, corpora.hash, corpora.own.manifest.tokenizer, corpora.further_hashes)
    return _Located(config, planned, corpora)


def _check(run: _Located) -> None:
    """Refuse a run with detectable errors before anything is created."""
    if run.is_command:
        check_command(run.config, run.planned)
    else:
        assert run.corpora is not None
        check_run(run.config, run.planned, run.corpora)
        _tell_former(run)


def _check_continued(run: _Located, parent: tuple[PlannedRun, CheckpointConfig] | None) -> None:
    """Refuse a branch whose checkpoint will not exist; `parent` is the continued run if this sweep still has to train it."""
    if run.is_command:
        if parent is None:
            check_parent(run.planned)
    elif parent is not None:
        check_kept(run.planned, *parent)
    else:
        parent_checkpoint(run.planned)


def _tell_former(run: _Located) -> None:
    """Report a run from the time when folders identified further held-out corpora: it is not taken over."""
    further = run.config.validation.further
    if further and run.planned.parent is None:
        former = identity_of({**run.planned.fingerprint, "further_validation": dict(further)})
        folder = run.planned.folder.with_name(f"{run.planned.shape.name}-{former}")
        if folder.is_dir():
            log.warning(
                "%s was trained by a version that identified further held-out corpora by their folders, not by their "
                "content, so this run is trained again: keep the old run beside the new one, or remove it",
                folder,
            )


def _train(run: _Located, show: Show) -> float:
    """Train a run by its program, in this process, or in several if it asks for them and they have not been started yet."""
    if run.is_command:
        from shapelaw.command.run import train as train_command

        return train_command(run.config, run.planned, _tags(run.config, run.corpora), show)
    assert run.corpora is not None
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    check_devices(run.config.accelerator, run.config.devices, there)  # no plan can know the node that a cluster chooses
    tags = _tags(run.config, run.corpora)
    if starts_processes(run.config):
        return launch(run.config, run.planned, run.corpora, tags, show)
    from shapelaw.training.run import train

    return train(run.config, run.planned, run.corpora, tags, show)


def _tags(train: TrainConfig, corpora: Corpora | None) -> dict[str, str]:
    return {
        **({"shapelaw.corpus": corpora.hash[:12]} if corpora else {}),
        "shapelaw.git_commit": git_commit(),
        "shapelaw.host": socket.gethostname(),
        **_trial_tags(train.search),
    }


def _trial_tags(search: SearchConfig) -> dict[str, str]:
    if search.study is None:
        return {}
    return {"shapelaw.study": search.study, "shapelaw.trial": str(search.trial)}


def git_commit() -> str:
    """Commit of the running code, with a + if it was changed since; a wheel's version; unknown outside a repository."""
    if is_wheel():
        return f"v{__version__}"
    root = str(project_root())

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if commit and git("status", "--porcelain", "--untracked-files=no") else "") or "unknown"
    except OSError:
        return "unknown"


DOOR = TrainTask()
