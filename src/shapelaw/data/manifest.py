"""The description of a prepared folder: `manifest.json` once it is complete, `progress.json` during preparation."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from shapelaw.data.documents import SPLITS, VAL
from shapelaw.errors import UserError
from shapelaw.files import as_record, read_json, unsealed

VERSION = 1
"""Version of the format: shards of little-endian ids, `SPLIT-NUMBER.bin`, each with shard_tokens ids except a split's
last."""
MANIFEST_FILE = "manifest.json"
PROGRESS_FILE = "progress.json"
SPLIT_NAME = re.compile(r"[A-Za-z0-9_-]+")
DTYPES = ("<u2", "<u4")
Record = TypeVar("Record", "Manifest", "Progress")


def shard_name(split: str, number: int) -> str:
    """`train-00000.bin`."""
    return f"{split}-{number:05d}.bin"


def held_out_split(source: str) -> str:
    """Name of the split that holds a source's held-out documents."""
    return f"{VAL}-{source}"


@dataclass(frozen=True)
class Shard:
    """One file of token ids.

    Args:
        file: its name in the folder.
        tokens: ids in it.
        sha256: hash of its bytes.
    """

    file: str
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """One side of the corpus.

    Args:
        documents: documents on this side.
        tokens: ids, including separators.
        shards: its files, in order.
    """

    documents: int = 0
    tokens: int = 0
    shards: tuple[Shard, ...] = ()


@dataclass(frozen=True)
class SourceCount:
    """The amount from one source of a mixture.

    Args:
        documents, text_bytes: documents and UTF-8 bytes of text.
        train_tokens, val_tokens: ids on each side, including separators.
    """

    documents: int = 0
    text_bytes: int = 0
    train_tokens: int = 0
    val_tokens: int = 0


@dataclass(frozen=True)
class Request:
    """A request for a corpus; a folder belongs to one request for good.

    Args:
        source: spec of the source.
        tokenizer: spec of the tokenizer choice.
        val_fraction: share of documents held out.
        shard_tokens: ids in a full shard.
    """

    source: dict[str, Any]
    tokenizer: dict[str, Any]
    val_fraction: float
    shard_tokens: int


@dataclass(frozen=True)
class Progress:
    """The progress of a preparation, at the end of a batch of documents.

    Args:
        request: the request.
        documents: documents done, counted from the source's first.
        text_bytes: UTF-8 bytes of these documents.
        content: content hash of these documents (hexadecimal).
        splits: content of the shards; the tokens beyond the full shards are in the open one.
        sources: for a mixture, the amount from each source.
        tokenizer: identity of the tokenizer of these documents; empty if none was recorded yet.
        open: SHA-256 of the open shard of each split.
    """

    request: Request
    documents: int
    text_bytes: int
    content: str
    splits: dict[str, Split]
    sources: dict[str, SourceCount] = field(default_factory=dict)
    tokenizer: str = ""
    open: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A complete corpus.

    Args:
        request: the request.
        corpus_hash: hash of content, tokenizer and split rule, which decide the tokens of both splits.
        content: hash of the documents' texts in order.
        documents, text_bytes: documents and UTF-8 bytes of text read.
        tokenizer: identity of the tokenizer.
        vocab_size: ids lie below it.
        separator: id after every document, or None.
        dtype: numpy's name of the stored type, one of `DTYPES`.
        split_rule: the split rule, in words.
        splits: `train` and `val`; for a mixture also `val-SOURCE`, each source's held-out documents, which are part of val.
        options: options that named the source (`shapelaw.config.corpus_options`); empty for a corpus made in Python, or by an
            earlier version.
        left_out: reason -> number of documents without text, and of files without documents.
        sources: for a mixture, the amount from each source.
        version: version of the format.
    """

    request: Request
    corpus_hash: str
    content: str
    documents: int
    text_bytes: int
    tokenizer: str
    vocab_size: int
    separator: int | None
    dtype: str
    split_rule: str
    splits: dict[str, Split]
    options: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    sources: dict[str, SourceCount] = field(default_factory=dict)
    version: int = VERSION

    @property
    def stored_bytes(self) -> int:
        """Size of all shards."""
        return sum(split.tokens for split in self.splits.values()) * int(self.dtype[-1])


def corpus_hash(content: str, tokenizer: str, separator: int | None, split_rule: str) -> str:
    """Hash of everything that decides the tokens of both splits; it excludes shard sizes and the origin of the text."""
    parts = {"content": content, "tokenizer": tokenizer, "separator": separator, "split": split_rule, "v": VERSION}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest | None:
    """The folder's manifest, or None if it has none.

    Raises:
        UserError: if it is damaged or of another version.
    """
    fields = _read(folder / MANIFEST_FILE)
    if fields is None:
        return None
    version = fields.get("version")
    if version != VERSION:
        raise UserError(
            f"{folder / MANIFEST_FILE} has version {version}, but this program reads version {VERSION}; prepare the "
            "corpus again in another folder"
        )
    manifest = _built(Manifest, folder / MANIFEST_FILE, fields)
    if wrong := _contradiction(manifest):
        raise _damaged(folder / MANIFEST_FILE, wrong)
    return manifest


def read_progress(folder: Path) -> Progress | None:
    """The folder's progress, or None if it has none.

    Raises:
        UserError: if it is damaged.
    """
    fields = _read(folder / PROGRESS_FILE)
    if fields is None:
        return None
    return _built(Progress, folder / PROGRESS_FILE, fields)


def differences(asked: Request, found: Request) -> list[str]:
    """The differences between two requests, one phrase each, such as `tokenizer.kind=bytes (there: bpe)`."""
    flat_asked, flat_found = _flat(asdict(asked)), _flat(asdict(found))
    keys = [*flat_asked, *(key for key in flat_found if key not in flat_asked)]
    return [
        f"{key}={flat_asked.get(key, 'none')} (there: {flat_found.get(key, 'none')})"
        for key in keys
        if flat_asked.get(key) != flat_found.get(key)
    ]


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in fields.items():
        found.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        fields = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(fields, dict):
        raise _damaged(path, "no JSON object")
    return fields


def _built(kind: type[Record], path: Path, fields: dict[str, Any]) -> Record:
    """A manifest or progress from the fields read, after a check that they are complete and unchanged."""
    built = as_record(kind, unsealed(path, fields), path)
    for name, split in built.splits.items():
        if not SPLIT_NAME.fullmatch(name):
            raise _damaged(path, f"a split is called {name!r}")
        for number, shard in enumerate(split.shards):
            if shard.file != shard_name(name, number):  # a name could lead out of the folder
                raise _damaged(path, f"shard {number} of {name} is called {shard.file!r}")
            if shard.tokens < 1:
                raise _damaged(path, f"{shard.file} holds {shard.tokens} tokens")
    return built


def _contradiction(manifest: Manifest) -> str | None:
    """A contradiction in a manifest, for example in one that was written or changed by hand."""
    parts = (manifest.content, manifest.tokenizer, manifest.separator, manifest.split_rule)
    if manifest.corpus_hash != corpus_hash(*parts):
        return "its corpus_hash is not that of its content, tokenizer and split"
    if manifest.dtype not in DTYPES:
        return f"dtype {manifest.dtype!r}"
    if set(manifest.splits) != {*SPLITS, *map(held_out_split, manifest.sources)}:
        return f"its splits are {', '.join(manifest.splits) or 'none'}"
    for name, split in manifest.splits.items():
        if not split.documents or not split.shards:
            return f"{name} is empty"
        if split.tokens != sum(shard.tokens for shard in split.shards):
            return f"the shards of {name} do not sum to its tokens"
    return None


def _damaged(path: Path, error: str) -> UserError:
    return UserError(f"{path} is damaged ({error}); remove its folder and prepare the corpus again")
