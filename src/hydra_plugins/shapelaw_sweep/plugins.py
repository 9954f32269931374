"""Hydra plugins of shapelaw, which only adapt shapelaw.sweep: `grid` and `optuna` sweep; the launchers start or queue jobs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, ValueType
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf

from shapelaw.config.option import option, record
from shapelaw.config.schema import schema_of
from shapelaw.errors import UserError
from shapelaw.files import say_if_open_to_all
from shapelaw.sweep.settings import PlanSettings, RaySettings, SearchSettings, SiteSettings, SlurmSettings

if TYPE_CHECKING:
    from shapelaw.sweep.compose import Composer, SweepConfigs


@record("hydra.sweeper")
class GridConfig:
    """The default sweeper: every run is composed and checked before the first job."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.GridSweeper"
    params: dict[str, Any] = option(
        "Overrides of a named sweep (sweeps/NAME.yaml): key -> a value, a list of values, or a pattern such as glob(*). Those "
        "of the command line come after them and win.",
        default_factory=dict,
    )
    pair: list[list[str]] = option(
        "Groups of swept keys that advance together instead of forming a product.", default_factory=list
    )
    unglobbed: dict[str, list[str]] = option(
        "Group -> choices that a glob leaves out, as they need other choices beside them.", default_factory=dict
    )


@record("hydra.launcher")
class LocalConfig:
    """Jobs on this machine, several at once, each in a process of its own."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.LocalLauncher"
    workers: int = option(
        "Jobs at once; 0 is one per core, or for runs on GPUs one per GPU. Each sees its own GPU alone; more jobs than GPUs "
        "share them.",
        default=0,
        low=0,
    )
    stop_on_failure: bool = option("Whether the first failed job stops the sweep.", default=False)


@record("hydra.sweeper")
class SearchConfig(GridConfig, SearchSettings):
    """A search by Optuna; conf/hydra/sweeper/optuna.yaml starts from it. Lists of values make one study each."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.SearchSweeper"
    choose: list[str] = option(
        "Keys whose lists of values are searched, too, rather than made a study each.", default_factory=list
    )
    log: list[str] = option(
        "Keys whose intervals are on a logarithmic scale unless tagged tag(linear,...); tag(log,...) puts others on one.",
        default_factory=list,
    )


for _sweeper, _schema in (("grid", GridConfig), ("search", SearchConfig)):
    ConfigStore.instance().store(group="hydra/sweeper", name=_sweeper, node=schema_of(_schema), provider="shapelaw")


@record("hydra.launcher")
class SlurmConfig(SlurmSettings):
    """Jobs on a SLURM cluster. Sites are files that start from it: conf/hydra/launcher/frontier.yaml."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.SlurmLauncher"


@record("hydra.launcher")
class RayConfig(RaySettings):
    """Jobs on a Ray cluster, or by Ray on this machine."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.RayLauncher"


@record("hydra.launcher")
class PlanConfig(PlanSettings):
    """A dry run: every run checked, and a table of what it would take."""

    _target_: str = "hydra_plugins.shapelaw_sweep.plugins.PlanLauncher"


for _name, _node in (("local", LocalConfig), ("slurm", SlurmConfig), ("ray", RayConfig), ("plan", PlanConfig)):
    ConfigStore.instance().store(group="hydra/launcher", name=_name, node=schema_of(_node), provider="shapelaw")


class GridSweeper(Sweeper):
    """Expands the overrides of a sweep and hands all runs to the launcher at once."""

    def __init__(self, params: dict[str, Any], pair: list[list[str]], unglobbed: dict[str, list[str]]) -> None:
        self.params, self.pair, self.unglobbed = params, pair, unglobbed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if not isinstance(self.launcher, _TaskLauncher):
            raise UserError(
                f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}: it checks no run before the first and says "
                "nothing of those that fail; allowed values are local, slurm, ray, plan and site files that start from slurm "
                "(frontier) or ray"
            )

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        return [self.launcher.launch(self.runs(self.parsed(arguments)), initial_job_idx=0)]

    def parsed(self, arguments: list[str]) -> list[Override]:
        """The named sweep's overrides and the command line's."""
        from shapelaw.sweep.grid import refuse_lists

        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        written = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(self.params), resolve=False))
        given = {argument.partition("=")[0].lstrip("+") for argument in arguments}
        lines = [_line(key, value, written[key]) for key, value in self.params.items() if key not in given]
        overrides = OverridesParser.create(config_loader=loader).parse_overrides([*lines, *arguments])
        refuse_lists(overrides, loader.get_group_options)
        return overrides

    def runs(self, overrides: list[Override]) -> list[list[str]]:
        """The overrides of every run."""
        from shapelaw.sweep.grid import expand

        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        globs = {
            o.key_or_group: cast(Glob, o.value()) for o in overrides if o.value_type is ValueType.GLOB_CHOICE_SWEEP
        }
        for group, glob in globs.items():
            glob.exclude = [*glob.exclude, *self.unglobbed.get(group, [])]
        options = {group: loader.get_group_options(group, results_filter=ObjectType.CONFIG) for group in globs}
        return expand(overrides, self.pair, options)


def _line(key: str, value: Any, written: Any) -> str:
    """The override that a named sweep's file means by a key and its values.

    Args:
        key: of the configuration.
        value: of it, or a list of its values.
        written: the same as the file has it, which may refer to another key.
    """
    if OmegaConf.is_dict(value):
        raise UserError(f"hydra.sweeper.params.{key}: holds keys of its own; give each in one word, {key}.NAME: VALUES")
    if OmegaConf.is_list(value):
        if not value:
            raise UserError(
                f"hydra.sweeper.params.{key}: {written} is empty, so there is nothing to sweep; list its values in suite.yaml, "
                f"or give {key}=A,B on the command line"
            )
        return f"{key}={','.join(map(_word, value))}"
    return f"{key}={_word(value)}"


def _word(value: Any) -> str:
    """A value as an override spells it."""
    if value is None:
        return "null"
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


class SearchSweeper(GridSweeper):
    """Searches intervals by Optuna (shapelaw.sweep.search), one study for every run of the lists."""

    def __init__(self, *, choose: list[str], log: list[str], **settings: Any) -> None:
        super().__init__(*(settings.pop(key) for key in ("params", "pair", "unglobbed")))
        self.choose, self.log = choose, log
        self.settings = {key: _plain(value) for key, value in settings.items()}

    def sweep(self, arguments: list[str]) -> Any:
        from shapelaw.sweep.spaces import split

        if not isinstance(self.launcher, LocalLauncher):
            raise UserError(
                "hydra/sweeper=optuna: a search runs its trials on the machine it is started on; give "
                "hydra/launcher=local (in an allocation of a cluster, too), or lists of values with hydra/sweeper=grid"
            )
        space, rest = split(self.parsed(arguments), self.choose, self.log)
        try:
            from shapelaw.sweep.search import Machine, search
        except ModuleNotFoundError as error:
            raise UserError(
                f"hydra/sweeper=optuna: {error.name} is not installed; pip install 'shapelaw[optuna]'"
            ) from error
        launcher = self.launcher
        machine = Machine(launcher.hydra_context, launcher.task, launcher.composer(), launcher.workers)
        return [search(machine, self.runs(rest), space, SearchSettings(**self.settings))]


class _TaskLauncher(Launcher):
    """A launcher that is given the task and all the runs of a sweep at once."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.task: Any = task_function.task  # type: ignore[attr-defined]  # shapelaw.verbs.main's entry carries it

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from shapelaw.sweep.compose import SweepConfigs

        if not job_overrides:  # of Hydra's own sweeper: ours says which list is empty
            raise UserError(
                "the sweep has no run, as one of its patterns matches nothing; hydra/sweeper=grid says which"
            )
        say_if_open_to_all(Path(self.config.outputs_dir))
        return self.start(SweepConfigs(self.composer(), job_overrides, initial_job_idx))

    def composer(self) -> "Composer":
        """What composes the configurations of the sweep's jobs."""
        from shapelaw.sweep.compose import Composer

        return Composer(self.hydra_context.config_loader, self.config)

    def start(self, runs: "SweepConfigs") -> list[JobReturn]:
        raise NotImplementedError


class LocalLauncher(_TaskLauncher):
    """Runs the jobs of a sweep on this machine (shapelaw.sweep.local)."""

    def __init__(self, workers: int, stop_on_failure: bool) -> None:
        self.workers, self.stop_on_failure = workers, stop_on_failure

    def start(self, runs: "SweepConfigs") -> list[JobReturn]:
        from shapelaw.sweep.local import launch

        return launch(self.hydra_context, self.task, runs, self.workers, self.stop_on_failure)


class SlurmLauncher(_TaskLauncher):
    """Submits the jobs of a sweep to SLURM (shapelaw.sweep.slurm)."""

    def __init__(self, **settings: Any) -> None:
        self.settings = SlurmSettings(**{key: _plain(value) for key, value in settings.items()})

    def start(self, runs: "SweepConfigs") -> list[JobReturn]:
        from shapelaw.sweep.slurm import launch

        return launch(self.task, runs, self.settings)


class RayLauncher(_TaskLauncher):
    """Hands the jobs of a sweep to Ray (shapelaw.sweep.on_ray)."""

    def __init__(self, **settings: Any) -> None:
        self.settings = RaySettings(**{key: _plain(value) for key, value in settings.items()})

    def start(self, runs: "SweepConfigs") -> list[JobReturn]:
        try:
            from shapelaw.sweep.on_ray import launch
        except ModuleNotFoundError as error:
            raise UserError(
                f"hydra/launcher=ray: {error.name} is not installed; pip install 'shapelaw[ray]'"
            ) from error
        return launch(self.hydra_context, self.task, runs, self.settings)


class PlanLauncher(_TaskLauncher):
    """Prints what a sweep would take (shapelaw.sweep.plan)."""

    def __init__(self, device: str | None, site: str | None) -> None:
        self.device, self.site = device, site

    def start(self, runs: "SweepConfigs") -> list[JobReturn]:
        from shapelaw.sweep.plan import show

        site = self.site_settings(self.site) if self.site else None
        return show(self.task, runs, self.device or (site and site.device) or "this", site)

    def site_settings(self, name: str) -> SiteSettings:
        """The settings of a site, as the launcher of that name has them.

        Raises:
            UserError: if no launcher of that name hands jobs to a cluster.
        """
        loader = self.hydra_context.config_loader
        names = loader.get_group_options("hydra/launcher", ObjectType.CONFIG)
        if name in names:
            config = loader.load_configuration(
                self.config.hydra.job.config_name, [f"hydra/launcher={name}"], RunMode.MULTIRUN, from_shell=False
            ).hydra.launcher
            if settings := _CLUSTERS.get(config._target_):
                return settings(**{key: _plain(value) for key, value in config.items() if key != "_target_"})
        raise UserError(
            f"hydra.launcher.site={name}: no such cluster; allowed values are slurm and launchers that start from it, such as "
            "frontier, and likewise ray"
        )


_CLUSTERS: dict[str, type[SiteSettings]] = {SlurmConfig._target_: SlurmSettings, RayConfig._target_: RaySettings}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
