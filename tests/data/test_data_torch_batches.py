from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils.data import DataLoader

from shapelaw.data import Corpus, Loader
from shapelaw.data.torch_batches import TokenBatches
from shapelaw.errors import UserError

SEQ_LEN = 32
BATCH = 24
STEPS = 5


def seen(corpus: Corpus, world: int, micro: int | None, start: int = 0, workers: int = 0) -> torch.Tensor:
    """Sequences of steps start .. STEPS - 1 in the order of the world batch."""
    ranks = []
    for rank in range(world):
        batches = TokenBatches(Loader.of(corpus, SEQ_LEN, 3), BATCH, start, STEPS - start, rank, world, micro)
        loaded = torch.cat(list(DataLoader(batches, batch_size=None, num_workers=workers)))
        ranks.append(loaded.reshape(STEPS - start, BATCH // world, SEQ_LEN + 1))
    return torch.cat(ranks, dim=1).reshape(-1, SEQ_LEN + 1)


def test_every_split_over_devices_and_micro_batches_sees_the_same(small_corpus: Corpus) -> None:
    expected = torch.from_numpy(Loader.of(small_corpus, SEQ_LEN, 3).rows(0, STEPS * BATCH))
    for world, micro in ((1, None), (1, 6), (2, None), (2, 4), (3, 8), (24, 1)):
        assert torch.equal(seen(small_corpus, world, micro), expected)


def test_restart_continues_the_order(small_corpus: Corpus) -> None:
    whole = seen(small_corpus, 2, 4)
    assert torch.equal(seen(small_corpus, 2, 6, start=3), whole[3 * BATCH :])


def test_loader_workers_keep_the_order(small_corpus: Corpus) -> None:
    assert torch.equal(seen(small_corpus, 1, 4, workers=2), seen(small_corpus, 1, 4))


def test_tensors(small_corpus: Corpus) -> None:
    batches = TokenBatches(Loader.of(small_corpus, SEQ_LEN, 3), BATCH, 0, STEPS, micro_sequences=8)
    tensors = list(batches)
    assert batches.micro_batches == 3
    assert len(tensors) == STEPS * 3
    assert {tensor.shape for tensor in tensors} == {(8, SEQ_LEN + 1)}
    assert {tensor.dtype for tensor in tensors} == {torch.int64}
    assert len({tensor.data_ptr() for tensor in tensors}) == len(tensors)


@pytest.mark.parametrize("micro", [0, 5, 25])
def test_micro_batches_must_divide(small_corpus: Corpus, micro: int) -> None:
    with pytest.raises(UserError, match=f"micro_batch_sequences={micro}"):
        TokenBatches(Loader.of(small_corpus, SEQ_LEN, 3), BATCH, 0, STEPS, micro_sequences=micro)


def test_data_imports_nothing_heavy() -> None:
    code = (
        "import sys, shapelaw.data; "
        "print([m for m in ('torch', 'pyarrow', 'tokenizers', 'zstandard', 'datasets') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "[]"
