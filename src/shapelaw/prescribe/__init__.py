"""From a fitted law to a size: the best for a budget, the cheapest for a loss, and the cost of other choices.

from shapelaw.prescribe import Problem

answer = Problem.of(fit, runs).best(1e21)
answer.values, answer.intervals, answer.domain, answer.overrides
"""

from shapelaw.prescribe.answer import Prescription
from shapelaw.prescribe.ask import Problem
from shapelaw.prescribe.comparison import LawComparison, compare_laws
from shapelaw.prescribe.limits import Limits
from shapelaw.prescribe.price import Cost, Throughput, measured_cost
from shapelaw.prescribe.questions import AT, BEST, FLOPS, REACH, SIZE
from shapelaw.prescribe.registry import Basis, Question, register
from shapelaw.prescribe.studies import (
    aspect_ratio_cost,
    overspend,
    overspend_at_tokens,
    overspend_measured,
    overtraining,
    prescriptions_by_budget,
)
from shapelaw.prescribe.world import World

__all__ = [
    "AT",
    "BEST",
    "FLOPS",
    "REACH",
    "SIZE",
    "Basis",
    "Cost",
    "LawComparison",
    "Limits",
    "Prescription",
    "Problem",
    "Question",
    "Throughput",
    "World",
    "aspect_ratio_cost",
    "compare_laws",
    "measured_cost",
    "overspend",
    "overspend_at_tokens",
    "overspend_measured",
    "overtraining",
    "prescriptions_by_budget",
    "register",
]
