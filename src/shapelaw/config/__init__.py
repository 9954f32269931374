"""Every option: one frozen record per group, whose fields hold type, bounds, unit and meaning (option.py). Values live in
conf/; `config.schema` makes Hydra's schema of the records, and nothing else here imports Hydra.

Token counts are floats so that `tokens=2e9` can be typed; their records refuse fractions.
"""

from __future__ import annotations

from pathlib import Path

from shapelaw.config.checking import CoordinatesConfig
from shapelaw.config.fitting import (
    BootstrapOptions,
    FitConfig,
    HoldoutConfig,
    LineMethod,
    MethodConfig,
    NamedConfig,
    RunsConfig,
    StagedOptions,
    SubsetConfig,
)
from shapelaw.config.parts import CooldownConfig, ModelConfig, OptimConfig, ScheduleConfig
from shapelaw.config.preparing import DataConfig, PrepareConfig, TokenizerConfig, corpus_options
from shapelaw.config.prescribing import ObjectiveConfig, PrescribeConfig, RulesConfig, ShapeLimits
from shapelaw.config.reporting import ReportConfig, ReportKindConfig
from shapelaw.config.running import (
    BUILTIN,
    COMMAND,
    AttentionConfig,
    CheckpointConfig,
    LimitsConfig,
    ParallelConfig,
    ResourcesConfig,
    SearchConfig,
    SweepConfig,
    TrackerConfig,
    TrainerConfig,
)
from shapelaw.config.training import (
    DepthPatch,
    LrRuleConfig,
    NoiseConfig,
    ShapeConfig,
    SpikeRule,
    SpikesConfig,
    SuiteConfig,
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
    positive,
    whole,
)

__all__ = [
    "AUTO",
    "BUILTIN",
    "COMMAND",
    "AttentionConfig",
    "BatchScaling",
    "BootstrapOptions",
    "CheckpointConfig",
    "CooldownConfig",
    "CoordinatesConfig",
    "DataConfig",
    "DepthPatch",
    "FitConfig",
    "HoldoutConfig",
    "Keep",
    "LimitsConfig",
    "LineMethod",
    "LrRule",
    "LrRuleConfig",
    "MethodConfig",
    "ModelConfig",
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
    "ShapeLimits",
    "Source",
    "SpikePolicy",
    "SpikeRule",
    "SpikesConfig",
    "StagedOptions",
    "SubsetConfig",
    "SuiteConfig",
    "SweepConfig",
    "TokenizerConfig",
    "TokenizerKind",
    "TrackerConfig",
    "TrainConfig",
    "TrainerConfig",
    "ValidationConfig",
    "Verify",
    "WhenUnreachable",
    "corpus_dir",
    "corpus_options",
    "file_name",
    "part_of_corpus",
    "positive",
    "whole",
]


def corpus_dir(data_dir: str, data: DataConfig, tokenizer: TokenizerConfig) -> Path:
    """Folder of the prepared corpus: data_dir/CORPUS-TOKENIZER.

    Raises:
        UserError: for a name that would lead out of data_dir.
    """
    return Path(data_dir) / f"{file_name('data.name', data.name)}-{file_name('tokenizer.name', tokenizer.name)}"


def part_of_corpus(data_dir: str, key: str, value: str) -> tuple[Path, str | None]:
    """Folder of a prepared corpus that is named by CORPUS, or the source of a mixture by CORPUS@SOURCE; and the source.

    Raises:
        UserError: for a name that would lead out of data_dir.
    """
    corpus, marked, source = value.partition("@")
    return Path(data_dir) / file_name(key, corpus), file_name(key, source) if marked else None
