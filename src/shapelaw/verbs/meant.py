"""What a user most likely meant by a value that a group does not have, or by a word that is not KEY=VALUE."""

from __future__ import annotations

import re
from pathlib import PurePath

TABLES = {"csv", "tsv", "tab", "txt", "dat", "md", "log", "json", "jsonl", "ndjson", "parquet", "pq", "feather", "xlsx"}
COMPRESSED = {"gz", "bz2", "xz", "zst", "zip"}
CORPORA = {"jsonl": "jsonl", "json": "jsonl", "parquet": "parquet"}
OTHER_NAMES = {"chinchilla": "params_tokens", "hoffmann": "params_tokens", "muennighoff": "data_constrained"}
"""Names of laws in the literature, and ours."""
OF_RUNS = {"fit", "report"}
"""Verbs that read a table of runs."""
FOLDERS = {"prescribe": "fit", "next": "fit", "evaluate": "model", "export": "run"}
"""Verb -> its option that takes a folder."""


def choice_meant(group: str, given: str) -> str:
    """What to give instead of GROUP=GIVEN, where that is a file, a shape or another name; empty if unknown.

    >>> choice_meant("runs", "mine.csv")
    'to read a file, give runs=csv runs.path=mine.csv'
    >>> choice_meant("shape", "96x3")
    'for another shape, give shape.width=96 shape.depth=3'
    """
    kind = _kind(given)
    if group == "runs" and kind in TABLES:
        return f"to read a file, give runs=csv runs.path={given}"
    if group == "data" and (kind or "/" in given):
        return f"to read files, give data={CORPORA.get(kind, 'text')} data.path={given}"
    if group == "tokenizer" and kind == "json":
        return f"to read a tokenizer, give tokenizer=gpt_neox tokenizer.path={given}"
    if group == "shape" and (shape := re.fullmatch(r"(\d+)x(\d+)", given)):
        return f"for another shape, give shape.width={shape[1]} shape.depth={shape[2]}"
    if group == "law" and (ours := OTHER_NAMES.get(given.lower())):
        return f"its form is law={ours} here"
    return ""


def word_meant(verb: str, word: str) -> str:
    """What to give instead of a word without =.

    >>> word_meant("fit", "mine.csv")
    'to read a file, give runs=csv runs.path=mine.csv'
    >>> word_meant("prescribe", "outputs/fits/mine")
    'give fit=outputs/fits/mine'
    """
    if verb in OF_RUNS and _kind(word) in TABLES:
        return choice_meant("runs", word)
    if verb in FOLDERS and "/" in word:
        return f"give {FOLDERS[verb]}={word}"
    return "write KEY=VALUE, quoted for the shell"


def _kind(given: str) -> str:
    """Ending of a file's name, without that of its compression; empty if there is none."""
    endings = [ending.lstrip(".").lower() for ending in PurePath(given).suffixes]
    return next((ending for ending in reversed(endings) if ending not in COMPRESSED), "")
