"""Fits as fit.py leaves them, with the runs that they were made from: the newest that can answer, or the one that is named."""

from __future__ import annotations

from pathlib import Path

from shapelaw.config import PrescribeConfig
from shapelaw.errors import UserError
from shapelaw.fitting.result import RUNS_FILE, FitResult, load_fit
from shapelaw.laws import get_law, law_names
from shapelaw.prescribe.registry import can_be_asked, special_options
from shapelaw.prescribe.world import law_of, reads_shapes
from shapelaw.runs.table import RunsTable


def newest_fit(folder: Path, options: PrescribeConfig) -> tuple[Path, Path | None]:
    """The newest fit whose law answers the options' question, and a newer one that only lacks width and depth for it.

    Raises:
        UserError: if there is none, with the fits that were skipped; or if a newer one is damaged, since an older one never
            replaces it.
    """
    passed: list[str] = []
    shapeless: Path | None = None
    special = special_options(options)
    for path in sorted(folder.glob("*/fit.json"), key=lambda path: path.stat().st_mtime, reverse=True):
        fit = load_newest(path)
        try:
            law = law_of(fit)
            answers = can_be_asked(law, options)
        except UserError:  # not a law of the loss
            answers = False
        if answers and (special or reads_shapes(law)):
            return path.parent, shapeless
        passed.append(path.parent.name)
        shapeless = shapeless or (path.parent if answers else None)
    raise _no_fit(folder, options, passed)


def load_newest(path: Path) -> FitResult:
    """A fit that the user did not name.

    Raises:
        UserError: if it cannot be read, with what to do about it.
    """
    try:
        return load_fit(path)
    except UserError as error:
        raise UserError(
            f"{error}; every other usable fit is older: make this one again with the same shapelaw fit, remove "
            f"{path.parent}, or give fit=FOLDER"
        ) from error


def _no_fit(folder: Path, options: PrescribeConfig, passed: list[str]) -> UserError:
    """The error that names the missing fit, and how to make it."""
    special = special_options(options)
    laws = [name for name in law_names() if can_be_asked(get_law(name), options)] if special else ["interaction"]
    kind = f"a law that is asked by {', '.join(special)}" if special else "a law with width and depth that answers this"
    have = f"; it holds {', '.join(passed[:5])}, without one" if passed else ""
    return UserError(
        f"fit=null: {folder} holds no fit of {kind}{have}; make one with shapelaw fit law={' or law='.join(laws)}, or "
        "give fit=FOLDER"
    )


def read(path: Path) -> tuple[FitResult, RunsTable]:
    """A fit and its runs, which lie beside it.

    Raises:
        UserError: if either is missing or unreadable.
    """
    fit = load_fit(path)
    folder = path if path.is_dir() else path.parent
    if not (folder / RUNS_FILE).is_file():
        raise UserError(
            f"fit={path}: there is no {RUNS_FILE} beside fit.json; save the fit with its runs by result.save(FOLDER, "
            "runs), or make it with shapelaw fit"
        )
    return fit, RunsTable.read(folder / RUNS_FILE)
