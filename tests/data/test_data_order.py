from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shapelaw.data import SequenceOrder
from shapelaw.data.order import permute
from shapelaw.errors import UserError

GOLDEN_10 = [7, 0, 6, 1, 9, 8, 4, 3, 2, 5, 6, 8, 3, 2, 0, 9, 5, 1, 4, 7]
GOLDEN_LARGE = [984220872, 246237440, 999808244, 549115994]


@given(size=st.integers(1, 5000), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
@settings(deadline=None)
def test_every_epoch_has_every_window_once(size: int, seed: int, epoch: int) -> None:
    order = SequenceOrder(size, seed)
    assert sorted(order.indices(epoch * size, size).tolist()) == list(range(size))


@given(size=st.integers(2**40, 2**62), numbers=st.lists(st.integers(0, 2**40 - 1), unique=True, max_size=200))
@settings(deadline=None)
def test_large_ranges_stay_one_to_one(size: int, numbers: list[int]) -> None:
    keys = np.random.SeedSequence(1).generate_state(8, np.uint64)
    found = permute(np.array(numbers, dtype=np.uint64), size, keys)
    assert len(set(found.tolist())) == len(numbers)
    assert all(0 <= value < size for value in found.tolist())


@given(size=st.integers(1, 300), first=st.integers(0, 2000), count=st.integers(0, 900), cut=st.integers(0, 900))
@settings(deadline=None)
def test_any_stretch_is_the_same_order(size: int, first: int, count: int, cut: int) -> None:
    order = SequenceOrder(size, 7)
    cut = min(cut, count)
    pieces = [order.indices(first, cut), order.indices(first + cut, count - cut)]
    assert np.concatenate(pieces).tolist() == order.indices(first, count).tolist()


def test_the_order_never_changes_between_versions() -> None:
    """Written down once: runs that continue after an update must see the same sequences."""
    assert SequenceOrder(10, 0).indices(0, 20).tolist() == GOLDEN_10
    assert SequenceOrder(10**9, 1234).indices(10**9 - 2, 4).tolist() == GOLDEN_LARGE


def test_seeds_and_epochs_give_other_orders() -> None:
    orders = [SequenceOrder(1000, seed).indices(epoch * 1000, 1000) for seed in range(4) for epoch in range(4)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert np.count_nonzero(one == other) < 10  # 1 expected of two independent permutations


@pytest.mark.parametrize("size", [64, 100, 1025])
def test_places_are_uniform_over_seeds(size: int) -> None:
    """Where window 0, the middle and the last come: chi-square against uniform over 4000 seeds, at 1e-4 each."""
    orders = np.stack([SequenceOrder(size, seed).indices(0, size) for seed in range(4000)])
    bins = 16
    for place in (0, size // 2, size - 1):
        counts = np.histogram(orders[:, place] * bins // size, bins=np.arange(bins + 1))[0]
        expected = np.bincount(np.arange(size) * bins // size, minlength=bins) * (len(orders) / size)
        assert stats.chisquare(counts, expected).pvalue > 1e-4


def test_neighbours_are_uncorrelated() -> None:
    found = SequenceOrder(10**6, 3).indices(0, 10**6).astype(float)
    place = np.arange(len(found))
    for one, other in ((found[:-1], found[1:]), (place, found), (found[::2], found[1::2])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4e-3  # four standard errors of 10^6 pairs


def test_all_orders_of_four_come_up() -> None:
    seen = {tuple(SequenceOrder(4, seed).indices(0, 4).tolist()) for seed in range(1000)}
    assert len(seen) == 24


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match="less than one sequence"):
        SequenceOrder(0, 1)
    with pytest.raises(UserError, match="seed=-1"):
        SequenceOrder(10, -1)
