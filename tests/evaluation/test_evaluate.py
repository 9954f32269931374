"""Held-out losses of transformers' models against transformers' own loss, and of ours against the run's."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from shapelaw.config import Precision
from shapelaw.data import BpeChoice, BytesChoice, TextSource, load_corpus, prepare
from shapelaw.errors import UserError
from shapelaw.evaluation.evaluate import Evaluations, Wanted, subjects_of
from shapelaw.evaluation.held_out import held_out
from shapelaw.evaluation.measuring import Evaluation
from shapelaw.evaluation.models import Place, TransformersModel
from shapelaw.evaluation.vocabulary import ByteVocabulary, LibraryVocabulary
from shapelaw.export.folder import export
from shapelaw.planned_run import checkpoint_path, checkpoint_steps
from shapelaw.run_state import read_state
from support import Compose, Door, train

CPU = Place(torch.device("cpu"), Precision.fp32)
WORDS = "Grüße, 漢字 and 🙂: {n} is followed by {m}.\n"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a corpus `words-bytes` of letters of one to four bytes, and its text."""
    texts, folder = tmp_path_factory.mktemp("words"), tmp_path_factory.mktemp("corpora")
    for n in range(30):
        (texts / f"{n}.txt").write_text("".join(WORDS.format(n=n * k, m=n * k + 1) for k in range(8)))
    prepare(TextSource((str(texts),)), BytesChoice(), folder / "words-bytes", val_fraction=0.3, workers=1)
    return folder


def documents(corpora: Path, name: str) -> list[str]:
    """The held-out documents of a corpus of bytes, read without any code that is tested."""
    stream = b"".join(path.read_bytes()[::2] for path in sorted((corpora / name).glob("val-*.bin")))
    return [piece.decode() for piece in stream.split(b"\0") if piece]


def gpt2_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level byte pairs."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=library, eos_token=special[0], bos_token=special[0])


def llama_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Words with a mark for the space before them, bytes for what it lacks, and <s> before every text."""
    library = Library(models.BPE(unk_token="<unk>", byte_fallback=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False, limit_alphabet=20)
    library.train_from_iterator(texts, trainer)
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", library.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=library, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def saved(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def gpt2(folder: Path, texts: list[str]) -> Path:
    torch.manual_seed(0)
    tokenizer = gpt2_tokenizer(texts)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "vocab_size": len(tokenizer)}
    return saved(folder / "tiny-gpt2", GPT2LMHeadModel(GPT2Config(**sizes)), tokenizer)


def llama_config(vocab_size: int) -> LlamaConfig:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
    return LlamaConfig(**sizes, max_position_embeddings=24, vocab_size=vocab_size)


def llama(folder: Path, texts: list[str]) -> Path:
    torch.manual_seed(1)
    tokenizer = llama_tokenizer(texts)
    return saved(folder / "tiny-llama", LlamaForCausalLM(llama_config(len(tokenizer))), tokenizer)


def evaluated(model: Path | str, corpus: Path, out: Path, **wanted: Any) -> list[Evaluation]:
    chosen = Wanted(**wanted)
    evaluations = Evaluations(load_corpus(corpus), out, chosen, CPU)
    return [evaluations.of(one, lambda done, total: None) for one in subjects_of([str(model)], chosen)]


def their_loss(folder: Path, texts: list[str], context: int) -> tuple[float, int]:
    """Mean of transformers' own losses of windows of the texts, and the windows; by transformers' interfaces alone."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ids = [
        i for text in texts for i in [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ]
    begins = tokenizer("")["input_ids"]
    losses = []
    for start in range(0, len(ids) - context, context):
        window = ids[start : start + context + 1]
        inputs = torch.tensor([begins + window])
        labels = inputs.clone()
        labels[:, : len(begins) + 1] = -100  # what precedes the first predicted token
        with torch.no_grad():
            losses.append(float(model(input_ids=inputs, labels=labels).loss))
    return float(np.mean(losses)), len(losses)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_model_of_transformers_has_transformers_own_loss(
    words: Path, tmp_path: Path, make: Callable[[Path, list[str]], Path]
) -> None:
    texts = documents(words, "words-bytes")
    folder = make(tmp_path, texts)
    expected, windows = their_loss(folder, texts, 16)
    (found,) = evaluated(folder, words / "words-bytes", tmp_path / "out", context=16, batch_sequences=7)
    assert found.windows == windows > 20
    assert found.loss == pytest.approx(expected, abs=2e-6)
    assert found.predicted_tokens == windows * 16

    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = sum(len(text.encode()) for text in texts)
    first = tokenizer(texts[0], add_special_tokens=False)["input_ids"][0]
    assert whole - 16 * 8 < found.text_bytes <= whole - len(tokenizer.decode([first]).encode())
    assert found.loss_per_byte == pytest.approx(expected * windows * 16 / found.text_bytes, rel=1e-6)
    assert found.bits_per_byte == pytest.approx(found.loss_per_byte / math.log(2), rel=1e-12)
    assert found.perplexity == pytest.approx(math.exp(expected), rel=1e-5)


def test_the_context_of_a_model_is_its_own(words: Path, tmp_path: Path) -> None:
    """And the token that opens a text takes a place of it."""
    texts = documents(words, "words-bytes")
    corpus = words / "words-bytes"
    contexts = [evaluated(make(tmp_path, texts), corpus, tmp_path / "out")[0].sample.context for make in (gpt2, llama)]
    assert contexts == [24, 23]


def test_every_byte_of_a_text_belongs_to_one_token(words: Path) -> None:
    """Whether tokens are words, parts of letters, or leave spaces out of their places."""
    texts = [*documents(words, "words-bytes"), " two  spaces ", "🙂", "ÿ\n"]
    for tokenizer in (gpt2_tokenizer(texts[:3]), llama_tokenizer(texts[:3])):
        vocabulary = LibraryVocabulary(tokenizer.backend_tokenizer, tokenizer.eos_token_id)
        for text, encoded in zip(texts, vocabulary.encode(texts), strict=True):
            assert int(encoded.text_bytes.sum()) == len(text.encode())
            assert len(encoded.ids) == len(encoded.text_bytes)
    plain = LibraryVocabulary(gpt2_tokenizer(["abc"]).backend_tokenizer, None).encode(["ab c"])[0]
    assert plain.text_bytes.tolist() == [len(piece) for piece in ("ab", " ", "c")] or int(plain.text_bytes.sum()) == 4


def test_our_run_has_its_own_held_out_loss_and_so_has_its_export(
    composed: Compose, corpora: Path, tmp_path: Path
) -> None:
    planned = train(composed, "validation.tokens=1e9")
    loss = read_state(planned.folder).val_loss
    corpus = corpora / "text-bytes"
    (ours,) = evaluated(planned.folder, corpus, tmp_path / "out")
    export(planned.folder, tmp_path / "exported")
    (theirs,) = evaluated(tmp_path / "exported", corpus, tmp_path / "out")
    assert (ours.loss, theirs.loss) == (pytest.approx(loss, abs=1e-6), pytest.approx(loss, abs=1e-5))
    stream = b"".join(text.encode() + b"\0" for text in documents(corpora, "text-bytes"))
    predicted = stream[1 : 1 + ours.predicted_tokens]
    assert ours.predicted_tokens == theirs.predicted_tokens == len(predicted) > len(stream) - 17
    assert ours.text_bytes == theirs.text_bytes == len(predicted) - predicted.count(0)
    assert (ours.model.params, ours.model.width, ours.model.depth) == (theirs.model.params, 16, 1)
    assert (ours.model.tokens, theirs.model.tokens) == (2560, None)


def test_a_sample_is_that_of_the_run_s_validations(composed: Compose, corpora: Path, tmp_path: Path) -> None:
    planned = train(composed)
    (sampled,) = evaluated(planned.folder, corpora / "text-bytes", tmp_path, tokens=1024)
    assert sampled.loss == pytest.approx(read_state(planned.folder).val_loss, abs=1e-6)
    assert sampled.predicted_tokens == 1024


def test_a_run_is_evaluated_on_a_corpus_of_another_tokenizer(composed: Compose, tmp_path: Path, words: Path) -> None:
    """Its bytes read the text that byte pairs hold; the corpus of bytes gives the same sum."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for n in range(30):
        (texts / f"{n}.txt").write_text("".join(WORDS.format(n=n * k, m=n * k + 1) for k in range(8)))
    prepare(TextSource((str(texts),)), BpeChoice(vocab_size=300), tmp_path / "words-bpe", val_fraction=0.3, workers=1)
    planned = train(composed)
    (by_pairs,) = evaluated(planned.folder, tmp_path / "words-bpe", tmp_path / "out")
    (by_bytes,) = evaluated(planned.folder, words / "words-bytes", tmp_path / "out")
    assert (by_pairs.nats, by_pairs.text_bytes) == (by_bytes.nats, by_bytes.text_bytes)


def test_an_evaluation_that_was_killed_goes_on_to_the_last_bit(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = gpt2(tmp_path, documents(words, "words-bytes"))
    corpus, asked = words / "words-bytes", {"context": 16, "batch_sequences": 4}
    (whole,) = evaluated(folder, corpus, tmp_path / "whole", **asked)
    plain, calls = TransformersModel.nats, []

    def killed(self: TransformersModel, rows: torch.Tensor) -> float:
        calls.append(len(rows))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, rows)

    monkeypatch.setattr(TransformersModel, "nats", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(folder, corpus, tmp_path / "cut", **asked)
    (note,) = (tmp_path / "cut" / "words-bytes").iterdir()
    assert json.loads(note.read_text())["windows"] == 12
    (again,) = evaluated(folder, corpus, tmp_path / "cut", **asked)
    assert again.nats == whole.nats
    assert sum(calls) - 4 == whole.windows  # none was computed twice but the one that was cut
    assert not note.exists()
    calls.clear()
    assert evaluated(folder, corpus, tmp_path / "cut", **asked) == [again]
    assert not calls  # what was measured is read


def test_another_sum_s_note_is_not_taken_up(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = gpt2(tmp_path, documents(words, "words-bytes"))
    (whole,) = evaluated(folder, words / "words-bytes", tmp_path / "whole", context=16)
    monkeypatch.setattr("shapelaw.evaluation.evaluate.partial_of", lambda file: tmp_path / "note.json")
    (tmp_path / "note.json").write_text(json.dumps({"key": {"model": "another"}, "windows": 5, "nats": 1e9}))
    assert evaluated(folder, words / "words-bytes", tmp_path / "out", context=16)[0].nats == whole.nats


def test_the_table_has_the_columns_of_models_beside_ours(
    words: Path, tmp_path: Path, door: Door, outputs: Path
) -> None:
    texts = documents(words, "words-bytes")
    for make in (gpt2, llama):
        make(tmp_path / "models", texts)
    shown = (
        f"model={tmp_path}/models/*",  # by its other name
        "corpus=words-bytes",
        f"data_dir={words}",
        "trained_tokens=2e12",
        "tracker=none",
    )
    code, said = door("evaluate", *shown)
    assert code == 0, said
    table = (outputs / "evaluations" / "words-bytes" / "models.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert [row["name"] for row in rows] == ["tiny-gpt2", "tiny-llama"]
    assert [(row["width"], row["depth"], row["tokens"]) for row in rows] == [
        ("16", "2", "2000000000000.0"),
        ("16", "3", "2000000000000.0"),
    ]
    sizes = [AutoModelForCausalLM.from_pretrained(tmp_path / "models" / row["name"]).num_parameters() for row in rows]
    assert [int(row["params"]) for row in rows] == sizes
    for row in rows:
        assert f"{row['name']}: {float(row['loss']):.6f} nats per token" in said


def tokenizer_that_lowers(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = gpt2_tokenizer(texts)
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return tokenizer


def test_what_cannot_be_evaluated_is_one_line(words: Path, tmp_path: Path, door: Door, composed: Compose) -> None:
    texts = documents(words, "words-bytes")
    tokenizer = gpt2_tokenizer(texts)
    plain = gpt2(tmp_path, texts)
    bert = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=300)
    saved(tmp_path / "bert", BertForMaskedLM(bert), tokenizer)
    saved(tmp_path / "headless", LlamaModel(llama_config(300)), tokenizer)
    saved(tmp_path / "lowers", LlamaForCausalLM(llama_config(300)), tokenizer_that_lowers(texts))
    stripped = saved(tmp_path / "stripped", LlamaModel(llama_config(300)), tokenizer) / "config.json"
    stripped.write_text(json.dumps({**json.loads(stripped.read_text()), "architectures": ["LlamaForCausalLM"]}))
    trained = train(composed)
    for step in checkpoint_steps(trained.folder):
        path = checkpoint_path(trained.folder, step)
        path.rename(path.with_name(f".{path.name}"))
    cases = {
        f"model={tmp_path}/bert": "BertForMaskedLM has no causal head",
        f"model={tmp_path}/headless": "LlamaModel has no causal head",
        f"model={tmp_path}/stripped": "its weights lack lm_head.weight",
        f"model={tmp_path}/lowers": "its tokenizer does not give the text back ('Grüße",
        f"model={plain} context=25": "context=25: ",
        f"model={plain} context=24 tokens=0": "tokens=0: allowed values are whole numbers from 1",
        f"model={trained.folder}": f"model={trained.folder}: no checkpoint there",
        f"model={tmp_path}/nothing/*": f"model={tmp_path}/nothing/*: matches no folder",
        f"model={tmp_path}/nothing": "is neither a run nor a model of transformers, and the hub's cache has no model "
        "with that name",
        f"model={plain} corpus=missing": "there is no prepared corpus",
        f"model={plain} name=a-b": "name=a-b: cannot name a loss",
        "model=[]": "model=[]: allowed values are folders",
    }
    for words_given, expected in cases.items():
        code, said = door(
            "evaluate", "corpus=words-bytes", f"data_dir={words}", "tracker=none", *words_given.split(" ")
        )
        assert (code, len(said.splitlines()), expected in said) == (2, 1, True), (words_given, said)
    assert not [*(Path(str(composed().outputs_dir)) / "evaluations").rglob("*.csv")]


def test_a_glob_of_hydra_s_is_refused_in_place_of_doing_nothing(door: Door, outputs: Path) -> None:
    code, said = door("evaluate", "-m", "model=glob(*)", "corpus=words-bytes")
    assert (code, len(said.splitlines())) == (2, 1)
    assert "model=glob(*): glob lists the choices of a group" in said
    assert "'model=outputs/runs/nano/*'" in said


def test_a_held_out_part_that_is_shorter_than_a_window_is_refused(words: Path) -> None:
    text = held_out(load_corpus(words / "words-bytes"), ByteVocabulary(), "model", "m")
    with pytest.raises(
        UserError, match=r"context=100000: the held-out part of the corpus has [\d,]+ tokens of this model"
    ):
        text.windows(100_000, None)


def test_a_corpus_whose_tokenizer_lost_the_text_is_refused(tmp_path: Path) -> None:
    """It decodes to texts that are not those whose hashes hold them out."""
    from shapelaw.data import FileChoice

    texts = tmp_path / "texts"
    texts.mkdir()
    for n in range(30):
        (texts / f"{n}.txt").write_text(f"Document {n} IN CAPITALS\n" * 5)
    tokenizer_that_lowers(["document in capitals"]).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    choice = FileChoice(tmp_path / "tokenizer.json")
    prepare(TextSource((str(texts),)), choice, tmp_path / "low", val_fraction=0.3, workers=1)
    with pytest.raises(UserError, match="corpus=low: its tokenizer does not keep the text"):
        held_out(load_corpus(tmp_path / "low"), ByteVocabulary(), "model", "m")


def test_a_run_of_somebody_s_own_model_is_refused(composed: Compose, tmp_path: Path) -> None:
    """Its code is not run because a folder names it."""
    planned = train(composed, "tokens=512")
    path = planned.folder / "config.yaml"
    assert "name: transformer" in path.read_text()
    path.write_text(path.read_text().replace("name: transformer", f"name: {tmp_path}/evil.py:Model"))
    with pytest.raises(UserError, match=r"16x1-\w+: was trained with model=.*evil.py:Model, which only train.py loads"):
        subjects_of([str(planned.folder)], Wanted())


def test_a_configuration_that_was_changed_is_refused(composed: Compose) -> None:
    """A number, which makes another model of the same tensors; and bytes that are no text."""
    path = train(composed, "tokens=512").folder / "config.yaml"
    whole = path.read_bytes()
    for changed in (whole.replace(b"head_size: ", b"head_size: 1", 1), whole.replace(b"tokens", b"t\xffkens", 1)):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"config.yaml was changed after it was written"):
            subjects_of([str(path.parent)], Wanted())
    path.write_bytes(whole)
    assert subjects_of([str(path.parent)], Wanted())
