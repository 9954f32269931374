"""Text that is not there, is null, or stands in columns of other types; and text that changes after it was prepared."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shapelaw.data import BytesChoice, TextSource, prepare
from shapelaw.data.sources import JsonSource, ParquetSource, Source
from shapelaw.errors import UserError
from shapelaw.files import read_json

TEXTS = [f"{number} and {number**3}.\n" * 9 for number in range(12)]
MARK = b"\xef\xbb\xbf"
SETTINGS = {"val_fraction": 0.3, "shard_tokens": 500, "workers": 1}


def lines(texts: list[str | None]) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def test_text_that_is_not_there_is_counted(tmp_path: Path) -> None:
    """An empty file, a compressed one, a document without text and null, by JSON as by Parquet."""
    texts: list[str | None] = [*TEXTS, None, "", None]
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text(lines(texts))
    (data / "b.json.gz").write_bytes(b"")
    (data / "c.json.gz").write_bytes(gzip.compress(b""))
    pq.write_table(pa.table({"text": texts}), data / "a.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), data / "b.parquet")
    expected = {"null": 2, "empty document": 1}
    by_json = prepare(JsonSource((str(data),)), BytesChoice(), tmp_path / "json", **SETTINGS)  # type: ignore[arg-type]
    assert by_json.left_out == {**expected, "empty file": 2}
    rows = prepare(ParquetSource((str(data),)), BytesChoice(), tmp_path / "rows", **SETTINGS)  # type: ignore[arg-type]
    assert rows.left_out == {**expected, "empty file": 1}
    assert rows.content == by_json.content
    assert (rows.documents, read_json(tmp_path / "rows" / "manifest.json")["left_out"]) == (12, rows.left_out)


def test_a_row_without_the_key_is_still_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines([*TEXTS]) + '{"body": "x"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:13 has no text under it \(found: keys body\)"):
        list(JsonSource((str(tmp_path),)).documents())


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.string_view(), pa.large_string()])
def test_columns_of_text_are_read_whatever_holds_them(tmp_path: Path, kind: pa.DataType) -> None:
    plain = pa.array([*TEXTS, None])
    column = pa.array(plain.to_pylist(), kind) if pa.types.is_string_view(kind) else plain.cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    found = [document.text for document in ParquetSource((str(tmp_path),)).documents()]
    assert found == TEXTS


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(MARK + b"one")
    (tmp_path / "b.txt").write_bytes(MARK)
    (tmp_path / "a.jsonl").write_bytes(MARK + lines(["one"]).encode())
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(MARK + lines(["one"]).encode()))
    sources: list[Source] = [TextSource((str(tmp_path),)), JsonSource((str(tmp_path),))]
    assert [[document.text for document in source.documents()] for source in sources] == [["one"], ["one", "one"]]


def test_text_that_changes_at_equal_size_is_noticed(tmp_path: Path) -> None:
    folder, options = tmp_path / "texts", {"data.source": "text", "data.path": "here"}
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.txt").write_text(text)
    source, made = TextSource((str(folder),)), tmp_path / "made"
    first = prepare(source, BytesChoice(), made, **SETTINGS, options=options, verify=None)  # type: ignore[arg-type]
    assert prepare(source, BytesChoice(), made, **SETTINGS, options=options, verify=None) == first  # type: ignore[arg-type]
    moved = prepare(source, BytesChoice(), made, **SETTINGS, options={**options, "data.path": "there"}, verify=None)  # type: ignore[arg-type]
    assert moved.options["data.path"] == "there", "the same text, now named otherwise"
    (folder / "3.txt").write_text(TEXTS[3].replace("3", "4"))
    with pytest.raises(UserError, match="its text has changed since, with the same names and sizes"):
        prepare(source, BytesChoice(), made, **SETTINGS, options=options, verify=None)  # type: ignore[arg-type]
    unread = prepare(source, BytesChoice(), made, **SETTINGS, options=options, verify=False)  # type: ignore[arg-type]
    assert unread.content == first.content
