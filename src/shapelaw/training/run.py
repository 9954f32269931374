"""One training run, from wherever it stands to its end: new, interrupted, or branching from another run's checkpoint."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import lightning.pytorch as pl
import torch

from shapelaw.config import Keep, Precision, TrainConfig
from shapelaw.data import Loader
from shapelaw.data.torch_batches import TokenBatches
from shapelaw.files import check_room
from shapelaw.model.cpu_memory import keep_freed_memory
from shapelaw.parallel.placement import Placement
from shapelaw.planned_run import PlannedRun, checkpoint_steps
from shapelaw.run_state import Status, lock, read_state
from shapelaw.tracking import LR_SCALE, PRUNED_TAG, ROLLBACKS, NoTracker, Tracker
from shapelaw.training.corpora import Corpora
from shapelaw.training.cost import flops_per_token
from shapelaw.training.group import Placed, environment_of, join, leave, rank, wait_for_all, world_of
from shapelaw.training.hooks import Costs, Hooks, Pruned
from shapelaw.training.monitor import SpikeMonitor, SpikeSeen
from shapelaw.training.noise import NoiseScale
from shapelaw.training.recording import describe, record_end, record_error, recorder
from shapelaw.training.repeating import ATTENTION_WARNING
from shapelaw.training.reporting import Report, Show
from shapelaw.training.rollback import Rollback, batch_of, read_rollbacks, roll_back
from shapelaw.training.run_info import run_info
from shapelaw.training.sizes import sizes_of
from shapelaw.training.spikes import Verdict
from shapelaw.training.starting import module_of
from shapelaw.training.trial import Trial

log = logging.getLogger(__name__)
LIGHTNING_PRECISION = {Precision.bf16: "bf16-mixed", Precision.fp32: "32-true"}


@dataclass(frozen=True)
class Spike:
    """A spike that a run is to be rolled back for: verdict, rollbacks before it, seconds of steps taken."""

    verdict: Verdict
    rollbacks: Sequence[Rollback]
    seconds: float


def train(config: TrainConfig, planned: PlannedRun, corpora: Corpora, tags: Mapping[str, str], show: Show) -> float:
    """Train a run in this process, or this process's part of it; the last held-out loss, nats per token.

    A finished run is left as it is. One that its search gives up ends early and without an error; its state says so.

    Args:
        config: its configuration, which was checked when it was planned.
        planned: what was planned.
        corpora: what it reads.
        tags: of its tracked run.
        show: called about once a second with its state.

    Raises:
        UserError: if the run diverged, another process trains it, or this machine cannot.
        Interrupted: when it was asked to stop; its checkpoint is whole.
    """
    with lock(planned.folder) if rank() == 0 else contextlib.nullcontext():
        state = read_state(planned.folder)
        if state.status is Status.finished:
            assert state.val_loss is not None
            return state.val_loss
        placement = join(config)
        if placement.rank == 0:
            check_room(planned.folder, disk_bytes(config, planned), f"a run of {planned.shape.name}")
            describe(config, planned)  # before the journal, which would hold on where the disk is full
        run = Run(config, planned, corpora, placement, tracker_of(config, planned, tags, corpora), show)
        try:
            loss = run.fit()
        finally:
            run.close()
    leave()
    return loss


def disk_bytes(config: TrainConfig, planned: PlannedRun) -> float:
    """Bytes of the checkpoints that are to come: weights and AdamW's two moments in float32; the one that is being written lies
    beside those that stay. A run that continues makes room as it goes, but for that one."""
    stay = len(planned.checkpoints)
    if config.checkpoint.keep is Keep.newest:
        stay = min(config.checkpoint.newest + 1, stay)
    count = 1 if checkpoint_steps(planned.folder) else stay
    return 12 * float(sizes_of(planned).params) * count


def tracker_of(config: TrainConfig, planned: PlannedRun, tags: Mapping[str, str], corpora: Corpora) -> Tracker:
    """Where a run is recorded: without a tracker in its folder alone. Of several processes the first one records."""
    if rank():
        return NoTracker()
    return recorder(config, planned, run_info(config, planned, dict(tags), corpora.own.unique_tokens(planned.seq_len)))


class Run:
    """A run that this process has taken up, whose folder it holds.

    Args:
        config: its configuration.
        planned: what was planned.
        corpora: what it reads.
        placement: this process's part of it.
        tracker: where it is recorded.
        show: called about once a second with its state.
    """

    def __init__(
        self,
        config: TrainConfig,
        planned: PlannedRun,
        corpora: Corpora,
        placement: Placement,
        tracker: Tracker,
        show: Show = lambda state: None,
    ) -> None:
        self.config, self.planned, self.corpora = config, planned, corpora
        self.placement, self.tracker = placement, tracker
        self.report = Report(planned.folder, placement.rank == 0, show)
        self.precision = LIGHTNING_PRECISION[Precision(planned.fingerprint["precision"])]

    def fit(self) -> float:
        """Train to the end; the last held-out loss, nats per token. Whatever ends it is written into its state and its
        tracked run.

        Raises:
            UserError: if the run diverged, or what it needs is not there.
            Interrupted: when it was asked to stop.
        """
        try:
            self._begin()
            hooks = self._hooks()
            with contextlib.suppress(Pruned):
                while spike := self._steps(hooks):
                    self.roll_back(spike)
        except BaseException as error:
            record_error(self.report, self.tracker, error)
            raise
        record_end(self.report, self.tracker, hooks.pruned)
        assert self.report.state.val_loss is not None
        return self.report.state.val_loss

    def roll_back(self, spike: Spike) -> None:
        """Decide where the run goes on after a spike, write it down and record it."""
        if self.placement.rank == 0:
            rule = self.config.spikes
            event = roll_back(
                self.planned, spike.rollbacks, spike.verdict, rule.lr_factor, rule.margin_steps, spike.seconds
            )
            log.warning(
                "%s: a spike (%s) at steps %d to %d; back to step %d, without its batches, at %g of the rate",
                *(self.planned.label, event.what, event.first_step, event.step, event.to_step, event.lr_scale),
            )
        wait_for_all()
        self._tell_rollbacks()

    def close(self) -> None:
        """Give the tracker's store a while to take what it has not yet."""
        self.tracker.close()

    def _begin(self) -> None:
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        keep_freed_memory()
        self.tracker.artifact(self.planned.folder / "config.yaml")
        if self.report.state.status is Status.pruned:
            self.tracker.tag({PRUNED_TAG: ""})  # it goes on
        self.report.begin(self.planned.last_step, self.tracker.run_id)
        self.tracker.tag(self._computed())
        self._tell_rollbacks()

    def _computed(self) -> dict[str, str]:
        """Tags: what the run is computed on and in."""
        device = self.placement.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        return {"shapelaw.device": name, "shapelaw.precision": self.precision}

    def _tell_rollbacks(self) -> None:
        """Record the rollbacks that are not recorded yet: the run may have been killed in the middle of one."""
        for event in read_rollbacks(self.planned.folder):
            metrics = {ROLLBACKS: event.number, "spike/first_step": event.first_step, LR_SCALE: event.lr_scale}
            tokens = event.to_step * self.planned.batch_tokens
            self.tracker.rewind(event.number, tokens, {**metrics, "spike/step": event.step})

    def _hooks(self) -> Hooks:
        """What happens between the steps."""
        config, planned = self.config, self.planned
        return Hooks(
            planned,
            self.corpora.samples(planned.seq_len, int(config.validation.tokens)),
            self.tracker,
            Costs(flops_per_token(planned), world_of(config)),
            self.report,
            config.checkpoint,
            config.tracker.log_every_steps,
            SpikeMonitor(planned, config.spikes, self.tracker),
            Trial(config.search) if config.search.trial is not None and self.placement.rank == 0 else None,
        )

    def _steps(self, hooks: Hooks) -> Spike | None:
        """Lightning's loop over the steps that are left; the spike that ended it, if one did."""
        module = module_of(self.config, self.planned, self.placement)
        batches = TokenBatches(
            Loader.of(self.corpora.own, self.planned.seq_len, self.config.order_seed),
            batch_sequences=self.planned.batch_sequences,
            start_step=module.progress.step,
            steps=self.planned.last_step - module.progress.step,
            rank=self.placement.share,
            world=self.placement.shares,
            device=self.placement.device,
            batch_of=partial(batch_of, skipped=module.progress.skipped),
        )
        with _lightning_quiet():
            trainer = self._trainer([*self._noise(), hooks])
            try:
                trainer.fit(module, train_dataloaders=batches)
            except SpikeSeen as seen:
                return Spike(seen.verdict, module.progress.rollbacks, module.progress.seconds)
        return None

    def _noise(self) -> list[pl.Callback]:
        every, average = self.config.noise.every_steps, self.config.noise.average
        return [NoiseScale(self.tracker, self.planned.batch_tokens, every, average)] if every else []

    def _trainer(self, hooks: list[pl.Callback]) -> pl.Trainer:
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # devices and tips are not news in a sweep
        return pl.Trainer(
            accelerator=self.placement.device.type,
            devices=self.config.devices,
            num_nodes=self.config.num_nodes,
            precision=self.precision,  # type: ignore[arg-type]
            max_epochs=1,
            callbacks=hooks,
            plugins=[environment_of(self.config)],
            strategy=Placed() if world_of(self.config) > 1 else "auto",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


@contextlib.contextmanager
def _lightning_quiet() -> Iterator[None]:
    """Without warnings that nobody here can act on."""
    with warnings.catch_warnings():
        # lightning's own use of a torch name that is on its way out
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        # accelerator=cpu was asked for
        warnings.filterwarnings("ignore", message="GPU available but not used.*")
        # the gradient of attention repeats when that is asked for
        warnings.filterwarnings("ignore", message=ATTENTION_WARNING)
        # a machine that has SLURM's tools need not use them
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        yield
