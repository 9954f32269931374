"""Places and types that tests share; fixtures are in conftest.py."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "tests" / "suites" / "tiny"
Script = Callable[..., subprocess.CompletedProcess[str]]
Sweep = Callable[..., subprocess.CompletedProcess[str]]
Compose = Callable[..., DictConfig]
