from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from list_source import ListSource

from shapelaw.data import BpeChoice, Corpus, check_repeats, epochs_needed, load_corpus, prepare
from shapelaw.data.tokenizers import SEPARATOR
from shapelaw.errors import UserError


@pytest.fixture
def copied(small_corpus: Corpus, tmp_path: Path) -> Path:
    """A copy of the small corpus that a test may damage."""
    return Path(shutil.copytree(small_corpus.folder, tmp_path / "copy"))


def raw_stream(corpus: Corpus, split: str) -> np.ndarray:
    files = sorted(corpus.folder.glob(f"{split}-*.bin"))
    return np.concatenate([np.fromfile(file, dtype="<u2") for file in files])


def test_views_share_memory_with_the_map(small_corpus: Corpus) -> None:
    stream = small_corpus.train
    view = stream.view(1100, 129)
    assert np.shares_memory(view, stream.shards[1])
    assert isinstance(view.base, np.memmap) or isinstance(view.base.base, np.memmap)
    assert not view.flags.writeable
    assert not np.shares_memory(stream.view(950, 129), stream.shards[0])  # crosses into the next shard


def test_views_and_windows_are_the_stream(small_corpus: Corpus) -> None:
    for split, stream in small_corpus.streams.items():
        whole = raw_stream(small_corpus, split)
        assert stream.tokens == len(whole)
        for start, length in ((0, 10), (995, 10), (999, 2500), (len(whole) - 3, 3), (len(whole) - 1500, 1500)):
            assert stream.view(start, length).tolist() == whole[start : start + length].tolist()


@pytest.mark.parametrize("seq_len", [1, 7, 128, 1000, 2500])
def test_every_token_but_the_first_is_a_target_once(small_corpus: Corpus, seq_len: int) -> None:
    stream, whole = small_corpus.train, raw_stream(small_corpus, "train")
    windows = stream.windows(seq_len)
    rows = np.empty((windows, seq_len + 1), dtype=np.int64)
    stream.gather(np.arange(windows) * seq_len, rows)
    assert rows[:, 1:].ravel().tolist() == whole[1 : windows * seq_len + 1].tolist()
    assert rows[:, :-1].ravel().tolist() == whole[: windows * seq_len].tolist()
    assert len(whole) - 1 - windows * seq_len < seq_len


def test_windows_of_a_stream_that_just_fits(small_corpus: Corpus) -> None:
    tokens = small_corpus.val.tokens
    assert small_corpus.val.windows(tokens) == 0
    assert small_corpus.val.windows(tokens - 1) == 1


def test_locate(small_corpus: Corpus) -> None:
    shard, offset = small_corpus.train.locate(np.array([0, 999, 1000, 2345]))
    assert shard.tolist() == [0, 0, 1, 2]
    assert offset.tolist() == [0, 999, 0, 345]


def test_pickle_names_files_and_holds_no_tokens(small_corpus: Corpus) -> None:
    stream = small_corpus.train
    assert stream.shards
    data = pickle.dumps(stream)
    assert len(data) < stream.tokens
    assert pickle.loads(data).view(10, 20).tolist() == stream.view(10, 20).tolist()


def test_tokenizer_comes_with_the_corpus(small_corpus: Corpus, small_source: ListSource, tmp_path: Path) -> None:
    decoded = small_corpus.tokenizer().decode(small_corpus.train.view(0, 3000)).split("\0")[:-1]
    assert len(decoded) > 3
    assert set(decoded) <= set(small_source.texts)
    prepare(small_source, BpeChoice(280), tmp_path, val_fraction=0.2, workers=1)
    trained = load_corpus(tmp_path)
    assert set(trained.tokenizer().decode(trained.val.view(0, 3000)).split(SEPARATOR)[:-1]) <= set(small_source.texts)
    BpeChoice(270).build(small_source.texts).save(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer.json is missing or was changed"):
        trained.tokenizer()


def test_missing_corpus_says_what_to_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"corpus folder .*no prepared corpus; run: shapelaw prepare"):
            load_corpus(folder)


def test_cut_short_and_missing_shards_are_named(copied: Path) -> None:
    shard = copied / "train-00002.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"train-00002.bin holds 1998 bytes, the manifest says 2000"):
        load_corpus(copied)
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00002.bin is missing"):
        load_corpus(copied)


def test_changed_shard_is_seen_on_request(copied: Path) -> None:
    load_corpus(copied, verify_hashes=True)
    shard = copied / "val-00000.bin"
    shard.write_bytes(b"\1" + shard.read_bytes()[1:])
    load_corpus(copied)
    with pytest.raises(UserError, match=r"val-00000.bin was changed"):
        load_corpus(copied, verify_hashes=True)


def test_manifest_of_another_version_or_damaged(copied: Path) -> None:
    path = copied / "manifest.json"
    fields = json.loads(path.read_text())
    unsealed = {key: value for key, value in fields.items() if key != "seal"}
    splits = fields["splits"]
    astray = {**splits["val"], "shards": [{**splits["val"]["shards"][0], "file": "../../elsewhere.bin"}]}
    for changed, message in (
        ({**fields, "version": 99}, "has version 99"),
        ({**fields, "text_bytes": fields["text_bytes"] + 1}, "was changed after it was written"),
        ({**unsealed, "splits": {**splits, "val": astray}}, "shard 0 of val is called '../../elsewhere.bin'"),
        ({**unsealed, "splits": {**splits, "val": {**splits["val"], "tokens": 1}}}, "do not sum to its tokens"),
        ({**unsealed, "dtype": "<u8"}, "dtype '<u8'"),
        ({**unsealed, "tokenizer": "another"}, "corpus_hash is not that of its content"),
        ({**unsealed, "unknown": 1}, "is damaged"),
        ({key: value for key, value in unsealed.items() if key != "splits"}, "is damaged"),
        ([1], "is damaged"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match=message):
            load_corpus(copied)
    path.write_text('{"version": 1, "spl')
    with pytest.raises(UserError, match=r"manifest.json"):
        load_corpus(copied)


def test_vocabulary_must_match(small_corpus: Corpus) -> None:
    small_corpus.check_vocab(256)
    with pytest.raises(UserError, match=r"vocab_size=512: .* vocabulary 256 \(tokenizer bytes\); set vocab_size=256"):
        small_corpus.check_vocab(512)


def test_repeats(small_corpus: Corpus) -> None:
    usable = small_corpus.train.windows(128) * 128
    assert epochs_needed(small_corpus, 128, 3 * usable) == 3.0
    assert check_repeats(small_corpus, 128, 3 * usable, max_epochs=3) == 3.0
    with pytest.raises(UserError, match=rf"{usable:,} training tokens.* 3\.00 times; .*data\.max_epochs=2\.5"):
        check_repeats(small_corpus, 128, 3 * usable, max_epochs=2.5)
    with pytest.raises(UserError, match="seq_len=100000000"):
        epochs_needed(small_corpus, 10**8, 1)
