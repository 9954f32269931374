"""Freed memory is kept: later steps fault no new pages in."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from shapelaw.model.cpu_memory import keep_freed_memory
kept = keep_freed_memory()
def step():
    return torch.ones(16 * 2**20).mul_(2.0)[0].item()  # 64 MiB, 16384 pages
for _ in range(6):  # until the heap has found its size
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's malloc")
def test_freed_memory_is_used_again() -> None:
    ran = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True, timeout=60)
    kept, faults = ran.stdout.split()
    assert kept == "True"
    assert int(faults) < 1000
