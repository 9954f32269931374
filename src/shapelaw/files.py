"""Files that are either complete or missing: they are written aside, then renamed."""

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
"""Half of a hash, which is still intact if one byte was changed."""
_CELLS = re.compile(rb"(?<=,)[0-9a-f]{64}(?=\n)")
"""The seals of a table, at the ends of its rows."""
_OPEN = b"0" * 64


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be written to, or created if it is missing; this creates nothing.

    Raises:
        OSError: naming the obstacle.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(code, os.strerror(code), str(there))


def check_room(folder: Path, needed_bytes: float, what: str) -> None:
    """Refuse a folder that cannot be written to, or whose disk is too full for the planned files; this creates nothing.

    Args:
        folder: folder for the files.
        needed_bytes: their approximate size.
        what: the work that needs them, such as `1 fit`.

    Raises:
        OSError: naming the obstacle.
    """
    check_writable(folder)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        said = f"{os.strerror(errno.ENOSPC)}: about {storage(needed_bytes)} for {what}, but {storage(free)} are free"
        raise OSError(errno.ENOSPC, said, str(folder))


def say_if_open_to_all(folder: Path) -> None:
    """Warn about a folder that anybody may write to: content that is read there later may be somebody else's."""
    if folder.is_dir() and folder.stat().st_mode & stat.S_IWOTH:
        log.warning(
            "note: %s: anybody can write to this folder, and so change files that are read later; remove that "
            "permission with chmod o-w, or give another outputs_dir",
            folder,
        )


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors of its writer: a full disk is noticed when buffers are flushed, and such errors name no file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write a text file aside, flush it to disk (if it must survive a power cut), then rename it into place.

    Raises:
        OSError: naming the file; an earlier file stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:  # a full disk, whose file a flush does not name
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write JSON by `write_text`; NaN and infinity are refused, because JSON lacks them."""
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
    """Write a JSON object with its own hash under `seal`, so that later changes of any byte are noticed."""
    content = json.loads(json.dumps(value, allow_nan=False))  # as it will be read: tuples are lists, keys are text
    write_json(path, {**content, SEAL: _seal(content)}, durable)


def read_sealed(path: Path) -> Any:
    """Read a file from `write_sealed`; a file without a seal is not verified (`unsealed`).

    Raises:
        Damaged: if it was changed after it was written.
    """
    content = read_json(path)
    return unsealed(path, content) if isinstance(content, dict) else content


def unsealed(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """The content that `read_json` found in a sealed file, without its seal. A file without a seal is not verified, so it can
    be edited by hand, and files from before there were seals can be read.

    Raises:
        Damaged: if it was changed after it was written.
    """
    rest = {key: value for key, value in content.items() if key != SEAL}
    if content[SEAL] != _seal(rest) if SEAL in content else _sealed_by_another_name(rest):
        raise Damaged(
            f"{path} was changed after it was written: it does not match its {SEAL}; make it again, or remove its line "
            f"{SEAL!r} if you changed it yourself"
        )
    return rest


def _sealed_by_another_name(content: Mapping[str, Any]) -> bool:
    """Whether a value is the hash of everything else, so that its key was changed."""
    hashes = [key for key, value in content.items() if isinstance(value, str) and len(value) == len(_OPEN)]
    return any(content[key] == _seal({name: content[name] for name in content if name != key}) for key in hashes)


def write_sealed_text(path: Path, text: str) -> None:
    """Write a text after a first line with its hash, as a YAML comment."""
    write_text(path, f"{_MARK}{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def check_sealed_text(path: Path) -> None:
    """Refuse a text that was changed since `write_sealed_text` wrote it; a text without a seal is not verified.

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
    """Read a text from `write_sealed_text`, without its seal.

    Raises:
        Damaged: if it was changed.
    """
    check_sealed_text(path)
    text = path.read_text(encoding="utf-8")
    return text.partition("\n")[2] if text.startswith(_MARK) else text


def write_sealed_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV whose last column, `seal`, repeats the hash of the file with zeros in place of the hash. So any
    program can read the table, and the seal stays with it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], SEAL], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, SEAL: _OPEN.decode()} for row in rows)
    digest = hashlib.sha256(text.getvalue().encode()).hexdigest()
    write_text(path, _CELLS.sub(digest.encode(), text.getvalue().encode()).decode())


def check_sealed_table(path: Path, remedy: str) -> None:
    """Refuse a table that was changed since `write_sealed_table` wrote it; a table without a seal is not verified.

    Args:
        path: path of the table.
        remedy: how to make it again.

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
    """The content that `read_json` found in a file as a dataclass, with exactly its fields, each of its type.

    Raises:
        Damaged: naming the first field that does not fit.
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
    """A number in JSON types; NaN and infinities become text that `float` reads."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
