"""How a notebook shows a runs table. The code that draws is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class Shown:
    """A table as a line, as HTML and as a picture."""

    @property
    def kept(self) -> pd.DataFrame:
        """Rows that are not excluded."""
        raise NotImplementedError

    def __repr__(self) -> str:
        kept = self.kept
        ranges = [
            f"{name} {kept[name].min():.3g} to {kept[name].max():.3g}"
            for name in ("width", "depth", "params", "tokens", "loss")
            if name in kept and kept[name].notna().any()
        ]
        return f"RunsTable: {len(kept)} rows of {kept['run'].nunique()} runs; {', '.join(ranges)}"

    def _repr_html_(self) -> str:
        from shapelaw import notebook

        return notebook.runs_html(self)  # type: ignore[arg-type]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Loss against FLOPs, with one line per run, on matplotlib's axes; a new figure if `ax` is None."""
        from shapelaw import notebook

        return notebook.plot_runs(self, ax)  # type: ignore[arg-type]
