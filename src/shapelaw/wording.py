"""Words for people: counts, amounts, and names that distinguish the jobs of a sweep."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

SILENT_SECONDS = 30.0
"""Longest time without a line if there is no terminal."""
SCALES = ((1e6, "million"), (1e9, "billion"), (1e12, "trillion"))
"""Steps of the short scale, and their names."""
SPANS = (("second", 1.0, 60.0), ("minute", 60.0, 3600.0), ("hour", 3600.0, float("inf")))
"""Units of time, their seconds, and the seconds from which the next one is used."""


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


def spelt(key: str, value: object) -> str:
    r"""An option as a user types it: quoted for Hydra if its value needs it, then for the shell.

    >>> spelt("fit", "outputs/fits/a"), spelt("fit", "my [new] fits")
    ('fit=outputs/fits/a', '"fit=\'my [new] fits\'"')
    """
    text = str(value)
    if not re.fullmatch(r"[\w./+:@%-]+", text):
        text = "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text) + "'"
    word = f"{key}={text}"
    return f'"{word}"' if "'" in word and not re.search(r'["$`\\!]', word) else shlex.quote(word)


def storage(size: float) -> str:
    """Bytes as disks count them: in GB, or below one GB in MB.

    >>> storage(2.34e9), storage(250e6), storage(1.2e6), storage(3e4), storage(0)
    ('2.3 GB', '250 MB', '1.2 MB', '0.03 MB', '0 MB')
    """
    if size >= 1e9:
        return f"{size / 1e9:,.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e7 or size == 0 else f"{size / 1e6:.2g} MB"


def clock(seconds: float) -> str:
    """A time span as clocks count it.

    >>> clock(4.2), clock(250), clock(86_399.6)
    ('0:04', '4:10', '24:00:00')
    """
    minutes, left = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def in_words(value: float) -> str:
    """A count as people say it, to three digits: thousands with commas, then million, billion and trillion.

    >>> in_words(155_968), in_words(1.3e11), in_words(999_600), in_words(3e18)
    ('156,000', '130 billion', '1 million', '3e+18')
    """
    near = float(f"{value:.3g}")
    for scale, name in SCALES:
        if scale <= near < 1e3 * scale:
            return f"{near / scale:.3g} {name}"
    return f"{near:,.0f}" if near < SCALES[0][0] and near == int(near) else f"{near:.3g}"


def span(seconds: float) -> str:
    """A time as people say it: seconds, minutes or hours, to three digits.

    >>> span(0.0025), span(90), span(3600), span(1.2e10)
    ('0.0025 seconds', '1.5 minutes', '1 hour', '3.33 million hours')
    """
    name, size = next((name, size) for name, size, until in SPANS if seconds < until)
    text = in_words(seconds / size)
    return f"{text} {name}{'' if text == '1' else 's'}"


def distinctions(
    labels: Sequence[str], identities: Sequence[str], settings: Sequence[Mapping[str, Any]]
) -> list[tuple[str, ...]]:
    """For each job, the `key=value` that distinguish it from others with its label; empty if its label is unique.

    Args:
        labels: short name of each job.
        identities: two jobs with the same identity are one job.
        settings: nested settings of each job.
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
    """The first keys that each distinguish more of these settings, until all are distinct."""
    chosen: list[str] = []
    found = 1
    for key in dict.fromkeys(key for one in settings for key in one):
        distinct = len({tuple(str(one.get(k)) for k in (*chosen, key)) for one in settings})
        if distinct > found:
            chosen, found = [*chosen, key], distinct
    return chosen
