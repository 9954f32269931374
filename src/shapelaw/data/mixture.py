"""Several weighted sources as one source, with the amount of text taken from each.

At every point, the next document comes from the source that has given the least text for its weight. So the shares of text
follow the weights at every length, to about a document, and the order depends on nothing but sources and weights. The mixture
ends when the source that is due has no more documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.data.documents import SPLITS, VAL, Document, utf8
from shapelaw.data.encode import EncodedBatch
from shapelaw.data.manifest import SourceCount, held_out_split
from shapelaw.data.sources import Counted, Source


@dataclass(frozen=True)
class MixtureSource(Counted):
    """Several sources by weights.

    Args:
        sources: name -> source.
        weights: name -> share of the text, relative to the sum of all; their order decides between sources that are equally
            due.

    >>> from shapelaw.data.sources import TextSource
    >>> MixtureSource({"a": TextSource(("a.txt",)), "b": TextSource(("b.txt",))}, {"a": 3, "b": 1}).names
    ('a', 'b')
    """

    sources: Mapping[str, Source]
    weights: Mapping[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources."""
        return tuple(self.weights)

    def spec(self) -> dict[str, Any]:
        """Kind, and of every source its weight and spec."""
        each = {name: {"weight": float(self.weights[name]), **self.sources[name].spec()} for name in self.names}
        return {"kind": "mixture", "sources": each}

    def entries(self) -> Iterator[Document]:
        """Documents of all sources, each with the name of its source."""
        reading = {name: iter(_entries(self.sources[name])) for name in self.names}
        given = dict.fromkeys(self.names, 0)
        while True:
            due = min(self.names, key=lambda name: given[name] / self.weights[name])
            entry = next(reading[due], None)
            if entry is None:
                return
            given[due] += len(utf8(entry.text))
            yield replace(entry, source=due)

    def text_bytes(self) -> int | None:
        """Unknown: only reading shows where the mixture ends."""
        return None


def _entries(source: Source) -> Iterator[Document]:
    return source.entries() if isinstance(source, Counted) else source.documents()


@dataclass
class Shares:
    """The amounts from each source of a mixture; empty for a source that is not a mixture.

    Args:
        names: names of the sources.
        pending: sources of the documents that workers still have, in order.
    """

    names: tuple[str, ...] = ()
    pending: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source) -> Shares:
        """Of a source."""
        return cls(source.names) if isinstance(source, MixtureSource) else cls()

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits to write: those of every corpus, and the held-out part of each source."""
        return (*SPLITS, *map(held_out_split, self.names))

    def give(self, document: Document) -> Document:
        """Record a document that goes to a worker."""
        if self.names:
            self.pending.append(document.source)
        return document

    def take(self, batch: EncodedBatch) -> tuple[EncodedBatch, list[str]]:
        """A batch that has come back, with the held-out parts of its sources, and the source of each of its documents."""
        if not self.names:
            return batch, []
        sources = self.pending[: len(batch.sides)]
        del self.pending[: len(batch.sides)]
        held = self._held_out(batch, sources)
        tokens = {split: np.concatenate([batch.tokens[VAL][:0], *pieces]) for split, pieces in held.items()}
        documents = {split: len(pieces) for split, pieces in held.items()}
        return replace(batch, tokens={**batch.tokens, **tokens}, documents={**batch.documents, **documents}), sources

    def _held_out(self, batch: EncodedBatch, sources: Sequence[str]) -> dict[str, list[NDArray[Any]]]:
        """Split of each source -> tokens of its held-out documents."""
        held: dict[str, list[NDArray[Any]]] = {held_out_split(name): [] for name in self.names}
        start = 0
        for source, side, size in zip(sources, batch.sides, batch.sizes, strict=True):
            if side == VAL:
                held[held_out_split(source)].append(batch.tokens[VAL][start : start + size])
                start += size
        return held


def counted(counts: Mapping[str, SourceCount], batch: EncodedBatch, sources: Sequence[str]) -> dict[str, SourceCount]:
    """Counts of every source after a batch."""
    found = dict(counts)
    for source, side, size, text_bytes in zip(
        sources, batch.sides, batch.sizes, batch.text_sizes, strict=bool(sources)
    ):
        was = found.get(source, SourceCount())
        held = size if side == VAL else 0
        found[source] = SourceCount(
            was.documents + 1, was.text_bytes + text_bytes, was.train_tokens + size - held, was.val_tokens + held
        )
    return found
