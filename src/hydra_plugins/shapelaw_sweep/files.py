"""Hydra plugin: a group's choice that is a user's own, as in law=path/to/file.py:NAME or model=package.module:NAME, or that an
installed package gives it by an entry point."""

from typing import Any

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from shapelaw.plugins import GROUPS, absolute, installed, is_reference, reference_to

BESIDE: dict[str, dict[str, Any]] = {
    "schedule": {"kind": "own", "warmup_tokens": "${warmup_tokens}"},
    "cooldown": {"fraction": 0.1, "from_tokens": "${tokens}"},
    "tracker": {
        "uri": "sqlite:///${outputs_dir}/mlflow.db",
        "artifacts": "${outputs_dir}/mlflow",
        "log_every_steps": 10,
        "when_unreachable": "refuse",
        "finish_seconds": 30,
    },
}
"""Group -> what such a choice sets beside the name, as the group's own files do."""


class FileChoices(ConfigSource):
    """A search path `choices://GROUP`: every path/to/file.py:NAME and package.module:NAME is a choice of the group, and so are
    the names that installed packages register for it."""

    @staticmethod
    def scheme() -> str:
        """What its search paths begin with."""
        return "choices"

    def load_config(self, config_path: str) -> ConfigResult:
        """The choice as the group's name, its path absolute, so that it is found from every folder."""
        choice = self._choice(config_path)
        name = absolute(choice if is_reference(choice) else str(reference_to(self.path, choice)))
        config = OmegaConf.create({"name": name, **BESIDE.get(self.path, {})})
        return ConfigResult(self.provider, f"{self.scheme()}://{self.path}", config, {"package": None})

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Whether it is the group, and packages give it choices."""
        return config_path == self.path and bool(installed(GROUPS[self.path]))

    def is_config(self, config_path: str) -> bool:
        """Whether it is a choice of the group: by a file or a module, or registered."""
        choice = self._choice(config_path)
        return config_path.startswith(f"{self.path}/") and (
            is_reference(choice) or reference_to(self.path, choice) is not None
        )

    def list(self, config_path: str, results_filter: ObjectType | None) -> Any:
        """Those that are registered; no other is known before it is given."""
        return [] if results_filter is ObjectType.GROUP else sorted(installed(GROUPS[self.path]))

    def _choice(self, config_path: str) -> str:
        return config_path.removeprefix(f"{self.path}/").removesuffix(".yaml")
