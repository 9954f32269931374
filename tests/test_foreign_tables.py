"""Tables as papers, trackers and small training programs leave them: read to the planted losses, or refused with the option."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shapelaw.errors import UserError
from shapelaw.runs import RunsTable, load_runs

SIZES = {"20M": 2e7, "100M": 1e8, "500M": 5e8, "2B": 2e9}
TOKENS = {"1B": 1e9, "10B": 1e10, "200B": 2e11}
GRID = [(n, d) for n in SIZES.values() for d in TOKENS.values()]
BATCH = 500_000
BY_SIZE = {"params": SIZES, "batch_tokens": BATCH}
NAMED = {"params": "Model", "tokens": "Tokens", "loss": "Loss"}


def planted(params: Any, tokens: Any) -> Any:
    return 1.8 + 400 / params**0.34 + 1100 / tokens**0.35


def rows(header: str, row: Callable[[float, float], str]) -> str:
    return "\n".join([header, *(row(n, d) for n, d in GRID)]) + "\n"


def logs(line: Callable[[int, float], str]) -> dict[str, str]:
    """A log for every size, of a line or two for every loss."""
    return {
        f"{name}/log.txt": "".join(line(int(d / BATCH), planted(n, d)) for d in TOKENS.values())
        for name, n in SIZES.items()
    }


def name_of(value: float, of: Mapping[str, float]) -> str:
    return next(name for name, known in of.items() if known == value)


def is_read(folder: Path, files: Mapping[str, str], path: str, options: Mapping[str, Any]) -> RunsTable:
    """Whether every loss stands beside its size and tokens."""
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    found = load_runs("csv", path=folder / path, **options)
    assert len(found.kept) == len(GRID)
    np.testing.assert_allclose(found.kept["loss"], planted(found.params(), found.kept["tokens"]), rtol=1e-4)
    return found


@pytest.mark.parametrize(
    "line",
    [
        lambda step, loss: (
            f"step {step}: train loss {loss - 0.02:.5f}, val loss {loss:.5f}\niter {step}: loss 9.1, mfu 30%\n"
        ),
        lambda step, loss: f"{step} val {loss:.5f}\n{step} hella 0.25\n{step} train 9.1\n",
        lambda step, loss: f"s:{step} tel:{loss:.5f}\ns:{step} trl:9.1 lr:0.001\n",
    ],
    ids=["nanoGPT", "build-nanogpt", "llm.c"],
)
def test_logs_of_small_programs(tmp_path: Path, line: Callable[[int, float], str]) -> None:
    found = is_read(tmp_path, logs(line), "*/log.txt", {"constants": BY_SIZE})
    assert set(found.kept["run"]) == set(SIZES)
    assert "the held-out one" in found.about["reading"]


def test_text_that_is_no_log_is_no_log(tmp_path: Path) -> None:
    """A table of two columns of numbers beside a word."""
    (tmp_path / "a.txt").write_text("tokens params loss\n1000000000 20000000 4.5\n2000000000 20000000 4.2\n")
    assert load_runs("csv", path=tmp_path / "a.txt").kept["loss"].tolist() == [4.5, 4.2]


def test_curves_as_lists_of_a_record(tmp_path: Path) -> None:
    """By the run's name, or as records; a setting that is a list is no curve."""
    curves = {
        name: {
            "params": n,
            "betas": [0.9, 0.95],
            "tokens": list(TOKENS.values()),
            "loss": [planted(n, d) for d in TOKENS.values()],
        }
        for name, n in SIZES.items()
    }
    for content in (curves, [{"run": name, **curve} for name, curve in curves.items()]):
        found = is_read(tmp_path, {"a.json": json.dumps(content)}, "a.json", {})
        assert set(found.kept["run"]) == set(SIZES)
    unequal = [{"run": "a", "params": 2e7, "tokens": [1e9, 2e9], "loss": [4.0]}]
    (tmp_path / "b.json").write_text(json.dumps(unequal))
    with pytest.raises(
        UserError, match=r"tokens holds something that is not a number \('\[1000000000.0, 2000000000.0\]'"
    ):
        load_runs("csv", path=tmp_path / "b.json")


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (
            rows(
                "| Model | Tokens | Loss |\n|---|---|---|",
                lambda n, d: f"| **{name_of(n, SIZES)}** | {name_of(d, TOKENS)} | {planted(n, d):.5f} \u00b1 0.004 |",
            ),
            {"columns": NAMED},
            "loss: without its uncertainty",
        ),
        (
            rows("log10(N),log10(D),loss", lambda n, d: f"{math.log10(n):.8f},{math.log10(d):.8f},{planted(n, d):.5f}"),
            {"columns": {"params": "log10(N)", "tokens": "log10(D)"}},
            "params: log10, as the column is named log10(N)",
        ),
        (
            rows("params,tokens,loss", lambda n, d: f"{math.log10(n):.8f},{math.log10(d):.8f},{planted(n, d):.5f}"),
            {"units": {"params": "log10", "tokens": "log10"}},
            "",
        ),
        (
            rows("N,D/N,loss", lambda n, d: f"{n:g},{d / n:.8g},{planted(n, d):.5f}"),
            {"columns": {"params": "N"}},
            "tokens: D_N * params",
        ),
        (
            rows("params,tokens_per_param,loss", lambda n, d: f"{n:g},{d / n:.8g},{planted(n, d):.5f}"),
            {},
            "tokens: tokens_per_param * params",
        ),
        (
            rows("params,Compute (PF-days),loss", lambda n, d: f"{n:g},{6 * n * d / 8.64e19:.8g},{planted(n, d):.5f}"),
            {"columns": {"flops": "Compute (PF-days)"}, "tokens_from": "6n"},
            "flops: PF-days, as the column is named Compute (PF-days)",
        ),
        (
            rows(
                "params,step,batch_size,seq_len,loss",
                lambda n, d: f"{n:g},{d / 512 / 1024:.0f},512,1024,{planted(n, d):.5f}",
            ),
            {"columns": {"batch_tokens": "batch_size"}, "units": {"batch_tokens": 1024}},
            "batch_size is taken for tokens, not for sequences",
        ),
    ],
    ids=["a table of a paper", "log10 by name", "log10 by option", "D/N", "tokens_per_param", "PF-days", "sequences"],
)
def test_tables_of_papers(tmp_path: Path, text: str, options: Mapping[str, Any], said: str) -> None:
    name = "a.md" if text.startswith("|") else "a.csv"
    found = is_read(tmp_path, {name: text}, name, options)
    assert said in found.about.get("reading", "")


@pytest.mark.parametrize(
    ("text", "options", "remedy"),
    [
        (
            rows("params,step,batch_size,seq_len,loss", lambda n, d: f"{n:g},1000,512,1024,{planted(n, d):.5f}"),
            {"columns": {"batch_tokens": "batch_size"}},
            r"fewer than the 1024 tokens of a sequence; if they count sequences give 'runs.units={batch_tokens: 1024}'",
        ),
        (
            rows("params,tokens,loss", lambda n, d: f"{math.log10(n):.8f},{math.log10(d):.8f},{planted(n, d):.5f}"),
            {},
            r"if they are decimal logarithms 'runs.units={params: log10, tokens: log10}'",
        ),
        (
            rows("Compute (FLOPs),Model size,Final loss", lambda n, d: f"{6 * n * d:g},{n:g},{planted(n, d):.5f}"),
            {},
            r"map 'runs.columns={flops: \"Compute \(FLOPs\)\", params: \"Model size\", loss: \"Final loss\"}' and give "
            "runs.tokens_from=6n",
        ),
    ],
    ids=["sequences", "logarithms", "isoFLOP"],
)
def test_what_would_be_misread_is_refused_with_the_option(
    tmp_path: Path, text: str, options: Mapping[str, Any], remedy: str
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=remedy):
        load_runs("csv", path=tmp_path / "a.csv", **options)
