"""Published files on this machine: from the folder in SHAPELAW_DATA_DIR, or downloaded once and checked."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from shapelaw.errors import UserError
from shapelaw.runs.registry import EVERY, PublishedFile, Repository

DATA_DIR_VARIABLE = "SHAPELAW_DATA_DIR"


def local_folder() -> Path | None:
    """Folder with a copy of the published data, if one is named.

    Raises:
        UserError: if SHAPELAW_DATA_DIR does not name a folder.
    """
    named = os.environ.get(DATA_DIR_VARIABLE)
    if not named:
        return None
    folder = Path(named)
    if not folder.is_dir():
        raise UserError(
            f"{DATA_DIR_VARIABLE}={named}: there is no such folder; give one with gemstones/ and chinchilla/"
        )
    return folder


def cache() -> Path:
    """This user's folder for downloaded files, with the same layout as the one in SHAPELAW_DATA_DIR."""
    import pooch

    return Path(pooch.os_cache("shapelaw"))


def fetch_all() -> Path:
    """Folder with every published file: the one in SHAPELAW_DATA_DIR, else the user's cache, filled.

    Raises:
        UserError: as for `fetch`.
    """
    folder = local_folder()
    if folder is not None:
        return folder
    for file, repository in EVERY:
        fetch(file, repository)
    return cache()


def fetch(file: PublishedFile, repository: Repository) -> Path:
    """Path of a published file.

    A folder in SHAPELAW_DATA_DIR is used unchecked. Otherwise the file is downloaded from the pinned commit into the
    user's cache, and its SHA-256 is checked then and at each read.

    Raises:
        UserError: if the file is not in that folder, cannot be downloaded, or is not the pinned one.
    """
    folder = local_folder()
    if folder is not None:
        return _in_folder(folder, file)
    import pooch

    pooch.get_logger().setLevel("WARNING")
    url, place = repository.url(file.remote), cache() / file.local
    try:
        found = pooch.retrieve(url, f"sha256:{file.sha256}", fname=place.name, path=place.parent)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{place.name}: cannot be fetched ({_short(error, url)}); go online, or set a folder with the data in "
            f"{DATA_DIR_VARIABLE}"
        ) from None
    return Path(found)


def _short(error: Exception, url: str) -> str:
    """The reason in a few words; without a connection, the libraries below nest four messages in one."""
    import requests

    if isinstance(error, requests.ConnectionError):
        return f"no connection to {urlsplit(url).netloc}"
    return (str(error).splitlines() or [type(error).__name__])[0]


def _in_folder(folder: Path, file: PublishedFile) -> Path:
    path = folder / file.local
    if not path.is_file():
        raise UserError(
            f"{DATA_DIR_VARIABLE}={folder}: the folder has no file {file.local}; add it, or unset the variable"
        )
    return path
