"""Schema of every option: its name, type, unit and check. Values live in conf/; this file imports no torch.

Token counts are floats here so that `tokens=2e9` can be typed; `whole` turns them into whole numbers and refuses fractions.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from shapelaw.config.checking import CoordinatesConfig
from shapelaw.config.fitting import (
    BootstrapConfig,
    FitConfig,
    HoldoutConfig,
    MethodConfig,
    NamedConfig,
    RunsConfig,
    SubsetConfig,
)
from shapelaw.config.preparing import DataConfig, PrepareConfig, TokenizerConfig
from shapelaw.config.prescribing import ObjectiveConfig, PrescribeConfig, RulesConfig, ShapeLimitsConfig
from shapelaw.config.ranges import check_values
from shapelaw.config.reporting import ReportConfig, ReportKindConfig
from shapelaw.config.training import (
    AttentionConfig,
    CheckpointConfig,
    CooldownConfig,
    LimitsConfig,
    LrRuleConfig,
    NoiseConfig,
    OptimConfig,
    ParallelConfig,
    ResourcesConfig,
    ScheduleConfig,
    SearchConfig,
    ShapeConfig,
    SpikesConfig,
    SuiteConfig,
    TrackerConfig,
    TrainConfig,
    ValidationConfig,
)
from shapelaw.config.values import (
    AUTO,
    BatchScaling,
    Keep,
    LrRule,
    ParallelKind,
    Precision,
    Rounding,
    ScheduleKind,
    Source,
    SpikePolicy,
    TokenizerKind,
    Verify,
    WhenUnreachable,
    file_name,
    or_auto,
    positive,
    switch,
    whole,
)
from shapelaw.errors import UserError
from shapelaw.secrets import refuse_passwords

__all__ = [
    "AUTO",
    "AttentionConfig",
    "BatchScaling",
    "BootstrapConfig",
    "CheckpointConfig",
    "CooldownConfig",
    "CoordinatesConfig",
    "DataConfig",
    "FitConfig",
    "HoldoutConfig",
    "Keep",
    "LimitsConfig",
    "LrRule",
    "LrRuleConfig",
    "MethodConfig",
    "NamedConfig",
    "NoiseConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "ParallelConfig",
    "ParallelKind",
    "Precision",
    "PrepareConfig",
    "PrescribeConfig",
    "ReportConfig",
    "ReportKindConfig",
    "ResourcesConfig",
    "Rounding",
    "RulesConfig",
    "RunsConfig",
    "ScheduleConfig",
    "ScheduleKind",
    "SearchConfig",
    "ShapeConfig",
    "ShapeLimitsConfig",
    "Source",
    "SpikePolicy",
    "SpikesConfig",
    "SubsetConfig",
    "SuiteConfig",
    "TokenizerConfig",
    "TokenizerKind",
    "TrackerConfig",
    "TrainConfig",
    "ValidationConfig",
    "Verify",
    "WhenUnreachable",
    "check_values",
    "corpus_dir",
    "file_name",
    "or_auto",
    "positive",
    "store_schema",
    "switch",
    "to_dataclass",
    "whole",
]


def store_schema(name: str, schema: type) -> None:
    """Register the schema that conf/NAME.yaml starts from, as `NAME_schema`."""
    node = OmegaConf.structured(schema)
    _open_mappings(node)
    ConfigStore.instance().store(name=f"{name}_schema", node=node, replace=True)


def _open_mappings(node: DictConfig) -> None:
    """Let a schema's mappings take any name: Hydra closes whatever lies below the root, and would want a + before the key."""
    for key in map(str, node):
        child = node._get_node(key)
        if isinstance(child, DictConfig) and is_dataclass(OmegaConf.get_type(child)):
            _open_mappings(child)
        elif isinstance(child, DictConfig):
            OmegaConf.set_struct(child, False)


def to_dataclass(config: DictConfig) -> Any:
    """The composed configuration as its schema's dataclass.

    Raises:
        UserError: for missing values, values of the wrong type, keys that `+KEY=VALUE` put where there are none, and URIs
            with a password.
    """
    unknown = _unknown_keys(config)
    if unknown:
        raise UserError(f"+{unknown[0]}: there is no such key; see them all with --help")
    try:
        options = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        if said := _said_by_a_resolver(error):
            raise said from error
        key = getattr(error, "full_key", "") or ""
        if isinstance(error, MissingMandatoryValue):
            raise UserError(f"{key}: is not given; give it as {key}=VALUE, or see with --help what it is") from error
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}: {reason}; give it on the command line as {key}=VALUE") from error
    refuse_passwords(options)
    return options


def _said_by_a_resolver(error: BaseException) -> UserError | None:
    """The user's error that a resolver raised, which OmegaConf wraps."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, UserError):
        inner = inner.__cause__ or inner.__context__
    return inner


def _unknown_keys(config: DictConfig, prefix: str = "") -> list[str]:
    """Keys that the schema does not have."""
    schema = OmegaConf.get_type(config)
    known = {field.name for field in fields(schema)} if is_dataclass(schema) else set()
    unknown = [f"{prefix}{key}" for key in map(str, config) if known and key not in known]
    for key in known:
        child = config._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none():
            unknown += _unknown_keys(child, f"{prefix}{key}.")
    return unknown


def corpus_dir(data_dir: str, data: DataConfig, tokenizer: TokenizerConfig) -> Path:
    """Folder of the prepared corpus: data_dir/CORPUS-TOKENIZER.

    Raises:
        UserError: for a name that would lead out of data_dir.
    """
    return Path(data_dir) / f"{file_name('data.name', data.name)}-{file_name('tokenizer.name', tokenizer.name)}"
