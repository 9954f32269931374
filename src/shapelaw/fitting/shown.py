"""How a notebook shows a fit. The code that draws and prescribes is imported on first use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shapelaw.errors import UserError
from shapelaw.runs.table import RunsTable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LINES, COLUMNS = 24, 160
"""Size of a screen."""


class Shown:
    """A fit that knows its runs: it can show itself as text, HTML, a table or a picture, and prescribe a size."""

    def summary(self) -> str:
        """A few lines for people."""
        raise NotImplementedError

    def fitted_to(self, runs: RunsTable | Path) -> Self:
        """This fit, with its runs: a table, or the file that holds one."""
        object.__setattr__(self, "_runs", runs)
        return self

    @property
    def fitted_runs(self) -> RunsTable:
        """The runs that were fitted.

        Raises:
            UserError: if they are not known, or their file is missing.
        """
        runs = getattr(self, "_runs", None)
        if isinstance(runs, Path) and runs.is_file():
            runs = RunsTable.read(runs)
            object.__setattr__(self, "_runs", runs)
        if not isinstance(runs, RunsTable):
            raise UserError("runs: this fit does not know the table that it was made from; give runs=TABLE")
        return runs

    def __repr__(self) -> str:
        lines = [line if len(line) <= COLUMNS else f"{line[: COLUMNS - 3]}..." for line in self.summary().splitlines()]
        return "\n".join(lines if len(lines) <= LINES else [*lines[: LINES - 1], "  ..."])

    def _repr_html_(self) -> str:
        from shapelaw import notebook

        return notebook.fit_html(self)  # type: ignore[arg-type]

    def table(self) -> pd.DataFrame:
        """A row for every parameter and the exponent: value, low, high, unit, identified.

        >>> import pandas as pd
        >>> from shapelaw import fit
        >>> sizes = pd.DataFrame({"params": [1e8, 2e8, 4e8] * 2, "tokens": [1e9] * 3 + [8e9] * 3})
        >>> runs = sizes.assign(run=range(6), loss=1.5 + 400 / sizes.params**0.34 + 400 / sizes.tokens**0.28)
        >>> round(float(fit(runs).table().loc["alpha", "value"]), 4)
        0.34
        """
        from shapelaw import notebook

        return notebook.table_of(self)  # type: ignore[arg-type]

    def plot(self, kind: str = "loss", runs: RunsTable | None = None, ax: Axes | None = None) -> Axes:
        """Draw the fit on matplotlib's axes.

        Args:
            kind: `loss` (against FLOPs), `residuals`, or `profile` (of the exponent, for fits with profile=True).
            runs: the fitted runs; needed only for a fit that was loaded without them.
            ax: axes to draw on; None makes a new figure.

        Raises:
            UserError: for an unknown kind, or a fit without such a picture.
        """
        from shapelaw import notebook

        return notebook.plot_fit(self, kind, runs, ax)  # type: ignore[arg-type]

    def prescribe(
        self,
        budget: float | None = None,
        *,
        loss: float | None = None,
        runs: RunsTable | None = None,
        space: str = "feasible",
    ) -> Any:
        """The best size for a budget (`shapelaw.prescribe.Prescription`), or the cheapest that reaches a loss.

        Args:
            budget: training FLOPs.
            loss: nats per token.
            runs: the fitted runs; needed only for a fit that was loaded without them.
            space: `feasible` shapes, or `params` for a law without width and depth.

        Raises:
            UserError: unless exactly one of budget and loss is given, or if the law cannot answer the question.
        """
        from shapelaw import notebook

        return notebook.prescribe(self, budget, loss, runs, space)  # type: ignore[arg-type]
