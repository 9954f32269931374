"""Hydra plugin: a group's choice that is a user's own file, as in law=path/to/file.py:NAME."""

from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from shapelaw.plugins import absolute, is_file


class FileChoices(ConfigSource):
    """A search path `choices://GROUP`: every path/to/file.py:NAME is a choice of the group, whose name it is."""

    @staticmethod
    def scheme() -> str:
        """What its search paths begin with."""
        return "choices"

    def load_config(self, config_path: str) -> ConfigResult:
        """The choice as the group's name, its path absolute, so that it is found from every folder."""
        chosen = absolute(config_path.removeprefix(f"{self.path}/").removesuffix(".yaml"))
        config = OmegaConf.create({"name": chosen})
        return ConfigResult(self.provider, f"{self.scheme()}://{self.path}", config, {"package": None})

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Files lie in no group of the configuration."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Whether it is a choice of the group, by a file."""
        return config_path.startswith(f"{self.path}/") and is_file(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> Any:
        """None of them is known before it is given."""
        return []
