"""A cell of a sweep to a tracked run: `python train.py`, `python train.py -m 'shape=glob(*)' lr_base=5,2.5`."""

from pathlib import Path

from shapelaw.verbs.main import main
from shapelaw.verbs.train import TrainTask

if __name__ == "__main__":
    main(Path(__file__).resolve().parent, "train", TrainTask())
