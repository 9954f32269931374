"""One figure of the catalogue: its tables, how to draw them, and notes for the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from shapelaw.figures.evidence import Evidence

Tables = Mapping[str, pd.DataFrame]
"""Name -> table of a figure; written as CSV beside it."""


@dataclass(frozen=True)
class Entry:
    """A figure that a report may hold.

    Args:
        name: name of its files, such as `fig06_rainbow`.
        number: number of the paper's figure, such as `Fig 6`; empty if the paper has no such figure.
        title: heading.
        tables: its data; raises `UserError` (`CannotDraw` if the data are at fault) with the reason.
        draw: pure function from tables to a picture.
        caption: what the figure shows and, for the paper's own runs, where and why it differs.
    """

    name: str
    number: str
    title: str
    tables: Callable[[Evidence], Tables]
    draw: Callable[[Tables], Figure]
    caption: Callable[[Evidence, Tables], str]

    @property
    def heading(self) -> str:
        """Title with the paper's number."""
        return f"{self.title} ({self.number} of the paper)" if self.number else self.title


def said(ours: str, of_the_paper: str = "") -> Callable[[Evidence, Tables], str]:
    """A caption that is the same for all runs, except for a part on the published ones and `{evidence.refits}`."""

    def caption(evidence: Evidence, tables: Tables) -> str:
        text = f"{ours} {of_the_paper}".strip() if evidence.published else ours
        return text.format(evidence=evidence)

    return caption
