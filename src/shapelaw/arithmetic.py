"""The code of the built-in parts of a run: its files, and the version assigned to its arithmetic.

A part enters a run's identity by its version as long as its code is the code that received the version (arithmetic.json).
Code that was edited since then has no version yet. It enters by its hash, so that no run of the old code passes for a run of
the new code.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tokenize
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parent
PINNED = SOURCE / "arithmetic.json"
"""Part -> the hash of the code that received its version; `python tests/model/test_arithmetic.py` writes it."""
MODEL_FILES = ("transformer.py", "attention.py", "loss.py", "initialisation.py", "kernels.py", "cpu_kernels.py")
FILES = {
    "model": (*(f"model/{name}" for name in MODEL_FILES), "thresholds.py"),
    "optimizer": ("optim.py",),
    "schedule": ("schedule.py", "lr_rules.py"),
    "step": ("training/module.py", "data/order.py", "data/loader.py", "data/torch_batches.py"),
    "part of a corpus": ("data/part.py",),
    "spike monitor": ("training/spikes.py", "training/monitor.py", "training/rollback.py"),
}
"""Part -> the files whose code is its arithmetic."""


@cache
def version_of(part: str, version: int) -> int | str:
    """The identity of a part: its version, or the hash of its code if that was edited and has no version yet."""
    found = hash_of(part)
    return version if pinned()[part] == found else found


def pinned() -> dict[str, str]:
    """Part -> the hash of the code that received its version."""
    return dict(json.loads(PINNED.read_text(encoding="utf-8")))


def hash_of(part: str) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a part's code."""
    text = "\n".join(code(SOURCE / file) for file in FILES[part])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code(path: Path) -> str:
    """The code of a file without comments, docstrings and empty lines; the rest decides what it computes."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            assert node.end_lineno is not None
            for row in range(node.lineno, node.end_lineno + 1):
                lines[row - 1] = ""
    return "\n".join(line.rstrip() for line in lines if line.strip())
