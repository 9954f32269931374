"""Law forms with formula, gradient, units and source, and the registry that finds them by name.

Your own law is one file (docs/laws.md shows one): `law=path/to/file.py:NAME`. A package adds a law as an entry point.
"""

from shapelaw.laws import accuracy, annealing, files, repetition
from shapelaw.laws.base import EXPONENT, LOG_FLOOR, Columns, Law, Prior
from shapelaw.laws.catalogue import ACCURACY_LAWS, LAWS, get_law, law_names, reference_of, register
from shapelaw.laws.sums import Design, SumLaw, Term

__all__ = [
    "ACCURACY_LAWS",
    "EXPONENT",
    "LAWS",
    "LOG_FLOOR",
    "Columns",
    "Design",
    "Law",
    "Prior",
    "SumLaw",
    "Term",
    "accuracy",
    "annealing",
    "files",
    "get_law",
    "law_names",
    "reference_of",
    "register",
    "repetition",
]
