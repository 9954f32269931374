"""Selection of rows by a comparison of columns, such as `width == 512 and tokens <= 1e11`."""

from __future__ import annotations

import ast
from collections.abc import Iterable

import numpy as np
import pandas as pd

from shapelaw.errors import UserError

_MAX_LENGTH = 1000
_GRAMMAR: tuple[type[ast.AST], ...] = (
    *(ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.Invert, ast.USub, ast.UAdd),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.BitAnd, ast.BitOr),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn),
    *(ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple),
)
_EVALUATION_ERRORS = (TypeError, ValueError, NotImplementedError, LookupError, ArithmeticError, SyntaxError)
_ALLOWED = "comparisons (== != < <= > >= in), and, or, not, + - * / of columns and numbers"


def matches(frame: pd.DataFrame, where: str) -> pd.Series:
    """Mask of the rows that meet the condition.

    Only comparisons and arithmetic on column names and constants are allowed: no calls, attributes, subscripts or powers,
    so that a condition from a configuration file can only select.

    Raises:
        UserError: for anything else in `where`, an unknown column, or a condition that is not true or false per row.
    """
    tree = _parse(where)
    _check_names(tree, [str(name) for name in frame.columns], where)
    try:
        mask = frame.eval(where.strip(), engine="python", parser="pandas")
    except _EVALUATION_ERRORS as error:
        raise UserError(f"where={where!r}: cannot be evaluated ({error}); allowed values are {_ALLOWED}") from None
    if not isinstance(mask, pd.Series) or mask.dtype != np.bool_:
        raise UserError(
            f"where={where!r}: does not give true or false for each row; compare a column, as in 'width == 512'"
        )
    return mask


def _parse(where: str) -> ast.Expression:
    """Syntax tree of a condition inside the grammar."""
    if len(where) > _MAX_LENGTH:
        raise UserError(
            f"where: {len(where)} characters, and at most {_MAX_LENGTH} are allowed; select in several steps"
        )
    try:
        tree = ast.parse(where.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise UserError(f"where={where!r}: cannot be read; allowed values are {_ALLOWED}") from None
    for node in ast.walk(tree):
        if not isinstance(node, _GRAMMAR) or (isinstance(node, ast.BinOp) and _has_text(node)):
            raise UserError(f"where={where!r}: {type(node).__name__} is not allowed; allowed values are {_ALLOWED}")
    return tree


def _has_text(node: ast.BinOp) -> bool:
    """Whether an operand of the arithmetic is text or a list."""
    operands = (node.left, node.right)
    return any(
        isinstance(side, ast.List | ast.Tuple) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
        for side in operands
    )


def _check_names(tree: ast.Expression, columns: Iterable[str], where: str) -> None:
    """Refuse names that are not columns."""
    known = set(columns)
    unknown = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - known)
    if unknown:
        raise UserError(f"where={where!r}: no column {', '.join(unknown)}; the table has {', '.join(sorted(known))}")
