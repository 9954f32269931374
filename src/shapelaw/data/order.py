"""The order of training sequences: a pure function of (number of windows, seed), the same for every shape and machine.

A shuffled order without a stored permutation: window numbers are permuted by a keyed Feistel network on just enough
bits, and numbers that fall outside the range are permuted again until they fall inside (cycle walking), which keeps it
a bijection.

Source: Luby and Rackoff (1988), "How to construct pseudorandom permutations from pseudorandom functions"; Black and
Rogaway (2002), "Ciphers with arbitrary finite domains", section 4 (cycle walking); mixing function: Steele, Lea and
Flood (2014), "Fast splittable pseudorandom number generators" (the finaliser of SplitMix64).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.config import TrainConfig
from shapelaw.config.option import check_option
from shapelaw.data.corpus import Corpus
from shapelaw.errors import UserError

UInt64s = NDArray[np.unsignedinteger[Any]]

_ROUNDS = 4
"""Double rounds; in each, each half is mixed into the other once. With ideal mixing, two give a pseudorandom permutation;
the others are a margin for cheap mixing."""
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class SequenceOrder:
    """The endless order in which a run trains on windows.

    Sequence i belongs to epoch i // n_windows; within an epoch every window comes once, and each epoch has its own
    permutation. Devices, micro-batches and restarts take their share of this one order and cannot change it.

    Args:
        n_windows: windows of the training split (`TokenStream.windows`).
        seed: whole number from 0; each seed gives another order.

    Raises:
        UserError: if there are no windows or the seed is negative.
    """

    n_windows: int
    seed: int

    def __post_init__(self) -> None:
        if self.n_windows < 1:
            raise UserError("the training split has less than one sequence: prepare a larger corpus or shorten seq_len")
        check_option(TrainConfig, "order_seed", self.seed, "seed")

    @classmethod
    def of(cls, corpus: Corpus, seq_len: int, seed: int) -> SequenceOrder:
        """The order of a corpus for a sequence length."""
        return cls(corpus.train.windows(seq_len), seed)

    def indices(self, first: int, count: int) -> NDArray[np.int64]:
        """Window numbers of sequences first .. first + count - 1 (shape count)."""
        found = np.empty(count, dtype=np.int64)
        done = 0
        while done < count:
            epoch, start = divmod(first + done, self.n_windows)
            stop = min(self.n_windows, start + count - done)
            numbers = np.arange(start, stop, dtype=np.uint64)
            found[done : done + stop - start] = permute(numbers, self.n_windows, self._keys(epoch))
            done += stop - start
        return found

    def _keys(self, epoch: int) -> UInt64s:
        return np.random.SeedSequence([self.seed, epoch]).generate_state(2 * _ROUNDS, np.uint64)


def permute(numbers: UInt64s, size: int, keys: UInt64s) -> UInt64s:
    """A keyed permutation of 0 .. size - 1, applied to each of the numbers.

    Args:
        numbers: values below size, any shape (n,).
        size: from 1 up to 2^62.
        keys: two for each double round.
    """
    bits = max((size - 1).bit_length(), 1)
    found = _feistel(numbers, bits, keys)
    limit = np.uint64(size)
    while (outside := np.flatnonzero(found >= limit)).size:
        found[outside] = _feistel(found[outside], bits, keys)
    return found


def _feistel(numbers: UInt64s, bits: int, keys: UInt64s) -> UInt64s:
    """A permutation of the numbers of this many bits; the halves may differ in size by one bit."""
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64(2 ** (bits // 2) - 1)
    high_mask = np.uint64(2 ** (bits - bits // 2) - 1)
    low, high = numbers & low_mask, numbers >> low_bits
    for key_low, key_high in keys.reshape(-1, 2):
        low ^= _mix(high, key_low) & low_mask
        high ^= _mix(low, key_high) & high_mask
    return (high << low_bits) | low


def _mix(values: UInt64s, key: np.uint64) -> UInt64s:
    """SplitMix64's finaliser of values + key (modulo 2^64)."""
    mixed = values + key
    mixed ^= mixed >> np.uint64(30)
    mixed *= _MIX_1
    mixed ^= mixed >> np.uint64(27)
    mixed *= _MIX_2
    mixed ^= mixed >> np.uint64(31)
    return mixed
