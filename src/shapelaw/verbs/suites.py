"""Suites as Hydra composes them: the one in force, and the one that runs came from. Nothing else reads their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from shapelaw.config.schema import refuse_bytes, to_dataclass
from shapelaw.errors import UserError
from shapelaw.extras import installed
from shapelaw.suite import Suite
from shapelaw.verbs.doors import store_schemas
from shapelaw.verbs.suite_files import check_suite

NAME, FOLDER, ROOT = "SHAPELAW_SUITE", "SHAPELAW_SUITE_DIR", "SHAPELAW_ROOT"


def environment(root: Path, name: str) -> dict[str, str]:
    """The environment variables by which conf/ refers to a suite.

    Args:
        root: the project's folder.
        name: name of a folder of conf/suite, or a path, which has a slash.

    Returns:
        SHAPELAW_SUITE, which finds it from any working directory (the name, or the absolute path), and SHAPELAW_SUITE_DIR.

    Raises:
        UserError: if the suite is missing, or a folder's files make settings that a suite may not.
    """
    refuse_bytes({NAME: name})
    suites = root / "conf" / "suite"
    folder = Path(os.path.abspath(name)) if os.sep in name else suites / name
    if not name or not (folder / "suite.yaml").is_file():
        have = ", ".join(sorted(path.parent.name for path in suites.glob("*/suite.yaml")))
        raise UserError(f"{NAME}={name}: allowed values are {have}, or a folder with a suite.yaml and shape/*.yaml")
    if folder.parent != suites:
        check_suite(folder)
    return {NAME: folder.name if folder.parent == suites else str(folder), FOLDER: str(folder)}


def suite_name() -> str:
    """Name of the present suite, which is also that of its MLflow experiment; `${suite_name:}` in conf/.

    Raises:
        UserError: if its suite.yaml does not compose.
    """
    from shapelaw.verbs.messages import explain

    try:
        return str(_composed().suite.name)
    except Exception as error:
        if (reason := explain(error)) is None:
            raise
        raise UserError(f"{NAME}={os.environ[NAME]}: {reason}") from error


OmegaConf.register_resolver("suite_name", suite_name, replace=True, use_cache=True)
OmegaConf.register_resolver("tracker_here", lambda: "mlflow" if installed("mlflow") else "none", replace=True)


def shapes() -> list[tuple[int, int]]:
    """Width and depth of every shape of the present suite, without those in subfolders."""
    with _hydra():
        names = GlobalHydra.instance().config_loader().get_group_options("shape", ObjectType.CONFIG, "train")
        found = [_composed(f"shape={name}").shape for name in names]
    return [(int(shape.width), int(shape.depth)) for shape in found]


def find(suite: Suite) -> Suite | None:
    """The suite of a record as train.py composes it now: at the record's place, the present suite, or conf/suite/NAME.

    Returns:
        its record, without a corpus; None if none of these is a suite with that name.
    """
    places = dict.fromkeys(filter(None, (suite.folder, os.environ.get(NAME), suite.name)))
    return next((found for place in places if (found := _record(place)) and found.name == suite.name), None)


def _record(place: str) -> Suite | None:
    """The record of the suite at a place; None if none composes there."""
    try:
        return Suite.of(to_dataclass(_composed(place=place)))
    except (UserError, HydraException, OmegaConfBaseException, YAMLError):
        return None


def _composed(*overrides: str, place: str | None = None) -> DictConfig:
    """The configuration that train.py composes in a suite, by default in the present one."""
    store_schemas("train")
    with _in_suite(place), _hydra():
        config = compose("train", list(overrides))
        OmegaConf.resolve(config)  # now, because an environment variable names the suite's folder
    return config


@contextmanager
def _in_suite(place: str | None) -> Iterator[None]:
    """Use another suite within the context, if one is named."""
    before = {name: os.environ[name] for name in (NAME, FOLDER)}
    os.environ.update(before if place is None else environment(Path(os.environ[ROOT]), place))
    try:
        yield
    finally:
        os.environ.update(before)


def _hydra() -> AbstractContextManager[object]:
    """Hydra on conf/: the running one, or our own in a process without one."""
    running = GlobalHydra.instance().is_initialized()
    return nullcontext() if running else initialize_config_dir(str(Path(os.environ[ROOT]) / "conf"))
