"""Hydra plugins of shapelaw: the `cells` sweeper, the `local`, `slurm` and `plan` launchers. They only adapt shapelaw.sweep."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, ValueType
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from shapelaw.sweep.settings import PlanSettings, SlurmSettings


@dataclass
class CellsConfig:
    """The default sweeper: every cell is composed and checked before the first job."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.CellsSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    """Overrides of a named sweep (sweeps/NAME.yaml); those of the command line come after them and win."""
    pair: list[list[str]] = field(default_factory=list)
    """Groups of swept keys that advance together instead of forming a product."""
    unglobbed: dict[str, list[str]] = field(default_factory=dict)
    """Group -> choices that a glob leaves out, as they need other choices beside them."""


@dataclass
class LocalConfig:
    """Jobs on this machine, several at once, each in a process of its own."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.LocalLauncher"
    workers: int = 0
    """Jobs at once; 0 is one per core."""
    stop_on_failure: bool = False
    """Whether the first failed job stops the sweep."""


ConfigStore.instance().store(group="hydra/sweeper", name="cells", node=CellsConfig, provider="shapelaw")


@dataclass
class SlurmConfig(SlurmSettings):
    """Jobs on a SLURM cluster. Sites are files that start from it: conf/hydra/launcher/frontier.yaml."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.SlurmLauncher"


@dataclass
class PlanConfig(PlanSettings):
    """A dry run: every cell checked, and a table of what it would take."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.PlanLauncher"


for _name, _node in (("local", LocalConfig), ("slurm", SlurmConfig), ("plan", PlanConfig)):
    ConfigStore.instance().store(group="hydra/launcher", name=_name, node=_node, provider="shapelaw")


class CellsSweeper(Sweeper):
    """Expands the overrides of a sweep and hands all cells to the launcher at once."""

    def __init__(self, params: dict[str, Any], pair: list[list[str]], unglobbed: dict[str, list[str]]) -> None:
        self.params, self.pair, self.unglobbed = params, pair, unglobbed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        from shapelaw.sweep.cells import expand

        assert self.hydra_context is not None
        assert self.launcher is not None
        loader = self.hydra_context.config_loader
        lines = [f"{key}={value}" for key, value in self.params.items()]
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*lines, *arguments])
        globs = {
            o.key_or_group: cast(Glob, o.value()) for o in overrides if o.value_type is ValueType.GLOB_CHOICE_SWEEP
        }
        for group, glob in globs.items():
            glob.exclude = [*glob.exclude, *self.unglobbed.get(group, [])]
        options = {group: loader.get_group_options(group, results_filter=ObjectType.CONFIG) for group in globs}
        return [self.launcher.launch(expand(overrides, self.pair, options), initial_job_idx=0)]


class _TaskLauncher(Launcher):
    """A launcher that composes all configurations and hands them over together with the task."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.task: Any = task_function.task  # type: ignore[attr-defined]  # shapelaw.cli's entry carries it

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from shapelaw.sweep.compose import compose_all

        return self.start(compose_all(self._compose, job_overrides, initial_job_idx))

    def start(self, configs: list[DictConfig]) -> list[JobReturn]:
        raise NotImplementedError

    def _compose(self, index: int, overrides: list[str]) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id, config.hydra.job.num = str(index), index
        return config


class LocalLauncher(_TaskLauncher):
    """Runs the jobs of a sweep on this machine (shapelaw.sweep.local)."""

    def __init__(self, workers: int, stop_on_failure: bool) -> None:
        self.workers, self.stop_on_failure = workers, stop_on_failure

    def start(self, configs: list[DictConfig]) -> list[JobReturn]:
        from shapelaw.sweep.local import launch

        return launch(self.hydra_context, self.task, configs, self.workers, self.stop_on_failure)


class _TaskOnly(_TaskLauncher):
    """A launcher whose jobs do not see Hydra's own part, the larger one: the process that composed a cell drops it."""

    def _compose(self, index: int, overrides: list[str]) -> DictConfig:
        config = super()._compose(index, overrides)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.resolve(config)
        return config


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


class SlurmLauncher(_TaskOnly):
    """Submits the jobs of a sweep to SLURM (shapelaw.sweep.slurm)."""

    def __init__(self, **settings: Any) -> None:
        self.settings = SlurmSettings(**{key: _plain(value) for key, value in settings.items()})

    def start(self, configs: list[DictConfig]) -> list[JobReturn]:
        from shapelaw.sweep.slurm import launch

        return launch(self.task, configs, self.settings)


class PlanLauncher(_TaskOnly):
    """Prints what a sweep would take (shapelaw.sweep.plan)."""

    def __init__(self, device: str) -> None:
        self.device = device

    def start(self, configs: list[DictConfig]) -> list[JobReturn]:
        from shapelaw.sweep.plan import show

        return show(self.task, configs, self.device)
