"""Checks of a planned run, each made once, before anything is created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shapelaw.config import CheckpointConfig, Keep, ParallelKind, Precision, TrainConfig, corpus_options
from shapelaw.data import check_repeats, validation
from shapelaw.errors import UserError
from shapelaw.fingerprint import computed_precision, computes_on_gpu
from shapelaw.parallel.layout import check_degrees, check_layout, check_noise, layout_of
from shapelaw.planned_run import PlannedRun
from shapelaw.training.corpora import Corpora
from shapelaw.training.sizes import sizes_of

LEAST_SIZES = 3
"""Of one budget, as a parabola has three coefficients."""
BEST_TOKENS_PER_PARAM, BEST_WITHIN = 20.0, 16.0
"""Of the lowest loss at one budget, and the factor by which it may lie elsewhere."""


def check_run(config: TrainConfig, planned: PlannedRun, corpora: Corpora) -> None:
    """Refuse what can be seen to be wrong wherever the run will be trained.

    Raises:
        UserError: naming the option, and what to give instead.
    """
    _check_corpora(config, planned, corpora)
    if not planned.model.own:
        _check_attention(config, planned)
    check_degrees(config.parallel, planned.shape, planned.vocab_size)


def _check_corpora(config: TrainConfig, planned: PlannedRun, corpora: Corpora) -> None:
    """The corpus is the one that the suite names, its vocabulary and context fit, it is not repeated more than allowed, and
    further held-out parts were made by its tokenizer: else their losses have another unit."""
    own, tokens = corpora.own, int(config.validation.tokens)
    own.check_named(corpus_options(config.data, config.tokenizer))
    own.check_vocab(planned.vocab_size)
    check_repeats(own, planned.seq_len, planned.tokens, config.data.max_epochs)
    validation(own, planned.seq_len, tokens)
    for name, other in corpora.further.items():
        if other.manifest.tokenizer != own.manifest.tokenizer:
            raise UserError(
                f"validation.further.{name}={other.name}: was prepared with another tokenizer than "
                f"{own.folder.name}, so its loss has another unit; prepare it again with that tokenizer"
            )
        validation(other, planned.seq_len, tokens)


def check_parts(runs: Sequence[tuple[PlannedRun, TrainConfig]]) -> None:
    """Try every user's model and optimizer of a sweep at its smallest shape: a step on a CPU.

    Raises:
        UserError: naming what is wrong with it.
    """
    smallest: dict[str, tuple[PlannedRun, TrainConfig]] = {}
    for run, train in runs:
        if not (train.model.own or train.optim.own or train.optim.lr_factors):
            continue
        key = repr((train.model, train.optim, run.seq_len, run.vocab_size))
        known, _ = smallest.setdefault(key, (run, train))
        if sizes_of(run).params < sizes_of(known).params:
            smallest[key] = run, train
    for run, train in smallest.values():
        from shapelaw.training.trying import try_parts

        try_parts(run, train)


def check_budgets(runs: Sequence[tuple[PlannedRun, TrainConfig]]) -> None:
    """Refuse several shapes at one training budget (flops=...) among which no lowest loss inside can be expected.

    A curve through the losses of a budget has a lowest point inside if sizes lie on both sides of the best one. For language
    models that has about 20 tokens a parameter (Hoffmann et al. 2022); small vocabularies and corpora move it, by less than
    `BEST_WITHIN`.

    Raises:
        UserError: naming the shapes that would make it so.
    """
    budgets: dict[float, dict[int, PlannedRun]] = {}
    for planned, train in runs:
        if train.flops is not None and planned.parent is None and not train.force:
            budgets.setdefault(train.flops, {})[sizes_of(planned).params] = planned
    for flops, by_params in budgets.items():
        if len(by_params) > 1:
            _check_budget(flops, by_params)


def _check_budget(flops: float, by_params: Mapping[int, PlannedRun]) -> None:
    remedy = "or give force=true to train them all the same"
    if len(by_params) < LEAST_SIZES:
        raise UserError(
            f"flops={flops:g}: {len(by_params)} sizes have no curve with a lowest loss inside; give {LEAST_SIZES} or more, "
            f"{remedy}"
        )
    ratios = [planned.tokens / params for params, planned in by_params.items()]
    low, high = BEST_TOKENS_PER_PARAM / BEST_WITHIN, BEST_TOKENS_PER_PARAM * BEST_WITHIN
    if min(ratios) > high or max(ratios) < low:
        side = "larger" if min(ratios) > high else "smaller"
        raise UserError(
            f"flops={flops:g}: gives the shapes {min(ratios):.3g} to {max(ratios):.3g} tokens a parameter, and the lowest loss "
            f"of a budget lies between {low:.3g} and {high:.3g}; give {side} shapes too, another budget, {remedy}"
        )


def check_tasks(planned: PlannedRun, train: TrainConfig, tasks: int) -> None:
    """Refuse a number of processes that the run cannot be shared out over, or that cannot measure what it asks for.

    Raises:
        UserError: naming the option, and what to give instead.
    """
    layout = layout_of(train.parallel, tasks)
    _check_splits(train, layout.kind)
    check_layout(layout, planned.shape, planned.vocab_size, planned.batch_sequences)
    if train.noise.every_steps:
        check_noise(layout, planned.batch_sequences, train.micro_batch_sequences)
    if layout.kind is ParallelKind.axonn and not computes_on_gpu(train):
        _check_axonn(train)


def _check_splits(train: TrainConfig, kind: ParallelKind) -> None:
    """Only the built-in model and AdamW are taken apart."""
    if kind in (ParallelKind.single, ParallelKind.ddp):
        return
    if train.model.own:
        raise UserError(
            f"model={train.model.name}: parallel={kind.value} splits the built-in model alone; give parallel=ddp"
        )
    if train.optim.name == "muon" or train.optim.own:
        raise UserError(
            f"optim={train.optim.name}: parallel={kind.value} splits matrices, which it needs whole; give parallel=ddp"
        )


def _check_axonn(train: TrainConfig) -> None:
    if computed_precision(train) is Precision.bf16:
        raise UserError(
            "precision=bf16 with parallel=axonn on a CPU: the package casts for GPUs only; give precision=fp32"
        )


def check_kept(branch: PlannedRun, run: PlannedRun, kept: CheckpointConfig) -> None:
    """Refuse a branch whose run, in the same sweep, will not have the checkpoint any more when it has ended.

    Raises:
        UserError: naming the checkpoints that it will have.
    """
    left = run.checkpoints[-kept.newest :]
    if kept.keep is Keep.newest and branch.first_step not in left:
        raise UserError(
            f"cooldown.from_tokens={branch.first_step * branch.batch_tokens:,}: the run it continues removes its checkpoint "
            f"there (checkpoint.keep=newest, checkpoint.newest={kept.newest}); it ends with: "
            f"{', '.join(f'{step * run.batch_tokens:,}' for step in left)}. Give checkpoint.keep=all, or branch at one of these"
        )


def _check_attention(train: TrainConfig, planned: PlannedRun) -> None:
    """Every back end but the default is asked whether it can run here."""
    if train.attention.name == "sdpa":
        return
    import torch

    from shapelaw.model import check_attention

    gpu = train.accelerator != "cpu" and torch.cuda.is_available()
    check_attention(train.attention.name, "cuda" if gpu else "cpu", planned.shape.head_size)
