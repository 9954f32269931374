"""Runs and fits to figures and one page: `python report.py`, `python report.py report=gemstones`."""

from pathlib import Path

from shapelaw.verbs.main import main
from shapelaw.verbs.report import report

if __name__ == "__main__":
    main(Path(__file__).resolve().parent, "report", report)
