from __future__ import annotations

import numpy as np
import pytest

from shapelaw.data import Corpus, Loader, SequenceOrder, TokenStream, validation
from shapelaw.data import loader as loader_module
from shapelaw.errors import UserError

SEQ_LEN = 64


def stream_of(corpus: Corpus, split: str) -> np.ndarray:
    return np.concatenate([np.fromfile(file, dtype="<u2") for file in sorted(corpus.folder.glob(f"{split}-*.bin"))])


def expected_rows(corpus: Corpus, seed: int, first: int, count: int) -> np.ndarray:
    whole = stream_of(corpus, "train")
    windows = SequenceOrder.of(corpus, SEQ_LEN, seed).indices(first, count)
    return np.stack([whole[i * SEQ_LEN : (i + 1) * SEQ_LEN + 1] for i in windows]).astype(np.int64)


def test_rows_follow_the_order(small_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = expected_rows(small_corpus, 5, 0, 3000)  # more than two epochs
    monkeypatch.setattr(loader_module, "_BLOCK", 100)
    loader = Loader.of(small_corpus, SEQ_LEN, seed=5)
    for first, count in ((0, 3000), (0, 1), (99, 2), (1234, 450), (17, 100)):
        assert np.array_equal(loader.rows(first, count), expected[first : first + count])


@pytest.mark.parametrize(("batch_sequences", "world"), [(12, 1), (12, 2), (12, 3), (12, 12), (24, 4), (48, 2)])
def test_same_order_for_any_number_of_devices_and_batch(small_corpus: Corpus, batch_sequences: int, world: int) -> None:
    steps = 96 // batch_sequences
    loaders = [Loader.of(small_corpus, SEQ_LEN, seed=1) for _ in range(world)]
    seen = [loaders[rank].batch(step, batch_sequences, rank, world) for step in range(steps) for rank in range(world)]
    assert np.array_equal(np.concatenate(seen), expected_rows(small_corpus, 1, 0, 96))


def test_order_does_not_depend_on_shard_size(small_corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("one") / "all.bin"
    whole = stream_of(small_corpus, "train")
    whole.tofile(file)
    stream = TokenStream((file,), (len(whole),), np.dtype("<u2"))
    order = SequenceOrder.of(small_corpus, SEQ_LEN, 1)
    assert np.array_equal(
        Loader(stream, order, SEQ_LEN).rows(0, 50), Loader.of(small_corpus, SEQ_LEN, seed=1).rows(0, 50)
    )


def test_batch_is_filled_in_place_by_one_copy(small_corpus: Corpus) -> None:
    loader = Loader.of(small_corpus, SEQ_LEN, seed=1)
    out = np.empty((8, SEQ_LEN + 1), dtype=np.int32)
    assert loader.rows(3, 8, out) is out
    assert np.array_equal(out, expected_rows(small_corpus, 1, 3, 8))
    first, second = loader.batch(0, 8), loader.batch(0, 8)
    assert first.dtype == np.int64
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize(
    ("batch", "rank", "world", "message"),
    [(10, 0, 4, "multiples of 4"), (0, 0, 1, "batch_sequences=0"), (8, 2, 2, "rank=2"), (8, -1, 2, "rank=-1")],
)
def test_bad_shares(small_corpus: Corpus, batch: int, rank: int, world: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Loader.of(small_corpus, SEQ_LEN, seed=1).batch(0, batch, rank, world)


def test_corpus_shorter_than_a_sequence(small_corpus: Corpus) -> None:
    with pytest.raises(UserError, match="less than one sequence"):
        Loader.of(small_corpus, 10**8, seed=1)
    with pytest.raises(UserError, match="validation split"):
        validation(small_corpus, 10**8, 100)


def test_validation_is_a_fixed_spread_of_held_out_windows(small_corpus: Corpus) -> None:
    whole = stream_of(small_corpus, "val")
    sample = validation(small_corpus, SEQ_LEN, 10 * SEQ_LEN - 3)
    available = small_corpus.val.windows(SEQ_LEN)
    assert sample.windows.tolist() == [k * available // 10 for k in range(10)]
    assert sample.tokens == 10 * SEQ_LEN
    assert sample.note is None
    rows = np.concatenate(list(sample.batches(4)))
    assert [len(batch) for batch in sample.batches(4)] == [4, 4, 2]
    for window, row in zip(sample.windows, rows, strict=True):
        assert row.tolist() == whole[window * SEQ_LEN : (window + 1) * SEQ_LEN + 1].tolist()


def test_validation_takes_all_and_says_so_where_there_are_fewer(small_corpus: Corpus) -> None:
    available = small_corpus.val.windows(SEQ_LEN)
    sample = validation(small_corpus, SEQ_LEN, 10**9)
    assert sample.windows.tolist() == list(range(available))
    assert sample.note is not None
    assert f"all {available * SEQ_LEN:,} held-out tokens" in sample.note
    with pytest.raises(UserError, match=r"validation\.tokens=0"):
        validation(small_corpus, SEQ_LEN, 0)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_validation_is_shared_between_devices(small_corpus: Corpus, world: int) -> None:
    sample = validation(small_corpus, SEQ_LEN, 20 * SEQ_LEN)
    rows = [tuple(row) for rank in range(world) for batch in sample.batches(4, rank, world) for row in batch.tolist()]
    assert sorted(rows) == sorted(tuple(row) for batch in sample.batches(20) for row in batch.tolist())
