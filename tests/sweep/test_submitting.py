"""Sweeps handed to stand-ins of SLURM's programs: calls counted, submissions refused half-way, jobs that are forgotten."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from shapelaw.errors import UserError
from shapelaw.run_state import State, Status, read_state, write_state
from shapelaw.sweep import accounting, slurm
from shapelaw.sweep.local import SweepFailed
from shapelaw.sweep.settings import SlurmSettings
from shapelaw.sweep.slurm import launch
from shapelaw.sweep.task import Job

RUNS = tuple("abcdefghijkl")


@dataclass
class SweepConfigs:
    """Twelve runs that need no training; what the launcher asked of them."""

    outputs: Path
    noun: str = "run"
    preload: tuple[str, ...] = ()
    begun: list[list[str]] = field(default_factory=list)
    ended: list[list[str]] = field(default_factory=list)

    @property
    def configs(self) -> list[DictConfig]:
        return [OmegaConf.create({"outputs_dir": str(self.outputs), "name": name}) for name in RUNS]

    def folder(self, name: str) -> Path:
        folder = self.outputs / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def finish(self, *names: str) -> None:
        for name in names:
            write_state(self.folder(name), State(Status.finished, val_loss=1.0))

    def __call__(self, config: DictConfig) -> float:
        return 1.0

    def plan(self, configs: Sequence[DictConfig]) -> list[Job]:
        folders = {config.name: self.folder(config.name) for config in configs}
        return [
            Job(name, name, path, done=read_state(path).status is Status.finished) for name, path in folders.items()
        ]

    def begin(self, configs: Sequence[DictConfig], jobs: Sequence[Job]) -> Mapping[str, Any]:
        self.begun.append([job.identity for job in jobs])
        return {}

    def end(self, configs: Sequence[DictConfig], jobs: Sequence[Job], failed: Sequence[str]) -> None:
        self.ended.append(list(failed))


@dataclass(frozen=True)
class Site:
    """Stand-ins of SLURM's programs, and a file that each writes its calls to."""

    folder: Path

    def program(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\necho "$*" >> {self.folder}/{name}.calls\n{body}\n')
        path.chmod(0o755)

    def calls(self, name: str) -> int:
        path = self.folder / f"{name}.calls"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def takes(self, arrays: int) -> None:
        """Let sbatch take so many arrays, numbered from 1."""
        (self.folder / "room").write_text(str(arrays))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site(tmp_path / "bin")
    site.folder.mkdir()
    monkeypatch.setenv("PATH", f"{site.folder}:{os.environ['PATH']}")
    site.program("scontrol", "echo 'MaxArraySize            = 5'")
    site.program("squeue", "")
    site.program("sacct", 'case "$*" in *--name*) ;; *) echo "JobID|State";; esac')
    site.program("srun", "")
    site.program(
        "sbatch",
        f'[ "$1" = --test-only ] && exit 0\ncd {site.folder}; n=$(($(cat n 2>/dev/null || echo 0) + 1))\n'
        "[ $n -gt $(cat room) ] && { echo 'sbatch: error: AssocMaxSubmitJobLimit' >&2; exit 1; }\n"
        "echo $n > n; echo Submitted batch job $n",
    )
    site.takes(9)
    yield site
    accounting._tell_no_accounting.cache_clear()


@pytest.fixture
def runs(tmp_path: Path) -> SweepConfigs:
    return SweepConfigs(tmp_path / "outputs")


def test_arrays_keep_to_the_site_s_length_and_a_half_queued_sweep_says_so(
    site: Site, runs: SweepConfigs, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command submits the rest; a sweep of which nothing is queued is the user's to mend."""
    settings = SlurmSettings(max_array_size=10)
    site.takes(0)
    with pytest.raises(UserError, match=r"^sbatch: AssocMaxSubmitJobLimit$"):
        launch(runs, runs.configs, settings)
    site.takes(2)
    with pytest.raises(
        SweepFailed, match=r"SubmitJobLimit; 10 of 12 runs are queued \(to stop them: scancel 1 2\); the same"
    ):
        launch(runs, runs.configs, settings)
    site.takes(9)
    launch(runs, runs.configs, settings)
    assert "12 runs: 12 queued; 2 submitted now" in capsys.readouterr().err


def test_slurm_is_asked_once_for_an_array_whose_id_was_not_noted(site: Site, runs: SweepConfigs) -> None:
    launch(runs, runs.configs, SlurmSettings())
    for noted in runs.outputs.glob("slurm/*/job_id"):
        noted.unlink()
    before = site.calls("squeue")
    accounting.survey(runs.plan(runs.configs))
    assert (site.calls("squeue") - before, site.calls("sacct")) == (3, 3), "three arrays, none of them known"


def test_a_sweep_that_was_left_is_closed_once_its_last_job_has_ended(site: Site, runs: SweepConfigs) -> None:
    """And not before; what finished jobs could not deliver is delivered whenever somebody looks."""
    launch(runs, runs.configs, SlurmSettings())
    runs.finish("a", "b")
    launch(runs, runs.configs, SlurmSettings())
    assert (runs.begun, runs.ended) == ([list(RUNS), ["a", "b"]], [])
    runs.finish(*RUNS)
    launch(runs, runs.configs, SlurmSettings())
    assert (runs.begun[2:], runs.ended) == ([list(RUNS)], [[]])


def test_a_job_that_slurm_forgot_is_not_waited_for(
    site: Site, runs: SweepConfigs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.program("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    monkeypatch.setattr(accounting, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.0)
    submitted: Callable[..., Any] = slurm.submit_all

    def submit(*arguments: Any) -> None:
        submitted(*arguments)
        runs.finish(*RUNS[1:])

    monkeypatch.setattr(slurm, "submit_all", submit)
    with pytest.raises(SweepFailed, match="1 of 12 runs failed; run the same command again to retry them"):
        launch(runs, runs.configs, SlurmSettings(wait=True, poll_seconds=0.0))
    assert "failed a: SLURM no longer knows it" in capsys.readouterr().err
    assert runs.ended == [["a"]]
