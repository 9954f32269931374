"""Speed of the fitting core as ratios and CPU-seconds, everything in one process and one thread.

    OMP_NUM_THREADS=1 python benchmarks/fit_speed.py            # half a minute
    OMP_NUM_THREADS=1 python benchmarks/fit_speed.py --whole    # eq 3's full grid and 1% of eq 2's too

Items: starts per CPU-second over the authors' function (scipy L-BFGS-B, numerical gradient) for 2, 3 and 4 terms, each
with the share of starts that reached the best optimum; 22 published fits x 64 starts; 4,000 bootstraps of the Chinchilla
fit; law=auto with its hold-outs on 770 rows; eq 1 on a million rows, with the same optimum by starts on every row (--whole); a
law of one's own in Python against the same law compiled; the full grids; the first fit of a fresh process.
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

import shapelaw.fitting.newton as newton_module
from shapelaw import fit
from shapelaw.config import BootstrapOptions
from shapelaw.fitting.bootstrap import bootstrap
from shapelaw.fitting.newton import Newton
from shapelaw.fitting.solve import solve
from shapelaw.fitting.solvers import SOLVERS
from shapelaw.fitting.spec import FitData, FitSpec
from shapelaw.fitting.starts import grid_count, grid_starts, random_starts, spread_indices
from shapelaw.laws import Columns, Law, get_law
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
    print(f"22 published fits x 64 starts: {spent:.2f} CPU-s (asked 1)")


def chinchilla_bootstraps() -> None:
    """4,000 refits of the Chinchilla data by rows."""
    spec = FitSpec.of("params_tokens", delta=1e-3, bootstrap=BootstrapOptions(n=4000, by="rows"))
    data = FitData.of(load_runs("chinchilla"), spec)
    solution = solve(data, spec)
    spent = cpu(lambda: bootstrap(data, spec, solution))
    print(f"4,000 bootstraps of the Chinchilla fit: {spent:.2f} CPU-s (asked 0.4)")


def chosen_law() -> None:
    """law=auto with its hold-outs, without refits."""
    runs = load_runs("gemstones", subset="hot_100b+")
    fit(runs, law="auto", delta=1e-3)
    spent = cpu(lambda: fit(runs, law="auto", delta=1e-3))
    print(f"law=auto on {len(runs)} rows: {spent:.2f} CPU-s (asked 3)")


def million_rows(whole: bool) -> None:
    """Eq 1 on 5,000 runs of 200 validations; the sample's detour against starts that descend on every row."""
    rng, law = np.random.default_rng(0), get_law("params_tokens")
    run = np.repeat(np.arange(5000), 200)
    params = np.exp(rng.uniform(np.log(1e7), np.log(1e10), 5000))[run]
    tokens = np.exp(rng.uniform(np.log(1e9), np.log(1e12), 5000))[run] * np.tile(np.linspace(0.1, 1, 200), 5000)
    noise = 5e-3 * rng.standard_normal(5000)[run] + 1e-3 * rng.standard_normal(len(run))
    columns = {"params": params, "tokens": tokens}
    loss = law.predict({"A": 400, "B": 400, "alpha": 0.34, "beta": 0.28, "E": 1.7}, columns) * np.exp(noise)
    spec, data = FitSpec(delta=1e-3), FitData(law, "total", columns, loss, run.astype(str))
    begin = time.process_time()
    found = solve(data, spec)
    print(f"1e6 rows of 5,000 runs by eq 1: {time.process_time() - begin:.1f} CPU-s (asked 30)")
    if whole:
        newton_module.LONG, kept = len(run) + 1, newton_module.LONG
        begin = time.process_time()
        every = solve(data, spec)
        newton_module.LONG = kept
        print(
            f"  with every start on every row {time.process_time() - begin:.1f} CPU-s; objectives differ by "
            f"{abs(found.objective / every.objective - 1):.1e}, theta by {np.abs(found.theta - every.theta).max():.1e}"
        )


class OwnLaw(Law):
    """Eq 1, known through its prediction alone."""

    name, formula, source = "own", "L = A/params^alpha + B/tokens^beta + E", "this benchmark"
    predictors, parameters, irreducible = ("params", "tokens"), ("A", "B", "alpha", "beta", "E"), "E"
    log_parameters = frozenset({"A", "B", "E"})

    def log_prediction(self, theta: np.ndarray, columns: Columns) -> np.ndarray:
        sizes = np.asarray(columns["params"]) ** -theta[2], np.asarray(columns["tokens"]) ** -theta[3]
        return np.log(np.exp(theta[0]) * sizes[0] + np.exp(theta[1]) * sizes[1] + np.exp(theta[4]))


def own_law() -> None:
    """A whole fit of a law in Python, over that of the same law compiled."""
    runs, found = load_runs("gemstones", subset="hot_100b+"), []
    for law in (get_law("params_tokens"), OwnLaw()):
        spec = FitSpec.of(law, delta=1e-3, counting="total")
        data = FitData.of(runs, spec)
        solve(data, spec)
        begin = time.process_time()
        solution = solve(data, spec)
        found.append((time.process_time() - begin, solution.objective))
    (compiled, lowest), (own, objective) = found
    print(
        f"a law of one's own in Python: {own:.2f} CPU-s, {own / compiled:.0f} times the compiled one's (asked 20); "
        f"objectives differ by {abs(objective / lowest - 1):.1e}"
    )


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
        "spec = FitSpec.of('params_tokens'); x = np.geomspace(1e8, 1e10, 40); c = {'params': x, 'tokens': np.roll(x, 7)}\n"
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
    chosen_law()
    own_law()
    million_rows(options.whole)
    grid("params_tokens", 1.0, 4)
    grid("width_depth_tokens", 1.0 if options.whole else 0.02, 180)
    if options.whole:
        grid("width_depth_params_tokens", 0.01, float("nan"))
    first_fit()


if __name__ == "__main__":
    main()
