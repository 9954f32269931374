"""One run, disturbed in three ways on a real scheduler while the other tests ran (conftest.py): what each leaves equals what
the same run leaves that was never stopped, bit for bit."""

from __future__ import annotations

import pandas as pd
from slurm_bench import CONTESTED, DOOMED, EVERY, LONG, ON_SANDBOX, Bench, Disturbed, await_

from shapelaw.run_state import Status

pytestmark = ON_SANDBOX


def log_of(bench: Bench) -> str:
    (folder,) = bench.folders.values()
    return (folder / "log.txt").read_text()


def test_a_lost_node_costs_at_most_one_interval(disturbed: Disturbed, undisturbed: pd.Series[float]) -> None:
    """SLURM notices, the job starts on another node from its newest checkpoint."""
    bench = disturbed.lost
    await_(bench.finished(1), LONG, what=lambda: bench.states)
    assert disturbed.lost_steps <= EVERY
    assert bench.only.attempts == 2
    assert "stopped by" not in log_of(bench), "it had no signal"
    nodes = bench.accounted(bench.arrays()[0], "NodeList")
    assert nodes[0] == DOOMED
    assert nodes[-1] != DOOMED
    pd.testing.assert_series_equal(bench.table().set_index("tokens").loss, undisturbed, check_exact=True)


def test_a_preempted_run_continues(disturbed: Disturbed, undisturbed: pd.Series[float]) -> None:
    """A job of a higher partition takes the node: checkpoint, requeue, continue."""
    bench = disturbed.preempted
    await_(bench.finished(1), LONG, what=lambda: bench.states)
    assert bench.only.attempts == 2
    assert log_of(bench).count("stopped by SIGUSR2 after step") == 1
    assert set(bench.accounted(bench.arrays()[0], "NodeList")) == {CONTESTED}
    pd.testing.assert_series_equal(bench.table().set_index("tokens").loss, undisturbed, check_exact=True)


def test_time_limits_chain_until_the_tokens_are_done(disturbed: Disturbed, undisturbed: pd.Series[float]) -> None:
    """At least three requeues by a real limit of one minute; on a busy machine a job may end before its run has begun, and
    is no attempt then."""
    bench = disturbed.limited
    await_(bench.finished(1), 2 * LONG, what=lambda: bench.states)
    starts = len(bench.accounted(bench.arrays()[0], "JobID"))
    assert starts >= 4
    assert 2 <= bench.only.attempts <= starts
    assert log_of(bench).count("stopped by SIGUSR2 after step") == bench.only.attempts - 1
    assert bench.statuses() == [Status.finished]
    pd.testing.assert_series_equal(bench.table().set_index("tokens").loss, undisturbed, check_exact=True)
