"""Processes of a test that compute together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def together(processes: int, script: Path, *arguments: str, folder: Path) -> None:
    """Runs a script in so many processes; the first that fails ends the others, and is heard."""
    notes = [folder / f"stderr-{rank}.txt" for rank in range(processes)]
    command = [sys.executable, str(script), *arguments]
    started = []
    for rank, note in enumerate(notes):
        with note.open("w") as stderr:
            started.append(subprocess.Popen(command, env={**os.environ, "RANK": str(rank)}, stderr=stderr))
    try:
        while None in (codes := [process.poll() for process in started]) and not any(codes):
            time.sleep(0.1)
    finally:
        for process in started:
            process.kill()
            process.wait()
    codes = [process.returncode for process in started]
    assert codes == [0] * processes, f"{codes}\n" + "\n".join(note.read_text() for note in notes)
