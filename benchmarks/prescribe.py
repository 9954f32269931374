"""Prescriptions: one budget over all shapes, and the paper's search over 318.9 million (shape, tokens) triples.

    python benchmarks/prescribe.py

Asked: 0.2 s for one budget over 637,733 shapes; 2 s for the triples, with the minimisers that brute force finds. Brute force
visits the triples of every bin here too, a block of token counts at a time, and its answers are compared.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from shapelaw import fit, load_runs
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.brute import Triples, bin_minima, paper_edges, paper_triples
from shapelaw.prescribe.price import Cost
from shapelaw.prescribe.surface import Surface
from shapelaw.prescribe.world import World

REPEATS = 5


def main() -> None:
    """Print the times and whether the minimisers agree."""
    runs = load_runs("gemstones", subset="hot_100b+")
    for law in ("width_depth_params_tokens", "interaction"):
        result = fit(runs, law=law, bootstrap={"n": 300})
        world, surface = World.of(result, runs), Surface.of(result, refits=False)
        started = time.perf_counter()
        triples = paper_triples(world)
        print(f"\n{law}: {len(triples):,} triples; shapes listed and counted in {time.perf_counter() - started:.2f} s")
        everything = Problem(result, world, intervals=False, shapes=triples.shapes)
        print(
            f"  one budget over {len(triples.shapes.params):,} shapes: {best_of(lambda p=everything: p.best(1e22)):.3f} s"
        )
        suite = Problem(result, world)
        shown = (
            f"{len(suite.surface):,} parameter vectors x {len(suite.shapes.params):,} shapes" if suite.shapes else ""
        )
        print(f"  one budget with intervals, {shown}: {best_of(lambda p=suite: p.best(1e21)):.3f} s")
        relaxed = Problem(result, world, Cost(), "relaxed")
        print(f"  the same, relaxed: {best_of(lambda p=relaxed: p.best(1e21)):.3f} s")
        started = time.perf_counter()
        found = bin_minima(surface, triples, paper_edges())
        taken = time.perf_counter() - started
        started = time.perf_counter()
        brute = brute_force(surface, triples, paper_edges())
        print(f"  triples: {taken:.2f} s; visited one by one: {time.perf_counter() - started:.1f} s; ", end="")
        same = all(np.array_equal(found[name], brute[name]) for name in ("width", "depth", "tokens"))
        print("same minimisers" if same else "OTHER MINIMISERS")


def best_of(work: Callable[[], object]) -> float:
    """Least wall seconds of a few repeats."""
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def brute_force(surface: Surface, triples: Triples, edges: np.ndarray) -> pd.DataFrame:
    """Every triple's loss, put into its bin of FLOPs; the lowest of each bin."""
    bound, costs, shapes = surface.at(triples.shapes), triples.shapes.train_flops, triples.shapes
    assert shapes.width is not None
    assert shapes.depth is not None
    best: dict[int, tuple[float, int, float]] = {}
    for tokens in triples.tokens:
        losses = bound.loss(np.array(math.log(tokens)))[0]
        bins = np.searchsorted(edges, costs * tokens, side="left") - 1
        for b in range(len(edges) - 1):
            inside = np.flatnonzero(bins == b)
            if not len(inside):
                continue
            i = inside[np.argmin(losses[inside])]
            if b not in best or losses[i] < best[b][0]:
                best[b] = (float(losses[i]), int(i), float(tokens))
    rows = [(shapes.width[i], shapes.depth[i], tokens) for _, (_, i, tokens) in sorted(best.items())]
    return pd.DataFrame(rows, columns=["width", "depth", "tokens"])


if __name__ == "__main__":
    main()
