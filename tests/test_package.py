"""What is installed: the extra, the wheel's files, commands without options, and where outputs lie."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from numba.core.caching import CacheImpl

from shapelaw import __version__
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.extras import TRAIN, require
from shapelaw.fitting import compiling
from shapelaw.verbs import demo, doors, examples, init, sweeps, ui
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.fit import load_table
from shapelaw.verbs.main import set_environment
from shapelaw.verbs.messages import explain
from support import ROOT, TINY, Compose

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_-]+", requirement)
    assert found
    return found[0]


def test_the_extra_is_what_the_program_says_it_is() -> None:
    assert set(map(name_of, PROJECT["project"]["optional-dependencies"]["train"])) == set(TRAIN)
    assert not set(map(name_of, PROJECT["project"]["dependencies"])) & set(TRAIN)


def without(modules: tuple[str, ...], code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own, in which modules of these names are not installed."""
    hidden = f"""
import sys
from importlib.abc import MetaPathFinder

class Hidden(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in {modules}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {modules} else find_spec(name, package)
sys.meta_path.insert(0, Hidden())
"""
    return subprocess.run(
        [sys.executable, "-c", hidden + code], capture_output=True, text=True, check=False, timeout=100, cwd=folder
    )


VERB = "import sys; sys.argv = {words}; from shapelaw.verbs.main import run_verb; run_verb()"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "training needs torch, which is not installed; run: pip install 'shapelaw[train]'"),
        (["export", "run=x", "out=y"], "torch is not installed; run: pip install 'shapelaw[train]'"),
        (["train", "-m", "hydra/launcher=slurm", "seed=0,1"], "submitit is not installed; run: pip install"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_missing_extra_is_one_line(outputs: Path, corpora: Path, tmp_path: Path, words: list[str], said: str) -> None:
    given = [f"data_dir={corpora}"] if words[0] == "train" else []
    done = without(TRAIN, VERB.format(words=["shapelaw", *words, *given]), tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"shapelaw: {said}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not outputs.exists()


@pytest.mark.slow
def test_training_that_is_not_tracked_needs_no_tables_no_tracker_and_no_compiler(
    outputs: Path, corpora: Path, tmp_path: Path
) -> None:
    """As on a GPU node that has torch and little else."""
    tiny = ["tokens=256", "warmup_tokens=128", "validation.every_tokens=256", "tracker=none", "accelerator=cpu"]
    words = ["shapelaw", "train", *tiny, f"data_dir={corpora}"]
    done = without(("mlflow", "pandas", "pyarrow", "numba"), VERB.format(words=words), tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^step 2/2, 256 tokens: loss \d\.\d+, held out \d\.\d+", done.stderr, re.M), done.stderr


def test_another_missing_module_is_a_fault_of_the_program() -> None:
    assert explain(ModuleNotFoundError("No module named 'shapelow'", name="shapelow")) is None
    with pytest.raises(UserError, match=r"^this needs shapelow, which is not installed"):
        require("this", "sys", "shapelow")


def test_fits_are_tracked_where_mlflow_is_installed(composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere they are folders all the same, and only tracked runs cannot be read."""
    for there, name in ((True, "mlflow"), (False, "none")):
        monkeypatch.setattr("shapelaw.verbs.suites.installed", lambda module, there=there: there)
        with initialize_config_dir(str(ROOT / "conf")):
            asked = to_dataclass(compose("fit"))
        assert asked.tracker.name == name
    monkeypatch.setattr("shapelaw.extras.installed", lambda module: False)
    said = (
        "runs=mlflow needs mlflow, which is not installed; run: pip install 'shapelaw[train]', or give your own table"
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}"):
        load_table(asked.runs)


def test_an_older_python_is_refused_in_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.version_info = (3, 10, 4); import shapelaw"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("shapelaw needs Python 3.11 or newer; this is ")
    assert ast.parse((ROOT / "src/shapelaw/__init__.py").read_text(), feature_version=(3, 7))


def test_outputs_lie_in_the_working_directory(
    composed: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given, place in ((None, "outputs"), ("elsewhere", "elsewhere"), (f"{TINY}/x", f"{TINY}/x")):
        monkeypatch.delenv("SHAPELAW_OUTPUTS") if given is None else monkeypatch.setenv("SHAPELAW_OUTPUTS", given)
        with initialize_config_dir(str(ROOT / "conf")):
            config = to_dataclass(compose("prepare"))
        assert config.outputs_dir == str(tmp_path / place)
        assert config.data_dir == f"{tmp_path / place}/corpora"


def test_a_wheel_holds_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package has conf/ and sweeps/ beside the modules, and is never asked for a commit of the folder it lies in."""
    from shapelaw.verbs.train import git_commit

    (tmp_path / "conf").mkdir()
    assert not doors.is_wheel()
    assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", git_commit())
    monkeypatch.setattr(doors, "PACKAGE", tmp_path)
    assert (doors.is_wheel(), doors.project_root()) == (True, tmp_path)
    assert git_commit() == f"v{__version__}"
    placed = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]
    assert placed == {"src": "", "conf": "shapelaw/conf", "sweeps": "shapelaw/sweeps", "examples": "shapelaw/examples"}


@pytest.fixture
def in_tiny(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHAPELAW_ROOT", "SHAPELAW_SUITE_DIR"):
        monkeypatch.setenv(name, "")
    set_environment(ROOT)


def test_the_examples_are_copied_and_never_over_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    examples.examples([])
    theirs = {path.name: path.read_bytes() for path in (ROOT / "examples").glob("*.py")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "examples").iterdir()} == theirs
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == len(theirs)
    assert "examples/plain_torch.py: A plain PyTorch script that knows nothing of shapelaw" in listed[-2]
    examples.examples(["examples"])
    (tmp_path / "examples/lion.py").write_text("mine")
    with pytest.raises(UserError, match=r"examples/lion\.py: exists already, with other content"):
        examples.examples([])
    assert (tmp_path / "examples/lion.py").read_text() == "mine"
    for words in (["a", "b"], ["-m"], ["folder=a"]):
        with pytest.raises(UserError, match="takes one folder and nothing else; give examples FOLDER"):
            examples.examples(words)


@pytest.mark.usefixtures("in_tiny")
def test_the_named_sweeps_are_listed_with_their_questions(capsys: pytest.CaptureFixture[str]) -> None:
    sweeps.show([])
    listed = capsys.readouterr().out
    files = {path.stem for path in (ROOT / "sweeps").glob("*.yaml")}
    assert {*re.findall(r"^shapelaw (?:fit|train) -m sweeps=(\S+)$", listed, re.M)} == files
    assert "shapelaw fit -m sweeps=demo\n    what do the suite's runs say about parameters" in listed
    assert "shapelaw train -m sweeps=lr_search\n    where is the best rate of each" in listed
    assert all(sweeps.NamedSweep.read(file).question.endswith(("?", ".")) for file in sweeps.sweep_files().values())


@pytest.mark.usefixtures("in_tiny")
def test_every_named_sweep_is_of_one_verb_and_refused_by_the_other() -> None:
    of = {name: sweeps.NamedSweep.read(file).verbs for name, file in sweeps.sweep_files().items()}
    assert {name for name, verbs in of.items() if verbs == ["fit"]} >= {"demo", "delta_grid"}
    assert {name for name, verbs in of.items() if verbs == ["train"]} >= {"gemstones", "lr_search", "step_batch"}
    assert all(len(verbs) == 1 for verbs in of.values()), of
    for name, (verb,) in of.items():
        other = "train" if verb == "fit" else "fit"
        said = f"sweeps={name}: is a sweep of {verb}; run: shapelaw {verb} -m sweeps={name}"
        with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
            sweeps.check_sweep(other, ["-m", f"sweeps={name}"])
        sweeps.check_sweep(verb, ["-m", f"sweeps={name}"])
    sweeps.check_sweep("train", ["-m", "sweeps=nope"])  # Hydra lists those that there are


@pytest.mark.parametrize("text", ["a: [", "- a", "hydra: {sweeper: }", "defaults: [x]\nlr_bas: 3", ""])
def test_a_file_with_mistakes_is_left_to_its_verb(
    in_tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SHAPELAW_SUITE_DIR", str(tmp_path))
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(text)
    sweeps.check_sweep("train", ["-m", "sweeps=mine"])


def test_a_suite_s_own_sweeps_are_listed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHAPELAW_ROOT", str(ROOT))
    monkeypatch.setenv("SHAPELAW_SUITE_DIR", str(tmp_path))
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("# @package _global_\n# Question: which seed?\n# Any.\nseed: 1\n")
    assert sweeps.NamedSweep.read(sweeps.sweep_files()["mine"]).question == "which seed? Any."


@pytest.mark.usefixtures("in_tiny")
def test_a_new_suite_composes_and_is_named_by_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my suites" / "books"
    init.init([str(folder)])
    said = capsys.readouterr().out
    assert f"export SHAPELAW_SUITE='{folder}'\n" in said
    assert [path.name for path in folder.parent.iterdir()] == ["books"]
    monkeypatch.setenv("SHAPELAW_SUITE", str(folder))
    set_environment(ROOT)
    store_schemas()
    for verb in ("train", "prepare"):
        with initialize_config_dir(str(ROOT / "conf")):
            config = to_dataclass(compose(verb))
        assert config.data.source.name == "stdlib"
    with initialize_config_dir(str(ROOT / "conf")):
        assert compose("train").suite.name == "books"


@pytest.mark.usefixtures("in_tiny")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "init: takes one folder for the new suite and nothing else"),
        (["a", "b"], "init a b: takes one folder"),
        (["folder=a"], "init folder=a: takes one folder"),
        (["here"], "exists already; give a new or empty folder"),
        (["a:b"], "a:b: a suite's name has letters and digits"),
    ],
    ids=str,
)
def test_what_is_no_new_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x").touch()
    with pytest.raises(UserError, match=re.escape(said)):
        init.init(words)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["here", "here/x"]


@pytest.mark.usefixtures("in_tiny")
def test_commands_take_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (demo.demo, sweeps.show):
        with pytest.raises(UserError, match=r"^x=1: (demo|sweeps) takes no arguments; "):
            command(["x=1"])


def test_the_demo_runs_its_steps_in_order_and_ends_at_one_that_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ran = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        ran.append(tuple(command[3:]))
        return subprocess.CompletedProcess(command, int(len(ran) == 2 and not os.environ.get("AGAIN")))

    monkeypatch.setattr(demo.subprocess, "run", run)
    with pytest.raises(demo.WorkFailed, match=r"^the demo stopped at: shapelaw train -m 'shape=glob\(\*\)'"):
        demo.demo([])
    assert ran == [*demo.STEPS[:2]]
    ran.clear()
    monkeypatch.setenv("AGAIN", "1")
    demo.demo([])
    assert ran == [*demo.STEPS]
    assert {step[0] for step in demo.STEPS} <= set(doors.verbs())


def test_the_pages_are_served_on_the_loopback_address(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mlflow\.db: there is no such database yet; train some runs"):
        ui.server([], tmp_path)
    (tmp_path / "mlflow.db").touch()
    said = " ".join(ui.server([], tmp_path))
    assert said.startswith("-m mlflow server --host 127.0.0.1 --port 5000 ")
    assert f"--backend-store-uri sqlite:///{tmp_path}/mlflow.db --default-artifact-root {tmp_path}/mlflow" in said
    assert "--port 6000 " in " ".join(ui.server(["6000"], tmp_path))
    for words in (["0"], ["65536"], ["x"], ["5000", "x"], ["-1"], [""]):
        with pytest.raises(UserError, match=r"takes one port and nothing else; allowed values are 1 to 65535$"):
            ui.server(words, tmp_path)


def test_where_no_folder_takes_the_cache_the_solvers_are_compiled_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a package of root's, used without a home folder."""
    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    compiling._say_uncached.cache_clear()
    kernels = [compiling.callable_kernel(lambda x, k=k: x + k) for k in range(2)]
    assert [kernel(1.5) for kernel in kernels] == [1.5, 2.5]
    assert [record.getMessage().partition(",")[0] for record in caplog.records] == [
        "the compiled solvers cannot be saved"
    ]
