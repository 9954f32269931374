"""Text to token shards: streaming, on all cores, interruptible."""

from __future__ import annotations

import fcntl
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shapelaw.config import DataConfig
from shapelaw.config.option import check_option
from shapelaw.data import documents as docs
from shapelaw.data.corpus import QUICKLY_READ_BYTES, check_sizes
from shapelaw.data.documents import SPLITS, VAL, Document, batched
from shapelaw.data.encode import EncodedBatch, encode_all
from shapelaw.data.manifest import (
    MANIFEST_FILE,
    PROGRESS_FILE,
    Manifest,
    Progress,
    Request,
    Split,
    corpus_hash,
    differences,
    read_manifest,
    read_progress,
)
from shapelaw.data.mixture import Shares, counted
from shapelaw.data.progress import PrepareStatus, ProgressCallback
from shapelaw.data.shards import ShardWriter, full_disk_as_user_error
from shapelaw.data.sources import Counted, HubSource, Source
from shapelaw.data.tokenizers import TOKENIZER_FILE, Tokenizer, TokenizerChoice, load_tokenizer, token_dtype
from shapelaw.devices import cores
from shapelaw.errors import Damaged, UserError
from shapelaw.files import write_sealed
from shapelaw.wording import storage

VAL_FRACTION = 0.02
SHARD_TOKENS = 2**26
BATCH_BYTES = 2**18
CHECKPOINT_SECONDS = 2.0
LOCK_FILE = ".lock"

_CHECK_DOCUMENTS = 1024


def prepare(
    source: Source,
    tokenizer: TokenizerChoice,
    out_dir: Path,
    *,
    val_fraction: float = VAL_FRACTION,
    shard_tokens: int = SHARD_TOKENS,
    workers: int | None = None,
    progress: ProgressCallback | None = None,
    batch_bytes: int = BATCH_BYTES,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    options: Mapping[str, Any] | None = None,
    verify: bool | None = False,
) -> Manifest:
    """Turn a source into shards of token ids in `out_dir`, continue an interrupted call, or return an existing corpus.

    The result depends on source, tokenizer, val_fraction and shard_tokens alone: not on workers, batches or
    interruptions. Memory holds a few batches, not the corpus.

    Args:
        source: where documents come from.
        tokenizer: which tokenizer.
        out_dir: folder of the corpus; created if missing.
        val_fraction: share of documents held out, by a hash of their text (`documents.is_val`).
        shard_tokens: ids in a full shard.
        workers: processes that tokenise; None for one per core.
        progress: called after every batch.
        batch_bytes: text for a worker at a time.
        checkpoint_seconds: how often the place to continue from is recorded.
        options: options that name the source, for the manifest.
        verify: whether to compare an existing corpus with the source's text, which also detects changes at equal size; None
            does so for up to QUICKLY_READ_BYTES of text in files.

    Returns:
        The manifest, as written to the folder last.

    Raises:
        UserError: for settings out of range, an empty source or split, a folder that holds something else or is in use,
            a full disk. Nothing finished is overwritten.
    """
    request = _request(source, tokenizer, val_fraction, shard_tokens)
    workers = _checked_workers(workers)
    if (found := _finished(out_dir, request)) is not None:
        return _still(source, out_dir, found, dict(options or {}), verify)
    _check_claimable(out_dir, request, source)
    with full_disk_as_user_error(out_dir), _claimed(out_dir):
        if (found := _finished(out_dir, request)) is not None:
            return found
        job = _Job(source, out_dir, request, progress, checkpoint_seconds, dict(options or {}))
        return job.run(tokenizer, workers, batch_bytes)


class _Job:
    """One running preparation in a folder that this process has locked."""

    def __init__(
        self,
        source: Source,
        folder: Path,
        request: Request,
        report: ProgressCallback | None,
        checkpoint_seconds: float,
        options: dict[str, Any],
    ) -> None:
        self._options, self._left_out = options, Counter[str]()
        self._source, self._folder, self._request = source, folder, request
        self._report, self._checkpoint_seconds = report, checkpoint_seconds
        self._shares = Shares.of(source)
        start = Progress(request, 0, 0, docs.EMPTY_CONTENT.hex(), {split: Split() for split in self._shares.splits})
        self._at = read_progress(folder) or start
        self._total_bytes = source.text_bytes()

    def run(self, choice: TokenizerChoice, workers: int, batch_bytes: int) -> Manifest:
        write_sealed(self._folder / PROGRESS_FILE, asdict(self._at))
        tokenizer = self._tokenizer(choice)
        writers = self._writers(tokenizer)
        try:
            texts = batched(self._remaining(), batch_bytes)
            with closing(encode_all(texts, tokenizer, self._request.val_fraction, workers)) as encoded:
                self._write(encoded, writers)
            for writer in writers.values():
                writer.finish()
            self._at = replace(self._at, splits=self._splits(writers))
            self._note(writers)
        finally:
            for writer in writers.values():
                writer.close()
        return self._conclude(tokenizer)

    def _tokenizer(self, choice: TokenizerChoice) -> Tokenizer:
        built = load_tokenizer(self._folder, self._request.tokenizer)
        if built is None:
            self._show("training the tokenizer")
            built = choice.build(self._training_texts())
            built.save(self._folder)
        elif self._at.tokenizer not in ("", built.identity):
            raise Damaged(
                f"corpus folder {self._folder}: its tokenizer.json is no longer that of the interrupted call; remove "
                "the folder to start again"
            )
        self._at = replace(self._at, tokenizer=built.identity)
        write_sealed(self._folder / PROGRESS_FILE, asdict(self._at))
        return built

    def _training_texts(self) -> Iterator[str]:
        for document in self._source.documents():
            if not docs.is_val(docs.digest(docs.utf8(document.text)), self._request.val_fraction):
                yield document.text

    def _writers(self, tokenizer: Tokenizer) -> dict[str, ShardWriter]:
        dtype, size = token_dtype(tokenizer.vocab_size), self._request.shard_tokens
        at = self._at.splits
        writers = {split: ShardWriter(self._folder, split, dtype, size, at[split]) for split in self._shares.splits}
        for split, digest in self._at.open.items():
            if writers[split].open_sha256 != digest:
                raise Damaged(
                    f"corpus folder {self._folder}: tokens of {split} were changed since the interrupted call; remove "
                    "the folder to start again"
                )
        return writers

    def _remaining(self) -> Iterator[Document]:
        """The unfinished documents, after a check that the finished ones are unchanged."""
        everything = self._with_text()
        content, seen, size = docs.EMPTY_CONTENT, 0, 0
        for document in itertools.islice(everything, self._at.documents):
            data = docs.utf8(document.text)
            content = docs.chain(content, [docs.digest(data)])
            seen, size = seen + 1, size + len(data)
            if self._report and seen % _CHECK_DOCUMENTS == 0:
                self._report(PrepareStatus("checking", seen, size, self._tokens(), self._total_bytes))
        if content.hex() != self._at.content:
            raise UserError(
                f"corpus folder {self._folder}: the source's first {self._at.documents} documents are no longer those "
                "of the interrupted call; remove the folder to start again, or give another data.name"
            )
        yield from map(self._shares.give, everything)

    def _with_text(self) -> Iterator[Document]:
        """The documents that have text; others are counted."""
        source = self._source
        for entry in source.entries() if isinstance(source, Counted) else source.documents():
            if entry.text:
                yield entry
            else:
                self._left_out[entry.missing or "empty document"] += 1

    def _write(self, encoded: Iterable[EncodedBatch], writers: dict[str, ShardWriter]) -> None:
        noted, full = time.monotonic(), self._full_shards()
        for each in encoded:
            batch, sources = self._shares.take(each)
            for split, writer in writers.items():
                writer.append(batch.tokens[split])
            self._at = self._after(batch, sources, writers)
            if self._full_shards() > full or time.monotonic() - noted >= self._checkpoint_seconds:
                self._note(writers)
                noted, full = time.monotonic(), self._full_shards()
            self._show("tokenising")

    def _after(self, batch: EncodedBatch, sources: list[str], writers: dict[str, ShardWriter]) -> Progress:
        was = self._at
        content = docs.chain(bytes.fromhex(was.content), batch.digests).hex()
        documents, text_bytes = was.documents + len(batch.digests), was.text_bytes + batch.text_bytes
        splits = self._splits(writers, batch)
        given = counted(was.sources, batch, sources)
        return Progress(self._request, documents, text_bytes, content, splits, given, was.tokenizer)

    def _splits(self, writers: dict[str, ShardWriter], batch: EncodedBatch | None = None) -> dict[str, Split]:
        more = batch.documents if batch else dict.fromkeys(self._shares.splits, 0)
        was = self._at.splits
        return {
            split: Split(was[split].documents + more[split], writer.tokens, writer.shards)
            for split, writer in writers.items()
        }

    def _note(self, writers: dict[str, ShardWriter]) -> None:
        """Record where to continue: first write the ids to disk, then the record, then rename the shards."""
        for writer in writers.values():
            writer.sync()
        self._at = replace(self._at, open={split: writer.open_sha256 for split, writer in writers.items()})
        write_sealed(self._folder / PROGRESS_FILE, asdict(self._at))
        for writer in writers.values():
            writer.publish()

    def _conclude(self, tokenizer: Tokenizer) -> Manifest:
        at, rule = self._at, docs.split_rule(self._request.val_fraction)
        self._check_splits()
        manifest = Manifest(
            request=self._request,
            corpus_hash=corpus_hash(at.content, tokenizer.identity, tokenizer.separator, rule),
            content=at.content,
            documents=at.documents,
            text_bytes=at.text_bytes,
            tokenizer=tokenizer.identity,
            vocab_size=tokenizer.vocab_size,
            separator=tokenizer.separator,
            dtype=token_dtype(tokenizer.vocab_size).str,
            split_rule=rule,
            splits=at.splits,
            options=self._options,
            left_out=dict(self._left_out),
            sources=at.sources,
        )
        write_sealed(self._folder / MANIFEST_FILE, asdict(manifest))
        for path in (self._folder / PROGRESS_FILE, *self._folder.glob(".*.tmp")):  # leftovers of a killed call
            path.unlink()
        return manifest

    def _check_splits(self) -> None:
        """Clear the folder for another try if a split is empty, because then it is useless."""
        empty = [split for split in self._shares.splits if not self._at.splits[split].documents]
        if not empty:
            return
        for path in [*self._folder.glob("*.bin"), self._folder / TOKENIZER_FILE, self._folder / PROGRESS_FILE]:
            path.unlink(missing_ok=True)
        remedy = "raise it" if all(split.startswith(VAL) for split in empty) else "change it"
        raise UserError(
            f"data.val_fraction={self._request.val_fraction}: none of the {self._at.documents} documents are in the "
            f"split {' and '.join(empty)}; {remedy}, or give more or smaller documents (text files: data.document_chars)"
        )

    def _full_shards(self) -> int:
        return sum(len(split.shards) for split in self._at.splits.values())

    def _tokens(self) -> int:
        return sum(self._at.splits[split].tokens for split in SPLITS)

    def _show(self, phase: str) -> None:
        if self._report:
            at = self._at
            self._report(PrepareStatus(phase, at.documents, at.text_bytes, self._tokens(), self._total_bytes))


def _request(source: Source, tokenizer: TokenizerChoice, val_fraction: float, shard_tokens: int) -> Request:
    docs.check_val_fraction(val_fraction)
    check_option(DataConfig, "shard_tokens", shard_tokens, "data.shard_tokens")
    return Request(source.spec(), tokenizer.spec(), val_fraction, shard_tokens)


def _checked_workers(workers: int | None) -> int:
    if workers is None:
        return cores()
    if workers < 1:
        raise UserError(f"workers={workers}: allowed values are whole numbers from 1, or null for one per core")
    return workers


def _finished(folder: Path, request: Request) -> Manifest | None:
    """The manifest of a complete corpus for this request."""
    found = read_manifest(folder)
    if found is not None:
        _check_same(folder, request, found.request, "already holds a corpus made from something else")
        check_sizes(folder, found)
    return found


def _still(source: Source, folder: Path, found: Manifest, options: dict[str, Any], verify: bool | None) -> Manifest:
    """A complete corpus, after a check that it is made of the source's present text; its options are those of this call.

    Raises:
        UserError: if the text was changed.
    """
    if verify is None:
        verify = found.text_bytes <= QUICKLY_READ_BYTES and not isinstance(source, HubSource)
    same = not verify or content_of(source) == found.content
    if not same and found.options:
        raise UserError(
            f"corpus folder {folder}: its text has changed since, with the same names and sizes; give another "
            "data.name, or remove the folder"
        )
    if options and same and options != found.options:
        found = replace(found, options=options)
        write_sealed(folder / MANIFEST_FILE, asdict(found))
    return found


def content_of(source: Source) -> str:
    """Content hash of a source's documents, as in the manifest."""
    texts = (document.text for document in source.documents() if document.text)
    return docs.chain(docs.EMPTY_CONTENT, (docs.digest(docs.utf8(text)) for text in texts)).hex()


def _check_claimable(folder: Path, request: Request, source: Source) -> None:
    """Check that the folder is missing, empty, or holds exactly this preparation, interrupted."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"corpus folder {folder}: this is a file; give another data.name or data_dir")
    at = read_progress(folder)
    if at is not None:
        _check_same(folder, request, at.request, "holds an interrupted preparation of something else")
    elif folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(
            f"corpus folder {folder}: contains files that are not a corpus; give another data.name or data_dir"
        )
    else:
        _check_space(folder, source)


def _check_same(folder: Path, asked: Request, found: Request, what: str) -> None:
    if different := differences(asked, found):
        raise UserError(
            f"corpus folder {folder} {what}: asked for {'; '.join(different)}; "
            "give another data.name, or remove the folder"
        )


def _check_space(folder: Path, source: Source) -> None:
    """Refuse early if the corpus would not fit even at four bytes of text per token (two bytes stored)."""
    size = source.text_bytes()
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if size is not None and size / 2 > free:
        raise UserError(
            f"corpus folder {folder}: {storage(size)} of text need at least {storage(size / 2)} on disk, but "
            f"{storage(free)} are free; free some space or give a data_dir on another disk"
        )


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Lock the folder for this process; the lock ends with it, even when it is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK_FILE, "w")  # noqa: SIM115  (the next statement closes it)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(
            f"corpus folder {folder}: no folder can be written there ({error.strerror}); give another data_dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"corpus folder {folder}: another process is preparing this corpus; wait for it, "
                "or give another data.name"
            ) from error
        yield
