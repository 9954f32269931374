"""A program that trains nothing in no time, for tests: KEY=VALUE ...; it takes up where its checkpoint is."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

given = dict(word.split("=", 1) for word in sys.argv[1:])
tokens, batch, width = (int(given[name]) for name in ("tokens", "batch", "width"))
folder, metrics, fault = Path(given["out"]), Path(given["metrics"]), given.get("fault", "")
parent, pause = given.get("parent", ""), float(given.get("pause", "0"))
checkpoint = folder / "at.txt"
(folder / f"started-{time.time_ns()}.json").write_text(
    json.dumps(
        {"argv": sys.argv[1:], "resume": os.environ["SHAPELAW_RESUME"], "metrics": os.environ["SHAPELAW_METRICS"]}
    )
)
if fault == "child":  # which outlives it unless the whole group is stopped
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    (folder / "child.txt").write_text(str(child.pid))


def write(line: object) -> None:
    with metrics.open("a") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")


if fault == "exit":
    sys.exit("no such dataset: c4")
at = int(checkpoint.read_text()) if checkpoint.exists() else 0
if parent and not at:
    at = int((Path(parent) / f"at-{given['first']}.txt").read_text())
held_at = 4 * batch if str(width) in given.get("hold", "").split("+") and os.environ["SHAPELAW_RESUME"] != "1" else None
while at < tokens and fault != "silent":
    if at == held_at and not parent:
        time.sleep(90)  # until a test stops it
    at += batch
    time.sleep(pause)
    line: dict[str, object] = {"tokens": at}
    line["loss"] = 2 + 300 / width / math.sqrt(at) + 8 / at**0.5
    line |= {"params": 1000 * width, "accuracy": at / tokens, "note": "kept out"}
    if at == 4 * batch:
        line |= {"nan": {"loss": math.nan}, "back": {"tokens": batch}, "other": {"width": 7}}.get(fault, {})
        line |= {"beyond": {"tokens": tokens + 1}, "text": {"loss": "low"}, "run": {"run": "abc"}}.get(fault, {})
    write("{" if fault == "junk" else line)
    (folder / f"at-{at}.txt").write_text(str(at))
    (folder / "aside.txt").write_text(str(at))
    (folder / "aside.txt").replace(checkpoint)  # whole, whenever it is killed
    if (fault == "short" and at >= tokens - batch) or (fault == "nan" and at == 4 * batch):
        break
sys.stdout.write(f"trained {at} tokens\n")
