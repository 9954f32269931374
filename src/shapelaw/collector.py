"""Python's garbage collector in shapelaw's own processes."""

import gc

NEW_OBJECTS = 20_000
"""Number of new containers after which the collector looks for cycles; Python's own number is 700."""


def collect_seldom() -> None:
    """Let the collector of cycles run less often, from the first import on.

    Starting a run imports some 4,000 modules, whose objects all stay; scanning them again and again takes a sixth of the start
    (train.py with MLflow: 8.1 CPU-s with Python's number, 6.4 with this one).
    """
    gc.set_threshold(NEW_OBJECTS)
