"""Speed of the fitting core as ratios and CPU-seconds, everything in one process and one thread.

    OMP_NUM_THREADS=1 python benchmarks/fit_speed.py            # half a minute
    OMP_NUM_THREADS=1 python benchmarks/fit_speed.py --whole    # eq 3's full grid and 1% of eq 2's too

Items: starts per CPU-second over the authors' function (scipy L-BFGS-B, numerical gradient) for 2, 3 and 4 terms, each
with the share of starts that reached the best optimum; 22 published fits x 64 starts; 4,000 bootstraps of the Chinchilla
fit; the full grids; the first fit of a fresh process.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from shapelaw.config import BootstrapOptions
from shapelaw.fitting.bootstrap import bootstrap
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.solve import solve
from shapelaw.fitting.solvers import SOLVERS
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.fitting.starts import grid_count, grid_starts, random_starts, spread_indices
from shapelaw.laws import Law
from shapelaw.runs import load_runs

LAWS = ("params_tokens", "width_depth_tokens", "width_depth_params_tokens")
ASKED = {"params_tokens": 40, "width_depth_tokens": 100, "width_depth_params_tokens": 60}
SHARES = {"params_tokens": 0.8, "width_depth_tokens": 0.8, "width_depth_params_tokens": 0.5}
TWO_TERMS = (
    "cool_begin", "cool_end", "hot", "hot_100b+", "hot_100b+_512x", "hot_120b+_only", "hot_sampled_like_chinchilla",
    "lr_ablation_hot", "lr_ablation_hot_sampled_like_chinchilla", "slim_chinchilla",
)  # fmt: skip
NO_EMBEDDING = ("cool_begin", "cool_end", "hot", "hot_100b+", "hot_120b+_only", "lr_ablation_hot")
FOUR_TERMS = ("cool_end", "hot", "hot_100b+", "hot_120b+_only", "lr_ablation_hot")
PUBLISHED = (
    *(("params_tokens", subset, "total") for subset in TWO_TERMS),
    *(("params_tokens", subset, "no_embedding") for subset in NO_EMBEDDING),
    ("width_depth_tokens", "hot_100b+", "total"),
    *(("width_depth_params_tokens", subset, "total") for subset in FOUR_TERMS),
)
"""The 22 published approach-3 fits at delta 1e-4."""


def published(law: str, subset: str, counting: str = "total") -> tuple[FitData, FitSpec]:
    """A published data set, and its fit."""
    spec = FitSpec.of(law, counting=counting, grid_size=64)
    return FitData.of(load_runs("gemstones", subset=subset), spec), spec


def cpu(work: Callable[[], object]) -> float:
    """CPU-seconds of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def starts_per_second(law: str, slow: int, fast: int) -> None:
    """Ratio of starts per CPU-second on hot_100b+, both from the authors' grid, and the share at the best."""
    data, spec = published(law, "hot_100b+")
    made = data.problem(spec)
    newton, reference = Newton(made), SOLVERS["reference"]
    drawn = random_starts(made.law, fast, np.random.default_rng(0))
    newton.follow(drawn[:2])
    ends = newton.follow(drawn)
    ours = cpu(lambda: newton.follow(drawn)) / fast
    theirs = cpu(lambda: reference.minimise(made, drawn[:slow])) / slow
    share = np.mean(ends.objectives <= ends.objectives.min() * (1 + 1e-6))
    print(
        f"{law:26s} reference {1e3 * theirs:7.1f} ms/start, newton {1e3 * ours:6.3f} ms/start: {theirs / ours:6.0f}x "
        f"(asked {ASKED[law]}x); share at the best {share:.3f} (asked {SHARES[law]})"
    )


def published_fits() -> None:
    """All 22 fits from 64 random and 16 projected starts, polished and hopped."""
    fits = [published(*names) for names in PUBLISHED]
    solve(*fits[0])
    spent = cpu(lambda: [solve(*fit) for fit in fits])
    print(f"22 published fits x 64 starts: {spent:.2f} CPU-s (asked 6)")


def chinchilla_bootstraps() -> None:
    """4,000 refits of the Chinchilla data by rows."""
    spec = FitSpec(delta=1e-3, bootstrap=BootstrapOptions(n=4000, by="rows"))
    data = FitData.of(load_runs("chinchilla"), spec)
    solution = solve(data, spec)
    spent = cpu(lambda: bootstrap(data, spec, solution))
    print(f"4,000 bootstraps of the Chinchilla fit: {spent:.2f} CPU-s (asked 3)")


def spread(law: Law, count: int) -> Iterator[np.ndarray]:
    """`count` points of the authors' grid, evenly spread over it, in blocks."""
    levels = law.start_levels()
    for low in range(0, count, 4096):
        indices = spread_indices(math.prod(map(len, levels)), count)[low : low + 4096]
        places = np.unravel_index(indices, tuple(map(len, levels)))
        yield np.stack([level[place] for level, place in zip(levels, places, strict=True)], axis=1)


def grid(law: str, share: float, asked: float) -> None:
    """A share of the authors' grid of a law on hot_100b+, streamed, with the memory it took."""
    data, spec = published(law, "hot_100b+")
    made = data.problem(spec)
    newton, count = Newton(made), grid_count(made.law)
    blocks = grid_starts(made.law) if share == 1 else spread(made.law, int(count * share))
    tracemalloc.start()
    begin, done = time.process_time(), 0
    for block in blocks:
        newton.follow(block)
        done += len(block)
    spent = time.process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(
        f"{law}: {done:,} of {count:,} grid starts in {spent:.1f} CPU-s, {spent * count / done:.1f} for all "
        f"(asked {asked:g}); peak {peak / 2**20:.1f} MiB"
    )


def first_fit() -> None:
    """Import and first fit of a fresh process, kernels cached by this one."""
    code = (
        "import time; t = time.perf_counter()\n"
        "import numpy as np\n"
        "from shapelaw.fitting.solve import solve\n"
        "from shapelaw.fitting.spec import FitData, FitSpec\n"
        "spec = FitSpec(); x = np.geomspace(1e8, 1e10, 40); c = {'params': x, 'tokens': np.roll(x, 7)}\n"
        "loss = spec.law.predict(dict(A=400, B=400, alpha=.3, beta=.3, E=2), c)\n"
        "solve(FitData(spec.law, 'total', c, loss, np.arange(40)), spec); print(time.perf_counter() - t)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    print(f"fresh process, imports and first fit with cached kernels: {float(done.stdout):.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="the full grid of eq 3 and 1%% of that of eq 2")
    parser.add_argument("--slow", type=int, default=8, help="starts of the reference solver")
    options = parser.parse_args()
    for law in LAWS:
        starts_per_second(law, options.slow, 300)
    published_fits()
    chinchilla_bootstraps()
    grid("params_tokens", 1.0, 4)
    grid("width_depth_tokens", 1.0 if options.whole else 0.02, 180)
    if options.whole:
        grid("width_depth_params_tokens", 0.01, float("nan"))
    first_fit()


if __name__ == "__main__":
    main()
