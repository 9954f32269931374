"""Files that are whole or not there: written aside, then renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shapelaw.errors import UserError


def write_text(path: Path, text: str, durable: bool = True) -> None:
    """Write a text file aside, flush it to disk (if it is to outlive a power cut), then rename it into place."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, durable: bool = True) -> None:
    """Write JSON by `write_text`; NaN and infinity are refused, as JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", durable)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: if it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not the JSON that was written there ({error}); remove it to start it anew"
        ) from error
