"""The whole rainbow of Gemstones' Fig 6: 24 lines with 1,000 run-level refits each, and how long they take.

    python benchmarks/rainbow.py [--n 1000]

Asked: under 2 minutes on 2 cores. The first fit, which compiles the solver or loads it from the cache, is timed apart.
"""

from __future__ import annotations

import argparse
import time

import pandas as pd

from shapelaw.config import BootstrapOptions
from shapelaw.fitting.rainbow import LINES, rainbow


def main() -> None:
    """Print the table and the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=1000, help="refits of each line")
    options = BootstrapOptions(n=parser.parse_args().n)
    started = time.perf_counter()
    rainbow(LINES[:1], BootstrapOptions(n=2))
    compiled = time.perf_counter()
    wall, cpu = [], []
    rows = []
    for line in LINES:
        before, before_cpu = time.perf_counter(), time.process_time()
        rows.append(rainbow([line], options))
        wall.append(time.perf_counter() - before)
        cpu.append(time.process_time() - before_cpu)
    table = pd.concat(rows, ignore_index=True).assign(seconds=wall, cpu_seconds=cpu)
    with pd.option_context("display.width", 200, "display.max_columns", None, "display.max_rows", None):
        print(table.drop(columns="flags").to_string(float_format="{:.4f}".format))
    print(
        f"first fit {compiled - started:.1f} s; {len(LINES)} lines x {options.n} refits: {sum(wall):.1f} s wall", end=""
    )
    print(f", {sum(cpu):.1f} s CPU")


if __name__ == "__main__":
    main()
