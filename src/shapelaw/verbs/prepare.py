"""Preparing a corpus as the work of a script."""

from __future__ import annotations

import contextlib
from pathlib import Path

from omegaconf import DictConfig

from shapelaw.config import DataConfig, PrepareConfig, TokenizerConfig, TokenizerKind, corpus_dir, corpus_options
from shapelaw.config import Source as SourceKind
from shapelaw.config.schema import to_dataclass
from shapelaw.data.installed import PackagesSource, StdlibSource
from shapelaw.data.prepare import prepare
from shapelaw.data.progress import terminal_progress
from shapelaw.data.sources import HubSource, JsonSource, ParquetSource, Source, TextSource
from shapelaw.data.tokenizers import BpeChoice, BytesChoice, FileChoice, TokenizerChoice
from shapelaw.errors import UserError
from shapelaw.terminal import terminal
from shapelaw.verbs.doors import Door


def prepare_corpus(config: DictConfig) -> None:
    """Turn the configured text into token shards; says where they lie."""
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
    if manifest.left_out:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in manifest.left_out.items())
        console.print(f"left out, as there is no text in them: {counts}")


def source_of(data: DataConfig) -> Source:
    """The source that a data group describes.

    Raises:
        UserError: if it names no path or data set.
    """
    match data.source:
        case SourceKind.stdlib:
            return StdlibSource()
        case SourceKind.packages:
            return PackagesSource(Path(data.path) if data.path else None)
        case SourceKind.huggingface:
            name = _given("data.dataset", data.dataset)
            return HubSource(name, data.subset, data.split, data.revision, data.text_key)
        case SourceKind.text:
            return TextSource((_given("data.path", data.path),), data.document_chars)
        case SourceKind.jsonl:
            return JsonSource((_given("data.path", data.path),), data.text_key)
        case SourceKind.parquet:
            return ParquetSource((_given("data.path", data.path),), data.text_key)


def tokenizer_of(tokenizer: TokenizerConfig) -> TokenizerChoice:
    """The tokenizer that a tokenizer group describes."""
    match tokenizer.kind:
        case TokenizerKind.bytes:
            return BytesChoice()
        case TokenizerKind.bpe:
            return BpeChoice(tokenizer.vocab_size)
        case TokenizerKind.file:
            return FileChoice(Path(_given("tokenizer.path", tokenizer.path)), tokenizer.vocab_size, tokenizer.separator)


def _given(key: str, value: str | None) -> str:
    if not value:
        raise UserError(f"{key}=null: this source needs it; give {key}=VALUE")
    return value


DOOR = Door(PrepareConfig, prepare_corpus)
