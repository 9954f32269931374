"""Sizes at which the model's code takes another path; the memory estimate uses the same ones. Imports no torch."""

from __future__ import annotations

FAST_THREADS_MAX = 4
"""Our CPU kernels use one thread, on which they are about five times as fast as torch's; with more than this, torch's win."""
SMALL_HEAD_MAX = 64
SMALL_TIME_MAX = 512
"""Up to these sizes batched matmuls with the weights kept beat torch's CPU flash kernel (benchmarks/train_step.py)."""
CHUNK_BYTES_CPU = 64 * 2**20
CHUNK_BYTES_GPU = 512 * 2**20
"""Largest chunk of float32 logits: the fastest on a CPU (`train_step.py --parts`), and enough rows to fill a GPU."""


def chunk_rows(rows: int, vocab_size: int, device_type: str) -> int:
    """Rows of a chunk: as many as CHUNK_BYTES allow, evened out over the chunks; all of them for a small vocabulary."""
    limit = CHUNK_BYTES_CPU if device_type == "cpu" else CHUNK_BYTES_GPU
    chunks = -(-rows * vocab_size * 4 // limit)
    return -(-rows // chunks)
