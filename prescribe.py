"""A fitted law to the best size for a budget: `python prescribe.py objective=flops budget=1e21`."""

from pathlib import Path

from shapelaw.cli import main
from shapelaw.prescribe.task import prescribe_size

if __name__ == "__main__":
    main(Path(__file__).resolve().parent, "prescribe", prescribe_size)
