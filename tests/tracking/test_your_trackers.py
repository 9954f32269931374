"""Runs that other trackers kept, in files that those trackers' own packages write, give the law they were made by."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shapelaw import fit, load_runs
from shapelaw.config import FitConfig
from shapelaw.config.schema import to_dataclass
from shapelaw.errors import UserError
from shapelaw.runs import RunsTable
from shapelaw.verbs.fit import table_of
from support import Compose

SIZES = (20_000_000, 60_000_000, 200_000_000, 600_000_000)
BATCH = 524_288
STEPS = (400, 800, 1600, 3200)


def law(params: float, tokens: float) -> float:
    return float(1.8 + 410 * params**-0.34 + 1200 * tokens**-0.35)


def metrics(params: int) -> Iterator[tuple[int, dict[str, float]]]:
    """What a training script records: tokens and training loss every 300 steps, the held-out loss at steps of its own."""
    for step in sorted({*range(300, 3301, 300), *STEPS}):
        if step % 300 == 0:
            yield step, {"train/loss": 9.0 - step / 1e4, "tokens": float(step * BATCH)}
        if step in STEPS:
            yield step, {"eval/loss": law(params, step * BATCH)}


def assert_whole(runs: RunsTable, rtol: float = 1e-12) -> None:
    """One row for each held-out loss, at the tokens of its step, and the law that they were made by."""
    kept = runs.kept.sort_values(["params", "tokens"])
    expected = [(n, step * BATCH, law(n, step * BATCH)) for n in SIZES for step in STEPS]
    np.testing.assert_allclose(kept[["params", "tokens", "loss"]].to_numpy(float), expected, rtol=rtol)
    assert kept["run"].nunique() == len(SIZES)
    assert fit(runs).parameters["alpha"] == pytest.approx(0.34, rel=1e3 * rtol + 1e-4)


MAPPED = {"loss": "eval/loss", "params": "n_params"}


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Event files that torch's SummaryWriter wrote, settings by add_hparams."""
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    root = tmp_path_factory.mktemp("logs")
    for params in SIZES:
        with SummaryWriter(root / f"m{params}") as writer:
            for step, values in metrics(params):
                for name, value in values.items():
                    writer.add_scalar(name, value, step)
            writer.add_hparams({"n_params": params, "optimizer": "adamw"}, {"hparam/last": 1.0})
    return root


def test_tensorboard_gives_the_law(logdir: Path, composed: Compose) -> None:
    runs = load_runs("tensorboard", path=logdir, columns=MAPPED)
    assert_whole(runs, rtol=2e-7)  # event files hold 32-bit floats
    assert "tokens: tokens, interpolated between its records at 16 rows" in runs.about["reading"]
    assert set(runs.kept["optimizer"]) == {"adamw"}
    given = [f"runs.path={logdir}", "runs.columns={loss: eval/loss, params: n_params}"]
    asked: FitConfig = to_dataclass(composed("runs=tensorboard", *given, name="fit"))
    assert table_of(asked) == runs


def test_tensorboard_refuses_what_it_cannot_tell_and_says_what_there_is(logdir: Path, tmp_path: Path) -> None:
    for options, message in (
        (
            {},
            r"no metric loss; the runs recorded eval/loss, hparam/last, tokens, .*\{params: n_params, loss: eval/loss\}",
        ),
        (
            {"columns": {"loss": "val"}},
            "runs.columns: loss=val is not a metric or setting; the runs recorded eval/loss",
        ),
        ({"columns": {"loss": "hparam/last"}}, r"no column params; .*\{params: n_params\}"),
        ({"columns": MAPPED, "wide": "tokens"}, "does not take wide"),
    ):
        with pytest.raises(UserError, match=message):
            load_runs("tensorboard", path=logdir, **options)
    with pytest.raises(UserError, match="no event files"):
        load_runs("tensorboard", path=tmp_path, columns=MAPPED)
    with pytest.raises(UserError, match="no such file or folder"):
        load_runs("tensorboard", path=tmp_path / "none", columns=MAPPED)


def test_a_restart_voids_what_it_repeats_and_newer_writers_keep_scalars_in_tensors(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "old") as writer:
        for step in (100, 200, 300):
            writer.add_scalar("eval/loss", 4.0, step)
    with SummaryWriter(tmp_path / "old", purge_step=200, filename_suffix=".again") as writer:
        writer.add_scalar("eval/loss", 3.5, 200)
    newer = EventFileWriter(str(tmp_path / "new"))
    newer.add_event(Event(step=100, summary=scalar_pb("eval/loss", 3.25)))
    newer.close()
    constants = {"params": {"old": 2e7, "new": 4e7}, "batch_tokens": BATCH}
    runs = load_runs("tensorboard", path=tmp_path, columns={"loss": "eval/loss"}, constants=constants)
    assert runs.kept[["run", "step", "loss"]].values.tolist() == [
        ["new", 100, 3.25],
        ["old", 100, 4.0],
        ["old", 200, 3.5],
    ]
    assert runs.kept["tokens"].tolist() == [100 * BATCH, 100 * BATCH, 200 * BATCH]


def test_torchtitans_tags_and_lightnings_settings(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from lightning.pytorch.loggers import TensorBoardLogger

    for params in SIZES:
        logger = TensorBoardLogger(tmp_path, "titan", version=f"m{params}")
        logger.log_hyperparams({"model": {"n_params": params}, "betas": [0.9, 0.95]})
        for step, values in metrics(params):
            named = {
                "train/loss": "loss_metrics/global_avg_loss",
                "tokens": "n_tokens_seen",
                "eval/loss": "validation_metrics/loss",
            }
            logger.log_metrics({named[name]: value for name, value in values.items()}, step)
        logger.finalize("success")
    columns = {"loss": "validation_metrics/loss", "tokens": "n_tokens_seen", "params": "model.n_params"}
    assert_whole(load_runs("tensorboard", path=tmp_path, columns=columns), rtol=2e-7)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that wandb wrote without a network."""
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    root = tmp_path_factory.mktemp("offline")
    settings = wandb.Settings(console="off", x_disable_stats=True, silent=True)
    for params in SIZES:
        config = {"model": {"n_params": params, "width": 64}, "optimizer": "adamw"}
        run = wandb.init(project="p", name="same", config=config, mode="offline", dir=str(root), settings=settings)
        for step, values in metrics(params):
            run.log(values, step=step)
        run.log({"samples": "a text"}, step=5000)
        run.finish(exit_code=1 if params == SIZES[-1] else 0)
    wandb.teardown()
    return root / "wandb"


COLUMNS = {"loss": "eval/loss", "params": "model.n_params"}


def test_wandbs_offline_runs_give_the_law(offline: Path) -> None:
    runs = load_runs("wandb", path=offline, columns=COLUMNS)
    assert_whole(runs)
    assert "4 rows are of runs whose status is failed" in runs.about["reading"]
    assert runs.select("model_width == 64 and status == 'finished'").kept["params"].max() == SIZES[-2]
    one = load_runs("wandb", path=next(offline.rglob("run-*.wandb")), columns=COLUMNS)
    assert len(one) == len(STEPS)


def test_a_run_of_wandbs_that_was_killed_is_read_as_far_as_it_went(offline: Path, tmp_path: Path) -> None:
    file = sorted(offline.rglob("run-*.wandb"))[0]
    whole = file.read_bytes()
    torn = tmp_path / file.name
    torn.write_bytes(whole[: int(len(whole) * 0.75)])
    runs = load_runs("wandb", path=torn, columns=COLUMNS)
    assert 1 <= len(runs) < len(STEPS)
    assert "status is crashed" in runs.about["reading"]
    expected = [law(params, tokens) for params, tokens in zip(runs.kept["params"], runs.kept["tokens"], strict=True)]
    np.testing.assert_allclose(runs.kept["loss"], expected, rtol=1e-12)
    torn.write_bytes(b"PK" + whole)
    with pytest.raises(UserError, match="does not begin like wandb's files"):
        load_runs("wandb", path=torn, columns=COLUMNS)


def test_wandbs_own_step_is_said_where_tokens_are_counted_by_it(offline: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"columns": {**COLUMNS, "step": "_step"}, "constants": {"batch_tokens": BATCH}}
    assert "_step counts wandb's own steps" in load_runs("wandb", path=offline, **options).about["reading"]
    with pytest.raises(UserError, match=r"give runs.path=FOLDER .* or runs.project=ENTITY/PROJECT"):
        load_runs("wandb", columns=COLUMNS)
    with pytest.raises(UserError, match=r"no runs \(run-\*.wandb\) under"):
        load_runs("wandb", path=tmp_path, columns=COLUMNS)


class Server:
    """What wandb's public interface answers of a project: rows of what is asked for, without those that lack any of it."""

    def __init__(self, **_: Any) -> None: ...

    def runs(self, path: str) -> list[Any]:
        assert path == "me/project"
        return [Served(number, params) for number, params in enumerate(SIZES)]


class Served:
    def __init__(self, number: int, params: int) -> None:
        self.id, self.name, self.state = f"id{number}", f"run {number}", "finished"
        self.config = {"model": {"n_params": params}, "_wandb": {}}
        self.summary = {"eval/loss": 1.0, "tokens": 1.0, "train/loss": 1.0, "_step": 3, "unused": 1.0}
        self.rows = [{"_step": step, **values} for step, values in metrics(params)]

    def scan_history(self, keys: list[str], page_size: int) -> list[dict[str, float]]:
        assert "unused" not in keys
        return [{key: row[key] for key in keys} for row in self.rows if set(keys) <= set(row)]


def test_wandbs_public_interface_gives_the_law(monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    from wandb.apis.public import Api, Run

    assert {"keys", "page_size"} <= set(inspect.signature(Run.scan_history).parameters)
    assert "path" in inspect.signature(Api.runs).parameters
    assert all(hasattr(Run, name) for name in ("id", "name", "state", "config", "summary"))
    monkeypatch.setattr(wandb, "Api", Server)
    assert_whole(load_runs("wandb", project="me/project", columns=COLUMNS))


def test_any_mlflow_experiment_gives_the_law_by_its_own_names(uri: str, composed: Compose) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    store = MlflowClient(uri)
    experiment = store.create_experiment("theirs")
    store.create_run(experiment, run_name="parent")
    for params in SIZES:
        run = store.create_run(experiment, run_name="same")
        logged = [
            Metric(name, value, 10**12 + step, step) for step, own in metrics(params) for name, value in own.items()
        ]
        store.log_batch(run.info.run_id, logged, [Param("n_params", f"{params}")], [RunTag("team", "a")])
        store.set_terminated(run.info.run_id)
    runs = load_runs("mlflow", uri=uri, experiment="theirs", columns=MAPPED)
    assert_whole(runs)
    assert "1 of 5 runs recorded no eval/loss" in runs.about["reading"]
    assert len(runs.select("team == 'a'")) == len(runs)
    options = ["runs=mlflow", f"runs.uri={uri}", "runs.experiment=theirs"]
    asked: FitConfig = to_dataclass(composed(*options, "runs.columns={loss: eval/loss, params: n_params}", name="fit"))
    assert table_of(asked) == runs
    remedy = r"not trained by shapelaw; .*\{loss: eval/loss, .*\(metrics: eval/loss, tokens, train/loss; parameters: n_params\)"
    with pytest.raises(UserError, match=remedy):
        load_runs("mlflow", uri=uri, experiment="theirs")
    with pytest.raises(UserError, match="loss=nll is not a metric or setting"):
        load_runs("mlflow", uri=uri, experiment="theirs", columns={"loss": "nll"})


def test_a_loss_and_a_held_out_loss_are_told_apart_by_the_user(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        for name, value in (("loss", 3.0), ("val/loss", 3.5)):
            writer.add_scalar(name, value, 100)
    constants = {"params": 2e7, "batch_tokens": BATCH}
    with pytest.raises(UserError, match=r"loss, val/loss may be the loss; give 'runs.columns=\{loss: val/loss\}'"):
        load_runs("tensorboard", path=tmp_path, constants=constants)
    for name, value in (("loss", 3.0), ("val/loss", 3.5)):
        runs = load_runs("tensorboard", path=tmp_path, constants=constants, columns={"loss": name})
        assert runs.kept["loss"].tolist() == [value]


def test_litgpts_logs_a_file_a_run_and_a_row_a_kind_of_metric(tmp_path: Path) -> None:
    """litgpt logs by Fabric's CSVLogger: training rows with total_tokens, and rows of val_loss and val_ppl alone."""
    from lightning.fabric.loggers import CSVLogger

    for params in SIZES:
        logger = CSVLogger(tmp_path / f"m{params}", name="csv", flush_logs_every_n_steps=1000)
        for step, values in metrics(params):
            named = {"train/loss": "loss", "tokens": "total_tokens", "eval/loss": "val_loss"}
            logger.log_metrics({named[name]: value for name, value in values.items()}, step)
        logger.save()
    columns = {"loss": "val_loss", "tokens": "total_tokens"}
    sizes = {"params": {f"m{params}": params for params in SIZES}}
    pattern = f"{tmp_path}/*/csv/version_0/metrics.csv"
    runs = load_runs("csv", path=pattern, columns=columns, constants=sizes)
    assert_whole(runs)
    assert "4 files; a log: 16 losses in 60 rows" in runs.about["reading"]
    with pytest.raises(UserError, match="there is no such file"):
        load_runs("csv", path=f"{tmp_path}/*/none.csv", columns=columns)


def test_lines_of_json_a_file_a_run(tmp_path: Path) -> None:
    for params in SIZES:
        records = [{"step": step, "config": {"n_params": params}, **values} for step, values in metrics(params)]
        (tmp_path / f"run_{params}.jsonl").write_text("\n".join(map(json.dumps, records)))
    columns = {"loss": "eval/loss", "params": "config.n_params"}
    assert_whole(load_runs("csv", path=f"{tmp_path}/run_*.jsonl", columns=columns))


def test_a_few_missing_losses_are_still_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("run,step,params,tokens,loss\na,1,2e7,1e9,3\na,2,2e7,2e9,\na,3,2e7,3e9,2.8\n")
    with pytest.raises(UserError, match="loss is missing or not a number"):
        load_runs("csv", path=tmp_path / "t.csv")


def test_nanochats_table(tmp_path: Path) -> None:
    """The header of its scaling_laws.sh; val_bpb is in bits per byte by its name, a run is a budget and a depth."""
    header = (
        "flops_budget,depth,model_dim,params_wte,params_value_embeds,params_lm_head,params_transformer,params_scalars,params_total,"
        "num_iterations,tokens_trained,val_bpb,core_score,train_time_sec"
    )
    rows = [
        f"{c:g},{d},{64 * d},1,1,1,1,1,{n},100,{c / 6 / n:.0f},{0.7 + 100 * n**-0.34 + 300 * (c / 6 / n) ** -0.35:.9f},0.1,60"
        for c in (1e18, 3e18)
        for d, n in ((8, 42_000_000), (12, 110_000_000), (16, 235_000_000))
    ]
    (tmp_path / "results.csv").write_text("\n".join([header, *rows]))
    columns = {"run": "flops_budget+depth", "params": "params_total", "tokens": "tokens_trained", "loss": "val_bpb"}
    runs = load_runs("csv", path=tmp_path / "results.csv", columns={**columns, "width": "model_dim"})
    assert (runs.loss_unit, len(runs), runs.kept["run"].nunique()) == ("bits per byte", 6, 6)
    assert fit(runs).parameters["alpha"] == pytest.approx(0.34, rel=1e-3)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shapelaw.runs.tensorboard.installed", lambda _: False)
    monkeypatch.setattr("shapelaw.runs.wandb_runs.installed", lambda _: False)
    for source in ("tensorboard", "wandb"):
        with pytest.raises(UserError, match=rf"needs {source}, .*; run: pip install 'shapelaw\[{source}\]'"):
            load_runs(source, path=tmp_path, columns=MAPPED)
