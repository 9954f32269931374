"""The configurations of a sweep's runs, exactly as Hydra composes them, but with the common work done once.

Hydra reads and merges some forty files for every configuration. Only the choices of groups decide which files; values are
set afterwards. So Hydra composes every combination of choices once, and each run is a copy with its own values.
"""

from __future__ import annotations

import pickle
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import overload

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict

from shapelaw.sweep.hydra_internals import repository_of, set_values, sets_value


@dataclass(frozen=True)
class _Combination:
    """The configuration of one combination of choices, pickled: loading it takes a fifth of the time of a deep copy."""

    whole: bytes
    task: bytes
    """Without Hydra's own part."""


@dataclass(frozen=True)
class _Parsed:
    """One override of a run."""

    override: Override
    sets_value: bool
    """Whether it sets a value; otherwise it decides which files are read."""


class Composer:
    """Composes configurations from overrides.

    Args:
        loader: Hydra's loader.
        master: the configuration with which the launcher was started.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._repository = repository_of(loader, master)
        self._parser = OverridesParser.create()
        self._parsed: Callable[[str], _Parsed] = cache(self._parse)
        self._combination: Callable[[tuple[str, ...]], _Combination] = cache(self._combine)

    def task(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration for a task; it has no `hydra` key.

        Raises:
            Hydra's error, if it refuses an override.
        """
        config = self._assembled(overrides, lambda combination: combination.task)
        return _without_hydra(self._composed(overrides)) if config is None else config

    def job(self, number: int, overrides: Sequence[str]) -> DictConfig:
        """The configuration of a job that Hydra runs, including Hydra's own part.

        Raises:
            Hydra's error, if it refuses an override.
        """
        config = self._assembled(overrides, lambda combination: combination.whole)
        if config is None:
            config = self._composed(overrides)
        else:
            config.hydra.overrides.task = list(overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(number), number
        return config

    def _assembled(self, overrides: Sequence[str], pick: Callable[[_Combination], bytes]) -> DictConfig | None:
        """A copy of the combination with the values set; None if Hydra must compose it, or report an error."""
        try:
            parsed = [self._parsed(line) for line in overrides]
            if any(_is_of_hydra(each.override) for each in parsed):
                return None
            choices = tuple(line for line, each in zip(overrides, parsed, strict=True) if not each.sets_value)
            config: DictConfig = pickle.loads(pick(self._combination(choices)))
            set_values([each.override for each in parsed if each.sets_value], config)
        except Exception:
            return None
        return config

    def _parse(self, line: str) -> _Parsed:
        override = self._parser.parse_override(line)
        return _Parsed(override, sets_value(override, self._repository))

    def _combine(self, choices: tuple[str, ...]) -> _Combination:
        config = self._composed(choices)
        return _Combination(pickle.dumps(config), pickle.dumps(_without_hydra(config)))

    def _composed(self, overrides: Sequence[str]) -> DictConfig:
        return self._loader.load_sweep_config(self._master, list(overrides))


class Configs(Sequence[DictConfig]):
    """Configurations that are composed on each access: 2,000 kept at once would take 200 MB."""

    @abstractmethod
    def at(self, index: int) -> DictConfig:
        """Compose one of them.

        Raises:
            IndexError: if the index is out of range.
        """

    @overload
    def __getitem__(self, index: int) -> DictConfig: ...

    @overload
    def __getitem__(self, index: slice) -> list[DictConfig]: ...

    def __getitem__(self, index: int | slice) -> DictConfig | list[DictConfig]:
        if isinstance(index, slice):
            return [self.at(each) for each in range(*index.indices(len(self)))]
        return self.at(index)


class SweepConfigs(Configs):
    """The configurations of a sweep's tasks.

    Args:
        composer: composes them.
        overrides: overrides of every run.
        first: number of the first run.
    """

    def __init__(self, composer: Composer, overrides: Sequence[Sequence[str]], first: int = 0) -> None:
        self._composer, self._overrides, self._first = composer, overrides, first

    def __len__(self) -> int:
        return len(self._overrides)

    def at(self, index: int) -> DictConfig:
        return self._composer.task(self._overrides[index])

    def job(self, index: int) -> DictConfig:
        """The configuration of the job that carries out a run, including Hydra's own part."""
        return self._composer.job(self._first + index, self._overrides[index])


def _is_of_hydra(override: Override) -> bool:
    return override.is_hydra_override() or override.key_or_group == "hydra"


def _without_hydra(config: DictConfig) -> DictConfig:
    with open_dict(config):
        del config["hydra"]
    return config
