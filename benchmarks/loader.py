"""Tokens per second of the loader on one core, next to what a plain memory copy of the same batches costs.

    python benchmarks/loader.py [corpus folder]

Without a folder 64M random tokens are written to a temporary one. `fresh` is one copy from the memory map into a new
int64 array for each batch, `given` into the same array again and again, `views` the map itself, without a copy.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from shapelaw.data import Loader, SequenceOrder, TokenStream, load_corpus

CASES = ((128, 16), (128, 64), (256, 16), (256, 64), (2048, 8), (2048, 64))  # (seq_len, sequences of a batch)
RANDOM_TOKENS = 2**26
SHARD_TOKENS = 2**24
TOKENS_A_CASE = 2**24
REPEATS = 5


def random_stream(folder: Path) -> TokenStream:
    """Shards of random ids."""
    generator = np.random.default_rng(0)
    files = []
    for number in range(RANDOM_TOKENS // SHARD_TOKENS):
        files.append(folder / f"train-{number:05d}.bin")
        generator.integers(0, 50_304, SHARD_TOKENS, dtype=np.uint16).astype("<u2").tofile(files[-1])
    return TokenStream(tuple(files), (SHARD_TOKENS,) * len(files), np.dtype("<u2"))


def best_rate(run: Callable[[], int]) -> float:
    """Tokens per second of the fastest repeat."""
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        tokens = run()
        rates.append(tokens / (time.perf_counter() - start))
    return max(rates)


def measure(stream: TokenStream, seq_len: int, sequences: int) -> tuple[float, float, float, float]:
    """Tokens per second: fresh batches, batches into a given array, views, and a plain copy of in-memory batches."""
    loader = Loader(stream, SequenceOrder(stream.windows(seq_len), seed=1), seq_len)
    steps = TOKENS_A_CASE // (seq_len * sequences)
    out = np.empty((sequences, seq_len + 1), dtype=np.int64)
    source = np.zeros((steps, sequences, seq_len + 1), dtype=stream.dtype)
    starts = (SequenceOrder(stream.windows(seq_len), seed=1).indices(0, steps * sequences) * seq_len).tolist()

    def fresh() -> int:
        for step in range(steps):
            loader.batch(step, sequences)
        return steps * sequences * seq_len

    def given() -> int:
        for step in range(steps):
            loader.rows(step * sequences, sequences, out)
        return steps * sequences * seq_len

    def views() -> int:
        for start in starts:
            stream.view(start, seq_len + 1)
        return steps * sequences * seq_len

    def plain() -> int:
        for batch in source:
            out[:] = batch
        return steps * sequences * seq_len

    return best_rate(fresh), best_rate(given), best_rate(views), best_rate(plain)


def order_rate(windows: int) -> float:
    """Sequences per second that the order permutes."""
    order = SequenceOrder(windows, seed=1)
    return best_rate(lambda: len(order.indices(0, 2**20)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        stream = load_corpus(Path(sys.argv[1])).train if len(sys.argv) > 1 else random_stream(Path(folder))
        print(
            f"{stream.tokens:,} tokens in {len(stream.files)} shards; million tokens/s, the best of {REPEATS} repeats"
        )
        print(f"{'seq_len':>8}{'batch':>7}{'fresh':>9}{'given':>9}{'views':>9}{'plain copy':>12}{'fresh/plain':>13}")
        for seq_len, sequences in CASES:
            fresh, given, views, plain = measure(stream, seq_len, sequences)
            rates = f"{fresh / 1e6:9.0f}{given / 1e6:9.0f}{views / 1e6:9.0f}{plain / 1e6:12.0f}"
            print(f"{seq_len:>8}{sequences:>7}{rates}{fresh / plain:13.2f}")
    for windows in (10**5, 2**20, 171 * 10**6):
        print(f"order of {windows:,} windows: {order_rate(windows) / 1e6:.1f} million sequences/s")


if __name__ == "__main__":
    main()
