"""A small source and a corpus prepared from it."""

from __future__ import annotations

import pytest
from list_source import ListSource, random_texts

from shapelaw.data import BytesChoice, Corpus, load_corpus, prepare


@pytest.fixture(scope="session")
def small_source() -> ListSource:
    return ListSource(random_texts(300))


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory, small_source: ListSource) -> Corpus:
    """About 80,000 bytes in shards of 1000, so that windows often cross shards."""
    folder = tmp_path_factory.mktemp("corpus")
    prepare(small_source, BytesChoice(), folder, val_fraction=0.2, shard_tokens=1000, workers=1)
    return load_corpus(folder)
