"""Places and types that tests share; fixtures are in conftest.py."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from prepared import Started
from shapelaw.config import NamedConfig, ObjectiveConfig, PrescribeConfig, RulesConfig, ShapeLimits, TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import load_corpus
from shapelaw.planned_run import PlannedRun, corpus_folder, plan_run
from shapelaw.run_state import State

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "suites" / "tiny"
Script = Callable[..., subprocess.CompletedProcess[str]]
Sweep = Callable[..., subprocess.CompletedProcess[str]]
Program = Callable[..., subprocess.CompletedProcess[str]]
InProcess = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Started]
Compose = Callable[..., DictConfig]
Door = Callable[..., tuple[int, str]]


def prepared(composed: Compose, *overrides: str) -> tuple[TrainConfig, PlannedRun]:
    """Configuration and run of a run on this machine's CPU."""
    config: TrainConfig = to_dataclass(composed("accelerator=cpu", *overrides))
    manifest = load_corpus(corpus_folder(config)).manifest
    return config, plan_run(config, manifest.corpus_hash, manifest.tokenizer)


def train(composed: Compose, *overrides: str, show: Callable[[State], None] = lambda state: None) -> PlannedRun:
    """Trains a run in this process."""
    config, planned = prepared(composed, *overrides)
    train_run(config, planned, show)
    return planned


def train_run(config: TrainConfig, planned: PlannedRun, show: Callable[[State], None] = lambda state: None) -> None:
    """Trains a run in this process, on corpora that are opened and checked as its plan does."""
    from shapelaw.training.corpora import Library
    from shapelaw.training.run import train

    train(config, planned, Library().of(config, check=True), {}, show)


def asked(**options: Any) -> PrescribeConfig:
    """Options as conf/prescribe.yaml has them, without a suite or studies, and these."""
    groups = {"objective": ObjectiveConfig(name="flops"), "rules": RulesConfig(), "limits": ShapeLimits()}
    places = {"outputs_dir": "", "data_dir": "", "flops": NamedConfig()}
    usual: dict[str, Any] = {"least": "cost", "space": "feasible", "studies": False, **groups, **places}
    return PrescribeConfig(**{**usual, **options})


PUBLISHED = {
    (256, 23): 48_377_600,
    (256, 27): 52_311_808,
    (384, 13): 66_758_784,
    (512, 11): 94_776_832,
    (256, 71): 95_588_096,
    (512, 12): 98_710_016,
    (512, 13): 102_643_200,
    (768, 3): 103_814_400,
    (256, 80): 104_440_064,
    (512, 14): 106_576_384,
    (512, 16): 114_442_752,
    (384, 36): 116_518_272,
    (768, 45): 475_468_032,
    (1280, 15): 497_457_920,
    (1792, 7): 517_499_136,
    (1024, 28): 543_482_880,
    (1280, 36): 1_013_607_680,
    (2560, 8): 1_044_032_000,
    (1792, 18): 1_047_397_120,
    (2048, 27): 1_904_850_944,
    (1536, 50): 1_924_161_024,
    (3072, 12): 2_007_837_696,
}
"""(width, depth) -> parameters of the Gemstones (arXiv 2502.06857), as in the rows of every published run."""


@dataclass(frozen=True)
class SmallDisk:
    """A file system of its own."""

    folder: Path

    def fill(self) -> Path:
        """Leave no byte free; the file that takes them."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (2**20, 2**12, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"\0" * size):
                        pass
        return filler

    def set_writable(self, writable: bool) -> None:
        """Let it be written to, or not."""
        mode = "rw" if writable else "ro"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)
