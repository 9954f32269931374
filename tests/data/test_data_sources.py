from __future__ import annotations

import gzip
import io
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shapelaw.data import HubSource, JsonSource, PackagesSource, ParquetSource, Source, StdlibSource, TextSource
from shapelaw.data.sources import cut
from shapelaw.errors import UserError

TEXTS = ["first\nline", "zwei ÄÖ 漢字 🙂", 'quotes "and" \\ slashes', "last"]


def texts_of(source: Source) -> list[str]:
    return [document.text for document in source.documents()]


def json_lines(texts: list[str], key: str = "text") -> str:
    return "".join(json.dumps({"id": i, key: text, "meta": {"a": 1}}) + "\n" for i, text in enumerate(texts))


def write_plain(path: Path, data: str) -> None:
    path.write_text(data, encoding="utf-8")


def write_gzip(path: Path, data: str) -> None:
    path.write_bytes(gzip.compress(data.encode()))


def write_zstd(path: Path, data: str) -> None:
    path.write_bytes(zstandard.compress(data.encode()))


def write_frames(path: Path, data: str) -> None:
    """A frame for every line, as parallel compressors and appending writers make them."""
    path.write_bytes(b"".join(zstandard.compress(line.encode()) for line in data.splitlines(keepends=True)))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.jsonl", write_plain),
        ("a.json.gz", write_gzip),
        ("a.jsonl.gz", write_gzip),
        ("a.jsonl.zst", write_zstd),
        ("a.json.zstd", write_frames),
    ],
)
def test_json_lines_are_read_back(tmp_path: Path, name: str, write: Callable[[Path, str], None]) -> None:
    write(tmp_path / name, json_lines(TEXTS))
    for where in (str(tmp_path), str(tmp_path / name), str(tmp_path / "*")):
        assert texts_of(JsonSource((where,))) == TEXTS


def test_json_key_and_several_files(tmp_path: Path) -> None:
    write_plain(tmp_path / "b.jsonl", json_lines(TEXTS[2:], "content"))
    write_gzip(tmp_path / "a.json.gz", json_lines(TEXTS[:2], "content"))
    assert texts_of(JsonSource((str(tmp_path / "b.jsonl"), str(tmp_path)), text_key="content")) == TEXTS


def test_parquet_is_read_back(tmp_path: Path) -> None:
    texts = [f"row {i}" for i in range(50)]
    pq.write_table(pa.table({"text": [*texts, None], "n": range(51)}), tmp_path / "x.parquet", row_group_size=7)
    assert texts_of(ParquetSource((str(tmp_path),), batch_rows=4)) == texts


def test_text_files_by_folder_pattern_and_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name, text in zip(("a.txt", "b.md", "sub/c.txt", "sub/d.txt"), TEXTS, strict=True):
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "skipped.bin").write_bytes(b"\xff")
    assert texts_of(TextSource((str(tmp_path),))) == TEXTS
    assert texts_of(TextSource((str(tmp_path / "**/*.txt"),))) == [TEXTS[0], *TEXTS[2:]]
    assert texts_of(TextSource((str(tmp_path / "b.md"), str(tmp_path / "a.txt")))) == TEXTS[:2]


@given(text=st.text(alphabet="ab\n\r漢", max_size=80), chars=st.integers(1, 9))
@settings(deadline=None)
def test_cut_keeps_every_character_and_ends_at_lines(text: str, chars: int) -> None:
    pieces = list(cut(io.StringIO(text, newline=""), chars))
    assert "".join(pieces) == text
    assert all(0 < len(piece) < 2 * chars for piece in pieces)
    for piece in pieces[:-1]:
        assert piece.endswith("\n") or "\n" not in piece


def test_long_text_file_is_cut(tmp_path: Path) -> None:
    text = "".join(f"line {i}\r\n" for i in range(1000))
    (tmp_path / "long.txt").write_bytes(text.encode())
    pieces = texts_of(TextSource((str(tmp_path),), document_chars=500))
    assert "".join(pieces) == text
    assert len(pieces) > 15


def test_stdlib_is_this_pythons_source() -> None:
    source = StdlibSource()
    found = {document.id: document.text for document in source.documents()}
    assert found["json/__init__.py"] == Path(json.__file__).read_text(encoding="utf-8")
    assert list(found) == sorted(found)
    assert not [name for name in found if "site-packages" in name]
    size = source.text_bytes()
    assert size is not None
    assert 0.98 * size < sum(len(text.encode()) for text in found.values()) <= size


def test_stdlib_leaves_out_what_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("x = 1")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\n# \xe4")
    assert texts_of(StdlibSource(tmp_path)) == ["x = 1"]
    (tmp_path / "good.py").unlink()
    (tmp_path / "latin.py").unlink()
    with pytest.raises(UserError, match="source=stdlib"):
        StdlibSource(tmp_path).spec()


def installed(folder: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    """A distribution as an installer leaves it: its files, its name and version, and the record of them."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file, content in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_packages_are_what_is_installed_in_order_of_their_names(tmp_path: Path) -> None:
    site, library = tmp_path / "site-packages", tmp_path / "library"
    library.mkdir()
    (library / "os.py").write_text("standard")
    installed(
        site, "Zope.Two", "2.0", {"zope/b.py": b"b", "zope/a.py": b"a", "zope/a.so": b"\0", "zope/latin.py": b"\xe4"}
    )
    installed(site, "alpha", "1.0", {"alpha.py": b"alpha", "zope/a.py": b"a", "../bin/tool.py": b"tool"})
    installed(site, "shapelaw", "0.1", {"shapelaw/run.py": b"ours"})
    (site / "alien.py").write_text("of no distribution")
    source = PackagesSource(site, StdlibSource(library))
    found = [(document.id, document.text) for document in source.documents()]
    assert found == [("os.py", "standard"), ("alpha.py", "alpha"), ("zope/a.py", "a"), ("zope/b.py", "b")]
    assert source.text_bytes() == len("standard") + len("alpha") + 3  # with the file that is not UTF-8
    spec = source.spec()
    assert spec["packages"] == ["alpha==1.0", "zope-two==2.0"]
    (site / "alpha-1.0.dist-info").rename(site / "alpha-1.1.dist-info")
    (site / "alpha-1.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: alpha\nVersion: 1.1\n")
    assert PackagesSource(site, StdlibSource(library)).spec() != spec


def test_packages_of_this_python() -> None:
    source = PackagesSource()
    versions = dict(entry.split("==") for entry in source.spec()["packages"])
    assert versions["numpy"] == np.__version__
    assert "shapelaw" not in versions
    size, library = source.text_bytes(), StdlibSource().text_bytes()
    assert size is not None
    assert library is not None
    assert size > 2 * library


def test_no_package_installed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="source=packages: no package is installed"):
        PackagesSource(tmp_path).spec()


def test_spec_knows_renamed_and_changed_files_but_not_where_they_lie(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("text")
    spec = TextSource((str(tmp_path / "one"),)).spec()
    assert TextSource((str(tmp_path / "two"),)).spec() == spec
    (tmp_path / "two" / "a.txt").write_text("texts")
    assert TextSource((str(tmp_path / "two"),)).spec() != spec
    (tmp_path / "one" / "a.txt").rename(tmp_path / "one" / "b.txt")
    assert TextSource((str(tmp_path / "one"),)).spec() != spec


def flushed(lines: int) -> bytes:
    """A zstd frame whose writer flushed after every line."""
    writer = zstandard.ZstdCompressor().compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return b"".join(writer.compress(b'{"text": "a"}\n') + writer.flush(flush) for _ in range(lines)) + writer.flush()


def test_a_file_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    """After whole lines, too, and in a later frame."""
    frame = flushed(3)
    for before in (b"", frame):
        for end in range(1, len(frame)):
            (tmp_path / "x.jsonl.zst").write_bytes(before + frame[:end])
            with pytest.raises(UserError, match=r"x.jsonl.zst is damaged or cut short .*; fetch it again"):
                texts_of(JsonSource((str(tmp_path),)))


BAD_FILES: list[tuple[str, bytes, type[Any], str]] = [
    ("x.jsonl", b'{"text": "a"}\n{"tex', JsonSource, "x.jsonl:2 is not JSON"),
    ("x.jsonl", b'{"body": "a"}\n', JsonSource, "data.text_key=text: .*x.jsonl:1 .*keys body"),
    ("x.jsonl", b'{"text": 5}\n', JsonSource, "text_key=text"),
    ("x.jsonl", b"[1, 2]\n", JsonSource, "found: list"),
    ("x.jsonl", b'{"text": "\xff"}\n', JsonSource, "is not utf-8 text"),
    ("x.json.gz", gzip.compress(b'{"text": "a"}\n' * 99, mtime=0)[:-9], JsonSource, "damaged or cut short"),
    ("x.json.gz", b'{"text": "a"}\n', JsonSource, "damaged or cut short"),
    ("x.jsonl.zst", b'{"text": "a"}\n', JsonSource, "damaged or cut short"),
    ("x.txt", b"\xff\xfe", TextSource, "is not utf-8 text"),
    ("x.parquet", b"PAR1 no", ParquetSource, "cannot be read as Parquet"),
]


@pytest.mark.parametrize(("name", "data", "kind", "message"), BAD_FILES)
def test_damaged_files_are_named(tmp_path: Path, name: str, data: bytes, kind: type[Any], message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        texts_of(kind((str(tmp_path / name),)))
    assert name in str(caught.value)


def test_parquet_columns_are_checked(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "t": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match="columns n, t"):
        texts_of(ParquetSource((str(tmp_path),)))
    with pytest.raises(UserError, match="has int64"):
        texts_of(ParquetSource((str(tmp_path),), text_key="n"))


@pytest.mark.parametrize("source", [TextSource(("no/*.txt",)), JsonSource(("no",)), ParquetSource(())])
def test_nothing_to_read_is_an_error(source: Source) -> None:
    with pytest.raises(UserError, match=r"data\.path="):
        source.spec()


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="document_chars=0"):
        TextSource(("a",), document_chars=0)
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match="encoding"):
        texts_of(TextSource((str(tmp_path),), encoding="nonesuch"))


def fake_datasets(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    module = types.ModuleType("datasets")
    module.load_dataset = load  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)


def test_hub_rows_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def load(*names: Any, **settings: Any) -> Any:
        calls.append((names, settings))
        return ({"content": text} for text in TEXTS)

    fake_datasets(monkeypatch, load)
    source = HubSource("owner/name", "en", "test", "v1", text_key="content")
    assert texts_of(source) == TEXTS
    assert calls == [(("owner/name", "en"), {"split": "test", "revision": "v1", "streaming": True})]


def test_hub_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*names: Any, **settings: Any) -> Any:
        raise ConnectionError("no network")

    fake_datasets(monkeypatch, load)
    with pytest.raises(UserError, match=r"data\.dataset=owner/name.*no network"):
        texts_of(HubSource("owner/name"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'shapelaw\[datasets\]'"):
        texts_of(HubSource("owner/name"))
