"""Runs tables: load, validate, select, exclude with a reason."""

from shapelaw.runs.columns import CANONICAL, REQUIRED
from shapelaw.runs.flops import FLOPS_SOURCES
from shapelaw.runs.load import SOURCES, load_runs
from shapelaw.runs.published import ALIASES
from shapelaw.runs.registry import SUBSETS
from shapelaw.runs.table import RunsTable

__all__ = ["ALIASES", "CANONICAL", "FLOPS_SOURCES", "REQUIRED", "SOURCES", "SUBSETS", "RunsTable", "load_runs"]
