"""The runs table of an experiment, read from the store in few queries.

A database file is queried directly for all runs at once, read-only; any other store by its API, with many runs per request.
Both give the same table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shapelaw.courses import course_of
from shapelaw.errors import UserError
from shapelaw.suite import COLUMNS, HASH_DIGITS, Suite
from shapelaw.tracking import database
from shapelaw.tracking.addresses import check_uri, database_file
from shapelaw.tracking.histories import Histories, Value, histories
from shapelaw.tracking.protocol import (
    DAMAGED_TAG,
    DEVICE_HOURS,
    DIVERGED_TAG,
    FURTHER_LOSS,
    LR_SCALE,
    NOISE_GRAD_SQ,
    NOISE_TRACE,
    OWN,
    PRUNED_TAG,
    ROLLBACKS,
    SUITE_TAG,
    VAL_LOSS,
)
from shapelaw.tracking.server import ServerFault
from shapelaw.tracking.store import IDENTITY_TAG, KIND_TAG, client, unreachable

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run

WHOLE = ("width", "depth", "params", "vocab_size", "batch_tokens", "num_devices", "seq_len", "head_size")
REAL = ("lr_base", "cooldown")
ON_THE_WAY = COOLING, WARMING = "midway through a cooldown", "during the warm-up"
"""Reasons why the rate is changing at a validation."""
OPTIM = "optim."
"""Prefix of parameters of a run that are its optimizer's settings."""
SHOWN_NAMES = 12
LAST = -1
"""Key in place of a number of rollbacks, which is 0 or more."""
log = logging.getLogger(__name__)


def read_runs(uri: str, experiment: str) -> pd.DataFrame:
    """The runs table of an experiment: one row per validation of every training run.

    Columns: run, width, depth, params, tokens, loss, vocab_size, flops, device_hours, step, lr_base, batch_tokens,
    seconds_per_step, num_devices, cooldown (its tokens over those before; 0 at a constant rate), seq_len, head_size,
    suite, status, mlflow_run_id, rollbacks (before the row), diverged_step, schedule, total_tokens, decay_fraction,
    unique_tokens, optimizer, precision, architecture, trainer (if programs trained some), sweep (if some have a name),
    rate_course (as in `shapelaw.courses.Course`, if the record gives the rate of every step), excluded (a reason, or
    nothing), loss_NAME of every further held-out set, and the columns and options of users' own models.

    Raises:
        UserError: if the store or experiment is missing, or it holds no validations.
    """
    return read_table(uri, experiment)[0]


def read_table(uri: str, experiment: str) -> tuple[pd.DataFrame, dict[str, Suite]]:
    """The runs table of an experiment (`read_runs`), and run -> the record of its suite.

    Raises:
        UserError: as for `read_runs`, or if a run's record is damaged.
    """
    import pandas as pd

    with unreachable(uri):
        store = existing(uri)
        experiment_id = experiment_of(uri, store, experiment)
        runs = [run for run in search(uri, store, experiment_id, "train") if VAL_LOSS in run.data.metrics]
        foreign = [] if runs else search(uri, store, experiment_id, None)
        further = sorted({key for run in runs for key in run.data.metrics if FURTHER_LOSS.fullmatch(key)})
        keys = (VAL_LOSS, DEVICE_HOURS, ROLLBACKS, *further)
        values = histories(uri, store, [run.info.run_id for run in runs], keys)
    _say_damaged(runs)
    rows = [row for run in runs for row in rows_of(run, values)]
    if not rows:
        _refuse_foreign(experiment, foreign)
        raise UserError(
            f"runs.experiment={experiment}: no run has a validation yet; train some with `shapelaw train -m ...`"
        )
    frame = pd.DataFrame(rows)
    if "trainer" in frame:
        frame["trainer"] = frame["trainer"].fillna("shapelaw")  # the others
    return frame, {run.data.tags[IDENTITY_TAG]: suite_of(run) for run in runs}


def experiment_of(uri: str, store: MlflowClient, experiment: str) -> str:
    """The id of an experiment.

    Raises:
        UserError: if no experiment has this name.
    """
    found = store.get_experiment_by_name(experiment)
    if found is None:
        names = ", ".join(e.name for e in store.search_experiments())
        raise UserError(
            f"runs.experiment={experiment}: there is no such MLflow experiment at {uri}; the experiments there are {names}"
        )
    return str(found.experiment_id)


def _refuse_foreign(experiment: str, runs: Sequence[Run]) -> None:
    """Refuse runs that another program tracked, and explain how to read them."""
    metrics = sorted({key for run in runs if KIND_TAG not in run.data.tags for key in run.data.metrics})
    params = sorted({key for run in runs if KIND_TAG not in run.data.tags for key in run.data.params})
    if metrics:
        raise UserError(
            f"runs.experiment={experiment}: its runs were not trained by shapelaw; name their metrics and parameters, such as "
            f"'runs.columns={{loss: {metrics[0]}, tokens: METRIC, params: PARAMETER}}' ({_some('metrics', metrics)}; "
            f"{_some('parameters', params)})"
        )


def _some(what: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return f"{what}: {', '.join(names[:SHOWN_NAMES]) or 'none'}{more}"


def _say_damaged(runs: Sequence[Run]) -> None:
    """Report which runs lack records."""
    for run in runs:
        if count := run.data.tags.get(DAMAGED_TAG):
            log.warning(
                "note: run %s lacks records: %s lines of its journal were damaged before they reached the store; leave "
                "the run out, or remove its folder and train it again",
                *(run.data.tags[IDENTITY_TAG], count),
            )


def suite_of(run: Run) -> Suite:
    """The record of a tracked run's suite; for a run from before such records, the facts in its parameters."""
    params, tags = run.data.params, run.data.tags
    if SUITE_TAG in tags:
        return Suite.from_json(tags[SUITE_TAG], f"MLflow run {run.info.run_id}, tag {SUITE_TAG}")
    said = {name: value if name == "suite" else float(value) for name, value in params.items() if name in COLUMNS}
    corpus = tags.get("shapelaw.corpus", params.get("corpus"))
    return replace(Suite.of_columns(said), lr_rule=params.get("lr_rule"), corpus=corpus and corpus[:HASH_DIGITS])


def read_noise(uri: str, experiment: str) -> pd.DataFrame:
    """The gradient noise scale of an experiment's runs, one row per measurement.

    Columns: run, width, depth, batch_tokens, tokens, grad_sq, trace (of one token), and loss, the held-out one interpolated
    in log(tokens); without measurements before a run's first validation or after its last.

    Raises:
        UserError: if the store or experiment is missing, or nothing was measured.
    """
    import numpy as np
    import pandas as pd

    with unreachable(uri):
        store = existing(uri)
        found = store.get_experiment_by_name(experiment)
        runs = [] if found is None else search(uri, store, found.experiment_id, "train")
        runs = [run for run in runs if NOISE_TRACE in run.data.metrics and VAL_LOSS in run.data.metrics]
        values = histories(uri, store, [run.info.run_id for run in runs], (VAL_LOSS, NOISE_GRAD_SQ, NOISE_TRACE))
    frames = []
    for run in runs:
        curves = [{v.tokens: v.value for v in values[run.info.run_id, key]} for key in (NOISE_GRAD_SQ, NOISE_TRACE)]
        losses = {v.tokens: v.value for v in values[run.info.run_id, VAL_LOSS]}
        tokens = np.array([t for t in sorted(curves[0]) if min(losses) <= t <= max(losses)], dtype=float)
        loss = np.interp(np.log(tokens), np.log(list(losses)), list(losses.values()))
        fixed: dict[str, Any] = {
            "run": run.data.tags[IDENTITY_TAG],
            **{key: int(run.data.params[key]) for key in WHOLE[:2]},
        }
        fixed["batch_tokens"] = int(run.data.params["batch_tokens"])
        columns = {"tokens": tokens, "loss": loss, "grad_sq": [curves[0][t] for t in tokens]}
        frames.append(pd.DataFrame(columns | {"trace": [curves[1][t] for t in tokens]}).assign(**fixed))
    if not frames:
        raise UserError(
            f"runs.experiment={experiment}: no run measured its noise scale; train some with noise.every_steps=10 and "
            "micro_batch_sequences=N"
        )
    return pd.concat(frames, ignore_index=True)


def places(uri: str, experiment: str, kind: str) -> tuple[str, dict[str, str]]:
    """The id of an experiment, and identity -> MLflow's id of every run of a kind; empty if it is missing.

    Raises:
        UserError: if the store is missing.
    """
    with unreachable(uri):
        store = existing(uri)
        found = store.get_experiment_by_name(experiment)
        if found is None:
            return "", {}
        runs = search(uri, store, found.experiment_id, kind)
    return str(found.experiment_id), {run.data.tags[IDENTITY_TAG]: run.info.run_id for run in runs}


def existing(uri: str) -> MlflowClient:
    """A client of an existing store.

    Raises:
        UserError: if the store is missing or damaged.
    """
    check_uri(uri)
    file = database_file(uri)
    if file and not file.exists():
        raise UserError(
            f"tracker.uri={uri}: there is no such database yet; train some runs with `shapelaw train -m ...`"
        )
    if file and not database.check(file):
        log.warning(
            "note: %s was written by a version that kept no copies of its parameters and tags, so they are not verified",
            uri,
        )
    return client(uri)


def search(uri: str, store: MlflowClient, experiment_id: str, kind: str | None) -> Sequence[Run]:
    """The runs of an experiment, of one kind or of all, the newest first."""
    if file := database_file(uri):
        recorded = database.recorded_runs(file, experiment_id)
        return [_entity(experiment_id, one) for one in recorded if kind in (None, one.tags.get(KIND_TAG))]
    return search_by_interface(store, experiment_id, kind)


def _entity(experiment_id: str, recorded: database.Recorded) -> Run:
    """MLflow's own record of a run."""
    from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag

    run_id, name, status, start = recorded.run
    info = RunInfo(run_id, experiment_id, "", status, start, None, "active", run_name=name)
    metrics = [Metric(key, value, 0, 0) for key, value in recorded.metrics.items()]
    params = [Param(key, value) for key, value in recorded.params.items()]
    return Run(info, RunData(metrics, params, [RunTag(key, value) for key, value in recorded.tags.items()]))


def search_by_interface(store: MlflowClient, experiment_id: str, kind: str | None) -> Sequence[Run]:
    """Search any store, a thousand runs per request."""
    condition = f"tags.`{KIND_TAG}` = '{kind}'" if kind else ""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = store.search_runs([experiment_id], condition, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
        if not page:
            raise ServerFault("it answers with an empty page of runs and says that more follow")


def rows_of(run: Run, values: Histories) -> list[dict[str, Any]]:
    """One row per validation of a run; costs follow from the run's own counts."""
    params, run_id = run.data.params, run.info.run_id
    fixed: dict[str, Any] = {key: int(params[key]) for key in WHOLE} | {key: float(params[key]) for key in REAL}
    fixed = _of_own_model(params) | fixed
    fixed |= {"run": run.data.tags[IDENTITY_TAG], "suite": params["suite"]}
    fixed |= {"status": run.info.status, "mlflow_run_id": run_id, "diverged_step": _diverged(run)}
    fixed |= {
        "seconds_per_step": run.data.metrics.get("speed/seconds_per_step"),
        **_schedule(params),
        **_trained(params),
        **_unique(params),
    }
    rollbacks = values.get((run_id, ROLLBACKS), ())
    course = course_of(params)

    def at(metric: str) -> dict[tuple[int, int], float]:
        """(tokens, number of earlier rollbacks) -> value; and (tokens, LAST) -> the last value there."""
        recorded = values.get((run_id, metric), ())
        last = {(v.tokens, LAST): v.value for v in recorded}
        return last | {(v.tokens, _before(v, rollbacks)): v.value for v in recorded}

    names = {DEVICE_HOURS: "device_hours"}
    names |= {key: f"loss_{name[1]}" for key in run.data.metrics if (name := FURTHER_LOSS.fullmatch(key))}
    others = {column: at(metric) for metric, column in names.items()}
    return [
        fixed
        | {"tokens": v.tokens, "loss": v.value, "step": v.tokens // fixed["batch_tokens"]}
        | {"flops": v.tokens * float(params["flops_per_token"]), "rollbacks": _before(v, rollbacks)}
        | {column: _beside(v, found, rollbacks) for column, found in others.items()}
        | ({"rate_course": course} if course and _as_planned(v, run, rollbacks) else {})
        | {"excluded": _undone(v, rollbacks) or _excluded(v, params) or _pruned(run)}
        for v in values[run_id, VAL_LOSS]
    ]


def _beside(value: Value, found: Mapping[tuple[int, int], float], rollbacks: Sequence[Value]) -> float | None:
    """The value of another metric that belongs to a validation: one between the same rollbacks; or, if the validation was
    not undone, one that was measured after the run ended (`shapelaw evaluate`)."""
    own = found.get((value.tokens, _before(value, rollbacks)))
    return own if own is not None or _undone(value, rollbacks) else found.get((value.tokens, LAST))


def _of_own_model(params: Mapping[str, str]) -> dict[str, float | str]:
    """Columns and options of a user's own model, as numbers if possible."""
    found: dict[str, float | str] = {}
    for name, text in params.items():
        if name.startswith(OWN):
            try:
                found[name.removeprefix(OWN)] = float(text)
            except ValueError:
                found[name.removeprefix(OWN)] = text
    return found


def _schedule(params: Mapping[str, str]) -> dict[str, Any]:
    """The schedule of a run's rate, and its end; empty for runs from before it was recorded."""
    kind, final = params.get("schedule"), float(params.get("schedule.final_factor", 0.0))
    if kind is None:
        return {}
    falls = {"constant": 0.0, "wsd": float(params.get("schedule.decay_fraction", 1.0))}.get(kind, 1.0)
    name = f"{kind} to {final:g}" if final else kind
    return {"schedule": name, "total_tokens": float(params["tokens"]), "decay_fraction": falls}


def _as_planned(value: Value, run: Run, rollbacks: Sequence[Value]) -> bool:
    """Whether the rates up to a validation are those of the plan, because no earlier rollback has lowered them."""
    return run.data.metrics.get(LR_SCALE, 1.0) == 1.0 or not _before(value, rollbacks)


def _unique(params: Mapping[str, str]) -> dict[str, float]:
    """Number of different tokens that the run draws from; empty if not recorded."""
    return {"unique_tokens": float(params["unique_tokens"])} if "unique_tokens" in params else {}


def _trained(params: Mapping[str, str]) -> dict[str, str]:
    """The recorded settings of a run's training."""
    chosen = {key.removeprefix(OPTIM): value for key, value in params.items() if key.startswith(OPTIM)}
    name = chosen.pop("name", "own" if "code" in chosen else "adamw")
    settings = sorted(f"{key}={value}" for key, value in chosen.items())
    said = {key: params.get(key) for key in ("precision", "architecture", "trainer", "sweep")}
    known = {name: value for name, value in said.items() if value}
    return known | ({"optimizer": f"{name} {', '.join(settings)}"} if settings else {})


def _before(value: Value, rollbacks: Sequence[Value]) -> int:
    """Number of rollbacks of the run before a value was measured."""
    return sum(back.time <= value.time for back in rollbacks)


def _diverged(run: Run) -> int | None:
    """The step at which a run diverged, unless it was continued and finished."""
    step = run.data.tags.get(DIVERGED_TAG)
    return int(step) if step and run.info.status != "FINISHED" else None


def _pruned(run: Run) -> str:
    """Whether a search gave up the run; runs that it let finish are the better ones of their kind."""
    pruned = run.data.tags.get(PRUNED_TAG)
    return f"pruned {pruned} by a search" if pruned else ""


def _undone(value: Value, rollbacks: Iterable[Value]) -> str:
    """Whether the run later went back to a point before a validation."""
    undone = any(value.time < back.time and value.tokens > back.tokens for back in rollbacks)
    return "undone by a rollback" if undone else ""


def _excluded(value: Value, params: Mapping[str, str]) -> str:
    """Why a validation is not a point for a fit: its rate is neither the run's own nor fully annealed."""
    if float(params["cooldown"]) and value.tokens < int(params["tokens"]):
        return COOLING
    if value.tokens <= float(params.get("warmup_tokens", 0)):
        return WARMING
    return ""
