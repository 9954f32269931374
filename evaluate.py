"""Held-out loss of models that exist: `python evaluate.py model=FOLDER corpus=stdlib-bytes`."""

from shapelaw.verbs.main import main

if __name__ == "__main__":
    main("evaluate")
