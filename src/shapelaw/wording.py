"""Words for people: counts, amounts, and names that tell the jobs of a sweep apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "run"), counted(2, "run")
    ('1 run', '2 runs')
    """
    return f"{number} {noun}{'s' if number != 1 else ''}"


def amount(value: float) -> str:
    """A positive amount, such as of hours: whole from 100, with an exponent from a million.

    >>> amount(0.12345), amount(12_345.6), amount(1_287_898_522.0)
    ('0.123', '12,346', '1.3e+09')
    """
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}" if value < 1e6 else f"{value:.2g}"


def distinctions(
    labels: Sequence[str], identities: Sequence[str], settings: Sequence[Mapping[str, Any]]
) -> list[tuple[str, ...]]:
    """Of each job the `key=value` that tell it from the others of its label; nothing where it has its label alone.

    Args:
        labels: its short name.
        identities: two jobs of one identity are one job.
        settings: what was chosen for it, nested.
    """
    alike: dict[str, dict[str, dict[str, Any]]] = {}
    for label, identity, chosen in zip(labels, identities, settings, strict=True):
        alike.setdefault(label, {})[identity] = leaves(chosen)
    keys = {label: _telling_apart(list(jobs.values())) for label, jobs in alike.items()}
    return [
        tuple(f"{key}={alike[label][identity].get(key)}" for key in keys[label])
        for label, identity in zip(labels, identities, strict=True)
    ]


def leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys: {"rate.lr_base": 5, ...}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _telling_apart(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first keys, each of which tells more of these apart, until all are."""
    chosen: list[str] = []
    found = 1
    for key in dict.fromkeys(key for one in settings for key in one):
        distinct = len({tuple(str(one.get(k)) for k in (*chosen, key)) for one in settings})
        if distinct > found:
            chosen, found = [*chosen, key], distinct
    return chosen
