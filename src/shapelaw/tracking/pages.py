"""Reports beside their runs: kept in the store, and linked from the description of their experiment."""

from __future__ import annotations

import re
from pathlib import Path

from shapelaw.tracking.protocol import RunInfo
from shapelaw.tracking.store import Store, client, find_run, make_run, open_store, unreachable
from shapelaw.tracking_views import NOTE, TRAINING_VIEW

EXPERIMENT = "reports"
KIND = "report"
_LINK = re.compile(r"^\* \[The report\]\(.*\)$", re.MULTILINE)
_DESCRIPTION = "The page of each experiment's last `shapelaw report`: open a run, then its artifact `index.html`."


def publish(store: Store, page: Path) -> str:
    """Keep a report's page in the store of its runs, replacing an earlier one, and link to it from their experiment.

    Args:
        store: store of the runs, with the name of their experiment.
        page: the self-contained file.

    Returns:
        the address at which MLflow shows the page, relative to the root of MLflow's own pages.

    Raises:
        UserError: if the store does not answer, or does not accept it.
    """
    experiment_id = open_store(store.uri, store.artifacts, EXPERIMENT, {**TRAINING_VIEW, NOTE: _DESCRIPTION})
    with unreachable(store.uri):
        tracker = client(store.uri)
        info = RunInfo(store.experiment, KIND, f"report of {store.experiment}")
        run = find_run(tracker, experiment_id, info.identity) or make_run(tracker, experiment_id, info)
        tracker.log_artifact(run.info.run_id, str(page))
        tracker.set_terminated(run.info.run_id)
        address = f"#/experiments/{experiment_id}/runs/{run.info.run_id}/artifacts/{page.name}"
        if (runs := tracker.get_experiment_by_name(store.experiment)) is not None:
            tracker.set_experiment_tag(runs.experiment_id, NOTE, with_link(runs.tags.get(NOTE, ""), address))
        return address


def with_link(description: str, address: str) -> str:
    """A description with a link to a report; an earlier link is replaced, and everything else stays.

    >>> with_link("Mine.", "#/a")
    'Mine.\\n* [The report](#/a)\\n'
    >>> with_link("Mine.\\n* [The report](#/a)\\nMore.", "#/b")
    'Mine.\\n* [The report](#/b)\\nMore.'
    """
    line = f"* [The report]({address})"
    if _LINK.search(description):
        return _LINK.sub(lambda _: line, description)
    return f"{description.rstrip()}\n{line}\n".lstrip()
