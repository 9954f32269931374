"""A planned run: one run of a sweep. Its identity is the hash of its fingerprint, and everything uses it as the key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from shapelaw.config import (
    CooldownConfig,
    ModelConfig,
    Rounding,
    ScheduleConfig,
    ScheduleKind,
    TrainConfig,
    corpus_dir,
    file_name,
    part_of_corpus,
)
from shapelaw.counting import flops_exact, params_total
from shapelaw.errors import UserError
from shapelaw.fingerprint import Fingerprint, cooldown_of, fingerprint_of, identity_of
from shapelaw.plugins import code_of
from shapelaw.run_state import Status, read_state
from shapelaw.schedule import (
    Constant,
    Cooldown,
    Cosine,
    Linear,
    OwnSchedule,
    Schedule,
    WarmupStableDecay,
    cooldown_end_step,
    lr_factor,
)
from shapelaw.shapes import Shape, check_heads
from shapelaw.suite import Suite
from shapelaw.wording import distinctions


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep, with all derived numbers computed and checked.

    Args:
        suite: record of the suite that it belongs to.
        shape: the model's shape.
        vocab_size: rows of the embedding and of the head.
        seq_len: context in tokens.
        batch_sequences: sequences of one optimizer step over all devices.
        first_step: finished steps at its start: 0, or the checkpoint from which a cooldown branches.
        last_step: finished steps at its end.
        validate_every_steps, checkpoint_every_steps: cadences.
        lr_eff: peak rate.
        schedule: course of the rate over the tokens of the main run.
        fingerprint: everything that decides its result.
        folder: folder of its state, checkpoints and log.
        model: the built-in one, or a user's.
        annealing: how the rate of a cooldown falls.
        parent: identity of the run that a cooldown continues.
    """

    suite: Suite
    shape: Shape
    vocab_size: int
    seq_len: int
    batch_sequences: int
    first_step: int
    last_step: int
    validate_every_steps: int
    checkpoint_every_steps: int
    lr_eff: float
    schedule: Schedule
    fingerprint: Fingerprint
    folder: Path
    model: ModelConfig = field(default_factory=ModelConfig)
    annealing: CooldownConfig = field(default_factory=CooldownConfig)
    parent: str | None = None

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits of the SHA-256 of its fingerprint."""
        return identity_of(self.fingerprint)

    @property
    def batch_tokens(self) -> int:
        """Tokens of one optimizer step."""
        return self.batch_sequences * self.seq_len

    @property
    def tokens(self) -> int:
        """Tokens seen at the end of the run."""
        return self.last_step * self.batch_tokens

    @property
    def label(self) -> str:
        """Short name for people: shape, rate, branch."""
        cooldown = f" cooldown@{self.first_step * self.batch_tokens:.3g}" if self.parent else ""
        return f"{self.shape.name} lr_base={self.fingerprint['rate']['lr_base']:g}{cooldown}"

    @cached_property
    def cooldown(self) -> Cooldown | None:
        """The branch's own course of the rate."""
        if self.parent is None:
            return None
        fraction = (self.last_step - self.first_step) / self.first_step
        how, code = self.annealing, self.fingerprint["cooldown"].get("code", "")
        return Cooldown(self.first_step * self.batch_tokens, fraction, how.name, how.final_factor, how.options, code)

    def lr_at(self, step: int) -> float:
        """Rate of the step after `step` finished steps."""
        return self.lr_eff * lr_factor(step * self.batch_tokens, self.schedule, self.cooldown)

    def validates_at(self, step: int) -> bool:
        """Whether the held-out loss is measured after `step`; a branch also measures it at its start."""
        return step % self.validate_every_steps == 0 or step == self.last_step or step == self.first_step > 0

    @property
    def checkpoints(self) -> list[int]:
        """Steps after which it writes a checkpoint."""
        every = self.checkpoint_every_steps
        return [*range(self.first_step // every * every + every, self.last_step, every), self.last_step]

    def checkpoints_at(self, step: int) -> bool:
        """Whether a checkpoint is written after `step`."""
        return step % self.checkpoint_every_steps == 0 or step == self.last_step


def labels_of(runs: Sequence[PlannedRun]) -> list[str]:
    """Short names of a sweep's runs; if several share one, with the settings that distinguish them."""
    labels = [planned.label for planned in runs]
    apart = distinctions(labels, [planned.identity for planned in runs], [planned.fingerprint for planned in runs])
    return [" ".join([label, *words]) for label, words in zip(labels, apart, strict=True)]


def plan_run(
    config: TrainConfig,
    corpus_hash: str | None,
    tokenizer_hash: str | None = None,
    further: Mapping[str, str] | None = None,
) -> PlannedRun:
    """Plan the run of a configuration on a corpus.

    Args:
        config: configuration of the run.
        corpus_hash: hash of the corpus, which decides the identity; None if a program trains on its own corpus.
        tokenizer_hash: hash of the corpus's tokenizer, for the record of the suite.
        further: name of a further held-out set -> hash of its corpus, which also decides the identity.

    Raises:
        UserError: for a value that is out of range or conflicts with others.
    """
    shape = Shape(config.shape.width, config.shape.depth, config.suite.head_size)
    if not config.model.own:
        check_heads(shape)
    batch = int(config.batch_tokens)
    if batch % config.seq_len:
        raise UserError(
            f"batch_tokens={batch}: allowed values are multiples of seq_len={config.seq_len}; "
            f"the nearest are {_multiples_around(batch, config.seq_len)}"
        )
    steps = _steps(config, batch)
    suite = Suite.of(config, corpus_hash, tokenizer_hash)
    main = PlannedRun(
        suite=suite,
        shape=shape,
        vocab_size=config.tokenizer.vocab_size,
        seq_len=config.seq_len,
        batch_sequences=batch // config.seq_len,
        first_step=0,
        last_step=steps,
        validate_every_steps=_cadence(config.validation.every_tokens, batch),
        checkpoint_every_steps=_cadence(config.checkpoint.every_tokens, batch),
        lr_eff=suite.rate(shape),
        schedule=_schedule(config.schedule, steps * batch),
        fingerprint=fingerprint_of(config, corpus_hash, batch, steps, suite.batch_factor, further),
        folder=Path(),
        model=config.model,
    )
    planned = main if config.cooldown.fraction == 0 else _branch(config, main)
    root = Path(config.outputs_dir) / "runs" / file_name("suite.name", config.suite.name)
    return replace(planned, folder=root / f"{planned.shape.name}-{planned.identity}")


def _schedule(config: ScheduleConfig, tokens: int) -> Schedule:
    warmup = config.warmup_tokens
    match config.kind:
        case ScheduleKind.constant:
            return Constant(warmup)
        case ScheduleKind.cosine:
            return Cosine(tokens, warmup, config.final_factor)
        case ScheduleKind.linear:
            return Linear(tokens, warmup, config.final_factor)
        case ScheduleKind.wsd:
            return WarmupStableDecay(tokens, warmup, config.decay_fraction, config.final_factor)
        case ScheduleKind.own:
            return OwnSchedule(config.name, tokens, warmup, config.options, code_of("schedule", config.name))


def parent_folder(planned: PlannedRun) -> Path:
    """Folder of the run that a cooldown continues."""
    return planned.folder.parent / f"{planned.shape.name}-{planned.parent}"


def checkpoint_path(folder: Path, step: int) -> Path:
    """Folder of a run's checkpoint after `step` steps."""
    return folder / "checkpoints" / f"step-{step:08d}"


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps at which a run's folder holds a checkpoint, in order; half-written ones do not count."""
    return sorted(int(path.name.removeprefix("step-")) for path in (folder / "checkpoints").glob("step-*"))


def parent_checkpoint(planned: PlannedRun) -> Path:
    """The checkpoint that a cooldown continues.

    Raises:
        UserError: if it is missing, naming the existing ones.
    """
    folder = parent_folder(planned)
    path = checkpoint_path(folder, planned.first_step)
    if not path.exists():
        have = ", ".join(f"{step * planned.batch_tokens:,}" for step in checkpoint_steps(folder)) or "none"
        remedy = (
            f"It is finished: branch at one of these, or remove {folder} and train it again with checkpoint.keep=all"
            if read_state(folder).status is Status.finished
            else "Train it first: the same command with cooldown=none, or both in one sweep with cooldown=none,linear10"
        )
        raise UserError(
            f"cooldown.from_tokens={planned.first_step * planned.batch_tokens:,}: the run it continues ({folder.name}) has no "
            f"checkpoint there; it has: {have}. {remedy}"
        )
    return path


def corpus_folder(config: TrainConfig) -> Path:
    """Folder of the corpus that a configuration trains on."""
    return corpus_dir(config.data_dir, config.data, config.tokenizer)


def further_folders(config: TrainConfig) -> dict[str, tuple[Path, str | None]]:
    """Folders of the corpora whose held-out parts are also measured, by the names of their losses; for a mixture, also the
    source of the held-out part.

    Raises:
        UserError: for a name that would lead out of data_dir.
    """
    return {
        name: part_of_corpus(config.data_dir, f"validation.further.{name}", corpus)
        for name, corpus in config.validation.further.items()
    }


def _branch(config: TrainConfig, main: PlannedRun) -> PlannedRun:
    """The cooldown branch of a main run: from the checkpoint nearest to cooldown.from_tokens."""
    first, fraction = _branch_step(config, main), config.cooldown.fraction
    asked = f"cooldown.from_tokens={config.cooldown.from_tokens:g}"
    if main.lr_at(first) == 0:
        raise UserError(
            f"{asked}: schedule={config.schedule.kind.value} has lowered the rate to 0 there; give an earlier "
            "cooldown.from_tokens, or schedule=constant"
        )
    last = cooldown_end_step(first, fraction)
    if last <= first:
        raise UserError(
            f"{asked}: a branch of {fraction:g} of {first} steps has no step; branch later or give a larger cooldown.fraction"
        )
    cooldown = {"from_step": first, "fraction": fraction, "parent": main.identity, **cooldown_of(config.cooldown)}
    fingerprint = {**main.fingerprint, "cooldown": cooldown}
    branch = replace(main, first_step=first, last_step=last, fingerprint=fingerprint, parent=main.identity)
    branch = replace(branch, annealing=config.cooldown)
    assert branch.cooldown is not None  # a user's shape has been checked
    return branch


def _branch_step(config: TrainConfig, main: PlannedRun) -> int:
    """The checkpoint nearest to cooldown.from_tokens; the last step has one for any cadence."""
    at_end = config.sized and config.cooldown.from_tokens == config.tokens  # as in the groups' files
    wanted = main.last_step if at_end else config.cooldown.from_tokens / main.batch_tokens
    every, last = main.checkpoint_every_steps, main.last_step
    regular = min(round(wanted / every), last // every) * every
    step = min(regular, last, key=lambda step: abs(wanted - step))
    if step < 1 or abs(wanted - step) > min(every, last) / 2:
        have = ", ".join(f"{at * main.batch_tokens:,}" for at in main.checkpoints)
        raise UserError(
            f"cooldown.from_tokens={config.cooldown.from_tokens:g}: the run makes no checkpoint near there; it has "
            f"checkpoints at {have} tokens"
        )
    return step


def _steps(config: TrainConfig, batch_tokens: int) -> int:
    if config.sized:
        return _sized_steps(config, batch_tokens)
    tokens = int(config.tokens)
    rounding = config.tokens_rounding
    if tokens % batch_tokens == 0:
        return tokens // batch_tokens
    if rounding is Rounding.refuse or (tokens < batch_tokens and rounding is Rounding.down):
        raise UserError(
            f"tokens={tokens}: allowed values are multiples of batch_tokens={batch_tokens}; "
            f"give {_multiples_around(tokens, batch_tokens)}, or tokens_rounding=up or =down to round it"
        )
    return math.ceil(tokens / batch_tokens) if rounding is Rounding.up else tokens // batch_tokens


def _sized_steps(config: TrainConfig, batch_tokens: int) -> int:
    """Steps of a shape from FLOPs, or from tokens per parameter, rounded to the nearest."""
    if config.model.own:
        raise UserError(
            f"model={config.model.name}: flops and tokens_per_param count the built-in model; give tokens for each shape"
        )
    sizes = (config.shape.width, config.shape.depth, config.tokenizer.vocab_size)
    if config.flops is not None:
        asked = f"flops={config.flops:g}"
        unit = float(flops_exact(*sizes, config.seq_len, config.suite.head_size).total)
        tokens = config.flops / unit
    else:
        assert config.tokens_per_param is not None
        asked = f"tokens_per_param={config.tokens_per_param:g}"
        unit = 1 / float(params_total(*sizes, config.suite.head_size))
        tokens = config.tokens_per_param / unit
    steps = round(tokens / batch_tokens)
    if steps < 1:
        raise UserError(
            f"{asked}: gives shape={config.shape.width}x{config.shape.depth} {tokens:,.0f} tokens, but a batch has "
            f"{batch_tokens:,}; give at least {batch_tokens * unit:.3g}, a smaller shape or smaller batch_tokens"
        )
    return steps


def _cadence(every_tokens: float, batch_tokens: int) -> int:
    """Steps between two events: the cadence in tokens, rounded up to whole steps."""
    return math.ceil(every_tokens / batch_tokens)


def _multiples_around(value: int, unit: int) -> str:
    below = value // unit * unit
    return f"{below} or {below + unit}" if below else str(unit)
