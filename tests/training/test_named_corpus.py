"""A run trains on the corpus that its suite names, and on no other that lies under the same name."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapelaw.config import corpus_options
from shapelaw.config.schema import to_dataclass
from shapelaw.data import BytesChoice, TextSource, load_corpus, prepare
from shapelaw.errors import UserError
from shapelaw.planned_run import plan_run
from shapelaw.training.corpora import Library
from support import Compose


def test_another_texts_corpus_of_the_same_name_is_refused(composed: Compose, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(12):
        (texts / f"{number}.txt").write_text(f"{number} and {number**3}.\n" * 9)

    def named(*overrides: str) -> dict[str, str | None]:
        config = to_dataclass(composed(*overrides))
        return corpus_options(config.data, config.tokenizer)

    here = named(f"data.path={texts}")
    source = TextSource((str(texts),))
    prepare(source, BytesChoice(), tmp_path / "made", val_fraction=0.3, workers=1, options=here)
    corpus = load_corpus(tmp_path / "made")
    corpus.check_named(here)
    corpus.check_named(named())  # names no folder
    with pytest.raises(
        UserError, match=rf"^data\.path=/else/where: the corpus in .*made was prepared with data\.path={texts}; "
    ):
        corpus.check_named(named("data.path=/else/where"))
    with pytest.raises(UserError, match=r"^data\.source=stdlib: .* prepared with data\.source=text"):
        corpus.check_named(named("data=stdlib"))


def test_a_corpus_without_options_tells_its_kind(composed: Compose, corpora: Path) -> None:
    corpus = load_corpus(corpora / "text-bytes")
    options = {"data.source": "text", "data.path": "/any"}
    corpus.check_named(options)
    with pytest.raises(UserError, match=r"^data\.source=jsonl: "):
        corpus.check_named({**options, "data.source": "jsonl"})


def test_further_corpora_are_part_of_a_run_by_their_content(composed: Compose, corpora: Path) -> None:
    config = to_dataclass(composed("validation.further={other: text-bytes}"))
    hashes = Library().of(config).further_hashes
    assert hashes == {"other": load_corpus(corpora / "text-bytes").manifest.corpus_hash}
    one, same, other = (plan_run(config, "corpus", further={"other": each}) for each in ("a", "a", "b"))
    assert one.identity == same.identity != other.identity
    assert plan_run(config, "corpus", further=hashes).fingerprint["further_validation"] == hashes


def test_further_corpora_lie_in_the_folder_of_all(composed: Compose) -> None:
    with pytest.raises(UserError, match=r"^validation\.further\.other='/etc': allowed values are names"):
        Library().of(to_dataclass(composed("validation.further={other: /etc}")))
