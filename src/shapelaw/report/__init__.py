"""The content of a report, and the page that shows it."""

from shapelaw.report.content import Figure, FitRow, LeftOut, NextRun, Report
from shapelaw.report.page import write

__all__ = ["Figure", "FitRow", "LeftOut", "NextRun", "Report", "write"]
