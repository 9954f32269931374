"""Sizes of activations and updates against width and depth, before a sweep is paid for: `python coordinates.py`."""

from pathlib import Path

from shapelaw.cli import main
from shapelaw.coordinates import check

if __name__ == "__main__":
    main(Path(__file__).resolve().parent, "coordinates", check)
