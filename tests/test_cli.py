"""Bad input gets one line that names the key, exit code 2, and nothing is created."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from hydra_plugins.shapelaw_sweep.plugins import GridConfig, LocalConfig, PlanConfig, SearchConfig, SlurmConfig
from shapelaw.config.help import texts
from shapelaw.config.option import options_of
from shapelaw.verbs.doors import schema_of, verbs
from support import ROOT, TINY, Script, Sweep

SCHEMAS = tuple(schema_of(verb) for verb in verbs())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lr_bas=3"], ["lr_bas", "did you mean lr_base"]),
        (["suite.nam=x"], ["suite.nam", "suite.name"]),
        (["+colour=3"], ["+colour", "no such key"]),
        (["+shape.height=3"], ["+shape.height", "no such key"]),
        (["lr_base=abc"], ["lr_base", "abc", "Float"]),
        (["shape=9x9"], ["shape=9x9", "16x1, 16x2, 32x1"]),
        (["schedule=stairs"], ["schedule=stairs", "constant, cosine, linear, wsd"]),
        (["-m", "shape=glob(z*)"], ["shape=glob(z*)", "matches nothing", "16x1, 16x2, 32x1"]),
        (["-m", "shape=glob(*)", "lr_base=interval(1,2)"], ["interval", "hydra/sweeper=optuna"]),
        (["-m", "shape=glob(*)", "lr_base=1,2", "hydra.sweeper.pair=[[shape,lr_base]]"], ["have different lengths"]),
        (
            ["-m", "shape=16x1,16x2", "lr_base=1,2", "seed=0,1", "hydra.sweeper.pair=[[shape,lr_base],[shape,seed]]"],
            ["pair=[[shape,lr_base],[shape,seed]]", "shape is named twice", "one group"],
        ),
        (["-m", "shape=16x1,16x2", "hydra.sweeper.pair=[[]]"], ["hydra.sweeper.pair=[[]]", "empty"]),
        (["-m", "hydra/launcher=basic", "lr_base=5,2.5"], ["hydra/launcher=basic", "local, slurm, ray, plan"]),
        (["-m", "hydra/sweeper=basic", "hydra/launcher=basic", "lr_base=-1"], ["lr_base=-1", "positive"]),
        (["-m", "hydra/sweeper=basic", "shape=glob(z*)"], ["no run", "hydra/sweeper=grid"]),
        (["sweeps=gemstones"], ["sweeps=gemstones", "sweeps shape, lr_base", "give -m"]),
        (["sweeps=gemstones", "shape.width=20", "lr_base=5"], ["shape.width=20", "head_size=8"]),
        (["lr_base=5,2.5"], ["lr_base=5,2.5", "need -m"]),
        (["shape=glob(*)"], ["shape=glob(*)", "need -m"]),
        (["lr_base=[1"], ["lr_base=[1", "no viable alternative", "KEY=VALUE"]),
        (["lr_base=[5,2.5]"], ["lr_base=[5,2.5]", "as 5,2.5, without brackets"]),
        (["shape=[16x1,32x1]"], ["shape=[16x1,32x1]", "write several as 16x1,32x1, without brackets"]),
        (["shape.width=20"], ["shape.width=20", "head_size=8"]),
        (["-m", "shape=16x1,16x2", "shape.width=20"], ["shape.width=20", "head_size=8"]),
        (["tokens=1000"], ["tokens=1000", "batch_tokens=128", "896 or 1024"]),
        (["data=jsonl"], ["no prepared corpus", "shapelaw prepare"]),
        (["tokens=1e9", "tokens_rounding=up", "force=true"], ["tokens=1,000,000,000", "data.max_epochs=4"]),
        (["tokenizer.vocab_size=300"], ["vocab_size=300", "256"]),
        (["attention=flash"], ["attention=flash", "not on cpu", "attention=sdpa"]),
        (["parallel=axonn", "parallel.row=2", "devices=3"], ["row 2", "= 2 processes", "devices x num_nodes = 3"]),
        (
            ["parallel=axonn", "parallel.row=2", "devices=2"],
            ["parallel.row=2", "does not divide the 1 key-value heads"],
        ),
        (["parallel=fsdp"], ["parallel=fsdp with one process", "devices=2 or more"]),
        (["tracker.uri=http://127.0.0.1:9"], ["tracker.uri=http://127.0.0.1:9", "Connection refused", "tracker=none"]),
        (["tracker.uri=file:///tmp/x"], ["tracker.uri=file:///tmp/x", "sqlite"]),
        (["tokens=1e15", "tokens_rounding=up"], ["hours on this machine", "force=true"]),
    ],
)
def test_bad_input(here: Script, outputs: Path, arguments: list[str], words: list[str]) -> None:
    done = here("train.py", *arguments)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("shapelaw: ")
    assert all(word in done.stderr for word in words), done.stderr
    assert not outputs.exists()


def test_a_process_of_its_own_says_it_as_well(script: Script) -> None:
    done = script("train.py", "lr_bas=3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("shapelaw: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["hydra:", "  sweeper:", "    parms: {}"], ["sweeps/mine.yaml", "'parms'", "'params'"]),
        (["lr_bas: 3"], ["sweeps/mine.yaml", "'lr_bas'", "Did you mean: 'lr_base'"]),
        (["lr_base: abc"], ["sweeps/mine.yaml: lr_base", "'abc'", "Float"]),
        (["suite:", "  name: x", " seed: 1"], ["sweeps/mine.yaml, line 4", "YAML", "indentation"]),
        (["hydra.sweeper.params: {}"], ["sweeps/mine.yaml", "hydra.sweeper.params"]),
        (["hydra: {sweeper: {params: {lr_base: [5, abc]}}}"], ["lr_base=abc", "Float"]),
        (["hydra: {sweeper: {params: {shape: [16x1, 99x1]}}}"], ["shape=99x1", "16x1, 16x2, 32x1"]),
        (
            ["hydra: {sweeper: {params: {shape: '${suite.step_batch_shapes}'}}}"],
            ["params.shape: ${suite.step_batch_shapes} is empty", "suite.yaml"],
        ),
        (["hydra: {sweeper: {params: {optim: {beta1: 0.9}}}}"], ["params.optim", "optim.NAME: VALUES"]),
        (["hydra: {sweeper: {params: {lr_base: null}}}"], ["lr_base=null", "not Optional"]),
        (
            ["hydra: {sweeper: {params: {shape: '${suite.shapes}'}}}"],
            ["params.shape", "'suite.shapes' not found", "name a"],
        ),
        ([], ["sweeps/mine.yaml", "# @package _global_ its first line"]),
    ],
)
def test_mistakes_in_a_sweep_s_file(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], words: list[str]
) -> None:
    """A suite's folder may hold sweeps of its own."""
    suite = shutil.copytree(TINY, tmp_path / "tiny")
    (suite / "sweeps").mkdir()
    (suite / "sweeps" / "mine.yaml").write_text("\n".join(["# @package _global_" if lines else "", *lines, ""]))
    monkeypatch.setenv("SHAPELAW_SUITE", str(suite))
    done = sweep("-m", "sweeps=mine")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    ("params", "runs"),
    [
        (["lr_base: [5, 2.5]"], ["16x1 lr_base=5", "16x1 lr_base=2.5"]),
        (["lr_base: 5,2.5"], ["16x1 lr_base=5", "16x1 lr_base=2.5"]),  # as the command line has it
        (["shape: ${suite.extremes}", "lr_base: [1e-4]"], ["16x2 lr_base=0.0001", "32x1 lr_base=0.0001"]),
        (["shape: glob(16*)", "lr_base: 5"], ["16x1 lr_base=5", "16x2 lr_base=5"]),
        (["tokens: ${suite.branches}"], ["16x1 lr_base=5 steps=16", "16x1 lr_base=5 steps=20"]),
    ],
)
def test_a_sweep_s_file_has_its_values_as_lists(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: list[str], runs: list[str]
) -> None:
    suite = shutil.copytree(TINY, tmp_path / "tiny")
    (suite / "sweeps").mkdir()
    lines = ["# @package _global_", "hydra:", "  sweeper:", "    params:", *(f"      {line}" for line in params), ""]
    (suite / "sweeps" / "mine.yaml").write_text("\n".join(lines))
    monkeypatch.setenv("SHAPELAW_SUITE", str(suite))
    done = sweep("-m", "sweeps=mine", "hydra/launcher=plan")
    assert done.returncode == 0, done.stderr
    assert f"{len(runs)} runs" in done.stdout
    assert all(run in done.stdout for run in runs), done.stdout


def test_comma_strings_in_a_suite_are_lists_now(here: Script, tmp_path: Path) -> None:
    suite = shutil.copytree(TINY, tmp_path / "tiny")
    text = (suite / "suite.yaml").read_text()
    (suite / "suite.yaml").write_text(text.replace("[2048, 2560]", "2048,2560"))
    for name, arguments in (("train.py", ()), ("fit.py", ())):
        done = here(name, *arguments, SHAPELAW_SUITE=str(suite))
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert "suite.yaml: suite.branches" in done.stderr
        assert "must be a list, [A, B]" in done.stderr


def test_output_that_nobody_reads_any_more_is_no_error(outputs: Path) -> None:
    """As in `train.py --help | head`."""
    command = [sys.executable, str(ROOT / "train.py"), "--cfg", "job"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as shown:
        assert shown.stdout is not None
        assert shown.stderr is not None
        shown.stdout.close()
        assert (shown.stderr.read(), shown.wait(100)) == ("", 141)


def test_an_unknown_suite_is_named(here: Script) -> None:
    done = here("train.py", SHAPELAW_SUITE="micro-nano")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "SHAPELAW_SUITE=micro-nano" in done.stderr
    assert "gemstones, micro, micro_steps, nano" in done.stderr


def test_the_paper_s_sweep_is_refused_here_with_its_cost(here: Script, outputs: Path) -> None:
    done = here("train.py", "-m", "shape=glob(*)", "lr_base=5,2.5", SHAPELAW_SUITE="gemstones")
    assert done.returncode == 2
    assert all(
        word in done.stderr for word in ("44 runs", "FLOPs", "hours", "GiB", "SHAPELAW_SUITE=nano", "force=true")
    )
    assert not outputs.exists()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("coordinates", "random_tokens"),
        ("fit", "law"),
        ("prepare", "data"),
        ("prescribe", "objective.price"),
        ("report", "report.tables"),
        ("train", "shape"),
    ],
)
def test_help_says_what_there_is(name: str, key: str, here: Script) -> None:
    done = here(f"{name}.py", "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"python {name}.py ")
    assert max(map(len, done.stdout.splitlines())) <= 128
    keys = dict(line.split()[0].split("=", 1) for line in done.stdout.splitlines() if re.match(r"  \w[\w./]*=", line))
    assert key in keys
    assert keys["outputs_dir"].endswith("outputs")


def test_help_has_the_values_of_the_command_line(here: Script) -> None:
    shown = here("train.py", "shape=32x1", "lr_base=2.5", "hydra/launcher=slurm", "-h").stdout
    assert all(line in shown for line in ("  shape.width=32 ", "  lr_base=2.5 ", "  hydra.launcher.partition=null "))
    assert re.search(r"  shape=32x1 +16x1, 16x2, 32x1\n", shown)
    swept = here("train.py", "-m", "lr_base=5,2.5", "--help")
    assert (swept.returncode, "  lr_base=5 " in swept.stdout) == (0, True)
    refused = here("train.py", "--help", "lr_bas=3")
    assert (refused.returncode, "did you mean lr_base" in refused.stderr) == (2, True)


def every_option(schema: type) -> Iterator[tuple[type, str]]:
    """Every option of a schema and of those inside it, with the dataclass it stands in."""
    for name, annotation in get_type_hints(schema).items():
        yield from every_option(annotation) if is_dataclass(annotation) else [(schema, name)]


@pytest.mark.parametrize("schema", [*SCHEMAS, GridConfig, LocalConfig, SearchConfig, SlurmConfig, PlanConfig])
def test_every_option_is_explained_and_of_a_type(schema: type) -> None:
    plain = [
        f"{part.__name__}.{name}"
        for part, name in every_option(schema)
        if name != "_target_" and not (texts(part).get(name) and options_of(part)[name][1].meaning)
    ]
    assert not plain
    fragment = re.compile("(Of|Its|So|That) ")  # help shows a line apart from the one above it
    told = {
        f"{part.__name__}.{name}": options_of(part)[name][1].meaning
        for part, name in every_option(schema)
        if name != "_target_"
    }
    assert not {name: text for name, text in told.items() if fragment.match(text)}


def test_help_imports_nothing_that_does_the_work(tmp_path: Path) -> None:
    """Of every verb, one after the other in one process: options and their texts are all that help needs."""
    code = (
        "import sys\n"
        "from shapelaw.verbs.main import main\n"
        f"for verb in {verbs()}:\n"
        "    sys.argv = [verb, '--help']\n"
        "    try: main(verb)\n"
        "    except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'lightning', 'mlflow', 'matplotlib', 'numba', 'scipy', 'pandas', 'numpy'} & set(sys.modules)\n"
        "sys.stderr.write(f'heavy: {sorted(heavy)}')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "heavy: []")
    assert all(f"python {verb}.py [" in done.stdout for verb in verbs())
    assert "lr_base" in done.stdout


@pytest.mark.parametrize("name", ["train", "prepare"])
def test_scripts_are_thin(name: str) -> None:
    tree = ast.parse((ROOT / f"{name}.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
