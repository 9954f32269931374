"""One figure of the catalogue: its tables, how to draw them, and notes for the reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from shapelaw.figures.evidence import Evidence

Tables = Mapping[str, pd.DataFrame]
"""What a figure shows, by name; written as CSV beside it."""


@dataclass(frozen=True)
class Entry:
    """A figure that a report may hold.

    Args:
        name: of its files, such as `fig06_rainbow`.
        number: of the paper's figure, such as `Fig 6`; empty for one that the paper does not have.
        title: heading.
        tables: what it shows; raises `UserError` (`CannotDraw` where the data are at fault) with the reason.
        draw: pure: tables to a picture.
        caption: what a reader must know: what is shown and, of the paper's own runs, where and why it differs.
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
    """A caption that is the same for all runs but for what is said of the published ones and `{evidence.refits}`."""

    def caption(evidence: Evidence, tables: Tables) -> str:
        text = f"{ours} {of_the_paper}".strip() if evidence.published else ours
        return text.format(evidence=evidence)

    return caption
