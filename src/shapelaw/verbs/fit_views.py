"""The view of MLflow's page that compares fits: the slope against delta, and what differs."""

from __future__ import annotations

from shapelaw.laws.base import EXPONENT
from shapelaw.tracking_views import differences, parallel, scatter, tags

LOG10_DELTA = "log10_delta"
"""Metric of a fit, for an axis with evenly spaced deltas."""
FITTED = """\
Fits of scaling laws to runs tables. Each is also a folder under `outputs/fits/`, which the tag `shapelaw.folder` names.

* Ask a fit for a size: `shapelaw prescribe fit=FOLDER budget=FLOPs`
* Compare objectives only between fits of equal rows and delta
"""
SETTINGS = ("law", "delta", "subset", "counting")


def fits() -> dict[str, str]:
    """Tags of an experiment of fits."""
    charts = [
        scatter(LOG10_DELTA, EXPONENT),
        scatter(LOG10_DELTA, "objective"),
        differences(),
        parallel(("law", "delta", "subset"), (EXPONENT, "objective")),
    ]
    return tags("fit", charts, SETTINGS, (EXPONENT, "objective"), FITTED)
