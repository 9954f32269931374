"""One run that a program trains: started, followed, recorded, and judged by its output and exit code."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from shapelaw.command.fields import METRICS, command_of, environment_of
from shapelaw.command.metrics import MetricsFile, ProgramFailed, Reading, read_line
from shapelaw.command.process import Program, passed_on
from shapelaw.config import TrainConfig
from shapelaw.errors import Diverged, Interrupted
from shapelaw.planned_run import PlannedRun
from shapelaw.run_state import Status, lock, read_state
from shapelaw.tracking import PRUNED_TAG, VAL_LOSS, Tracker
from shapelaw.tracking_views import FLOPS, TOKENS
from shapelaw.training.recording import describe, record_end, record_error, recorder
from shapelaw.training.reporting import Report, Show
from shapelaw.training.run_info import run_info
from shapelaw.training.trial import Trial

POLL_SECONDS = 0.2
"""Time between two checks of the metrics."""
FLOPS_PER_PARAMETER = 6
"""FLOPs per token and parameter, if a program gives its parameters but not its FLOPs."""
TAIL_BYTES = 4096
REASON_CHARACTERS = 160
OUR_LINE = re.compile(r"start \d+: |step \d+/\d+, ")
"""Start of the lines that this process writes into the log that it shares with the program."""


def train(config: TrainConfig, planned: PlannedRun, tags: Mapping[str, str], show: Show) -> float:
    """Train a run by its program; returns the last held-out loss. A finished run is left unchanged.

    Args:
        config: its configuration, which was checked when it was planned.
        planned: the planned run.
        tags: tags of its tracked run.
        show: called about once a second with its state.

    Raises:
        ProgramFailed: if the program fails, does not reach the run's end, or writes an invalid line.
        Diverged: if it writes a loss that is not finite.
        Interrupted: if it was asked to stop.
    """
    with lock(planned.folder) as held:
        state = read_state(planned.folder)
        if state.status is Status.finished:
            assert state.val_loss is not None
            return state.val_loss
        describe(config, planned)
        return CommandRun(config, planned, tags, show, held).fit()


class CommandRun:
    """A run that this process trains, with its folder locked.

    Args:
        config: its configuration.
        planned: the planned run.
        tags: tags of its tracked run.
        show: called about once a second with its state.
        held: descriptor of its lock.
    """

    def __init__(
        self, config: TrainConfig, planned: PlannedRun, tags: Mapping[str, str], show: Show, held: int
    ) -> None:
        self.config, self.planned, self.held = config, planned, held
        self.report = Report(planned.folder, True, show)
        self.metrics = MetricsFile(planned.folder / METRICS)
        resume = self.report.state.attempts > 0
        self.words, self.environment = command_of(config, planned, resume), environment_of(config, planned, resume)
        self.info = run_info(config, planned, dict(tags))
        self.log = planned.folder / "log.txt"
        self.trial = Trial(config.search) if config.search.trial is not None else None
        self.pruned, self.goes_on = False, self.report.state.status is Status.pruned
        self.tokens = self.loss_tokens = self.renewals = 0
        self.begun: tuple[float, int] | None = None

    @cached_property
    def tracker(self) -> Tracker:
        """The run's tracker; opened at the first record, because the program's first line may describe its model."""
        tracker = recorder(self.config, self.planned, self.info)
        tracker.artifact(self.planned.folder / "config.yaml")
        pruned = {PRUNED_TAG: ""} if self.goes_on else {}
        tracker.tag({"shapelaw.command": shlex.join(self.words), **pruned})
        return tracker

    def fit(self) -> float:
        """Train to the end; returns the last held-out loss. The cause of any end goes into its state and its tracked run.

        Raises:
            ProgramFailed, Diverged, Interrupted: as for `train`.
        """
        with contextlib.ExitStack() as until_recorded:
            try:
                self.report.begin(self.planned.last_step, self.report.state.mlflow_run_id)
                self.report.write()
                self.metrics.check()
                self._read()  # earlier output
                self.tokens = 0  # a program that starts again may go back
                self._carry_out(until_recorded)
            except BaseException as error:
                record_error(self.report, self.tracker, error)
                raise
            else:
                record_end(self.report, self.tracker, self.pruned)
            finally:
                self.tracker.close()
        assert self.report.state.val_loss is not None
        return self.report.state.val_loss

    def _carry_out(self, until_recorded: contextlib.ExitStack) -> None:
        """Start the program, follow it to its end, and judge it.

        Signals go to the program until everything is recorded: a second one, which clusters send, would otherwise end this
        process before it has recorded how its run ended.
        """
        with self.log.open("a") as log:
            log.write(f"start {self.report.state.attempts}: {shlex.join(self.words)}\n")
        program = Program(self.words, self.environment, self.log, self.held, self.config.trainer.stop_seconds)
        until_recorded.enter_context(passed_on(program))
        try:
            while not program.ended(POLL_SECONDS):
                self._follow(program)
            program.settle()
            self._read()
        finally:
            program.stop()
        self._judge(program)

    def _follow(self, program: Program) -> None:
        before = self.report.state.val_loss
        self._read()
        if self.report.is_due or self.report.state.val_loss != before:
            self.report.write()
        if self.pruned and not program.asked:
            program.ask(signal.SIGTERM)

    def _read(self) -> None:
        """Read the program's new output.

        Raises:
            ProgramFailed, Diverged: for the first invalid line; it and the following lines are set aside.
        """
        try:
            for line in self.metrics.lines():
                if self.metrics.renewals > self.renewals:
                    self.tokens, self.renewals = 0, self.metrics.renewals
                self._take(read_line(line, self.planned, self.tokens))
        except (ProgramFailed, Diverged) as error:
            aside = self.metrics.set_aside()
            more = f"; its metrics are kept in {aside}, its log is {self.log}"
            if isinstance(error, Diverged):
                raise Diverged(f"{error}; try a smaller lr_base{more}", error.step) from error
            raise ProgramFailed(f"{error}{more}") from error

    def _take(self, reading: Reading) -> None:
        """Record a line of metrics."""
        if reading.model:
            self.info = replace(self.info, params={**self.info.params, **_model(reading.model)})
        if reading.tokens is None:
            return
        self.tokens = reading.tokens
        costs = {TOKENS: self.tokens, FLOPS: self.tokens * float(self.info.params["flops_per_token"])}
        if reading.metrics:
            self.tracker.log({**costs, **reading.metrics}, self.tokens)
        self._tell(reading.metrics)
        if (loss := reading.metrics.get(VAL_LOSS)) is not None:
            self.loss_tokens = max(self.loss_tokens, self.tokens)
            hopeless = self.trial is not None and self.trial.is_hopeless(self.tokens, loss)
            self.pruned = hopeless and self.tokens < self.planned.tokens

    def _tell(self, metrics: Mapping[str, float]) -> None:
        """Update the state."""
        now, tokens = time.monotonic(), self.tokens
        self.begun = self.begun or (now, tokens)
        seconds = now - self.begun[0]
        speed = metrics.get("speed/tokens_per_second") or ((tokens - self.begun[1]) / seconds if seconds else None)
        state = self.report.state
        self.report.set(
            step=tokens // self.planned.batch_tokens,
            tokens=tokens,
            train_loss=metrics.get("train/loss", state.train_loss),
            val_loss=metrics.get(VAL_LOSS, state.val_loss),
            tokens_per_second=speed or state.tokens_per_second,
            mlflow_run_id=self.tracker.run_id or state.mlflow_run_id,
        )

    def _judge(self, program: Program) -> None:
        """Check that the program did its work.

        Raises:
            Interrupted: if it was asked to stop before its end.
            ProgramFailed: if it failed, or did not reach the run's end.
        """
        reached = self.loss_tokens == self.planned.tokens
        if self.pruned or (reached and not program.outcome):
            return
        if program.asked:
            raise Interrupted(f"stopped by {signal.Signals(program.asked).name} after {self.tokens:,} tokens")
        if program.outcome:
            raise ProgramFailed(f"{program.outcome}{self._last_words()}; its log is {self.log}")
        if not self.loss_tokens:
            raise ProgramFailed(
                f"the program ended without a loss in {self.metrics.path}, which should have lines such as "
                f'{{"tokens": {self.planned.tokens}, "loss": 2.5}}; its log is {self.log}'
            )
        raise ProgramFailed(
            f"the program ended with its last loss at {self.loss_tokens:,} tokens, but the run ends at "
            f"{self.planned.tokens:,}; it must write its last line there; its log is {self.log}"
        )

    def _last_words(self) -> str:
        """The last line of the log, which usually names the error."""
        with self.log.open("rb") as log:
            log.seek(max(self.log.stat().st_size - TAIL_BYTES, 0))
            lines = log.read().decode(errors="replace").splitlines()
        said = [line.strip() for line in lines if line.strip() and not OUR_LINE.match(line)]
        return f" ({said[-1][:REASON_CHARACTERS]})" if said else ""


def _model(said: Mapping[str, float]) -> dict[str, float]:
    """Parameters of the tracked run, from the program's facts about its model."""
    model = {name: int(value) if name == "params" else value for name, value in said.items()}
    return {"flops_per_token": FLOPS_PER_PARAMETER * said["params"]} | model if "params" in said else model
