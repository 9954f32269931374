"""Processes of a test that compute together."""

from __future__ import annotations

import os
import time
from pathlib import Path

from prepared import Prepared


def together(prepared: Prepared, processes: int, script: Path, *arguments: str) -> None:
    """Runs a script in so many processes; the first that fails ends the others, and is heard."""
    environment = dict(os.environ)
    started = [prepared.start(script, arguments, environment | {"RANK": str(rank)}) for rank in range(processes)]
    try:
        while None in (codes := [process.poll() for process in started]) and not any(codes):
            time.sleep(0.1)
        for process in started:
            process.kill()
        said = [process.communicate(60)[1] for process in started]
    finally:
        for process in started:
            process.end()
    codes = [process.returncode for process in started]
    assert codes == [0] * processes, f"{codes}\n" + "\n".join(said)
