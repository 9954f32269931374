"""The private parts of Hydra that composing many runs and reading a command line need; no other module uses Hydra's internals.

pyproject.toml keeps Hydra below its next minor version, and tests/sweep/test_internals.py fails when these parts change.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig


def repository_of(loader: ConfigLoader, master: DictConfig) -> IConfigRepository:
    """The configuration files on the search path of a sweep."""
    assert isinstance(loader, ConfigLoaderImpl)
    overrides = list(master.hydra.overrides.hydra)
    return loader._parse_overrides_and_create_caching_repo(master.hydra.job.config_name, overrides)[1]


def sets_value(override: Override, repository: IConfigRepository) -> bool:
    """Whether an override sets a value, rather than deciding which files are read."""
    return bool(Overrides(repository, [override]).config_overrides)


def set_values(overrides: Sequence[Override], config: DictConfig) -> None:
    """Apply overrides that set values to a composed configuration, in their order.

    Raises:
        ConfigCompositionException: for the first override that is refused.
    """
    ConfigLoaderImpl._apply_overrides_to_config(list(overrides), config)


def arguments_parser() -> argparse.ArgumentParser:
    """Hydra's own parser of the command line."""
    return get_args_parser()
