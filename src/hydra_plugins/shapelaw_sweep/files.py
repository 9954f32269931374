"""Hydra plugin: a group's choice that is a user's own, as in law=path/to/file.py:NAME or model=package.module:NAME."""

from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from shapelaw.plugins import absolute, is_reference

BESIDE: dict[str, dict[str, Any]] = {
    "schedule": {"kind": "own", "warmup_tokens": "${warmup_tokens}"},
    "cooldown": {"fraction": 0.1, "from_tokens": "${tokens}"},
}
"""Group -> what such a choice sets beside the name, as the group's own files do."""


class FileChoices(ConfigSource):
    """A search path `choices://GROUP`: every path/to/file.py:NAME and package.module:NAME is a choice of the group."""

    @staticmethod
    def scheme() -> str:
        """What its search paths begin with."""
        return "choices"

    def load_config(self, config_path: str) -> ConfigResult:
        """The choice as the group's name, its path absolute, so that it is found from every folder."""
        config = OmegaConf.create({"name": absolute(self._choice(config_path)), **BESIDE.get(self.path, {})})
        return ConfigResult(self.provider, f"{self.scheme()}://{self.path}", config, {"package": None})

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Files lie in no group of the configuration."""
        return False

    def is_config(self, config_path: str) -> bool:
        """Whether it is a choice of the group, by a file or a module."""
        return config_path.startswith(f"{self.path}/") and is_reference(self._choice(config_path))

    def list(self, config_path: str, results_filter: ObjectType | None) -> Any:
        """None of them is known before it is given."""
        return []

    def _choice(self, config_path: str) -> str:
        return config_path.removeprefix(f"{self.path}/").removesuffix(".yaml")
