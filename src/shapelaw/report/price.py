"""Hours and dollars for the answer's budget, and the device that they refer to until a reader enters another."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from shapelaw.errors import UserError
from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.price import SECONDS, Throughput
from shapelaw.report.content import Report
from shapelaw.wording import in_words, span

DEVICE_FLOPS, MFU = 990e12, 0.4
"""Dense bfloat16 of an H100 by its data sheet, and the share of it that large training runs reach."""
PRICE = 2.5
"""Dollars of a device hour: the default of objective=dollars (conf/objective/dollars.yaml)."""


def asking_price(report: Report, answer: Prescription) -> dict[str, Any]:
    """Fields with their defaults, the origin of these, and the resulting cost of the budget."""
    measured = _measured(report, answer)
    device, mfu = (DEVICE_FLOPS, MFU) if measured is None else (float(f"{measured:.3g}"), 1.0)
    hours = report.budget / (device * mfu) / SECONDS
    given = f"an H100's dense bfloat16 ({device:.3g} FLOP/s) at {mfu:.0%}"
    source = given if measured is None else "the throughput of the runs' own steps at this shape, so a utilisation of 1"
    return {
        "fields": [
            {"name": "device", "label": "FLOP/s of a device", "value": f"{device:.3g}".replace("e+", "e")},
            {"name": "mfu", "label": "Utilisation (MFU)", "value": f"{mfu:g}"},
            {"name": "price", "label": "Dollars per device hour", "value": f"{PRICE:g}"},
        ],
        "source": f"Unless you enter other values: {source}, for {PRICE:g} dollars per hour.",
        "text": f"{span(hours * SECONDS)} of one device, {in_words(hours * PRICE)} dollars",
    }


def _measured(report: Report, answer: Prescription) -> float | None:
    """FLOP/s of one device at the answer's shape, by the runs' steps; None for runs that were not timed, or sizes alone."""
    world = report.problem.world
    with contextlib.suppress(UserError):
        if "width" in answer.values:
            throughput = Throughput.measured(report.runs, world)
            points = world.points([answer.values["width"]], [answer.values["depth"]])
            rate = float(throughput.rate(points)[0, 0])
            return rate if np.isfinite(rate) else None
    return None
