"""Identities of version 1, computed as by the code of that time. Nothing here follows today's options.

A fingerprint of version 1 is read from a run's config.yaml and verified by its hash, which is in the name of the run's folder.
Version 2 names the actual precision of a run instead of `auto`, and the versions of the built-in parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shapelaw.fingerprint import Fingerprint, identity_of

Values = Mapping[str, Any]
VERSION = 1
PARTS = {"model": 1, "optimizer": 1, "schedule": 1, "step": 1}
"""Versions of the parts that these runs were trained by."""
SPIKE_LIMITS = {"over_best_nats": math.inf, "over_chance_nats": math.inf, "monitor": 1}
"""Limits that these runs' rule of rollbacks did not have, and the version of what watched them."""


def identity_1(fingerprint: Values) -> str:
    """The identity that version 1 gave."""
    return identity_of(fingerprint, VERSION)


def fingerprint_1(config: Values, corpus_hash: str) -> Fingerprint:
    """The fingerprint of version 1.

    Args:
        config: the values of the run's config.yaml.
        corpus_hash: of what it was trained on.

    Raises:
        KeyError, TypeError, ValueError: if the values are not those of a run.
    """
    main = _main_run(config, corpus_hash)
    if not config["cooldown"]["fraction"]:
        return main
    branch = {"from_step": _branch_step(config, main), "fraction": config["cooldown"]["fraction"]}
    return {**main, "cooldown": {**branch, "parent": identity_1(main)}}


def _strictness(old: Values) -> Values:
    """Whether the patch of extreme shapes is strict, which version 2 says where it decides: at exactly the ratio."""
    rate, shape = old["rate"], old["shape"]
    if not rate.get("patch_strict"):
        return {}
    return {"patch_strict": shape["width"] * rate["width_unit"] / shape["depth"] == rate["patch_ratio"]}


def fingerprint_2(old: Values, precision: str, further: Values | None = None) -> Fingerprint:
    """The fingerprint of version 2.

    Args:
        old: that of version 1.
        precision: that the run was computed in, fp32 or bf16.
        further: name of a further held-out set -> hash of its corpus, where version 1 had the name of its folder.
    """
    spikes = {**_without(old["spikes"], "policy"), **SPIKE_LIMITS} if "spikes" in old else None
    new = {
        **old,
        "rate": {"batch_factor": 1.0, **old["rate"], **_strictness(old)},
        "precision": precision,
        "further_validation": {**old.get("further_validation", {}), **(further or {})},
        "spikes": spikes,
        "parts": PARTS,
    }
    if old["cooldown"] is None:
        return new
    parent = identity_of({**new, "cooldown": None})
    return {**new, "cooldown": {**old["cooldown"], "parent": parent}}


def _main_run(config: Values, corpus_hash: str) -> Fingerprint:
    batch_tokens, validation = int(config["batch_tokens"]), config["validation"]
    spikes = config.get("spikes", {"policy": "stop"})  # the first runs had no such options
    factor = _batch_factor(config, batch_tokens)
    cadences = {"validation": validation["every_tokens"], "checkpoint": config["checkpoint"]["every_tokens"]}
    return {
        "shape": {**_only(config["shape"], "width", "depth"), "head_size": config["suite"]["head_size"]},
        "vocab_size": config["tokenizer"]["vocab_size"],
        "seq_len": config["seq_len"],
        "corpus": corpus_hash,
        "batch_tokens": batch_tokens,
        "steps": _steps(config, batch_tokens),
        "rate": {
            "lr_base": config["lr_base"],
            "width_unit": config["suite"]["width_unit"],
            **config["lr_rule"],
            **({} if factor == 1 else {"batch_factor": factor}),
        },
        "schedule": dict(config["schedule"]),
        "cooldown": None,
        "optim": dict(config["optim"]),
        **_only(config, "precision", "seed", "order_seed"),
        "validation_tokens": validation["tokens"],
        **({"further_validation": dict(validation["further"])} if validation.get("further") else {}),
        **({"spikes": {**spikes, "every_tokens": cadences}} if spikes["policy"] == "rollback" else {}),
    }


def _batch_factor(config: Values, batch_tokens: int) -> float:
    scaling = config.get("lr_batch_scaling", "none")
    if scaling == "none":
        return 1.0
    ratio = float(batch_tokens / config["lr_batch_reference"])
    return math.sqrt(ratio) if scaling == "sqrt" else ratio


def _steps(config: Values, batch_tokens: int) -> int:
    tokens = int(config["tokens"])
    return math.ceil(tokens / batch_tokens) if config["tokens_rounding"] == "up" else tokens // batch_tokens


def _branch_step(config: Values, main: Values) -> int:
    """The checkpoint nearest to cooldown.from_tokens; the last step has one, whatever the cadence."""
    every = math.ceil(config["checkpoint"]["every_tokens"] / main["batch_tokens"])
    wanted, last = config["cooldown"]["from_tokens"] / main["batch_tokens"], int(main["steps"])
    regular = min(round(wanted / every), last // every) * every
    return regular if abs(wanted - regular) <= abs(wanted - last) else last


def _only(values: Values, *keys: str) -> dict[str, Any]:
    return {key: values[key] for key in keys}


def _without(values: Values, key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}
