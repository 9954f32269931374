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
    """A run that is recorded in its own folder alone; `deliver_to` brings it into a store later.

    Args:
        store: where it would be recorded.
        info: what it is called and described by.
        folder: of the run, where its journal lies.
    """

    def __init__(self, store: Store, info: RunInfo, folder: Path) -> None:
        self._journal, self._folder, self._store = Journal(folder), folder, store
        deliveries = self._deliveries()
        self._journal.append("start", info=_plain(info), **asdict(store))
        self._senders = [Sender(one) for one in deliveries]

    def _deliveries(self) -> list[Carries]:
        """What carries the journal, each made before it grows: it looks whether the journal has all that was delivered."""
        return []

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
        """Close the journal; nothing is recorded after that."""
        self._journal.close()


class _Tracked(FolderTracker):
    """A run that is tracked, too.

    Args:
        store: where it is recorded.
        info: what it is called and described by.
        folder: of the run, where its journal lies.
        finish_seconds: how long `close` waits for each store.
    """

    def __init__(self, store: Store, info: RunInfo, folder: Path, finish_seconds: float) -> None:
        super().__init__(store, info, folder)
        self._seconds = finish_seconds

    def close(self) -> None:
        """Give the stores a while to take what they have not yet; what is left is said, and delivered later."""
        super().close()
        for sender in self._senders:
            sender.finish(self._seconds)


class MlflowTracker(_Tracked):
    """One MLflow run, found by its identity or made."""

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
        store, info, folder, finish_seconds: as of the others; of the store, the experiment is wandb's project.
        offline: whether it stays on disk, for `wandb sync`.
    """

    def __init__(self, store: Store, info: RunInfo, folder: Path, finish_seconds: float, offline: bool = False) -> None:
        self._offline = offline
        super().__init__(store, info, folder, finish_seconds)

    def _deliveries(self) -> list[Carries]:
        return [WandbDelivery(self._folder, self._offline)]


class OwnedTracker(_Tracked):
    """A run that a tracker of the user's own records.

    Args:
        store, info, folder, finish_seconds: as of the others.
        reference: of the tracker.
        options: that it is called with.
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
    """As JSON has it; parameters are text in the store too."""
    return {**asdict(info), "params": {key: str(value) for key, value in info.params.items()}}
