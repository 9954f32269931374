"""Slow things overlap: runs that are cut by their time limit, preempted, or lose their node are started, and disturbed,
before the first test, and looked at by the last ones (test_surviving.py)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from slurm_bench import (
    CONTESTED,
    DOOMED,
    EVERY,
    LIMIT,
    LONG,
    OF_LAUNCHERS,
    RUN,
    SANDBOX,
    UP,
    Bench,
    Disturbed,
    Hurry,
    await_,
    bench_in,
    scheduler_is_needed,
    slurm,
)

from prepared import Prepared
from shapelaw.planned_run import checkpoint_steps


@pytest.fixture(scope="session")
def launchers() -> Iterator[Prepared]:
    """What launchers are forked from."""
    made = Prepared({**os.environ, **OF_LAUNCHERS})
    yield made
    made.end()


@pytest.fixture
def bench(tmp_path: Path, corpora: Path, launchers: Prepared) -> Iterator[Bench]:
    """A fresh folder of outputs; what is left of its jobs is cancelled."""
    bench = bench_in(tmp_path, corpora, launchers)
    yield bench
    bench.cancel()


@pytest.fixture(scope="session", autouse=True)
def disturbed(tmp_path_factory: pytest.TempPathFactory, corpora: Path, launchers: Prepared) -> Iterator[Disturbed]:
    """Start the three runs, wait for their steps, and disturb two; the clock does it to the third."""
    scheduler_is_needed()
    hurry = Hurry()
    hurry.start()
    limited = bench_in(tmp_path_factory.mktemp("limited"), corpora, launchers, slow_until=3)
    preempted = bench_in(tmp_path_factory.mktemp("preempted"), corpora, launchers, slow_until=1, exclude="c1,c2,c3")
    lost = bench_in(tmp_path_factory.mktemp("lost"), corpora, launchers, slow_until=1, exclude=f"c1,{CONTESTED}")
    benches = {limited: LIMIT, preempted: ("resources.cpus_per_task=4",), lost: ()}
    try:
        launchers = [bench.start(*RUN, *overrides) for bench, overrides in benches.items()]
        codes = [launcher.wait(timeout=LONG) for launcher in launchers]
        assert codes == [0, 0, 0], [bench.said.read_text() for bench in benches]
        await_(lost.steps(2 * EVERY + 1), what=lambda: lost.states)
        lost_steps = kill_node(lost)
        await_(preempted.steps(EVERY), what=lambda: preempted.states)
        slurm("sbatch", "-p", "urgent", "-w", CONTESTED, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 3")
        yield Disturbed(limited, preempted, lost, lost_steps)
    finally:
        for bench in benches:
            bench.cancel()
        hurry.ended.set()
        subprocess.run(UP, check=True, timeout=180, capture_output=True)


def kill_node(bench: Bench) -> int:
    """Kill the daemon of the node on which the one job of a bench runs, then what the job runs; the steps it lost."""
    (array,), (folder,) = bench.arrays(), bench.folders.values()
    assert slurm("squeue", "-h", "-j", array, "-o", "%N").strip() == DOOMED
    os.kill(int((SANDBOX / "run" / f"slurmd-{DOOMED}.pid").read_text()), signal.SIGKILL)
    for pattern in (f"slurmstepd: \\[{array}\\.", str(bench.outputs / "slurm")):
        found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False)
        for pid in map(int, found.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return bench.only.step - checkpoint_steps(folder)[-1]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, corpora: Path, launchers: Prepared) -> pd.Series[float]:
    """Held-out losses by tokens of the same run on this machine, never stopped."""
    bench = bench_in(tmp_path_factory.mktemp("undisturbed"), corpora, launchers)
    bench.run_here(*RUN)
    return bench.table().set_index("tokens").loss
