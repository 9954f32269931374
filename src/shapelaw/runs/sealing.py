"""Sealed Parquet: a file that holds its own SHA-256, so that no changed byte is read as another value.

The hash is that of the file with zeros in place of the hash. It is stored in the table's own metadata, in plain text, as
often as pandas and Arrow repeat the metadata.
"""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from pathlib import Path

import pandas as pd

from shapelaw.errors import Damaged

SEAL = "shapelaw.seal"
OPEN = "0" * 64
_PLACES = re.compile(rb'("shapelaw\.seal": ")([0-9a-f]{64})')


def sealed_bytes(frame: pd.DataFrame) -> bytes:
    """A frame with its attributes as sealed Parquet."""
    copy, buffer = frame.copy(), BytesIO()
    copy.attrs = {**frame.attrs, SEAL: OPEN}
    copy.to_parquet(buffer, index=False)
    data = buffer.getvalue()
    return _PLACES.sub(rb"\g<1>" + _digest(data).encode(), data)


def read_parquet(path: Path) -> tuple[pd.DataFrame, bool]:
    """A Parquet file, verified if it is sealed; and whether it is.

    Raises:
        Damaged: if it was changed after it was written.
        OSError, ValueError: if it is not Parquet.
    """
    data = path.read_bytes()
    found = {place[2] for place in _PLACES.finditer(data)}
    if found and found != {_digest(_PLACES.sub(rb"\g<1>" + OPEN.encode(), data)).encode()}:
        raise Damaged(
            f"{path} was changed after it was written: it does not match its seal; make it again, for example with the "
            "same shapelaw fit"
        )
    return pd.read_parquet(BytesIO(data)), bool(found)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
