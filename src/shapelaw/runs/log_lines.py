"""Logs that small training programs print: lines of text, not tables.

nanoGPT prints `step 250: train loss 2.1, val loss 2.2`; build-nanogpt and llm.c write `250 val 3.51` and `250 train 3.47`, or
`s:250 tel:3.51`. Other lines of such a log say nothing of a held-out loss.
"""

from __future__ import annotations

import re

import pandas as pd

_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?|nan|inf)"
_NANOGPT = re.compile(rf"step:? ?([0-9]+)[:,]? train loss:? ?{_NUMBER}, val loss:? ?{_NUMBER}.*")
_PAIRS = re.compile(rf"([0-9]+) ([a-z]\w*) {_NUMBER}")
_LLM_C = re.compile(rf"s:([0-9]+) (tel|trl|eval):{_NUMBER}.*")
_HELD_OUT = ("val", "tel")


def rows_of(text: str) -> pd.DataFrame | None:
    """Columns step, loss (held out) and, where it is on the same line, train_loss, all of them texts; None of any other text.

    >>> rows_of("step 0: train loss 4.2, val loss 4.3\\niter 0: loss 4.2").to_dict("records")
    [{'step': '0', 'train_loss': '4.2', 'loss': '4.3'}]
    >>> rows_of("0 val 10.9\\n0 train 10.8").to_dict("records")
    [{'step': '0', 'loss': '10.9'}]
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if rows := [match.groups() for line in lines if (match := _NANOGPT.fullmatch(line))]:
        return pd.DataFrame(rows, columns=["step", "train_loss", "loss"])
    for form in (_PAIRS, _LLM_C):
        found = [form.fullmatch(line) for line in lines]
        rows = [(match[1], match[3]) for match in found if match and match[2] in _HELD_OUT]
        if rows and all(found):
            return pd.DataFrame(rows, columns=["step", "loss"])
    return None
