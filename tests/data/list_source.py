"""A source made in memory, importable by test scripts too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shapelaw.data.documents import Document


@dataclass(frozen=True)
class ListSource:
    """The texts it is given."""

    texts: tuple[str, ...]

    def spec(self) -> dict[str, Any]:
        return {"kind": "list", "texts": len(self.texts)}

    def documents(self) -> Iterator[Document]:
        for number, text in enumerate(self.texts):
            yield Document(str(number), text)

    def text_bytes(self) -> int | None:
        return None


def random_texts(count: int, seed: int = 0) -> tuple[str, ...]:
    """Texts of 0 to 400 characters, some of them outside ASCII, some of them twice."""
    generator = np.random.default_rng(seed)
    letters = np.array(list("abcdefgh \n\tÄß漢🙂"))
    texts = ["".join(generator.choice(letters, size=generator.integers(0, 400))) for _ in range(count)]
    return tuple(texts[: count - count // 10] + texts[: count // 10])
