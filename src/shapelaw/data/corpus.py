"""Reading a prepared corpus: memory maps of its shards, checked against the manifest."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.data.documents import TRAIN, VAL
from shapelaw.data.manifest import PROGRESS_FILE, Manifest, Shard, held_out_split, read_manifest
from shapelaw.data.tokenizers import Tokenizer, load_tokenizer
from shapelaw.errors import NotPrepared, UserError

SOURCES = {
    "text": "text", "json": "jsonl", "parquet": "parquet", "hub": "huggingface", "stdlib": "stdlib", "packages": "packages"
}  # fmt: skip
"""Kind of a source -> data.source, for corpora whose manifest holds no options."""
Int64s = NDArray[np.int64]
QUICKLY_READ_BYTES = 2 * 10**9
"""Corpora of up to this size are read and hashed in a few seconds."""


@dataclass(frozen=True)
class TokenStream:
    """The tokens of one split, in order, in memory-mapped shards.

    A window of length n+1 at stride n starts at every multiple of n = seq_len: inputs are its first n tokens, targets
    its last n. So neighbours share one token, and every token except the stream's first is a target exactly once.
    Windows run across documents (with a separator between them) and across shards; tokens after the last whole window
    are not used.

    Args:
        files: the shards.
        counts: ids in each.
        dtype: stored type.
    """

    files: tuple[Path, ...]
    counts: tuple[int, ...]
    dtype: np.dtype[Any]

    @cached_property
    def shards(self) -> tuple[NDArray[Any], ...]:
        """Views of the memory-mapped files, read only."""
        # Plain arrays over the maps: np.memmap's own slicing costs several times as much.
        return tuple(np.asarray(np.memmap(file, dtype=self.dtype, mode="r")) for file in self.files)

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling, which names the files; loading maps them again."""
        return {name: value for name, value in self.__dict__.items() if name != "shards"}

    @property
    def tokens(self) -> int:
        """Ids in all shards."""
        return sum(self.counts)

    @cached_property
    def _shard_tokens(self) -> int:
        return max(self.counts, default=1)

    def windows(self, seq_len: int) -> int:
        """Windows of seq_len + 1 tokens at stride seq_len: (tokens - 1) // seq_len."""
        return max(self.tokens - 1, 0) // seq_len

    def locate(self, starts: NDArray[Any]) -> tuple[Int64s, Int64s]:
        """Shard and offset of positions in the stream (all shards except the last have the same size)."""
        shard, offset = np.divmod(np.asarray(starts, dtype=np.int64), self._shard_tokens)
        return shard, offset

    def view(self, start: int, length: int) -> NDArray[Any]:
        """Tokens [start, start + length): a view of the map, without a copy, unless they cross into another shard."""
        assert 0 <= start <= start + length <= self.tokens
        shard, offset = divmod(start, self._shard_tokens)
        piece = self.shards[shard][offset : offset + length]
        if piece.size == length:
            return piece
        joined = np.empty(length, dtype=self.dtype)
        self._copy_across(joined, shard, offset)
        return joined

    def gather(self, starts: NDArray[Any], out: NDArray[Any]) -> None:
        """Copy the windows that begin at starts (shape n) into the rows of out (shape n x length), once, cast as
        needed."""
        shards, length = self.shards, out.shape[1]
        numbers, offsets = self.locate(starts)
        for row, number, offset in zip(out, numbers.tolist(), offsets.tolist(), strict=True):
            piece = shards[number][offset : offset + length]
            if len(piece) == length:
                row[:] = piece
            else:
                self._copy_across(row, number, offset)

    def _copy_across(self, row: NDArray[Any], shard: int, offset: int) -> None:
        done = 0
        while done < len(row):
            piece = self.shards[shard][offset : offset + len(row) - done]
            row[done : done + len(piece)] = piece
            done, shard, offset = done + len(piece), shard + 1, 0


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus.

    Args:
        folder: its folder.
        manifest: its manifest.
        streams: tokens of each split.
        source: for a mixture, the source whose held-out documents alone form its held-out part.
    """

    folder: Path
    manifest: Manifest
    streams: Mapping[str, TokenStream] = field(repr=False)
    source: str | None = None

    @property
    def name(self) -> str:
        """Name of its folder and of the source: CORPUS or CORPUS@SOURCE."""
        return self.folder.name + (f"@{self.source}" if self.source else "")

    @property
    def hash(self) -> str:
        """Hash of everything that decides its tokens, and of the source."""
        whole = self.manifest.corpus_hash
        return hashlib.sha256(f"{whole}@{self.source}".encode()).hexdigest() if self.source else whole

    def of_source(self, source: str | None) -> Corpus:
        """The corpus with the held-out part of one source of a mixture only; unchanged for None.

        Raises:
            UserError: if it has no such source.
        """
        if source is not None and source not in self.manifest.sources:
            there = ", ".join(self.manifest.sources) or "none: it is not a mixture"
            raise UserError(f"{self.folder.name}@{source}: the corpus has no such source; its sources are {there}")
        return replace(self, source=source)

    @property
    def train(self) -> TokenStream:
        """Tokens to train on."""
        return self.streams[TRAIN]

    def unique_tokens(self, seq_len: int) -> int:
        """Number of different training tokens for sequences of seq_len; a run with more repeats them."""
        return self.train.windows(seq_len) * seq_len

    @property
    def val(self) -> TokenStream:
        """Held-out tokens."""
        return self.streams[held_out_split(self.source) if self.source else VAL]

    @property
    def vocab_size(self) -> int:
        """Vocabulary of its tokenizer, including padding."""
        return self.manifest.vocab_size

    def tokenizer(self) -> Tokenizer:
        """The tokenizer it was made with."""
        found = load_tokenizer(self.folder, self.manifest.request.tokenizer)
        if found is None or found.identity != self.manifest.tokenizer:
            raise UserError(
                f"{self.folder}: its tokenizer.json is missing or was changed; remove the folder and prepare again"
            )
        return found

    def check_vocab(self, vocab_size: int) -> None:
        """Raises UserError unless a model of this vocabulary fits the shards."""
        if vocab_size != self.vocab_size:
            raise UserError(
                f"vocab_size={vocab_size}: the corpus in {self.folder} was prepared with vocabulary {self.vocab_size} "
                f"(tokenizer {self.manifest.request.tokenizer['kind']}); set vocab_size={self.vocab_size}, "
                "or prepare a corpus with the other vocabulary"
            )

    def check_named(self, options: Mapping[str, Any]) -> None:
        """Refuse the corpus of another text under the same name.

        Args:
            options: options that name the text (`shapelaw.config.corpus_options`); those that are None name nothing.

        Raises:
            UserError: if it was prepared from something else, according to its manifest.
        """
        kind = self.manifest.request.source.get("kind")
        there = self.manifest.options or {"data.source": SOURCES.get(str(kind))}
        for key, value in options.items():
            if None not in (value, there.get(key)) and value != there[key]:
                raise UserError(
                    f"{key}={value}: the corpus in {self.folder} was prepared with {key}={there[key]}; if that is the text you "
                    f"mean, give {key}={there[key]}, else give another data.name and run shapelaw prepare"
                )


def load_corpus(folder: Path, *, verify_hashes: bool | None = False) -> Corpus:
    """Open a prepared corpus.

    Args:
        folder: where `prepare` wrote it.
        verify_hashes: read every shard and compare its sha256 (their sizes are always compared); None does so for a
            corpus of up to QUICKLY_READ_BYTES.

    Raises:
        NotPrepared: if there is no complete corpus.
        UserError: if a shard is missing, cut short or changed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        begun = (folder / PROGRESS_FILE).exists()
        state = "its preparation was interrupted" if begun else "there is no prepared corpus"
        raise NotPrepared(
            f"corpus folder {folder}: {state}; run: shapelaw prepare (with the same data and tokenizer settings)"
        )
    check_sizes(folder, manifest)
    if verify_hashes is None:
        verify_hashes = manifest.stored_bytes <= QUICKLY_READ_BYTES
    if verify_hashes:
        for split in manifest.splits.values():
            for shard in split.shards:
                _check_hash(folder / shard.file, shard)
    return Corpus(folder, manifest, {name: _stream(folder, manifest, name) for name in manifest.splits})


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raises UserError unless every shard of the manifest exists with the size that follows from its count."""
    item = np.dtype(manifest.dtype).itemsize
    for split in manifest.splits.values():
        for shard in split.shards:
            path = folder / shard.file
            found = path.stat().st_size if path.exists() else None
            if found != shard.tokens * item:
                raise UserError(
                    f"{path} {'is missing' if found is None else f'holds {found} bytes'}, the manifest says "
                    f"{shard.tokens * item}; remove the folder {folder} and run shapelaw prepare again"
                )


def epochs_needed(corpus: Corpus, seq_len: int, tokens: int) -> float:
    """How often a run of `tokens` tokens sees every training sequence: tokens / (windows * seq_len).

    Raises:
        UserError: if the training split is shorter than one sequence.
    """
    windows = corpus.train.windows(seq_len)
    if windows == 0:
        raise UserError(
            f"seq_len={seq_len}: the training split of {corpus.folder} has only {corpus.train.tokens} tokens, one "
            "sequence needs seq_len + 1; prepare a larger corpus or shorten seq_len"
        )
    return tokens / corpus.unique_tokens(seq_len)


def check_repeats(corpus: Corpus, seq_len: int, tokens: int, max_epochs: float) -> float:
    """How often a run repeats the corpus, if that is allowed.

    Returns:
        `epochs_needed`; up to 1, nothing repeats.

    Raises:
        UserError: if it is more than max_epochs.
    """
    epochs = epochs_needed(corpus, seq_len, tokens)
    if epochs > max_epochs:
        has = corpus.unique_tokens(seq_len)
        raise UserError(
            f"tokens={tokens:,}: the corpus in {corpus.folder} has {has:,} training tokens, so each would be seen "
            f"{epochs:.2f} times; allowed is data.max_epochs={max_epochs:g}: prepare a larger corpus (or raise "
            f"data.unique_tokens), lower tokens to {math.floor(has * max_epochs):,}, or raise data.max_epochs"
        )
    return epochs


def _stream(folder: Path, manifest: Manifest, split: str) -> TokenStream:
    shards = manifest.splits[split].shards
    files = tuple(folder / shard.file for shard in shards)
    return TokenStream(files, tuple(shard.tokens for shard in shards), np.dtype(manifest.dtype))


def _check_hash(path: Path, shard: Shard) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != shard.sha256:
        raise UserError(
            f"{path} was changed after it was written (sha256 {found[:12]}, expected {shard.sha256[:12]}); "
            f"remove the folder {path.parent} and run shapelaw prepare again"
        )
