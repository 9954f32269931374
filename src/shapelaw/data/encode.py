"""Batches of documents to token ids, on one core or on many, with the same result."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.data.documents import SPLITS, TRAIN, VAL, digest, is_val, utf8
from shapelaw.data.tokenizers import Tokenizer, token_dtype
from shapelaw.errors import UserError

_BATCHES_AHEAD = 2
"""Batches in flight for each worker: enough to keep it busy, few enough that memory stays bounded."""


@dataclass(frozen=True)
class EncodedBatch:
    """An encoded batch of documents.

    Args:
        digests: digest of each document, in order.
        text_bytes: UTF-8 bytes of all documents.
        documents: number of documents on each side.
        tokens: ids on each side, a separator after each document.
        sides, sizes, text_sizes: for each document, in order: its side, number of ids with the separator, UTF-8 bytes.
    """

    digests: list[bytes]
    text_bytes: int
    documents: dict[str, int]
    tokens: dict[str, NDArray[Any]]
    sides: list[str]
    sizes: list[int]
    text_sizes: list[int]


def encode_batch(tokenizer: Tokenizer, val_fraction: float, texts: Sequence[str]) -> EncodedBatch:
    """Hash, split and tokenise one batch."""
    data = [utf8(text) for text in texts]
    digests = [digest(one) for one in data]
    sides = [VAL if is_val(one, val_fraction) else TRAIN for one in digests]
    ids = tokenizer.encode_batch(texts)
    dtype = token_dtype(tokenizer.vocab_size)
    end = np.array([] if tokenizer.separator is None else [tokenizer.separator], dtype=dtype)
    tokens: dict[str, NDArray[Any]] = {}
    for split in SPLITS:
        pieces = [piece for side, one in zip(sides, ids, strict=True) if side == split for piece in (one, end)]
        tokens[split] = np.concatenate([np.array([], dtype=dtype), *pieces])
    counts = {split: sides.count(split) for split in SPLITS}
    sizes = [len(one) + len(end) for one in ids]
    return EncodedBatch(digests, sum(map(len, data)), counts, tokens, sides, sizes, [len(one) for one in data])


def encode_all(
    batches: Iterable[Sequence[str]], tokenizer: Tokenizer, val_fraction: float, workers: int
) -> Generator[EncodedBatch]:
    """Every batch encoded, in order; if there is more than one worker, in separate processes.

    Raises:
        UserError: if a worker process died.
    """
    if workers == 1:
        for texts in batches:
            yield encode_batch(tokenizer, val_fraction, texts)
        return
    # Spawned, not forked: a fork copies the locks of a process whose tokenizer already runs threads.
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(tokenizer, val_fraction)
    )
    try:
        yield from _in_order(pool, batches, _BATCHES_AHEAD * workers)
    except BrokenProcessPool as error:
        raise UserError(
            f"workers={workers}: a worker process died (often for lack of memory); "
            "run the same command again with fewer workers to continue"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, batches: Iterable[Sequence[str]], ahead: int) -> Iterator[EncodedBatch]:
    pending: deque[Future[EncodedBatch]] = deque()
    for texts in batches:
        pending.append(pool.submit(_encode_in_worker, texts))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


_worker: dict[str, Any] = {}


def _start_worker(tokenizer: Tokenizer, val_fraction: float) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one worker is one core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker.update(tokenizer=tokenizer, val_fraction=val_fraction)


def _end_with_parent() -> None:
    """End with the parent: if it is killed, it cannot stop its workers, and they would wait for work forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _encode_in_worker(texts: Sequence[str]) -> EncodedBatch:
    return encode_batch(_worker["tokenizer"], _worker["val_fraction"], texts)
