"""Schema of every option: its name, type, unit and check. Values live in conf/; this file imports no torch.

Token counts are floats here so that `tokens=2e9` can be typed; `whole` turns them into whole numbers and refuses fractions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from shapelaw.errors import UserError


def whole(key: str, value: float, minimum: int = 1) -> int:
    """`value` as a whole number of at least `minimum`.

    Raises:
        UserError: naming the key, for fractions, infinities and smaller numbers.
    """
    if not math.isfinite(value) or value != int(value) or value < minimum:
        raise UserError(f"{key}={value:g}: allowed are whole numbers from {minimum:,}; give one")
    return int(value)


def positive(key: str, value: float) -> float:
    """`value` if it is finite and above zero; raises UserError otherwise."""
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{key}={value:g}: allowed are finite numbers above 0; give one")
    return value


class Rounding(Enum):
    """What to do with tokens that are no whole number of batches."""

    refuse = "refuse"
    up = "up"
    down = "down"


class LrRule(Enum):
    """How lr_base becomes lr_eff."""

    width_sqrt_depth = "width_sqrt_depth"
    width = "width"
    sqrt_depth = "sqrt_depth"
    none = "none"


class ScheduleKind(Enum):
    """The rate as a function of tokens seen."""

    constant = "constant"
    wsd = "wsd"
    cosine = "cosine"
    linear = "linear"


class Precision(Enum):
    """Arithmetic of the training step; auto is bf16 mixed where the device has it and fp32 elsewhere."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Source(Enum):
    """Where text comes from."""

    stdlib = "stdlib"
    text = "text"
    jsonl = "jsonl"
    parquet = "parquet"
    huggingface = "huggingface"


class TokenizerKind(Enum):
    """How text becomes token ids."""

    bytes = "bytes"
    bpe = "bpe"
    file = "file"


class Keep(Enum):
    """Which checkpoints stay on disk."""

    all = "all"
    newest = "newest"


@dataclass
class SuiteConfig:
    """A named world of shapes and scale (conf/suite/NAME/suite.yaml)."""

    name: str = MISSING
    """Name of the suite; also of its MLflow experiment and its folder under outputs/."""
    head_size: int = MISSING
    """Features of one attention head; widths are multiples of it."""
    width_unit: float = MISSING
    """The rate rule counts width in units of the paper's models: width * width_unit (1 for gemstones, 128 / head_size for
    suites with smaller heads)."""
    branches: str = ""
    """Token counts at which its cooldowns branch off, as a sweep's values: 10e9,20e9."""
    extremes: str = ""
    """Its extreme shapes, for a study of the rate, as a sweep's values."""
    prestudy_tokens: float = 0.0
    """Tokens of the runs of that study."""


@dataclass
class ShapeConfig:
    """One shape of the suite (conf/suite/NAME/shape/WIDTHxDEPTH.yaml)."""

    width: int = MISSING
    depth: int = MISSING
    nodes: int = 1
    """Nodes that a run of it takes on a cluster; resources.nodes refers to it."""


@dataclass
class ResourcesConfig:
    """What a cell asks of a cluster; null is the launcher's own default. Never part of a cell's identity."""

    nodes: int = 1
    gpus_per_node: int | None = None
    tasks_per_node: int | None = None
    """Processes a node, one per device."""
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    """Memory a node; 0 is all of it."""
    timeout_min: int | None = None
    """Time limit of one job; a cell that needs longer is requeued and continues."""


@dataclass
class LrRuleConfig:
    """How lr_base becomes the rate of one shape."""

    name: LrRule = MISSING
    patch_ratio: float = MISSING
    """Width / depth from which a shape counts as extreme and is treated as if it were deeper; inf switches that off."""
    patch_strict: bool = MISSING
    """Whether a shape at exactly patch_ratio is spared."""
    patch_divisor: float = MISSING
    """The depth it is treated as having: ceil(width / patch_divisor)."""


@dataclass
class ScheduleConfig:
    """The rate's course over the run."""

    kind: ScheduleKind = MISSING
    warmup_tokens: float = MISSING
    """Linear warm-up from 0 over so many tokens."""
    decay_fraction: float = 0.0
    """wsd: share of the run, at its end, over which the rate falls linearly to final_factor."""
    final_factor: float = 0.0
    """wsd, cosine, linear: the rate at the end, as a share of the peak."""


@dataclass
class CooldownConfig:
    """A branch that continues a run's checkpoint and anneals its rate linearly to 0."""

    fraction: float = 0.0
    """Tokens of the branch as a share of those seen at its start; 0 is no cooldown."""
    from_tokens: float = 0.0
    """Tokens seen where it branches off; the nearest checkpoint's."""


@dataclass
class OptimConfig:
    """AdamW."""

    beta1: float = MISSING
    beta2: float = MISSING
    eps: float = MISSING
    weight_decay: float = MISSING
    """Applied to matrices, not to norms."""
    clip_norm: float = MISSING
    """Global norm to which gradients are clipped; 0 is no clipping."""


@dataclass
class DataConfig:
    """A corpus: its source (prepare.py) and its use (train.py)."""

    name: str = MISSING
    """Name of the corpus; its folder is data_dir/NAME-TOKENIZER."""
    source: Source = MISSING
    path: str | None = None
    """text, jsonl, parquet: a file, a folder or a glob."""
    text_key: str = "text"
    """jsonl, parquet, huggingface: field that holds the text."""
    document_chars: int = 1048576
    """text: a file is one document; a longer one is cut at line ends into pieces of about so many characters."""
    dataset: str | None = None
    """huggingface: name of the dataset."""
    subset: str | None = None
    """huggingface: name of its configuration."""
    split: str = "train"
    """huggingface: split to read."""
    revision: str | None = None
    """huggingface: commit or tag; give one, as a data set may change under its name."""
    val_fraction: float = MISSING
    """Share of documents held out for validation, chosen by hash."""
    shard_tokens: float = MISSING
    """Tokens of one shard file."""
    max_epochs: float = MISSING
    """How often a run may repeat the corpus before it is refused."""


@dataclass
class TokenizerConfig:
    """A tokenizer."""

    name: str = MISSING
    kind: TokenizerKind = MISSING
    vocab_size: int = MISSING
    """Rows of the embedding; for a tokenizer file it may be padded above the file's vocabulary."""
    path: str | None = None
    """file: a tokenizer.json."""
    separator: str | None = "<|endoftext|>"
    """file: token that follows every document; null for none."""


@dataclass
class AttentionConfig:
    """Attention back end."""

    name: str = MISSING


@dataclass
class ValidationConfig:
    """Held-out loss, in nats per token."""

    every_tokens: float = MISSING
    """Cadence, rounded up to whole steps; also at the end of the run."""
    tokens: float = MISSING
    """Size of the fixed held-out sample."""


@dataclass
class CheckpointConfig:
    """Checkpoints."""

    every_tokens: float = MISSING
    """Cadence, rounded up to whole steps; also at the end of the run."""
    keep: Keep = MISSING
    newest: int = 2
    """How many stay with keep=newest."""


@dataclass
class TrackerConfig:
    """Where runs are recorded."""

    name: str = MISSING
    """mlflow or none."""
    uri: str = ""
    """Tracking URI: a database or a server."""
    artifacts: str = ""
    """Artifact root of new experiments in a database store (a server has its own)."""
    log_every_steps: int = 10
    """Cadence of the training metrics."""
    experiment_id: str | None = None
    """Set by the launching process for its jobs."""
    parent_run_id: str | None = None
    """Set by the launching process for its jobs: the MLflow run of the sweep."""


@dataclass
class LimitsConfig:
    """What may be started on this machine without `force=true`."""

    hours: float = MISSING
    """Estimated hours of the whole sweep here."""
    memory_share: float = MISSING
    """Estimated memory of the largest cell, as a share of this machine's."""


@dataclass
class TrainConfig:
    """One cell of a sweep."""

    suite: SuiteConfig = field(default_factory=SuiteConfig)
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    lr_base: float = MISSING
    """Rate before the lr_rule divides it by the shape."""
    lr_rule: LrRuleConfig = field(default_factory=LrRuleConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    cooldown: CooldownConfig = field(default_factory=CooldownConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    tokens: float = MISSING
    """Training tokens of the run: a whole number of batches."""
    tokens_rounding: Rounding = MISSING
    """What to do with tokens that are no whole number of batches."""
    batch_tokens: float = MISSING
    """Tokens of one optimiser step over all devices: a whole number of sequences."""
    seq_len: int = MISSING
    """Context, in tokens."""
    warmup_tokens: float = MISSING
    """Warm-up of this suite; the schedules refer to it."""
    micro_batch_sequences: int = MISSING
    """Sequences of one forward pass on a device; the rest of the batch is accumulated. 0: all that the device gets."""
    seed: int = MISSING
    """Of the initial weights."""
    order_seed: int = MISSING
    """Of the order of sequences."""
    precision: Precision = MISSING
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    force: bool = False
    """Start even what exceeds `limits`."""
    outputs_dir: str = MISSING
    data_dir: str = MISSING
    accelerator: str = "auto"
    """Lightning's accelerator: auto, cpu, gpu."""
    devices: int = 1
    """Devices of one run on each node."""
    num_nodes: int = 1
    """Nodes of one run."""
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    threads: int = 1
    """CPU threads of one run; 0 leaves torch's own choice."""
    progress: bool = True
    """Whether a single run draws a progress bar."""


@dataclass
class PrepareConfig:
    """Text to token shards."""

    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    data_dir: str = MISSING
    outputs_dir: str = MISSING
    workers: int = 0
    """Processes; 0 is one per core."""
    progress: bool = True


@dataclass
class RunsConfig:
    """Where the runs table comes from."""

    source: str = MISSING
    """mlflow, gemstones, chinchilla or csv."""
    uri: str | None = None
    """mlflow: tracking URI."""
    experiment: str | None = None
    """mlflow: name of the experiment (a suite's name)."""
    path: str | None = None
    """csv: a CSV, Parquet or JSON-lines file."""
    columns: dict[str, str] | None = None
    """csv: canonical name -> name in the file."""
    units: dict[str, Any] | None = None
    """csv: canonical name -> factor or named unit."""
    bad_rows: str = "raise"
    """csv, mlflow: raise on invalid rows, or exclude them with a reason."""


@dataclass
class SubsetConfig:
    """Which rows of the table are fitted."""

    name: str = MISSING
    """A published data set (runs=gemstones), or auto: hot runs at the suite's main rate; everything elsewhere."""
    tracked: str | None = None
    """The condition that selects the same kind of rows from tracked runs; null: there are none of that kind."""
    where: str | None = None
    """A further condition on any table, such as `width == 512 and tokens <= 1e11`."""


@dataclass
class NamedConfig:
    """A choice by name; null leaves it to the law and the table."""

    name: str | None = None


@dataclass
class MethodConfig:
    """How the fit is made."""

    name: str = MISSING
    """parametric (approach 3), hull (approach 1), binning (its baseline) or isoflop (approach 2)."""
    cost: str = "flops"
    """hull, binning: flops or device_hours."""
    bins_per_decade: int = 250
    """binning."""


@dataclass
class BootstrapConfig:
    """Resampling for intervals; n=0 is none."""

    n: int = 0
    by: str = "runs"
    kind: str = "percentile"
    level: float = 0.9
    workers: int = 1


@dataclass
class HoldoutConfig:
    """Hold-outs whose errors the fit's checklist is to hold."""

    kinds: list[str] = field(default_factory=list)


@dataclass
class FitConfig:
    """One fit."""

    runs: RunsConfig = field(default_factory=RunsConfig)
    subset: SubsetConfig = field(default_factory=SubsetConfig)
    law: NamedConfig = field(default_factory=NamedConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    solver: NamedConfig = field(default_factory=NamedConfig)
    counting: NamedConfig = field(default_factory=NamedConfig)
    flops: NamedConfig = field(default_factory=NamedConfig)
    bootstrap: BootstrapConfig = field(default_factory=BootstrapConfig)
    holdout: HoldoutConfig = field(default_factory=HoldoutConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    delta: float = MISSING
    """Where Huber's function turns linear, in units of log loss."""
    starts: str = MISSING
    """varpro (variable projection and random starts) or grid (the authors' full grid)."""
    grid_size: int | None = None
    """Number of starts of another grid; null is the solver's own."""
    seed: int = MISSING
    """Of random starts and resampling."""
    sensitivity: bool = False
    """Whether the checklist holds the fit at other deltas and countings."""
    profile: bool = False
    """Whether profile intervals are computed."""
    plots: bool = True
    """Whether the fit's figures are drawn."""
    outputs_dir: str = MISSING
    data_dir: str = MISSING


@dataclass
class ObjectiveConfig:
    """What a prescription spends."""

    name: str = MISSING
    """flops, device_hours or dollars: the unit of the budget."""
    mfu: float | None = None
    """device_hours, dollars: share of device_flops that training reaches; null: by the runs' measured steps."""
    device_flops: float | None = None
    """device_hours, dollars: rated FLOP/s of one device, for mfu."""
    price: float = 1.0
    """dollars: of one device hour."""
    inference_tokens: float = 0.0
    """Tokens of serving that are paid too."""


@dataclass
class RulesConfig:
    """What makes a shape feasible; null is the suite's own (two to 64 heads, an even number, 2 to 255 blocks)."""

    even_heads: bool | None = None
    width_min: int | None = None
    width_max: int | None = None
    depth_min: int | None = None
    depth_max: int | None = None


@dataclass
class ShapeLimitsConfig:
    """What a shape must meet beside the rules; null is no limit."""

    params_min: float | None = None
    params_max: float | None = None
    aspect_min: float | None = None
    """Of width / depth."""
    aspect_max: float | None = None


@dataclass
class PrescribeConfig:
    """One prescription: give budget, or loss, or width, depth and tokens."""

    fit: str | None = None
    """Folder of a fit, or its fit.json; null is the newest under outputs_dir/fits whose law has width and depth."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    budget: float | None = None
    """In the objective's unit."""
    loss: float | None = None
    """Instead of a budget: the loss to reach, nats per token."""
    least: str = MISSING
    """With loss: cost (in the objective's unit) or tokens."""
    width: int | None = None
    """With depth and tokens, instead of a budget: the shape whose loss is asked."""
    depth: int | None = None
    tokens: float | None = None
    space: str = MISSING
    """feasible (every whole shape), relaxed (real width and depth) or params (no shape at all, 6N FLOPs)."""
    aspect_ratio: float | None = None
    """Width / depth to hold; a law without width and depth needs it, or space=params."""
    rules: RulesConfig = field(default_factory=RulesConfig)
    limits: ShapeLimitsConfig = field(default_factory=ShapeLimitsConfig)
    vocab_size: int | None = None
    """Where the runs do not name it."""
    flops: NamedConfig = field(default_factory=NamedConfig)
    """exact, 6n or kaplan; auto (null) is as the fit counted, exact where it took a recorded column."""
    compare: list[str] = field(default_factory=list)
    """Further fits, for what each law prescribes for the budget and what following it costs if another is true."""
    studies: bool = MISSING
    """Whether the price of overtraining and of a wrong aspect ratio is listed too (with a budget in FLOPs)."""
    outputs_dir: str = MISSING
    data_dir: str = MISSING


def store_schemas() -> None:
    """Register the schemas that conf/train.yaml, conf/prepare.yaml, conf/fit.yaml and conf/prescribe.yaml start from."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig, replace=True)
    store.store(name="prepare_schema", node=PrepareConfig, replace=True)
    store.store(name="fit_schema", node=FitConfig, replace=True)
    store.store(name="prescribe_schema", node=PrescribeConfig, replace=True)


def to_dataclass(config: DictConfig) -> Any:
    """The composed configuration as its schema's dataclass.

    Raises:
        UserError: for missing values, values of the wrong type, and keys that `+KEY=VALUE` put where there are none.
    """
    unknown = _unknown_keys(config)
    if unknown:
        raise UserError(f"+{unknown[0]}: there is no such key; see them all with --help")
    try:
        return OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", "") or ""
        reason = str(error).splitlines()[0]
        raise UserError(f"{key}: {reason}; give it on the command line as {key}=VALUE") from error


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
    """Folder of the prepared corpus: data_dir/CORPUS-TOKENIZER."""
    return Path(data_dir) / f"{data.name}-{tokenizer.name}"
