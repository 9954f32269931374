"""shapelaw: from small training runs to the shape, rate and token count of a large one.

    from shapelaw import fit, load_runs

    result = fit(load_runs("gemstones", subset="hot_100b+"), law="interaction", bootstrap=dict(n=1000))
    result.parameters, result.intervals, result.flags

These names are loaded on first use, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shapelaw.errors import UserError
    from shapelaw.fitting.compare import Comparison, compare
    from shapelaw.fitting.fit import fit
    from shapelaw.fitting.result import FitResult, load_fit
    from shapelaw.fitting.spec import FitSpec
    from shapelaw.fitting.splits import Holdout
    from shapelaw.runs import RunsTable, load_runs

if sys.version_info < (3, 11):
    raise SystemExit(f"shapelaw needs Python 3.11 or newer; this is {sys.version.split()[0]}, {sys.executable}")

__version__ = "0.1.0"
_HOMES = {
    "UserError": "shapelaw.errors",
    "Comparison": "shapelaw.fitting.compare",
    "compare": "shapelaw.fitting.compare",
    "fit": "shapelaw.fitting.fit",
    "FitSpec": "shapelaw.fitting.spec",
    "Holdout": "shapelaw.fitting.splits",
    "FitResult": "shapelaw.fitting.result",
    "load_fit": "shapelaw.fitting.result",
    "RunsTable": "shapelaw.runs",
    "load_runs": "shapelaw.runs",
}

__all__ = [
    "Comparison",
    "FitResult",
    "FitSpec",
    "Holdout",
    "RunsTable",
    "UserError",
    "compare",
    "fit",
    "load_fit",
    "load_runs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'shapelaw' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
