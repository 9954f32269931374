"""What was submitted, on disk, so that a launcher can be killed at any time and another takes up where it was.

outputs/slurm/lock              held while a launcher looks and submits
outputs/slurm/BATCH/            one array of jobs; readable by its owner only
    tasks.json                  task number -> identities of its runs
    runs/IDENTITY.pkl           what each run does
    job_id                      the array's id, written as soon as sbatch has said it, with its SHA-256 beside it
outputs/runs/.../job.json       of a run: its batch, task number, and how often it was submitted

job.json is written before sbatch is called: a launcher killed in between leaves a batch without job_id, which is then
asked for by its name. Everything is sealed: a file that was changed is refused, and a job_id that was is asked for again.
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
"""Of an array."""
DIGITS = 64
"""Of the SHA-256 before a pickle."""
PRIVATE = 0o700
"""Mode of a batch's folders."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submission:
    """Where a run was last submitted.

    Args:
        batch: folder of the array.
        task: its number in it.
        attempt: how often the run was submitted.
    """

    batch: str
    task: int
    attempt: int


@dataclass(frozen=True)
class Work:
    """What a run's process is given: the work, its configuration, its folder."""

    task: Task
    config: DictConfig
    folder: Path


def submission_of(folder: Path) -> Submission | None:
    """Where the run of a folder was last submitted, if it was.

    Raises:
        UserError: if the file that says it is damaged.
    """
    path = folder / "job.json"
    return as_record(Submission, read_sealed(path), path) if path.exists() else None


def new_batch(root: Path, label: str) -> Path:
    """A fresh folder for an array of jobs; its name is the array's name in SLURM."""
    root.mkdir(parents=True, exist_ok=True)
    batch = root / f"{label}-{uuid.uuid4().hex[:10]}"
    for folder in (batch, batch / "runs"):
        folder.mkdir(mode=PRIVATE)
        folder.chmod(PRIVATE)  # as the umask may take away, and a folder may hand its group's bit down
    return batch


def fill_batch(batch: Path, tasks: Mapping[int, Sequence[Job]], work_of: Callable[[Job], Work]) -> None:
    """Write what the jobs of an array run, then in every run's folder that it was submitted."""
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
    """Take back that these runs were submitted: sbatch refused them."""
    for job in (job for runs in tasks.values() for job in runs):
        record = submission_of(job.folder)
        if record:
            write_sealed(job.folder / "job.json", asdict(Submission(record.batch, record.task, record.attempt - 1)))


def read_work(batch: Path, identity: str) -> Work:
    """The work of a run.

    Raises:
        UserError: if others could have put it there.
        Damaged: if it is not what was written.
    """
    _check_private(batch)
    work = pickle.loads(_pickled(batch / "runs" / f"{identity}.pkl"))
    assert isinstance(work, Work)
    return work


def _pickled(path: Path) -> bytes:
    """A pickle without its digest, once that is the right one."""
    content = path.read_bytes()
    if content[:DIGITS] != _sha256(content[DIGITS:]).encode():
        raise Damaged(f"{path} was changed after it was written; cancel this job and run the sweep's command again")
    return content[DIGITS:]


def _check_private(batch: Path) -> None:
    """Refuse a batch that others may write to: a pickle runs whatever was put into it."""
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
        Damaged: if the file names none for it.
    """
    path = batch / "tasks.json"
    content = read_sealed(path)
    found = content.get(str(task)) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, str) and NAME.fullmatch(one) for one in found):
        raise Damaged(f"{path} has no runs for task {task}; cancel this job and run the sweep's command again")
    return found


def write_job_id(batch: Path, job_id: str) -> None:
    """Remember the id that sbatch gave."""
    write_text(batch / "job_id.sha256", _sha256(job_id.encode()))
    write_text(batch / "job_id", job_id)


def job_id_of(batch: Path) -> str | None:
    """The id that sbatch gave, if it came to that and is still what was written; else SLURM is asked for it by name."""
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
    """Held by one launcher at a time while it looks and submits; a second waits for it.

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
