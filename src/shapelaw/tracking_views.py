"""Named views of MLflow's pages: the charts that an experiment opens with, so that runs of a sweep compare at a glance.

MLflow keeps a view as an experiment tag `mlflow.sharedViewState.ID`. It opens by `?viewStateShareKey=ID` after the address of
the experiment's runs, and is listed among the saved views. Nothing here imports mlflow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

VIEW = "shapelaw"
"""Identity of an experiment's own view."""
TAG = f"mlflow.sharedViewState.{VIEW}"
TOKENS, FLOPS = "cost/tokens", "cost/flops"
"""Metrics recorded beside every loss, so that each can be an axis."""
TRAINED = """\
Training runs of one suite of model shapes. `val/loss` is the held-out loss in nats per token, beside its tokens and FLOPs.

* Fit a law to them: `shapelaw fit`, then `shapelaw prescribe budget=FLOPs`
* Figures and a page: `shapelaw report`, written to `outputs/reports/` under this experiment's name
"""
SECTION = "shapelaw"
NOTE = "mlflow.note.content"
"""Tag of an experiment's description, which its users may rewrite."""
TRAINING_VIEW = {"mlflow.experimentKind": "custom_model_development"}
"""Tags that make MLflow show an experiment as training, rather than as language models' answers."""
RUNS_SHOWN = 100
CREATED = 1_700_000_000_000
"""A view needs a creation time, in milliseconds; a constant one keeps the tag unchanged."""

Chart = dict[str, Any]


def address(pages: str, experiment_id: str) -> str:
    """Address of an experiment's own view: its runs side by side.

    >>> address("http://127.0.0.1:5000", "1")
    'http://127.0.0.1:5000/#/experiments/1/runs?viewStateShareKey=shapelaw&compareRunsMode=CHART'
    """
    return f"{pages.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&compareRunsMode=CHART"


def training() -> dict[str, str]:
    """Tags of an experiment of training runs: losses against FLOPs and tokens, differences, parallel coordinates."""
    charts = [
        line("val/loss", FLOPS),
        line("val/loss", TOKENS),
        line("train/loss", FLOPS),
        differences(),
        parallel(("width", "depth", "lr_base", "tokens"), ("val/loss",)),
    ]
    return tags("train", charts, ("width", "depth", "lr_base", "cooldown"), ("val/loss", TOKENS, FLOPS), TRAINED)


def tags(
    kind: str, charts: Sequence[Chart], params: Sequence[str], metrics: Sequence[str], description: str
) -> dict[str, str]:
    """Tags of an experiment with its own view.

    Args:
        kind: kind of the listed runs, train or fit.
        charts: charts in order.
        params, metrics: columns of its table.
        description: Markdown, shown above its runs.
    """
    view = _view(kind, charts, params, metrics)
    return {**TRAINING_VIEW, NOTE: description, TAG: view}


def _view(kind: str, charts: Sequence[Chart], params: Sequence[str], metrics: Sequence[str]) -> str:
    """The view as MLflow reads it: its plain state, and a copy in the envelope that lists it by name."""
    section = {"uuid": SECTION, "name": SECTION, "display": True, "isReordered": False, "isGenerated": False}
    state = {
        "searchFilter": f"tags.`shapelaw.kind` = '{kind}'",
        "orderByKey": f"metrics.`{metrics[0]}`",  # any order except by time lists runs flat, not folded under their sweeps
        "orderByAsc": True,
        "selectedColumns": [f"params.`{name}`" for name in params] + [f"metrics.`{name}`" for name in metrics],
        "runsHiddenMode": "FIRST_20_RUNS",
        "compareRunCharts": [{**chart, "uuid": f"{VIEW}-{place}"} for place, chart in enumerate(charts)],
        "compareRunSections": [section],
        "isAccordionReordered": True,
        "hideEmptyCharts": True,
    }
    envelope = {"name": f"shapelaw: {kind}", "createdAt": CREATED, "updatedAt": CREATED, "state": json.dumps(state)}
    return json.dumps({**envelope, **state})


def _chart(kind: str, name: str, **more: Any) -> Chart:
    common = {"deleted": False, "isGenerated": False, "metricSectionId": SECTION, "runsCountToCompare": RUNS_SHOWN}
    return {"type": kind, "displayName": name, **common, **more}


def line(metric: str, axis: str) -> Chart:
    """Curves of a metric against another, both on logarithmic scales."""
    scales = {"scaleType": "log", "xAxisScaleType": "log"}
    against = {"xAxisKey": "metric", "selectedXAxisMetricKey": axis, "useGlobalXaxisKey": False}
    metrics = {"metricKey": metric, "selectedMetricKeys": [metric], "lineSmoothness": 0, "yAxisKey": "metric"}
    return _chart("LINE", f"{metric} against {axis}", **metrics, **scales, **against, range={})


def scatter(x: str, y: str) -> Chart:
    """One dot per run: a metric against another."""
    axes = {"xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}
    return _chart("SCATTER", f"{y} against {x}", **axes)


def differences() -> Chart:
    """The parameters that differ between the runs shown."""
    options = {"showDifferencesOnly": True, "showChangeFromBaseline": False, "baselineColumnUuid": ""}
    name = "what differs"
    return _chart("DIFFERENCE", name, chartName=name, compareGroups=["Parameters", "Model metrics"], **options)


def parallel(params: Sequence[str], metrics: Sequence[str]) -> Chart:
    """Parallel coordinates: one line per run through its parameters and metrics."""
    chosen = {"selectedParams": list(params), "selectedMetrics": list(metrics), "showAllRuns": False}
    return _chart("PARALLEL", f"{', '.join(params)} and {', '.join(metrics)}", **chosen)
