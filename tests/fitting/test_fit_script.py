"""fit.py as users type it, on published runs and on tracked ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from shapelaw import load_fit, load_runs
from shapelaw.runs import RunsTable
from shapelaw.tracking import client
from support import Script, Sweep

DELTAS = ("-m", "runs=gemstones", "subset=hot", "law=params_tokens", "delta=1e-3,1e-4", "bootstrap.n=50")


@pytest.fixture
def published(data_dir: Path, here: Script) -> Script:
    """fit.py on the published data."""

    def run(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return here(name, *arguments, SHAPELAW_DATA_DIR=str(data_dir), **environment)

    return run


def test_a_sweep_of_deltas_leaves_fits_figures_and_runs(published: Script, outputs: Path, data_dir: Path) -> None:
    done = published("fit.py", *DELTAS, "plots=pdf")
    assert done.returncode == 0, done.stderr
    folders = sorted((outputs / "fits").iterdir())
    assert [{file.name for file in folder.iterdir()} for folder in folders] == [
        {
            *("fit.json", "runs.parquet", "log.txt", "tracking.jsonl", "tracking.sent.json"),
            *("loss_flops.png", "loss_flops.pdf", "residuals.png", "residuals.pdf"),
        }
    ] * 2
    objectives = sorted(load_fit(folder).objective for folder in folders)
    assert objectives[0] == pytest.approx(2.0750516e-4, rel=1e-7)  # the best known at delta 1e-4
    assert all(f"{objective:.6g}" in done.stdout for objective in objectives)
    assert "shared: params_tokens hot\n" in done.stdout
    assert {f"delta={load_fit(folder).settings['delta']:g}: {folder}" for folder in folders} <= {
        *done.stdout.splitlines()
    }
    assert RunsTable.read(folders[0] / "runs.parquet").hash == load_runs("gemstones", subset="hot").hash

    store = client(f"sqlite:///{outputs}/mlflow.db")
    runs = store.search_runs([store.get_experiment_by_name("fits").experiment_id])
    fits = [run for run in runs if run.data.tags["shapelaw.kind"] == "fit"]
    parents = [run.info.run_id for run in runs if run.data.tags["shapelaw.kind"] == "sweep"]
    assert {run.data.params["delta"] for run in fits} == {"0.001", "0.0001"}
    assert {run.data.tags["mlflow.parentRunId"] for run in fits} == set(parents)
    assert len(parents) == 1
    assert {"objective", "compute_optimal_exponent", "parameter/alpha", "low/alpha"} <= set(fits[0].data.metrics)
    names = {file.path for file in store.list_artifacts(fits[0].info.run_id)}
    assert {"fit.json", "loss_flops.png", "residuals.png", "runs.parquet"} <= names

    again = published("fit.py", *DELTAS)
    assert "0 fits to do; 2 already finished, skipped" in again.stderr
    assert f"{objectives[0]:.6g}" in again.stdout


def test_fits_that_only_their_options_tell_apart_have_names_of_their_own(published: Script, outputs: Path) -> None:
    options = ("runs=gemstones", "subset=hot", "law=params_tokens", "bootstrap=none", "tracker=none", "plots=false")
    done = published("fit.py", "-m", *options, "holdout=largest", "seed=0,1")
    assert done.returncode == 0, done.stderr
    assert "shared: params_tokens delta=0.0001 hot\n" in done.stdout
    folders = [str(folder) for folder in (outputs / "fits").iterdir()]
    listed = dict(line.split(": ") for line in done.stdout.splitlines() if line.startswith("seed="))
    assert set(listed) == {"seed=0", "seed=1"}
    assert sorted(listed.values()) == sorted(folders)
    assert "held out: mean |error| (mean signed error)" in done.stdout
    one = published("fit.py", *options, "seed=0").stdout
    ends = f"(fit.json, runs.parquet); next: shapelaw prescribe fit={folders[0].rpartition('-')[0]}"
    assert ends in one
    assert one.endswith("budget=FLOPs space=params\n")


def test_tracked_runs_are_fitted_without_their_cooldowns(sweep: Sweep, script: Script, outputs: Path) -> None:
    assert sweep("-m", "shape=glob(*)", "tokens=12800", "cooldown=none,linear10").returncode == 0
    done = script(
        "fit.py", "law=params_tokens", "bootstrap=none", "tracker=none", f"runs.uri=sqlite:///{outputs}/mlflow.db"
    )
    assert done.returncode == 0, done.stderr
    folder = next((outputs / "fits").iterdir())
    table = RunsTable.read(folder / "runs.parquet")
    assert (len(table), set(table.kept["cooldown"])) == (75, {0.0})
    selection = "outside the selection cooldown == 0 and lr_base == 5"
    assert table.exclusions == {"midway through a cooldown": 9, selection: 3}
    assert load_fit(folder).law == "params_tokens"
    assert "E = " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["law=parabola"], ["law=parabola", "interaction", "params_tokens"]),
        (["runs=gemstones", "delta=0"], ["delta=0", "from 1e-15"]),
        (["runs=gemstones", "delta=nan"], ["delta=nan"]),
        (
            ["runs=gemstones", "holdout.kinds=[where]"],
            ["holdout=where: allowed values are largest, latest", "in Python"],
        ),
        (["runs=gemstones", 'subset.where="width > 1e9"'], ["width > 1e9"]),
        (["runs=gemstones", 'subset.where="girth > 1"'], ["girth", "width"]),
        (["runs=gemstones", "starts=everywhere"], ["starts=everywhere", "varpro, grid"]),
        (["runs=gemstones", "solver=newtn"], ["solver=newtn", "newton_torch"]),
        (["runs=gemstones", "law=interaction", 'subset.where="width == 512"'], ["width", "512"]),
        (["runs=chinchilla", "law=interaction"], ["width"]),
        (["runs=chinchilla", "subset=hot"], ["subset=hot", "runs=gemstones"]),
        (["runs=csv", "runs.path=/no/such.csv"], ["/no/such.csv"]),
        ([], ["no such database", "shapelaw train -m"]),
    ],
)
def test_bad_input(here: Script, data_dir: Path, arguments: list[str], words: list[str]) -> None:
    last = "seed=0" if arguments else "runs.uri=sqlite:////nowhere/mlflow.db"
    done = here("fit.py", "tracker=none", *arguments, last, SHAPELAW_DATA_DIR=str(data_dir))
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
