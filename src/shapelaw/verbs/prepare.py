"""Preparing a corpus as the work of a script."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from shapelaw.config import DataConfig, PrepareConfig, TokenizerConfig, TokenizerKind, corpus_dir, corpus_options
from shapelaw.config import Source as SourceKind
from shapelaw.config.preparing import paths_of
from shapelaw.config.schema import to_dataclass
from shapelaw.data.installed import PackagesSource, StdlibSource
from shapelaw.data.manifest import Manifest
from shapelaw.data.mixture import MixtureSource
from shapelaw.data.prepare import prepare
from shapelaw.data.progress import terminal_progress
from shapelaw.data.sources import HubSource, JsonSource, ParquetSource, Source, TextSource
from shapelaw.data.tokenizers import BpeChoice, BytesChoice, FileChoice, TokenizerChoice
from shapelaw.errors import UserError
from shapelaw.terminal import Terminal, terminal


def prepare_corpus(config: DictConfig) -> None:
    """Turn the configured text into token shards, and print where they lie."""
    asked: PrepareConfig = to_dataclass(config)
    folder = corpus_dir(asked.data_dir, asked.data, asked.tokenizer)
    console = terminal(stderr=True)
    with terminal_progress(console) if asked.progress and console.is_terminal else contextlib.nullcontext() as progress:
        manifest = prepare(
            source_of(asked.data),
            tokenizer_of(asked.tokenizer),
            folder,
            val_fraction=asked.data.val_fraction,
            shard_tokens=int(asked.data.shard_tokens),
            workers=asked.workers or None,
            progress=progress,
            options=corpus_options(asked.data, asked.tokenizer),
            verify=asked.data.verify.hashes,
        )
    train, val = manifest.splits["train"], manifest.splits["val"]
    console.print(
        f"{asked.data.name}: {train.tokens:,} training and {val.tokens:,} held-out tokens "
        f"({train.documents:,} and {val.documents:,} documents) in {folder}"
    )
    _say_sources(console, manifest)
    if manifest.left_out:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in manifest.left_out.items())
        console.print(f"left out because they contain no text: {counts}")


def source_of(data: DataConfig) -> Source:
    """The source that a data group describes.

    Raises:
        UserError: if it names no path or data set.
    """
    match data.source:
        case SourceKind.stdlib:
            return StdlibSource()
        case SourceKind.packages:
            return PackagesSource(Path(str(data.path)) if data.path else None)
        case SourceKind.huggingface:
            name = _given("data.dataset", data.dataset)
            return HubSource(name, data.subset, data.split, data.revision, data.text_key)
        case SourceKind.text | SourceKind.jsonl | SourceKind.parquet:
            _given("data.path", data.path)
            return _mixture(data) if data.weights else _files(data, paths_of(data))


def _files(data: DataConfig, paths: Sequence[str]) -> Source:
    """The files of some paths, read by the options of the group."""
    if data.source is SourceKind.text:
        return TextSource(tuple(paths), data.document_chars)
    kind = JsonSource if data.source is SourceKind.jsonl else ParquetSource
    return kind(tuple(paths), data.text_key)


def _mixture(data: DataConfig) -> Source:
    """Several sources by weights.

    Raises:
        UserError: if a path has no weight, or a weight no path.
    """
    paths = paths_of(data)
    named = {name: [_inside(paths[0], name)] for name in data.weights} if len(paths) == 1 else _by_names(paths)
    if named.keys() != data.weights.keys():
        raise UserError(
            f"data.weights: names {', '.join(data.weights)}, and data.path lists {', '.join(named)}; give each path a weight "
            "by its last part"
        )
    return MixtureSource({name: _files(data, some) for name, some in named.items()}, dict(data.weights))


def _inside(folder: str, name: str) -> str:
    """The path of a source in a common folder, such as Dolma's: a folder, or files whose names start with the source's."""
    path = Path(folder).expanduser() / name
    return str(path) if path.exists() else f"{path}-*"


def _by_names(paths: Sequence[str]) -> dict[str, list[str]]:
    """Paths by their last parts up to the first dot; a name may have several."""
    named: dict[str, list[str]] = {}
    for path in paths:
        named.setdefault(Path(path).name.partition(".")[0], []).append(path)
    return named


def _say_sources(console: Terminal, manifest: Manifest) -> None:
    """Print the amount from each source of a mixture."""
    whole = sum(one.text_bytes for one in manifest.sources.values())
    for name, one in manifest.sources.items():
        console.print(
            f"  {name}: {100 * one.text_bytes / whole:.1f}% of the text, {one.train_tokens:,} training and {one.val_tokens:,} "
            "held-out tokens"
        )


def tokenizer_of(tokenizer: TokenizerConfig) -> TokenizerChoice:
    """The tokenizer that a tokenizer group describes."""
    match tokenizer.kind:
        case TokenizerKind.bytes:
            return BytesChoice()
        case TokenizerKind.bpe:
            return BpeChoice(tokenizer.vocab_size)
        case TokenizerKind.file:
            return FileChoice(Path(_given("tokenizer.path", tokenizer.path)), tokenizer.vocab_size, tokenizer.separator)


def _given(key: str, value: Any) -> Any:
    if not value:
        raise UserError(f"{key}=null: this source needs it; give {key}=VALUE")
    return value


DOOR = prepare_corpus
