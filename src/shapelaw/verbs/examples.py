"""Copies examples into a folder: your own models, optimizers, rates, trackers and trainers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from shapelaw.errors import UserError
from shapelaw.terminal import write
from shapelaw.verbs.doors import Command, project_root

FOLDER = "examples"


def examples(words: Sequence[str]) -> None:
    """Copy the examples into the folder that the only word names (default `examples`), and list them.

    Raises:
        UserError: for other words, or if the folder already holds one of them with different content.
    """
    if len(words) > 1 or any(word.startswith("-") or "=" in word for word in words):
        raise UserError(f"{' '.join(['examples', *words])}: takes one folder and nothing else; give examples FOLDER")
    folder, files = Path(*words or [FOLDER]).expanduser(), sorted((project_root() / FOLDER).glob("*.py"))
    for file in files:
        there = folder / file.name
        if there.exists() and there.read_bytes() != file.read_bytes():
            raise UserError(f"{there}: exists already, with other content; give a folder without this file")
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            shutil.copy(file, folder)
        about = file.read_text(encoding="utf-8").lstrip('"').partition("\n")[0].removesuffix('"""')
        write(f"{folder / file.name}: {about}\n")


COMMAND = Command("[FOLDER]", examples)
