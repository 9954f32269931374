"""Many cells composed at once: Hydra takes some 60 ms a cell, so large sweeps are shared out over forked processes."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from omegaconf import DictConfig

from shapelaw.devices import cores

Compose = Callable[[int, list[str]], DictConfig]
WORTH_FORKING = 32
"""Fewer cells than this are composed here."""
CHUNK = 16
"""Cells that a process takes at a time."""

_compose: Compose | None = None


def compose_all(compose: Compose, lines: Sequence[Sequence[str]], first: int) -> list[DictConfig]:
    """The configuration of every override list, in their order.

    Args:
        compose: composes one, from its number and its overrides.
        lines: override lists.
        first: number of the first.

    Raises:
        What `compose` raises, for the first list that it refuses.
    """
    cells = [(number, list(line)) for number, line in enumerate(lines, first)]
    workers = min(cores(), len(cells) // (WORTH_FORKING // 2))
    with _uncollected():
        if workers < 2:
            return [compose(*cell) for cell in cells]
        with multiprocessing.get_context("fork").Pool(workers, _take_over, (compose,)) as pool:
            composed = pool.imap(_try, cells, chunksize=CHUNK)
            # an error is raised here, as Hydra's own cannot be sent from one process to another
            return [compose(*cell) if config is None else config for cell, config in zip(cells, composed, strict=True)]


def _take_over(compose: Compose) -> None:
    """In a forked process: what it composes with."""
    global _compose
    _compose = compose


def _try(cell: tuple[int, list[str]]) -> DictConfig | None:
    """A cell's configuration, or None where it is refused."""
    assert _compose is not None
    try:
        return _compose(*cell)
    except Exception:
        return None


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without cyclic garbage collection, which walks all the configurations that are already there, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
