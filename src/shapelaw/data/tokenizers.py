"""Tokenizers: text to token ids and back.

A choice (`BytesChoice`, `BpeChoice`, `FileChoice`) says which tokenizer is wanted; `build` makes it, given texts to
train on. Every document is followed by one separator token in the shards; `encode_batch` itself adds nothing, so
decode(encode(text)) == text for bytes and byte-level BPE.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shapelaw.data.documents import utf8
from shapelaw.errors import Damaged, UserError
from shapelaw.files import write_text

Tokens = NDArray[np.uint16] | NDArray[np.uint32]

SEPARATOR = "<|endoftext|>"
"""Token that follows every document, with the name that GPT-2 and GPT-NeoX use."""
TOKENIZER_FILE = "tokenizer.json"
"""Name of the tokenizer's file in a prepared folder."""
_BYTES = 256
_UINT16_VOCABULARY = 2**16


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Type of stored tokens, little endian: uint16 when every id below vocab_size fits, else uint32."""
    return np.dtype("<u2" if vocab_size <= _UINT16_VOCABULARY else "<u4")


class Tokenizer(Protocol):
    """A built tokenizer; it can be pickled."""

    @property
    def vocab_size(self) -> int:
        """The model's vocabulary, including padding; ids lie below this number."""

    @property
    def separator(self) -> int | None:
        """Id that follows every document in the shards, or None."""

    @property
    def identity(self) -> str:
        """Hash of everything that decides the ids of a text."""

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids of each text, of type `token_dtype(vocab_size)`, without separators."""

    def decode(self, ids: ArrayLike) -> str:
        """The text of ids; separators appear as their text."""

    def save(self, folder: Path) -> None:
        """Write the files that `load_tokenizer` needs into the folder."""


class TokenizerChoice(Protocol):
    """The choice of a tokenizer."""

    def spec(self) -> dict[str, Any]:
        """JSON values that identify the choice.

        Raises:
            UserError: if it cannot be met.
        """

    def build(self, texts: Iterable[str]) -> Tokenizer:
        """The tokenizer; only one that must be trained reads the texts (of the training split)."""


@dataclass(frozen=True)
class BytesTokenizer:
    """UTF-8 bytes as tokens: vocabulary 256, byte 0 as separator.

    In practice, no text holds byte 0; if one does, the byte is kept, and only looks like the end of a document.
    """

    @property
    def vocab_size(self) -> int:
        """256."""
        return _BYTES

    @property
    def separator(self) -> int | None:
        """Byte 0."""
        return 0

    @property
    def identity(self) -> str:
        """Fixed."""
        return _hash({"kind": "bytes", "separator": self.separator})

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Bytes of each text."""
        return [np.frombuffer(utf8(text), dtype=np.uint8).astype("<u2") for text in texts]

    def decode(self, ids: ArrayLike) -> str:
        """The text; bytes that are not UTF-8 (a cut character) become U+FFFD."""
        return bytes(np.asarray(ids).astype(np.uint8)).decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        """Nothing to write."""


@dataclass(frozen=True)
class JsonTokenizer:
    """A tokenizer of the `tokenizers` library, given as the text of its tokenizer.json.

    Special tokens that appear in a text as plain characters are encoded as plain characters.

    Args:
        definition: text of tokenizer.json.
        separator_token: token that follows every document, or None for none.
        padded_size: vocabulary to report, at least the real one; None for the real one.

    Raises:
        UserError: if the definition cannot be read, lacks the token, or is larger than padded_size.
    """

    definition: str = field(repr=False)
    separator_token: str | None = SEPARATOR
    padded_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tokenizer", _load_definition(self.definition))
        size, token = self.real_size, self.separator_token
        if self.padded_size is not None and self.padded_size < size:
            raise UserError(
                f"tokenizer.vocab_size={self.padded_size}: the tokenizer has {size} tokens; "
                f"allowed values are whole numbers from {size}"
            )
        if token is not None and self.separator is None:
            raise UserError(
                f"tokenizer.separator={token}: there is no such token among the tokenizer's {size}; give one that ends "
                "a document, or null"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonTokenizer, (self.definition, self.separator_token, self.padded_size)

    @property
    def library(self) -> Any:
        """The library's own object, without padding and truncation."""
        return getattr(self, "_tokenizer")  # noqa: B009  (set past the frozen dataclass)

    @property
    def real_size(self) -> int:
        """Number of tokens without padding: one more than the largest id."""
        return 1 + max(self.library.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def vocab_size(self) -> int:
        """Padded vocabulary."""
        return self.padded_size if self.padded_size is not None else self.real_size

    @property
    def separator(self) -> int | None:
        """Id of separator_token."""
        found: int | None = None if self.separator_token is None else self.library.token_to_id(self.separator_token)
        return found

    @property
    def identity(self) -> str:
        """Hash of definition, separator and vocabulary."""
        parts = {"definition": json.loads(self.definition), "separator": self.separator, "vocab_size": self.vocab_size}
        return _hash(parts)

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """Ids of each text."""
        encodings = self.library.encode_batch_fast([_clean(text) for text in texts], add_special_tokens=False)
        dtype = token_dtype(self.vocab_size)
        return [np.array(encoding.ids, dtype=dtype) for encoding in encodings]

    def decode(self, ids: ArrayLike) -> str:
        """The text, including special tokens."""
        text: str = self.library.decode(np.asarray(ids).tolist(), skip_special_tokens=False)
        return text

    def save(self, folder: Path) -> None:
        """Write tokenizer.json."""
        write_text(folder / TOKENIZER_FILE, self.definition)


@dataclass(frozen=True)
class BytesChoice:
    """UTF-8 bytes."""

    def spec(self) -> dict[str, Any]:
        """Kind."""
        return {"kind": "bytes"}

    def build(self, texts: Iterable[str]) -> Tokenizer:
        """The byte tokenizer."""
        return BytesTokenizer()


@dataclass(frozen=True)
class BpeChoice:
    """Byte-level byte-pair encoding trained on the corpus's training split.

    Args:
        vocab_size: vocabulary, including the 256 bytes and the separator.
        sample_bytes: amount of text to train on, from the start of the corpus; bounds time and memory.
    """

    vocab_size: int
    sample_bytes: int = 2**28

    def spec(self) -> dict[str, Any]:
        """Kind and settings."""
        if self.vocab_size <= _BYTES:
            raise UserError(
                f"tokenizer.vocab_size={self.vocab_size}: byte-pair encoding starts from 256 bytes and a separator; "
                f"allowed values are whole numbers from {_BYTES + 1}, or choose tokenizer=bytes"
            )
        return {"kind": "bpe", "vocab_size": self.vocab_size, "sample_bytes": self.sample_bytes}

    def build(self, texts: Iterable[str]) -> Tokenizer:
        """Train it. The same texts give the same tokenizer, with any number of threads."""
        from tokenizers import Tokenizer as Library
        from tokenizers import decoders, models, pre_tokenizers, trainers

        library = Library(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[SEPARATOR],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        library.train_from_iterator(_first_bytes(map(_clean, texts), self.sample_bytes), trainer)
        return JsonTokenizer(library.to_str(), SEPARATOR, self.vocab_size)


@dataclass(frozen=True)
class FileChoice:
    """Any tokenizer.json, such as GPT-NeoX's.

    Args:
        path: the file.
        vocab_size: padded vocabulary (GPT-NeoX: 50,277 tokens padded to 50,304), or None for the file's own.
        separator: token that follows every document, or None for none.
    """

    path: Path
    vocab_size: int | None = None
    separator: str | None = SEPARATOR

    def _definition(self) -> str:
        try:
            return self.path.expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"tokenizer.path={self.path}: cannot be read ({error}); give the path of a tokenizer.json"
            ) from error

    def spec(self) -> dict[str, Any]:
        """Kind, hash of the file, settings."""
        identity = hashlib.sha256(self._definition().encode()).hexdigest()
        return {"kind": "file", "sha256": identity, "vocab_size": self.vocab_size, "separator": self.separator}

    def build(self, texts: Iterable[str]) -> Tokenizer:
        """Read it."""
        return JsonTokenizer(self._definition(), self.separator, self.vocab_size)


def load_tokenizer(folder: Path, spec: dict[str, Any]) -> Tokenizer | None:
    """The tokenizer that `save` wrote into a prepared folder, or None if there is none yet.

    Args:
        folder: prepared folder.
        spec: spec of the choice it was built from.

    Raises:
        Damaged: if the file is not a tokenizer.
    """
    if spec["kind"] == "bytes":
        return BytesTokenizer()
    path = folder / TOKENIZER_FILE
    if not path.exists():
        return None
    try:
        return JsonTokenizer(path.read_text(encoding="utf-8"), spec.get("separator", SEPARATOR), spec["vocab_size"])
    except (UnicodeDecodeError, UserError) as error:
        raise Damaged(
            f"{path} was changed after it was written ({error}); remove the folder and prepare again"
        ) from error


def _load_definition(definition: str) -> Any:
    from tokenizers import Tokenizer as Library

    try:
        library = Library.from_str(definition)
    except Exception as error:  # the library raises plain Exception
        raise UserError(f"tokenizer.json cannot be read ({error}); give a file of the tokenizers library") from error
    library.no_padding()
    library.no_truncation()
    library.encode_special_tokens = True
    return library


def _clean(text: str) -> str:
    return utf8(text).decode("utf-8")


def _first_bytes(texts: Iterable[str], size: int) -> Iterator[str]:
    """Texts with `size` characters in total, the last one cut."""
    for text in texts:
        yield text[:size]
        size -= len(text)
        if size <= 0:
            return


def _hash(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
