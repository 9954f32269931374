"""A run of a sweep to a tracked run: `python train.py`, `python train.py -m 'shape=glob(*)' lr_base=5,2.5`."""

from shapelaw.verbs.main import main

if __name__ == "__main__":
    main("train")
