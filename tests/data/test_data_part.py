"""A part of a corpus: which windows it has, and that runs repeat them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from shapelaw.data import Corpus, Loader, check_repeats
from shapelaw.data.part import part_of
from shapelaw.errors import UserError

SEQ_LEN = 64


def epoch(corpus: Corpus, seed: int, number: int = 0) -> set[bytes]:
    count = corpus.train.windows(SEQ_LEN)
    return {row.tobytes() for row in Loader.of(corpus, SEQ_LEN, seed).rows(number * count, count)}


def test_every_epoch_has_the_windows_of_the_part_in_an_order_of_its_own(small_corpus: Corpus) -> None:
    part = part_of(small_corpus, 20 * SEQ_LEN + 5, SEQ_LEN)
    assert part.unique_tokens(SEQ_LEN) == 20 * SEQ_LEN
    windows = epoch(part, seed=1)
    assert len(windows) == 20
    assert windows < epoch(small_corpus, seed=1)
    assert windows == epoch(part, seed=1, number=3) == epoch(part, seed=7)
    first, second = (Loader.of(part, SEQ_LEN, 1).rows(start, 20) for start in (0, 20))
    assert not np.array_equal(first, second)


def test_a_smaller_part_lies_within_a_larger_one_and_all_is_all(small_corpus: Corpus) -> None:
    small, large, whole = (
        epoch(part_of(small_corpus, tokens, SEQ_LEN), seed=1)
        for tokens in (640, 6400, small_corpus.unique_tokens(SEQ_LEN))
    )
    assert small < large < whole
    assert whole == epoch(small_corpus, seed=1)
    assert part_of(small_corpus, None, SEQ_LEN) is small_corpus


def test_a_part_is_spread_over_the_corpus(small_corpus: Corpus) -> None:
    """Not the first documents: places of 100 windows of a thousand are those of a random draw, within four deviations."""
    part, whole = part_of(small_corpus, 100 * SEQ_LEN, SEQ_LEN), small_corpus.train
    rows = np.empty((100, SEQ_LEN + 1), dtype=np.int64)
    part.train.gather(np.arange(100) * SEQ_LEN, rows)
    every = np.empty((whole.windows(SEQ_LEN), SEQ_LEN + 1), dtype=np.int64)
    whole.gather(np.arange(len(every)) * SEQ_LEN, every)
    places = np.array([np.flatnonzero((every == row).all(axis=1))[0] for row in rows]) / len(every)
    assert places.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * 100))


def test_a_part_travels_to_other_processes(small_corpus: Corpus) -> None:
    part = part_of(small_corpus, 640, SEQ_LEN)
    assert epoch(pickle.loads(pickle.dumps(part)), seed=1) == epoch(part, seed=1)


def test_its_repeats_are_counted_and_what_is_too_much_is_named(small_corpus: Corpus) -> None:
    part = part_of(small_corpus, 640, SEQ_LEN)
    assert check_repeats(part, SEQ_LEN, 6400, max_epochs=10) == 10.0
    with pytest.raises(UserError, match=r"has 640 training tokens.* 20\.00 times.*raise data\.unique_tokens"):
        check_repeats(part, SEQ_LEN, 12800, max_epochs=10)
    for tokens in (SEQ_LEN - 1, 1e9):
        with pytest.raises(UserError, match=r"data\.unique_tokens=.*allowed values are 64 to "):
            part_of(small_corpus, tokens, SEQ_LEN)
