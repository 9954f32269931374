"""Faults that are really made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import SmallDisk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], SmallDisk]]:
    """Makes file systems of a few megabytes that can be filled and made read only; needs root."""
    disks: list[SmallDisk] = []

    def make(megabytes: int) -> SmallDisk:
        folder = tmp_path / f"disk{len(disks)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "shapelaw-test", str(folder)]
        made = subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
        if made is None or made.returncode:
            pytest.skip(f"no file system can be mounted here ({made.stderr.strip() if made else 'not root'})")
        disks.append(SmallDisk(folder))
        return disks[-1]

    yield make
    for disk in disks:
        subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)
