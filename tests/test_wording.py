"""Counts and amounts for people."""

from __future__ import annotations

import pytest

from shapelaw.wording import amount, counted


@pytest.mark.parametrize(("number", "words"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_one_thing_is_no_plural(number: int, words: str) -> None:
    assert counted(number, "run") == words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.12345, "0.123"), (99.94, "99.9"), (12_345.6, "12,346"), (1_287_898_522.0, "1.3e+09")],
)
def test_a_large_amount_has_an_exponent(value: float, text: str) -> None:
    assert amount(value) == text
