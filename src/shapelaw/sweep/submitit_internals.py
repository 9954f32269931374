"""The private parts of submitit that arrays with chosen numbers need; no other module imports submitit.

submitit's public `map_array` always numbers jobs from 0 and runs pickled functions. An array here has chosen numbers, since its
jobs follow those of another, and runs a command. pyproject.toml keeps submitit below its next minor version, and
tests/sweep/test_internals.py fails when these parts change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import SlurmInfoWatcher


class Refused(Exception):
    """sbatch refused an array; the message is its output."""


def script_of(folder: Path, command: str, options: Mapping[str, Any], jobs: int) -> str:
    """The script that `submit` passes to sbatch.

    Args:
        folder: folder for the script and the jobs' output.
        command: command that every job runs under srun.
        options: options of sbatch, with submitit's names.
        jobs: number of jobs in the array.
    """
    return str(_executor(folder, options, jobs)._make_submission_file_text(command, ""))


def submit(folder: Path, command: str, options: Mapping[str, Any], jobs: int) -> str:
    """Submit an array by sbatch; returns its id. Arguments as for `script_of`.

    Raises:
        Refused: with sbatch's output.
    """
    try:
        return str(_executor(folder, options, jobs)._submit_command(command).job_id)
    except FailedJobError as error:
        raise Refused(str(error)) from error


def states_of(sacct_output: str) -> dict[str, str]:
    """SLURM's state of every job, {"12_3": "RUNNING"}, from the output of `sacct -P -o JobID,State`."""
    jobs = SlurmInfoWatcher(delay_s=0).read_info(sacct_output)
    return {job: (columns["State"].split() or ["UNKNOWN"])[0] for job, columns in jobs.items()}


def _executor(folder: Path, options: Mapping[str, Any], jobs: int) -> SlurmExecutor:
    executor = SlurmExecutor(folder.absolute())
    executor._internal_update_parameters(**options)
    executor.parameters["map_count"] = jobs  # names the jobs' output by array and number
    return executor
