"""What a run's tracked record says of it from the start."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from shapelaw.config import Precision, TrainConfig
from shapelaw.fingerprint import Fingerprint
from shapelaw.planned_run import PlannedRun
from shapelaw.template import Template
from shapelaw.tracking import OWN, SUITE_TAG, RunInfo
from shapelaw.training.sizes import Sizes, sizes_of


def run_info(
    config: TrainConfig, planned: PlannedRun, tags: dict[str, str], unique_tokens: int | None = None
) -> RunInfo:
    """Name, parameters and tags of a tracked run.

    Args:
        config, planned: the run.
        tags: further ones.
        unique_tokens: different training tokens that it draws from; None where that is not known.
    """
    shape, sizes = planned.shape, sizes_of(planned)
    params: dict[str, Any] = {
        "suite": planned.suite.name,
        "width": shape.width,
        "depth": shape.depth,
        "head_size": shape.head_size,
        "params": sizes.params,
        "vocab_size": planned.vocab_size,
        "seq_len": planned.seq_len,
        "batch_tokens": planned.batch_tokens,
        "tokens": planned.tokens,
        "lr_base": config.lr_base,
        "lr_eff": planned.lr_eff,
        "lr_rule": config.lr_rule.name.value,
        "schedule": config.schedule.kind.value,
        "warmup_tokens": config.schedule.warmup_tokens,
        "cooldown": config.cooldown.fraction,
        "cooldown_from_tokens": planned.first_step * planned.batch_tokens,
        "seed": config.seed,
        "flops_per_token": sizes.flops_per_token,
        "num_devices": config.devices * config.num_nodes,
    }
    how = planned.annealing
    params |= {"cooldown.name": how.name, "cooldown.final_factor": how.final_factor} if planned.parent else {}
    params |= {} if unique_tokens is None else {"unique_tokens": unique_tokens}
    params = _chosen(planned.fingerprint) | params | (_of_own_model(planned, sizes) if planned.model.own else {})
    branch = (
        {"shapelaw.continues": planned.parent, "shapelaw.from_step": str(planned.first_step)} if planned.parent else {}
    )
    suite = {"shapelaw.suite": config.suite.name, SUITE_TAG: planned.suite.to_json()}
    tags = {**suite, "shapelaw.folder": str(Path(planned.folder).absolute()), **tags, **branch}
    if config.sweep.name:
        tags["shapelaw.sweep_name"] = params["sweep"] = config.sweep.name
    return RunInfo(planned.identity, "train", planned.label, params, tags, config.tracker.parent_run_id)


def _of_own_model(planned: PlannedRun, sizes: Sizes) -> dict[str, Any]:
    """What is told of a user's model beside its shape: its reference, its options, what is counted of it, its own columns."""
    counts = {
        "params_no_embedding": sizes.params_no_embedding,
        "params_no_embedding_and_head": sizes.params_no_embedding_and_head,
    }
    columns = {**planned.model.options, **counts, **sizes.columns}
    return {"model": planned.model.name} | {f"{OWN}{name}": value for name, value in columns.items()}


def _chosen(fingerprint: Fingerprint) -> dict[str, Any]:
    """The other choices of a run that a sweep may vary, under the names by which they are given."""
    if "trainer" in fingerprint:
        return _told(fingerprint)
    out = {f"{group}.{key}": value for group in ("optim", "schedule") for key, value in fingerprint[group].items()}
    out |= {key: fingerprint[key] for key in ("order_seed", "precision")} | {"corpus": fingerprint["corpus"][:12]}
    model = fingerprint["parts"]["model"]
    out["architecture"] = f"shapelaw {model}" if isinstance(model, int) else model[:12]  # a version, or a file's hash
    del out["schedule.kind"], out["schedule.warmup_tokens"]  # schedule, warmup_tokens
    return out


def _told(fingerprint: Fingerprint) -> dict[str, Any]:
    """What a program was told, and which one it is: nothing else of the configuration is known to hold for it."""
    trainer, corpus, precision = (fingerprint[key] for key in ("trainer", "corpus", "precision"))
    code = json.dumps([trainer["command"], trainer["files"]], sort_keys=True)
    out = {**trainer["values"], "trainer": Template(trainer["command"]).program}
    out["architecture"] = f"{out['trainer']} {hashlib.sha256(code.encode()).hexdigest()[:12]}"
    out |= {"corpus": corpus[:12]} if corpus else {}
    return out | ({"precision": precision} if precision != Precision.auto.value else {})
