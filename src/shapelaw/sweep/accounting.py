"""The state of jobs in SLURM, by few calls, and whether it agrees with the runs' own records."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

from shapelaw.errors import UserError
from shapelaw.run_state import State, Status, read_state
from shapelaw.sweep import records
from shapelaw.sweep.records import Submission
from shapelaw.sweep.task import Job
from shapelaw.terminal import terminal

CALL_SECONDS = 60.0
WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
ACTIVE = {"RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING"}
NO_ACCOUNTING = "Slurm accounting storage is disabled"
"""sacct's message if a site keeps no accounting."""
GRACE_SECONDS = 60.0
"""How long after its submission a job may be unknown to the accounting."""


class Standing(Enum):
    """The standing of a run, by its own records and SLURM's."""

    new = "new"
    queued = "queued"
    running = "running"
    finished = "finished"
    failed = "failed"


UNDER_WAY = (Standing.queued, Standing.running)
"""Standings of runs that SLURM has."""


@dataclass(frozen=True)
class Report:
    """The standing of a run, with details.

    Args:
        standing: its standing.
        reason: why it failed.
        note: in which point its own records and SLURM's disagree.
        job: id of its job in SLURM.
        submission: its last submission.
        step: finished optimizer steps.
    """

    standing: Standing
    reason: str = ""
    note: str = ""
    job: str | None = None
    submission: Submission | None = None
    step: int = 0


def need(*programs: str) -> None:
    """Check that SLURM's programs are available.

    Raises:
        UserError: naming the missing one.
    """
    for program in programs:
        if shutil.which(program) is None:
            raise UserError(
                f"hydra/launcher=slurm: {program} is not found on this machine; start from a login node of the "
                "cluster, or give hydra/launcher=local"
            )


def call(*words: str) -> str:
    """Output of one of SLURM's programs.

    Raises:
        UserError: with its own message, if it fails or does not answer.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=CALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"{words[0]} did not answer within {CALL_SECONDS:g} s; try again later") from None
    if done.returncode:
        raise UserError(f"{words[0]}: {own_words(done.stderr) or f'exit code {done.returncode}'}")
    return done.stdout


def own_words(stderr: str) -> str:
    """The error message of one of SLURM's programs, in one line."""
    found = re.findall(r"^\w+: (?:error|fatal): (.+)$", stderr, re.MULTILINE)
    return "; ".join(found) or re.sub(r"^\w+: ", "", " ".join(stderr.split()))


def max_array_size() -> int:
    """The most jobs of one array on this site."""
    for line in call("scontrol", "show", "config").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize":
            return max(int(value), 1)
    return 1


def words_of(job_ids: Iterable[str]) -> dict[str, str]:
    """SLURM's word for the state of every job of these arrays, by one call to sacct: {"12_3": "RUNNING"}.

    If a site keeps no accounting, the words come from the queue, which forgets a job some minutes after its end; after that,
    only the runs' own records remain.
    """
    ids = sorted(set(job_ids))
    if not ids:
        return {}
    from shapelaw.sweep.submitit_internals import states_of

    text = _sacct("-o", "JobID,State", "-j", ",".join(ids))
    if text is None:
        return _words_of_queue(set(ids))
    return states_of(text)


def _sacct(*words: str) -> str | None:
    """The accounting's output about jobs; None, with a message, if there is no accounting."""
    try:
        return call("sacct", "-X", "-P", *words)
    except FileNotFoundError:
        _tell_no_accounting("there is no sacct")
    except UserError as error:
        if NO_ACCOUNTING not in str(error):
            raise
        _tell_no_accounting(NO_ACCOUNTING)
    return None


@cache
def _tell_no_accounting(why: str) -> None:
    """Report missing accounting, once per launcher."""
    console = terminal(stderr=True)
    console.print(f"no accounting here ({why}): states are from squeue and the runs' own records")


def _words_of_queue(arrays: set[str]) -> dict[str, str]:
    """The same from squeue, by one call for all of the user's jobs, because it refuses requests for jobs that it forgot."""
    lines = call("squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", "%i|%T").splitlines()
    words = dict(line.strip().split("|", 1) for line in lines if "|" in line)
    return {job: word for job, word in words.items() if job.split("_")[0] in arrays}


def find_array(name: str) -> str | None:
    """Id of the array with a name, which a launcher could not record; None if the array never reached SLURM."""
    known = call("squeue", "-h", "-t", "all", "-n", name, "-o", "%F").split()
    if not known:
        lines = (_sacct("-n", "-S", "now-30days", "--name", name, "-o", "JobID") or "").split()
        known = [line.split("_")[0] for line in lines]
    return known[0] if known else None


def survey(jobs: Sequence[Job]) -> dict[str, Report]:
    """The standing of every job, with one call to sacct."""
    submitted = {job.identity: records.submission_of(job.folder) for job in jobs}
    batches = {record.batch for record in submitted.values() if record}
    arrays = {batch: _array_of(Path(batch)) for batch in batches}
    words = words_of(array for array in arrays.values() if array)
    return {job.identity: _report(job, submitted[job.identity], arrays, words) for job in jobs}


def _array_of(batch: Path) -> str | None:
    """Id of a batch's array; if the launcher was killed before it recorded the id, SLURM is asked."""
    noted = records.job_id_of(batch)
    if noted or not batch.exists():
        return noted
    found = find_array(batch.name)
    if found:
        records.write_job_id(batch, found)
    return found


def _report(job: Job, record: Submission | None, arrays: Mapping[str, str | None], words: Mapping[str, str]) -> Report:
    state = read_state(job.folder)
    array = arrays[record.batch] if record else None
    if record is None or array is None:
        return Report(_own_standing(state), _reason(state), submission=record, step=state.step)
    name = f"{array}_{record.task}"
    word = words.get(name)
    if word is None and _is_fresh(Path(record.batch)):
        word = "PENDING"
    standing, reason, note = judge(state, word)
    return Report(standing, reason, note, name, record, state.step)


def _is_fresh(batch: Path) -> bool:
    return time.time() - (batch / "job_id").stat().st_mtime < GRACE_SECONDS


def _own_standing(state: State) -> Standing:
    match state.status:
        case Status.new | Status.interrupted | Status.pruned:
            return Standing.new
        case other:
            return Standing[other.value]


def _reason(state: State) -> str:
    return state.reason if state.status is Status.failed else ""


def judge(state: State, word: str | None) -> tuple[Standing, str, str]:
    """Standing, reason and disagreement, from the run's own state and SLURM's word for its job.

    If the run says that it finished, that counts, because its result is on disk; otherwise SLURM's word counts.
    """
    own = state.status
    if own is Status.finished:
        odd = word is not None and word not in ACTIVE | {"COMPLETED"}
        return Standing.finished, "", f"SLURM says {word}, but its records say finished" if odd else ""
    if word is None:
        return _own_standing(state), _reason(state), ""
    if word in WAITING:
        return Standing.queued, "", ""
    if word in ACTIVE:
        return Standing.running, "", ""
    if word == "COMPLETED":
        note = f"SLURM says COMPLETED, but its records say {own.value} after step {state.step}"
        return Standing.failed, note, note
    own_words = state.reason or (
        "it never started" if own is Status.new else f"it was {own.value} after step {state.step}"
    )
    return Standing.failed, f"{own_words} (SLURM: {word})", ""
