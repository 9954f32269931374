"""What a run does about divergence and spikes: it reads loss and gradient norm at a cadence, and stops, rolls back or goes on.

Values stay on the device until they are read, so that no step waits for them: every `every_steps`, and before validations
and the cadence's checkpoints, which are good therefore. When they are read depends on the step alone, so that an interrupted
run sees what an uninterrupted one sees.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from shapelaw.config import SpikePolicy, SpikesConfig
from shapelaw.errors import Diverged
from shapelaw.files import plain
from shapelaw.planned_run import PlannedRun
from shapelaw.tracking import Tracker
from shapelaw.training.module import RunModule
from shapelaw.training.spikes import Detector, RunSpikeRule, Verdict

IGNORED = "spike/ignored"


class SpikeSeen(Exception):
    """The run is to be rolled back."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(str(verdict))
        self.verdict = verdict


class SpikeMonitor:
    """The detector of a run and its policy.

    Args:
        planned: what is trained.
        config: rule and policy.
        tracker: where spikes that are ignored are recorded.
    """

    def __init__(self, planned: PlannedRun, config: SpikesConfig, tracker: Tracker) -> None:
        self.planned, self.config, self.tracker = planned, config, tracker
        warmup = math.ceil(planned.schedule.warmup_tokens / planned.batch_tokens)
        self.rule = RunSpikeRule.of(config, planned.vocab_size, warmup)
        self.detector = Detector(self.rule)
        self.unread: list[tuple[float, float]] = []

    def restore(self, module: RunModule) -> None:
        """Take up what the checkpoint that was loaded knew."""
        kept = module.progress.watch
        module.recent.clear()
        self.detector = Detector.restore(self.rule, kept["detector"]) if kept else Detector(self.rule)
        self.unread = [(float(loss), float(norm)) for loss, norm in kept.get("unread", [])]

    def keep(self, module: RunModule) -> None:
        """Put what is known into the progress, for a checkpoint."""
        self._gather(module)
        unread = [(plain(loss), plain(norm)) for loss, norm in self.unread]
        module.progress.watch = {"detector": self.detector.state(), "unread": unread}

    def looks_at(self, step: int) -> bool:
        """Whether values are read after a step."""
        return (
            step % self.config.every_steps == 0 or self.planned.validates_at(step) or self.planned.checkpoints_at(step)
        )

    def look(self, module: RunModule) -> None:
        """Judge the steps since the last look.

        Raises:
            Diverged: under the policy stop; for what is no number and cannot be rolled back, under any.
            SpikeSeen: if the run is to be rolled back.
        """
        self._gather(module)
        first = module.progress.step - len(self.unread) + 1
        losses, norms = [loss for loss, _ in self.unread], [norm for _, norm in self.unread]
        self.unread = []
        for verdict in self.detector.look(first, losses, norms):
            self._act(verdict, module)

    def no_number(self, loss: float, module: RunModule) -> None:
        """A held-out loss that is no number: the last step spoiled the weights.

        Raises:
            Diverged, SpikeSeen: as `look` does.
        """
        step = module.progress.step
        self._act(Verdict(step, step, "not a number", loss, math.nan), module)

    def _act(self, verdict: Verdict, module: RunModule) -> None:
        config, own = self.config, [event for event in module.progress.rollbacks if event.cell == self.planned.identity]
        if config.policy is SpikePolicy.rollback and len(own) < config.max_rollbacks:
            raise SpikeSeen(verdict)
        if config.policy is not SpikePolicy.ignore or verdict.what == "not a number":
            raise Diverged(self._line(verdict, len(own)), verdict.step)
        self.tracker.log({IGNORED: self.detector.spikes}, verdict.step * self.planned.batch_tokens)

    def _line(self, verdict: Verdict, rollbacks: int) -> str:
        rate = self.planned.fingerprint["rate"]["lr_base"]
        what = (
            f"the loss is {verdict.loss:g}, or its gradient is no number"
            if verdict.what == "not a number"
            else f"a spike of the {verdict.what} since step {verdict.first_step}, loss {verdict.loss:.4g}"
        )
        after = f" after {rollbacks} rollbacks" if rollbacks else ""
        advice = "" if self.config.policy is SpikePolicy.rollback else ", or spikes=rollback"
        return f"the run diverged at step {verdict.step}{after}: {what}; try a smaller lr_base than {rate:g}{advice}"

    def _gather(self, module: RunModule) -> None:
        """Bring the values of the last steps here, means over the processes; this waits for the device."""
        if not module.recent:
            return
        values = torch.stack([torch.stack([loss.double(), norm.double()]) for loss, norm in module.recent])
        module.recent.clear()
        if module.trainer.world_size > 1:
            reduced: Any = module.trainer.strategy.reduce(values, reduce_op="mean")
            values = reduced
        self.unread += [(loss, norm) for loss, norm in values.tolist()]
