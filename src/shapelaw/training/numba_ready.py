"""What numba sets up at its first call, which takes half a second: a process from which others are forked imports this module,
and they find it done. Without numba there is nothing to do."""

from __future__ import annotations

from shapelaw.extras import installed

if installed("numba"):
    import numba

    @numba.njit("void()")  # types that are given are compiled at once
    def _nothing() -> None:
        pass
