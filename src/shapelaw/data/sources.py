"""Sources of text: each yields its documents one by one, in an order that never changes."""

from __future__ import annotations

import codecs
import glob
import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from shapelaw.config import DataConfig
from shapelaw.config.option import check_option
from shapelaw.data.documents import Document
from shapelaw.errors import UserError

DOCUMENT_CHARS = 2**20
"""Text files longer than this many characters are cut, so that memory does not grow with a file."""

UTF_8 = "utf-8-sig"
"""UTF-8, with or without a byte-order mark."""
_TEXT_SUFFIXES = (".txt", ".md")
_JSON_SUFFIXES = tuple(
    stem + packed for stem in (".jsonl", ".json", ".ndjson") for packed in ("", ".gz", ".zst", ".zstd")
)
_PARQUET_SUFFIXES = (".parquet",)


class Source(Protocol):
    """Where documents come from."""

    def spec(self) -> dict[str, Any]:
        """Values that identify the source (kind, settings, names and sizes of files), as JSON values.

        Raises:
            UserError: if there is nothing to read.
        """

    def documents(self) -> Iterator[Document]:
        """Every document, one by one, in an order that depends only on the source.

        Raises:
            UserError: if a file cannot be read in its format.
        """

    def text_bytes(self) -> int | None:
        """Approximate bytes of text, or None if only reading would tell."""


class Counted:
    """A source that also yields entries that are not documents, so that they can be counted."""

    def entries(self) -> Iterator[Document]:
        """The documents and, in their places, entries that are not documents (`Document.missing`)."""
        raise NotImplementedError

    def documents(self) -> Iterator[Document]:
        """The documents alone."""
        return (entry for entry in self.entries() if not entry.missing)


@dataclass(frozen=True)
class TextSource(Counted):
    """Text files.

    Args:
        paths: files, glob patterns (`**` for any depth) or folders (all .txt and .md files below).
        document_chars: a file is one document; a longer file is cut at line ends into pieces of about this many
            characters, each a separate document. A corpus of few files needs small pieces for a held-out split.
        encoding: encoding of the files.
    """

    paths: tuple[str, ...]
    document_chars: int = DOCUMENT_CHARS
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        check_option(DataConfig, "document_chars", self.document_chars, "data.document_chars")

    def _files(self) -> list[Path]:
        return find_files(self.paths, _TEXT_SUFFIXES)

    def spec(self) -> dict[str, Any]:
        """Kind, settings, names and sizes of the files."""
        settings = {"document_chars": self.document_chars, "encoding": self.encoding}
        return {"kind": "text", **settings, **fingerprint(self._files())}

    def entries(self) -> Iterator[Document]:
        """Files in order of their paths, with the pieces of a long file in order."""
        for path in self._files():
            with _readable(path), open(path, encoding=unmarked(self.encoding), newline="") as file:
                yield from _or_empty(
                    path, (Document(f"{path}#{n}", text) for n, text in enumerate(cut(file, self.document_chars)))
                )

    def text_bytes(self) -> int | None:
        """Sum of the files' sizes."""
        return total_size(self._files())


@dataclass(frozen=True)
class JsonSource(Counted):
    """One JSON object per line: .jsonl and, compressed, Dolma's .json.gz and .jsonl.zst.

    Args:
        paths: files, glob patterns or folders (all .jsonl, .json and .ndjson files below, compressed or not).
        text_key: key of the text.
    """

    paths: tuple[str, ...]
    text_key: str = "text"

    def _files(self) -> list[Path]:
        return find_files(self.paths, _JSON_SUFFIXES)

    def spec(self) -> dict[str, Any]:
        """Kind, key, names and sizes of the files."""
        return {"kind": "json", "text_key": self.text_key, **fingerprint(self._files())}

    def entries(self) -> Iterator[Document]:
        """Files in order of their paths, lines in order."""
        for path in self._files():
            with _readable(path), open_text(path) as file:
                yield from _or_empty(path, self._lines(path, file))

    def _lines(self, path: Path, file: TextIO) -> Iterator[Document]:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _document_of(line, self.text_key, f"{path}:{number}")

    def text_bytes(self) -> int | None:
        """Unknown: the lines hold more than the text, and may be compressed."""
        return None


@dataclass(frozen=True)
class ParquetSource(Counted):
    """A text column of Parquet files, read a few rows at a time.

    Args:
        paths: files, glob patterns or folders (all .parquet files below).
        text_key: the column.
        batch_rows: rows held in memory at a time.
    """

    paths: tuple[str, ...]
    text_key: str = "text"
    batch_rows: int = 256

    def _files(self) -> list[Path]:
        return find_files(self.paths, _PARQUET_SUFFIXES)

    def spec(self) -> dict[str, Any]:
        """Kind, column, names and sizes of the files."""
        return {"kind": "parquet", "text_key": self.text_key, **fingerprint(self._files())}

    def entries(self) -> Iterator[Document]:
        """Files in order of their paths, rows in order."""
        for path in self._files():
            rows = enumerate(self._texts(path))
            yield from _or_empty(path, (_document(text, f"{path}:{number}") for number, text in rows))

    def _texts(self, path: Path) -> Iterator[str | None]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as table:
                self._check_column(path, table.schema_arrow)
                for rows in table.iter_batches(batch_size=self.batch_rows, columns=[self.text_key]):
                    yield from rows.column(0).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} cannot be read as Parquet ({error}); remove it or fetch it again") from error

    def _check_column(self, path: Path, schema: Any) -> None:
        import pyarrow as pa

        if self.text_key not in schema.names:
            raise UserError(
                f"data.text_key={self.text_key}: {path} has the columns {', '.join(schema.names)}; name one"
            )
        kind = schema.field(self.text_key).type
        values = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not any(fits(values) for fits in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
            raise UserError(
                f"data.text_key={self.text_key}: this column of {path} has {kind}; give a column of strings"
            )

    def text_bytes(self) -> int | None:
        """Unknown: the files are compressed."""
        return None


@dataclass(frozen=True)
class HubSource(Counted):
    """A dataset of the Hugging Face hub by name, streamed (needs the extra `datasets` and a network).

    Args:
        name: name on the hub, or a local folder that `datasets` can load.
        config: name of the configuration, if there are several.
        split: split of the dataset to read; shapelaw's own split is made from its documents.
        revision: commit or tag; give one, because a dataset may change under its name.
        text_key: the column.
    """

    name: str
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    text_key: str = "text"

    def spec(self) -> dict[str, Any]:
        """Kind and all settings; the content behind the name is not checked."""
        settings = {"name": self.name, "config": self.config, "split": self.split, "revision": self.revision}
        return {"kind": "hub", **settings, "text_key": self.text_key}

    def entries(self) -> Iterator[Document]:
        """Rows in the dataset's order."""
        for number, row in enumerate(self._rows()):
            yield _document_in(row, self.text_key, f"{self.name}:{number}")

    def _rows(self) -> Iterator[Any]:
        load = _hub_loader()
        try:
            yield from load(self.name, self.config, split=self.split, revision=self.revision, streaming=True)
        except Exception as error:  # the library raises its own, pyarrow's, and several HTTP clients' errors
            message = str(error).strip().partition("\n")[0]
            raise UserError(
                f"data.dataset={self.name} (data.subset={self.config}, data.split={self.split}) cannot be read: "
                f"{message}; check its name, configuration and split, and the network"
            ) from error

    def text_bytes(self) -> int | None:
        """Unknown before it is read."""
        return None


def _hub_loader() -> Callable[..., Any]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UserError(
            "data from the Hugging Face hub needs the package 'datasets', which is not installed; "
            "run: pip install 'shapelaw[datasets]'"
        ) from error
    loader: Callable[..., Any] = load_dataset
    return loader


def find_files(paths: Sequence[str], suffixes: tuple[str, ...]) -> list[Path]:
    """Files named by paths, glob patterns and folders, each once, sorted by path.

    Args:
        paths: files, patterns (`**` for any depth), or folders.
        suffixes: endings of the files to take from a folder.

    Raises:
        UserError: if one of the paths matches no file.
    """
    found = {path for given in paths for path in _matches(given, suffixes)}
    if not found:
        raise UserError(f"data.path={list(paths)}: no path given; give files, folders or glob patterns")
    return sorted(found, key=lambda path: path.as_posix())


def _matches(given: str, suffixes: tuple[str, ...]) -> list[Path]:
    path = Path(given).expanduser()
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.name.endswith(suffixes) and file.is_file()]
    else:
        found = [Path(match) for match in glob.glob(str(path), recursive=True) if os.path.isfile(match)]
    if not found:
        wanted = f"a folder with files that end in {', '.join(suffixes)}" if path.is_dir() else "a file or a pattern"
        raise UserError(f"data.path={given}: matches no file (working folder {os.getcwd()}); give {wanted}")
    return found


def cut(file: TextIO, chars: int) -> Iterator[str]:
    """Pieces of a text of about `chars` characters (never twice as many), cut after a line end if there is one."""
    rest = ""
    while block := file.read(chars):
        text = rest + block
        end = text.rfind("\n") + 1 or len(text)
        if len(block) < chars:
            end = len(text)
        yield text[:end]
        rest = text[end:]
    if rest:
        yield rest


def open_text(path: Path) -> TextIO:
    """A file as UTF-8 text, decompressed according to its name (.gz, .zst, .zstd)."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=UTF_8)
    if path.suffix in (".zst", ".zstd"):
        import pyarrow as pa

        # Arrow's reader says when the last frame is cut short; zstandard's own just ends there
        return io.TextIOWrapper(pa.input_stream(path, compression="zstd"), encoding=UTF_8)
    return open(path, encoding=UTF_8)


def unmarked(encoding: str) -> str:
    """The encoding that does not treat a byte-order mark at the start of a file as text."""
    return UTF_8 if codecs.lookup(encoding).name == "utf-8" else encoding


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged file into one line that names it."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not {error.encoding} text (byte {error.start}: {error.reason}); leave it out or convert it"
        ) from error
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's: gzip's and Arrow's have no number
            raise
        raise UserError(f"{path} is damaged or cut short ({error}); fetch it again") from error
    except LookupError as error:
        raise UserError(f"encoding of the text files: {error}; give one that Python knows, such as utf-8") from error


def _document_of(line: str, key: str, where: str) -> Document:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}); the file must have one JSON object per line") from error
    return _document_in(row, key, where)


def _document_in(row: Any, key: str, where: str) -> Document:
    """The document of a row; null counts as a document without text."""
    if isinstance(row, dict) and key in row and isinstance(row[key], str | None):
        return _document(row[key], where)
    found = f"keys {', '.join(map(str, row))}" if isinstance(row, dict) else type(row).__name__
    raise UserError(f"data.text_key={key}: {where} has no text under it (found: {found}); give the key of the text")


def _document(text: str | None, where: str) -> Document:
    return Document(where, "", "null") if text is None else Document(where, text)


def _or_empty(path: Path, documents: Iterator[Document]) -> Iterator[Document]:
    """The documents of a file; if there are none, one without text, so that the file is counted."""
    first = next(documents, Document(str(path), "", "empty file"))
    yield first
    yield from documents


def total_size(files: Sequence[Path]) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in files)


def fingerprint(files: Sequence[Path], root: Path | None = None) -> dict[str, Any]:
    """Number, total size and a hash of names (without their common part) and sizes."""
    base = root or Path(os.path.commonpath([path.parent.absolute() for path in files]))
    sizes = [path.stat().st_size for path in files]
    names = [path.absolute().relative_to(base.absolute()).as_posix() for path in files]
    listing = json.dumps(list(zip(names, sizes, strict=True)))
    return {"files": len(files), "bytes": sum(sizes), "listing": hashlib.sha256(listing.encode()).hexdigest()}
