"""Batches of sequences from a memory-mapped corpus, with one copy, from the map into the batch.

`batch` takes steps, `rows` takes any stretch of the order; both are pure functions of their arguments. Nothing here needs
torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shapelaw.config import ValidationConfig
from shapelaw.config.option import check_option
from shapelaw.data.corpus import Corpus, TokenStream
from shapelaw.data.order import SequenceOrder
from shapelaw.errors import UserError

Int64s = NDArray[np.int64]

_BLOCK = 2**13
"""Sequences whose places in the order are computed at a time; permuting few at a time would cost more than copying
them."""


def rank_rows(batch_sequences: int, rank: int, world: int) -> range:
    """Rows of a world batch that one of `world` devices takes: an equal, contiguous share.

    Raises:
        UserError: if the devices do not divide the batch, or the rank is out of range.
    """
    if batch_sequences < 1 or world < 1 or batch_sequences % world:
        raise UserError(
            f"batch_sequences={batch_sequences}: {world} devices share it equally; allowed values are multiples of {world}"
        )
    if not 0 <= rank < world:
        raise UserError(f"rank={rank}: allowed values are 0 to {world - 1}")
    share = batch_sequences // world
    return range(rank * share, (rank + 1) * share)


class Loader:
    """Training sequences in the one order.

    Args:
        stream: tokens of the training split.
        order: order of its windows.
        seq_len: predicted tokens in a sequence; rows hold one more.
        dtype: type of the batches; torch's embedding and loss take int64.
    """

    def __init__(self, stream: TokenStream, order: SequenceOrder, seq_len: int, dtype: DTypeLike = np.int64) -> None:
        assert order.n_windows == stream.windows(seq_len)
        self._stream, self._order, self._seq_len, self._dtype = stream, order, seq_len, np.dtype(dtype)
        self._block: tuple[int, Int64s] = (-1, np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, corpus: Corpus, seq_len: int, seed: int) -> Loader:
        """The loader of a corpus's training split.

        Raises:
            UserError: if the split is shorter than one sequence or the seed is negative.
        """
        return cls(corpus.train, SequenceOrder.of(corpus, seq_len, seed), seq_len)

    def rows(self, first: int, count: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Sequences first .. first + count - 1 of the order.

        Args:
            out: array to fill (count x seq_len + 1); a new one if None.

        Returns:
            Token ids, count x (seq_len + 1); inputs are [:, :-1], targets [:, 1:].
        """
        filled = np.empty((count, self._seq_len + 1), dtype=self._dtype) if out is None else out
        self._stream.gather(self._windows(first, count) * self._seq_len, filled)
        return filled

    def batch(self, step: int, batch_sequences: int, rank: int = 0, world: int = 1) -> NDArray[Any]:
        """The sequences of device `rank` of `world` in optimizer step `step` (from 0), for all its micro-batches together."""
        mine = rank_rows(batch_sequences, rank, world)
        return self.rows(step * batch_sequences + mine.start, len(mine))

    def _windows(self, first: int, count: int) -> Int64s:
        blocks = range(first // _BLOCK, (first + count - 1) // _BLOCK + 1)
        pieces = [self._order_block(block) for block in blocks]
        joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        start = first - blocks.start * _BLOCK
        return joined[start : start + count]

    def _order_block(self, block: int) -> Int64s:
        if self._block[0] != block:
            self._block = (block, self._order.indices(block * _BLOCK, _BLOCK))
        return self._block[1]


@dataclass(frozen=True)
class ValidationSample:
    """The held-out sequences on which every run is measured.

    Args:
        stream: tokens of the validation split.
        seq_len: predicted tokens in a sequence.
        windows: numbers of the windows in the split, evenly spread over it.
        tokens_asked: requested number of predicted tokens.
    """

    stream: TokenStream
    seq_len: int
    windows: Int64s
    tokens_asked: int

    @property
    def tokens(self) -> int:
        """Number of predicted tokens: windows * seq_len."""
        return len(self.windows) * self.seq_len

    @property
    def note(self) -> str | None:
        """Message to the user if the split has fewer tokens than requested, else None."""
        if self.tokens_asked <= self.tokens:
            return None
        return (
            f"validation on all {self.tokens:,} held-out tokens, validation.tokens={self.tokens_asked:,} asked for; "
            "the corpus has no more (a larger corpus or data.val_fraction gives more)"
        )

    def batches(self, batch_sequences: int, rank: int = 0, world: int = 1) -> Iterator[Int64s]:
        """Arrays of at most batch_sequences x (seq_len + 1) ids; device `rank` takes every world-th window.

        If the devices do not divide the windows, some get one more than others: sum losses and counts over devices.
        """
        mine = self.windows[rank::world]
        for start in range(0, len(mine), batch_sequences):
            chosen = mine[start : start + batch_sequences]
            rows = np.empty((len(chosen), self.seq_len + 1), dtype=np.int64)
            self.stream.gather(chosen * self.seq_len, rows)
            yield rows


def validation(corpus: Corpus, seq_len: int, tokens: int) -> ValidationSample:
    """The fixed held-out sample: K = ceil(tokens / seq_len) windows of the validation split, or all if there are fewer.

    The windows are floor(k * n / K), k = 0 .. K - 1, of the split's n. They are spread evenly because the split follows the
    source's order, so that its beginning alone would be of one kind. They depend on corpus, seq_len and tokens only.

    Raises:
        UserError: if tokens is not positive or the split is shorter than one sequence.
    """
    check_option(ValidationConfig, "tokens", tokens, "validation.tokens")
    available = corpus.val.windows(seq_len)
    if available == 0:
        raise UserError(
            f"seq_len={seq_len}: the validation split of {corpus.folder} has only {corpus.val.tokens} tokens, one "
            "sequence needs seq_len + 1; prepare with a larger data.val_fraction or a larger corpus, or shorten seq_len"
        )
    count = min(-(-tokens // seq_len), available)
    return ValidationSample(corpus.val, seq_len, np.arange(count, dtype=np.int64) * available // count, tokens)
