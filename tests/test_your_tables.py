"""Tables of one's own: whatever dialect a table is written in, it is read as the same table, or refused with the remedy."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shapelaw import fit, load_runs
from shapelaw.config import FitConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.runs import RunsTable
from shapelaw.runs.numbers import read
from shapelaw.verbs.fit import folder_of, table_of
from support import Compose

SIZES, TOKENS = (20_000_000, 92_831_777, 430_886_938, 2_000_000_000), (1_000_000_000, 6_309_573_445, 100_000_000_000)


def table() -> pd.DataFrame:
    """Four sizes at three token counts, each a run of its own, by a known law with a little noise."""
    rows = [(n, d) for n in SIZES for d in TOKENS]
    noise = np.random.default_rng(3).normal(0, 3e-3, len(rows))
    loss = [(1.8 + 410 * n**-0.34 + 1200 * d**-0.35) * np.exp(e) for (n, d), e in zip(rows, noise, strict=True)]
    return pd.DataFrame({"run": [f"m{i}" for i in range(len(rows))], "params": [n for n, _ in rows],
                         "tokens": [d for _, d in rows], "loss": loss})  # fmt: skip


def loaded(path: Path, content: str | bytes, **options: Any) -> RunsTable:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_runs("csv", path=path, **options)


def same(runs: RunsTable, expected: pd.DataFrame | None = None, rtol: float = 0.0) -> None:
    whole = table() if expected is None else expected
    for name in ("params", "tokens", "loss"):
        np.testing.assert_allclose(runs.kept[name].astype(float), whole[name].astype(float), rtol=rtol, atol=0)
    assert list(runs.kept["run"]) == list(whole["run"])


def refusal(path: Path, content: str | bytes, **options: Any) -> str:
    with pytest.raises(UserError) as refused:
        loaded(path, content, **options)
    said = str(refused.value)
    assert "\n" not in said
    return said


def grouped(number: int, sign: str) -> str:
    return f"{number:,}".replace(",", sign)


def written(frame: pd.DataFrame, delimiter: str, decimal: str, thousands: str, quote_all: bool, digits: int) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL)
    writer.writerow(frame.columns)
    for row in frame.itertuples(index=False):
        counts = [grouped(int(value), thousands) for value in (row.params, row.tokens)]
        writer.writerow([row.run, *counts, f"{row.loss:.{digits}f}".replace(".", decimal)])
    return out.getvalue()


dialects = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;\t| "),
        "decimal": st.sampled_from(".,"),
        "thousands": st.sampled_from(["", ",", ".", " ", "'", "_", "\u202f"]),
        "quote_all": st.booleans(),
        "digits": st.sampled_from([3, 4, 15]),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
        "before": st.sampled_from(["", "# made by a script\n", "# a\n# b\n\n", "sep={delimiter}\n"]),
        "newline": st.sampled_from(["\n", "\r\n"]),
        "capitals": st.sampled_from([str.lower, str.upper, str.title]),
        "compress": st.sampled_from(["", ".gz", ".bz2", ".xz"]),
    }
)
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@settings(max_examples=60, deadline=None)
@given(dialect=dialects)
def test_the_same_table_in_any_dialect_is_the_same_or_refused(
    tmp_path_factory: pytest.TempPathFactory, dialect: dict[str, Any]
) -> None:
    """A table is never read as another one; a sign that both separates thousands and is decimal is nobody's dialect."""
    thin_space_in_cp1252 = dialect["encoding"] == "cp1252" and dialect["thousands"] == "\u202f"
    if dialect["thousands"] == dialect["decimal"] or thin_space_in_cp1252:
        return
    frame = table().assign(run=[f"läuft {i}" for i in range(len(table()))])
    asked = {name: dialect[name] for name in ("delimiter", "decimal", "thousands", "quote_all", "digits")}
    header, body = written(frame, **asked).split("\n", 1)
    text = dialect["before"].format(**dialect) + dialect["capitals"](header) + "\n" + body
    content = text.replace("\r", "").replace("\n", dialect["newline"]).encode(dialect["encoding"])
    ending, said = dialect["compress"], ""
    path = tmp_path_factory.mktemp("dialect") / f"runs.csv{ending}"
    path.write_bytes(COMPRESSED[ending](content) if ending else content)
    try:
        runs = load_runs("csv", path=path)
    except UserError as refused:
        said = str(refused)
    if not said:
        same(runs, frame.assign(loss=[float(f"{loss:.{dialect['digits']}f}") for loss in frame["loss"]]))
        return
    assert "\n" not in said
    assert "decimal" in said or "the column loss holds" in said
    assert (dialect["digits"], dialect["decimal"]) == (3, ",")  # 3,970 may be thousands: the only doubt there is


@pytest.mark.parametrize(
    ("text", "value", "decimal"),
    [
        ("1,000,000", 1e6, "."), ("1,00,00,000", 1e7, "."), ("1.000.000", 1e6, ","), ("1.234,5", 1234.5, ","),
        ("3,97", 3.97, ","), ("0,970", 0.970, ","), ("20.0M", 20e6, "."), ("1.3 billion", 1.3e9, "."),
        ("1'000'000", 1e6, "."), ("1 000", 1000.0, ","), ("1.2×10^9", 1.2e9, "."), ("−1e-3", -1e-3, "."),
        ("43.1%", 0.431, "."), ("20B tokens", 20e9, "."), ("1_000_000", 1e6, "."), ("-", np.nan, "."), ("inf", np.inf, "."),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(text: str, value: float, decimal: str) -> None:
    numbers = read("x", pd.Series([text]), decimal, counts=True, shares=True)
    assert numbers.unreadable[0] == ""
    np.testing.assert_allclose(numbers.values, [value], rtol=1e-15)


@pytest.mark.parametrize(
    "text", ["1,23,4", "3,97", "1,000.5.2", "12 34", "diverged", "1e", "0,100", "3.9 (est.)", "True"]
)
def test_what_is_no_number_is_not_guessed(text: str) -> None:
    assert read("x", pd.Series([text])).unreadable[0] == text
    assert read("x", pd.Series(["5M"])).unreadable[0] == "5M"  # of a column that counts nothing


def as_json(kind: str) -> str:
    frame = table()
    if kind in ("records", "split", "columns", "index", "table"):
        return str(frame.to_json(orient=kind, double_precision=15))  # type: ignore[call-overload]
    rows = json.loads(frame.to_json(orient="records", double_precision=15))
    if kind == "lines":
        return "\n".join(map(json.dumps, rows))
    if kind == "nested":
        return json.dumps([{"run": r["run"], "config": {"params": r["params"]}, "summary": {"tokens": r["tokens"], "loss": r["loss"]}} for r in rows])  # fmt: skip  # noqa: E501
    if kind == "by_run":
        return json.dumps({r.pop("run"): r for r in rows})
    return json.dumps({"arrays": {name: list(frame[name]) for name in frame}}["arrays"])


@pytest.mark.parametrize(
    "kind", ["records", "split", "columns", "index", "table", "lines", "nested", "by_run", "arrays"]
)
@pytest.mark.parametrize("ending", ["json", "ndjson", "csv"])
def test_json_of_every_orientation(tmp_path: Path, kind: str, ending: str) -> None:
    if kind == "lines" and ending == "csv":
        ending = "jsonl"
    columns = (
        {"params": "config.params", "tokens": "summary.tokens", "loss": "summary.loss"} if kind == "nested" else None
    )
    same(loaded(tmp_path / f"runs.{ending}", as_json(kind), columns=columns), rtol=1e-14)


def test_parquet_of_every_type(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = table()
    arrow = pa.table(
        {
            "run": pa.array(frame["run"]).dictionary_encode(),
            "params": pa.array(frame["params"], pa.int64()),
            "tokens": pa.array([str(value) for value in frame["tokens"]], pa.large_string()),
            "loss": pa.array(frame["loss"], pa.float64()),
            "vocab_size": pa.array([None, *[256_000] * (len(frame) - 1)], pa.int32()),
        }
    )
    pq.write_table(arrow, tmp_path / "runs.parquet")
    runs = load_runs("csv", path=tmp_path / "runs.parquet")
    same(runs)
    assert runs.kept["vocab_size"].isna().sum() == 1
    frame.convert_dtypes().astype({"run": "category"}).set_index("run").to_parquet(tmp_path / "pandas.pq")
    same(load_runs("csv", path=tmp_path / "pandas.pq"))
    frame.to_feather(tmp_path / "runs.feather")
    same(load_runs("csv", path=tmp_path / "runs.feather"))


def test_excel_sheets(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    path = tmp_path / "runs.xlsx"
    with pd.ExcelWriter(path) as book:
        table().to_excel(book, sheet_name="runs", startrow=2, startcol=1)
        pd.DataFrame({"x": [1]}).to_excel(book, sheet_name="notes")
    runs = load_runs("csv", path=path)
    same(runs, rtol=1e-15)
    assert runs.about["reading"] == "sheet 'runs' of 2"
    with pytest.raises(UserError, match=r"runs\.sheet=x: the file has runs, notes"):
        load_runs("csv", path=path, sheet="x")


def csv_of(frame: pd.DataFrame, **options: Any) -> str:
    return str(frame.to_csv(index=False, **options))


def test_lines_that_are_no_rows(tmp_path: Path) -> None:
    lines = csv_of(table()).splitlines()
    middle = len(lines) // 2
    runs = loaded(tmp_path / "two.csv", "\n".join([*lines[:middle], lines[0], *lines[middle:]]))
    same(runs)
    assert runs.exclusions == {"the header again": 1}
    same(loaded(tmp_path / "r.txt", "\n".join([lines[0].replace(",", " "), *(f"{i} {line}".replace(",", " ") for i, line in enumerate(lines[1:]))])))  # fmt: skip  # noqa: E501
    same(loaded(tmp_path / "numpy.csv", "\n".join(["# by numpy", f"# {lines[0]}", *lines[1:]])))
    blank = ["Runs of May", "", *lines[:3], ",,,", *lines[3:]]
    same(loaded(tmp_path / "title.csv", "\n".join(blank)))
    same(loaded(tmp_path / "index.csv", str(table().to_csv())))
    same(loaded(tmp_path / "trailing.csv", "\n".join(f"{line}," for line in lines)))
    same(loaded(tmp_path / "table.md", "\n".join(["| run | params | tokens | loss |", "|:--|--:|--:|--:|", *(f"| {line.replace(',', ' | ')} |" for line in lines[1:])])))  # fmt: skip  # noqa: E501


def test_rows_that_sum_up_the_others_are_left_out(tmp_path: Path) -> None:
    means = table().drop(columns="run").mean()
    summary = "".join(f"{word},{means.params},{means.tokens},{means.loss}\n" for word in ("Mean", "total"))
    runs = loaded(tmp_path / "runs.csv", csv_of(table()) + summary)
    same(runs)
    assert runs.exclusions == {"a summary of the rows above": 2}


def test_an_archive_of_one_file_is_read(tmp_path: Path) -> None:
    for names, said in ((["a.csv"], ""), (["a.csv", "b.csv"], "holds 2 files")):
        with zipfile.ZipFile(tmp_path / "runs.csv.zip", "w") as archive:
            for name in names:
                archive.writestr(name, csv_of(table()))
        if said:
            with pytest.raises(UserError, match=said):
                load_runs("csv", path=tmp_path / "runs.csv.zip")
        else:
            same(load_runs("csv", path=tmp_path / "runs.csv.zip"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("run,params,tokens,loss\nm,20,000,000,1,000,000,000,3.97\n", "row 1 has 9 fields, the header 4"),
        ("run;params;tokens;loss\nm;20000000;1000000000;3,970\n", "give runs.decimal=dot or comma"),
        ("run;params;tokens;loss\nm;20.000.000;1.000.000;3.97\n", "decimal signs"),
        ("run,params,tokens,loss,loss\nm,2e7,1e9,3.9,4.1\n", "2 columns are named loss and differ"),
        ("", "cannot be read (it is empty)"),
        ("run,params,tokens,loss,vocab_size\n", "holds no rows to fit"),
        ("20000000,1000000000,3.97\n43088694,1000000000,3.66\n", "its first row has values instead of names"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_remedy(tmp_path: Path, content: str, said: str) -> None:
    assert said in refusal(tmp_path / "runs.csv", content)


def test_a_doubtful_comma_is_what_the_option_says(tmp_path: Path) -> None:
    content = "run;params;tokens;loss\nm;20000000;1000000000;3,970\nn;40000000;1000000000;3,701\n"
    assert list(loaded(tmp_path / "runs.csv", content, decimal="comma").kept["loss"]) == [3.970, 3.701]
    assert "the column loss holds 3701 to 3970" in refusal(tmp_path / "runs.csv", content, decimal="dot")


def test_suffixes_are_read_to_their_digits_and_said(tmp_path: Path) -> None:
    frame = table()
    short = {
        "params": [f"{n / 1e6:.1f}M" for n in frame["params"]],
        "tokens": [f"{d / 1e9:.2f}B" for d in frame["tokens"]],
    }
    shown = frame.assign(**short)
    runs = loaded(tmp_path / "runs.csv", csv_of(shown))
    same(runs, rtol=1e-3)
    assert "params: suffixes, to as many digits as the file has, such as '20.0M'" in runs.about["reading"]


def test_losses_that_are_no_numbers_are_left_out_with_their_text(tmp_path: Path) -> None:
    texts = [*map(str, table()["loss"][:-4]), "NaN", "inf", "-", "diverged"]
    content = csv_of(table().assign(loss=texts))
    assert "('diverged' in row 12); correct them, or leave these rows out" in refusal(tmp_path / "runs.csv", content)
    runs = loaded(tmp_path / "runs.csv", content, bad_rows="exclude")
    assert len(runs) == 8
    assert "reading" not in runs.about
    assert runs.exclusions == {
        "loss is missing or not a number": 2, "loss is infinite": 1, "loss is not a number (diverged)": 1,
    }  # fmt: skip


PERPLEXITIES = table().assign(loss=np.exp(table()["loss"]))


@pytest.mark.parametrize("options", [{}, {"bad_rows": "exclude"}])
def test_perplexities_are_refused_as_a_whole_and_read_by_their_unit(tmp_path: Path, options: dict[str, Any]) -> None:
    """Never thinned to the rows that look like losses."""
    said = refusal(tmp_path / "runs.csv", csv_of(PERPLEXITIES), **options)
    assert "give 'runs.units={loss: perplexity}'" in said
    same(loaded(tmp_path / "runs.csv", csv_of(PERPLEXITIES), units={"loss": "perplexity"}, **options), rtol=1e-14)


def test_low_perplexities_of_trained_models_are_refused_too(tmp_path: Path) -> None:
    """6 to 12 lie below ln(vocabulary), but no model of 20 million parameters has such a loss after a billion tokens."""
    frame = table().assign(loss=np.linspace(12, 6, len(table())))
    assert "which cannot be nats per token" in refusal(tmp_path / "runs.csv", csv_of(frame))
    assert len(loaded(tmp_path / "runs.csv", csv_of(frame), units={"loss": "nats"})) == len(frame)


@pytest.mark.parametrize("of_loss", [lambda loss: 1 / loss, lambda loss: 5 - loss, lambda loss: 100 * np.exp(-loss)])
def test_what_rises_with_model_and_data_is_no_loss(tmp_path: Path, of_loss: Callable[[Any], Any]) -> None:
    """An accuracy that is taken for a loss would be fitted well, by exponents below 0."""
    rising = csv_of(table().assign(loss=of_loss(table()["loss"])))
    said = refusal(tmp_path / "runs.csv", rising)
    assert "the column loss rises with params and tokens" in said
    assert "'runs.columns={accuracy: COLUMN}'" in said
    named = loaded(tmp_path / "runs.csv", rising, units={"loss": "nats"})
    np.testing.assert_allclose(named.kept["loss"].max(), of_loss(table()["loss"]).max(), rtol=1e-12)


@pytest.mark.parametrize(
    "name",
    ["val_bpc", "bits/char", "nats per word", "word_perplexity", "byte_ppl", "loss (log2)", "log10 loss", "ppl/word"],
)
def test_a_loss_in_a_unit_that_is_not_converted_is_refused(tmp_path: Path, name: str) -> None:
    """Never taken for the unit of which its name holds a word."""
    said = refusal(tmp_path / "runs.csv", csv_of(table().rename(columns={"loss": name})), columns={"loss": name})
    assert f"the column {name} seems to be in " in said
    assert "convert it to nats per token" in said


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("bits/token", np.log(2)),
        ("loss (bits)", np.log(2)),
        ("log_ppl", 1),
        ("8_bits_loss", 1),
        ("loss (nats/token)", 1),
    ],
)
def test_a_loss_is_in_the_unit_of_which_its_name_speaks(tmp_path: Path, name: str, factor: float) -> None:
    runs = loaded(tmp_path / "runs.csv", csv_of(table().rename(columns={"loss": name})), columns={"loss": name})
    np.testing.assert_allclose(runs.kept["loss"], factor * table()["loss"], rtol=1e-12)


@pytest.mark.parametrize(("name", "unit"), [("bits/byte", "bits per byte"), ("loss (nats per byte)", "nats per byte")])
def test_a_loss_for_each_byte_is_known_by_its_name(tmp_path: Path, name: str, unit: str) -> None:
    per_byte = table().assign(loss=table()["loss"] / 4).rename(columns={"loss": name})
    runs = loaded(tmp_path / "runs.csv", csv_of(per_byte), columns={"loss": name})
    assert runs.loss_unit == unit


def test_a_column_s_name_says_its_unit(tmp_path: Path) -> None:
    named = PERPLEXITIES.assign(params=PERPLEXITIES["params"] / 1e6, tokens=PERPLEXITIES["tokens"] / 1e9)
    named = named.rename(columns={"params": "Size (M)", "tokens": "train_tokens_B", "loss": "val/ppl"})
    columns = {"params": "Size (M)", "tokens": "train_tokens_B", "loss": "val/ppl"}
    runs = loaded(tmp_path / "runs.csv", csv_of(named), columns=columns)
    same(runs, rtol=1e-12)
    assert runs.about["reading"] == (
        "params: M, because the column is named Size (M); tokens: B, because the column is named train_tokens_B; "
        "loss: perplexity, because the column is named val/ppl"
    )
    by_column = loaded(tmp_path / "runs.csv", csv_of(PERPLEXITIES.assign(loss_unit="PPL")))
    same(by_column, rtol=1e-14)
    assert by_column.about["reading"] == "loss: perplexity, as the column loss_unit says"
    whole = table().rename(columns={"params": "size_M"})  # counts whose column's name speaks of millions all the same
    same(loaded(tmp_path / "runs.csv", csv_of(whole), columns={"params": "size_M"}))


@pytest.mark.parametrize(
    ("params", "tokens", "said"),
    [
        (1e6, 1e9, "{params: M, tokens: B}"), (1e9, 1e9, "{params: B, tokens: B}"), (1e9, 1e12, "{params: B, tokens: T}"),
        (1e6, 1.0, "{params: M}"), (1.0, 1e9, "{tokens: B}"), (1.0, 1e6, "{tokens: M}"), (1e6, 1e6, "{params: M, tokens: M}"),
    ],
)  # fmt: skip
def test_counts_in_another_unit_are_refused_with_the_one_that_fits(
    tmp_path: Path, params: float, tokens: float, said: str
) -> None:
    frame = table().assign(params=table()["params"] / params, tokens=table()["tokens"] / tokens)
    assert f"give 'runs.units={said}'" in refusal(tmp_path / "runs.csv", csv_of(frame))
    units = {"params": params, "tokens": tokens}
    same(loaded(tmp_path / "runs.csv", csv_of(frame), units=units), rtol=1e-14)


def test_losses_per_byte_become_losses_per_token_or_keep_their_unit(tmp_path: Path) -> None:
    """By bytes per token; without them the fit's numbers are in bits per byte, and say so."""
    bytes_per_token = 4.3
    frame = table().assign(loss=table()["loss"] / np.log(2) / bytes_per_token)
    asked = {"units": {"loss": "bits_per_byte"}}
    same(loaded(tmp_path / "a.csv", csv_of(frame), **asked, constants={"bytes_per_token": bytes_per_token}), rtol=1e-14)
    runs = loaded(tmp_path / "b.csv", csv_of(frame), **asked)
    result, nats = (fit(runs_, delta=1e-3, bootstrap=None) for runs_ in (runs, RunsTable(table())))
    factor = np.log(2) * bytes_per_token
    assert result.parameters["E"] * factor == pytest.approx(nats.parameters["E"], rel=1e-6)
    assert result.parameters["alpha"] == pytest.approx(nats.parameters["alpha"], rel=1e-6)
    assert result.units["E"] == result.units["loss"] == result.checklist["counting"]["loss_unit"] == "bits per byte"
    assert "bits per byte" in result.summary()
    assert RunsTable.read(runs.to_parquet(tmp_path / "runs.parquet")).loss_unit == "bits per byte"
    assert nats.units["E"] == "nats per token"
    low = loaded(tmp_path / "c.csv", csv_of(frame)).about["reading"]
    assert "if they are bits per byte give 'runs.units={loss: bits_per_byte}'" in low


def wide_of(frame: pd.DataFrame, index: str, columns: str) -> pd.DataFrame:
    return frame.pivot_table(index=index, columns=columns, values="loss").reset_index()


@pytest.mark.parametrize("names", ["{}", "{:.9e}", "loss@{}", "loss_{}", "tokens={}"])
def test_wide_tables_are_made_long(tmp_path: Path, names: str) -> None:
    frame = table()
    wide = wide_of(frame, "params", "tokens").rename(
        columns=lambda name: name if name == "params" else names.format(name)
    )
    said = refusal(tmp_path / "wide.csv", csv_of(wide))
    assert "a wide table is made long by runs.wide=tokens" in said
    runs = loaded(tmp_path / "wide.csv", csv_of(wide), wide="tokens").kept.sort_values(["params", "tokens"])
    for name in ("params", "tokens", "loss"):
        np.testing.assert_allclose(runs[name], frame.sort_values(["params", "tokens"])[name], rtol=1e-9)
    both = pd.concat([wide, (wide.drop(columns="params") / 9).add_prefix("acc_")], axis=1)
    if names == "loss@{}":
        both.columns = [str(name).replace("acc_loss", "acc") for name in both]
        assert "the columns have acc, loss; give" in refusal(tmp_path / "both.csv", csv_of(both), wide="tokens")
        chosen = loaded(tmp_path / "both.csv", csv_of(both), wide="tokens", columns={"loss": "loss"})
        assert sorted(chosen.kept["loss"]) == sorted(runs["loss"])
    turned = wide_of(frame, "tokens", "params")
    turned = loaded(tmp_path / "turned.csv", csv_of(turned), wide="params").kept.sort_values(["params", "tokens"])
    np.testing.assert_array_equal(turned["loss"], runs["loss"])
    assert "is long already" in refusal(tmp_path / "long.csv", csv_of(frame.assign(**{"1e9": 3.0})), wide="tokens")


CHART = (
    '"Step","d64 - eval/loss","d64 - eval/loss__MIN","d64 - eval/loss__MAX","d64 - _step","d128 - eval/loss"\n'
    '"0","11.0","11.0","11.0","0",""\n"100","4.5","4.5","4.5","100","4.2"\n"200","4.1","4.1","4.1","200",""\n'
)


def test_a_chart_that_a_tracker_exports_is_read(tmp_path: Path) -> None:
    """One column a run; cells that are empty were not measured, and before the first step nothing was trained."""
    assert "made long by runs.wide=run" in refusal(tmp_path / "chart.csv", CHART)
    constants = {"batch_tokens": 524_288, "params": {"d64": 12e6, "d128": 50e6}}
    runs = loaded(tmp_path / "chart.csv", CHART, wide="run", constants=constants)
    assert runs.exclusions == {"before the first step": 1}
    assert list(runs.kept["run"]) == ["d64", "d64", "d128"]
    assert list(runs.kept["tokens"]) == [100 * 524_288, 200 * 524_288, 100 * 524_288]
    assert list(runs.kept["params"]) == [12e6, 12e6, 50e6]
    assert list(runs.kept["loss"]) == [4.5, 4.1, 4.2]
    without = {**constants, "params": {"d64": 12e6}}
    assert "params has no value for d128" in refusal(tmp_path / "chart.csv", CHART, wide="run", constants=without)
    two = CHART.replace("d128 - eval/loss", "d128 - train/loss")
    assert "give 'runs.columns={loss: eval/loss}'" in refusal(
        tmp_path / "chart.csv", two, wide="run", constants=constants
    )


def test_tokens_come_from_steps_or_flops_where_they_are_declared(tmp_path: Path) -> None:
    frame = table()
    steps = frame.drop(columns="tokens").assign(step=frame["tokens"] // 1000)
    said = refusal(tmp_path / "runs.csv", csv_of(steps))
    assert "give 'runs.constants={batch_tokens: TOKENS}'" in said
    same(loaded(tmp_path / "runs.csv", csv_of(steps), constants={"batch_tokens": 1000}), frame.assign(tokens=frame["tokens"] // 1000 * 1000))  # fmt: skip  # noqa: E501
    flops = frame.drop(columns="tokens").assign(flops=6.0 * frame["params"] * frame["tokens"])
    assert "no column tokens" in refusal(tmp_path / "runs.csv", csv_of(flops))
    runs = loaded(tmp_path / "runs.csv", csv_of(flops), tokens_from="6n")
    same(runs, rtol=1e-15)
    assert runs.about["reading"] == "tokens: flops / (6 * params)"


def test_params_without_the_embedding_are_not_counted_again(tmp_path: Path) -> None:
    frame = table().rename(columns={"params": "non_embedding_params"}).assign(width=512, depth=8, vocab_size=256)
    runs = loaded(tmp_path / "runs.csv", csv_of(frame), columns={"params": "non_embedding_params"})
    assert runs.about["params_counting"].startswith("without the embedding")
    with pytest.raises(UserError, match="counting=no_embedding: the table's params are without the embedding"):
        runs.params("no_embedding")
    assert not runs.counts("no_embedding")


def rates(**columns: Any) -> pd.DataFrame:
    """Each size at three rates, the middle one of which is best."""
    parts = [
        table().assign(lr=lr, loss=table()["loss"] + worse) for lr, worse in ((1e-3, 0.3), (3e-3, 0.0), (1e-2, 0.8))
    ]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(run=[f"r{i}" for i in range(len(frame))], **columns)


def test_the_best_of_several_rates_is_taken_and_said(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "runs.csv", csv_of(rates()))
    np.testing.assert_array_equal(runs.kept["loss"], table()["loss"])
    assert runs.exclusions == {"not the best row of its params, tokens": 24}
    assert (
        runs.about["reduction"] == "best of the rows that share params, tokens: 36 rows became 12 (they differ in lr)"
    )
    result = fit(runs, delta=1e-3, bootstrap=None)
    assert result.checklist["data"]["reduction"] == runs.about["reduction"]
    assert f"reduced: {runs.about['reduction']}" in result.flags


@pytest.mark.parametrize(("rule", "shift"), [("mean", 1.1 / 3), ("last", 0.8), ("best", 0.0)])
def test_rows_of_one_size_are_reduced_by_the_rule(tmp_path: Path, rule: str, shift: float) -> None:
    runs = loaded(tmp_path / "runs.csv", csv_of(rates()), reduce=rule)
    np.testing.assert_allclose(runs.kept["loss"], table()["loss"] + shift, rtol=1e-14)
    by = loaded(tmp_path / "runs.csv", csv_of(rates()), reduce=rule, reduce_by=["params", "lr"])
    assert len(by) == 12
    every = loaded(tmp_path / "runs.csv", csv_of(rates()), reduce="none")
    assert len(every) == 36
    assert every.about["reduction"].startswith("none: 36 rows share 12 sizes and token counts (up to 3 rows each)")
    assert "no column lrr" in refusal(tmp_path / "runs.csv", csv_of(rates()), reduce=rule, reduce_by=["lrr"])


def test_what_no_rule_can_be_chosen_for_is_refused(tmp_path: Path) -> None:
    """Corpora that differ, losses that differ for no reason that the table names; repeats of one setting all count."""
    corpora = ["c4", "rw", "owt"]
    mixed = rates(dataset=[corpora[i // 12] for i in range(36)])
    said = refusal(tmp_path / "runs.csv", csv_of(mixed))
    assert "36 rows share 12 sizes and token counts (up to 3 rows each) and differ in dataset" in said
    assert "\"dataset == 'c4'\"" in said
    chosen = loaded(tmp_path / "runs.csv", csv_of(mixed), where="dataset == 'rw'")
    np.testing.assert_array_equal(chosen.kept["loss"], table()["loss"])
    every = loaded(tmp_path / "runs.csv", csv_of(mixed), reduce="best").about["reduction"]
    assert every.endswith("36 rows became 12 (they differ in lr, dataset)")
    said = refusal(tmp_path / "runs.csv", csv_of(rates().drop(columns="lr")))
    assert "more than for repeats of one setting; give runs.reduce=best, last or mean" in said
    seeds = pd.concat([table(), table().assign(loss=table()["loss"] * 1.001)], ignore_index=True)
    repeats = loaded(tmp_path / "runs.csv", csv_of(seeds.assign(run=range(len(seeds)), seed=range(len(seeds)))))
    assert len(repeats) == 24
    assert repeats.about["reduction"].startswith("none: 24 rows share 12 sizes")


@pytest.mark.parametrize("options", [{}, {"bad_rows": "exclude"}, {"reduce": "none"}])
def test_rows_that_repeat_a_run_with_another_loss_need_a_rule(tmp_path: Path, options: dict[str, Any]) -> None:
    frame = pd.concat([table(), table().iloc[:2].assign(loss=[9.0, 2.0])], ignore_index=True)
    said = refusal(tmp_path / "runs.csv", csv_of(frame), **options)
    assert "4 rows repeat a run and token count and differ in loss, first run m0" in said
    assert "runs.reduce=best, last, mean" in said
    shared = frame.assign(run="baseline")
    assert "such as 'runs.columns={run: run+params}'" in refusal(tmp_path / "runs.csv", csv_of(shared), **options)
    for rule, expected in (("best", [frame["loss"][0], 2.0]), ("last", [9.0, 2.0])):
        runs = loaded(tmp_path / "runs.csv", csv_of(frame), reduce=rule)
        assert list(runs.kept.sort_values(["params", "tokens"])["loss"][:2]) == expected
        assert runs.about["repeats"] == f"{rule} of the rows that share run, tokens: 4 rows became 2"


def test_conditions_read_every_column_of_the_file(tmp_path: Path) -> None:
    frame = table().assign(**{"Opt/Name": ["adam", "muon"] * 6, "wd": ["0.1", "0,1", "x"] * 4})
    runs = loaded(tmp_path / "runs.csv", csv_of(frame), where="Opt_Name == 'muon' and loss < 4")
    assert len(runs) == int((frame["loss"][1::2] < 4).sum())
    assert "no column Opt" in refusal(tmp_path / "runs.csv", csv_of(frame), where="Opt == 'muon'")


def test_runs_that_did_not_end_as_they_should_are_said(tmp_path: Path) -> None:
    frame = table().assign(State=["finished"] * 10 + ["crashed", "failed"])
    said = "2 rows are of runs whose State is crashed, failed: leave them out with subset.where"
    assert loaded(tmp_path / "runs.csv", csv_of(frame)).about["reading"] == said
    assert len(loaded(tmp_path / "runs.csv", csv_of(frame), where="State == 'finished'")) == 10


def test_batches_are_kept_apart_for_laws_that_read_them(tmp_path: Path, composed: Compose) -> None:
    frame = rates(batch_tokens=[2**19 if i < 24 else 2**20 for i in range(36)])
    runs = loaded(tmp_path / "runs.csv", csv_of(frame))
    assert len(runs) == 24
    assert runs.about["reduction"].startswith(
        "best of the rows that share params, tokens, batch_tokens: 24 rows became 12"
    )
    assert len(loaded(tmp_path / "runs.csv", csv_of(frame), reduce="best")) == 12
    config: FitConfig = to_dataclass(composed("runs=csv", f"runs.path={tmp_path}/runs.csv", name="fit"))
    assert len(table_of(config)) == 12
    staged = composed("runs=csv", f"runs.path={tmp_path}/runs.csv", "law=steps_batch", "method=staged", name="fit")
    assert len(table_of(to_dataclass(staged))) == 24


def test_fits_of_the_same_values_in_other_units_are_two(tmp_path: Path, composed: Compose) -> None:
    (tmp_path / "runs.csv").write_text(csv_of(table().assign(loss=table()["loss"] / 3)))
    given = ("runs=csv", f"runs.path={tmp_path}/runs.csv")
    configs = [
        to_dataclass(composed(*given, *unit, name="fit")) for unit in ((), ("runs.units={loss: bits_per_byte}",))
    ]
    tables = [table_of(config) for config in configs]
    assert tables[0].hash == tables[1].hash
    assert folder_of(configs[0], tables[0]) != folder_of(configs[1], tables[1])


def test_runs_of_one_name_are_told_apart_by_their_settings(tmp_path: Path) -> None:
    """A run of a name shared by several rates or splits is several runs, so that a rule or a condition can pick of them."""
    shared = rates().assign(run=[f"m{i}" for i in range(12)] * 3)
    runs = loaded(tmp_path / "runs.csv", csv_of(shared))
    np.testing.assert_array_equal(runs.kept["loss"], table()["loss"])
    assert runs.kept["run"][0] == "m0 0.003"
    assert runs.about["reading"] == "run: distinguished by lr"
    splits = pd.concat([table().assign(split="train", loss=table()["loss"] - 0.1), table().assign(split="val")])
    assert "differ in split; select some with subset.where" in refusal(tmp_path / "runs.csv", csv_of(splits))
    chosen = loaded(tmp_path / "runs.csv", csv_of(splits), where="split == 'val'")
    np.testing.assert_array_equal(chosen.kept["loss"], table()["loss"])


def test_a_table_that_lies_on_its_side_is_turned(tmp_path: Path) -> None:
    runs = loaded(tmp_path / "runs.csv", str(table().T.to_csv(header=False)))
    same(runs)
    assert runs.about["reading"] == "the table was transposed"


@pytest.mark.parametrize("options", [{}, {"bad_rows": "exclude"}])
def test_a_few_losses_that_trained_models_do_not_have_are_said(tmp_path: Path, options: dict[str, Any]) -> None:
    frame = table().assign(loss=[*np.exp(table()["loss"][:2]) / 3, *table()["loss"][2:]])
    said = loaded(tmp_path / "runs.csv", csv_of(frame), **options).about["reading"]
    assert said == "2 losses of trained models are above 5.5 nats per token: of runs that diverged, or in another unit?"


def test_usual_names_are_taken_or_named(tmp_path: Path) -> None:
    capitals = table().rename(columns={"run": "Run", "params": " Params", "tokens": "TOKENS", "loss": "Loss"})
    same(loaded(tmp_path / "runs.csv", csv_of(capitals)))
    other = table().rename(columns={"params": "n_params", "tokens": "D", "loss": "eval/loss"})
    said = refusal(tmp_path / "runs.csv", csv_of(other))
    assert said.endswith("map them: 'runs.columns={params: n_params, tokens: D, loss: eval/loss}'")
    spaced = table().rename(columns={"params": "N (M)", "loss": "Eval Loss"})
    said = refusal(tmp_path / "runs.csv", csv_of(spaced))
    assert """'runs.columns={params: "N (M)", loss: "Eval Loss"}' 'runs.units={params: M}'""" in said
    several = table().rename(columns={"loss": "loss_c4"}).assign(loss_wiki=3.0)
    assert "'runs.columns={loss: loss_c4}'" in refusal(tmp_path / "runs.csv", csv_of(several))
    joined = loaded(tmp_path / "runs.csv", csv_of(table().assign(seed=1)), columns={"run": "params+seed"}).kept
    assert joined["run"][0] == "20000000 1"


def test_public_tables_are_read_by_options_alone(data_dir: Path) -> None:
    others = data_dir / "others"
    if not others.is_dir():
        pytest.skip("no folder others in the data")
    with pytest.raises(UserError, match="differ in variant; select some with subset"):
        load_runs("csv", path=others / "porian2024_isoflops.csv")
    variant = "variant == 'rw-tuned-short-const-standard-val'"
    porian = load_runs("csv", path=others / "porian2024_isoflops.csv", where=variant)
    assert len(porian) > 100
    gadre = others / "overtraining_gadre2024.csv"
    assert len(load_runs("csv", path=gadre, columns={"loss": "loss_c4_val"}, where="dataset == 'c4_original'")) == 34
    curves = load_runs(
        "csv", path=others / "multipowerlaw_curves.csv", where="schedule == 'constant_24000'",
        columns={"params": "size_M", "run": "size_M+schedule"}, constants={"batch_tokens": 2**20},
    )  # fmt: skip
    assert sorted(set(curves.kept["params"])) == [25e6, 100e6, 400e6]
    assert curves.kept["run"].nunique() == 3


def test_the_unit_goes_into_prescriptions_refusals_and_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from shapelaw.figures.fit import draw
    from shapelaw.prescribe import Problem

    drawn: list[str] = []
    monkeypatch.setattr(
        FigureCanvasAgg,
        "print_png",
        lambda canvas, *_, **__: drawn.extend(axes.get_ylabel() for axes in canvas.figure.axes),
    )
    frame = table().assign(loss=table()["loss"] / 3)
    runs = loaded(tmp_path / "runs.csv", csv_of(frame), units={"loss": "bits_per_byte"})
    result = fit(runs, delta=1e-3, bootstrap=None)
    answer = Problem.of(result, runs, space="params").best(1e21)
    assert answer.units["loss"] == "bits per byte"
    with pytest.raises(UserError, match=r"the lowest is [0-9.]+ bits per byte"):
        Problem.of(result, runs, space="params").reach(0.1)
    draw(runs, result, tmp_path)
    assert "held-out loss (bits per byte)" in drawn
    assert not any("nats" in label for label in drawn)


def test_rows_in_several_units_are_each_read_in_their_own(tmp_path: Path) -> None:
    """A fit of both is refused; each part, picked as the refusal says, has nats per token."""
    frame = table()
    bits = np.arange(len(frame)) % 2 == 1
    mixed = frame.assign(
        loss=frame["loss"].where(~bits, frame["loss"] / np.log(2)), loss_unit=np.where(bits, "bits", "nats")
    )
    runs = loaded(tmp_path / "runs.csv", csv_of(mixed))
    assert runs.kept["loss"].to_numpy() == pytest.approx(frame["loss"].to_numpy(), rel=1e-14)
    assert runs.about["reading"] == "loss: nats, bits, as the column loss_unit says"
    with pytest.raises(UserError, match="differ in loss_unit"):
        fit(runs, bootstrap=None)
    part = runs.select('loss_unit == "bits"')
    assert (part.loss_unit, len(part)) == ("nats per token", bits.sum())
    per_byte = mixed.assign(loss_unit=np.where(bits, "bits_per_byte", "nats"))
    (reason,) = loaded(tmp_path / "b.csv", csv_of(per_byte)).exclusions
    assert reason == "loss in bits per byte beside losses per token: give the column bytes_per_token"
    assert "loss_unit says 'hartleys'; known are nats" in refusal(
        tmp_path / "c.csv", csv_of(frame.assign(loss_unit="hartleys"))
    )
