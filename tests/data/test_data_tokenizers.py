from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models

from shapelaw.data import BpeChoice, BytesChoice, FileChoice, StdlibSource, Tokenizer
from shapelaw.data.tokenizers import SEPARATOR, TOKENIZER_FILE, load_tokenizer, token_dtype
from shapelaw.errors import UserError

TRAINING = ["the cat sat on the mat, the dog sat on the cat\n", "Ärger mit Übermut: 漢字 🙂"] * 20


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return BpeChoice(300).build(TRAINING)


@given(text=st.text())
@settings(deadline=None)
def test_bytes_round_trip(text: str) -> None:
    tokenizer = BytesChoice().build([])
    (ids,) = tokenizer.encode_batch([text])
    assert bytes(ids.astype(np.uint8)) == text.encode()
    assert tokenizer.decode(ids) == text


@given(text=st.text() | st.just(f"a{SEPARATOR}b"))
@settings(deadline=None)
def test_bpe_round_trip(bpe: Tokenizer, text: str) -> None:
    (ids,) = bpe.encode_batch([text])
    assert bpe.decode(ids) == text
    assert bpe.separator not in ids.tolist()
    assert ids.dtype == np.dtype("<u2")


def test_bpe_has_the_vocabulary_asked_for_and_shortens(bpe: Tokenizer) -> None:
    assert bpe.vocab_size == 300
    (ids,) = bpe.encode_batch([TRAINING[0]])
    assert len(ids) < 0.6 * len(TRAINING[0])
    assert max(ids) < 300
    assert BpeChoice(5000).build(TRAINING).vocab_size == 5000  # more than there are pairs: the rest is padding


def test_half_a_surrogate_pair_is_replaced(bpe: Tokenizer) -> None:
    for tokenizer in (BytesChoice().build([]), bpe):
        (ids,) = tokenizer.encode_batch(["a\ud800b"])
        assert tokenizer.decode(ids) == "a\ufffdb"


def test_separator(bpe: Tokenizer) -> None:
    assert BytesChoice().build([]).separator == 0
    assert bpe.separator is not None
    assert bpe.decode([bpe.separator]) == SEPARATOR


def test_bpe_training_is_deterministic_across_processes() -> None:
    code = (
        "from shapelaw.data import BpeChoice, StdlibSource; from itertools import islice\n"
        "texts = (d.text for d in islice(StdlibSource().documents(), 100))\n"
        "print(BpeChoice(400).build(texts).identity)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"TOKENIZERS_PARALLELISM": parallel, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for parallel, threads in (("false", "1"), ("true", "4"), ("true", "3"))
    }
    assert len(found) == 1


def test_bpe_trains_on_no_more_than_the_sample() -> None:
    read: list[str] = []
    texts = (read.append(document.text) or document.text for document in StdlibSource().documents())
    BpeChoice(300, sample_bytes=10_000).build(texts)
    assert sum(map(len, read[:-1])) <= 10_000
    assert BpeChoice(300, 40).build(["a" * 40]).identity == BpeChoice(300, 40).build(["a" * 90]).identity


def test_pickle_and_save(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    loaded = load_tokenizer(tmp_path, BpeChoice(300).spec())
    assert loaded is not None
    for again in (pickle.loads(pickle.dumps(bpe)), loaded):
        assert (again.identity, again.vocab_size, again.separator) == (bpe.identity, bpe.vocab_size, bpe.separator)
        assert again.encode_batch(TRAINING[:1])[0].tolist() == bpe.encode_batch(TRAINING[:1])[0].tolist()


def test_file_with_padded_vocabulary(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    path = tmp_path / TOKENIZER_FILE
    plain, padded = (FileChoice(path, size).build([]) for size in (None, 50_304))
    assert (plain.vocab_size, padded.vocab_size) == (Library.from_file(str(path)).get_vocab_size(), 50_304)
    assert plain.identity != padded.identity
    expected = Library.from_file(str(path)).encode(TRAINING[1]).ids
    assert padded.encode_batch([TRAINING[1]])[0].tolist() == expected


def test_file_errors(bpe: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tokenizer.path=nowhere.json"):
        FileChoice(Path("nowhere.json")).spec()
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer.json cannot be read"):
        FileChoice(tmp_path / "bad.json").build([])
    bpe.save(tmp_path)
    with pytest.raises(UserError, match=r"vocab_size=100: the tokenizer has 296"):
        FileChoice(tmp_path / TOKENIZER_FILE, 100).build([])
    with pytest.raises(UserError, match=r"separator=</s>"):
        FileChoice(tmp_path / TOKENIZER_FILE, separator="</s>").build([])
    assert FileChoice(tmp_path / TOKENIZER_FILE, separator=None).build([]).separator is None


def test_ids_may_have_gaps(tmp_path: Path) -> None:
    Library(models.WordLevel({"a": 0, "b": 9}, unk_token="a")).save(str(tmp_path / "t.json"))
    assert FileChoice(tmp_path / "t.json", separator=None).build([]).vocab_size == 10


def test_small_bpe_is_refused() -> None:
    with pytest.raises(UserError, match=r"tokenizer.vocab_size=256"):
        BpeChoice(256).spec()


def test_stored_type() -> None:
    assert token_dtype(256) == token_dtype(2**16) == np.dtype("<u2")
    assert token_dtype(2**16 + 1) == np.dtype("<u4")
