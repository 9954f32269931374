"""Texts as token ids, each with the number of bytes of text that it stands for, for any tokenizer.

Token i of a text gets the UTF-8 bytes from the end of the previous token to its own end. So the bytes of a text's tokens add
up to those of the text, even if a token holds part of a letter, or a token's position omits spaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from shapelaw.data import Tokenizer
from shapelaw.data.documents import utf8
from shapelaw.data.tokenizers import BytesTokenizer, JsonTokenizer

Ids = NDArray[np.uint32]
Counts = NDArray[np.uint32]


class Encoded(NamedTuple):
    """Token ids, and the bytes of text that each stands for (shape n)."""

    ids: Ids
    text_bytes: Counts


class Vocabulary(Protocol):
    """A tokenizer, as evaluation uses it."""

    @property
    def separator(self) -> int | None:
        """Id that follows every document, or None."""

    @property
    def identity(self) -> str:
        """Hash of everything that decides the ids of a text."""

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Ids of each text, without separators."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""


@dataclass(frozen=True)
class ByteVocabulary:
    """UTF-8 bytes, each a token; byte 0 follows a document."""

    separator: int | None = 0
    identity: str = "bytes"

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Every byte stands for itself."""
        each = [np.frombuffer(utf8(text), np.uint8).astype(np.uint32) for text in texts]
        return [Encoded(ids, np.ones_like(ids)) for ids in each]

    def decode(self, ids: Sequence[int]) -> str:
        """The text; bytes that are not UTF-8 become U+FFFD."""
        return BytesTokenizer().decode(np.asarray(ids))


@dataclass(frozen=True)
class LibraryVocabulary:
    """A tokenizer of the tokenizers library.

    Args:
        library: the tokenizer, without padding and truncation.
        separator: id that follows every document, or None.
    """

    library: Any = field(repr=False)
    separator: int | None

    @property
    def identity(self) -> str:
        """Hash of its definition and separator."""
        return hashlib.sha256(f"{self.separator} {self.library.to_str()}".encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Ids of each text; special tokens that appear in it as plain characters stay plain."""
        made = self.library.encode_batch(list(texts), add_special_tokens=False)
        return [
            Encoded(np.array(one.ids, np.uint32), _bytes_of(text, one.offsets))
            for text, one in zip(texts, made, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text."""
        text: str = self.library.decode(list(ids), skip_special_tokens=False)
        return text


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """A corpus's tokenizer.

    >>> text = vocabulary_of(BytesTokenizer()).encode(["é!"])[0]
    >>> text.ids.tolist(), text.text_bytes.tolist()
    ([195, 169, 33], [1, 1, 1])
    """
    if isinstance(tokenizer, JsonTokenizer):
        return LibraryVocabulary(tokenizer.library, tokenizer.separator)
    return ByteVocabulary()


def _bytes_of(text: str, offsets: Sequence[tuple[int, int]]) -> Counts:
    """UTF-8 bytes of each token, from the characters [start, end) that it covers according to the library."""
    if not offsets:
        return np.array([], np.uint32)
    ends = np.maximum.accumulate(np.array(offsets, dtype=np.int64)[:, 1])
    ends[-1] = len(text)
    before = np.zeros(len(text) + 1, np.int64)  # bytes of the characters before each
    before[1:] = np.cumsum(_character_bytes(text))
    return np.diff(before[ends], prepend=0).astype(np.uint32)


def _character_bytes(text: str) -> NDArray[np.int64]:
    """UTF-8 bytes of each character: 1 below U+0080, 2 below U+0800, 3 below U+10000, else 4."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return np.searchsorted([0x80, 0x800, 0x10000], points, side="right").astype(np.int64) + 1
