"""Runs and fits to figures and one page: `python report.py`, `python report.py report=gemstones`."""

from pathlib import Path

from shapelaw.cli import main
from shapelaw.report.task import report

if __name__ == "__main__":
    main(Path(__file__).resolve().parent, "report", report)
