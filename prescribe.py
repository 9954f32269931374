"""A fitted law to the best size for a budget: `python prescribe.py objective=flops budget=1e21`."""

from pathlib import Path

from shapelaw.verbs.main import main
from shapelaw.verbs.prescribe import prescribe_size

if __name__ == "__main__":
    main(Path(__file__).resolve().parent, "prescribe", prescribe_size)
