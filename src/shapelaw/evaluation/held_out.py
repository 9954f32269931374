"""The held-out text of a corpus as tokens of any model: its tokens are decoded, then encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shapelaw.data import Corpus
from shapelaw.data.corpus import Int64s
from shapelaw.data.documents import digest, is_val, utf8
from shapelaw.data.tokenizers import BytesTokenizer, Tokenizer
from shapelaw.errors import UserError
from shapelaw.evaluation.vocabulary import Counts, Encoded, Ids, Vocabulary

BATCH_CHARACTERS = 2**20
"""Characters of text to encode at a time."""


@dataclass(frozen=True)
class HeldOut:
    """The held-out text as one stream of a model's tokens: every document, then the model's separator.

    Windows are those of `shapelaw.data.TokenStream`: n predicted tokens at stride n, neighbours share one token.

    Args:
        ids: the tokens.
        text_bytes: UTF-8 bytes of text that each token stands for; a separator stands for none.
        documents: number of documents.
    """

    ids: Ids
    text_bytes: Counts
    documents: int

    def windows(self, length: int, tokens: int | None) -> Int64s:
        """Numbers of windows of `length` predicted tokens, spread evenly over the stream, enough for `tokens` predicted tokens;
        all windows if None. Validations of a run use the same.

        Raises:
            UserError: if the text is shorter than one window.
        """
        available = max(len(self.ids) - 1, 0) // length
        if available == 0:
            raise UserError(
                f"context={length}: the held-out part of the corpus has {len(self.ids):,} tokens of this model, but "
                "one window needs one more than the context; give a smaller context, or prepare a larger corpus"
            )
        count = available if tokens is None else min(-(-tokens // length), available)
        return np.arange(count, dtype=np.int64) * available // count  # as `shapelaw.data.validation` spreads them

    def rows(self, windows: Int64s, length: int) -> Int64s:
        """Token ids of windows, n x (length + 1)."""
        rows: Int64s = self.ids[windows[:, None] * length + np.arange(length + 1)].astype(np.int64)
        return rows

    def predicted_bytes(self, windows: Int64s, length: int) -> int:
        """Bytes of the text that the predicted tokens of windows stand for."""
        before = np.concatenate([[0], np.cumsum(self.text_bytes, dtype=np.int64)])
        firsts = windows * length + 1
        return int((before[firsts + length] - before[firsts]).sum())


def held_out(corpus: Corpus, vocabulary: Vocabulary, key: str, model: str) -> HeldOut:
    """A corpus's held-out text as a model's tokens.

    Args:
        corpus: corpus that holds it, as its own tokens.
        vocabulary: vocabulary of the model.
        key, model: option that names the model, and its value, for messages.

    Raises:
        UserError: if the corpus's tokenizer has not preserved the text, or the model's does not reproduce it.
    """
    ids, sizes, documents = [], [], 0
    for texts in _batches(texts_of(corpus)):
        for text, encoded in zip(texts, vocabulary.encode(texts), strict=True):
            _check_round_trip(vocabulary, text, encoded, f"{key}={model}")
            ids.append(_ended(encoded.ids, vocabulary.separator))
            sizes.append(_ended(encoded.text_bytes, None if vocabulary.separator is None else 0))
            documents += 1
    return HeldOut(np.concatenate(ids), np.concatenate(sizes), documents)


def texts_of(corpus: Corpus) -> Iterator[str]:
    """The held-out documents of a corpus, decoded by its tokenizer.

    The hash of its text decides whether a document is held out, so a text with a hash on the other side was not preserved.

    Raises:
        UserError: for the first text that the tokenizer has not preserved.
    """
    tokenizer = corpus.tokenizer()
    for ids in documents_of(corpus):
        text = tokenizer.decode(ids)
        if not _kept(corpus, tokenizer, text):
            raise UserError(
                f"corpus={corpus.name}: its tokenizer does not keep the text ({text[:40]!r}... is not what was "
                "prepared), so other models cannot be evaluated on it; prepare the text again with tokenizer=bytes"
            )
        yield text


def documents_of(corpus: Corpus) -> Iterator[Int64s]:
    """Token ids of each held-out document, without its separator; all as one document if there is no separator."""
    separator, rest = corpus.manifest.separator, np.array([], np.int64)
    for shard in corpus.val.shards:
        joined = np.concatenate([rest, shard.astype(np.int64)])
        *whole, rest = np.split(joined, np.flatnonzero(joined == separator) + 1) if separator is not None else [joined]
        yield from (piece[:-1] for piece in whole if len(piece) > 1)
    if len(rest):
        yield rest


def _kept(corpus: Corpus, tokenizer: Tokenizer, text: str) -> bool:
    """Whether a decoded document is one of the corpus's held-out texts."""
    if isinstance(tokenizer, BytesTokenizer):
        return True  # a byte 0 within a document only looks like its end
    if tokenizer.separator is None:
        return tokenizer.decode(tokenizer.encode_batch([text])[0]) == text
    return is_val(digest(utf8(text)), corpus.manifest.request.val_fraction)


def _check_round_trip(vocabulary: Vocabulary, text: str, encoded: Encoded, named: str) -> None:
    back = vocabulary.decode(encoded.ids.tolist())
    if back != text:
        at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
        raise UserError(
            f"{named}: its tokenizer does not give the text back ({text[at : at + 20]!r} becomes "
            f"{back[at : at + 20]!r}), so its loss is not that of this text; give another model, or a corpus of text "
            "that it keeps"
        )


def _ended(values: Ids, end: int | None) -> Ids:
    return values if end is None else np.append(values, np.uint32(end))


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
