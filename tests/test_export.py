"""Exported folders are read by transformers' own loaders and give the model's logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from shapelaw.config import TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.data import BpeChoice, TextSource, load_corpus, prepare
from shapelaw.data.tokenizers import BytesTokenizer
from shapelaw.errors import UserError
from shapelaw.export.folder import export
from shapelaw.model.transformer import ModelSpec, Transformer
from shapelaw.planned_run import PlannedRun, checkpoint_path, checkpoint_steps, corpus_folder, plan_run
from shapelaw.training.checkpoint import load_weights
from support import Compose, Program, train_run

TEXT = "def f(x):\n\treturn 'é 漢字 🙂 Ā'  # 1 < 2\n"


def trained(composed: Compose, *overrides: str) -> PlannedRun:
    config: TrainConfig = to_dataclass(composed("accelerator=cpu", *overrides))
    planned = plan_run(config, load_corpus(corpus_folder(config)).manifest.corpus_hash)
    train_run(config, planned)
    return planned


def assert_same_logits(planned: PlannedRun, checkpoint: Path, theirs: Any) -> None:
    ours = Transformer(ModelSpec(planned.shape, planned.vocab_size, planned.seq_len))
    ours.load_state_dict(load_weights(checkpoint))
    tokens = torch.randint(planned.vocab_size, (3, planned.seq_len), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=1e-5, atol=1e-5)


def test_a_run_of_bytes_is_loaded_with_the_same_logits(composed: Compose, opened: Program, tmp_path: Path) -> None:
    planned = trained(composed)
    done = opened("export", f"run={planned.folder}", f"out={tmp_path / 'out'}")
    assert (done.returncode, done.stderr) == (0, "")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_same_logits(planned, checkpoint_path(planned.folder, planned.last_step), model)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    every_character = "".join(map(chr, [*range(1, 0x250), 0x2028, 0xFFFD, 0x1F642]))
    for text in (TEXT, every_character):
        ids = tokenizer(text)["input_ids"]
        assert ids == BytesTokenizer().encode_batch([text])[0].tolist()
        assert tokenizer.decode(ids) == text
    assert (tokenizer.eos_token_id, len(tokenizer)) == (0, 256)


def test_a_checkpoint_in_the_middle_is_loaded(composed: Compose, tmp_path: Path) -> None:
    planned = trained(composed)
    first = checkpoint_path(planned.folder, checkpoint_steps(planned.folder)[0])
    assert export(first, tmp_path / "out") == first
    assert_same_logits(planned, first, AutoModelForCausalLM.from_pretrained(tmp_path / "out"))


def test_a_run_from_before_an_option_is_loaded(composed: Compose, tmp_path: Path) -> None:
    planned = trained(composed)
    path = planned.folder / "config.yaml"
    options = yaml.safe_load(path.read_text())
    del options["accelerator"], options["precision"]  # mandatory now
    path.write_text(yaml.safe_dump(options))
    export(planned.folder, tmp_path / "out")
    assert_same_logits(
        planned,
        checkpoint_path(planned.folder, planned.last_step),
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
    )


def test_a_byte_pair_tokenizer_goes_along(composed: Compose, corpora: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(20):
        (texts / f"{number}.txt").write_text(f"{number} return {number * 31} words and words\n" * 40)
    prepare(TextSource((str(texts),)), BpeChoice(vocab_size=300), tmp_path / "text-bpe300", val_fraction=0.2, workers=1)
    planned = trained(composed, f"data_dir={tmp_path}", "tokenizer=bpe", "tokenizer.vocab_size=300")
    export(planned.folder, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = load_corpus(tmp_path / "text-bpe300").tokenizer()
    assert theirs(TEXT)["input_ids"] == ours.encode_batch([TEXT])[0].tolist()
    assert theirs.eos_token_id == ours.separator
    assert_same_logits(
        planned,
        checkpoint_path(planned.folder, planned.last_step),
        AutoModelForCausalLM.from_pretrained(tmp_path / "out"),
    )


def test_what_cannot_be_exported_is_said_in_one_line(opened: Program, tmp_path: Path) -> None:
    done = opened("export", f"run={tmp_path / 'nothing'}", f"out={tmp_path / 'out'}")
    assert done.returncode == 2
    assert done.stderr == (
        f"shapelaw: run={tmp_path / 'nothing'}: no checkpoint there; "
        "give a run's folder (outputs/runs/SUITE/RUN) or a checkpoint's\n"
    )
    unnamed = opened("export")
    assert (unnamed.returncode, unnamed.stderr.startswith("shapelaw: run: is missing; give run=VALUE")) == (
        2,
        True,
    )
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_or_a_taken_place_is_refused(composed: Compose, tmp_path: Path) -> None:
    planned = trained(composed)
    with pytest.raises(UserError, match="exists; give a new folder"):
        export(planned.folder, tmp_path)
    newest = checkpoint_path(planned.folder, planned.last_step) / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(UserError, match="is damaged"):
        export(planned.folder, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]
