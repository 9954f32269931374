"""Runs and fits to figures and one page: `python report.py`, `python report.py report=gemstones`."""

from shapelaw.verbs.main import main

if __name__ == "__main__":
    main("report")
