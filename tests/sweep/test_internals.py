"""The private parts of submitit and Hydra that sweeps use: this fails when a new version changes them."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import Overrides
from hydra._internal.utils import get_args_parser
from packaging.requirements import Requirement
from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.slurm import slurm
from submitit.slurm.slurm import SlurmInfoWatcher

from support import ROOT

SRC = ROOT / "src"


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (SlurmExecutor.__init__, ["self", "folder", "max_num_timeout", "max_pickle_size_gb", "python"]),
        (SlurmExecutor._submit_command, ["self", "command"]),
        (SlurmExecutor._make_submission_file_text, ["self", "command", "uid"]),
        (SlurmExecutor._internal_update_parameters, ["self", "kwargs"]),
        (SlurmInfoWatcher.__init__, ["self", "delay_s"]),
        (SlurmInfoWatcher.read_info, ["self", "string"]),
        (ConfigLoaderImpl._apply_overrides_to_config, ["overrides", "cfg"]),
        (
            ConfigLoaderImpl._parse_overrides_and_create_caching_repo,
            ["self", "config_name", "overrides", "parsed_overrides"],
        ),
        (Overrides.__init__, ["self", "repo", "overrides_list"]),
        (get_args_parser, []),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_private_functions_take_what_they_took(function: Callable[..., Any], parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters


def test_what_else_is_relied_on() -> None:
    assert "map_count" in inspect.signature(slurm._make_sbatch_string).parameters
    assert issubclass(FailedJobError, Exception)
    assert "config_overrides" in Overrides.__annotations__


@pytest.mark.parametrize(("package", "module"), [("submitit", "submitit"), ("hydra-core", r"hydra\._internal")])
def test_private_parts_are_used_in_one_module_and_the_version_is_bounded(package: str, module: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)["project"]
    stated = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["train"]])
    (specifier,) = [requirement.specifier for requirement in stated if requirement.name == package]
    major, minor = version(package).split(".")[:2]
    assert specifier.contains(version(package), prereleases=True)
    assert not specifier.contains(f"{major}.{int(minor) + 1}.0")
    (locked,) = re.findall(rf"^{package}==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert specifier.contains(locked, prereleases=True)
    users = [
        path.name for path in SRC.rglob("*.py") if re.search(rf"^\s*(from|import) {module}\b", path.read_text(), re.M)
    ]
    assert users == [f"{package.removesuffix('-core')}_internals.py"]
