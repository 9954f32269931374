"""Delivery of a journal to the store, in order, by a thread beside the run (`shapelaw.tracking.sender`) or later.

Every record is sent at least once and kept once: a run is looked up by its identity before it is created, tags and files are
set to the same values again, and a metric with its key, tokens, value and time is one row of the store however often it
arrives. So it does no harm if a process is killed between sending a record and noting it, or if two processes deliver at once.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from shapelaw.errors import UserError
from shapelaw.files import as_record, read_sealed, write_sealed
from shapelaw.fingerprint import former_identity
from shapelaw.tracking.journal import JOURNAL, Journal, Record, damaged_lines, last_of, records, torn
from shapelaw.tracking.protocol import DAMAGED_TAG, RunInfo
from shapelaw.tracking.sender import delivering
from shapelaw.tracking.store import (
    IDENTITY_TAG,
    RunGone,
    Store,
    StoreAway,
    StoreRefused,
    answers,
    client,
    complete_params,
    find_experiment,
    find_run,
    make_run,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SENT = "tracking.sent.json"
BATCH_METRICS = 800
"""Most metrics in one request; the store accepts 1,000."""
MISTAKEN = (KeyError, TypeError, ValueError, AttributeError)
"""Errors from a record that has all its fields, but with wrong content."""
log = logging.getLogger(__name__)


@dataclass
class _Sent:
    """How much of a journal a store has.

    Args:
        uri: URI of the store.
        run_id: the store's name of the run.
        bytes: bytes of the journal that it has.
        files: artifacts before that byte that it could not take.
    """

    uri: str = ""
    run_id: str | None = None
    bytes: int = 0
    files: list[Record] = field(default_factory=list)


class Delivery:
    """Delivers one journal to the store that it names. A journal is only data: it lists records, and files inside its own
    folder; the caller decides which store may get it and where the artifacts of a new experiment lie.

    Args:
        folder: folder of the run.
        uri: URI of another store than the journal names.
        artifacts: root of the artifacts of a new experiment; by default the journal's, for the caller's own run.
    """

    lock = JOURNAL
    """File in the run's folder that is locked during delivery."""

    def __init__(self, folder: Path, uri: str | None = None, artifacts: str | None = None) -> None:
        self.folder, self.path, self._uri, self._artifacts = folder, folder / JOURNAL, uri, artifacts
        self.sent = _read_sent(folder)
        if uri is not None:  # it may have lost records, so it is asked
            self.sent = _Sent(uri)
        if self.sent.bytes > size_of(self.path):  # a power cut removed lines: the store is asked what it has
            self.sent = _Sent(self.sent.uri)
            with contextlib.suppress(OSError):
                (folder / SENT).unlink()  # before the journal has grown again
        self._checked = self._by_name = False
        self._client: MlflowClient | None = None
        self._stored: dict[str, int] = {}

    @property
    def left(self) -> bool:
        """Whether the journal holds records that the store seems to lack; without a store there are none."""
        left = bool(self.sent.files) or next(records(self.path, self.sent.bytes), None) is not None
        return left and bool(self._uri or self.named)

    @property
    def store(self) -> str:
        """Name of the store in messages."""
        return self.sent.uri

    def line(self, reason: str) -> str:
        """Message to the user about a journal that the store has only in part."""
        count = sum(len(record.get("values", ())) for record, _ in records(self.path, self.sent.bytes))
        store = shlex.quote(f"tracker.uri={self.named}")
        return (
            f"tracking: {count} values of {self.folder} are not in {self.named or 'the store'} yet "
            f"({reason or 'it is slow'}); they stay in the folder until `shapelaw replay {store}`, or the same command "
            "again, delivers them"
        )

    def deliver(self) -> None:
        """Send the whole present content of the journal.

        Raises:
            StoreAway: if the store does not answer; its progress until then is recorded.
        """
        if not self._checked:
            self._check_store()
        try:
            self._deliver()
        except RunGone:  # the store was emptied, or the run deleted: it gets everything again
            self.sent, self._by_name = _Sent(self.sent.uri), True
            try:
                self._deliver()
            except RunGone as error:
                raise StoreAway(str(error)) from error

    def _deliver(self) -> None:
        self._send_files()
        start = self.sent.bytes
        for batch, end in _batches(records(self.path, start)):
            self._send(batch)
            self.sent.bytes = end
            self._note()
        if damaged := damaged_lines(self.path, start, self.sent.bytes):
            self._set_tags({DAMAGED_TAG: str(damaged)})
        self._send_files()

    def _check_store(self) -> None:
        """Start over for another store than last time, or if the note names a run of another journal."""
        uri = self._uri or self.named
        if uri != self.sent.uri or not self._is_own_run():
            self.sent = _Sent(uri)
        self._checked = True

    def _is_own_run(self) -> bool:
        """Whether the store's run in the note belongs to the journal; the note may come from elsewhere."""
        start = self._start_record
        if self.sent.run_id is None or start is None:
            return True
        try:
            with self._run() as (store, run_id):
                there = store.get_run(run_id).data.tags.get(IDENTITY_TAG)
                return there in (start["info"]["identity"], former_identity(self.folder))
        except (RunGone, StoreRefused):
            return False

    @cached_property
    def _start_record(self) -> Record | None:
        """The journal's last start. One search suffices, because a run appends its start before its delivery begins."""
        return last_of(self.path, "start")

    @property
    def named(self) -> str:
        """The store that the journal names last; empty for a run that was kept in its folder only."""
        start = self._start_record
        return str(start["uri"]) if start else self.sent.uri

    def _send(self, batch: list[Record]) -> None:
        """Send some records of metrics, or one of another kind; a record that the store refuses is reported and skipped."""
        try:
            self._dispatch(batch)
        except (StoreRefused, *MISTAKEN) as error:
            if len(batch) > 1:
                for record in batch:
                    self._send([record])
            else:
                log.warning("tracking: refused a record of %s: %s", self.path, " ".join(str(error).split())[:200])

    def _dispatch(self, batch: list[Record]) -> None:
        kind = batch[0]["kind"]
        if kind in ("metrics", "rewind"):
            self._send_metrics(batch)
        elif kind == "start":
            self._start(batch[0])
        elif kind == "artifact":
            self.sent.files.append(batch[0])
        elif kind == "tags":
            self._set_tags(batch[0]["values"])
        elif kind == "status":
            with self._run() as (store, run_id):
                store.set_terminated(run_id, batch[0]["status"], batch[0]["time"])

    def _start(self, record: Record) -> None:
        """Find or create the run; if this journal did not create it, the store is asked what the run has."""
        info = RunInfo(**record["info"])
        uri = self.sent.uri
        known = record["experiment_id"] if uri == record["uri"] and not self._by_name else None
        experiment_id = known or find_experiment(self._store(uri))
        with answers():
            store = self._client = client(uri)
            found = find_run(store, experiment_id, info.identity)
            if self.sent.run_id not in (None, found.info.run_id if found else ""):
                raise RunGone(self.sent.run_id)
            run = found or make_run(store, experiment_id, info)
            complete_params(store, run, info)
            if found:  # a new run already has its status and tags
                store.update_run(run.info.run_id, status="RUNNING")
        if self.sent.run_id is None:
            self._stored = _latest(run)
        self.sent.run_id = run.info.run_id
        if found:
            self._set_tags(dict(info.tags))

    def _store(self, uri: str) -> Store:
        """Another store than the record's; its artifacts lie where the run was last started, as it may have moved."""
        last = self._start_record
        assert last is not None
        return Store(uri, self._artifacts or last["artifacts"], last["experiment"])

    @contextlib.contextmanager
    def _run(self) -> Iterator[tuple[MlflowClient, str]]:
        if self.sent.run_id is None:
            raise RunGone(str(self.path))
        with answers():
            self._client = self._client or client(self.sent.uri)
            yield self._client, self.sent.run_id

    def _set_tags(self, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        if tags:
            with self._run() as (store, run_id):
                store.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _send_metrics(self, batch: list[Record]) -> None:
        from mlflow.entities import Metric

        metrics = []
        for record in batch:
            if record["kind"] == "rewind":
                self._stored = {}
            new = {k: float(v) for k, v in record["values"].items() if record["tokens"] > self._stored.get(k, -1)}
            metrics += [Metric(key, value, record["time"], record["tokens"]) for key, value in new.items()]
        if metrics:
            with self._run() as (store, run_id):
                store.log_batch(run_id, metrics=metrics)

    def _send_files(self) -> None:
        """Send the pending artifacts; one that cannot be sent does not block others and is tried again later."""
        due, self.sent.files = self.sent.files, []
        for record in due:
            path = self.folder / record["path"]
            if not path.resolve().is_relative_to(self.folder.resolve()):
                log.warning("tracking: %r is not sent: it is outside its run's folder, %s", record["path"], self.folder)
                continue
            try:
                if path.exists():
                    with self._run() as (store, run_id):
                        store.log_artifact(run_id, str(path), record["folder"])
            except (StoreAway, StoreRefused) as error:
                log.warning("tracking: %s could not be stored with its run: %s", path, error)
                self.sent.files.append(record)
        if due:
            self._note()

    def _note(self) -> None:
        """Record the progress of the store; if that fails, records are sent again, which does no harm."""
        with contextlib.suppress(OSError):
            write_sealed(self.folder / SENT, vars(self.sent), durable=False)


def _batches(journal: Iterator[tuple[Record, int]]) -> Iterator[tuple[list[Record], int]]:
    """Records of metrics in batches of about BATCH_METRICS, others alone; each with the byte of the journal after it."""
    batch: list[Record] = []
    end = count = 0
    for record, after in journal:
        if record["kind"] not in ("metrics", "rewind"):
            if batch:
                yield batch, end
            yield [record], after
            batch, count = [], 0
            continue
        batch.append(record)
        end, count = after, count + len(record["values"])
        if count >= BATCH_METRICS:
            yield batch, end
            batch, count = [], 0
    if batch:
        yield batch, end


def _latest(run: Run) -> dict[str, int]:
    """Metric -> tokens up to which a run has it."""
    return {metric.key: int(metric.step) for metric in run.data._metric_objs}


def _read_sent(folder: Path) -> _Sent:
    """The recorded progress; empty if it cannot be read, so that everything is sent again."""
    path = folder / SENT
    with contextlib.suppress(UserError):
        return as_record(_Sent, read_sealed(path), path) if path.exists() else _Sent()
    return _Sent()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def deliver_to(folder: Path, store: Store, parent_run_id: str | None = None) -> str | None:
    """Deliver an ended run to a store, which may be a new one; returns the reason for a failure, in one line, or None.

    Args:
        folder: folder of the run.
        store: the store that should get it.
        parent_run_id: the MLflow run of its sweep there.
    """
    sent = _read_sent(folder)
    if sent.uri == store.uri and not sent.files and sent.bytes == size_of(folder / JOURNAL):
        return None  # it has everything, so the journal need not be read
    start = last_of(folder / JOURNAL, "start")
    if start is None:
        if sent.uri == store.uri:
            return None
        return (
            f"tracking: {folder} was trained by a version that kept no records without a tracker, so it cannot be "
            f"delivered to {store.uri}; remove the folder to train it again"
        )
    if start["uri"] != store.uri:
        try:
            find_experiment(store)  # finds moved artifacts before any is sent to their old place
        except (StoreAway, UserError) as error:
            return Delivery(folder, store.uri).line(str(error))
        kept = f"recorded in {start['uri']}" if start["uri"] else "kept only in its folder"
        log.warning("tracking: %s was %s; it is now delivered to %s", folder.name, kept, store.uri)
        _take_over(folder, store, {**start["info"], "parent_run_id": parent_run_id})
    return deliver_left(folder, artifacts=store.artifacts)


def _take_over(folder: Path, store: Store, info: Record) -> None:
    """Append a record to an ended run's journal that another store has the run from now on."""
    end = last_of(folder / JOURNAL, "status")
    journal = Journal(folder)
    try:
        tags = {**info["tags"], "shapelaw.folder": str(folder.absolute())}
        journal.append("start", info={**info, "tags": tags}, **asdict(store))
        if end is not None:
            journal.append("status", status=end["status"])
        journal.sync()
    finally:
        journal.close()


def deliver_left(folder: Path, uri: str | None = None, artifacts: str | None = None) -> str | None:
    """Deliver the remaining journal of an ended run; returns the reason for a failure, in one line, or None.

    Args:
        folder: folder of the run.
        uri: URI of a store to deliver to instead of the one that the journal names; it gets everything.
        artifacts: as for Delivery.
    """
    delivery = Delivery(folder, uri, artifacts)
    rest = torn(delivery.path)
    if rest and delivery.sent.bytes < size_of(delivery.path):
        log.warning("%s: its last line is incomplete and was skipped: %r", delivery.path, rest[:60])
    if not delivery.path.exists() or not delivery.left:
        return None
    with delivering(folder, lambda: True) as alone:
        if not alone:
            return (
                f"tracking: {folder} is being delivered by another process; a run in progress delivers its own records"
            )
        try:
            delivery.deliver()
        except (StoreAway, UserError) as error:
            return delivery.line(str(error))
    if delivery.sent.files:
        return f"tracking: {len(delivery.sent.files)} files of {folder} could not be stored with its run"
    return None
