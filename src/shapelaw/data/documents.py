"""Documents, of which a corpus consists: how they are hashed, and on which side of the split each one falls.

The content of a document alone decides the split. So two documents with the same text always fall on the same side,
whatever their names and places, and however many workers read them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shapelaw.config import DataConfig
from shapelaw.config.option import check_option

TRAIN = "train"
VAL = "val"
SPLITS = (TRAIN, VAL)

EMPTY_CONTENT = hashlib.sha256(b"").digest()
"""Content hash of no documents at all."""

_HASH_RANGE = 2**64


@dataclass(frozen=True, slots=True)
class Document:
    """One text.

    Args:
        id: name of the document in its source, for messages only.
        text: the text.
        missing: why there is no document here, such as `null`; it is counted and skipped.
        source: name of its source, in a mixture of several.
    """

    id: str
    text: str
    missing: str = ""
    source: str = ""


def utf8(text: str) -> bytes:
    """The text as UTF-8; halves of surrogate pairs (JSON may hold them alone) become U+FFFD."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode("utf-8")


def digest(data: bytes) -> bytes:
    """SHA-256 of a document's UTF-8 text: 32 bytes."""
    return hashlib.sha256(data).digest()


def chain(content: bytes, digests: Iterable[bytes]) -> bytes:
    """Content hash after more documents: c_n = sha256(c_{n-1} + digest_n), from `EMPTY_CONTENT`.

    It is a chain rather than one running hash, because its state can be stored and continued.
    """
    for one in digests:
        content = hashlib.sha256(content + one).digest()
    return content


def is_val(document_digest: bytes, val_fraction: float) -> bool:
    """Whether a document is held out: its digest's first 64 bits (little endian) / 2^64 < val_fraction."""
    return int.from_bytes(document_digest[:8], "little") < val_fraction * _HASH_RANGE


def split_rule(val_fraction: float) -> str:
    """The split rule in words, part of the corpus hash."""
    return f"val if the first 64 bits (little endian) of sha256(text) / 2^64 < {val_fraction!r}, else train"


def check_val_fraction(val_fraction: float) -> None:
    """Raises UserError unless 0 < val_fraction < 1."""
    check_option(DataConfig, "val_fraction", val_fraction, "data.val_fraction")


def batched(documents: Iterable[Document], batch_bytes: int) -> Iterator[list[str]]:
    """Texts of consecutive documents in lists of about `batch_bytes` characters, without empty documents."""
    batch: list[str] = []
    held = 0
    for document in documents:
        if not document.text:
            continue
        batch.append(document.text)
        held += len(document.text)
        if held >= batch_bytes:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
