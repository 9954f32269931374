"""Logs that training programs print as lines of text rather than tables.

nanoGPT prints `step 250: train loss 2.1, val loss 2.2`; build-nanogpt and llm.c write `250 val 3.51` and `250 train 3.47`, or
`s:250 tel:3.51`; Megatron ` validation loss at iteration 250 | lm loss value: 3.5E+00 | ...`, MaxText `eval metrics after step:
249, loss=3.510, ...`. OLMo and OLMo-core print blocks, one metric per line. Other lines of such logs hold no held-out loss.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?|nan|inf)"
_NANOGPT = re.compile(rf"step:? ?([0-9]+)[:,]? train loss:? ?{_NUMBER}, val loss:? ?{_NUMBER}.*")
_PAIRS = re.compile(rf"([0-9]+) ([a-z]\w*) {_NUMBER}")
_LLM_C = re.compile(rf"s:([0-9]+) (tel|trl|eval):{_NUMBER}.*")
_HELD_OUT = ("val", "tel")
_MEGATRON = re.compile(rf"(?i)validation loss at iteration ([0-9]+)\b(?! on test).*?\| lm loss value: {_NUMBER}")
_MEGATRON_STEP = re.compile(r"iteration +([0-9]+)/ *[0-9]+ \|")
_CONSUMED = re.compile(r"consumed (samples|tokens): +([0-9]+)")
_MAXTEXT = re.compile(rf"eval metrics after step: ([0-9]+), loss[=:] ?{_NUMBER}")
_OLMO_STEP = re.compile(r"\[step=([0-9,]+)/")
_OLMO_EVAL = re.compile(r"Finished .* evals in .* Metrics:")
_OLMO_METRIC = re.compile(r"\s{2,}(\S[^=]*/[^=]*)=([+-]?[0-9][0-9.,]*(?:e[+-]?[0-9]+)?|nan|inf)([BTPE]?)\s*")
_OLMO_SUFFIXES = {"": "", "B": "e9", "T": "e12", "P": "e15", "E": "e18"}

Row = dict[str, str]


def rows_of(text: str) -> tuple[pd.DataFrame, str] | None:
    """Columns step, loss (held out) and any values beside them, all as text, with a note; None for other texts.

    For OLMo's logs the columns are its metrics, with one row per block.

    >>> rows_of("step 0: train loss 4.2, val loss 4.3\\niter 0: loss 4.2")[0].to_dict("records")
    [{'step': '0', 'train_loss': '4.2', 'loss': '4.3'}]
    >>> rows_of("0 val 10.9\\n0 train 10.8")[0].to_dict("records")
    [{'step': '0', 'loss': '10.9'}]
    >>> rows_of("eval metrics after step: 9, loss=9.420, total_weights=75264.0")[0].to_dict("records")
    [{'step': '10', 'loss': '9.420'}]
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    small = text.lower()
    for form, words in FORMS.items():
        if words in small and (rows := list(form(lines))):
            what = "one row per block of metrics" if form is _olmo else "loss: the held-out one"
            return pd.DataFrame(rows).fillna(""), f"lines of a training program's log; {what}"
    return None


def _nanogpt(lines: Sequence[str]) -> Iterator[Row]:
    for line in lines:
        if match := _NANOGPT.fullmatch(line.strip()):
            yield {"step": match[1], "train_loss": match[2], "loss": match[3]}


def _pairs(lines: Sequence[str]) -> Iterator[Row]:
    """Rows of a log in which every line is such a pair."""
    for form in (_PAIRS, _LLM_C):
        found = list(itertools.takewhile(bool, (form.fullmatch(line.strip()) for line in lines)))
        if len(found) == len(lines):
            yield from ({"step": match[1], "loss": match[3]} for match in found if match and match[2] in _HELD_OUT)


def _megatron(lines: Sequence[str]) -> Iterator[Row]:
    """Rows of a Megatron log; samples and tokens come from the training line of the same iteration."""
    step, consumed = "", {}
    for line in lines:
        if match := _MEGATRON_STEP.search(line):
            step, consumed = match[1], {f"consumed_{what}": count for what, count in _CONSUMED.findall(line)}
        elif match := _MEGATRON.search(line.lower()):
            yield {"step": match[1], **(consumed if match[1] == step else {}), "loss": match[2]}


def _maxtext(lines: Sequence[str]) -> Iterator[Row]:
    """Steps are counted from 0: after step 9, ten are done."""
    for line in lines:
        if match := _MAXTEXT.search(line):
            yield {"step": str(int(match[1]) + 1), "loss": match[2]}


def _olmo(lines: Sequence[str]) -> Iterator[Row]:
    """Blocks of metrics: training metrics belong to their step, those of an evaluation to the step before it.

    Raises:
        ValueError: for evaluations that OLMo-core prints, before the line of their step or long after it.
    """
    if any(_OLMO_EVAL.search(line) for line in lines):
        raise ValueError(
            "OLMo-core's console does not say at which step it evaluated; give the files metrics_step*.json of its "
            "MetricSaverCallback, or runs=wandb"
        )
    block: Row = {"step": "0"}
    for line in lines:
        if match := _OLMO_METRIC.fullmatch(line):
            block[match[1]] = match[2].replace(",", "") + _OLMO_SUFFIXES[match[3]]
            continue
        if len(block) > 1:
            yield block
        step = _OLMO_STEP.search(line)
        block = {"step": step[1].replace(",", "") if step else block["step"]}
    if len(block) > 1:
        yield block


FORMS: dict[Callable[[Sequence[str]], Iterator[Row]], str] = {
    _nanogpt: "train loss",
    _pairs: "",
    _megatron: "validation loss at iteration",
    _maxtext: "eval metrics after step",
    _olmo: "",
}
"""Form of a log -> words that some line of it must hold, so that a table of a million rows is not scanned for each form."""
