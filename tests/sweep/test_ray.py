"""Sweeps by the real Ray on this machine: workers really killed, a launcher really stopped, a plan beside its golden file."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from shapelaw.run_state import State, Status, read_state
from shapelaw.sweep.job_process import Order
from support import ROOT, Script, Start, Sweep

REQUIRED = "SHAPELAW_REQUIRE_RAY"
if os.environ.get(REQUIRED) != "1":
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'shapelaw[ray]'")
GOLDEN = ROOT / "tests" / "golden" / "ray_plan.txt"
PROGRAM = ROOT / "tests" / "command" / "program.py"
FIELDS = "width={shape.width} tokens={tokens} batch={batch_tokens} lr={lr} seed={seed} out={folder} metrics={metrics}"
BRANCH = "parent={parent} first={first_tokens}"
Found = TypeVar("Found")
CURRENT = "ray/ray_current_cluster"
"""File of Ray's folder that holds the address which `auto` takes."""
TRAIN = ("-m", "trainer=command", "tracker=none", "hydra/launcher=ray")


def command(pause: float = 0.0, more: str = "") -> str:
    return f'trainer.command="{{python}} {PROGRAM} {FIELDS} {BRANCH} pause={pause} {more}"'


@pytest.fixture(scope="module")
def head() -> Iterator[Path]:
    """The folder of a cluster that outlives the sweeps: `ray start --head` on this machine, with two cores and a bench."""
    sizes = ["--num-cpus=2", '--resources={"bench": 1}', f"--object-store-memory={80 * 2**20}"]
    words = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port=0", *sizes]
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # a token of its own, as newer versions ask for one and would keep it in the home folder; older ones read neither
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": folder}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with (
            pytest.MonkeyPatch.context() as patch,
            subprocess.Popen([*words, "--include-dashboard=false"], env=environment, **quiet) as process,
        ):
            try:
                await_(lambda: (Path(folder) / CURRENT).is_file())
                for name, value in token.items():
                    patch.setenv(name, value)
                yield Path(folder)
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def cluster(head: Path) -> str:
    """Its address, as an option."""
    return f"hydra.launcher.address={(head / CURRENT).read_text().strip()}"


def await_(find: Callable[[], Found], seconds: float = 300.0) -> Found:
    """Wait until there is something."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.fixture
def launch(script: Script) -> Sweep:
    """Runs train.py in a process of its own: Ray does not like to be started anew in one."""
    return partial(script, "train.py")


def states(outputs: Path, shape: str = "") -> dict[Path, State]:
    return {folder: read_state(folder) for folder in sorted((outputs / "runs" / "tiny").glob(f"{shape}*"))}


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_worker(outputs: Path, shape: str) -> None:
    """Kill Ray's worker of a run that has seen some tokens: its process was forked from a server that the worker started."""
    first, *_ = await_(lambda: running(outputs, shape))
    os.kill(parent_of(parent_of(first.pid)), signal.SIGKILL)


def running(outputs: Path, shape: str = "") -> list[State]:
    """The runs that have seen some tokens."""
    return [s for s in states(outputs, shape).values() if s.status is Status.running and s.tokens > 256]


def test_a_lost_worker_loses_no_run(launch: Sweep, outputs: Path, cluster: str) -> None:
    """SIGKILL to a worker: its run checkpoints, is started again and goes on; its cooldown waits for it. Nothing runs twice."""
    given = (
        *TRAIN,
        command(more="hold=16"),
        "shape=16x1,32x1",
        "cooldown=none,linear10",
        "cooldown.from_tokens=2560",
        cluster,
    )
    killer = threading.Thread(target=kill_worker, args=(outputs, "16x1"))
    killer.start()
    done = launch(*given)
    killer.join()
    assert done.returncode == 0, done.stderr
    assert re.search(r"16x1 lr_base=5: Ray lost it \(.*\); started again, 2 of 3", done.stderr)
    ended = states(outputs)
    assert [state.status for state in ended.values()] == [Status.finished] * 4
    (killed,) = [folder for folder, state in ended.items() if state.attempts == 2]
    assert (killed.name[:4], ended[killed].tokens) == ("16x1", 2560)
    seen = [json.loads(line)["tokens"] for line in (killed / "metrics.jsonl").read_text().splitlines()]
    assert seen == sorted(seen), "it went on from its checkpoint"
    starts = {path: json.loads(path.read_text()) for folder in ended for path in folder.glob("started-*")}
    assert len(starts) == 5
    for path, start in starts.items():
        given_parent = start["argv"][7].removeprefix("parent=")
        if given_parent:
            assert int(path.stem.split("-")[1]) / 1e9 > ended[Path(given_parent)].updated
    again = launch(*given)
    assert again.returncode == 0, again.stderr
    assert "0 runs to do; 4 already finished, skipped" in again.stderr


def test_a_run_that_is_lost_too_often_fails_and_goes_on_at_the_next_start(
    launch: Sweep, outputs: Path, head: Path, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the next start, the cluster is found by itself."""
    given = (*TRAIN, command(more="hold=16"), "shape=16x1", "hydra.launcher.resources={bench: 1}")
    killer = threading.Thread(target=kill_worker, args=(outputs, "16x1"))
    killer.start()
    done = launch(*given, cluster, "hydra.launcher.max_attempts=1")
    killer.join()
    assert done.returncode == 1
    assert "failed 16x1 lr_base=5: Ray lost it: The worker died" in done.stderr
    (folder,) = states(outputs)
    await_(lambda: read_state(folder).status is not Status.running, 20)
    assert read_state(folder).status is Status.interrupted
    monkeypatch.setenv("RAY_TMPDIR", str(head))
    found = launch(*given, "hydra.launcher.address=auto")
    assert found.returncode == 0, found.stderr
    assert json.loads(max(folder.glob("started-*")).read_text())["resume"] == "1"


def test_a_run_that_fails_is_told_and_the_others_go_on(launch: Sweep, outputs: Path) -> None:
    """By a Ray that is started for the sweep, whose files are gone afterwards; a word with spaces arrives as it was given."""
    before = set(Path("/tmp").glob("shapelaw-ray-*"))
    note = "note=$HOME;  * #"
    done = launch(*TRAIN, command(more=f"'{note}' fault={{data.name}}"), "shape=16x1", "data.name=none,exit")
    assert done.returncode == 1, done.stderr
    assert re.search(r"failed .*: the program ended with code 1 \(no such dataset: c4\)", done.stderr)
    assert re.search(r"its log: .*log\.txt", done.stderr)
    assert sorted(state.status.value for state in states(outputs).values()) == ["failed", "finished"]
    argv = [json.loads(path.read_text())["argv"][-2:] for path in outputs.glob("runs/tiny/*/started-*")]
    assert sorted(argv) == [[note, "fault=exit"], [note, "fault=none"]]
    assert set(Path("/tmp").glob("shapelaw-ray-*")) == before


@pytest.fixture
def background(start: Start) -> Iterator[Start]:
    """Starts a launcher as with nohup and &, where SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield partial(start, "train.py")
    signal.signal(signal.SIGINT, before)


def test_a_launcher_that_is_stopped_lets_its_runs_checkpoint(
    launch: Sweep, background: Start, outputs: Path, cluster: str
) -> None:
    """Meanwhile, a second launcher says that it runs elsewhere."""
    given = (*TRAIN, command(more="hold=16+32"), "shape=16x1,32x1", cluster)
    launcher = background(*given)
    await_(lambda: len(running(outputs)) == 2)
    second = launch(*given)
    assert second.returncode == 2
    assert "is running elsewhere: another launcher holds its part" in second.stderr
    launcher.send_signal(signal.SIGTERM)
    _, said = launcher.communicate(timeout=30)
    assert launcher.returncode == 130, said
    for state in states(outputs).values():
        assert (state.status, state.reason[:18]) == (Status.interrupted, "stopped by SIGTERM")
        assert 0 < state.tokens < 2560


def test_a_launcher_that_is_killed_lets_its_runs_checkpoint(background: Start, outputs: Path, cluster: str) -> None:
    """SIGKILL: it can tell nobody, and so its runs find out by themselves."""
    launcher = background(*TRAIN, command(more="hold=16"), "shape=16x1", cluster)
    (before,) = await_(lambda: running(outputs))
    launcher.kill()
    launcher.communicate()
    await_(lambda: not running(outputs), 20)
    (state,) = states(outputs).values()
    assert (state.status, state.reason[:18]) == (Status.interrupted, "stopped by SIGTERM")
    assert before.tokens <= state.tokens < 2560


@pytest.mark.slow
def test_the_built_in_model_trains_as_on_this_machine(launch: Sweep, outputs: Path, cluster: str) -> None:
    losses = []
    for launcher in (("hydra/launcher=ray", cluster), ("hydra/launcher=local",)):
        place = outputs / launcher[0].rpartition("=")[2]
        done = launch(
            "-m", "tracker=none", "shape=16x1", f"outputs_dir={place}", "resources.cpus_per_task=2", *launcher
        )
        assert done.returncode == 0, done.stderr
        (state,) = states(place).values()
        losses.append(state.val_loss)
    assert losses[0] == losses[1]


REFUSED = {
    "resources.cpus_per_task=64": r"16x1 lr_base=5: asks Ray for CPU 64, and no node has that \(the most: CPU 2\)",
    "hydra.launcher.resources={attic: 1}": r"asks Ray for CPU 1, attic 1, and no node has that \(the most: CPU 2, attic 0\)",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_ray_has_no_room_for_is_refused(launch: Sweep, outputs: Path, cluster: str, override: str) -> None:
    done = launch(*TRAIN, command(), "shape=16x1,32x1", override, cluster)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert re.search(REFUSED[override], done.stderr)
    assert not states(outputs)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_where_nothing_answers_is_refused_at_once(sweep: Sweep, outputs: Path, address: str) -> None:
    done = sweep(*TRAIN, command(), "shape=16x1", f"hydra.launcher.address='{address}'")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert f"hydra.launcher.address={address}: nothing answers there" in done.stderr
    assert not states(outputs)


def test_a_run_on_several_nodes_is_refused_before_a_cluster_is_sought(sweep: Sweep, outputs: Path) -> None:
    done = sweep(*TRAIN, command(), "shape=16x1,32x1", "resources.nodes=1,2", "hydra.launcher.address=127.0.0.1:1")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    told = r"resources.nodes=2 \(16x1 .*\): hydra/launcher=ray trains each run on one node; give resources.nodes=1"
    assert re.search(told, done.stderr)
    assert not states(outputs)


def test_where_no_cluster_runs_on_this_machine_any_more_it_is_said(
    sweep: Sweep, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray keeps the address of one that has ended, and would try for minutes."""
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)  # of whoever else uses this machine
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    none = sweep(*TRAIN, command(), "shape=16x1", "hydra.launcher.address=auto")
    (tmp_path / CURRENT).parent.mkdir()
    (tmp_path / CURRENT).write_text("127.0.0.1:1")
    ended = sweep(*TRAIN, command(), "shape=16x1", "hydra.launcher.address=auto")
    for done, told in (
        (none, "Ray is not running on this machine; start it with `ray start --head`, or give HOST:PORT"),
        (ended, r"nothing answers at [\d.]+:1, where this machine's last cluster was"),
    ):
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert re.search(rf"hydra\.launcher\.address=auto: {told}", done.stderr)
    assert not states(outputs)


def test_a_task_has_the_launchers_environment_and_its_own_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from shapelaw.sweep.on_ray import _here

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    sent = {"CUDA_VISIBLE_DEVICES": "0,1", "OMP_NUM_THREADS": "64", "HF_HOME": "/lab"}
    order = Order("run", ("torch",), sent, tmp_path, None, None, None)  # type: ignore[arg-type]
    assert _here(order) == replace(
        order, environment={"CUDA_VISIBLE_DEVICES": "3", "HF_HOME": "/lab"}, preload=("ray", "torch")
    )


def test_the_plan_says_what_ray_is_asked_for(sweep: Sweep, outputs: Path, tmp_path: Path) -> None:
    """Of a site file, beside the golden file, in which this machine's paths are left out; nothing is made."""
    site = tmp_path / "conf" / "hydra" / "launcher" / "lab.yaml"
    site.parent.mkdir(parents=True)
    site.write_text(
        "defaults: [ray, _self_]\ndevice: A100\ngpu_type: A100\ngpus_per_node: 1\ncpus_per_task: 8\nmem_gb: 32\n"
        "resources: {scratch: 1}\n"
    )
    given = (
        "-m",
        "trainer=command",
        command(),
        "shape=16x1,32x1",
        "cooldown=none,linear10",
        "cooldown.from_tokens=2560",
    )
    words = ("--config-dir", str(site.parents[2]), "hydra/launcher=plan", "hydra.launcher.site=lab")
    memory = ("resources.mem_gb=16,64", "hydra.sweeper.pair=[[shape,resources.mem_gb]]")
    done = sweep(*given, *memory, *words)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    for path, name in ((str(outputs), "OUTPUTS"), (sys.executable, "PYTHON"), (str(ROOT), "ROOT")):
        said = said.replace(path, name)
    lines = [re.sub(r"-[0-9a-f]{12}\b", "-IDENTITY", line).rstrip() for line in said.splitlines()]
    if os.environ.get("WRITE_GOLDEN") == "1":
        GOLDEN.write_text("\n".join(lines) + "\n")
    assert lines == GOLDEN.read_text().splitlines()
    assert not outputs.exists()


def test_without_ray_it_is_said_how_to_install_it(sweep: Sweep, outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "shapelaw.sweep.on_ray", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    done = sweep(*TRAIN, command(), "shape=16x1")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "hydra/launcher=ray: ray is not installed; pip install 'shapelaw[ray]'" in done.stderr
