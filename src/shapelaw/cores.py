"""How many processor cores there are to work on."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use; where the system does not say (macOS), all that the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
