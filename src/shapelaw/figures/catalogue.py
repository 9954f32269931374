"""Every figure that a report may hold: the paper's, in its order, then our own."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shapelaw import figures
from shapelaw.errors import UserError
from shapelaw.figures import style
from shapelaw.figures.entry import Entry
from shapelaw.figures.evidence import Evidence
from shapelaw.files import write_text
from shapelaw.laws.base import UNITS


def _entries() -> Iterator[Entry]:
    """The `ENTRIES` of every sibling module that has some."""
    for module in pkgutil.iter_modules(figures.__path__, "shapelaw.figures."):
        if module.name != __name__:
            yield from getattr(importlib.import_module(module.name), "ENTRIES", ())


CATALOGUE: tuple[Entry, ...] = tuple(sorted(_entries(), key=lambda entry: (not entry.number, entry.name)))


@dataclass(frozen=True)
class Drawn:
    """A figure that was made.

    Args:
        caption: its caption.
        files: PNG, PDF, and its tables as CSV.
    """

    entry: Entry
    caption: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class NotDrawn:
    """A figure that the data cannot show, and why."""

    entry: Entry
    reason: str


def chosen(wanted: Sequence[str] = ()) -> list[Entry]:
    """Entries whose name contains one of the given texts; all entries if none is given.

    Raises:
        UserError: for a text that no name contains.
    """
    for text in wanted:
        if not any(text in entry.name for entry in CATALOGUE):
            raise UserError(f"figures={text}: no such figure; there are {', '.join(entry.name for entry in CATALOGUE)}")
    return [entry for entry in CATALOGUE if not wanted or any(text in entry.name for text in wanted)]


def draw(evidence: Evidence, folder: Path, entries: Sequence[Entry] = CATALOGUE) -> Iterator[Drawn | NotDrawn]:
    """Draw figures one by one into a folder, each with its tables, without those that the data cannot show."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        try:
            yield _drawn(evidence, folder, entry)
        except UserError as error:
            yield NotDrawn(entry, str(error))


def _drawn(evidence: Evidence, folder: Path, entry: Entry) -> Drawn:
    tables = entry.tables(evidence)
    with style.look():
        files = style.save(entry.draw(tables), folder, entry.name, evidence.loss_unit)
    for name, frame in tables.items():
        path = folder / f"{entry.name}_{name}.csv"
        write_text(path, frame.to_csv(index=False), durable=False)
        files.append(path)
    caption = entry.caption(evidence, tables).replace(UNITS["loss"], evidence.loss_unit)
    return Drawn(entry, caption, tuple(files))
