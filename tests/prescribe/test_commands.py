"""The command that a prescription prints: a shell takes it as it is, and it trains what was said, at that rate."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from shapelaw.config import NamedConfig, TrainConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.counting import params_total
from shapelaw.files import read_sealed, write_sealed
from shapelaw.planned_run import PlannedRun, plan_run
from shapelaw.prescribe.answer import Prescription
from shapelaw.runs import RunsTable
from shapelaw.suite import Suite
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import main, set_environment
from shapelaw.verbs.prescribe import prescribe, suite_world
from support import ROOT, TINY
from support import asked as prescribe_options
from worlds import fitted

Ask = Callable[..., tuple[Prescription, str]]


def own_suite(folder: Path, name: str = "two", **values: object) -> Path:
    """A suite of one's own: the tests' tiny one under another name, with other values of dotted keys."""
    shutil.copytree(TINY, folder)
    file = folder / "suite.yaml"
    text = file.read_text().replace("name: tiny", f"name: {name}")
    for key, value in values.items():
        group, _, key = key.partition("__")
        if not key:
            text = re.sub(rf"^{group}: .*\n", "", text, flags=re.M) + f"{group}: {value}\n"
        elif f"\n{group}:\n" in text:
            text = re.sub(rf"(\n{group}:\n(?:  .*\n)*?)  {key}: .*\n", r"\1", text)
            text = text.replace(f"\n{group}:\n", f"\n{group}:\n  {key}: {value}\n")
        else:
            text += f"{group}:\n  {key}: {value}\n"
    file.write_text(text)
    return folder


def train_config(suite: str, *overrides: str) -> TrainConfig:
    """What train.py composes in a suite."""
    os.environ.update(SHAPELAW_SUITE=suite, SHAPELAW_ROOT=str(ROOT))
    set_environment(ROOT)
    store_schemas()
    with initialize_config_dir(str(ROOT / "conf")):
        config: TrainConfig = to_dataclass(compose("train", list(overrides)))
    return config


def runs_of(suite: Suite) -> RunsTable:
    """Three shapes at three token counts, as they were trained in a suite."""
    assert suite.head_size is not None
    assert suite.vocab_size is not None
    rows = []
    for heads, depth in ((2, 1), (4, 2), (8, 3)):
        width = heads * suite.head_size
        size = {
            "width": width,
            "depth": depth,
            "params": int(params_total(width, depth, suite.vocab_size, suite.head_size)),
        }
        rows += [{"run": f"{width}x{depth}", "tokens": tokens, "loss": 3.0, **size} for tokens in (1e4, 3e4, 1e5)]
    frame = pd.DataFrame(rows)
    return RunsTable(frame, {}, dict.fromkeys(frame["run"], suite))


@pytest.fixture
def ask(outputs: Path) -> Ask:
    """Asks a fit of a suite's runs for the loss of a shape: the answer, and the command."""

    def asked(suite: Suite, depth: int = 2, **options: object) -> tuple[Prescription, str]:
        assert suite.head_size is not None
        fitted("interaction", A=5.0, B=3.0).save(outputs / "fits" / "interaction-000000", runs_of(suite))
        size = {"width": 4 * suite.head_size, "depth": depth, "tokens": 1024.0}
        question = prescribe_options(**{"outputs_dir": str(outputs), **size, **options})
        answer = prescribe(question)
        return answer, answer.command

    return asked


def run_of_command(command: str) -> PlannedRun:
    """What a command trains, from its words as a shell splits them."""
    variable, program, verb, *overrides = shlex.split(command)
    name, _, suite = variable.partition("=")
    assert (name, program, verb) == ("SHAPELAW_SUITE", "shapelaw", "train")
    return plan_run(train_config(suite, *overrides), "corpus")


SUITES: dict[str, dict[str, object]] = {
    "the issue's": {"lr_rule__name": "width", "suite__width_unit": 4},
    "sqrt_depth": {"lr_rule__name": "sqrt_depth"},
    "none": {"lr_rule__name": "none"},
    "smaller heads": {"suite__head_size": 4, "suite__width_unit": 32},
    "another unit than its heads'": {"suite__head_size": 4, "suite__width_unit": 1.5},
    "a patch": {"lr_rule__patch_ratio": 64, "suite__width_unit": 4},
    "no patch": {"lr_rule__patch_ratio": ".inf"},
    "a batch's rate": {"lr_batch_scaling": "sqrt", "lr_batch_reference": 32},
    "digits": {"lr_base": 0.123456789},
    "another context": {"seq_len": 32},
}


@pytest.mark.parametrize("values", SUITES.values(), ids=SUITES)
@pytest.mark.parametrize("depth", [1, 3])
def test_the_rate_that_is_said_is_the_one_that_is_trained_at(
    ask: Ask, tmp_path: Path, values: dict[str, object], depth: int
) -> None:
    folder = own_suite(tmp_path / "my suites" / "mine", **values)
    suite = Suite.of(train_config(str(folder)))
    train_config("nano")  # another one is in force
    found, command = ask(suite, depth)
    assert command.startswith(f"SHAPELAW_SUITE='{folder}' shapelaw train ")
    planned = run_of_command(command)
    assert (planned.suite, planned.tokens) == (replace(suite, corpus="corpus"), 1024)
    assert (planned.shape.width, planned.shape.depth) == (found.values["width"], found.values["depth"])
    assert planned.lr_eff == found.values["lr_eff"]
    assert not [note for note in found.notes if "assum" in note or "no command" in note]


CHANGED = {
    "lr_rule": ("lr_rule=width",),
    "batch": ("batch_tokens=256",),
    "context": ("seq_len=64",),
    "patch": ("lr_rule.patch_ratio=16", "lr_rule.patch_strict=true", "lr_rule.patch_divisor=30"),
    "patched shapes": ("lr_rule.patch_shapes=[256x1,512x3]",),
    "scaling": ("lr_batch_scaling=linear", "lr_batch_reference=64"),
    "rate": ("lr_base=0.3333333333",),
    "held-out sample": ("validation.tokens=512",),
}


@pytest.mark.parametrize("given", CHANGED.values(), ids=CHANGED)
def test_what_the_runs_were_given_on_the_command_line_is_given_again(ask: Ask, given: tuple[str, ...]) -> None:
    suite = Suite.of(train_config(str(TINY), *given))
    found, command = ask(suite)
    planned = run_of_command(command)
    assert planned.suite == replace(suite, corpus="corpus")
    assert planned.lr_eff == found.values["lr_eff"]


@pytest.mark.parametrize("recorded", ["its folder", "another machine's", "nothing"])
def test_a_suite_is_found_where_it_lies_now(ask: Ask, tmp_path: Path, recorded: str) -> None:
    """Where the runs say; else the suite in force, if it has their suite's name."""
    folder = own_suite(tmp_path / "mine", lr_rule__name="width")
    suite = Suite.of(train_config(str(folder)))
    said = {"its folder": str(folder), "another machine's": "/else/mine", "nothing": None}[recorded]
    found, command = ask(replace(suite, folder=said))  # the suite in force is this one
    assert command.startswith(f"SHAPELAW_SUITE={folder} ")
    train_config("nano")
    found, command = ask(replace(suite, folder=said))
    if said == str(folder):
        assert command.startswith(f"SHAPELAW_SUITE={folder} ")
    else:
        assert command == ""
        assert [
            note for note in found.notes if "the suite two is n" in note and "set SHAPELAW_SUITE to its folder" in note
        ]


def test_a_folder_that_holds_another_suite_by_now_is_not_taken(ask: Ask, tmp_path: Path) -> None:
    folder = own_suite(tmp_path / "nano", name="two")
    suite = Suite.of(train_config(str(folder)))
    (folder / "suite.yaml").write_text((folder / "suite.yaml").read_text().replace("name: two", "name: three"))
    train_config("nano")
    assert ask(suite)[1] == ""
    (folder / "suite.yaml").write_text("suite: [")
    assert ask(suite)[1] == ""


@pytest.mark.parametrize("name", ["nano", "micro", "gemstones"])
def test_a_suite_of_the_project_is_called_by_its_name(ask: Ask, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    suite = Suite.of(train_config(f"./conf/suite/{name}"))
    train_config(str(TINY))
    _, command = ask(suite, tokens=float(4 * (suite.batch_tokens or 0)))
    assert command.startswith(f"SHAPELAW_SUITE={name} shapelaw train shape.width=")


def test_runs_tracked_before_the_record_are_completed_by_their_suite(ask: Ask) -> None:
    """nano's rule has no patch and counts a width of 32 as 256; the record of an older run says neither."""
    suite = Suite.of(train_config("nano"))
    older = replace(suite, folder=None, width_unit=None, patch=None, lr_batch_scaling=None, validation_tokens=None)
    train_config(str(TINY))
    found, command = ask(older, tokens=4096.0)
    assert run_of_command(command).lr_eff == found.values["lr_eff"]
    notes = [
        note
        for note in found.notes
        if "the runs do not record width_unit=8, patch=none: the current values of the suite nano are used" in note
    ]
    assert len(notes) == 1


def test_a_suite_s_heads_and_context_count_where_the_runs_name_none(ask: Ask) -> None:
    suite = Suite.of(train_config(str(TINY)))
    told, _ = ask(suite)
    found, _ = ask(replace(suite, seq_len=None))
    assert found.values["flops"] == told.values["flops"]
    assert [
        note
        for note in found.notes
        if "the runs do not record seq_len=16: the current values of the suite tiny are used" in note
    ]


def test_an_assumed_context_is_said_with_what_others_would_give(ask: Ask) -> None:
    suite = replace(Suite.of(train_config(str(TINY))), name="elsewhere", seq_len=None)
    found, _ = ask(suite)
    assert [note for note in found.notes if "do not name their context: 2,048 tokens are assumed" in note]
    others = [note for note in found.notes if note.startswith("the context matters: ")]
    half, twice = (ask(suite, seq_len=context)[0] for context in (1024, 4096))
    assert f"seq_len=1024 would give 32x2, 1.02e+03 tokens, {half.values['flops']:.3g} FLOPs" in others[0]
    assert f"seq_len=4096 would give 32x2, 1.02e+03 tokens, {twice.values['flops']:.3g} FLOPs" in others[0]
    assert half.values["flops"] < found.values["flops"] < twice.values["flops"]
    assert not [note for note in half.notes if "context" in note]


def test_a_context_is_not_asked_for_where_flops_do_not_hang_on_it(ask: Ask) -> None:
    suite = replace(Suite.of(train_config(str(TINY))), name="elsewhere", seq_len=None)
    assert not [note for note in ask(suite, flops=NamedConfig(name="6n"))[0].notes if "context" in note]


def test_a_context_that_the_batch_cannot_hold_has_no_command(ask: Ask) -> None:
    found, command = ask(Suite.of(train_config(str(TINY))), seq_len=100)
    assert command == ""
    assert [note for note in found.notes if "batch_tokens=128: is not a multiple of seq_len=100" in note]


def test_tables_of_two_suites_say_so(outputs: Path) -> None:
    suite = Suite.of(train_config(str(TINY)), "a" * 64, "t" * 64)
    one, two = runs_of(suite), runs_of(replace(suite, name="two", corpus="b" * 12, seq_len=32))
    fewer = two.frame.assign(run=two.frame["run"] + "-two").iloc[:6]
    frame = pd.concat([one.frame, fewer], ignore_index=True)
    recorded = {**one.recorded, **{f"{run}-two": own for run, own in two.recorded.items()}}
    world = suite_world(fitted("interaction", A=5.0, B=3.0), RunsTable(frame, {}, recorded))
    assert world.suite == replace(suite, corpus="a" * 12)
    for field, values in (("name", "tiny, two"), ("seq_len", "16, 32"), ("corpus", f"{'a' * 12}, {'b' * 12}")):
        taken = values.split(", ")[0]
        assert f"the runs differ in {field} ({values}): {taken} is used, the value of most rows" in world.notes


@pytest.mark.parametrize("where", ["a name", "a folder"])
def test_the_printed_command_runs_as_printed(
    ask: Ask,
    outputs: Path,
    tmp_path: Path,
    corpora: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = {"lr_rule__name": "width", "suite__width_unit": 4}
    place = "nano" if where == "a name" else str(own_suite(tmp_path / "it's mine", "two", **own))
    config = train_config(place)
    suite = Suite.of(config)
    shutil.copytree(corpora / "text-bytes", outputs / "corpora" / f"{config.data.name}-{config.tokenizer.name}")
    manifest = outputs / "corpora" / f"{config.data.name}-{config.tokenizer.name}" / "manifest.json"
    write_sealed(manifest, {**read_sealed(manifest), "options": {"data.source": config.data.source.value}})
    tokens = 2 * (suite.batch_tokens or 0)
    ask(suite, tokens=float(tokens))  # saves the fit
    arguments = [f"width={4 * (suite.head_size or 0)}", "depth=2", f"tokens={tokens}"]
    monkeypatch.setattr(sys, "argv", ["prescribe.py", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main("prescribe")
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    command = re.search(r"^train it:  (.*)$", printed, re.M)
    rate = re.search(r"lr_eff\s+│\s+(\S+)", printed)
    assert command is not None
    assert rate is not None
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "SHAPELAW_SUITE": str(TINY)}
    done = subprocess.run(
        command[1], shell=True, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (folder,) = (outputs / "runs" / str(suite.name)).iterdir()
    from shapelaw.tracking import client

    store = client(config.tracker.uri)
    experiment = store.get_experiment_by_name(str(suite.name))
    assert experiment is not None
    (run,) = store.search_runs([experiment.experiment_id])
    assert float(run.data.params["lr_eff"]) == pytest.approx(float(rate[1]), rel=1e-4)
    kept = Suite.from_json(run.data.tags["shapelaw.suite_record"])
    assert (kept.name, kept.folder, kept.width_unit) == (suite.name, suite.folder, suite.width_unit)
    assert folder.name.endswith(run.data.tags["shapelaw.identity"])
