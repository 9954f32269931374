"""Records on disk of the submitted jobs, so that a launcher can be killed at any time and another can take over.

outputs/slurm/lock              held while a launcher looks and submits
outputs/slurm/BATCH/            one array of jobs; readable by its owner only
    tasks.json                  task number -> identities of its runs
    runs/IDENTITY.pkl           what each run does
    job_id                      the array's id, written as soon as sbatch has printed it, with its SHA-256 beside it
outputs/runs/.../job.json       per run: its batch, task number, and number of submissions

job.json is written before sbatch is called. A launcher killed in between leaves a batch without job_id; the next one asks
SLURM for it by the batch's name. Everything is sealed: a changed file is refused, and a changed job_id is looked up again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import pickle
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import DictConfig

from shapelaw.errors import Damaged, UserError
from shapelaw.files import as_record, read_sealed, write_sealed, write_text
from shapelaw.sweep.task import Job, Task

LOCK_SECONDS = 600.0
NAME = re.compile(r"[\w.-]+")
"""An identity, which names a file."""
JOB_ID = re.compile(rb"\d+")
"""The id of an array."""
DIGITS = 64
"""Digits of the SHA-256 before a pickle."""
PRIVATE = 0o700
"""Mode of a batch's folders."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submission:
    """The last submission of a run.

    Args:
        batch: folder of the array.
        task: the run's number in it.
        attempt: number of submissions of the run.
    """

    batch: str
    task: int
    attempt: int


@dataclass(frozen=True)
class Work:
    """The input of a run's process: the work, its configuration, its folder."""

    task: Task
    config: DictConfig
    folder: Path


def submission_of(folder: Path) -> Submission | None:
    """The last submission of the run in a folder, if any.

    Raises:
        UserError: if the record of it is damaged.
    """
    path = folder / "job.json"
    return as_record(Submission, read_sealed(path), path) if path.exists() else None


def new_batch(root: Path, label: str) -> Path:
    """A new folder for an array of jobs; its name is the array's name in SLURM."""
    root.mkdir(parents=True, exist_ok=True)
    batch = root / f"{label}-{uuid.uuid4().hex[:10]}"
    for folder in (batch, batch / "runs"):
        folder.mkdir(mode=PRIVATE)
        folder.chmod(PRIVATE)  # the umask may remove bits, and a parent folder may add its setgid bit
    return batch


def fill_batch(batch: Path, tasks: Mapping[int, Sequence[Job]], work_of: Callable[[Job], Work]) -> None:
    """Write the work of an array's jobs, then the submission into every run's folder."""
    for runs in tasks.values():
        for job in runs:
            pickled = pickle.dumps(work_of(job))
            (batch / "runs" / f"{job.identity}.pkl").write_bytes(_sha256(pickled).encode() + pickled)
    write_sealed(batch / "tasks.json", {str(number): [job.identity for job in tasks[number]] for number in tasks})
    for number, runs in tasks.items():
        for job in runs:
            before = submission_of(job.folder)
            job.folder.mkdir(parents=True, exist_ok=True)
            record = Submission(str(batch.absolute()), number, before.attempt + 1 if before else 1)
            write_sealed(job.folder / "job.json", asdict(record))


def withdraw(tasks: Mapping[int, Sequence[Job]]) -> None:
    """Undo the record that these runs were submitted, because sbatch refused them."""
    for job in (job for runs in tasks.values() for job in runs):
        record = submission_of(job.folder)
        if record:
            write_sealed(job.folder / "job.json", asdict(Submission(record.batch, record.task, record.attempt - 1)))


def read_work(batch: Path, identity: str) -> Work:
    """The work of a run.

    Raises:
        UserError: if other users could have written it.
        Damaged: if it was changed after it was written.
    """
    _check_private(batch)
    work = pickle.loads(_pickled(batch / "runs" / f"{identity}.pkl"))
    assert isinstance(work, Work)
    return work


def _pickled(path: Path) -> bytes:
    """A pickle without its digest, after verification."""
    content = path.read_bytes()
    if content[:DIGITS] != _sha256(content[DIGITS:]).encode():
        raise Damaged(f"{path} was changed after it was written; cancel this job and run the sweep's command again")
    return content[DIGITS:]


def _check_private(batch: Path) -> None:
    """Refuse a batch that other users may write to, because loading a pickle runs its code."""
    for folder in (batch, batch / "runs"):
        found = folder.lstat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != PRIVATE or not stat.S_ISDIR(found.st_mode):
            raise UserError(
                f"{folder}: jobs are only read from a folder of your own with mode {PRIVATE:04o}; this one belongs to "
                f"user {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o}; remove it and run the sweep's command again"
            )


def identities_of(batch: Path, task: int) -> list[str]:
    """Runs of one job of an array.

    Raises:
        Damaged: if the file names no runs for it.
    """
    path = batch / "tasks.json"
    content = read_sealed(path)
    found = content.get(str(task)) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, str) and NAME.fullmatch(one) for one in found):
        raise Damaged(f"{path} has no runs for task {task}; cancel this job and run the sweep's command again")
    return found


def write_job_id(batch: Path, job_id: str) -> None:
    """Record the id from sbatch."""
    write_text(batch / "job_id.sha256", _sha256(job_id.encode()))
    write_text(batch / "job_id", job_id)


def job_id_of(batch: Path) -> str | None:
    """The id from sbatch, if it was recorded and is unchanged; otherwise SLURM is asked for it by name."""
    path, seal = batch / "job_id", batch / "job_id.sha256"
    if not path.exists():
        return None
    found = path.read_bytes()
    changed = seal.exists() and seal.read_bytes() != _sha256(found).encode()
    if changed or not JOB_ID.fullmatch(found):
        log.warning("%s was changed after it was written; SLURM is asked for the array by its name", path)
        return None
    return found.decode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def launcher_lock(root: Path) -> Iterator[None]:
    """A lock for one launcher at a time while it looks and submits; a second launcher waits.

    Raises:
        UserError: if the other takes too long.
    """
    root.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_SECONDS
    with (root / "lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UserError(
                        f"another launcher has locked {root / 'lock'} for {LOCK_SECONDS:g} s; wait for it or stop it, then run "
                        "the same command again"
                    ) from None
                time.sleep(0.2)
        yield
