"""Source text that every Python installation has: the standard library and the installed packages."""

from __future__ import annotations

import os
import platform
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from shapelaw.data.documents import Document
from shapelaw.data.sources import Counted, fingerprint, total_size
from shapelaw.errors import UserError

_NOT_STDLIB = {"site-packages", "dist-packages", "__pycache__"}
_OURSELVES = "shapelaw"
"""Excluded, because a corpus must not change with the program that trains on it, nor with the way it is installed."""


@dataclass(frozen=True)
class StdlibSource(Counted):
    """The source text of Python's standard library: real text that is available everywhere.

    Every .py file below the running Python's library folder, by name, is a document, except for installed packages and
    files that are not UTF-8 (some of Python's own tests). The text depends on the Python version.
    """

    folder: Path | None = None

    def _root(self) -> Path:
        return self.folder or Path(sysconfig.get_path("stdlib"))

    def _files(self) -> list[Path]:
        root = self._root()
        files = []
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [name for name in subfolders if name not in _NOT_STDLIB]
            files += [Path(folder, name) for name in names if name.endswith(".py")]
        if not files:
            raise UserError(
                f"data.source=stdlib: there is no .py file below {root}; this Python comes without its library's "
                "source; choose another source, such as text files"
            )
        return sorted(files, key=lambda path: path.relative_to(root).as_posix())

    def spec(self) -> dict[str, Any]:
        """Kind, Python version, names and sizes of the files."""
        return {"kind": "stdlib", "python": platform.python_version(), **fingerprint(self._files(), self._root())}

    def entries(self) -> Iterator[Document]:
        """Each file is a document."""
        return _entries(self._files(), self._root())

    def text_bytes(self) -> int | None:
        """Sum of the files' sizes."""
        return total_size(self._files())


@dataclass(frozen=True)
class PackagesSource(Counted):
    """The standard library's source text, then that of every package installed for the running Python.

    It consists of the .py files that each distribution's record names and that lie in the packages' folder, distributions
    by normalised name, files by name, without links and files that are not UTF-8. It depends on the installed packages.

    Args:
        folder: folder of installed packages; by default that of the running Python.
        stdlib: the standard library.
    """

    folder: Path | None = None
    stdlib: StdlibSource = StdlibSource()

    def _root(self) -> Path:
        return (self.folder or Path(sysconfig.get_path("purelib"))).resolve()

    def _distributions(self) -> dict[str, Distribution]:
        """Distributions by normalised name, sorted.

        Raises:
            UserError: if none is installed there.
        """
        root = self._root()
        found = {_normalised(one.name): one for one in distributions(path=[str(root)])}
        found.pop(_OURSELVES, None)
        if not found:
            raise UserError(
                f"data.source=packages: no package is installed in {root}; install some, or give data=stdlib"
            )
        return dict(sorted(found.items()))

    def _files(self) -> list[Path]:
        """The files, each once, though two distributions may name the same file."""
        root = self._root()
        return list(dict.fromkeys(path for one in self._distributions().values() for path in _sources(one, root)))

    def spec(self) -> dict[str, Any]:
        """Kind, name and version of each distribution, names and sizes of the files; the standard library's."""
        versions = [f"{name}=={one.version}" for name, one in self._distributions().items()]
        files = fingerprint(self._files(), self._root())
        return {"kind": "packages", "packages": versions, **files, "stdlib": self.stdlib.spec()}

    def entries(self) -> Iterator[Document]:
        """Each file is a document."""
        yield from self.stdlib.entries()
        yield from _entries(self._files(), self._root())

    def text_bytes(self) -> int | None:
        """Sum of the files' sizes."""
        return (self.stdlib.text_bytes() or 0) + total_size(self._files())


def _normalised(name: str) -> str:
    """A name in the form in which the package index compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _sources(one: Distribution, root: Path) -> list[Path]:
    """A distribution's existing .py files below the folder, sorted."""
    named = {root / file for file in one.files or () if file.suffix == ".py" and ".." not in file.parts}
    return sorted(path for path in named if path.is_file() and not path.is_symlink())


def _entries(files: Sequence[Path], root: Path) -> Iterator[Document]:
    """The UTF-8 files, named by their path below the folder."""
    for path in files:
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            yield Document(path.relative_to(root).as_posix(), "", "file that is not UTF-8")
            continue
        yield Document(path.relative_to(root).as_posix(), text)
