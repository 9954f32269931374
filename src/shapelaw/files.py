"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shapelaw.errors import Damaged
from shapelaw.wording import storage

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import TypeAdapter

Record = TypeVar("Record", bound="DataclassInstance")
log = logging.getLogger(__name__)
SEAL = "seal"
"""Key under which a sealed file holds the hash of everything else in it."""
_MARK = f"# {SEAL}: "
_HALF = re.compile(rb"[0-9a-f]{32}")
"""Of a hash: what is left of it where one byte was changed."""
_CELLS = re.compile(rb"(?<=,)[0-9a-f]{64}(?=\n)")
"""The seals of a table, at the ends of its rows."""
_OPEN = b"0" * 64


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to, or not be made where it is missing; nothing is made.

    Raises:
        OSError: naming what is in the way.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(there))


def check_room(folder: Path, needed_bytes: float, what: str) -> None:
    """Refuse a folder that cannot be written to, or whose disk is too full for what is to be made; nothing is made.

    Args:
        folder: where files go.
        needed_bytes: of them, about.
        what: takes them, such as `1 fit`.

    Raises:
        OSError: naming what is in the way.
    """
    check_writable(folder)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        said = f"{os.strerror(errno.ENOSPC)}: about {storage(needed_bytes)} for {what}, but {storage(free)} are free"
        raise OSError(errno.ENOSPC, said, str(folder))


def say_if_open_to_all(folder: Path) -> None:
    """Say of a folder that anybody may write to it: what is read there later may be somebody else's."""
    if folder.is_dir() and folder.stat().st_mode & stat.S_IWOTH:
        log.warning(
            "note: %s: anybody can write to this folder, and so change files that are read later; remove that "
            "permission with chmod o-w, or give another outputs_dir",
            folder,
        )


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors of whoever writes it: a full disk is noticed when buffers are flushed, which name none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write a text file aside, flush it to disk (if it is to outlive a power cut), then rename it into place.

    Raises:
        OSError: naming the file; what was there before stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:  # of a full disk, which a flush does not name
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write JSON by `write_text`; NaN and infinity are refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", durable)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        Damaged: if it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(f"{path} is not the JSON that was written there ({error}); remove it to start again") from error


def write_sealed(path: Path, value: Mapping[str, Any], durable: bool = True) -> None:
    """Write a JSON object with its own hash under `seal`, so that a byte that changes later is noticed."""
    content = json.loads(json.dumps(value, allow_nan=False))  # as it will be read: tuples are lists, keys are text
    write_json(path, {**content, SEAL: _seal(content)}, durable)


def read_sealed(path: Path) -> Any:
    """Read what `write_sealed` wrote; a file without a seal is taken as it is (`unsealed`).

    Raises:
        Damaged: if it is not what was written.
    """
    content = read_json(path)
    return unsealed(path, content) if isinstance(content, dict) else content


def unsealed(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What `read_json` found in a sealed file, without its seal. Without one it is taken as it is: so it can be edited, and
    files that were written before there were seals are read.

    Raises:
        Damaged: if it is not what was written.
    """
    rest = {key: value for key, value in content.items() if key != SEAL}
    if content[SEAL] != _seal(rest) if SEAL in content else _sealed_by_another_name(rest):
        raise Damaged(
            f"{path} was changed after it was written: it does not match its {SEAL}; make it again, or remove its line "
            f"{SEAL!r} if you changed it yourself"
        )
    return rest


def _sealed_by_another_name(content: Mapping[str, Any]) -> bool:
    """Whether a value is the hash of everything else: then its key is what was changed."""
    hashes = [key for key, value in content.items() if isinstance(value, str) and len(value) == len(_OPEN)]
    return any(content[key] == _seal({name: content[name] for name in content if name != key}) for key in hashes)


def write_sealed_text(path: Path, text: str) -> None:
    """Write a text under a first line that holds its hash, as a comment of YAML."""
    write_text(path, f"{_MARK}{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def check_sealed_text(path: Path) -> None:
    """Refuse a text that `write_sealed_text` wrote and that is no longer the same; one without a seal is taken as it is.

    Raises:
        Damaged: if it was changed.
    """
    first, _, text = path.read_bytes().partition(b"\n")
    marked = first.startswith(_MARK.encode()) or _HALF.search(first)  # either may be what was changed
    if marked and first != f"{_MARK}{hashlib.sha256(text).hexdigest()}".encode():
        raise Damaged(
            f"{path} was changed after it was written: it does not match its {SEAL}; restore the original, or remove "
            "its first line if you changed it yourself"
        )


def read_sealed_text(path: Path) -> str:
    """Read what `write_sealed_text` wrote, without its seal.

    Raises:
        Damaged: if it was changed.
    """
    check_sealed_text(path)
    text = path.read_text(encoding="utf-8")
    return text.partition("\n")[2] if text.startswith(_MARK) else text


def write_sealed_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV whose last column, `seal`, repeats the hash of the file with zeros in its place: so any program reads
    the table, and its seal goes where it goes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], SEAL], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, SEAL: _OPEN.decode()} for row in rows)
    digest = hashlib.sha256(text.getvalue().encode()).hexdigest()
    write_text(path, _CELLS.sub(digest.encode(), text.getvalue().encode()).decode())


def check_sealed_table(path: Path, remedy: str) -> None:
    """Refuse a table that `write_sealed_table` wrote and that is no longer the same; one without a seal is taken as it is.

    Args:
        path: of the table.
        remedy: what makes it anew.

    Raises:
        Damaged: if it was changed.
    """
    content = path.read_bytes()
    found, header = set(_CELLS.findall(content)), content.partition(b"\n")[0].rstrip()
    named = header.endswith(f",{SEAL}".encode())
    if (found or named) and found != {hashlib.sha256(_CELLS.sub(_OPEN, content)).hexdigest().encode()}:
        raise Damaged(
            f"{path} was changed after it was written: it does not match its {SEAL}; {remedy}, or remove its column {SEAL!r} "
            "if you changed it yourself"
        )


def as_record(kind: type[Record], content: Any, path: Path) -> Record:
    """What `read_json` found in a file as a dataclass: every field there, of its type, and no other.

    Raises:
        Damaged: naming the first that is not so.
    """
    from pydantic import ValidationError

    unknown = set(content if isinstance(content, dict) else ()) - {field.name for field in fields(kind)}
    if unknown:
        raise _damaged(path, f"there is no {sorted(unknown)[0]}")
    try:
        adapter: TypeAdapter[Record] = _adapter(kind)
        return adapter.validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _damaged(path, f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}") from error


def _damaged(path: Path, what: str) -> Damaged:
    return Damaged(f"{path} is damaged ({what}); restore the original, or remove it to start again")


@cache
def _adapter(kind: type[Record]) -> TypeAdapter[Record]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _seal(content: Mapping[str, Any]) -> str:
    """SHA-256 of the content as canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def plain(value: float) -> float | str:
    """A number as JSON has it; NaN and infinities as the text that `float` reads."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
