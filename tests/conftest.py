"""Shared fixtures."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from mlflow_database import copy_from_now_on
from prepared import Prepared, Started, is_read_at_import, read_at_import
from shapelaw.collector import collect_seldom
from shapelaw.data import BytesChoice, TextSource, prepare
from shapelaw.errors import UserError
from shapelaw.runs.fetch import DATA_DIR_VARIABLE, fetch_all
from shapelaw.tracking import open_store
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.main import main, run_verb, set_environment
from support import ROOT, TINY, Compose, Door, InProcess, Program, Script, Start, Sweep

collect_seldom()

STARTED_WITH = dict(os.environ)
"""The environment before the first test."""
ONE_WORKER = (
    "tests/slurm/",
    "tests/test_conf.py",
    "tests/sweep/test_ray.py",
    "tests/test_processors.py",
    "tests/parallel/test_parallel.py",
    "tests/parallel/test_axonn_faults.py",
    "tests/tracking/test_postgresql.py",
    "tests/tracking/test_server_away.py",
)
"""Tests that share what takes long to start, or a cluster's nodes: each of these runs in one worker."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Every test goes wherever there is room, but those of ONE_WORKER stay together. (xdist 3.8's own mark
    for it reads a field that pytest 9.2's items do not have any more.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((path for path in ONE_WORKER if nodeid.startswith(path)), nodeid)

    return Together(config, log)


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """What a test, or a library that it is the first to import, leaves in the environment ends with the test."""
    kept = dict(os.environ)
    yield
    for name in set(os.environ) - set(kept):
        del os.environ[name]
    os.environ.update(kept)


@pytest.fixture(autouse=True)
def copied_databases() -> None:
    """Where MLflow is imported already."""
    if utils := sys.modules.get("mlflow.store.db.utils"):
        copy_from_now_on(utils)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder with the published runs and fits: SHAPELAW_DATA_DIR's, or fetched; offline the test is skipped with a reason."""
    try:
        return fetch_all().resolve()
    except UserError as error:
        if os.environ.get(DATA_DIR_VARIABLE):
            raise
        pytest.skip(f"published data not at hand: {error}")


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of prepared corpora: `text-bytes`, 40 documents of numbers in words' order."""
    texts = tmp_path_factory.mktemp("texts")
    for number in range(40):
        words = (f"{number * 7919 + k * k} is followed by {number * 7919 + (k + 1) ** 2}.\n" for k in range(60))
        (texts / f"{number}.txt").write_text("".join(words))
    folder = tmp_path_factory.mktemp("corpora")
    prepare(
        TextSource((str(texts),)), BytesChoice(), folder / "text-bytes", val_fraction=0.2, shard_tokens=2**15, workers=1
    )
    return folder


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without an experiment: making one takes seconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    open_store(f"sqlite:///{path}", str(path.parent), "another")
    return path


@pytest.fixture
def uri(tmp_path: Path, template: Path) -> str:
    """A database that holds nothing."""
    path = tmp_path / "store" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh outputs folder that the scripts and compositions of this test use, and the tiny suite."""
    folder = tmp_path / "outputs"
    monkeypatch.setenv("SHAPELAW_OUTPUTS", str(folder))
    monkeypatch.setenv("SHAPELAW_SUITE", str(TINY))
    return folder


@pytest.fixture
def composed(outputs: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> Compose:
    """Composes a script's configuration from overrides, on the tiny suite and its corpus, without tracking."""
    monkeypatch.setenv("SHAPELAW_ROOT", str(ROOT))
    set_environment(ROOT)
    store_schemas()

    def composer(*overrides: str, name: str = "train") -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf")):
            return compose(name, [f"data_dir={corpora}", "tracker=none", *overrides])

    return composer


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is heard here and in children, also where the suite was started as a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def prepared_processes() -> Iterator[Prepared]:
    """What the processes of scripts are forked from."""
    made = Prepared(STARTED_WITH)
    yield made
    made.end()


def environment_of_scripts() -> dict[str, str]:
    """This one, but for what a library that was imported here has set for itself: as if the script were called from a shell."""
    set_here = {name: value for name, value in os.environ.items() if not is_read_at_import(name)}
    return {**set_here, **read_at_import(STARTED_WITH)}


@pytest.fixture
def script(outputs: Path, corpora: Path, prepared_processes: Prepared) -> Script:
    """Runs a script of the project in a process of its own on the tiny suite."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        words, whole = [*arguments, f"data_dir={corpora}"], {**environment_of_scripts(), **environment}
        if prepared_processes.fits(whole):
            return prepared_processes.run(ROOT / name, words, whole, timeout_s=300)
        command = [sys.executable, str(ROOT / name), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=whole)

    return run


@pytest.fixture
def start(outputs: Path, corpora: Path, prepared_processes: Prepared) -> Iterator[Start]:
    """As `script`, but it is left under way; what the test does not end is killed."""
    under_way: list[Started] = []

    def run(name: str, *arguments: str) -> Started:
        words = [*arguments, f"data_dir={corpora}"]
        under_way.append(prepared_processes.start(ROOT / name, words, environment_of_scripts()))
        return under_way[-1]

    yield run
    for started in under_way:
        started.end()


@pytest.fixture
def program(prepared_processes: Prepared) -> Program:
    """Runs `shapelaw ARGUMENTS` in a process of its own."""
    installed = Path(sys.executable).with_name("shapelaw")
    return lambda *words: prepared_processes.run(installed, words, environment_of_scripts(), timeout_s=300)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> InProcess:
    """Calls in this process what ends as a program does, for a command line: its exit code and what it says."""

    def run(call: Callable[[], object], *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with monkeypatch.context() as changed:
            changed.setattr(sys, "argv", list(words))
            for variable, value in environment.items():
                changed.setenv(variable, value)
            with pytest.raises(SystemExit) as ended:
                call()
        said = capsys.readouterr()
        return subprocess.CompletedProcess(words, int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def here(in_process: InProcess, outputs: Path, corpora: Path) -> Script:
    """As `script`, but in this process: for what a script says and writes, where nothing depends on how it was started."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        verb = name.removesuffix(".py")
        return in_process(partial(main, verb), name, *arguments, f"data_dir={corpora}", **environment)

    return run


@pytest.fixture
def opened(in_process: InProcess, outputs: Path) -> Program:
    """Runs `shapelaw ARGUMENTS` in this process."""
    return partial(in_process, run_verb, "shapelaw")


@pytest.fixture
def sweep(here: Script) -> Sweep:
    """train.py in this process, so that all sweeps of a test session share one server of prepared processes."""
    return partial(here, "train.py")


@pytest.fixture
def door(in_process: InProcess) -> Door:
    """Runs a verb in this process; its exit code, and all that it says."""

    def run(verb: str, *words: str) -> tuple[int, str]:
        done = in_process(partial(main, verb), verb, *words)
        return done.returncode, done.stdout + done.stderr

    return run
