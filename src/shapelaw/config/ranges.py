"""What values train.py's options may have, each by itself."""

from __future__ import annotations

import math
import re

from shapelaw.config.training import OptimConfig, ScheduleConfig, SpikesConfig, TrainConfig
from shapelaw.config.values import THREADS_MAX, Keep, ScheduleKind, SpikePolicy, or_auto, positive, switch, whole
from shapelaw.errors import UserError

ACCELERATORS = ("auto", "cpu", "gpu")
READERS = {
    "decay_fraction": (ScheduleKind.wsd,),
    "final_factor": (ScheduleKind.wsd, ScheduleKind.cosine, ScheduleKind.linear),
}
"""Options of a schedule -> the kinds that read them."""


def check_values(config: TrainConfig) -> None:
    """Check every value that does not hang on others.

    Raises:
        UserError: naming the key.
    """
    whole("seed", config.seed, 0)
    whole("order_seed", config.order_seed, 0)
    whole("seq_len", config.seq_len, 2)
    whole("tokenizer.vocab_size", config.tokenizer.vocab_size, 2)
    or_auto("micro_batch_sequences", config.micro_batch_sequences, 0)
    switch("compile", config.compile)
    if config.accelerator not in ACCELERATORS:
        raise UserError(f"accelerator={config.accelerator}: allowed are {', '.join(ACCELERATORS)}; give one")
    whole("devices", config.devices)
    whole("num_nodes", config.num_nodes)
    whole("threads", config.threads, 0, THREADS_MAX)
    whole("tracker.log_every_steps", config.tracker.log_every_steps)
    whole("noise.every_steps", config.noise.every_steps, 0)
    whole("noise.average", config.noise.average)
    whole("validation.tokens", config.validation.tokens)
    positive("data.max_epochs", config.data.max_epochs)
    positive("lr_rule.patch_divisor", config.lr_rule.patch_divisor)
    if not config.lr_rule.patch_ratio > 0:
        raise UserError(f"lr_rule.patch_ratio={config.lr_rule.patch_ratio:g}: allowed are numbers above 0 and .inf")
    if config.checkpoint.keep is Keep.newest:
        whole("checkpoint.newest", config.checkpoint.newest)
    if config.limits.memory_gb is not None:
        positive("limits.memory_gb", config.limits.memory_gb)
    for name in config.validation.further:
        if not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise UserError(f"validation.further: {name!r} is no name of a loss; allowed are letters, digits and _")
    _not_negative("cooldown.fraction", config.cooldown.fraction)
    if config.cooldown.fraction:
        positive("cooldown.from_tokens", config.cooldown.from_tokens)
    _check_schedule(config.schedule)
    _check_optim(config.optim)
    _check_spikes(config.spikes)


def _check_schedule(schedule: ScheduleConfig) -> None:
    """What a schedule does not read would make another cell of the same run."""
    for key, kinds in READERS.items():
        value = getattr(schedule, key)
        if value != 0 and schedule.kind not in kinds:
            raise UserError(
                f"schedule.{key}={value:g}: schedule={schedule.kind.value} does not read it; leave it out, or give "
                f"{' or '.join(f'schedule={kind.value}' for kind in kinds)}"
            )


def _check_optim(optim: OptimConfig) -> None:
    for key in ("beta1", "beta2"):
        if not 0 <= getattr(optim, key) < 1:
            raise UserError(f"optim.{key}={getattr(optim, key):g}: allowed are numbers from 0 to below 1; give one")
    for key in ("eps", "weight_decay", "clip_norm"):
        _not_negative(f"optim.{key}", getattr(optim, key))


def _not_negative(key: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise UserError(f"{key}={value:g}: allowed are finite numbers from 0; give one")


def _check_spikes(spikes: SpikesConfig) -> None:
    for key in ("every_steps", "window_steps", "least_steps", "sustain_steps"):
        whole(f"spikes.{key}", getattr(spikes, key))
    for key in ("loss_mads", "norm_mads", "over_best_nats", "over_chance_nats"):
        if getattr(spikes, key) != math.inf:  # which is no limit
            positive(f"spikes.{key}", getattr(spikes, key))
    whole("spikes.margin_steps", spikes.margin_steps, 0)
    if spikes.least_steps > spikes.window_steps:
        raise UserError(
            f"spikes.least_steps={spikes.least_steps}: allowed are 1 to spikes.window_steps={spikes.window_steps}; give one"
        )
    if spikes.policy is SpikePolicy.rollback:
        whole("spikes.max_rollbacks", spikes.max_rollbacks)
        if not 0 < spikes.lr_factor <= 1:
            raise UserError(f"spikes.lr_factor={spikes.lr_factor:g}: allowed are numbers above 0 up to 1; give one")
