"""A part of a corpus: a number of its training windows, drawn at random; a run that sees more tokens repeats them.

The part depends on the corpus, the context and the number alone, so all runs draw from the same text. A smaller part lies
within a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.data.corpus import Corpus, TokenStream
from shapelaw.data.documents import TRAIN
from shapelaw.data.order import permute
from shapelaw.errors import UserError

_KEYS = np.random.SeedSequence(0).generate_state(8, np.uint64)
"""Keys of the permutation whose first windows form the part."""


@dataclass(frozen=True)
class PartStream(TokenStream):
    """Some windows of a stream, presented as the whole stream.

    Args:
        seq_len: length of the windows.
        count: windows of the part.
    """

    seq_len: int
    count: int

    def windows(self, seq_len: int) -> int:
        """Windows of the part."""
        assert seq_len == self.seq_len
        return self.count

    def gather(self, starts: NDArray[Any], out: NDArray[Any]) -> None:
        """As for every stream; starts count within the part."""
        numbers = np.asarray(starts, dtype=np.uint64) // np.uint64(self.seq_len)
        windows = permute(numbers, super().windows(self.seq_len), _KEYS)
        super().gather(windows.astype(np.int64) * self.seq_len, out)


def part_of(corpus: Corpus, unique_tokens: float | None, seq_len: int) -> Corpus:
    """The corpus with this number of different training tokens; unchanged for None.

    Args:
        corpus: the whole corpus.
        unique_tokens: tokens of the part, which has whole windows of seq_len tokens.
        seq_len: tokens of one sequence.

    Raises:
        UserError: if that is less than one sequence, or more than the corpus has.
    """
    if unique_tokens is None:
        return corpus
    stream, count = corpus.train, int(unique_tokens) // seq_len
    there = stream.windows(seq_len)
    if not 1 <= count <= there:
        raise UserError(
            f"data.unique_tokens={unique_tokens:g}: the corpus in {corpus.folder} has {there * seq_len:,} training tokens in "
            f"sequences of {seq_len}; allowed values are {seq_len:,} to {there * seq_len:,}, or null for all"
        )
    part = PartStream(stream.files, stream.counts, stream.dtype, seq_len, count)
    return replace(corpus, streams={**corpus.streams, TRAIN: part})
