"""Writing shards: files of token ids, written aside, then renamed when they are full and recorded as done."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from shapelaw.data.manifest import Shard, Split, shard_name
from shapelaw.errors import UserError

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
_HASH_BLOCK = 2**20


class ShardWriter:
    """Appends token ids to the shards of one split.

    Shards hold shard_tokens ids each, the last one the rest. After `sync`, the caller records tokens and shards on
    disk and calls `publish`, which renames the full shards. So a shard with its final name is complete and recorded,
    and never changes again. A writer with an earlier state continues from there and cuts off later ids.

    Args:
        folder: folder of the shards.
        split: `train` or `val`.
        dtype: stored type.
        shard_tokens: ids in a full shard.
        state: where to continue.

    Raises:
        UserError: if the shards on disk do not match the state.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype[Any], shard_tokens: int, state: Split) -> None:
        self._folder, self._split, self._dtype, self._shard_tokens = folder, split, dtype, shard_tokens
        self._shards = list(state.shards)
        self._open_tokens = state.tokens - sum(shard.tokens for shard in state.shards)
        self._hash = hashlib.sha256()
        self._published = 0
        self.publish()
        self._drop_later_parts()
        self._file: IO[bytes] = self._reopen()

    @property
    def tokens(self) -> int:
        """Ids written so far."""
        return sum(shard.tokens for shard in self._shards) + self._open_tokens

    @property
    def shards(self) -> tuple[Shard, ...]:
        """Shards that are full so far (after `finish`: all of them)."""
        return tuple(self._shards)

    def append(self, tokens: NDArray[Any]) -> None:
        """Append ids, opening as many shards as they need."""
        while tokens.size:
            piece = np.ascontiguousarray(tokens[: self._shard_tokens - self._open_tokens], dtype=self._dtype)
            self._file.write(piece.data)
            self._hash.update(piece.data)
            self._open_tokens += piece.size
            tokens = tokens[piece.size :]
            if self._open_tokens == self._shard_tokens:
                self._roll()

    def sync(self) -> None:
        """Flush everything to the disk."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())

    def publish(self) -> None:
        """Give the full shards their final names."""
        for shard in self._shards[self._published :]:
            final = self._folder / shard.file
            part = _part(final)
            written = final if final.exists() else part
            _check_size(written, shard.tokens * self._dtype.itemsize)
            os.replace(written, final)
        self._published = len(self._shards)

    def finish(self) -> None:
        """End the last, shorter shard, unless it would be empty."""
        if self._open_tokens:
            self._roll()
        self.close()
        self._open_path().unlink()

    @property
    def open_sha256(self) -> str:
        """Hash of the content of the open shard."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close the open file; if the disk is full, unwritten data are dropped."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _roll(self) -> None:
        self.sync()
        self._file.close()
        name = shard_name(self._split, len(self._shards))
        self._shards.append(Shard(name, self._open_tokens, self._hash.hexdigest()))
        self._open_tokens, self._hash = 0, hashlib.sha256()
        self._file = open(self._open_path(), "wb")  # noqa: SIM115  (`close` closes it)

    def _open_path(self) -> Path:
        return _part(self._folder / shard_name(self._split, len(self._shards)))

    def _reopen(self) -> IO[bytes]:
        """The open shard, cut to the length in the state, with its hash up to date."""
        path, size = self._open_path(), self._open_tokens * self._dtype.itemsize
        file = open(path, "r+b" if path.exists() else "w+b")  # noqa: SIM115  (`close` closes it)
        if os.fstat(file.fileno()).st_size < size:
            file.close()
            _check_size(path, size)
        file.truncate(size)
        while block := file.read(_HASH_BLOCK):
            self._hash.update(block)
        return file

    def _drop_later_parts(self) -> None:
        keep = self._open_path() if self._open_tokens else None
        for path in self._folder.glob(f"{self._split}-{'[0-9]' * 5}.bin.part"):
            if path != keep:
                path.unlink()


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _check_size(path: Path, size: int) -> None:
    found = path.stat().st_size if path.exists() else 0
    if found != size:
        raise UserError(
            f"{path} has {found} bytes instead of the recorded {size}: the folder is damaged; "
            "remove it and prepare the corpus again"
        )


@contextlib.contextmanager
def full_disk_as_user_error(folder: Path) -> Iterator[None]:
    """Turns a full disk (or quota) into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        raise UserError(
            f"corpus folder {folder}: the disk is full ({os.strerror(error.errno)}); finished shards are kept: "
            "free some space and run the same command again to continue"
        ) from error
