"""A fitted law to the best size for a budget: `python prescribe.py objective=flops budget=1e21`."""

from shapelaw.verbs.main import main

if __name__ == "__main__":
    main("prescribe")
