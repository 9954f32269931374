"""One run that a program trains: recorded as our own, continued, and refused where the program does not do its work."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from programs import PROGRAM, TEMPLATE, Prepare, option, run

from shapelaw.command.metrics import MetricsFile, ProgramFailed
from shapelaw.config import SearchConfig
from shapelaw.errors import Diverged, Interrupted, UserError
from shapelaw.planned_run import PlannedRun
from shapelaw.run_state import Status, read_state
from shapelaw.tracking.journal import JOURNAL, records
from shapelaw.training.recording import record_error
from support import Script, Start

SLOW = f"{TEMPLATE} pause=0.05"


def starts(planned: PlannedRun) -> list[dict[str, object]]:
    """What the program was told, each time that it was started."""
    return [json.loads(path.read_text()) for path in sorted(planned.folder.glob("started-*.json"))]


def losses(planned: PlannedRun) -> list[tuple[int, float]]:
    """Tokens and held-out losses in the run's journal."""
    metrics = [record for record, _ in records(planned.folder / JOURNAL) if record["kind"] == "metrics"]
    return [(each["tokens"], each["values"]["val/loss"]) for each in metrics if "val/loss" in each["values"]]


def test_a_program_is_followed_to_its_end(prepared: Prepare) -> None:
    config, planned = prepared()
    loss = run(config, planned)
    state = read_state(planned.folder)
    assert (state.status, state.step, state.tokens, state.attempts) == (Status.finished, 20, 2560, 1)
    assert state.val_loss == loss == pytest.approx(2 + (300 / 16 + 8) / 2560**0.5)
    assert [tokens for tokens, _ in losses(planned)] == list(range(128, 2561, 128))
    log = (planned.folder / "log.txt").read_text().splitlines()
    assert log == [f"start 1: {sys.executable} {PROGRAM} {' '.join(starts(planned)[0]['argv'])}", "trained 2560 tokens"]
    assert run(config, planned) == loss
    assert len(starts(planned)) == 1, "a finished run is left as it is"


def test_what_is_recorded_is_what_the_program_said(prepared: Prepare) -> None:
    _, planned = made = prepared()
    run(*made)
    found = [record for record, _ in records(planned.folder / JOURNAL)]
    (start,) = [record["info"]["params"] for record in found if record["kind"] == "start"]
    assert (start["params"], float(start["flops_per_token"])) == ("16000", 6 * 16000)
    assert start["trainer"] == f"python {PROGRAM}"
    assert not [name for name in start if name.startswith("optim.")], "the program was told nothing of it"
    last = [record for record in found if record["kind"] == "metrics"][-1]
    assert last["values"] == {
        "cost/tokens": 2560,
        "cost/flops": 2560 * 6 * 16000,
        "val/loss": read_state(planned.folder).val_loss,
        "accuracy": 1.0,
    }


FAULTS = {
    "exit": r"the program ended with code 1 \(no such dataset: c4\); its log is .*log\.txt$",
    "silent": r"the program ended without a loss in .*metrics\.jsonl, .*; its log is .*log\.txt$",
    "short": r"the program ended with its last loss at 2,432 tokens, but the run ends at 2,560",
    "nan": r"the run diverged at step 4: the program wrote loss=nan; try a smaller lr_base; .*its log is .*log\.txt$",
    "back": r"says tokens=128 after 384: tokens must not decrease within a start; .*its log is .*log\.txt$",
    "other": r"says width=7, and this run has 16: it is another run's; .*its log is",
    "run": r"says run=abc, and this run has \w{12}: it is another run's",
    "beyond": r"says tokens=2,561, and this run goes from 0 to 2,560",
    "text": r"says loss='low', which is not a number",
    "junk": r"the line \{ is not JSON",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_program_that_does_not_do_its_work_fails_the_run(prepared: Prepare, fault: str) -> None:
    config, planned = prepared(template=f"{TEMPLATE} fault={fault}")
    kind = Diverged if fault == "nan" else ProgramFailed
    with pytest.raises(kind, match=FAULTS[fault]) as told:
        run(config, planned)
    state = read_state(planned.folder)
    assert (state.status, state.reason) == (Status.failed, str(told.value))
    assert "\n" not in str(told.value)
    assert state.diverged_step == (4 if fault == "nan" else None)
    good = 0 if fault in ("exit", "silent", "junk") else 19 if fault == "short" else 3
    assert len(losses(planned)) == good, "what was good is recorded"


def test_a_run_that_failed_is_retried_from_what_was_good(prepared: Prepare) -> None:
    """The wrong lines are set aside; the program starts again in the same folder, and is told so."""
    fault = TEMPLATE + " fault={data.name}"
    config, planned = prepared("data.name=nan", template=fault)
    with pytest.raises(Diverged):
        run(config, planned)
    assert '"loss": NaN' in (planned.folder / "metrics.rejected.jsonl").read_text()
    healed = replace(config, data=replace(config.data, name="none"))
    run(healed, planned)
    assert [start["resume"] for start in starts(planned)] == ["0", "1"]
    state = read_state(planned.folder)
    assert (state.status, state.attempts, state.diverged_step) == (Status.finished, 2, None)
    assert [tokens for tokens, _ in losses(planned)][:3] == [128, 256, 384]
    assert losses(planned)[-1][0] == 2560


def test_a_trial_that_its_search_gives_up_is_stopped_and_goes_on_when_asked_for(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, float]] = []

    class Hopeless:
        def __init__(self, search: SearchConfig) -> None:
            assert search.trial == 3

        def is_hopeless(self, tokens: int, loss: float) -> bool:
            told.append((tokens, loss))
            return tokens >= 384

    monkeypatch.setattr("shapelaw.command.run.Trial", Hopeless)
    config, planned = prepared(template=f"{TEMPLATE} pause=0.1")
    run(replace(config, search=replace(config.search, trial=3)), planned)
    state = read_state(planned.folder)
    assert state.status is Status.pruned
    assert told == losses(planned)
    assert told[-1][0] == state.tokens < 2560
    run(replace(config, trainer=replace(config.trainer, command=TEMPLATE)), planned)
    assert read_state(planned.folder).status is Status.finished
    tags = [record["values"] for record, _ in records(planned.folder / JOURNAL) if record["kind"] == "tags"]
    pruned = [each["shapelaw.pruned"] for each in tags if "shapelaw.pruned" in each]
    assert pruned == [f"after {state.tokens} tokens", ""]


def test_a_program_that_cannot_be_started_is_named(prepared: Prepare) -> None:
    config, planned = prepared(template="./no-such-program {lr}")
    with pytest.raises(ProgramFailed, match=r"trainer\.command: \./no-such-program cannot be started \(.*No such file"):
        run(config, planned)
    assert read_state(planned.folder).status is Status.failed


def test_no_shell_reads_a_value(prepared: Prepare, tmp_path: Path) -> None:
    config, planned = prepared(template=TEMPLATE + " name={suite.folder} 'two words=1 2'")
    evil = f"a b'; touch {tmp_path}/x; echo $(id) `id` \"#"
    run(replace(config, suite=replace(config.suite, folder=evil)), planned)
    assert starts(planned)[0]["argv"][-2:] == [f"name={evil}", "two words=1 2"]
    assert not (tmp_path / "x").exists()


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def await_(condition: object, seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    assert callable(condition)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def written(planned: PlannedRun, lines: int) -> bool:
    """Whether the program has written so many lines."""
    path = planned.folder / "metrics.jsonl"
    return path.exists() and path.read_bytes().count(b"\n") >= lines


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signal handlers of this process stay as they are."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    yield
    assert before == {number: signal.getsignal(number) for number in before}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_stops_all_of_the_program_and_the_run_goes_on_later(
    prepared: Prepare, handlers: None, number: int
) -> None:
    config, planned = prepared(template=f"{SLOW} fault=child")

    def send() -> None:
        await_(lambda: written(planned, 3))
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(Interrupted, match=rf"stopped by {signal.Signals(number).name} after \d+ tokens"):
        run(config, planned)
    sender.join()
    assert not alive(int((planned.folder / "child.txt").read_text()))
    state = read_state(planned.folder)
    assert state.status is Status.interrupted
    assert 3 * 128 <= state.tokens < 2560
    run(replace(config, trainer=replace(config.trainer, command=TEMPLATE)), planned)
    assert [start["resume"] for start in starts(planned)] == ["0", "1"]
    assert [tokens for tokens, _ in losses(planned)] == list(range(128, 2561, 128))


def test_killed_half_way_its_program_goes_and_the_same_command_continues(
    outputs: Path, start: Start, script: Script
) -> None:
    """Everything of the first process is lost without a word; the second trains what is left."""
    words = ("train.py", "trainer=command", "tracker=none", "shape=16x1", option(SLOW))
    first = start(*words)
    await_(lambda: list(outputs.glob("runs/tiny/*/at-384.txt")))
    (folder,) = (outputs / "runs" / "tiny").iterdir()
    (pid,) = [each for each in children(first.pid) if str(PROGRAM) in command_line(each)]
    first.kill()
    first.wait()
    await_(lambda: not alive(pid), 10.0)
    state = read_state(folder)
    assert (state.status, state.attempts) == (Status.interrupted, 1)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"tokens": 5')  # half a line, as a killed program leaves it
    second = script(*words)
    assert second.returncode == 0, second.stderr
    state = read_state(folder)
    assert (state.status, state.attempts, state.tokens) == (Status.finished, 2, 2560)
    metrics = [record for record, _ in records(folder / JOURNAL) if record["kind"] == "metrics"]
    assert [record["tokens"] for record in metrics] == list(range(128, 2561, 128))


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found]


def command_line(pid: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


def test_a_program_that_outlives_its_process_keeps_the_run(prepared: Prepare) -> None:
    """It heeds no signal, and the process that started it is gone: nobody else starts a second one in its folder."""
    deaf = f"{sys.executable} -c 'import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)'"
    config, planned = prepared(template=deaf)
    child = os.fork()
    if not child:
        try:
            run(config, planned)
        finally:
            os._exit(0)
    log = planned.folder / "log.txt"
    await_(lambda: log.exists() and log.read_text().endswith("1\n"))
    (pid,) = children(child)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        with pytest.raises(UserError, match="is being trained by another process"):
            run(config, planned)
    finally:
        os.kill(pid, signal.SIGKILL)
    await_(lambda: read_state(planned.folder).status is Status.interrupted)


def test_a_second_signal_leaves_the_run_to_record_how_it_ended(
    prepared: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a cluster sends one to every process, and another when a node is given back."""
    config, planned = prepared(template=SLOW)
    reached: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: reached.append(number))

    def signalled(*given: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        record_error(*given)

    monkeypatch.setattr("shapelaw.command.run.record_error", signalled)

    def send() -> None:
        await_(lambda: written(planned, 3))
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(Interrupted, match="stopped by SIGTERM"):
            run(config, planned)
    finally:
        sender.join()
        signal.signal(signal.SIGTERM, before)
    assert not reached, "which would have ended the process"
    state = read_state(planned.folder)
    assert (state.status, state.reason[:18]) == (Status.interrupted, "stopped by SIGTERM")


def test_one_that_does_not_heed_sigterm_is_killed_in_time(prepared: Prepare) -> None:
    deaf = f"{sys.executable} -c 'import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)'"
    config, planned = prepared(template=deaf, stop_seconds=0.3)
    log = planned.folder / "log.txt"

    def send() -> None:
        await_(lambda: log.exists() and log.read_text().endswith("1\n"))
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    begun = time.monotonic()
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        run(config, planned)
    sender.join()
    assert time.monotonic() - begun < 15


def test_a_file_that_the_program_writes_anew_is_read_from_its_beginning(prepared: Prepare) -> None:
    """As programs do that open it with "w" each time."""
    code = (
        "import json, pathlib, sys, time; path = pathlib.Path(sys.argv[1]); lines = []\n"
        "for n in range(1, 21):\n"
        "    lines.append(json.dumps({'tokens': 128 * n, 'loss': 3 - n / 50}))\n"
        "    path.write_text('') if n == 10 else None; time.sleep(0.5 if n == 10 else 0.03)\n"
        "    path.write_text(chr(10).join(lines) + chr(10))\n"
    )
    config, planned = prepared(template="{python} -c {suite.folder} {metrics}")
    run(replace(config, suite=replace(config.suite, folder=code)), planned)
    assert losses(planned) == [(128 * n, 3 - n / 50) for n in range(1, 21)]


def test_lines_come_once_whole_and_from_the_beginning_of_a_new_file(tmp_path: Path) -> None:
    """Also of a file that is looked at while it is empty."""
    path = tmp_path / "metrics.jsonl"
    path.write_text("1\n2\nhal")
    file = MetricsFile(path)
    assert path.read_text() == "1\n2\n", "what a killed program was about to write is cut off"
    assert list(file.lines()) == [b"1\n", b"2\n"]
    for content, lines, renewals in (
        ("1\n2\n3", [], 0),
        ("1\n2\n3\n", [b"3\n"], 0),
        ("", [], 1),
        ("", [], 1),
        ("1\n2\n", [b"1\n", b"2\n"], 1),
        ("4\n5\n6\n", [b"4\n", b"5\n", b"6\n"], 2),
    ):
        path.write_text(content)
        assert (list(file.lines()), file.renewals) == (lines, renewals)


def test_metrics_that_were_changed_after_they_were_read_are_refused(
    prepared: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    """Not taken for what the program wrote; lines that are gone are said, and new ones are read."""
    _, planned = made = prepared()
    run(*made)
    path = planned.folder / "metrics.jsonl"
    whole = path.read_text()
    first = json.loads(whole.splitlines()[0])["loss"]
    path.write_text(whole.replace(f"{first}", f"{first + 1}"))
    with pytest.raises(UserError, match=r"metrics.jsonl was changed after it was read: restore .* metrics.read.json"):
        MetricsFile(path).check()
    path.write_text(whole + whole.splitlines()[-1] + "\n")
    MetricsFile(path).check()
    assert not caplog.messages
    path.write_text(whole[: whole.index("\n") + 1])
    MetricsFile(path).check()
    assert "lacks lines that were read" in caplog.text
