"""The single entry point for every table of runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from shapelaw.config import RunsConfig
from shapelaw.config.option import check_option
from shapelaw.errors import UserError
from shapelaw.runs.columns import is_canonical
from shapelaw.runs.file_table import OF_FILES, FileOptions
from shapelaw.runs.files import from_file, from_raw
from shapelaw.runs.histories import Histories, called, wanted
from shapelaw.runs.published import chinchilla, gemstones
from shapelaw.runs.reduce import reduced
from shapelaw.runs.schedules import midway as rows_midway
from shapelaw.runs.table import RunsTable
from shapelaw.runs.tensorboard import read_tensorboard
from shapelaw.runs.wandb_runs import OURS, OneRun, histories_of, rows_of, runs_of
from shapelaw.suite import Suite

LAWS_READ = ("batch_tokens",)
"""Settings that some laws read."""
MEASURED = ("loss", "error", "flops", "step")
"""Measurements, rather than settings, that a law may read."""
SOURCES = ("gemstones", "chinchilla", "csv", "mlflow", "tensorboard", "wandb")
TRACKED = ("tensorboard", "wandb")
"""Trackers whose runs are read like other people's tables."""
READ_BY_MAPPING = "read_by_mapping"
"""Fact of a table whose columns the user mapped from a tracker: the name of the tracker."""
_OF_HISTORIES = ("columns", "units", "constants", "tokens_from")


def load_runs(
    source: str,
    *,
    subset: str | None = None,
    where: str | None = None,
    path: str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str | float] | None = None,
    constants: Mapping[str, Any] | None = None,
    wide: str | None = None,
    decimal: str | None = None,
    sheet: str | None = None,
    tokens_from: str | None = None,
    loss: str | None = None,
    reduce: str = "auto",
    reduce_by: Sequence[str] = (),
    bad_rows: str = "raise",
    diverged: str = "exclude",
    rolled_back: str = "keep",
    midway: str = "exclude",
    **options: Any,
) -> RunsTable:
    """Load a table of runs.

    Args:
        source: `gemstones`, `chinchilla`, `csv` (also .tsv, .json, .jsonl, .parquet and .xlsx), `mlflow`, `tensorboard` or
            `wandb`.
        subset: gemstones only: suffix of the published file, such as `hot_100b+` (the default) or `cool_end`.
        where: condition, such as `width == 512 and tokens <= 1e11`; rows that do not meet it are excluded.
        path: the file (csv), the folder of event files (tensorboard), or the folder that wandb wrote (wandb).
        columns: your own runs only: canonical name -> name in the file or tracker, such as
            {"tokens": "D", "loss": "eval/loss"}; with it, `mlflow` reads the runs of any experiment.
        units: your own runs only: canonical name -> factor or named unit, such as {"tokens": "B", "loss": "perplexity"}.
        constants: your own runs only: canonical name -> value of all rows, or run -> value, such as {"batch_tokens": 524288}.
        wide: csv only: the quantity that names the columns of a wide table, such as tokens; each loss becomes one row.
        decimal: csv only: the file's decimal sign, `dot` or `comma`; None infers it from the numbers.
        sheet: csv only: sheet of an Excel file; None takes the first.
        tokens_from: your own runs only: `6n` takes tokens = FLOPs / (6 * params) if the file has no tokens.
        loss: NAME of a further loss; the column loss_NAME then replaces loss.
        reduce: which rows of one size and token count stay: `best` (lowest loss), `last`, their `mean`, or all (`none`).
            `auto` takes `best` for files whose rows differ in settings that are usually tuned (except batch_tokens, which
            some laws read), and otherwise keeps all.
        reduce_by: columns that such rows share; by default params, tokens, shape, suite, vocabulary, context, cooldown and
            batch.
        bad_rows: csv and mlflow: `raise` on invalid or repeated rows, or `exclude` them with a reason.
        diverged: `exclude` the rows of runs that diverged in the end, with that reason, or `keep` them; a fit flags them.
        rolled_back: `keep` the rows that runs measured after a rollback, which a fit flags, or `exclude` them.
        midway: `exclude` the rows at which a schedule is raising or lowering the rate, with that reason, or `keep` them for
            a law with a term for it; a fit by any other law flags them.
        options: mlflow only: uri and experiment; wandb only: project, ENTITY/PROJECT on a server, instead of a path.

    Returns:
        a validated table, which includes the excluded rows with their reasons.

    Raises:
        UserError: for an unknown source, data set, column or option, an invalid table, or an empty selection.

    >>> from pathlib import Path
    >>> _ = Path("mine.csv").write_text("run,D,params,loss\\na,1,2e8,3.1\\nb,2,4e8,2.9\\n")
    >>> table = load_runs("csv", path="mine.csv", columns={"tokens": "D"}, units={"tokens": "B"}, where="params < 3e8")
    >>> table.kept["tokens"].tolist(), table.exclusions
    ([1000000000.0], ...)
    """
    given = FileOptions(
        columns or {}, units or {}, constants or {}, wide, decimal, sheet, tokens_from, reduce, tuple(reduce_by)
    )
    faulty = {"bad_rows": bad_rows, "diverged": diverged, "rolled_back": rolled_back, "midway": midway}
    table = load_whole(source, subset=subset, path=path, given=given, loss=loss, **faulty, **options)
    return chosen(
        table.select(where) if where else table, source, reduce, reduce_by, LAWS_READ if reduce == "auto" else ()
    )


def chosen(table: RunsTable, source: str, rule: str, by: Sequence[str], read: Sequence[str]) -> RunsTable:
    """The table with the rows of one size reduced by a rule, after every selection (`shapelaw.runs.reduce.reduced`).

    With `auto`, only the user's own runs are reduced (`of_your_own`): other sources record what their rows differ in.

    Args:
        read: columns that the law reads; rows that differ in them are not compared.
    """
    if rule == "auto" and not of_your_own(source, table):
        return table
    return reduced(table, rule, by, [name for name in read if name not in MEASURED])


def of_your_own(source: str, table: RunsTable) -> bool:
    """Whether the runs were not trained by shapelaw: they come from a file, or from a tracker by a mapping of columns."""
    return source == "csv" or READ_BY_MAPPING in table.about


def load_whole(
    source: str,
    *,
    subset: str | None = None,
    path: str | os.PathLike[str] | None = None,
    given: FileOptions | None = None,
    loss: str | None = None,
    bad_rows: str = "raise",
    diverged: str = "exclude",
    rolled_back: str = "keep",
    midway: str = "exclude",
    **options: Any,
) -> RunsTable:
    """A table before any selection and reduction.

    Args:
        given: csv only: how to read the file.
        source, subset, path, loss, bad_rows, diverged, rolled_back, midway, options: as for `load_runs`.

    Raises:
        UserError: as for `load_runs`.
    """
    file_options = given or FileOptions()
    choices = {"bad_rows": bad_rows, "diverged": diverged, "rolled_back": rolled_back, "midway": midway}
    of_files = {name: getattr(file_options, name) for name in ("reduce", "decimal", "tokens_from")}
    for name, value in {**choices, **of_files}.items():
        check_option(RunsConfig, name, value)
    _refuse_foreign(source, {"subset": subset, "path": path, **file_options.of_files, **options})
    if source == "gemstones":
        table = gemstones(subset)
    elif source == "chinchilla":
        table = chinchilla()
    elif source == "csv":
        table = from_file(path, replace(file_options, exclude_faults=bad_rows == "exclude"))
    elif source in TRACKED or file_options.columns:
        files = replace(file_options, exclude_faults=bad_rows == "exclude")
        table = _from_histories(source, path, options, files, midway)
    else:
        table = _from_tracker(options, bad_rows == "exclude", midway)
    if diverged == "exclude" and table.has("diverged_step"):
        table = table.exclude(table.frame["diverged_step"].notna(), "of a run that diverged")
    if rolled_back == "exclude" and table.has("rollbacks"):
        table = table.exclude(table.frame["rollbacks"] > 0, "after a rollback")
    if midway == "exclude":
        for reason, rows in rows_midway(table.frame).items():
            table = table.exclude(rows, reason)
    if not len(table):
        raise UserError(f"runs={source}: holds no rows to fit; excluded are {table.exclusions or 'none'}")
    return table.with_loss(loss) if loss else table


def _refuse_foreign(source: str, given: Mapping[str, Any]) -> None:
    """Refuse unknown sources, and options that belong to another source."""
    allowed: dict[str, set[str]] = {
        "gemstones": {"subset"},
        "chinchilla": set(),
        "csv": {"path", *OF_FILES},
        "mlflow": {"uri", "experiment", "columns", *(_OF_HISTORIES if given.get("columns") else ())},
        "tensorboard": {"path", *_OF_HISTORIES},
        "wandb": {"path", "project", *_OF_HISTORIES},
    }
    if source not in SOURCES:
        raise UserError(f"runs={source}: allowed values are {', '.join(SOURCES)}")
    foreign = [name for name, value in given.items() if value and name not in allowed[source]]
    if foreign:
        meant = ", ".join(sorted(allowed[source])) or "none of its own"
        file = f"; to read a file, give runs=csv runs.path={given['path']}" if "path" in foreign else ""
        raise UserError(
            f"runs={source}: does not take {', '.join(foreign)}; it takes {meant}, where and bad_rows{file}"
        )


def _from_histories(
    source: str, path: str | os.PathLike[str] | None, options: Mapping[str, Any], given: FileOptions, midway: str
) -> RunsTable:
    """Other people's runs in a tracker. Its libraries are imported only here."""
    place = Path(path) if path is not None else None
    if place is not None and not place.exists():
        raise UserError(f"runs.path={path}: there is no such file or folder; give the one that the tracker wrote")
    if source == "tensorboard":
        if place is None:
            raise UserError("runs=tensorboard: give runs.path=FOLDER, TensorBoard's --logdir")
        histories, said = read_tensorboard(place, given.columns), f"runs.path={path}"
    elif source == "wandb":
        project = options.get("project")
        said = f"runs.path={path}" if place else f"runs.project={project}"
        runs = runs_of(place, project, given.columns)
        if not given.columns and runs and all(OURS in run.config for run in runs):
            return _of_our_own(runs, said, given.exclude_faults, midway)
        histories = histories_of(runs, given.columns)
    else:
        histories, said = _of_mlflow(given.columns, **options), f"runs.experiment={options.get('experiment')}"
    raw = histories.table(said, given.columns)
    table = from_raw(f"{source} {said.partition('=')[2]}", raw, replace(given, decimal="dot"), said)
    return table.noting(READ_BY_MAPPING, source)


def _of_our_own(runs: Sequence[OneRun], said: str, exclude_faults: bool, midway: str) -> RunsTable:
    """Runs that shapelaw recorded in wandb, read in the same way as from MLflow."""
    from shapelaw.tracking import OneTracked, read_wandb_runs

    tracked = [OneTracked(run.state, run.config, rows_of(run)) for run in runs]
    frame, suites = read_wandb_runs([run for run in tracked if run.ours])
    if frame.empty:
        raise UserError(f"{said}: no run has a validation yet; train some with `shapelaw train tracker=wandb -m ...`")
    return _tracked_table(f"wandb {said.partition('=')[2]}", frame, suites, exclude_faults, midway)


def _of_mlflow(columns: Mapping[str, str], **options: Any) -> Histories:
    from shapelaw.tracking import read_any

    settings, metrics, recorded = read_any(**options, wanted=lambda names: wanted(names, columns))
    settings = settings.assign(run=called(list(settings["run"]), list(settings["mlflow_run_id"])))
    return Histories(settings, metrics, recorded)


def _from_tracker(options: Mapping[str, Any], exclude_faults: bool, midway: str) -> RunsTable:
    """Validations of tracked runs. The tracker's libraries are imported only here."""
    from shapelaw.tracking import read_table

    frame, suites = read_table(**options)
    said = "mlflow " + ", ".join(f"{k}={v}" for k, v in sorted(options.items()))
    return _tracked_table(said, frame, suites, exclude_faults, midway)


def _tracked_table(
    said: str, frame: pd.DataFrame, suites: Mapping[str, Suite], exclude_faults: bool, midway: str
) -> RunsTable:
    from shapelaw.tracking import ON_THE_WAY

    if midway == "keep":
        frame = frame.assign(excluded=frame["excluded"].where(~frame["excluded"].isin(ON_THE_WAY), ""))
    own = [name for name in frame if not is_canonical(str(name))]  # columns of users' own models
    further = frame[own] if own else None
    about = {"source": said, "loss_unit": "nats per token"}
    return (RunsTable.excluding_faults if exclude_faults else RunsTable)(frame, about, suites, further)
