"""A runs table to a fitted law: `python fit.py`, `python fit.py -m delta=1e-3,1e-4,1e-5`."""

from shapelaw.verbs.main import main

if __name__ == "__main__":
    main("fit")
