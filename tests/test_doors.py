"""Every verb is a door of one kind: found by its files, opened by `shapelaw VERB`, with one style of arguments."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from omegaconf import OmegaConf

from shapelaw import __version__
from shapelaw.config.schema import to_dataclass
from shapelaw.counting import params
from shapelaw.errors import Interrupted, NotPrepared, UserError, WorkFailed
from shapelaw.laws import get_law
from shapelaw.prescribe.prediction import sealed
from shapelaw.sweep.local import SweepFailed
from shapelaw.tracking import VAL_LOSS
from shapelaw.training.processes import RankFailed
from shapelaw.verbs.doors import COMMANDS, door_of, project_root, store_schemas, summary_of, verbs
from shapelaw.verbs.main import main, set_environment
from support import ROOT, TINY, Program, Script
from tracked import PROCESSES, journaled, stored, write_undelivered
from worlds import NATURAL, fitted, table

SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py"))
VERBS = verbs()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
INTERNAL = {"shapelaw.sweep.work", "shapelaw.training.processes"}
"""Modules that the program starts itself."""


def module(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shapelaw", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200, cwd=cwd)


def test_there_is_a_door_for_every_file_that_says_so() -> None:
    """A configuration that starts from NAME_schema is a door's, and its module has one."""
    schemas = {path.stem for path in (ROOT / "conf").glob("*.yaml") if f"- {path.stem}_schema\n" in path.read_text()}
    assert set(VERBS) == schemas
    assert set(SCRIPTS) <= schemas
    assert all(callable(door_of(verb)) for verb in VERBS)
    assert project_root() == ROOT


def test_the_scripts_only_open_their_doors() -> None:
    for script in SCRIPTS:
        _, _, code = (ROOT / f"{script}.py").read_text().split('"""', 2)
        opening = f'from shapelaw.verbs.main import main\n\nif __name__ == "__main__":\n    main("{script}")'
        assert code.strip() == opening


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=str)
def test_without_a_verb_the_doors_are_listed(opened: Program, arguments: list[str]) -> None:
    done = opened(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", done.stdout, re.M))
    assert listed == {verb: summary_of(verb) for verb in (*VERBS, *COMMANDS)}
    assert all(line.endswith(".") and len(line) <= 110 for line in listed.values()), listed


def test_from_anywhere_without_what_is_heavy(tmp_path: Path) -> None:
    done = module(cwd=tmp_path)
    assert (done.returncode, done.stderr, "  train " in done.stdout) == (0, "", True)
    heavy = ("torch", "mlflow", "numba", "matplotlib")
    code = f"import sys, shapelaw.verbs.main; sys.exit(' '.join(set({heavy}) & set(sys.modules)) or 0)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr


@pytest.mark.parametrize(
    ("given", "meant"), [("tain", "train"), ("prescibe", "prescribe"), ("noise-scale", "noise_scale")]
)
def test_of_an_unknown_verb_the_nearest_is_named(opened: Program, given: str, meant: str) -> None:
    done = opened(given, "budget=1e21")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.startswith(f"shapelaw: {given}: there is no such verb; did you mean {meant}?")
    assert ", ".join(sorted([*VERBS, *COMMANDS])) in done.stderr


def test_the_program_says_its_version(opened: Program) -> None:
    done = opened("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"shapelaw {__version__}\n", "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("shapelaw ", {"train", "fit", "init", "sweeps"}),
        ("shapelaw tr", {"train"}),
        ("shapelaw train lr_r", {"lr_rule=", "lr_rule."}),
        ("shapelaw train shape=", {"shape=16x1", "shape=16x2", "shape=32x1"}),
        ("shapelaw migrate prec", {"precision="}),
    ],
)
def test_the_shell_completes(opened: Program, monkeypatch: pytest.MonkeyPatch, line: str, offered: set[str]) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    done = opened("-sc", "query=bash")
    assert (done.returncode, done.stderr) == (0, "")
    assert offered <= set(done.stdout.split())


def test_completion_is_installed_by_a_line_for_the_shell(opened: Program) -> None:
    done = opened("-sc", "install=bash")
    assert (done.returncode, done.stdout.splitlines()[-1].split()[-2:]) == (0, ["hydra_bash_completion", "shapelaw"])


def test_a_verb_unlike_any_is_told_what_there_is(opened: Program) -> None:
    done = opened("main")  # a module of verbs/, but no door
    assert done.returncode == 2
    assert "did you mean" not in opened("xyz").stderr
    assert ", ".join(sorted([*VERBS, *COMMANDS])) in done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_door_explains_itself_and_obeys_the_environment(opened: Program, outputs: Path, verb: str) -> None:
    done = opened(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"shapelaw {verb} ")
    assert summary_of(verb) in " ".join(done.stdout.split())
    shown = dict(re.findall(r"^  ([\w.]+)=(\S*)", done.stdout, re.M))
    assert shown["outputs_dir"] == str(outputs)
    uris = {key: value for key, value in shown.items() if key.split(".")[-1] == "uri" and value != "null"}
    assert set(uris.values()) <= {f"sqlite:///{outputs}/mlflow.db"}
    suites = {key: value for key, value in shown.items() if key.split(".")[-1] == "experiment"}
    assert set(suites.values()) <= {TINY.name}


@pytest.mark.parametrize("verb", VERBS)
def test_every_door_refuses_a_misspelt_key_and_names_one_of_its_own(opened: Program, outputs: Path, verb: str) -> None:
    done = opened(verb, "outputs_dri=/tmp/x")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "outputs_dri: there is no such key; did you mean outputs_dir" in done.stderr
    assert not outputs.exists()


def test_another_verb_s_key_is_not_proposed(opened: Program) -> None:
    """`starts` is an option of fits alone."""
    assert "did you mean starts" in opened("fit", "startz=grid").stderr
    assert "did you mean" not in opened("export", "startz=grid").stderr


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_suite_is_refused_by_every_door(opened: Program, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("SHAPELAW_SUITE", "micro-nano")
    done = opened(verb)
    assert (done.returncode, "SHAPELAW_SUITE=micro-nano: allowed values are" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("x=1: allowed is 2"), 2),
        (NotPrepared("no corpus"), 2),
        (WorkFailed("1 of 2 failed"), 1),
        (SweepFailed("1 of 2 failed"), 1),
        (RankFailed("process 0 of the run: killed"), 1),
        (Interrupted("stopped by SIGTERM"), 1),
        (KeyboardInterrupt(), 130),
        (FileNotFoundError(2, "No such file or directory", "/nowhere"), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_an_error_carries_its_exit_code(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def failing(config: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["replay"])
    for name, value in {
        "SHAPELAW_ROOT": "",
        "SHAPELAW_SUITE_DIR": "",
        "HYDRA_FULL_ERROR": "",
    }.items():
        monkeypatch.setenv(name, value)  # set by main, and put back after the test
    with pytest.raises(SystemExit) as ended:
        main("replay", failing)
    said = capsys.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (code, 1), said
    assert str(error).removeprefix("[Errno 2] ").split(":")[0] in said or isinstance(error, KeyboardInterrupt)


def test_what_is_no_fault_of_the_user_is_not_hidden(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(config: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(sys, "argv", ["replay"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        main("replay", failing)


def test_a_mandatory_option_is_asked_for(opened: Program) -> None:
    for verb, key in (("export", "run"), ("predict", "prediction"), ("noise_scale", "fit")):
        done = opened(verb)
        assert done.returncode == 2
        assert done.stderr.startswith(f"shapelaw: {key}: is missing; give {key}=VALUE"), done.stderr


def test_replay_lists_and_delivers(opened: Program, outputs: Path, tmp_path: Path) -> None:
    """A run whose server is away when it ends; then everything goes to a database."""
    process = PROCESSES.Process(target=write_undelivered, args=(outputs / "runs", "lost"))
    process.start()
    process.join(100)
    away = "tracker.uri=http://127.0.0.1:9"
    listed = opened("replay", "deliver=false", away)
    assert (listed.returncode, listed.stdout) == (1, "1 runs, 1 with undelivered records\n")
    assert f"1 values of {outputs / 'runs' / 'lost'} are not in http://127.0.0.1:9 yet" in listed.stderr
    assert listed.stderr.splitlines()[-1] == "shapelaw: 1 of 1 runs are not fully delivered: give deliver=true"
    elsewhere = opened("replay", f"folders=[{tmp_path / 'elsewhere'}]")
    assert (elsewhere.returncode, "there is no such folder" in elsewhere.stderr) == (2, True)
    done = opened("replay", f"folders=[{outputs / 'runs'}]", f"uri=sqlite:///{tmp_path}/mlflow.db")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 runs, 0 with undelivered records\n", "")
    assert (
        stored(f"sqlite:///{tmp_path}/mlflow.db", "lost")
        == journaled(outputs / "runs" / "lost")
        == [(VAL_LOSS, 128, 2.5)]
    )


def test_a_sweep_is_the_same_by_either_spelling(outputs: Path, corpora: Path, script: Script, tmp_path: Path) -> None:
    """Its jobs are processes of their own, which import what was started."""
    runs = ("-m", "shape=16x1,16x2", "tokens=512", "warmup_tokens=256", "validation.every_tokens=512", "tracker=none")
    done = module("train", *runs, f"data_dir={corpora}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 runs to do" in done.stderr
    again = script("train.py", *runs)
    assert (again.returncode, "2 runs to do" in again.stderr) == (0, False), again.stderr
    assert len([*(outputs / "runs" / "tiny").iterdir()]) == 2


def test_a_prediction_s_outcome_is_written_beside_it(opened: Program, tmp_path: Path) -> None:
    """Of a run whose losses are 2% above the predicted ones at every validation."""
    law, natural = get_law("steps_batch"), NATURAL["steps_batch"]
    counted = float(params(64, 4, 256, "no_embedding_and_head", 16))
    content = {"law": "steps_batch", "parameters": natural, "width": 64, "depth": 4, "params": counted}
    content |= {"batch_tokens": 1024, "tokens": 1e6, "written": "2026-01-01T00:00:00+00:00"}
    prediction = sealed({**content, "points": [{"steps": 100, "loss": 2.2}, {"steps": 1000, "loss": 1.9}]})
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump({"prediction": prediction}))
    tokens = np.linspace(2e5, 1e6, 9)
    columns = {"params": np.full(9, counted), "tokens": tokens, "batch_tokens": np.full(9, 1024.0)}
    rows = {**columns, "loss": 1.02 * law.predict(natural, columns), "run": "a", "width": 64, "depth": 4}
    sizes = {"params": counted + 512 * 64, "vocab_size": 256, "head_size": 16}
    pd.DataFrame({**rows, **sizes}).to_csv(tmp_path / "runs.csv", index=False)
    done = opened("predict", f"prediction={file}", "runs=csv", f"runs.path={tmp_path / 'runs.csv'}")
    assert done.returncode == 0, done.stderr
    outcome = yaml.safe_load((tmp_path / "p-outcome.yaml").read_text())
    assert (outcome["run"], outcome["validations"]) == ("a", 9)
    assert outcome["mean_absolute_error"] == pytest.approx(1 - 1 / 1.02, rel=1e-6)
    assert (tmp_path / "p-outcome.png").stat().st_size > 10_000
    assert done.stdout.endswith(f"written to {tmp_path / 'p-outcome.yaml'}\n")


def test_noise_scale_reads_the_suite_s_runs_and_writes_beside_the_fit(
    opened: Program, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs whose noise scale is twice the critical batch."""
    law, natural = get_law("steps_batch"), NATURAL["steps_batch"]
    folder = outputs / "fits" / "steps_batch-1"
    contours = {"critical_batch": {"contours": [{"loss": 2.6}, {"loss": 2.2}]}}
    replace(fitted("steps_batch"), stages=contours).save(folder, table())
    tokens = np.linspace(1e4, 2e6, 20_000)
    loss = 1.5 + 40 * tokens**-0.35
    trace = law.critical_batch(natural, loss)  # type: ignore[attr-defined]
    run = {"run": "a", "width": 32, "depth": 2, "batch_tokens": 2048, "tokens": tokens, "loss": loss}
    read = []

    def measured(uri: str, experiment: str) -> pd.DataFrame:
        read.append((uri, experiment))
        return pd.DataFrame({**run, "grad_sq": 0.5, "trace": trace})

    monkeypatch.setattr("shapelaw.tracking.read_noise", measured)
    for fit in (folder, folder / "fit.json"):
        done = opened("noise_scale", f"fit={fit}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith(f"written to {folder}/noise_scale.csv, .pdf and .png\n")
    assert read == [(f"sqlite:///{outputs}/mlflow.db", TINY.name)] * 2
    assert pd.read_csv(folder / "noise_scale.csv")["ratio"].to_numpy() == pytest.approx(2.0, rel=2e-3)
    assert (folder / "noise_scale.png").stat().st_size > 10_000


@dataclass(frozen=True)
class Command:
    """A command of a page: its verb, overrides and suite."""

    verb: str
    overrides: tuple[str, ...]
    suite: str


def commands_of(text: str) -> Iterator[Command]:
    """Every command that a page shows, in a block or within a line, up to where its words end."""
    shown = text.replace("\\\n", " ")
    program = r"(?:python -m |(?<=`)|(?<=^ {4})|(?<=\w )|(?<=\w' ))shapelaw"
    opening = rf"(?:{program} (?P<verb>{'|'.join(VERBS)})\b|python (?P<script>(?!VERB)\w+)\.py)"
    pattern = rf"(?:SHAPELAW_SUITE=(?P<suite>[\w-]+) )?{opening}(?P<rest>[^`\n]*)"
    for found in re.finditer(pattern, shown, re.M):
        rest = re.split(
            r" && |;|\|| #", found["rest"].partition("'")[0] if found["rest"].count("'") % 2 else found["rest"]
        )[0]
        words = [word for word in shlex.split(rest) if word != "-m"]
        overrides = tuple(word for word in words if "=" in word and not word.startswith("-"))
        if "..." not in words and "KEY=VALUE" not in words:
            yield Command(found["verb"] or found["script"], overrides, found["suite"] or "nano")


def one_of(override: Override) -> list[str]:
    """The override with one value of those that are swept; none of a pattern's."""
    value = override.value()
    if isinstance(value, Glob):
        return []
    if isinstance(value, IntervalSweep):
        return [f"{override.get_key_element()}={value.start}"]
    if override.is_sweep_override():
        return [f"{override.get_key_element()}={next(override.sweep_string_iterator())}"]
    return [str(override.input_line)]


SHOWN = sorted({found for page in DOCUMENTS for found in commands_of(page.read_text())}, key=str)


def test_the_pages_show_commands() -> None:
    assert len(SHOWN) >= 40
    assert {found.verb for found in SHOWN} >= set(VERBS)


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.verb} {' '.join(shown.overrides)}")
def test_a_command_of_the_pages_is_one(shown: Command, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its keys, groups and choices are there, and its values of their types."""
    assert shown.verb in VERBS
    monkeypatch.setenv("SHAPELAW_SUITE", shown.suite)
    for name in ("SHAPELAW_ROOT", "SHAPELAW_SUITE_DIR"):
        monkeypatch.setenv(name, "")  # set below, and put back after the test
    set_environment(ROOT)
    store_schemas(shown.verb)
    parsed = OverridesParser.create().parse_overrides(list(shown.overrides))
    with initialize_config_dir(str(ROOT / "conf")):
        config = compose(shown.verb, [word for override in parsed for word in one_of(override)])
    if not OmegaConf.missing_keys(config):
        assert to_dataclass(config)


def named(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize(
    "file", [*(ROOT / "src").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml"), *DOCUMENTS], ids=named
)
def test_no_command_is_spelt_as_it_was(file: Path) -> None:
    """The program, its options and the pages name doors alone."""
    text = file.read_text()
    modules = set(re.findall(r"python -m (shapelaw\.[\w.]+\w)", text)) - INTERNAL
    called = re.findall(r"(?:^ {4}|`|run: |next: |by |python -m )shapelaw (\w+)", text, re.M)
    opening = {verb for verb in called if verb != "VERB"}
    scripts = set(re.findall(r"python (\w+)\.py", text))
    assert (modules, opening - {*VERBS, *COMMANDS}, scripts - set(SCRIPTS)) == (set(), set(), set())
