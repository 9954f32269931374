"""False alarms of the spike detector on real curves, at the committed settings. Needs `python prepare.py` (nano).

    python benchmarks/detector.py

1. the published curves of the Gemstones: held-out losses, one in 477 steps, of 22 runs to 350B tokens and 20 at half the rate
2. training losses and gradient norms of every step of nano_wide runs made here, at its own rate, at half and at twice that, to
   the end of a cooldown, and one of 4,000 steps
3. likewise of nano_wide runs that diverge: every one of them is to be told
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.runs import load_runs
from shapelaw.tracking.journal import JOURNAL, records
from shapelaw.training.spikes import Detector, RunSpikeRule
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import set_environment

ROOT = Path(__file__).resolve().parents[1]
EVERY = ("tracker.log_every_steps=1", "spikes=ignore", "accelerator=cpu", f"data_dir={ROOT}/outputs/corpora")
SWEEPS = (
    ("shape=32x2,32x8,64x1,64x4,128x2,256x1", "lr_base=5,2.5,10", "cooldown=none"),
    ("shape=64x1", "lr_base=5", "cooldown=none,linear10"),
    ("shape=32x2", "lr_base=5", "tokens=8192000", "data.max_epochs=2"),
)
DIVERGING = (("shape=32x2,64x4,256x1", "lr_rule=none", "lr_base=5"),)
Curve = tuple[Sequence[float], Sequence[float]]
"""Losses and gradient norms, step by step; a norm of 0 was not measured."""


def rule_of(policy: str, vocab_size: int, warmup: int) -> RunSpikeRule:
    """The rule of conf/spikes/POLICY.yaml for a vocabulary and steps of warm-up."""
    with initialize_config_dir(str(ROOT / "conf")):
        config: TrainConfig = to_dataclass(compose("train", [f"spikes={policy}"]))
    return RunSpikeRule.of(config.spikes, vocab_size, warmup)


def alarms(curve: Curve, rule: RunSpikeRule) -> int:
    """Spikes told by a detector that looks every ten steps."""
    losses, norms = curve
    detector = Detector(rule)
    for start in range(0, len(losses), 10):
        detector.look(start + 1, losses[start : start + 10], norms[start : start + 10])
    return detector.spikes


def published() -> Iterator[Curve]:
    """Every run's held-out losses in the order of tokens."""
    for subset in ("hot_100b+_477", "lr_ablation_hot_477"):
        for _, rows in load_runs("gemstones", subset=subset).kept.sort_values("tokens").groupby("run"):
            yield rows["loss"].tolist(), [0.0] * len(rows)


def trained(folder: Path, sweeps: Sequence[tuple[str, ...]]) -> Iterator[Curve]:
    """Curves of nano_wide runs made now."""
    elsewhere = (f"outputs_dir={folder}", f"tracker.uri=sqlite:///{folder}/mlflow.db")
    for sweep in sweeps:
        command = [sys.executable, str(ROOT / "train.py"), "-m", *sweep, *EVERY, *elsewhere]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | {"SHAPELAW_SUITE": "nano_wide"})
    for path in sorted(folder.glob("runs/nano_wide/*")):
        values = [r["values"] for r, _ in records(path / JOURNAL) if "train/loss" in r.get("values", {})]
        yield [float(v["train/loss"]) for v in values], [float(v["train/grad_norm"]) for v in values]


def count(title: str, curves: Sequence[Curve], vocab_size: int, warmup: int) -> None:
    """Print the alarms of every policy's rule, for a vocabulary and steps of warm-up."""
    steps = sum(len(losses) for losses, _ in curves)
    for policy in ("stop", "rollback"):
        told = [alarms(curve, rule_of(policy, vocab_size, warmup)) for curve in curves]
        print(f"{title}: {len(curves)} curves, {steps:,} points, spikes={policy}: {sum(told)} alarms", flush=True)


def main() -> None:
    """Print the counts."""
    os.environ["SHAPELAW_ROOT"] = str(ROOT)
    set_environment(ROOT)
    store_schemas()
    count("published held-out losses", list(published()), vocab_size=50_304, warmup=1)
    with tempfile.TemporaryDirectory() as name:
        curves = list(trained(Path(name), SWEEPS))
    count("training losses and gradient norms of nano_wide runs", curves, vocab_size=256, warmup=10)
    with tempfile.TemporaryDirectory() as name:
        diverging = list(trained(Path(name), DIVERGING))
    count("nano_wide runs at a rate that no shape divides", diverging, vocab_size=256, warmup=10)
    falls = [np.mean(losses[:10]) - np.mean(losses[-10:]) for losses, _ in curves]
    print(f"these runs learnt: their losses fell by {min(falls):.2f} to {max(falls):.2f} nats")


if __name__ == "__main__":
    main()
