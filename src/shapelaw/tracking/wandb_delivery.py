"""Weights & Biases behind a run's journal: a thread delivers it to a wandb run of the same identity, on a server or on disk.

No other module imports wandb to write. A record of metrics is one row of the wandb run; its step is the record's number among
the journal's metrics. So a row that is sent twice, or by a continued run, is the same row. `tokens` is one of its values.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapelaw.config import TrackerConfig, WhenUnreachable
from shapelaw.errors import UserError
from shapelaw.files import as_record, read_sealed, write_sealed
from shapelaw.tracking.delivery import MISTAKEN, size_of
from shapelaw.tracking.journal import JOURNAL, Record, last_of, records
from shapelaw.tracking.sender import deliver_rest
from shapelaw.tracking.store import StoreAway

SENT = "tracking.wandb.json"
ABOUT = "shapelaw"
"""Setting of a wandb run with the journal's facts about it: identity, kind, parameters as text, tags."""
TIME = "journal/time_ms"
"""Metric of a row: its time of recording."""
REMEDY = "log in with `wandb login`, or give tracker.offline=true, or tracker=mlflow or none"


@dataclass
class _Sent:
    """How much of a journal wandb has.

    Args:
        bytes: bytes of the journal that it has.
        rows: records of metrics before that byte.
        uri: its name in messages.
        run_id: its name of the run.
    """

    bytes: int = 0
    rows: int = 0
    uri: str = "wandb"
    run_id: str | None = None


class WandbDelivery:
    """Delivers one journal to wandb.

    Args:
        folder: folder of the run; wandb's files lie in its folder `wandb`.
        offline: whether they stay there, for `wandb sync`.
    """

    lock = "tracking.wandb.lock"
    """File in the run's folder that is locked during delivery to wandb."""

    def __init__(self, folder: Path, offline: bool) -> None:
        self.folder, self.path, self.offline = folder, folder / JOURNAL, offline
        self.sent = _read_sent(folder)
        if self.sent.bytes > size_of(self.path):  # a power cut removed lines of the journal
            self.sent = _Sent()
        self._run: Any = None
        self._about: dict[str, Any] = {}

    @property
    def left(self) -> bool:
        """Whether the journal holds records that wandb lacks."""
        return next(records(self.path, self.sent.bytes), None) is not None

    @property
    def store(self) -> str:
        """Its name in messages."""
        return self.sent.uri

    def line(self, reason: str) -> str:
        """Message to the user about a journal that wandb has only in part."""
        return (
            f"tracking: {self.folder} is not completely in wandb ({reason or 'it is slow'}); the same command again "
            f"delivers the rest; {REMEDY}"
        )

    def deliver(self) -> None:
        """Send the whole present content of the journal.

        Raises:
            StoreAway: if wandb accepts nothing.
        """
        start = self.sent.bytes
        with _answers():
            for record, end in records(self.path, start):
                with contextlib.suppress(*MISTAKEN):  # from a record that was tampered with
                    self._take(record)
                self.sent.bytes = end
        if self.sent.bytes != start:
            write_sealed(self.folder / SENT, vars(self.sent), durable=False)

    def _take(self, record: Record) -> None:
        kind = record["kind"]
        if kind == "start":
            self._open(record)
        elif kind in ("metrics", "rewind"):
            values = {key: float(value) for key, value in record["values"].items()}
            row = {**values, "tokens": record["tokens"], TIME: record["time"]}
            self._opened().log(row, step=self.sent.rows)
            self.sent.rows += 1
        elif kind == "tags":
            self._tell(record["values"])
        elif kind == "artifact":
            self._keep(self.folder / record["path"])
        elif kind == "status":
            self._opened().finish(exit_code=0 if record["status"] == "FINISHED" else 1)
            self._run = None

    def _opened(self) -> Any:
        if self._run is None:
            start = last_of(self.path, "start")
            assert start is not None
            self._open(start)
        return self._run

    def _open(self, record: Record) -> None:
        """Open the wandb run of the identity, which continues if it exists."""
        if self._run is not None:
            self._run.finish(exit_code=1)
        import wandb

        info = record["info"]
        told = [set_later["values"] for set_later, _ in records(self.path) if set_later["kind"] == "tags"]
        tags = {
            key: value for values in (info["tags"], *told) for key, value in values.items()
        }  # including those of earlier attempts
        self._about = {**{key: info[key] for key in ("identity", "kind", "params")}, "tags": tags}
        os.environ.setdefault("WANDB_SILENT", "true")
        settings = {
            "console": "off",
            "x_disable_stats": True,
            "silent": True,
            "disable_git": True,
            "disable_code": True,
        }
        self._run = wandb.init(
            project=record["experiment"],
            id=info["identity"],
            name=info["name"],
            job_type=info["kind"],
            config={**{key: _typed(value) for key, value in info["params"].items()}, ABOUT: self._about},
            dir=str(self.folder),
            mode="offline" if self.offline else "online",
            resume=None if self.offline else "allow",
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )
        self._run.define_metric("*", step_metric="tokens")
        self.sent.uri, self.sent.run_id = f"wandb, project {record['experiment']}", info["identity"]

    def _tell(self, tags: Mapping[str, str]) -> None:
        run = self._opened()
        self._about = {**self._about, "tags": {**self._about["tags"], **tags}}
        run.config.update({ABOUT: self._about}, allow_val_change=True)

    def _keep(self, path: Path) -> None:
        if path.exists() and path.resolve().is_relative_to(self.folder.resolve()):
            self._opened().save(str(path), base_path=str(path.parent), policy="now")


def check_login(settings: TrackerConfig) -> None:
    """Refuse to start if wandb does not log this user in, unless the user wants to spool.

    Raises:
        UserError: with what to do.
    """
    if settings.offline or settings.when_unreachable is WhenUnreachable.spool:
        return
    import wandb

    try:
        with _answers():
            wandb.Api(timeout=20).viewer  # noqa: B018  (asks the server who the user is)
    except StoreAway as error:
        raise UserError(
            f"tracker={settings.name}: wandb does not answer ({error}); {REMEDY}, or tracker.when_unreachable=spool to record "
            "now and deliver later"
        ) from error


def deliver_to_wandb(folder: Path, offline: bool) -> str | None:
    """Deliver the remaining journal of an ended run; returns the reason for a failure, in one line, or None."""
    return deliver_rest(WandbDelivery(folder, offline))


@contextlib.contextmanager
def _answers() -> Iterator[None]:
    """Turn wandb's errors into their meaning for the recorder."""
    import requests
    import wandb

    try:
        yield
    except (wandb.errors.Error, requests.RequestException, OSError, ValueError) as error:
        raise StoreAway((str(error).splitlines() or [type(error).__name__])[0][:200]) from error


def _typed(text: str) -> Any:
    """A parameter in the type that wandb compares: a number if possible."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float) else text


def _read_sent(folder: Path) -> _Sent:
    """The recorded progress; empty if it cannot be read, so that everything is sent again."""
    path = folder / SENT
    with contextlib.suppress(UserError):
        return as_record(_Sent, read_sealed(path), path) if path.exists() else _Sent()
    return _Sent()
