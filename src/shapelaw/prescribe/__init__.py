"""From a fitted law to a size: the best for a budget, the cheapest for a loss, and what other choices cost.

from shapelaw.prescribe import Problem

answer = Problem.of(fit, runs).best(1e21)
answer.values, answer.intervals, answer.domain, answer.overrides
"""

from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.price import Cost, Throughput
from shapelaw.prescribe.problem import Problem, measured_cost
from shapelaw.prescribe.studies import (
    LawComparison,
    aspect_ratio_cost,
    compare_laws,
    overspend,
    overspend_measured,
    overtraining,
    prescriptions_by_budget,
)
from shapelaw.prescribe.world import World

__all__ = [
    "Cost",
    "LawComparison",
    "Limits",
    "Prescription",
    "Problem",
    "Throughput",
    "World",
    "aspect_ratio_cost",
    "compare_laws",
    "measured_cost",
    "overspend",
    "overspend_measured",
    "overtraining",
    "prescriptions_by_budget",
]
