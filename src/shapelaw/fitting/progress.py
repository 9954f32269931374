"""Progress of many refits in a notebook: one display that is updated while they run and removed at the end."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

AFTER_SECONDS = 1.0
"""Work that ends sooner shows nothing."""
EVERY_SECONDS = 0.3


class Progress:
    """Counts finished work, and displays the count in a notebook only.

    Args:
        total: amount of work.
        what: name of its units, in the plural.
    """

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what, self.done = total, what, 0
        self._begun = self._last = time.monotonic()
        self._lock = threading.Lock()
        self._handle: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": "", "text/html": ""}, raw=True)

    def step(self, count: int = 1) -> None:
        """Count finished work; only the thread that the notebook waits for displays it."""
        with self._lock:
            self.done += count
        if threading.current_thread() is threading.main_thread():
            self.show()

    def show(self) -> None:
        """Update the display, if it is time."""
        now = time.monotonic()
        if now - self._begun < AFTER_SECONDS or now - self._last < min(EVERY_SECONDS, AFTER_SECONDS):
            return
        self._last = now
        said = f"{self.done} of {self.total} {self.what}"
        bar = f'<progress value="{self.done}" max="{self.total}"></progress> {said}'
        if self._handle is not None:
            self._handle.update({"text/plain": said, "text/html": bar}, raw=True)
        elif _in_notebook():
            from IPython.display import display

            content = {"text/plain": said, "text/html": bar}
            self._handle = display(content, raw=True, display_id=True)  # type: ignore[no-untyped-call]


def _in_notebook() -> bool:
    """Whether IPython runs this in a kernel, whose displays can be updated, unlike those of its terminal."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
