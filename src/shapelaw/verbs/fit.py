"""Fitting as the work of a sweep: every fit leaves fit.json, its figures and an MLflow run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from shapelaw.config import FitConfig, RunsConfig
from shapelaw.config.running import IN_MLFLOW
from shapelaw.config.schema import to_dataclass
from shapelaw.devices import cores
from shapelaw.errors import UserError
from shapelaw.extras import require
from shapelaw.files import check_room, check_writable
from shapelaw.fitting.fit import fit, refuse_unanswerable
from shapelaw.fitting.result import RUNS_FILE, SCHEMA_VERSION, FitResult, load_fit
from shapelaw.fitting.spec import FitSpec, get_method, law_for
from shapelaw.laws import EXPONENT, Law, get_law
from shapelaw.laws.choices import AUTO
from shapelaw.laws.files import hash_of
from shapelaw.plugins import is_reference
from shapelaw.runs import RunsTable
from shapelaw.runs.axes import with_axes
from shapelaw.runs.columns import NATS_PER_TOKEN
from shapelaw.runs.file_table import FileOptions
from shapelaw.runs.load import LAWS_READ, chosen, load_whole, of_your_own
from shapelaw.runs.sets import SET, with_sets
from shapelaw.runs.weights import weights_of
from shapelaw.sweep.task import Job, sweep_identity
from shapelaw.tracking.journal import JOURNAL
from shapelaw.verbs.fit_summary import show, show_place, show_result, told
from shapelaw.verbs.fit_views import LOG10_DELTA, fits
from shapelaw.wording import counted, distinctions

FILES_BYTES = 5e5
"""Approximate bytes of fit.json, its table and its figures."""
EXPERIMENT = "fits"
"""MLflow experiment of all fits."""


@dataclass(frozen=True)
class FitTask:
    """The work of fit.py."""

    preload: tuple[str, ...] = ("shapelaw.fitting.fit", "shapelaw.figures.fit", "mlflow")
    noun: str = "fit"

    def __call__(self, config: DictConfig) -> float:
        """Make one fit; returns its objective."""
        asked: FitConfig = to_dataclass(config)
        runs = table_of(asked)
        return _record(asked, runs, make_fit(asked, runs), folder_of(asked, runs)).objective

    def single(self, config: DictConfig) -> float:
        """Make one fit in this process, on all cores, and print it before its figures are drawn."""
        (job,) = jobs = self.plan([config])
        check_writable(job.folder)
        shared = self.begin([config], jobs)
        for key, value in {"bootstrap.workers": max(config.bootstrap.workers, cores()), **shared}.items():
            OmegaConf.update(config, key, value)
        asked: FitConfig = to_dataclass(config)
        runs = table_of(asked)
        result = make_fit(asked, runs)
        show_result(result)
        _record(asked, runs, result, job.folder)
        show_place(result, job.folder)
        return result.objective

    def plan(self, configs: Sequence[DictConfig]) -> list[Job]:
        """Check the values of every fit and load every table."""
        fits: list[FitConfig] = [to_dataclass(config) for config in configs]
        loaded: dict[str, RunsTable] = {}
        jobs = [_job(asked, _cached(asked, loaded)) for asked in fits]
        words = _words(fits, [job.identity for job in jobs])
        return [dataclasses.replace(job, label=" ".join(name)) for job, name in zip(jobs, words, strict=True)]

    def begin(self, configs: Sequence[DictConfig], jobs: Sequence[Job]) -> Mapping[str, Any]:
        """Open the tracking store; for a sweep, its parent run."""
        asked: FitConfig = to_dataclass(configs[0])
        todo = [job for job in jobs if not job.done]
        if todo:
            check_room(todo[0].folder, len(todo) * FILES_BYTES, counted(len(todo), self.noun))
        if not asked.tracker.in_mlflow or not todo:
            return {}
        require("tracker=mlflow", "mlflow", instead="give tracker=none")
        from shapelaw.tracking import begin

        names = {job.identity: job.label for job in jobs}
        return begin(asked.tracker, EXPERIMENT, sweep_identity(jobs), names, fits())

    def told(self, job: Job) -> str:
        """Exponent, irreducible loss and folder of a fit."""
        return told(load_fit(job.folder), job.folder)

    def end(self, configs: Sequence[DictConfig], jobs: Sequence[Job], failed: Sequence[str]) -> None:
        """Close the sweep's parent run and print the fits."""
        tracker = configs[0].tracker
        if len(jobs) > 1 and tracker.name in IN_MLFLOW:
            from shapelaw.tracking import close_parent

            close_parent(tracker.uri, EXPERIMENT, sweep_identity(jobs), failed)
        words = _words([to_dataclass(config) for config in configs], [job.identity for job in jobs])
        whole = [job for job in jobs if job.identity not in failed]
        show({name: job.folder for name, job in zip(words, jobs, strict=True) if job.identity not in failed})
        if len(whole) > 1:
            from shapelaw.figures import delta_grid

            name = f"delta_grid-{sweep_identity(jobs)}"
            delta_grid.draw([load_fit(job.folder) for job in whole], whole[0].folder.parent, name)

    def stopped(self, config: DictConfig, identity: str) -> None:
        """Close the run of a sweep whose launcher was stopped."""
        if config.tracker.name in IN_MLFLOW:
            from shapelaw.tracking import close_stopped

            close_stopped(config.tracker.uri, EXPERIMENT, identity)


def table_of(asked: FitConfig) -> RunsTable:
    """The table with the rows for a fit; other rows are excluded with their reasons.

    Raises:
        UserError: if no rows remain.
    """
    return _subset(asked, _whole_table(asked.runs, _published(asked)))


def make_fit(asked: FitConfig, runs: RunsTable) -> FitResult:
    """The fit that a configuration describes."""
    return fit(runs, spec_of(asked))


def spec_of(asked: FitConfig) -> FitSpec:
    """Every choice of a configuration as the fit's own record.

    Raises:
        UserError: for a value that is not allowed.
    """
    options = dataclasses.asdict(asked.method)
    get_method("staged", options)  # wrong options of the stages are refused for any method
    return FitSpec.of(
        asked.law.name or AUTO,
        method=asked.method.name,
        options=options,
        solver=asked.solver.name or "newton",
        bootstrap=asked.bootstrap,
        holdouts=asked.holdout.kinds,
        delta=asked.delta,
        counting=asked.counting.name,
        flops=asked.flops.name,
        starts=asked.starts,
        grid_size=asked.grid_size,
        seed=asked.seed,
        sensitivity=asked.sensitivity,
        profile=asked.profile,
        mixture=asked.mixture,
        ties=asked.ties,
        fixed=asked.fixed,
        weights=asked.weights,
        speedup=asked.speedup,
        over_cost=asked.over_cost,
    )


def science_of(asked: FitConfig, runs: RunsTable) -> dict[str, Any]:
    """Everything that decides a fit's result: its choices and the content of its table; `mixture` only allows or refuses it."""
    chosen = dataclasses.asdict(asked)
    for key in ("tracker", "outputs_dir", "data_dir", "runs", "subset", "plots", "mixture"):
        del chosen[key]
    del chosen["bootstrap"]["workers"]
    method = spec_of(asked).method
    own = {key: value for key, value in method.options.items() if (key, value) != ("curve", "parabola")}
    chosen["method"] = {"name": method.name, **own}  # so that fits by parabolas keep their folders
    chosen["law"] = {"name": _law(asked).name}
    if method.fits_law and is_reference(str(asked.law.name)):
        chosen["law"]["sha256"] = hash_of(str(asked.law.name))
    if asked.weights:  # the column may not be part of the table's content
        chosen["weights"] = [asked.weights, hashlib.sha256(weights_of(runs, asked.weights).tobytes()).hexdigest()]
    chosen["over_cost"] = None if asked.over_cost == 1.0 else asked.over_cost
    for name in ("fixed", "weights", "speedup", "over_cost"):
        if not chosen[name]:
            del chosen[name]  # so that fits without it keep their folders
    unit = {} if runs.loss_unit == NATS_PER_TOKEN else {"loss_unit": runs.loss_unit}  # equal values are other losses
    return {**chosen, **unit, "runs": runs.hash, "schema": SCHEMA_VERSION}


def folder_of(asked: FitConfig, runs: RunsTable) -> Path:
    """Folder of a fit: outputs/fits/WHAT-HASH."""
    text = json.dumps(science_of(asked, runs), sort_keys=True)
    return Path(asked.outputs_dir) / "fits" / f"{_what(asked)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _what(asked: FitConfig) -> str:
    """The object of the fit: a law, or a method's lines."""
    if not get_method(asked.method.name).fits_law:
        return asked.method.name
    return f"{_law(asked).name}-speedup" if asked.speedup else _law(asked).name


def _law(asked: FitConfig) -> Law:
    return law_for(get_law(asked.law.name or AUTO.name), get_method(asked.method.name))


def _published(asked: FitConfig) -> str | None:
    """Name of the published data set, for the Gemstones."""
    if asked.runs.source != "gemstones":
        return None
    return "hot" if asked.subset.name == "auto" else asked.subset.name


def load_table(runs: RunsConfig, published: str | None = None, where: str | None = None) -> RunsTable:
    """The table that options name, or a published data set of it, or the rows of either that meet a condition.

    Raises:
        UserError: if it cannot be loaded.
    """
    read = LAWS_READ if runs.reduce == "auto" else ()
    table = _whole_table(runs, published)
    return chosen(table.select(where) if where else table, runs.source, runs.reduce, runs.reduce_by, read)


def _whole_table(runs: RunsConfig, published: str | None) -> RunsTable:
    """The table before any selection, and before the later reduction of rows of one size."""
    options: dict[str, Any] = {
        name: getattr(runs, name) for name in ("bad_rows", "loss", "diverged", "rolled_back", "midway")
    }
    if runs.source == "gemstones":
        options["subset"] = published
    else:
        names = [field.name for field in dataclasses.fields(FileOptions) if field.name != "exclude_faults"]
        options |= {"path": runs.path, "given": FileOptions(**{name: getattr(runs, name) for name in names})}
    if runs.source == "mlflow":
        require("runs=mlflow", "mlflow", instead="give your own table: runs=csv runs.path=FILE")
        options |= {"uri": runs.uri, "experiment": runs.experiment}
    if runs.source == "wandb":
        options |= {"project": runs.project}
    return load_whole(runs.source, **options)


def _subset(asked: FitConfig, table: RunsTable) -> RunsTable:
    subset = asked.subset
    if asked.runs.source == "mlflow" and not of_your_own("mlflow", table):
        if subset.tracked is None:
            raise UserError(
                f"subset={subset.name}: is a published data set; give runs=gemstones, or subset=all, hot, cool_end"
            )
        table = table.select(subset.tracked)
    elif asked.runs.source != "gemstones" and subset.name not in ("auto", "all"):
        raise UserError(f"subset={subset.name}: is a published data set; give runs=gemstones, or subset=all")
    table = table.select(subset.where) if subset.where else table
    table = with_sets(table, asked.speedup) if asked.speedup else table
    read = _law(asked).predictors if get_method(asked.method.name).fits_law else ()
    read = (*read, SET) if asked.speedup else read
    table = chosen(table, asked.runs.source, asked.runs.reduce, asked.runs.reduce_by, read)
    return with_axes(table, _law(asked)) if read else table


def _cached(asked: FitConfig, loaded: dict[str, RunsTable]) -> RunsTable:
    """The rows of a fit, from a table that is loaded once for all fits."""
    key = json.dumps([dataclasses.asdict(asked.runs), _published(asked)], sort_keys=True)
    if key not in loaded:
        loaded[key] = _whole_table(asked.runs, _published(asked))
    return _subset(asked, loaded[key])


def _job(asked: FitConfig, runs: RunsTable) -> Job:
    refuse_unanswerable(runs, spec_of(asked), asked.subset.where)
    folder = folder_of(asked, runs)
    what, identity = folder.name.rsplit("-", 1)
    tracked = not asked.tracker.in_mlflow or (folder / JOURNAL).exists()
    return Job(identity, what, folder, done=tracked and (folder / "fit.json").exists())


def _words(fits: Sequence[FitConfig], identities: Sequence[str]) -> list[tuple[str, ...]]:
    """The name of each fit in words: its law, method and data, and whatever else distinguishes it from the others."""
    usual = [_usual_words(asked) for asked in fits]
    settings = [{**dataclasses.asdict(asked), "tracker": None} for asked in fits]
    apart = distinctions([" ".join(words) for words in usual], identities, settings)
    return [(*words, *further) for words, further in zip(usual, apart, strict=True)]


def _usual_words(asked: FitConfig) -> tuple[str, ...]:
    solver = () if asked.solver.name == "newton" else (str(asked.solver.name),)
    grid = (f"grid={asked.grid_size}",) if asked.grid_size else ()
    return (_what(asked), *solver, f"delta={asked.delta:g}", *grid, asked.subset.name)


def _record(asked: FitConfig, runs: RunsTable, result: FitResult, folder: Path) -> FitResult:
    """Write the fit, its table and its figures, then track them; fit.json comes last, so that it marks a complete fit."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    if asked.plots and result.law is not None:
        from shapelaw.figures import accuracy, fit

        draw = fit.draw if get_law(result.law).target == "loss" else accuracy.draw
        figures = draw(runs, result, folder, as_pdf=asked.plots == "pdf")
    if asked.plots and result.stages:
        from shapelaw.figures.staged import draw as draw_stages

        figures += draw_stages(runs, result, folder, as_pdf=asked.plots == "pdf")
    result.save(folder, runs)
    if asked.tracker.in_mlflow:
        _track(asked, runs, result, folder, figures)
    return result


def _track(asked: FitConfig, runs: RunsTable, result: FitResult, folder: Path, figures: Sequence[Path]) -> None:
    from shapelaw.tracking import MlflowTracker, RunInfo, Store

    params = {
        "law": result.law or result.method,
        "method": asked.method.name,
        "solver": asked.solver.name,
        "delta": asked.delta,
        "grid_size": asked.grid_size,
        "starts": asked.starts,
        "counting": result.settings.get("counting"),
        "subset": asked.subset.name,
        "where": asked.subset.where,
        "loss": asked.runs.loss or "loss",
        "runs": asked.runs.source if asked.runs.source != "mlflow" else asked.runs.experiment,
        "runs_hash": runs.hash[:12],
        "bootstrap": f"{asked.bootstrap.n} by {asked.bootstrap.by}" if asked.bootstrap.n else "none",
    }
    identity = folder.name.rsplit("-", 1)[1]
    name = f"{params['law']} delta={asked.delta:g} {asked.subset.name}"
    tags = {"shapelaw.folder": str(folder.absolute())}
    info = RunInfo(identity, "fit", name, params, tags, asked.tracker.parent_run_id)
    tracker = MlflowTracker(Store.of(asked.tracker, EXPERIMENT), info, folder, asked.tracker.finish_seconds)
    tracker.log(_metrics(result), 0)
    for path in (folder / "fit.json", folder / RUNS_FILE, *figures):
        tracker.artifact(path)
    tracker.finish("FINISHED")
    tracker.close()


def _metrics(result: FitResult) -> dict[str, float]:
    """Numbers of a fit worth comparing: objective, slope, parameters, ends of their intervals; none for a ridge."""
    metrics = {"objective": result.objective}
    metrics |= {f"parameter/{k}": v for k, v in result.parameters.items() if k not in result.ridge}
    if result.settings.get("delta"):
        metrics[LOG10_DELTA] = math.log10(result.settings["delta"])
    if result.compute_optimal_exponent is not None and EXPONENT not in result.ridge:
        metrics[EXPONENT] = result.compute_optimal_exponent
    for name, (low, high) in result.intervals.items():
        metrics |= {f"low/{name}": low, f"high/{name}": high}
    return {key: float(value) for key, value in metrics.items() if math.isfinite(value)}


DOOR = FitTask()
