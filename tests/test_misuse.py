"""Misuse of the command line: one line that says what is allowed, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from shapelaw.runs.readers import READERS
from shapelaw.verbs.meant import TABLES
from support import ROOT, Door

MISUSE = [
    ("-cn other", ["-cn other", "no such configuration", "leave -cn out"]),
    ("--config-name other.yaml", ["-cn other", "no such configuration"]),
    ("-cn fit", ["-cn fit", "not train's configuration", "shapelaw fit"]),
    ("-cd /nowhere", ["--config-dir /nowhere", "no such folder"]),
    ("-cp /nowhere", ["--config-path /nowhere", "no such folder"]),
    ("-cd /tmp -cn nope", ["-cn nope", "/tmp"]),
    ("--config-dir", ["--config-dir", "expected one argument", "-cd FOLDER"]),
    ("--frobnicate", ["--frobnicate", "unrecognized"]),
    ("-x", ["-x", "unrecognized"]),
    ("--cfg wrong", ["--cfg", "'wrong'", "'job'"]),
    ("--cfg", ["--cfg", "expected one argument"]),
    ("--cfg job --package nothing", ["'nothing' not found"]),
    ("--info wrong", ["--info", "'wrong'"]),
    ("--resolve", ["--resolve", "--cfg job --resolve"]),
    ("--run --multirun", ["--run --multirun", "contradict each other"]),
    ("-m --cfg job", ["--multirun --cfg", "contradict each other"]),
    ("--experimental-rerun /nowhere", ["/nowhere", "no such file"]),
    ("-sc install=nope", ["install=nope", "bash, fish, zsh"]),
    ("lr_base", ["lr_base", "KEY=VALUE"]),
    ("lr_base=[1", ["lr_base=[1", "KEY=VALUE"]),
    ("lr_base='5", ["lr_base='5", "KEY=VALUE"]),
    ("lr_base==5", ["lr_base==5", "KEY=VALUE"]),
    ("=5", ["'=5'", "KEY=VALUE"]),
    ("@", ["@", "KEY=VALUE"]),
    ("a@b=c", ["a@b=c", "lists the groups"]),
    ("~lr_base", ["lr_base", "is missing"]),
    ("~nothing", ["'nothing'", "lists the keys that can be deleted"]),
    ("+lr_base=5", ["'lr_base'", "leave the + out"]),
    ("++nothing=5", ["nothing", "no such key"]),
    ("++lr_base.x=5", ["lr_base.x=5"]),
    ("-m shape=glob(", ["shape=glob(", "KEY=VALUE"]),
    ("-m shape=glob(nothing*)", ["matches nothing", "16x1, 16x2, 32x1"]),
    ("-m lr_base=range(1,0)", ["lr_base=range(1,0)", "at least one value"]),
    ("-m lr_base=range(1,x)", ["lr_base=range(1,x)"]),
    ("-m lr_base=foo(1)", ["lr_base=foo(1)"]),
    ("lr_base=${nothing}", ["'nothing'", "name a key that there is"]),
    ("lr_base=${nope:1}", ["nope", "${oc.env:NAME}"]),
    ("lr_base=${oc.env:SHAPELAW_NOPE}", ["SHAPELAW_NOPE", "set it"]),
    ("shape=64", ["shape=64: a group takes the name of one of its choices"]),
    ("-m shape=64,32", ["shape=64,32: a group"]),
    ("tracker=true lr_base=2", ["shapelaw: tracker=true: a group"]),
    ("optim=1.5", ["optim=1.5: a group"]),
    ("shape=null", ["shape=null: a group"]),
    ("hydra.mode=wrong", ["hydra.mode", "give -m for a sweep"]),
    ("hydra/launcher=nope", ["hydra/launcher=nope", "local"]),
    ("hydra/job_logging=nope", ["hydra/job_logging=nope", "none"]),
    ("hydra.nope=1", ["hydra.nope", "no such key"]),
    ("hydra.searchpath=x", ["hydra.searchpath", "list"]),
]


@pytest.mark.parametrize(("line", "words"), MISUSE, ids=[line for line, _ in MISUSE])
def test_misuse_is_one_line(door: Door, outputs: Path, line: str, words: list[str]) -> None:
    code, said = door("train", *line.split(" "))
    assert (code, len(said.splitlines())) == (2, 1), said
    assert all(word in said for word in words), said
    assert not outputs.exists()


@pytest.mark.parametrize("word", ["", " ", "\t"])
def test_an_empty_word_is_named(door: Door, outputs: Path, word: str) -> None:
    code, said = door("train", word)
    assert (code, len(said.splitlines())) == (2, 1), said
    assert "not an override; write KEY=VALUE" in said


GUESSES = [
    ("fit runs=mine.csv", "runs=mine.csv", "give runs=csv runs.path=mine.csv"),
    (
        "fit runs=/my/folder/mine.parquet",
        "runs=/my/folder/mine.parquet",
        "give runs=csv runs.path=/my/folder/mine.parquet",
    ),
    ("fit mine.csv.gz", "mine.csv.gz: not an override", "give runs=csv runs.path=mine.csv.gz"),
    ("fit runs.path=mine.csv", "runs=mlflow: does not take path", "give runs=csv runs.path=mine.csv"),
    ("report runs=mine.xlsx", "runs=mine.xlsx", "give runs=csv runs.path=mine.xlsx"),
    ("fit runs=csv", "runs.path: none given", "give a .csv"),
    ("fit runs=csv runs.path=mine.csv", "runs.path=mine.csv: there is no such file", "give a file"),
    ("fit law=Chinchilla", "law=Chinchilla: there is no such choice", "its form is law=params_tokens here"),
    ("train shape=96x3", "shape=96x3: there is no such choice", "give shape.width=96 shape.depth=3"),
    (
        "train tokenizer=/my/tokenizer.json",
        "tokenizer=/my/tokenizer.json",
        "tokenizer=gpt_neox tokenizer.path=/my/tokenizer",
    ),
    ("prepare data=corpus.jsonl.zst", "data=corpus.jsonl.zst", "give data=jsonl data.path=corpus.jsonl.zst"),
    ("prepare data=/my/books", "data=/my/books", "give data=text data.path=/my/books"),
    ("prescribe my/fit", "my/fit: not an override", "give fit=my/fit"),
    ("prescribe fit=nosuch budget=1e20", "fit=nosuch: there is no such fit", "shapelaw fit"),
    ("evaluate runs/64x2", "runs/64x2: not an override", "give model=runs/64x2"),
]


@pytest.mark.parametrize(("line", "given", "instead"), GUESSES, ids=[line for line, *_ in GUESSES])
def test_a_guess_at_an_option_is_answered_with_the_option(
    door: Door, outputs: Path, line: str, given: str, instead: str
) -> None:
    code, said = door(*line.split(" "))
    assert (code, len(said.splitlines())) == (2, 1), said
    assert said.startswith(f"shapelaw: {given}"), said
    assert instead in said, said


def test_the_files_that_a_guess_may_name_are_those_that_are_read() -> None:
    assert {f".{kind}" for kind in TABLES} == set(READERS)


@pytest.mark.parametrize("verb", ["fit", "prescribe", "report", "replay", "export", "prepare", "coordinates"])
def test_every_verb_refuses_them(door: Door, outputs: Path, verb: str) -> None:
    for words in (["-cn", "other"], ["--frobnicate"], ["x='"]):
        code, said = door(verb, *words)
        assert (code, len(said.splitlines())) == (2, 1), said


def test_flags_may_stand_between_overrides(door: Door, outputs: Path) -> None:
    code, said = door("train", "seed=1", "-m", "lr_base=abc")
    assert (code, "lr_base=abc" in said, "unrecognized" in said) == (2, True, False), said


def test_a_configuration_of_one_s_own_is_taken(door: Door, outputs: Path, tmp_path: Path) -> None:
    """A copy of the verb's own; one that names it in its defaults cannot be composed by Hydra, which is said."""
    mine = tmp_path / "mine.yaml"
    mine.write_text("defaults: [train, _self_]\n")
    code, said = door("train", "-cd", str(tmp_path), "-cn", "mine", "--cfg", "job")
    assert (code, "hydra.searchpath that conf/ gives" in said) == (2, True), said
    mine.write_text(f"{(ROOT / 'conf' / 'train.yaml').read_text()}\nlr_base: 3\n")
    code, said = door("train", "-cd", str(tmp_path), "-cn", "mine", "--cfg", "job")
    assert (code, "lr_base: 3" in said) == (0, True), said
