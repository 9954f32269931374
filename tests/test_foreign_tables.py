"""Tables as papers, trackers and small training programs leave them: read to the planted losses, or refused with the option."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from shapelaw.errors import UserError
from shapelaw.runs import RunsTable, load_runs

SIZES = {"20M": 2e7, "100M": 1e8, "500M": 5e8, "2B": 2e9}
TOKENS = {"1B": 1e9, "10B": 1e10, "200B": 2e11}
GRID = [(n, d) for n in SIZES.values() for d in TOKENS.values()]
BATCH = 500_000
GOLDEN = Path(__file__).parent / "golden"
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


def is_refused(folder: Path, text: str, options: Mapping[str, Any], remedy: str) -> None:
    """A table is refused with the option that would read it."""
    (folder / "a.csv").write_text(text)
    with pytest.raises(UserError, match=remedy):
        load_runs("csv", path=folder / "a.csv", **options)


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
        lambda step, loss: (
            f" [2024-05-01 10:11:12] iteration {step:8d}/  400000 | consumed samples: {step * 512:12d} | lm loss: 9.1E+00 |\n"
            f" validation loss at iteration {step} | lm loss value: {loss:.6E} | lm loss PPL: {math.exp(loss):.6E} | \n"
            f" validation loss at iteration {step} on test set | lm loss value: 9.2E+00 | lm loss PPL: 9.9E+03 | \n"
        ),
        lambda step, loss: (
            f"completed step: {step - 1}, seconds: 1.2, TFLOP/s/device: 120.1, total_weights: 500000, loss: 9.100\n"
            f"eval metrics after step: {step - 1}, loss={loss:.5f}, total_weights=75264.0\n"
        ),
    ],
    ids=["nanoGPT", "build-nanogpt", "llm.c", "Megatron", "MaxText"],
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
        UserError, match=r"tokens contains something that is not a number \('\[1000000000.0, 2000000000.0\]'"
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
            "params: log10, because the column is named log10(N)",
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
            "flops: PF-days, because the column is named Compute (PF-days)",
        ),
        (
            rows(
                "params,step,batch_size,seq_len,loss",
                lambda n, d: f"{n:g},{d / 512 / 1024:.0f},512,1024,{planted(n, d):.5f}",
            ),
            {"columns": {"batch_tokens": "batch_size"}, "units": {"batch_tokens": 1024}},
            "batch_size is read as tokens, not as sequences",
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
    is_refused(tmp_path, text, options, remedy)


BPT = 4.3


def with_flops(of: Callable[[float], float]) -> str:
    """A table whose FLOPs are in some unit."""
    return rows("params,tokens,flops,loss", lambda n, d: f"{n:g},{d:g},{of(6 * n * d):.9g},{planted(n, d):.5f}")


CHART = {name: "Step," + ",".join(f"{run} - {metric}" for run in SIZES) + "\n" for name, metric in (("ppl", "val/ppl"), ("bpb", "val_bpb"))}  # fmt: skip  # noqa: E501


def chart(name: str, of_loss: Callable[[float], float]) -> str:
    """One column a run, a row a step, as trackers export their charts."""
    return CHART[name] + "".join(
        ",".join([f"{d / BATCH:.0f}", *(f"{of_loss(planted(n, d)):.6f}" for n in SIZES.values())]) + "\n"
        for d in TOKENS.values()
    )


def tidy(rows_of: Callable[[int, float], Mapping[str, float]]) -> str:
    """A row a value of a metric."""
    lines = [
        f"{run},{metric},{int(d / BATCH)},{value:.6f}"
        for run, n in SIZES.items()
        for d in TOKENS.values()
        for metric, value in rows_of(int(n), d).items()
    ]
    return "\n".join(["run,metric,step,value", *lines]) + "\n"


TRAINED = {"columns": {"loss": "eval/loss"}, "constants": {"params": SIZES}}


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (
            rows("N (x10^6),D/1e9,loss", lambda n, d: f"{n / 1e6:g},{d / 1e9:g},{planted(n, d):.5f}"),
            {"columns": {"params": "N (x10^6)", "tokens": "D/1e9"}},
            "params: M, because the column is named N (x10^6); tokens: B, because the column is named D/1e9",
        ),
        (
            rows(
                "params,step,batch size (M tokens),loss", lambda n, d: f"{n:g},{d / BATCH:.0f},0.5,{planted(n, d):.5f}"
            ),
            {"columns": {"batch_tokens": "batch size (M tokens)"}},
            "batch_tokens: M, because the column is named batch size (M tokens)",
        ),
        (
            rows("Mparams,Gtokens,loss", lambda n, d: f"{n / 1e6:g},{d / 1e9:g},{planted(n, d):.5f}"),
            {"columns": {"params": "Mparams", "tokens": "Gtokens"}},
            "tokens: B, because the column is named Gtokens",
        ),
        (
            rows("params,C (EFLOPs),loss", lambda n, d: f"{n:g},{6 * n * d / 1e18:.9g},{planted(n, d):.5f}"),
            {"columns": {"flops": "C (EFLOPs)"}, "tokens_from": "6n"},
            "flops: 1e+18, because the column is named C (EFLOPs)",
        ),
        (
            rows(
                "params (M),tokens (B),loss",
                lambda n, d: f"{n / 1e6:g},{'0.2T' if d > 1e11 else d / 1e9},{planted(n, d):.5f}",
            ),
            {"columns": {"params": "params (M)", "tokens": "tokens (B)"}},
            "such as '0.2T'",
        ),
        (
            rows("params,tokens,loss", lambda n, d: f"{name_of(n, SIZES)},{d / 1e9:g},{planted(n, d):.5f}"),
            {"units": {"params": "M", "tokens": "B"}},
            "such as '20M'",
        ),
        (
            rows(
                "params,tokens,loss,val_loss", lambda n, d: f"{n:g},{d:g},{planted(n, d) - 0.3:.5f},{planted(n, d):.5f}"
            ),
            {"columns": {"loss": "val_loss"}},
            "",
        ),
        (
            chart("ppl", math.exp),
            {"wide": "run", "constants": BY_SIZE},
            "loss: perplexity, because the column is named val/ppl",
        ),
        (
            chart("bpb", lambda loss: loss / math.log(2) / BPT),
            {"wide": "run", "constants": {**BY_SIZE, "bytes_per_token": BPT}},
            "loss: bits_per_byte, because the column is named val_bpb",
        ),
        (
            tidy(lambda n, d: {"train/loss": planted(n, d) - 0.3, "eval/loss": planted(n, d), "tokens": d}),
            TRAINED,
            "a row a value of metric: eval/loss, tokens, train/loss",
        ),
        (
            "Model,,Training,Evaluation,\n"
            + rows("name,params,tokens,loss,accuracy", lambda n, d: f"m,{n:g},{d:g},{planted(n, d):.5f},0.3"),
            {"columns": {"params": "Model params", "tokens": "Training tokens", "loss": "Evaluation loss"}},
            "a header of 2 rows: Model name, Model params, Training tokens, Evaluation loss, Evaluation accuracy",
        ),
        (
            rows("params,tokens,loss\n(M),(B),(nats)", lambda n, d: f"{n / 1e6:g},{d / 1e9:g},{planted(n, d):.5f}"),
            {"columns": {"params": "params (M)", "tokens": "tokens (B)", "loss": "loss (nats)"}},
            "a header of 2 rows: params (M), tokens (B), loss (nats)",
        ),
        (
            pd.DataFrame(
                [[planted(n, d), 9.0] for n, d in GRID],
                pd.MultiIndex.from_tuples(GRID, names=["params", "tokens"]),
                pd.MultiIndex.from_tuples([("loss", "c4"), ("loss", "pile")]),
            ).to_csv(),
            {"columns": {"loss": "loss c4"}},
            "a header of 3 rows: params, tokens, loss c4, loss pile",
        ),
        (
            rows(
                '"params\n(M)","tokens\n(B)",loss,note',
                lambda n, d: f'{n / 1e6:g},{d / 1e9:g},{planted(n, d):.5f},"a\n# b"',
            ),
            {"columns": {"params": "params (M)", "tokens": "tokens (B)"}},
            "params: M, because the column is named params (M)",
        ),
        (
            rows(
                r"params & tokens & loss \\ \midrule",
                lambda n, d: rf"{name_of(n, SIZES)} & {name_of(d, TOKENS)} & $\mathbf{{{planted(n, d):.5f}}}$ \\",
            ),
            {},
            "such as '20M",
        ),
        (
            rows("params,tokens,loss", lambda n, d: f"{n:g},{d:g},{planted(n, d):.5f}") + "#1,2e9,3.9\n",
            {},
            "1 lines below the header that begin with # or //, like comments, are left out",
        ),
    ],
    ids=[
        *(
            "powers of ten by name",
            "a batch in M",
            "prefixes by name",
            "EFLOPs",
            "a cell of its own suffix",
            "suffixes beside a unit",
        ),
        *(
            "the held-out loss",
            "a chart of perplexities",
            "a chart of bits per byte",
            "a row a metric",
            "merged header",
        ),
        *("a row of units", "pandas' MultiIndex", "line breaks in cells", "LaTeX", "a row that begins with #"),
    ],
)
def test_tables_that_were_misread(tmp_path: Path, text: str, options: Mapping[str, Any], said: str) -> None:
    found = is_read(tmp_path, {"a.csv": text}, "a.csv", options)
    assert said in found.about.get("reading", "")


@pytest.mark.parametrize(
    ("text", "options", "remedy"),
    [
        (
            rows("params,tokens (K),loss", lambda n, d: f"{n:g},{d / 1e3:g},{planted(n, d):.5f}"),
            {"columns": {"tokens": "tokens (K)"}},
            r"tokens \(K\) seems to be in thousands; give 'runs.units={tokens: K}'",
        ),
        (
            rows("params,tokens,loss", lambda n, d: f"{n:g},{d / 1e3:g},{planted(n, d):.5f}"),
            {},
            r"0.0333 tokens per parameter; if they are in another unit give 'runs.units={tokens: K}'",
        ),
        (
            rows("params,tokens,loss", lambda n, d: f"{n / 1e3:g},{d:g},{planted(n, d):.5f}"),
            {},
            r"3.33e\+04 tokens per parameter; if they are in another unit give 'runs.units={params: K}'",
        ),
        *(
            (
                with_flops(of),
                {},
                rf"'runs.units={{flops: {unit}}}'",
            )
            for of, unit in ((lambda c: c / 1e18, "1e18"), (math.log10, "log10"), (lambda c: c / 8.64e19, "PF-days"))
        ),
        (
            rows("params,tokens,loss,val_loss", lambda n, d: f"{n:g},{d:g},3,{planted(n, d):.5f}"),
            {},
            r"loss, val_loss may be the loss; give 'runs.columns={loss: val_loss}' or 'runs.columns={loss: loss}'",
        ),
        (
            rows("params,tokens/s,loss", lambda n, d: f"{n:g},{d:g},{planted(n, d):.5f}"),
            {"columns": {"tokens": "tokens/s"}},
            r"the column tokens/s seems to have tokens per second",
        ),
        (
            rows("params,tokens,loss,loss.1", lambda n, d: f"{n:g},{d:g},3,{planted(n, d):.5f}"),
            {},
            r"loss, loss.1 may be the loss",
        ),
        (
            tidy(lambda n, d: {"train/loss": planted(n, d) - 0.3, "eval/loss": planted(n, d)}),
            {"columns": {"loss": "value"}, "constants": BY_SIZE},
            r"loss=value, but the file has run, step, eval/loss, train/loss",
        ),
        (
            rows("params,tokens,loss", lambda n, d: f"{n if d == 1e9 else ''},{d:g},{planted(n, d):.5f}"),
            {"bad_rows": "exclude"},
            r"params is empty in 8 of 12 rows that have a loss: .* fill it down",
        ),
        (
            rows("params tokens loss accuracy", lambda n, d: f"{n:g} {d:g} {'' if d == 1e9 else planted(n, d)} 0.31"),
            {},
            r"row 1 has 3 fields, the header 4: an empty field between spaces cannot be seen",
        ),
        (
            rows("params,tokens,loss", lambda n, d: f"#{n:g},{d:g},3.1"),
            {},
            r"no rows: 12 lines below the header that begin with #",
        ),
        (
            "2024-05-01T10:00:00.000Z,2000,3.9\n2024-05-01T11:00:00.000Z,4000,3.8\n",
            {},
            r"its first row has values instead of names",
        ),
        (
            "[step=20/60,epoch=1]\n    train/CE loss=3.2\nFinished lm evals in 0.4 seconds. Metrics:\n    c4/CE loss=3.1\n",
            {},
            r"does not say at which step it evaluated; give the files metrics_step\*.json",
        ),
    ],
    ids=[
        *("tokens (K)", "thousands of tokens", "thousands of params", "FLOPs / 1e18", "log10 FLOPs", "PF-days"),
        *(
            "a held-out loss beside",
            "a rate",
            "a column twice",
            "a row a metric",
            "merged cells",
            "spaces",
            "comments",
            "no header",
        ),
        "OLMo-core's console",
    ],
)
def test_tables_that_were_misread_are_refused(
    tmp_path: Path, text: str, options: Mapping[str, Any], remedy: str
) -> None:
    is_refused(tmp_path, text, options, remedy)


def test_merged_cells_of_excel(tmp_path: Path) -> None:
    """A group over columns, a size beside three rows; a row that a filter hides is read and said."""
    openpyxl = pytest.importorskip("openpyxl", reason="needs openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Runs of May"])
    sheet.merge_cells("A1:C1")
    sheet.append(["Size", "Training", None])
    sheet.append([None, "tokens", "loss"])
    sheet.merge_cells("A2:A3")
    sheet.merge_cells("B2:C2")
    for n in SIZES.values():
        for d in TOKENS.values():
            sheet.append([n if d == 1e9 else None, d, planted(n, d)])
        sheet.merge_cells(start_row=sheet.max_row - 2, start_column=1, end_row=sheet.max_row, end_column=1)
    sheet.row_dimensions[5].hidden = True
    book.save(tmp_path / "a.xlsx")
    columns = {"params": "Size", "tokens": "Training tokens", "loss": "Training loss"}
    found = is_read(tmp_path, {}, "a.xlsx", {"columns": columns})
    assert (
        "a header of 2 rows: Size, Training tokens, Training loss; 1 rows that the sheet hides"
        in found.about["reading"]
    )


def test_charts_as_x_and_y(tmp_path: Path) -> None:
    """As Comet and ClearML export them."""
    series = [
        {"metric": "eval_loss", "name": name, "x": [int(d / BATCH) for d in TOKENS.values()],
         "y": [planted(n, d) for d in TOKENS.values()]}
        for name, n in SIZES.items()
    ]  # fmt: skip
    options = {"columns": {"loss": "y", "step": "x", "run": "name"}, "constants": BY_SIZE}
    is_read(tmp_path, {"a.json": json.dumps(series)}, "a.json", options)


def test_deepspeeds_monitor_counts_samples(tmp_path: Path) -> None:
    """The events that it writes are named Train/Samples/..., the column step all the same."""
    files = {
        f"{name}/Train_Samples_train_loss.csv": "step,train_loss\n"
        + "".join(f"{int(d / BATCH) * 512},{planted(n, d)}\n" for d in TOKENS.values())
        for name, n in SIZES.items()
    }
    of_a_sample = {"params": SIZES, "batch_tokens": BATCH / 512}
    pattern = "*/Train_Samples_train_loss.csv"
    is_read(tmp_path, files, pattern, {"columns": {"loss": "train_loss", "step": "samples"}, "constants": of_a_sample})
    with pytest.raises(UserError, match=r"runs.columns={step: samples}.* the tokens of one sample"):
        load_runs("csv", path=tmp_path / pattern, columns={"loss": "train_loss"}, constants=of_a_sample)


OLMO = {"loss": "eval/c4_en-validation/CrossEntropyLoss", "tokens": "throughput/total_tokens"}


def test_olmos_console(tmp_path: Path) -> None:
    """Lines that ai2-olmo 0.6.0's own SpeedMonitor, Evaluator and Trainer.log_metrics_to_console made of the planted losses."""
    (tmp_path / "a.log").write_text((GOLDEN / "olmo.log").read_text())
    found = load_runs("csv", path=tmp_path / "a.log", columns=OLMO, constants={"params": 2e7})
    assert found.kept["tokens"].tolist() == list(TOKENS.values())
    assert found.kept["step"].tolist() == [d / BATCH for d in TOKENS.values()]
    np.testing.assert_allclose(found.kept["loss"], planted(2e7, found.kept["tokens"]), atol=5.1e-4)  # three decimals
    said = r"map them: 'runs.columns={params: COLUMN, tokens: throughput/total_tokens, loss: COLUMN}'"
    with pytest.raises(UserError, match=said):
        load_runs("csv", path=tmp_path / "a.log")
    columns = {**OLMO, "flops": "throughput/total_training_Gflops"}
    flops = load_runs("csv", path=tmp_path / "a.log", columns=columns, constants={"params": 2e7}).kept["flops"]
    np.testing.assert_allclose(flops, 6 * 2e7 * found.kept["tokens"])


def test_olmo_cores_files_of_steps(tmp_path: Path) -> None:
    """Files that OLMo-core 3.0.0's MetricSaverCallback wrote while its trainer trained two models on a CPU."""
    recorded = json.loads((GOLDEN / "olmo_core.json").read_text())
    later = {
        **recorded["run32"]["40"],
        "throughput/total tokens": 25_600.0,
    }  # what it holds at a step without evaluation
    (tmp_path / "run32").mkdir()
    (tmp_path / "run32" / "metrics_step50.json").write_text(json.dumps(later))
    for run, steps in recorded.items():
        (tmp_path / run).mkdir(exist_ok=True)
        for step, metrics in steps.items():
            (tmp_path / run / f"metrics_step{step}.json").write_text(json.dumps(metrics))
    columns = {"loss": "eval/lm/c4_en-validation/CE loss", "tokens": "throughput/total tokens"}
    constants = {"params": {"run32": 90_272, "run64": 196_928}}
    found = load_runs(
        "csv",
        path=tmp_path / "*/metrics_step*.json",
        columns=columns,
        constants=constants,
        units={"params": 1, "tokens": 1},
    )
    wanted = [
        (run, constants["params"][run], int(step), metrics["throughput/total tokens"], metrics[columns["loss"]])
        for run, steps in recorded.items()
        for step, metrics in steps.items()
        if metrics
    ]
    assert len(wanted) == 6
    assert found.exclusions == {"the loss of an earlier step": 1}
    kept = found.kept[["run", "params", "step", "tokens", "loss"]].sort_values(["run", "step"])
    assert list(kept.itertuples(index=False, name=None)) == sorted(wanted)
