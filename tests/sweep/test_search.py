"""Searches by Optuna on the tiny suite: real studies in a real database, real runs, a launcher really killed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from shapelaw.errors import UserError
from shapelaw.run_state import Status, read_state
from shapelaw.sweep.spaces import Choices, Interval, Space, lines, split
from shapelaw.sweep.studies import Study, make
from shapelaw.tracking import client, read_runs
from support import ROOT, Script, Start, Sweep

SEARCH = ("-m", "hydra/sweeper=optuna", "hydra.launcher.workers=1")
RATE = "lr_base=interval(0.5,50)"
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 0}


def study_of(outputs: Path) -> optuna.Study:
    storage = f"sqlite:///{outputs}/optuna.db"
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage)


def states(outputs: Path) -> list[Status]:
    folders = (outputs / "runs" / "tiny").glob("*")
    return [read_state(folder).status for folder in folders]


def parsed(*arguments: str, choose: tuple[str, ...] = (), log: tuple[str, ...] = ("lr_base",)) -> Space:
    return split(OverridesParser.create().parse_overrides(list(arguments)), choose, log)[0]


def test_rates_are_searched_on_a_logarithmic_scale() -> None:
    """Whole ends too; a tag says otherwise."""
    assert parsed("lr_base=interval(1,64)").axes == {"lr_base": Interval(1.0, 64.0, True)}
    assert parsed("lr_base=tag(linear,interval(0,2))").axes == {"lr_base": Interval(0.0, 2.0, False)}
    assert parsed("optim.beta1=interval(0.8,0.95)").axes == {"optim.beta1": Interval(0.8, 0.95, False)}
    assert parsed("optim.eps=tag(log,interval(1e-10,1e-6))").axes == {"optim.eps": Interval(1e-10, 1e-6, True)}
    assert [p["lr_base"] for p in parsed("lr_base=interval(1,64)").probes()] == pytest.approx([1, 8, 64])


def test_lists_are_searched_only_where_chosen() -> None:
    arguments = OverridesParser.create().parse_overrides(["shape=a,b", RATE, "batch_tokens=128,256"])
    space, rest = split(arguments, ["batch_tokens"], ["lr_base"])
    assert space.axes == {"lr_base": Interval(0.5, 50.0, True), "batch_tokens": Choices(("128", "256"))}
    assert [override.input_line for override in rest] == ["shape=a,b"]


def test_every_value_of_a_list_is_probed() -> None:
    """After the three places that tell what a study asks."""
    space = parsed("lr_base=interval(1,64)", "batch_tokens=1,2,3,4,5,6", choose=("batch_tokens",))
    assert [place["batch_tokens"] for place in space.probes()] == ["1", "3", "6"]
    middle = pytest.approx(8)
    assert space.further_probes() == [{"lr_base": middle, "batch_tokens": value} for value in "245"]


def test_a_study_goes_on_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    """Draws depend on seed, number and history alone: ten in one go equal ten of which every one is a new process's first."""
    space = Space({"lr_base": Interval(0.5, 50.0, True)})
    drawn: list[list[float]] = []
    for name, fresh in (("a", False), ("b", True)):
        study = Study(name, "q", space, f"sqlite:///{tmp_path}/s.db", TPE)
        drawn.append([])
        for _ in range(13):  # the first ten are random, the rest modelled
            study = Study(name, "q", space, f"sqlite:///{tmp_path}/s.db", TPE) if fresh else study
            ticket = study.ask()
            drawn[-1].append(float(ticket.values["lr_base"]))
            study.finished(ticket, abs(drawn[-1][-1] - 5))
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 13


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc", "nsgaii"])
def test_every_sampler_finds_the_bottom_of_a_bowl(tmp_path: Path, sampler: str) -> None:
    targets = {
        "tpe": "optuna.samplers.TPESampler",
        "random": "optuna.samplers.RandomSampler",
        "gp": "optuna.samplers.GPSampler",
        "qmc": "optuna.samplers.QMCSampler",
        "nsgaii": "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaii_sampler",
    }
    space = Space({"lr_base": Interval(0.5, 50.0, True)})
    study = Study("s", "q", space, f"sqlite:///{tmp_path}/s.db", {"_target_": targets[sampler], "seed": 1})
    for _ in range(15):
        ticket = study.ask()
        study.finished(ticket, abs(float(ticket.values["lr_base"]) / 5 - 1))
    summary = study.summary()
    assert summary.counts == {"complete": 15}
    assert summary.best is not None
    assert 1.5 < float(summary.best["lr_base"]) < 12


def test_a_study_of_another_question_is_refused(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/s.db"
    Study("s", "one", Space({"lr_base": Interval(0.5, 50.0, True)}), storage, TPE)
    with pytest.raises(UserError, match=r"study_name=s: the study with that name in .* has another question"):
        Study("s", "two", Space({"lr_base": Interval(1.0, 50.0, True)}), storage, TPE)


def test_a_trial_that_was_begun_without_its_hash_is_ended_and_read(tmp_path: Path) -> None:
    """By a version that had none, or by a process that was killed before it wrote it."""
    storage, space = f"sqlite:///{tmp_path}/s.db", Space({"lr_base": Interval(0.5, 50.0, True)})
    Study("s", "one", space, storage, TPE)
    begun = optuna.load_study(study_name="s", storage=storage).ask({"lr_base": FloatDistribution(0.5, 50.0, log=True)})
    again = Study("s", "one", space, storage, TPE)
    (ticket,) = again.started()
    assert ticket.values == begun.params
    again.finished(ticket, 2.5)
    assert Study("s", "one", space, storage, TPE).summary().loss == 2.5


def test_lines_keep_every_digit() -> None:
    value = 0.1 + 0.2
    assert float(lines({"lr_base": value})[0].partition("=")[2]) == value


@pytest.mark.parametrize("name", ["median", "percentile", "halving", "none"])
def test_every_pruner_is_one(name: str) -> None:
    import yaml

    configuration = yaml.safe_load((ROOT / "conf/hydra/sweeper/pruner" / f"{name}.yaml").read_text())
    assert isinstance(make("pruner", configuration), optuna.pruners.BasePruner)


def test_a_search_prunes_fails_records_and_ends_at_its_number_of_trials(sweep: Sweep, outputs: Path) -> None:
    """1e30 without clipping diverges: recorded as failed, the study goes on; the hopeless are pruned; nothing is run twice."""
    space = "lr_base=0.02,1e30,5,0.01,3,4"
    options = ("hydra.sweeper.choose=[lr_base]", "optim.clip_norm=0", "hydra.sweeper.pruner.n_startup_trials=1")
    command = (*SEARCH, space, *options, "hydra.sweeper.pruner.n_min_trials=1", "checkpoint.keep=newest")
    done = sweep(*command, "hydra.sweeper.n_trials=10", "hydra.sweeper.sampler.seed=3")
    assert done.returncode == 0, done.stderr
    study = study_of(outputs)
    ended = {state: [t for t in study.trials if t.state is state] for state in TrialState}
    assert len(study.trials) == 10
    assert {t.params["lr_base"] for t in ended[TrialState.FAIL]} == {"1e+30"}
    assert all("diverged" in t.user_attrs["reason"] for t in ended[TrialState.FAIL])
    assert ended[TrialState.PRUNED]
    assert float(study.best_trial.params["lr_base"]) in (3.0, 4.0, 5.0)
    whole = next(t for t in ended[TrialState.COMPLETE])
    assert sorted(whole.intermediate_values) == [512, 1024, 1536, 2048, 2560]  # tokens
    assert whole.value == whole.intermediate_values[2560]
    assert f"at lr_base={study.best_trial.params['lr_base']}" in done.stdout
    record = json.loads(next((outputs / "searches").glob("*/result.json")).read_text())
    assert record["loss"] == study.best_value

    store = client(f"sqlite:///{outputs}/mlflow.db")
    experiment = store.get_experiment_by_name("tiny").experiment_id
    runs = store.search_runs([experiment])
    parent = next(run for run in runs if run.data.tags["shapelaw.kind"] == "search")
    trials = [run for run in runs if run.data.tags["shapelaw.kind"] == "train"]
    assert parent.data.metrics["search/best_loss"] == pytest.approx(study.best_value)
    assert {run.data.tags["shapelaw.study"] for run in trials} == {study.study_name}
    assert {int(run.data.tags["shapelaw.trial"]) for run in trials} <= set(range(10))
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}

    pruned = [run for run in trials if run.data.tags.get("shapelaw.pruned")]
    assert pruned
    assert {run.info.status for run in pruned} == {"KILLED"}
    folder = Path(pruned[0].data.tags["shapelaw.folder"])
    assert read_state(folder).status is Status.pruned
    assert list((folder / "checkpoints").iterdir())
    rows = read_runs(f"sqlite:///{outputs}/mlflow.db", "tiny")
    reasons = rows.groupby("mlflow_run_id")["excluded"].unique()
    assert all("pruned after" in reasons[run.info.run_id][0] for run in pruned)

    again = sweep(*command, "hydra.sweeper.n_trials=10", "hydra.sweeper.sampler.seed=3")
    assert again.returncode == 0, again.stderr
    assert "0 trials to do; 10 already finished, skipped" in again.stderr

    rate = next(t.params["lr_base"] for t in ended[TrialState.PRUNED])
    plain = sweep("-m", f"lr_base={rate}", "optim.clip_norm=0", "checkpoint.keep=newest")  # a plain sweep continues it
    assert plain.returncode == 0, plain.stderr
    continued = next(
        run for run in store.search_runs([experiment]) if run.data.params.get("lr_base") == str(float(rate))
    )
    assert continued.info.status == "FINISHED"
    assert not continued.data.tags["shapelaw.pruned"]
    assert continued.data.metrics["val/loss"] > 0


def test_lists_make_a_study_each_and_too_many_failures_end_one(sweep: Sweep, outputs: Path) -> None:
    options = ("optim.clip_norm=0", "hydra.sweeper.max_failure_rate=0.3", "hydra.sweeper.n_trials=4", "tracker=none")
    done = sweep(*SEARCH, "shape=16x1,32x1", "lr_base=interval(1e20,1e30)", *options, "hydra.sweeper.study_name=hot")
    assert done.returncode == 1
    names = optuna.get_all_study_names(f"sqlite:///{outputs}/optuna.db")
    assert sorted(name.rpartition("-")[0] for name in names) == ["hot-16x1", "hot-32x1"]
    assert "2 trials failed, of 4 at most 30% may" in done.stderr
    for name in names:
        trials = optuna.load_study(study_name=name, storage=f"sqlite:///{outputs}/optuna.db").trials
        assert [trial.state for trial in trials] == [TrialState.FAIL] * 2


def test_values_that_do_not_go_together_fail_their_trial_alone(sweep: Sweep, outputs: Path) -> None:
    """1,536 tokens are whole batches of 128 and of 256, not of 1,280: no probe says so."""
    space = ("batch_tokens=128,256,1280", "tokens=1536,2560,1280", "hydra.sweeper.choose=[batch_tokens,tokens]")
    done = sweep(
        *SEARCH,
        *space,
        "hydra.sweeper.sampler.seed=1",
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.n_trials=3",
        "tracker=none",
    )
    assert done.returncode == 0, done.stderr
    assert "failed batch_tokens=1280 tokens=1536: tokens=1536: allowed values are multiples" in done.stderr
    failed = [trial for trial in study_of(outputs).trials if trial.state is TrialState.FAIL]
    assert [trial.params for trial in failed] == [{"batch_tokens": "1280", "tokens": "1536"}]
    assert "tokens=1536" in failed[0].user_attrs["reason"]


def test_a_killed_search_continues_its_trial(outputs: Path, start: Start, sweep: Sweep) -> None:
    """SIGKILL to the launcher in mid-trial: the rerun continues that trial from its checkpoint and asks for the rest only."""
    words = (*SEARCH, RATE, "hydra.sweeper.n_trials=2", "tokens=25600", "tracker=none")
    launcher = start("train.py", *words)
    deadline = time.monotonic() + 240
    while not list(outputs.glob("runs/tiny/*/checkpoints/step-*")):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    while Status.running in states(outputs):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    before = study_of(outputs).trials
    running = [trial.number for trial in before if trial.state is TrialState.RUNNING]
    rerun = sweep(*words)
    assert rerun.returncode == 0, rerun.stderr
    after = study_of(outputs).trials
    assert [trial.state for trial in after] == [TrialState.COMPLETE] * 2
    assert [trial.params for trial in after[: len(before)]] == [trial.params for trial in before]
    attempts = sorted(read_state(folder).attempts for folder in (outputs / "runs" / "tiny").iterdir())
    assert attempts == ([1, 2] if running else [1, 1])


def test_two_searches_of_one_study_do_not_meet(sweep: Sweep, outputs: Path) -> None:
    from shapelaw.run_state import lock

    first = sweep(*SEARCH, RATE, "hydra.sweeper.n_trials=1", "tracker=none")
    assert first.returncode == 0, first.stderr
    (folder,) = (outputs / "searches").iterdir()
    with lock(folder):
        second = sweep(*SEARCH, RATE, "hydra.sweeper.n_trials=2", "tracker=none")
    assert second.returncode == 2
    assert folder.name in second.stderr
    assert len(study_of(outputs).trials) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lr_base=interval(5,5)"], ["lr_base=interval(5,5)", "below the upper", "interval(LOW,HIGH)"]),
        (["lr_base=interval(0,5)"], ["lr_base=interval(0,5)", "above 0", "tag(linear,interval(0,5))"]),
        (["lr_base=5,2.5"], ["nothing to search", "lr_base=interval(0.5,50)"]),
        ([RATE, "hydra/sweeper/sampler=tpee"], ["hydra/sweeper/sampler=tpee", "tpe"]),
        ([RATE, "hydra/sweeper/sampler=grid"], ["sampler", "hydra/sweeper=grid"]),
        ([RATE, "hydra/sweeper/pruner=medium"], ["hydra/sweeper/pruner=medium", "halving, median, none, percentile"]),
        ([RATE, "hydra.sweeper.n_trials=0"], ["hydra.sweeper.n_trials=0", "whole numbers from 1"]),
        ([RATE, "hydra.sweeper.max_failure_rate=2"], ["hydra.sweeper.max_failure_rate=2", "0 to 1"]),
        ([RATE, "hydra.sweeper.pruner.n_min_trials=0"], ["pruner", "MedianPruner", "n_min_trials"]),
        ([RATE, "hydra.sweeper.storage=nosuch://x"], ["hydra.sweeper.storage=nosuch://x", "sqlite:///FILE"]),
        (
            [RATE, "hydra.sweeper.storage=sqlite:////proc/none/a.db"],
            ["cannot be opened", "/proc/none", "sqlite:///FILE"],
        ),
        ([RATE, "hydra.launcher.workers=-1"], ["hydra.launcher.workers=-1", "whole numbers from 0"]),
        ([RATE, "hydra.sweeper.choose=[shape]"], ["hydra.sweeper.choose", "shape=A,B"]),
        (
            ["hydra.sweeper.choose=[batch_tokens]", "batch_tokens=128,120,256,640,1280"],
            ["batch_tokens=120", "112 or 128"],
        ),
        ([RATE, "hydra.sweeper.study_name=../x"], ["hydra.sweeper.study_name='../x'", "letters, digits"]),
        ([RATE, "hydra/launcher=slurm"], ["hydra/launcher=local", "hydra/sweeper=grid"]),
        ([RATE, "shape=glob(z*)"], ["shape=glob(z*)", "matches nothing"]),
        (["batch_tokens=interval(128,1024)", "lr_base=5"], ["tokens=2560", "batch_tokens=576"]),
    ],
)
def test_bad_input(sweep: Sweep, outputs: Path, arguments: list[str], words: list[str]) -> None:
    done = sweep(*SEARCH[:2], *arguments, "tracker=none")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (outputs / "runs").exists()
    assert not (outputs / "optuna.db").exists()


def test_a_fit_is_nothing_to_search_for(script: Script, outputs: Path) -> None:
    done = script("fit.py", "-m", "hydra/sweeper=optuna", "delta=interval(1e-5,1e-3)", "runs=gemstones", "tracker=none")
    assert done.returncode == 2, done.stderr
    assert "a fit cannot be searched" in done.stderr
