"""The CPU seconds of a report by part: pictures, hold-outs, searches of sizes, refits, optima of the laws.

    python benchmarks/report.py [report=gemstones ...]

Asked: at most 60 CPU-seconds for every figure of the Gemstones paper with 300 refits a fit and the page, on one core and
compiled code from the cache. A part counts what lies inside it, so refits and optima of hold-outs are hold-outs'; the rest is
imports, tables, checklists and the page.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from shapelaw.figures import catalogue, held_out, sizes, style
from shapelaw.figures.entry import Entry
from shapelaw.fitting import parametric
from shapelaw.prescribe.search import SizeSearch
from shapelaw.verbs.main import main as command

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "pictures": ((style, "save"),),
    "hold-outs": ((held_out, "evaluate"),),
    "searches of sizes": (
        (SizeSearch, "search"),
        (SizeSearch, "search_priced"),
        (sizes, "bin_minima"),
        (sizes, "exact_each"),
        (sizes, "contenders"),
        (sizes, "minima_of"),
    ),
    "refits": ((parametric, "bootstrap"),),
    "rolling hold-outs of the fits": ((parametric, "widening"),),
    "optima": ((parametric, "solve"), (parametric, "find_ridge"), (parametric, "break_ties")),
}
"""Part -> the functions that it consists of, by where they are looked up."""

seconds: Counter[str] = Counter()
inside: list[str] = []


def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose CPU time counts for a part, unless it is called inside another."""

    @functools.wraps(work)
    def counted(*args: Any, **kwargs: Any) -> Any:
        if inside:
            return work(*args, **kwargs)
        inside.append(part)
        started = time.process_time()
        try:
            return work(*args, **kwargs)
        finally:
            seconds[part] += time.process_time() - started
            inside.pop()

    return counted


def main() -> None:
    """Make the report and print the CPU seconds of its parts."""
    for part, places in PARTS.items():
        for owner, name in places:
            setattr(owner, name, timed(part, getattr(owner, name)))
    chosen = catalogue.chosen

    def entries(wanted: Sequence[str] = ()) -> list[Entry]:
        return [dataclasses.replace(entry, draw=timed("pictures", entry.draw)) for entry in chosen(wanted)]

    setattr(catalogue, "chosen", entries)  # noqa: B010  # as mypy refuses the plain assignment
    sys.argv[1:] = sys.argv[1:] or ["report=gemstones"]
    with suppress(SystemExit):
        command("report")
    total = time.process_time()
    for part, taken in seconds.most_common():
        print(f"{part:32s} {taken:6.1f}")
    print(f"{'the rest':32s} {total - sum(seconds.values()):6.1f}")
    print(f"{'CPU seconds in all':32s} {total:6.1f}")


if __name__ == "__main__":
    main()
