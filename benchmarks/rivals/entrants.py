"""Who takes part, and talk with their processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rivals.case import Case

BENCHMARKS = Path(__file__).resolve().parents[1]
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**31 - 1), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""What `keep_freed_memory` does, for the processes of rivals; ours does it itself, as in training."""
OURS = "shapelaw"


@dataclass(frozen=True)
class Entrant:
    """A contestant in one form.

    Args:
        name: for people.
        who: shapelaw, litgpt or transformers.
        settings: compiled; chunk_size of litgpt's cross entropy (its pretraining script takes 128, 0 is unchunked).
        keeps_memory: whether its C library keeps freed memory, as ours does in training.
    """

    name: str
    who: str
    settings: dict[str, Any] = field(default_factory=dict)
    keeps_memory: bool = False


def entrants(gpu: bool) -> list[Entrant]:
    """All, ours first as training runs it; on a CPU two further forms of litgpt show what its loss and memory cost it."""
    chunked = {"chunk_size": 128}
    litgpt = [Entrant("litgpt", "litgpt", chunked), Entrant("litgpt compiled", "litgpt", {**chunked, "compiled": True})]
    gemma = Entrant("transformers Gemma", "transformers")
    if gpu:
        return [Entrant(OURS, OURS, {"compiled": True}), Entrant(f"{OURS} eager", OURS), *litgpt, gemma]
    kept = Entrant("litgpt, memory kept", "litgpt", chunked, keeps_memory=True)
    whole = Entrant("litgpt, and loss in one", "litgpt", {"chunk_size": 0}, keeps_memory=True)
    return [Entrant(OURS, OURS), *litgpt, kept, whole, gemma]


class CouldNot(Exception):
    """What a contestant could not do, in its words."""


class Worker:
    """A contestant's process, obeying over a pipe.

    Args:
        entrant: who.
        case: what is measured.
        python: of its environment.

    Raises:
        CouldNot: if it does not get as far as a first step.
    """

    def __init__(self, entrant: Entrant, case: Case, python: Path) -> None:
        sizes = json.dumps({**case.sizes(), **entrant.settings, "who": entrant.who})
        environment = {"OMP_NUM_THREADS": str(case.threads), "PYTHONPATH": str(BENCHMARKS)}
        self._process = subprocess.Popen(
            [str(python), "-m", "rivals.worker", sizes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, **(KEEP_MEMORY if entrant.keeps_memory else {})},
        )
        self.entrant = entrant
        try:
            self.about = self._answer()
        except CouldNot:
            self.close()
            raise

    def ask(self, **command: Any) -> dict[str, Any]:
        """Sends a command and waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise CouldNot(f"its process ended with code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CouldNot(answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def python_of(entrant: Entrant, litgpt_python: Path) -> Path:
    """The interpreter of a contestant's environment."""
    return litgpt_python if entrant.who == "litgpt" else Path(sys.executable)
