"""The fingerprint of a run: everything that decides its result, and nothing else. The run's identity is its hash.

Two configurations that differ only in machine, launcher, logging or paths have the same fingerprint: they are one run, with
one folder and one MLflow run, and it is trained once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from shapelaw.arithmetic import version_of
from shapelaw.config import COMMAND, CooldownConfig, OptimConfig, Precision, SpikePolicy, TrainConfig
from shapelaw.devices import gpu_names
from shapelaw.errors import Damaged
from shapelaw.files import read_sealed_text, write_sealed_text
from shapelaw.plugins import code_of, is_reference
from shapelaw.template import trainer_record

IDENTITY_VERSION = 2
"""Raise it when the meaning of a fingerprint changes, and teach `shapelaw.migration` to rename earlier runs."""
BUILT_IN = {"model": 1, "optimizer": 1, "schedule": 1, "step": 1}
"""Version of each built-in part. Raise it when the part's arithmetic changes, so that runs of the old arithmetic do not pass
for runs of the new one. tests/model/test_arithmetic.py fails until this is decided; until then the code's hash replaces the
version."""
SPIKE_MONITOR = 1
"""Version of the spike monitor, which decides the result only of runs that roll back."""
CORPUS_PART = 1
"""Version of how a part of a corpus is drawn, which decides the result only of runs with data.unique_tokens."""

FILE = "fingerprint.yaml"
Fingerprint = dict[str, Any]


def fingerprint_of(
    config: TrainConfig,
    corpus_hash: str | None,
    batch_tokens: int,
    steps: int,
    batch_factor: float,
    further: Mapping[str, str] | None = None,
) -> Fingerprint:
    """Fingerprint of a main run; a cooldown's differs from its main run's by the entry `cooldown` alone.

    Args:
        config: configuration of the run.
        corpus_hash: hash of its training corpus; None if a program has its own.
        batch_tokens: tokens of one optimizer step.
        steps: optimizer steps of the whole run.
        batch_factor: factor of the batch on the rate.
        further: name of a further held-out set -> hash of its corpus, or its folder if nothing was opened yet.
    """
    schedule = config.schedule
    return {
        "shape": {"width": config.shape.width, "depth": config.shape.depth, "head_size": config.suite.head_size},
        "vocab_size": config.tokenizer.vocab_size,
        "seq_len": config.seq_len,
        "corpus": corpus_hash,
        "batch_tokens": batch_tokens,
        "steps": steps,
        "rate": {
            "lr_base": config.lr_base,
            "batch_factor": batch_factor,
            "width_unit": config.suite.width_unit,
            "name": config.lr_rule.name.value,
            **_patch(config),
        },
        "schedule": {
            "kind": schedule.kind.value,
            "warmup_tokens": schedule.warmup_tokens,
            "decay_fraction": schedule.decay_fraction,
            "final_factor": schedule.final_factor,
            **_own("schedule", schedule.name, schedule.options),
        },
        "cooldown": None,
        "optim": {**_adamw(config.optim), **_optimizer(config.optim)},
        "precision": computed_precision(config).value,
        "seed": config.seed,
        "order_seed": config.order_seed,
        "validation_tokens": config.validation.tokens,
        "further_validation": {**config.validation.further, **(further or {})},
        "spikes": _spikes(config),
        **_trainer(config),
        **({"sweep": config.sweep.name} if config.sweep.name else {}),
    }


def _trainer(config: TrainConfig) -> dict[str, Any]:
    """The trainer: a program, or our own parts and those of users."""
    if config.trainer.name == COMMAND:
        return {"trainer": trainer_record(config)}
    options = {"model_options": dict(config.model.options)} if config.model.options else {}
    return {"parts": {**parts(), **_own_parts(config)}, **options, **_part_of_corpus(config)}


def _part_of_corpus(config: TrainConfig) -> dict[str, Any]:
    """The part of its corpus that a run draws from; empty if it is the whole corpus."""
    if config.data.unique_tokens is None:
        return {}
    windows = int(config.data.unique_tokens) // config.seq_len
    version = version_of("part of a corpus", CORPUS_PART)
    return {"data": {"unique_tokens": windows * config.seq_len, "part": version}}


def _patch(config: TrainConfig) -> dict[str, Any]:
    """The patch of extreme shapes, as far as it affects this shape.

    Strictness matters only at exactly the ratio, and a named shape only if the ratio alone would spare it.
    """
    rule, width, depth = config.lr_rule, config.shape.width * config.suite.width_unit, config.shape.depth
    patched, exactly_there = rule.applies(width, depth), width / depth == rule.patch_ratio
    values = {
        "patch_ratio": rule.patch_ratio,
        "patch_strict": exactly_there and not patched,
        "patch_divisor": rule.patch_divisor,
    }
    return values | ({"patched": True} if patched and width / depth < rule.patch_ratio else {})


def parts() -> dict[str, int | str]:
    """The identity of the code of each part of a run: the version of the built-in one, or its hash if it was edited."""
    return {part: version_of(part, version) for part, version in BUILT_IN.items()}


def _adamw(optim: OptimConfig) -> dict[str, Any]:
    """The options of AdamW, which other optimizers share."""
    return {
        "beta1": optim.beta1,
        "beta2": optim.beta2,
        "eps": optim.eps,
        "weight_decay": optim.weight_decay,
        "clip_norm": optim.clip_norm,
        **({} if optim.decay_embedding else {"decay_embedding": False}),  # absent as in the paper
    }


def _optimizer(optim: OptimConfig) -> dict[str, Any]:
    """The optimizer, if it is not plain AdamW, as far as it affects the result."""
    name = {} if optim.name == "adamw" or optim.own else {"name": optim.name}
    momentum = {"momentum": optim.momentum} if optim.name == "muon" else {}
    factors = {"lr_factors": dict(optim.lr_factors)} if optim.lr_factors else {}
    return {**name, **momentum, **factors, **_own("optim", optim.name, optim.options)}


def _own(group: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The code of a user's part, and its options; empty for any other part."""
    code = {"code": code_of(group, name)} if is_reference(name) else {}
    return {**code, **({"options": dict(options)} if options else {})}


def cooldown_of(cooldown: CooldownConfig) -> dict[str, Any]:
    """The shape of a cooldown; empty if it goes linearly to 0, as in the paper."""
    shape = {} if cooldown.name == "linear" or is_reference(cooldown.name) else {"shape": cooldown.name}
    final = {"final_factor": cooldown.final_factor} if cooldown.final_factor else {}
    return {**shape, **final, **_own("cooldown", cooldown.name, cooldown.options)}


def _own_parts(config: TrainConfig) -> dict[str, str]:
    """The hashes of the code of the user's own parts."""
    return {"model": code_of("model", config.model.name)} if config.model.own else {}


def identity_of(fingerprint: Mapping[str, Any], version: int = IDENTITY_VERSION) -> str:
    """Twelve hexadecimal digits of the SHA-256 of a fingerprint as canonical JSON."""
    text = json.dumps({"version": version, **fingerprint}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def former_identity(folder: Path) -> str | None:
    """The identity of the run in a folder before its migration, if it was migrated.

    Raises:
        Damaged: if its fingerprint was changed after it was written.
    """
    path = folder / FILE
    if not path.exists():
        return None
    content = yaml.safe_load(read_sealed_text(path))
    if not isinstance(content, dict):
        raise Damaged(f"{path} is damaged: it holds no fingerprint; put back what was written there")
    former = content.get("former")
    return None if former is None else str(former)


def write_fingerprint(folder: Path, fingerprint: Mapping[str, Any], former: str | None = None) -> None:
    """Write into a run's folder the fingerprint whose hash is in its name.

    Args:
        folder: folder of the run.
        fingerprint: fingerprint of the run.
        former: the identity that an earlier version of shapelaw gave it.
    """
    content = {"version": IDENTITY_VERSION, **({"former": former} if former else {}), **fingerprint}
    write_sealed_text(folder / FILE, yaml.safe_dump(content, sort_keys=False))


def computed_precision(config: TrainConfig) -> Precision:
    """The number format of a run: `auto` means bf16 on a GPU and fp32 on a CPU; a program decides for itself."""
    if config.precision is not Precision.auto or config.trainer.name == COMMAND:
        return config.precision
    return Precision.bf16 if computes_on_gpu(config) else Precision.fp32


def computes_on_gpu(config: TrainConfig) -> bool:
    """Whether a run computes on GPUs: it requests them, or leaves the choice open on a machine that has some."""
    return config.accelerator == "gpu" or (config.accelerator != "cpu" and bool(gpu_names()))


def _spikes(config: TrainConfig) -> dict[str, Any] | None:
    """The rule of rollbacks, and the cadences of the values they check and the checkpoints they return to; no other policy
    changes a value."""
    if config.spikes.policy is not SpikePolicy.rollback:
        return None
    rule = {name: value for name, value in vars(config.spikes).items() if name != "policy"}
    cadences = {"validation": config.validation.every_tokens, "checkpoint": config.checkpoint.every_tokens}
    return {**rule, "every_tokens": cadences, "monitor": version_of("spike monitor", SPIKE_MONITOR)}
