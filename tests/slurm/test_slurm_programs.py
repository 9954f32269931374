"""A sweep of a program on a real scheduler: submitted, branched, stopped with all of its processes, and continued."""

from __future__ import annotations

from slurm_bench import ON_SANDBOX, Bench, await_, of_program, slurm

from shapelaw.run_state import Status

pytestmark = ON_SANDBOX


def test_programs_and_their_branches(bench: Bench) -> None:
    sweep = (*of_program(0), "shape=16x1,32x1", "cooldown=none,linear10", "cooldown.from_tokens=2560")
    done = bench.run(*sweep, "hydra.launcher.wait=true")
    assert done.returncode == 0, done.stderr
    assert bench.statuses() == [Status.finished] * 4
    assert sorted(state.tokens for state in bench.states.values()) == [2560, 2560, 2688, 2688]
    assert sorted(bench.table().groupby("run").size()) == [1, 1, 20, 20]
    again = bench.run(*sweep)
    assert "4 finished; 0 submitted now" in again.stderr


def test_the_signal_of_a_time_limit_stops_the_program_and_the_job_is_requeued(bench: Bench) -> None:
    """SLURM sends it to the program, too, which does not heed it, and ends by the SIGTERM that follows."""
    started = bench.run(*of_program(1), "shape=16x1")
    assert started.returncode == 0, started.stderr
    await_(bench.steps(3), what=lambda: bench.states)
    ((name, state),) = bench.states.items()
    slurm("scancel", "--signal=USR2", bench.job_of(name))
    await_(lambda: bench.only.status is Status.interrupted, what=lambda: bench.states)
    assert bench.only.reason.startswith("stopped by SIGUSR2 after ")
    await_(bench.finished(1), what=lambda: bench.states)
    assert bench.only.attempts == state.attempts + 1
    assert bench.table().tokens.tolist() == list(range(128, 2561, 128))


def test_more_processes_than_one_are_refused(bench: Bench) -> None:
    done = bench.run(*of_program(0), "shape=16x1", "resources.tasks_per_node=2")
    assert done.returncode == 2
    assert "takes one process, but would get 2" in done.stderr
