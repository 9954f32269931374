"""The processes of one run on this machine: started, watched, stopped together, and the first to fail is heard.

Each is `python -m shapelaw.training.processes` with torchrun's variables (RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT), and reads what to train from its standard input, which stays open: when the launcher is gone, however it
went, they checkpoint and stop. On a cluster SLURM starts the processes, and nothing here is used.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from shapelaw.collector import collect_seldom
from shapelaw.config import TrainConfig
from shapelaw.errors import Interrupted, UserError, WorkFailed
from shapelaw.files import as_record, read_sealed, write_sealed
from shapelaw.planned_run import PlannedRun
from shapelaw.run_state import State, Status, read_state, write_state
from shapelaw.training.corpora import Corpora

GRACE_SECONDS = 5.0
"""How long the others may take to say what they saw once one has failed, before they are ended."""
STOP_SECONDS = 30.0
POLL_SECONDS = 0.2


class RankFailed(WorkFailed):
    """A process of a run ended without being asked to; the message is its own."""


@dataclass(frozen=True)
class _Failure:
    """How a process ended: rank, when, what it said, and whether the fault was the user's or it was only asked to stop."""

    rank: int
    time: float
    message: str
    kind: str


def starts_processes(config: TrainConfig) -> bool:
    """Whether whoever takes up a run has to start its processes: there are several, and nobody else has."""
    world = config.devices * config.num_nodes
    return world > 1 and "RANK" not in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) < 2


def launch(
    config: TrainConfig, planned: PlannedRun, corpora: Corpora, tags: Mapping[str, str], show: Callable[[State], None]
) -> float:
    """Train a run in processes of their own; the last held-out loss, nats per token. A finished one is left as it is.

    Raises:
        UserError, Interrupted, RankFailed: the first process's own message; none outlives this call.
    """
    if config.num_nodes > 1:
        raise UserError(f"num_nodes={config.num_nodes}: several nodes are started by SLURM; give hydra/launcher=slurm")
    with tempfile.TemporaryDirectory() as notes:
        ranks = _start((config, planned, corpora, dict(tags)), config.devices, Path(notes))
        try:
            with _signals_passed_on(ranks):
                failures = _watch(ranks, planned, Path(notes), show)
        finally:
            _end(ranks)
    if failures:
        _raise(failures, planned)
    loss = read_state(planned.folder).val_loss
    assert loss is not None
    return loss


def _start(work: tuple[object, ...], count: int, notes: Path) -> list[subprocess.Popen[bytes]]:
    """Start so many processes, each with the arguments of `shapelaw.training.run.train` but the last."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = []
    for rank in range(count):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
        environment = {**os.environ, **{key: str(value) for key, value in place.items()}, "MASTER_PORT": str(port)}
        command = [sys.executable, "-m", __name__, str(notes / f"{rank}.json")]
        # a session of its own: a Ctrl-C reaches it once, through the launcher
        process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
        assert process.stdin is not None
        pickle.dump(work, process.stdin)
        process.stdin.flush()
        ranks.append(process)
    return ranks


def _signals_passed_on(ranks: list[subprocess.Popen[bytes]]) -> AbstractContextManager[None]:
    def pass_on(number: int) -> None:
        for process in ranks:
            process.send_signal(number)

    return signals_to(pass_on, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2))


@contextlib.contextmanager
def signals_to(handle: Callable[[int], None], numbers: Sequence[int]) -> Iterator[None]:
    """Have signals of this process handled so for a while."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        handle(number)

    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(
    ranks: list[subprocess.Popen[bytes]], planned: PlannedRun, notes: Path, show: Callable[[State], None]
) -> list[_Failure]:
    """Until all have ended, or one has failed and the others had their time."""
    deadline: float | None = None
    while None in (codes := [process.poll() for process in ranks]):  # all of them: the first may wait for ever
        if deadline is None and any(codes):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            break
        show(read_state(planned.folder))
        time.sleep(POLL_SECONDS)
    return [_failure(rank, process, notes) for rank, process in enumerate(ranks) if process.returncode]


def _failure(rank: int, process: subprocess.Popen[bytes], notes: Path) -> _Failure:
    path = notes / f"{rank}.json"
    if path.exists():
        return as_record(_Failure, {"rank": rank, **read_sealed(path)}, path)
    how = f"killed by {signal.Signals(-process.returncode).name}" if process.returncode < 0 else "ended without a word"
    return _Failure(rank, 0.0, how, "killed")


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    for process in ranks:
        if process.poll() is None:
            process.kill()
        process.wait(STOP_SECONDS)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _raise(failures: list[_Failure], planned: PlannedRun) -> None:
    """Raise what the first to fail said: the others only saw it go."""
    order = ["killed", "user", "crash", "interrupted"]
    first = min(failures, key=lambda failure: (failure.time, order.index(failure.kind)))
    if first.kind == "interrupted":
        raise Interrupted(first.message)
    message = f"process {first.rank} of the run: {first.message}"
    write_state(planned.folder, _failed(read_state(planned.folder), message))
    if first.kind == "user":
        raise UserError(first.message)
    raise RankFailed(message)


def _failed(state: State, reason: str) -> State:
    from dataclasses import replace

    return replace(state, status=Status.failed, reason=reason.splitlines()[0])


def main(note: Path) -> NoReturn:
    """Body of one process."""
    collect_seldom()
    config, planned, corpora, tags = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_stop_with_launcher, daemon=True).start()
    from shapelaw.training.run import train

    try:
        train(config, planned, corpora, tags, _quiet)
    except BaseException as error:
        stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
        kind = "interrupted" if stopped else "user" if isinstance(error, UserError) else "crash"
        said = str(error) if kind != "crash" else f"{type(error).__name__}: {error}"
        # before the connections close, so that whoever fails of that fails later
        write_sealed(note, {"time": time.time(), "message": said, "kind": kind})
        if kind == "crash":
            import traceback

            traceback.print_exc()
        _exit(1)
    _exit(0)


def _exit(code: int) -> NoReturn:
    """End without the interpreter's own end: what is left of the process group there could keep a failed process alive, or
    abort one that has done its work (torch 2.13, gloo: "terminate called without an active exception")."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _stop_with_launcher() -> None:
    while os.read(0, 1):  # not through Python's buffer, whose lock would be held at exit
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _quiet(state: State) -> None:
    """Nothing: the launcher reads the state file."""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
