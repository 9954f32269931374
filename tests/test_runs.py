"""Runs tables: loaders, validation, selections, exclusions, hash and export."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import math
import re
import socket
import threading
import urllib.parse
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shapelaw.counting import flops_exact, params_total
from shapelaw.errors import UserError
from shapelaw.runs import ALIASES, SUBSETS, RunsTable, load_runs
from shapelaw.runs import fetch as fetching
from shapelaw.runs.fetch import fetch_all
from shapelaw.runs.registry import CHINCHILLA, CHINCHILLA_POINTS, EVERY, GEMSTONES, PublishedFile, Repository
from shapelaw.shapes import HEAD_SIZE
from shapelaw.suite import Suite


def frame(**changes: object) -> pd.DataFrame:
    """A small valid table: two runs of three validations."""
    base = {
        "run": ["a", "a", "a", "b", "b", "b"],
        "width": [256, 256, 256, 512, 512, 512],
        "depth": [4, 4, 4, 8, 8, 8],
        "params": [5e7] * 3 + [1e8] * 3,
        "tokens": [1e9, 2e9, 3e9] * 2,
        "loss": [4.0, 3.8, 3.7, 3.6, 3.4, 3.3],
        "vocab_size": [50_304] * 6,
    }
    return pd.DataFrame(base | changes)


@pytest.mark.parametrize("name", [*SUBSETS, *ALIASES])
def test_every_published_set_loads(data_dir: Path, name: str) -> None:
    path = data_dir / SUBSETS[ALIASES.get(name, name)].local
    table = load_runs("gemstones", subset=name)
    raw = pd.read_json(path, lines=True)
    assert len(table) == len(raw)
    assert table.kept["loss"].sum() == pytest.approx(raw["final_loss"].sum(), rel=1e-14)
    assert table.exclusions == {}


COARSE = "gemstones/published/delta_1e-3"
"""Fits of Figs 17 to 19, which a copy of the data may lack."""


def test_registry_holds_the_digest_of_every_file(data_dir: Path) -> None:
    assert len(EVERY) == len({file.local for file, _ in EVERY}) == 3 + len(SUBSETS) + 24 + 22 + 20
    for file, _ in at_hand(data_dir):
        assert hashlib.sha256((data_dir / file.local).read_bytes()).hexdigest() == file.sha256


def test_registry_holds_the_digest_of_the_fits_at_delta_1e_3(data_dir: Path) -> None:
    if not (data_dir / COARSE).is_dir():
        pytest.skip(f"the copy of the published data has no {COARSE}")
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (data_dir / COARSE).iterdir()}
    assert digests == {Path(file.local).name: file.sha256 for file, _ in EVERY if file.local.startswith(COARSE)}


def at_hand(data_dir: Path) -> list[tuple[PublishedFile, Repository]]:
    """Every published file, but for the fits at delta 1e-3 where the copy of the data lacks them."""
    lacking = not (data_dir / COARSE).is_dir()
    return [(file, where) for file, where in EVERY if not (lacking and file.local.startswith(COARSE))]


def test_addresses_are_pinned_and_escape_plus() -> None:
    url = GEMSTONES.url(SUBSETS["hot_100b+"].remote)
    assert url.endswith("/5f420478f6057b0cbb4d13405fb10ca64675bccb/wandb_dfs/wandb_df_for_fitting_hot_100b%2B.jsonl")
    assert re.fullmatch(r"[0-9a-f]{40}", CHINCHILLA.commit)


def test_gemstones_facts(data_dir: Path) -> None:
    kept = load_runs("gemstones", subset="hot_100b+").kept
    assert kept["run"].nunique() == 22
    assert (kept["params"] == params_total(kept["width"], kept["depth"], kept["vocab_size"])).all()
    first = kept.iloc[0]
    assert first["device_hours"] == pytest.approx(1.3941352542 * 2385 * 32 * 8 / 3600)
    assert (kept["tokens"] / kept["step"]).between(0.999 * kept["batch_tokens"], 1.001 * kept["batch_tokens"]).all()


def test_chinchilla_excludes_the_five_highest_losses(data_dir: Path) -> None:
    table = load_runs("chinchilla")
    left_out = table.frame[table.frame["excluded"] != ""]
    assert (len(table), len(table.frame), len(left_out)) == (240, 245, 5)
    assert left_out["loss"].min() > table.kept["loss"].max() - 1e-12
    assert np.allclose(table.kept["flops"], 6 * table.kept["params"] * table.kept["tokens"])


def test_without_the_folder_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPELAW_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="no file gemstones/runs"):
        load_runs("gemstones")
    monkeypatch.setenv("SHAPELAW_DATA_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no such folder"):
        load_runs("chinchilla")


def test_a_fetched_file_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pooch is given the pinned digest; a file of another content never becomes a table."""
    pooch = pytest.importorskip("pooch")
    asked: list[str] = []

    def retrieve(url: str, known_hash: str, **_: object) -> str:
        asked.extend([url, known_hash])
        raise ValueError("SHA256 hash of downloaded file does not match")

    monkeypatch.delenv("SHAPELAW_DATA_DIR", raising=False)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(UserError, match="cannot be fetched"):
        load_runs("chinchilla")
    assert asked == [CHINCHILLA.url(CHINCHILLA_POINTS.remote), f"sha256:{CHINCHILLA_POINTS.sha256}"]


def test_without_a_connection_the_reason_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("SHAPELAW_DATA_DIR", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    with socket.socket() as nobody:  # bound, not listening
        nobody.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setattr(Repository, "url", lambda self, remote: f"http://{place}/{remote}")
        with pytest.raises(UserError) as caught:
            load_runs("chinchilla")
    assert str(caught.value).endswith(
        f": cannot be fetched (no connection to {place}); go online, or set a folder with the data in SHAPELAW_DATA_DIR"
    )
    assert len(str(caught.value)) < 180


class Repositories(http.server.SimpleHTTPRequestHandler):
    """Serves the published files under the names that they have in their repositories; counts what is asked."""

    places: ClassVar[dict[str, Path]] = {}
    asked: ClassVar[list[str]] = []

    def translate_path(self, path: str) -> str:
        self.asked.append(path)
        return str(self.places[urllib.parse.unquote(path)])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's output is its own."""


def test_everything_is_fetched_once_and_laid_out_as_the_folder(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("SHAPELAW_DATA_DIR", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    files = at_hand(data_dir)
    monkeypatch.setattr(fetching, "EVERY", files)
    Repositories.places = {f"/{where.name}/{file.remote}": data_dir / file.local for file, where in files}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Repositories) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        escaped = Repository.url
        monkeypatch.setattr(
            Repository,
            "url",
            lambda self, remote: f"{address}/{self.name}/{escaped(self, remote).split(self.commit + '/')[1]}",
        )
        folder = fetch_all()
        assert len(Repositories.asked) == len(files)
        assert fetch_all() == folder
        assert len(Repositories.asked) == len(files)
        server.shutdown()
    assert all((folder / file.local).read_bytes() == (data_dir / file.local).read_bytes() for file, _ in files)


def test_csv_with_mapping_and_units(tmp_path: Path) -> None:
    source = frame()
    source = source.assign(D=source["tokens"] / 1e9, final_loss=source["loss"] / math.log(2))
    path = tmp_path / "mine.csv"
    source.drop(columns=["tokens", "loss"]).to_csv(path, index=False)
    table = load_runs(
        "csv", path=path, columns={"tokens": "D", "loss": "final_loss"}, units={"tokens": "B", "loss": "bits"}
    )
    pd.testing.assert_frame_equal(table.kept, RunsTable(frame()).kept, rtol=1e-12)


def test_csv_counts_params_and_runs_where_it_names_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.parquet"
    frame().drop(columns=["params", "run"]).to_parquet(path)
    table = load_runs("csv", path=path)
    assert table.kept["params"].iloc[0] == params_total(256, 4, 50_304)
    assert table.kept["run"].nunique() == 6
    assert "each row counts as a separate run" in table.about["runs"]


def test_params_are_counted_with_each_row_s_head_size(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    heads = [24, 96, None, 24, 96, None]
    frame(head_size=heads).drop(columns="params").to_csv(path, index=False)
    kept = load_runs("csv", path=path).kept
    shapes = zip(kept["width"], kept["depth"], heads, strict=True)
    assert list(kept["params"]) == [params_total(w, d, 50_304, head or HEAD_SIZE) for w, d, head in shapes]
    assert kept["params"].nunique() == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": ["?"] * 6}, "column width contains something that is not a number"),
        ({"head_size": [0] * 6}, "head_size is zero or negative"),
        ({"width": [None] * 6}, "params is missing"),
    ],
)
def test_params_are_not_counted_from_nonsense(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "mine.csv"
    frame(**changes).drop(columns="params").to_csv(path, index=False)
    with pytest.raises(UserError, match=message):
        load_runs("csv", path=path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.csv.gz", gzip.compress(b"run,params,tokens,loss\n" * 99, mtime=0)[:40]),
        ("other.csv.zst", b"no such frame"),
        ("other.csv.xz", b"no such stream"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n"),
        ("nameless.jsonl", b"[1, 2]\n3\n"),
        ("cut.parquet", b"PAR1"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"^runs.path=.*{name}: cannot be read"):
        load_runs("csv", path=tmp_path / name)


@pytest.mark.parametrize(
    ("column", "factors"),
    [
        ("seconds_per_step", {"seconds": 1, "minutes": 60, "hours": 3600}),
        ("device_hours", {"seconds": 1 / 3600, "minutes": 1 / 60, "hours": 1}),
        ("flops", {"T": 1e12, "PF-days": 8.64e19}),
        ("batch_tokens", {"K": 1e3, "M": 1e6}),
    ],
)
def test_a_named_unit_is_the_column_s_own(tmp_path: Path, column: str, factors: dict[str, float]) -> None:
    path = tmp_path / "mine.csv"
    frame(**{column: [2.0] * 6}).to_csv(path, index=False)
    for unit, factor in factors.items():
        kept = load_runs("csv", path=path, units={column: unit}).kept
        assert list(kept[column]) == pytest.approx([2.0 * factor] * 6, rel=1e-15)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("N", "D", "final_loss"),
            "N, D, final_loss; map them: 'runs.columns={params: N, tokens: D, loss: final_loss}'",
        ),
        (("size", "D", "d"), "size, D, d; map them: 'runs.columns={params: COLUMN, tokens: COLUMN, loss: COLUMN}'"),
        (
            ("Total_parameters", "D (seen)", "smooth loss"),
            "Total_parameters, D (seen), smooth loss; map them: "
            '\'runs.columns={params: Total_parameters, tokens: "D (seen)", loss: "smooth loss"}\'',
        ),
        (
            ("Params [M]", "tokens per param", "train/loss"),
            "Params [M], tokens per param, train/loss; map them: "
            "'runs.columns={params: \"Params [M]\", tokens: COLUMN, loss: train/loss}' 'runs.units={params: M}'",
        ),
    ],
)
def test_a_file_s_own_columns_are_said(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    path = tmp_path / "mine.csv"
    frame()[["params", "tokens", "loss"]].set_axis(list(names), axis=1).to_csv(path, index=False)
    with pytest.raises(UserError) as refused:
        load_runs("csv", path=path)
    assert str(refused.value) == f"runs.path={path}: no column params, tokens, loss; the file has {message}"


def test_the_column_of_runs_is_said_where_one_holds_several_rows_of_each(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    rows = frame()[["params", "tokens", "loss"]].set_axis(["N", "D", "loss"], axis=1)
    for models, said in ((["a", "b"], "run: model, "), (["a"], ""), ([str(i) for i in range(len(rows))], "")):
        rows.assign(model=[models[i % len(models)] for i in range(len(rows))]).to_csv(path, index=False)
        with pytest.raises(UserError, match=re.escape(f"'runs.columns={{{said}params: N, tokens: D}}'")):
            load_runs("csv", path=path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"tokens": "X"}}, "tokens=X, but the file has run, width"),
        ({"columns": {"tokes": "tokens"}}, "tokes is not canonical"),
        (
            {"units": {"loss": "ppl"}},
            "^units: loss=ppl; allowed values are positive numbers, nats, bits, perplexity, bits_per_byte, nats_per_byte$",
        ),
        ({"units": {"loss": "B"}}, "loss=B; allowed values are positive numbers, nats, bits"),
        ({"units": {"tokens": "bits"}}, "tokens=bits; allowed values are positive numbers, K, M, B, T"),
        ({"units": {"tokens": None}}, "tokens=None; allowed values are positive numbers, K, M, B, T"),
        ({"units": {"width": "K"}}, "width=K; allowed values are positive numbers$"),
        ({"units": {"loss": -1.0}}, "allowed values are positive numbers"),
        ({"units": {"flops": "PF-days"}}, "flops is not a numeric column"),
        ({"subset": "hot"}, "does not take subset"),
        ({"bad_rows": "drop"}, "allowed values are raise, exclude"),
        ({"where": "width == 513"}, "selects none of the 6 rows"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, options: dict[str, object], message: str) -> None:
    path = tmp_path / "mine.csv"
    frame().to_csv(path, index=False)
    with pytest.raises(UserError, match=message):
        load_runs("csv", path=path, **options)  # type: ignore[arg-type]


def test_unknown_sources_subsets_and_files_are_named(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="allowed values are gemstones, chinchilla, csv, mlflow"):
        load_runs("comet")
    with pytest.raises(UserError, match="subset=cold: allowed values are cool_begin"):
        load_runs("gemstones", subset="cold")
    with pytest.raises(UserError, match="there is no such file"):
        load_runs("csv", path=tmp_path / "none.csv")
    (tmp_path / "runs.docx").write_text("run,params,tokens,loss")
    with pytest.raises(UserError, match="allowed values are files ending"):
        load_runs("csv", path=tmp_path / "runs.docx")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("loss", float("nan"), "loss is missing"),
        ("loss", -3.0, "loss is zero or negative"),
        ("loss", 35.0, "loss far above log"),
        ("tokens", 0.0, "tokens is zero"),
        ("params", float("inf"), "params is infinite"),
        ("width", 256.5, "width is not a whole number"),
        ("run", "", "run is empty"),
        ("tokens", 1e9, "repeat a run and token count"),
    ],
)
def test_invalid_rows_raise_or_stay_with_a_reason(column: str, value: object, message: str) -> None:
    bad = frame()
    bad[column] = bad[column].astype(object)
    bad.loc[1, column] = value
    with pytest.raises(UserError, match=message):
        RunsTable(bad)
    table = RunsTable.excluding_faults(bad, {})
    assert (len(table), len(table.frame)) == (5, 6)
    assert sum(table.exclusions.values()) == 1


def test_a_bad_row_marked_as_excluded_is_accepted() -> None:
    marked = frame(loss=[4.0, np.nan, 3.7, 3.6, 3.4, 3.3], excluded=["", "diverged", "", "", "", ""])
    assert RunsTable(marked).exclusions == {"diverged": 1}


def test_missing_columns_are_listed() -> None:
    with pytest.raises(UserError, match="no column tokens, loss"):
        RunsTable(frame().drop(columns=["tokens", "loss"]))
    with pytest.raises(UserError, match="not a number"):
        RunsTable(frame(loss=["a"] * 6))


def test_selection_keeps_the_others_as_exclusions(data_dir: Path) -> None:
    table = load_runs("gemstones", subset="hot_100b+")
    chosen = table.select("width == 512 and tokens <= 1e11")
    raw = table.frame
    assert len(chosen) == int(((raw["width"] == 512) & (raw["tokens"] <= 1e11)).sum()) > 0
    assert len(chosen.frame) == len(raw)
    assert chosen.exclusions == {"outside the selection width == 512 and tokens <= 1e11": len(raw) - len(chosen)}
    assert set(load_runs("gemstones", subset="512x").kept["run"]) == set(table.select("width == 512").kept["run"])


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("width in [512, 1024]", 3),
        ("not width == 512", 3),
        ("tokens / params > 25 and run != 'b'", 2),
        ("(width == 256) | (loss < 3.35)", 4),
        ("2e9 <= tokens < 3e9", 2),
    ],
)
def test_conditions(where: str, count: int) -> None:
    assert len(RunsTable(frame()).select(where)) == count


@pytest.mark.parametrize(
    "where",
    [
        "__import__('os').system('true')",
        "@pd.eval('1')",
        "loss.sum() > 1",
        "run.str.len() > 0",
        "[x for x in run]",
        "9 ** 9 ** 9 > width",
        "'a' * 1000000000 == run",
        "width = 512",
        "width",
        "True",
        "heads == 4",
        "run + 1 == 3",
        "width ==",
        "",
        "lambda: 1",
        "width[0] == 1",
        "(" * 300 + "width" + ")" * 300,
        "width == 512 and " * 200 + "depth == 3",
    ],
)
def test_everything_but_comparisons_is_refused(where: str) -> None:
    with pytest.raises(UserError, match="where"):
        RunsTable(frame()).select(where)


def test_exclusions_keep_the_first_reason() -> None:
    table = RunsTable(frame()).exclude([True] + [False] * 5, "spike").exclude([True, True] + [False] * 4, "early")
    assert table.exclusions == {"spike": 1, "early": 1}
    with pytest.raises(UserError, match="reason is empty"):
        table.exclude([False] * 6, " ")
    with pytest.raises(UserError, match="does not fit"):
        table.exclude([True], "why")


def test_hash_ignores_order_and_number_types_but_no_value() -> None:
    table = RunsTable(frame())
    shuffled = RunsTable(frame().sample(frac=1.0, random_state=1)[list(reversed(frame().columns))])
    assert table.hash == shuffled.hash == RunsTable(frame().astype({"width": float})).hash
    assert table == shuffled
    assert table != RunsTable(frame(loss=[4.0, 3.8, 3.7, 3.6, 3.4, 3.3 + 1e-12]))
    assert table != table.exclude([True] + [False] * 5, "spike")


def test_parquet_round_trip(tmp_path: Path) -> None:
    table = RunsTable(frame(), {"source": "here"}).exclude([True] + [False] * 5, "spike")
    path = table.to_parquet(tmp_path / "runs.parquet")
    back = RunsTable.read(path)
    assert back == table
    assert back.about == {"source": "here"}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="cannot be read"):
        RunsTable.read(tmp_path / "none.parquet")


def test_tracked_runs_are_read_lazily(monkeypatch: pytest.MonkeyPatch) -> None:
    from shapelaw import tracking

    asked: dict[str, str] = {}

    def read_table(uri: str, experiment: str) -> tuple[pd.DataFrame, dict[str, Suite]]:
        asked.update(uri=uri, experiment=experiment)
        return frame(status="FINISHED", loss=[4.0, 3.8, 3.7, 3.6, 3.4, np.nan]), {}

    monkeypatch.setattr(tracking, "read_table", read_table)
    with pytest.raises(UserError, match="loss is missing"):
        load_runs("mlflow", uri="sqlite:///x.db", experiment="nano")
    table = load_runs(
        "mlflow", uri="sqlite:///x.db", experiment="nano", bad_rows="exclude", where="status == 'FINISHED'"
    )
    assert asked == {"uri": "sqlite:///x.db", "experiment": "nano"}
    assert (len(table), len(table.frame)) == (5, 6)
    assert "experiment=nano" in table.about["source"]


def test_counting_and_flops() -> None:
    table = RunsTable(frame())
    assert table.params("no_embedding")[0] == 5e7 - 256 * 50_304
    assert table.params("no_embedding_and_head")[0] == 5e7 - 2 * 256 * 50_304
    assert table.flops("6n")[0] == 6 * 5e7 * 1e9
    assert table.flops()[0] == pytest.approx(float(flops_exact(256, 4).total) * 1e9)
    shorter = RunsTable(frame(seq_len=[1024] * 3 + [2048] * 3))
    assert shorter.flops()[0] == pytest.approx(float(flops_exact(256, 4, seq_len=1024).total) * 1e9)
    assert shorter.flops()[5] == table.flops()[5]
    partly = RunsTable(frame(vocab_size=[50_304] * 5 + [None]))
    assert np.array_equal(partly.flops(), table.flops("6n"))
    with pytest.raises(UserError, match="vocab_size, which 1 of 6 rows lack"):
        partly.flops("exact")
    with pytest.raises(UserError, match="needs the column flops"):
        table.flops("recorded")
    with pytest.raises(UserError, match="allowed values are total"):
        table.params("some")
    with pytest.raises(UserError, match="needs the column vocab_size"):
        RunsTable(frame().drop(columns="vocab_size")).params("no_embedding")
    with pytest.raises(UserError, match="without parameters"):
        RunsTable(frame(params=[1e6] * 6)).params("no_embedding_and_head")


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries({"run": st.sampled_from("abc"), "params": numbers, "tokens": numbers, "loss": numbers}),
        max_size=6,
    )
)
def test_random_tables_are_valid_or_refused(rows: list[dict[str, object]]) -> None:
    raw = pd.DataFrame(rows, columns=["run", "params", "tokens", "loss"])
    try:
        table = RunsTable(raw)
    except UserError:
        table = RunsTable.excluding_faults(raw, {})
    values = table.kept[["params", "tokens", "loss"]].to_numpy(dtype=float)
    assert np.isfinite(values).all()
    assert (values > 0).all()
    assert not table.kept.duplicated(["run", "tokens"]).any()
    assert len(table.frame) == len(rows)


def test_rows_of_runs_that_diverged_or_rolled_back_are_flagged(tmp_path: Path) -> None:
    """In the table, its exclusions, and the checklist and flags of a fit; the switches turn both defaults round."""
    from shapelaw.fitting import checklist

    sizes = [
        {"run": f"r{n}", "params": 1e6 * (n + 1), "tokens": 1e8 * t, "loss": 3.0} for n in range(3) for t in (1, 2)
    ]
    frame = pd.DataFrame(sizes).assign(rollbacks=[0, 0, 0, 1, 0, 0], diverged_step=[None] * 4 + [7, 7])
    frame.to_csv(tmp_path / "runs.csv", index=False)
    usual = load_runs("csv", path=tmp_path / "runs.csv")
    assert usual.exclusions == {"of a run that diverged": 2}
    assert checklist.data(usual)["diverged"] == {"runs": 1, "rows": 2, "rows_kept": 0}
    assert checklist.data(usual)["rolled_back"] == {"runs": 1, "rows": 1, "rows_kept": 1}
    assert [flag.split(":")[0] for flag in checklist.table_flags(usual, None)] == ["rolled_back_rows"]
    turned = load_runs("csv", path=tmp_path / "runs.csv", diverged="keep", rolled_back="exclude")
    assert turned.exclusions == {"after a rollback": 1}
    assert [flag.split(":")[0] for flag in checklist.table_flags(turned, None)] == ["diverged_rows"]
    with pytest.raises(UserError, match="diverged=maybe: allowed values are exclude, keep"):
        load_runs("csv", path=tmp_path / "runs.csv", diverged="maybe")
