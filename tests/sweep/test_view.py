"""What is seen of a sweep: lines, the time left, and the summary at its end."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from shapelaw.run_state import State, Status, write_state
from shapelaw.sweep import view as views
from shapelaw.sweep.pace import Pace
from shapelaw.sweep.task import Job
from shapelaw.sweep.view import View
from shapelaw.training.progress import Losses
from shapelaw.verbs import train_summary
from shapelaw.wording import SILENT_SECONDS


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def job(name: str, flops: float, folder: Path = Path("/nowhere"), after: str | None = None) -> Job:
    return Job(name, name, folder / name, flops=flops, after=after)


def test_the_time_left_goes_by_flops() -> None:
    """A run of 1e12 FLOPs took 10 s, and half of one of 8e12 is done after 50: 4e12 are left at 1e11 a second."""
    clock = Clock()
    small, large = job("small", 1e12), job("large", 8e12)
    pace = Pace([(small, State()), (large, State())], now=clock)
    assert pace.seconds_left is None
    pace.moved(small, State(step=50, steps=100))
    clock.seconds += 10
    assert pace.seconds_left == pytest.approx(10 * 8.5 / 0.5)
    pace.ended(small, well=True)
    pace.moved(large, State(step=0, steps=300))
    clock.seconds += 40
    pace.moved(large, State(step=150, steps=300))
    assert pace.seconds_left == pytest.approx(50 * 4 / 5)
    pace.ended(large, well=True)
    assert (pace.seconds_left, pace.done) == (0.0, 9e12)


def test_what_was_done_before_is_not_taken_for_speed() -> None:
    """A run that goes on at three quarters has a quarter to do, and a cooldown its own FLOPs from its first step on."""
    clock = Clock()
    resumed, cooldown = job("resumed", 8.0), job("cooldown", 1.0, after="resumed")
    pace = Pace([(resumed, State(step=75, steps=100)), (cooldown, State())], now=clock)
    assert pace.total == pytest.approx(3.0)
    clock.seconds += 6
    pace.moved(cooldown, State(step=100, steps=110))
    assert pace.seconds_left is None
    pace.moved(cooldown, State(step=105, steps=110))
    pace.moved(resumed, State(step=80, steps=100))
    assert pace.done == pytest.approx(0.5 + 0.4)
    assert pace.seconds_left == pytest.approx(6 * 2.1 / 0.9)


def test_the_first_step_after_a_long_start_tells_no_time_left() -> None:
    """30 s of starting and one step of 1,000 would be 8 hours; of a run of many days, they count for little."""
    clock, run, long = Clock(), job("run", 1e12), job("long", 1e12)
    pace = Pace([(run, State())], now=clock)
    clock.seconds += 30
    pace.moved(run, State(step=1, steps=1000))
    assert pace.seconds_left is None
    clock.seconds += 30
    pace.moved(run, State(step=500, steps=1000))
    assert pace.seconds_left == pytest.approx(60.0)
    pace = Pace([(long, State())], now=clock)
    clock.seconds += 1200
    pace.moved(long, State(step=100, steps=100_000))
    assert pace.seconds_left == pytest.approx(1200 * 999)


def test_a_failed_job_leaves_nothing_to_do_and_unknown_ones_count_as_the_mean() -> None:
    clock = Clock()
    first, second = job("first", 2.0), job("second", 4.0)
    pace = Pace([(first, State())], to_come=2, now=clock)
    assert pace.total == 6.0
    pace.add(second, State())
    assert pace.total == 9.0
    pace.moved(second, State(step=1, steps=4))
    clock.seconds += 5
    pace.ended(second, well=False)
    assert (pace.done, pace.total) == (1.0, 3.0 + 1.5)
    assert pace.seconds_left == pytest.approx(5 * 3.5 / 1.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    return clock


RUNNING = State(Status.running, 120, 400, 245_760, 3.1234, None, 210_000.0)


def test_without_a_terminal_there_is_a_line_for_every_end_and_every_half_minute(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(views, "read_state", lambda folder: states[folder.name])
    jobs = [job(f"{width}x1 [a]", 1e12, tmp_path) for width in (16, 32, 48, 64, 80)]
    states = {each.label: State() for each in jobs}
    view = View("run", jobs)
    view.pace.now, view.pace.begun = clock, clock.seconds
    with view:
        for each in jobs:
            view.started(each)
        clock.seconds += SILENT_SECONDS - 1
        view.refresh()
        states = dict.fromkeys(states, RUNNING)
        clock.seconds += 1
        view.refresh()
        clock.seconds += 5
        states[jobs[0].label] = replace(RUNNING, status=Status.finished, val_loss=2.5)
        view.ended(jobs[0], "")
        view.refresh()
        view.ended(jobs[1], "out of [memory]")
    said = capsys.readouterr().err.splitlines()
    doing = "1x1 [a] step 120/400 loss 3.123 210,000 tok/s"
    assert said == [
        "5 runs to do",
        f"[0/5] 30% of the work, 1:10 left: {'; '.join(doing.replace('1x', f'{w}x', 1) for w in (16, 32, 48))}; 2 more",
        "[1/5] 16x1 [a] loss 2.5000, 210,000 tok/s, 0:35",
        "failed 32x1 [a]: out of [memory]",
    ]


def test_on_a_terminal_every_end_has_its_line_too(tmp_path: Path) -> None:
    each = job("16x1", 1e12, tmp_path)
    each.folder.mkdir()
    view = View("run", [each, replace(job("32x1", 1e12, tmp_path), done=True)])
    view.console = Console(force_terminal=True, width=120, record=True, file=io.StringIO())
    view.progress = views._bars(view.console)
    view.live = views.Live(view.progress, console=view.console, refresh_per_second=1)
    with view:
        view.started(each)
        write_state(each.folder, replace(RUNNING, status=Status.interrupted))
        view.refresh()
        write_state(each.folder, replace(RUNNING, status=Status.finished, val_loss=2.5))
        view.ended(each, "")
    text = view.console.export_text()
    assert "1 run to do; 1 already finished, skipped" in text
    assert "[1/1] 16x1 loss 2.5000, 210,000 tok/s, 0:" in text
    assert "all runs" in text


def test_a_task_words_its_outcomes_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Fits:
        def told(self, job: Job) -> str:
            return f"N ~ C^0.44, E 0.77, in {job.folder}"

    each = job("interaction", 0.0, tmp_path)
    with View("fit", [each], task=Fits()) as view:
        view.ended(each, "")
    assert (
        capsys.readouterr().err.splitlines()[-1] == f"[1/1] interaction N ~ C^0.44, E 0.77, in {tmp_path}/interaction"
    )


def test_a_run_shows_its_losses(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    losses = Losses(Console(stderr=True, soft_wrap=True))
    first = replace(RUNNING, val_loss=2.25)
    for state in (RUNNING, first, replace(first, step=121), replace(first, step=240, val_loss=2.0)):
        losses.show(state)
    clock.seconds += SILENT_SECONDS + 1
    losses.show(replace(first, step=250, val_loss=2.0))
    assert capsys.readouterr().err.splitlines() == [
        "step 120/400, 245,760 tokens: loss 3.123, held out 2.2500, 210,000 tok/s",
        "step 240/400, 245,760 tokens: loss 3.123, held out 2.0000, 210,000 tok/s",
        "step 250/400, 245,760 tokens: loss 3.123, held out 2.0000, 210,000 tok/s",
    ]


def test_a_sweep_s_end_says_what_was_trained_where_it_lies_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [job(f"{width}x1", 1e12, tmp_path / "runs") for width in (16, 32, 48)]
    for each, loss in zip(jobs, (2.5, 2.25, 2.0), strict=True):
        each.folder.mkdir(parents=True)
        write_state(each.folder, replace(RUNNING, status=Status.finished, val_loss=loss))
    monkeypatch.setenv("SHAPELAW_SUITE", "nano")
    said = train_summary.of_sweep([*jobs, jobs[0]], ["48x1"], tracked=True)
    where, following = f"in {tmp_path / 'runs'}", "; next: {}shapelaw fit; to compare runs: shapelaw ui"
    assert said == f"2 runs finished: loss 2.2500 (32x1) to 2.5000 (16x1); {where}{following.format('')}"
    monkeypatch.setenv("SHAPELAW_SUITE", "/my suites/books")
    in_books = following.format("SHAPELAW_SUITE='/my suites/books' ")
    assert train_summary.of_sweep(jobs[:1], [], tracked=True) == (
        f"1 run finished: loss 2.5000 (16x1); {where}{in_books}"
    )
    assert train_summary.of_sweep(jobs[:1], [], tracked=False).endswith(where)
    assert train_summary.of_sweep(jobs, [each.identity for each in jobs], tracked=True) == ""
    view = "/#/experiments/7/runs?viewStateShareKey=shapelaw&compareRunsMode=CHART"
    for uri, experiment, compared in (
        ("sqlite:///outputs/mlflow.db", "7", f"shapelaw ui, then http://127.0.0.1:5000{view}"),
        ("sqlite:///outputs/mlflow.db", "", "shapelaw ui"),
        ("https://runs.example.org/", "7", f"https://runs.example.org{view}"),
    ):
        said = train_summary.of_sweep(jobs, [], tracked=True, compared=train_summary.compared(uri, experiment))
        assert said.endswith(f"shapelaw fit; to compare runs: {compared}")
    assert train_summary.of_run(jobs[0], 65.0, tracked=False) == (
        f"16x1: loss 2.5000, 245,760 tokens in 1:05; in {jobs[0].folder}"
    )
