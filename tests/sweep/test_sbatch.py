"""What sbatch is given: golden scripts, arrays, dependencies; and what is made of SLURM's words. No scheduler is needed."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from shapelaw.config import ResourcesConfig
from shapelaw.errors import UserError
from shapelaw.run_state import State, Status
from shapelaw.sweep.accounting import Standing, judge, own_words
from shapelaw.sweep.resources import Resources, resources_of
from shapelaw.sweep.sbatch import Array, arrays_of, branches_of, script_of
from shapelaw.sweep.settings import SlurmSettings
from shapelaw.sweep.task import Job
from support import ROOT, Compose, Script, Sweep

GOLDEN = ROOT / "tests" / "golden"
ONE = Resources(1, 0, 1, 1, None, 120)


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit refuses to write scripts where there is no srun."""
    if shutil.which("srun") is None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "srun").write_text("#!/bin/sh\n")
        (tmp_path / "bin" / "srun").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def job(name: str, tokens: int = 1, after: str | None = None, splits: int = 2048, **request: int) -> Job:
    return Job(
        name,
        name,
        Path("/nowhere") / name,
        cost=tokens,
        tokens=tokens,
        after=after,
        splits=splits,
        request=ResourcesConfig(**request),
    )


def site(name: str, *overrides: str) -> SlurmSettings:
    """Settings of a launcher as Hydra composes them."""
    with initialize_config_dir(str(ROOT / "conf")):
        config = compose("train", [f"hydra/launcher={name}", *overrides], return_hydra_config=True)
    settings = OmegaConf.to_container(config.hydra.launcher)
    assert isinstance(settings, dict)
    return SlurmSettings(**{str(key): value for key, value in settings.items() if key != "_target_"})


@pytest.mark.parametrize(
    ("golden", "launcher", "overrides", "nodes"),
    [
        ("slurm", "slurm", ("hydra.launcher.partition=batch", "hydra.launcher.max_jobs=4"), 1),
        ("frontier_32", "frontier", ("hydra.launcher.account=ABC123",), 32),
        ("frontier_128", "frontier", ("hydra.launcher.account=ABC123",), 128),
    ],
)
def test_golden_scripts(
    composed: Compose, srun: None, golden: str, launcher: str, overrides: tuple[str, ...], nodes: int
) -> None:
    settings = replace(site(launcher, *overrides), python="/opt/python")
    planned = job("run", nodes=nodes)
    array = Array(
        resources_of(planned, settings), {0: (planned,), 1: (planned,), 2: (planned,), 7: (planned,)}, after="41"
    )
    text = script_of(array, Path("/sweep/batch"), settings, settings.max_jobs)
    path = GOLDEN / f"{golden}.sbatch"
    if os.environ.get("SHAPELAW_WRITE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), "if the change is meant: SHAPELAW_WRITE_GOLDEN=1 python -m pytest " + __file__
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_equal_resources_share_arrays_of_the_allowed_length() -> None:
    big = Resources(2, 0, 1, 1, None, 120)
    jobs = [(job(f"a{n}", n), ONE) for n in range(12)] + [(job("b", 99), big)]
    arrays = arrays_of(jobs, longest=5, pack=1)
    assert sorted(len(array.tasks) for array in arrays) == [1, 2, 5, 5]
    assert [runs[0].identity for runs in arrays[1].tasks.values()] == ["a11", "a10", "a9", "a8", "a7"], "dearest first"
    assert sum(len(array.runs) for array in arrays) == 13
    packed = arrays_of(jobs[:12], longest=5, pack=8)
    assert [len(runs) for runs in packed[0].tasks.values()] == [8, 4]
    assert ONE.packed(3) == Resources(1, 0, 1, 3, None, 120)


def test_branches_follow_their_parents_number_by_number() -> None:
    parents = {"p0": "7_0", "p3": "7_3", "q1": "8_1"}
    jobs = [(job(f"{p}@{t}", t, after=p), ONE, place) for p, place in parents.items() for t in (20, 10)]
    arrays = branches_of(jobs, pack=1)
    found = {(array.after, tuple((n, c[0].identity) for n, c in sorted(array.tasks.items()))) for array in arrays}
    assert found == {
        ("7", ((0, "p0@10"), (3, "p3@10"))),
        ("7", ((0, "p0@20"), (3, "p3@20"))),
        ("8", ((1, "q1@10"),)),
        ("8", ((1, "q1@20"),)),
    }


def test_time_grows_with_the_nodes(composed: Compose) -> None:
    frontier = site("frontier")
    assert [resources_of(job("a", nodes=n), frontier).timeout_min for n in (1, 64, 128, 256)] == [120, 120, 360, 720]
    assert resources_of(job("a", nodes=64), frontier) == Resources(64, 8, 8, 7, 0, 120)
    assert resources_of(job("a", nodes=64, timeout_min=30, splits=512), frontier).timeout_min == 30


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"resources.nodes=3.*do not divide its batch of 8 sequences"):
        resources_of(job("a", splits=8, nodes=3), SlurmSettings())
    with pytest.raises(UserError, match=r"a: takes one process.* 4 .*hydra.launcher.tasks_per_node=1"):
        resources_of(job("a", splits=0), SlurmSettings(gpus_per_node=4))
    with pytest.raises(UserError, match=r"hydra.launcher.pack=2: only runs of one node"):
        resources_of(job("a", splits=8, nodes=2), SlurmSettings(pack=2))


def test_the_two_records_agree_or_say_so() -> None:
    done, running = State(Status.finished, 20), State(Status.running, 12)
    assert judge(done, "COMPLETED") == (Standing.finished, "", "")
    assert judge(done, "RUNNING") == (Standing.finished, "", "")
    assert "SLURM says FAILED" in judge(done, "FAILED")[2]
    assert judge(State(), "PENDING")[0] is Standing.queued
    assert judge(State(Status.interrupted, 3), "REQUEUED")[0] is Standing.queued
    assert judge(running, "RUNNING")[0] is Standing.running
    standing, reason, note = judge(running, "COMPLETED")
    assert standing is Standing.failed
    assert note == reason == "SLURM says COMPLETED, but its records say running after step 12"
    assert judge(State(Status.failed, 3, reason="diverged"), "FAILED")[1] == "diverged (SLURM: FAILED)"
    assert judge(State(), "CANCELLED")[1] == "it never started (SLURM: CANCELLED)"
    assert judge(State(), None) == (Standing.new, "", "")


def test_slurms_own_words() -> None:
    text = "sbatch: error: invalid partition specified: nope\nsbatch: error: Batch job submission failed: Invalid\n"
    assert own_words(text) == "invalid partition specified: nope; Batch job submission failed: Invalid"
    assert own_words("allocation failure: too many\n") == "allocation failure: too many"


def test_without_slurm_it_says_so(script: Script, outputs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = script("train.py", "-m", "shape=16x1", "lr_base=5,2", "hydra/launcher=slurm", PATH=str(tmp_path / "empty"))
    assert done.returncode == 2
    assert "sbatch is not found" in done.stderr
    assert not outputs.exists()


def test_a_site_with_an_unknown_key_is_refused(script: Script, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "hydra" / "launcher"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text("defaults: [slurm, _self_]\npartitoin: batch\n")
    places = (tmp_path / "conf", ROOT / "tests/suites/tiny", ROOT, ROOT / "conf/training")
    search = f"hydra.searchpath=[{','.join(f'file://{place}' for place in places)}]"
    done = script("train.py", "-m", "shape=16x1", "lr_base=5,2", "hydra/launcher=ours", search)
    assert done.returncode == 2
    assert "partitoin" in done.stderr


def test_odd_values_pass_through_intact(composed: Compose) -> None:
    """No shell sees a configuration: it is pickled."""
    odd = 'it\'s "$(touch pwned)" `x`; a=b, {c} \\\n second line %j'
    config = composed()
    config.data.path = odd
    assert pickle.loads(pickle.dumps(config)).data.path == odd


def test_odd_overrides_pass_through_intact(sweep: Sweep, outputs: Path) -> None:
    odd = "a 'quoted' $(touch pwned) `id`; two\nlines"
    override = "data.path='" + odd.replace("'", "\\'") + "'"
    done = sweep("-m", "shape=16x1", "lr_base=5,2", override, "hydra.launcher.workers=1", "tracker=none")
    assert done.returncode == 0, done.stderr
    config = next((outputs / "runs" / "tiny").glob("*/config.yaml"))
    assert OmegaConf.load(config).data.path == odd
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            (key, "batch\ntouch /tmp/x #")
            for key in ("partition", "account", "qos", "constraint", "gpu_type", "python")
        ),
        ("partition", "batch\rx"),
        ("account", "\x1b[2Jx"),
        ("srun", ["--mpi=none\ntouch /tmp/x"]),
        ("setup", ["module load x\ntouch /tmp/x"]),
        ("sbatch", {"comment": "a\ntouch /tmp/x"}),
        ("sbatch", {"comment=a\ntouch": "x"}),
        ("sbatch", {"comment x": "x"}),
        ("sbatch", {"-C": "x"}),
        ("environment", {"A=1; touch /tmp/x #": "1"}),
        ("environment", {"1A": "1"}),
        ("environment", {"A": "1\ntouch /tmp/x"}),
    ],
)
def test_nothing_ends_a_line_of_a_script(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^hydra\.launcher\.{key}.*allowed (values|characters) are"):
        SlurmSettings(**{key: value})


def test_what_a_shell_would_act_on_is_text(srun: None, tmp_path: Path) -> None:
    """A real shell runs the script; only a harmless srun answers."""
    evil = f"$(touch {tmp_path}/a)`touch {tmp_path}/b`; touch {tmp_path}/c"
    settings = SlurmSettings(
        **dict.fromkeys(("partition", "account", "qos", "constraint", "gpu_type", "python"), evil),
        srun=[evil],
        sbatch={"comment": evil},
        environment={"A": evil},
    )
    script = script_of(Array(ONE, {0: (job("x"),)}), tmp_path / "batch", settings, 0)
    calm = tmp_path / "calm"
    calm.mkdir()
    (calm / "srun").write_text("#!/bin/sh\nexit 0\n")
    (calm / "srun").chmod(0o755)
    path = f"{calm}:{os.environ['PATH']}"
    subprocess.run(["bash", "-c", script], check=True, env={**os.environ, "PATH": path}, timeout=60)
    assert sorted(found.name for found in tmp_path.iterdir() if found.is_file()) == []
