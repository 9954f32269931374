"""A run that is recorded in a journal in its folder, and, if MLflow tracks it, the thread that carries that to the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from shapelaw.tracking.delivery import Delivery, Sender
from shapelaw.tracking.journal import Journal
from shapelaw.tracking.protocol import RunInfo
from shapelaw.tracking.store import Store


class FolderTracker:
    """A run that is recorded in its own folder alone; `deliver_to` brings it into a store later.

    Args:
        store: where it would be recorded.
        info: what it is called and described by.
        folder: of the run, where its journal lies.
    """

    def __init__(self, store: Store, info: RunInfo, folder: Path) -> None:
        self._journal, self._folder, self._store = Journal(folder), folder, store
        self._begin()
        self._journal.append("start", info=_plain(info), **asdict(store))

    def _begin(self) -> None:
        """What is to be done before the journal grows."""

    @property
    def run_id(self) -> str | None:
        """No store names it."""
        return None

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Record metrics after so many tokens; what an earlier attempt recorded is not recorded twice."""
        self._journal.metrics(metrics, tokens)

    def rewind(self, number: int, tokens: int, metrics: Mapping[str, float]) -> None:
        """Record that the run went back to so many tokens, for the number-th time."""
        self._journal.rewind(number, tokens, metrics)

    def flush(self) -> None:
        """Make what was recorded outlive a power cut."""
        self._journal.sync()

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file with the run; it is read when the store takes it."""
        inside = path.is_relative_to(self._folder)
        named = path.relative_to(self._folder) if inside else path.absolute()
        self._journal.append("artifact", path=str(named), folder=folder)

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._journal.append("tags", values=dict(tags))

    def finish(self, status: str) -> None:
        """Record the outcome."""
        self._journal.append("status", status=status)
        self._journal.sync()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


class MlflowTracker(FolderTracker):
    """One MLflow run, found by its identity or made.

    Args:
        store: where it is recorded.
        info: what it is called and described by.
        folder: of the run, where its journal lies.
        finish_seconds: how long `close` waits for the store.
    """

    def __init__(self, store: Store, info: RunInfo, folder: Path, finish_seconds: float) -> None:
        super().__init__(store, info, folder)
        self._seconds, self._sender = finish_seconds, Sender(self._delivery)

    def _begin(self) -> None:
        # which looks whether the journal has all that was delivered
        self._delivery = Delivery(self._folder, artifacts=self._store.artifacts)

    @property
    def run_id(self) -> str | None:
        """MLflow's name of the run, as soon as the store has it."""
        return self._sender.delivery.sent.run_id

    def close(self) -> None:
        """Give the store a while to take what it has not yet; what is left is said, and delivered later."""
        super().close()
        self._sender.finish(self._seconds)


def _plain(info: RunInfo) -> dict[str, object]:
    """As JSON has it; parameters are text in the store too."""
    return {**asdict(info), "params": {key: str(value) for key, value in info.params.items()}}
