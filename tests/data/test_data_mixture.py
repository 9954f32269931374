"""Corpora of several sources by weights: the order, what each source has become, and its own held-out part."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shapelaw.data import BpeChoice, BytesChoice, TextSource, load_corpus, prepare, validation
from shapelaw.data.corpus import Corpus
from shapelaw.data.manifest import Manifest
from shapelaw.data.mixture import MixtureSource
from shapelaw.errors import UserError
from shapelaw.planned_run import PlannedRun
from shapelaw.tracking.journal import records
from support import Compose, Door, train

WEIGHTS = {"code": 1.0, "prose": 3.0}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Two folders of texts that tell their source, of unlike sizes."""
    for name, size in (("code", 7), ("prose", 23)):
        (tmp_path / "texts" / name).mkdir(parents=True)
        for n in range(60):
            (tmp_path / "texts" / name / f"{n:02d}.txt").write_text(f"{name} {n * 7919} " * (size + n % 5))
    return tmp_path / "texts"


def mixture(texts: Path, weights: dict[str, float] | None = None) -> MixtureSource:
    return MixtureSource({name: TextSource((str(texts / name),)) for name in WEIGHTS}, weights or WEIGHTS)


def prepared(source: MixtureSource, folder: Path, **options: Any) -> Corpus:
    prepare(source, BytesChoice(), folder, val_fraction=0.2, workers=1, **{"batch_bytes": 500, **options})
    return load_corpus(folder, verify_hashes=True)


def documents(stream: Any) -> list[str]:
    joined = np.concatenate([np.asarray(shard) for shard in stream.shards]).astype(np.uint8).tobytes()
    return [piece.decode() for piece in joined.split(b"\0") if piece]


def test_the_text_follows_the_weights_at_every_length(texts: Path) -> None:
    """To one document of either source, whatever their sizes; the order is the same every time."""
    source = mixture(texts)
    order = [*source.documents()]
    assert order == [*source.documents()]
    given, largest = dict.fromkeys(WEIGHTS, 0), max(len(one.text) for one in order)
    for one in order:
        given[one.source] += len(one.text)
        assert abs(given["code"] * 3 - given["prose"]) <= 3 * largest
    for name in WEIGHTS:
        own = [one.text for one in order if one.source == name]
        assert own == [one.text for one in TextSource((str(texts / name),)).documents()][: len(own)]
    assert sum(one.source == "prose" for one in order) == 60  # which is due when it has no more


def test_what_each_source_gave_is_counted_and_its_held_out_documents_lie_apart(texts: Path, tmp_path: Path) -> None:
    corpus = prepared(mixture(texts), tmp_path / "mix", shard_tokens=1024)
    sides = {"train": documents(corpus.train), "val": documents(corpus.val)}
    for name, count in corpus.manifest.sources.items():
        own = {side: [text for text in found if text.startswith(name)] for side, found in sides.items()}
        assert count.documents == len(own["train"]) + len(own["val"])
        assert count.text_bytes == sum(map(len, [*own["train"], *own["val"]]))
        assert count.train_tokens == sum(len(text) + 1 for text in own["train"])
        assert count.val_tokens == sum(len(text) + 1 for text in own["val"])
        part = corpus.of_source(name)
        assert documents(part.val) == own["val"] != []
        assert documents(part.train) == sides["train"]
        assert part.hash not in (corpus.hash, corpus.manifest.corpus_hash)
        assert validation(part, 16, 64).tokens == 64
    assert [*corpus.manifest.sources] == [*WEIGHTS]


def test_an_interrupted_mixture_becomes_the_same(texts: Path, tmp_path: Path) -> None:
    whole = prepared(mixture(texts), tmp_path / "whole", shard_tokens=1024).manifest
    for stop in (1, 4, 9):
        calls = []

        def interrupt(status: Any, stop: int = stop, calls: list[Any] = calls) -> None:
            calls.append(status)
            if len(calls) == stop:
                raise KeyboardInterrupt

        folder = tmp_path / f"cut{stop}"
        with pytest.raises(KeyboardInterrupt):
            prepared(mixture(texts), folder, shard_tokens=1024, progress=interrupt, checkpoint_seconds=0.0)
        assert prepared(mixture(texts), folder, shard_tokens=1024).manifest == whole
    assert len(whole.splits["val-prose"].shards) > 1


def test_it_is_the_same_whatever_the_batches_and_another_by_other_weights(texts: Path, tmp_path: Path) -> None:
    whole = prepared(mixture(texts), tmp_path / "small").manifest
    assert prepared(mixture(texts), tmp_path / "large", batch_bytes=2**20).manifest == whole
    other = prepared(mixture(texts, {"code": 1.0, "prose": 2.0}), tmp_path / "other").manifest
    assert other.corpus_hash != whole.corpus_hash
    with pytest.raises(UserError, match=r"source.sources.prose.weight=2.0 \(there: 3.0\)"):
        prepared(mixture(texts, {"code": 1.0, "prose": 2.0}), tmp_path / "small")


def test_tokens_of_words_are_counted_too(texts: Path, tmp_path: Path) -> None:
    manifest = prepare(mixture(texts), BpeChoice(vocab_size=300), tmp_path / "bpe", val_fraction=0.2, workers=1)
    for side in ("train", "val"):
        assert sum(getattr(one, f"{side}_tokens") for one in manifest.sources.values()) == manifest.splits[side].tokens
    assert sum(manifest.splits[f"val-{name}"].tokens for name in WEIGHTS) == manifest.splits["val"].tokens


def losses(planned: PlannedRun) -> dict[str, float]:
    """The last of each held-out loss."""
    return {
        key: value
        for record, _ in records(planned.folder / "tracking.jsonl")
        for key, value in record.get("values", {}).items()
        if record["kind"] == "metrics" and key.startswith("val/")
    }


def test_a_run_measures_every_source_and_evaluate_does(
    composed: Compose, texts: Path, tmp_path: Path, door: Door, outputs: Path
) -> None:
    """The loss of the whole held-out part lies between those of its sources, each on all of its tokens."""
    prepared(mixture(texts), tmp_path / "corpora" / "mix-bytes")
    where = (f"data_dir={tmp_path}/corpora", "data.name=mix")
    further = "validation.further={code: mix-bytes@code, prose: mix-bytes@prose}"
    planned = train(composed, *where, further, "validation.tokens=1e6")
    found = losses(planned)
    assert min(found["val/code/loss"], found["val/prose/loss"]) < found["val/loss"] < max(found.values())
    code, said = door("evaluate", f"model={planned.folder}", where[0], "corpus=mix-bytes@code", "tracker=none")
    assert (code, f"step-20: {found['val/code/loss']:.5f}" in said) == (0, True), (said, found)
    assert (outputs / "evaluations" / "mix-bytes@code" / "models.csv").exists()
    code, said = door("evaluate", f"model={planned.folder}", where[0], "corpus=mix-bytes@maths", "tracker=none")
    assert (code, "mix-bytes@maths: the corpus has no such source; its sources are code, prose" in said) == (2, True)


def write_dolma(folder: Path) -> None:
    """Files as Dolma names them: SOURCE-NUMBER.json.gz, all in one folder."""
    folder.mkdir()
    for name in ("books", "cc_en_head"):
        for shard in range(2):
            rows = [{"id": f"{name}-{n}", "text": f"{name} {shard} {n * 31} " * 9, "source": name} for n in range(20)]
            with gzip.open(folder / f"{name}-{shard:04d}.json.gz", "wt") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))


def test_dolma_s_folder_is_read_as_it_is(door: Door, outputs: Path, tmp_path: Path) -> None:
    write_dolma(tmp_path / "dolma")
    asked = (
        "data=dolma",
        f"data.path={tmp_path}/dolma",
        "data.val_fraction=0.2",
        "workers=1",
        f"data_dir={tmp_path}/out",
    )
    weights = "data.weights={books: 1, cc_en_head: 3}"
    code, said = door("prepare", *asked, weights)
    assert code == 0, said
    manifest: Manifest = load_corpus(tmp_path / "out" / "dolma-bytes").manifest
    share = manifest.sources["books"].text_bytes / manifest.text_bytes
    assert share == pytest.approx(0.25, abs=0.03)
    assert f"  books: {100 * share:.1f}% of the text, {manifest.sources['books'].train_tokens:,} training and " in said
    listed = f"data.path=[{tmp_path}/dolma/books-*.json.gz,{tmp_path}/dolma/cc_en_head-0000.json.gz]"
    code, said = door("prepare", *asked[:1], listed, *asked[2:], "data.name=both")
    assert code == 0, said
    both = load_corpus(tmp_path / "out" / "both-bytes").manifest
    assert (both.documents, both.sources, set(both.splits)) == (60, {}, {"train", "val"})


def test_weights_that_say_nothing_are_refused(door: Door, tmp_path: Path, texts: Path) -> None:
    listed = f"data.path=[{texts}/code,{texts}/prose]"
    cases = {
        ("data=stdlib", "data.weights={a: 1, b: 2}"): "data.weights: data.source=stdlib has one source",
        ("data=text", listed, "data.weights={code: 1}"): "one source needs no weight",
        (
            "data=text",
            listed,
            "data.weights={code: 1, prose: 0}",
        ): "data.weights.prose=0: allowed values are finite numbers above 0",
        ("data=text", listed, "data.weights={code: 1, b: 2}"): "names code, b, and data.path lists code, prose",
        ("data=text", listed, "data.weights={code: 1, a b: 2}"): "'a b' cannot name a source",
        (
            "data=text",
            f"data.path={texts}",
            "data.weights={code: 1, maths: 2}",
        ): f"data.path={texts}/maths-*: matches no file",
        ("data=text", "data.path=[]"): "data.path=[]: allowed values are a path, or a list of paths",
        ("data=text", "data.path=[1]"): "data.path=[1]: allowed values are a path",
    }
    for words, expected in cases.items():
        code, said = door("prepare", *words, f"data_dir={tmp_path}/out", "workers=1")
        assert (code, len(said.splitlines()), expected in said) == (2, 1, True), (words, said)
    assert not (tmp_path / "out").exists()


def test_a_source_s_name_leads_nowhere_else(texts: Path, tmp_path: Path) -> None:
    """Of a manifest from elsewhere, without a seal."""
    prepared(mixture(texts), tmp_path / "mix")
    file = tmp_path / "mix" / "manifest.json"
    content = json.loads(file.read_text())
    del content["seal"]
    named = json.dumps(content).replace('"prose"', '"../prose"').replace("val-prose", "val-../prose")
    file.write_text(named)
    with pytest.raises(UserError, match=r"a split is called 'val-\.\./prose'"):
        load_corpus(tmp_path / "mix")
