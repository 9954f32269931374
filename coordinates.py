"""Sizes of activations and updates against width and depth, before a sweep is paid for: `python coordinates.py`."""

from shapelaw.verbs.main import main

if __name__ == "__main__":
    main("coordinates")
