"""Sizes of activations and updates against width and depth, before a sweep is paid for: `python coordinates.py`."""

from pathlib import Path

from shapelaw.verbs.coordinates import check
from shapelaw.verbs.main import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parent, "coordinates", check)
