"""A run that is recorded in a journal in its folder, and the threads that deliver it to MLflow, to wandb, or to the user's
own tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from shapelaw.tracking.delivery import Delivery
from shapelaw.tracking.journal import Journal
from shapelaw.tracking.own_delivery import OwnDelivery
from shapelaw.tracking.protocol import RunInfo
from shapelaw.tracking.sender import Carries, Sender
from shapelaw.tracking.store import Store
from shapelaw.tracking.wandb_delivery import WandbDelivery


class FolderTracker:
    """A run that is recorded in its own folder only; `deliver_to` can deliver it to a store later.

    Args:
        store: store that would record it.
        info: its name and description.
        folder: folder of the run, with its journal.
    """

    def __init__(self, store: Store, info: RunInfo, folder: Path) -> None:
        self._journal, self._folder, self._store = Journal(folder), folder, store
        deliveries = self._deliveries()
        self._journal.append("start", info=_plain(info), **asdict(store))
        self._senders = [Sender(one) for one in deliveries]

    def _deliveries(self) -> list[Carries]:
        """The deliveries of the journal. They are created before it grows, to check that it still holds all delivered bytes."""
        return []

    @property
    def run_id(self) -> str | None:
        """None, because no store has the run."""
        return None

    def log(self, metrics: Mapping[str, float], tokens: int) -> None:
        """Record metrics after a number of tokens, unless an earlier attempt already recorded them."""
        self._journal.metrics(metrics, tokens)

    def rewind(self, number: int, tokens: int, metrics: Mapping[str, float]) -> None:
        """Record that the run went back to a number of tokens, for the number-th time."""
        self._journal.rewind(number, tokens, metrics)

    def flush(self) -> None:
        """Make the records survive a power cut."""
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
        """Close the journal; nothing is recorded after that."""
        self._journal.close()


class _Tracked(FolderTracker):
    """A run that is also tracked in stores.

    Args:
        store: store that records it.
        info: its name and description.
        folder: folder of the run, with its journal.
        finish_seconds: how long `close` waits for each store.
    """

    def __init__(self, store: Store, info: RunInfo, folder: Path, finish_seconds: float) -> None:
        super().__init__(store, info, folder)
        self._seconds = finish_seconds

    def close(self) -> None:
        """Give the stores some time for the remaining records; what they miss is reported, and delivered later."""
        super().close()
        for sender in self._senders:
            sender.finish(self._seconds)


class MlflowTracker(_Tracked):
    """One MLflow run, found by its identity or created."""

    def _deliveries(self) -> list[Carries]:
        self._delivery = Delivery(self._folder, artifacts=self._store.artifacts)
        return [self._delivery]

    @property
    def run_id(self) -> str | None:
        """MLflow's name of the run, as soon as the store has it."""
        return self._delivery.sent.run_id


class WandbTracker(_Tracked):
    """One wandb run of the run's identity.

    Args:
        store, info, folder, finish_seconds: as for the others; the store's experiment is wandb's project.
        offline: whether it stays on disk, for `wandb sync`.
    """

    def __init__(self, store: Store, info: RunInfo, folder: Path, finish_seconds: float, offline: bool = False) -> None:
        self._offline = offline
        super().__init__(store, info, folder, finish_seconds)

    def _deliveries(self) -> list[Carries]:
        return [WandbDelivery(self._folder, self._offline)]


class OwnedTracker(_Tracked):
    """A run that the user's own tracker records.

    Args:
        store, info, folder, finish_seconds: as for the others.
        reference: reference of the tracker.
        options: options of the call to it.
    """

    def __init__(
        self,
        store: Store,
        info: RunInfo,
        folder: Path,
        finish_seconds: float,
        reference: str,
        options: Mapping[str, object],
    ) -> None:
        self._reference, self._options = reference, options
        super().__init__(replace(store, uri=""), info, folder, finish_seconds)

    def _deliveries(self) -> list[Carries]:
        return [OwnDelivery(self._folder, self._reference, self._options)]


class BothTracker(MlflowTracker):
    """One run of MLflow and one of wandb, from one journal; its arguments are those of WandbTracker."""

    def __init__(self, store: Store, info: RunInfo, folder: Path, finish_seconds: float, offline: bool = False) -> None:
        self._offline = offline
        super().__init__(store, info, folder, finish_seconds)

    def _deliveries(self) -> list[Carries]:
        return [*super()._deliveries(), WandbDelivery(self._folder, self._offline)]


def _plain(info: RunInfo) -> dict[str, object]:
    """The info as JSON types; parameters become text, as in the store."""
    return {**asdict(info), "params": {key: str(value) for key, value in info.params.items()}}
