"""Options of train.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from shapelaw.config.places import PlacesConfig
from shapelaw.config.preparing import DataConfig, TokenizerConfig
from shapelaw.config.values import (
    BatchScaling,
    Keep,
    LrRule,
    ParallelKind,
    Precision,
    Rounding,
    ScheduleKind,
    SpikePolicy,
    WhenUnreachable,
)


@dataclass
class SuiteConfig:
    """A named world of shapes and scale (conf/suite/NAME/suite.yaml)."""

    name: str = MISSING
    """Name of the suite; also of its MLflow experiment and its folder under outputs/."""
    folder: str | None = None
    """What SHAPELAW_SUITE is set to for it: the name of a folder of conf/suite, or a path. Set by the scripts."""
    head_size: int = MISSING
    """Features of one attention head; widths are multiples of it."""
    width_unit: float = MISSING
    """The rate rule counts width in units of the paper's models: width * width_unit (1 for gemstones, 128 / head_size for
    suites with smaller heads)."""
    branches: list[float] = field(default_factory=list)
    """Token counts at which its cooldowns branch off (sweeps/cooldown.yaml)."""
    extremes: list[str] = field(default_factory=list)
    """Its extreme shapes, for a study of the rate (sweeps/lr_prestudy.yaml, sweeps/lr_search.yaml)."""
    prestudy_tokens: float = 0.0
    """Tokens of the runs of that study."""
    step_batch_shapes: list[str] = field(default_factory=list)
    """Shapes of the study of steps and batches (sweeps/step_batch.yaml)."""
    step_batch_batches: list[float] = field(default_factory=list)
    """Batches of that study, in tokens."""
    step_batch_tokens: list[float] = field(default_factory=list)
    """Tokens of its runs, one value a batch, rounded up to whole batches."""
    step_batch_every: list[float] = field(default_factory=list)
    """Tokens between its validations, one value a batch."""
    step_batch_warmup: float = 0.0
    """Tokens of its warm-up."""
    step_batch_validation: float = 0.0
    """Tokens of its held-out sample."""


@dataclass
class ShapeConfig:
    """One shape of the suite (conf/suite/NAME/shape/WIDTHxDEPTH.yaml)."""

    width: int = MISSING
    """Features of the residual stream: a multiple of the head size."""
    depth: int = MISSING
    """Blocks."""
    nodes: int = 1
    """Nodes that a run of it takes on a cluster; resources.nodes refers to it."""


@dataclass
class ResourcesConfig:
    """What a cell asks of a cluster; null is the launcher's own default. Never part of a cell's identity."""

    nodes: int = 1
    """Nodes of one job."""
    gpus_per_node: int | None = None
    """GPUs of each."""
    tasks_per_node: int | None = None
    """Processes a node, one per device."""
    cpus_per_task: int | None = None
    """Cores of each process."""
    mem_gb: float | None = None
    """Memory a node; 0 is all of it."""
    timeout_min: int | None = None
    """Time limit of one job; a cell that needs longer is requeued and continues."""


@dataclass
class LrRuleConfig:
    """How lr_base becomes the rate of one shape."""

    name: LrRule = MISSING
    """What lr_base is divided by: width * sqrt(depth), width, sqrt(depth) or nothing."""
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
    """How the rate goes on after the warm-up; wsd: constant, then falling."""
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
    """Decay of the mean of gradients."""
    beta2: float = MISSING
    """Decay of the mean of their squares."""
    eps: float = MISSING
    """Added to the square root of the second moment."""
    weight_decay: float = MISSING
    """Applied to matrices, not to norms."""
    clip_norm: float = MISSING
    """Global norm to which gradients are clipped; 0 is no clipping."""


@dataclass
class SpikesConfig:
    """Divergence and spikes. Part of the identity where they change the result: with policy=rollback."""

    policy: SpikePolicy = MISSING
    """stop: the run ends as diverged. rollback: it goes back to the newest checkpoint before the spike and leaves out its
    batches, at a lower rate. ignore: the spike is recorded. NaN or infinity ends the run unless it rolls back."""
    every_steps: int = MISSING
    """How often loss and gradient norm are read from the device; also before validations and checkpoints."""
    window_steps: int = MISSING
    """Sound steps that give the running median and scale."""
    least_steps: int = MISSING
    """Sound steps before anything is judged."""
    loss_mads: float = MISSING
    """A loss is high this many robust standard deviations (1.4826 median absolute deviations) above the median."""
    norm_mads: float = MISSING
    """Likewise for the logarithm of the gradient norm."""
    sustain_steps: int = MISSING
    """High steps in a row that make a spike; fewer are noise."""
    lr_factor: float = 1.0
    """rollback: factor of the rate from then on."""
    max_rollbacks: int = 0
    """rollback: how often; after that a spike ends the run."""
    margin_steps: int = 0
    """rollback: steps between the checkpoint that it goes back to and the spike, at least."""


@dataclass
class AttentionConfig:
    """Attention back end."""

    name: str = MISSING
    """sdpa (torch's own) or flash (the package flash-attn, on a GPU)."""


@dataclass
class ParallelConfig:
    """How one run is shared out over its processes. Never part of a cell's identity: results agree to the order of sums."""

    kind: ParallelKind = MISSING
    """auto: single for one process, ddp for several."""
    row: int = 1
    """axonn: processes that share out heads, the MLP's hidden features and the head's vocabulary."""
    column: int = 1
    """axonn: processes that share out the residual stream's features."""
    depth: int = 1
    """axonn: processes that share out every matrix as it is stored, and the batch."""
    data: int | None = None
    """axonn: copies of all that, which share out the batch; null is what the other degrees leave of the processes."""


@dataclass
class ValidationConfig:
    """Held-out loss, in nats per token."""

    every_tokens: float = MISSING
    """Cadence, rounded up to whole steps; also at the end of the run."""
    tokens: float = MISSING
    """Size of the fixed held-out sample."""
    further: dict[str, str] = field(default_factory=dict)
    """Further held-out sets: NAME -> a prepared corpus (its folder under data_dir), whose held-out part is measured too and
    tracked as val/NAME/loss; fit.py runs.loss=NAME fits it."""


@dataclass
class CheckpointConfig:
    """Checkpoints."""

    every_tokens: float = MISSING
    """Cadence, rounded up to whole steps; also at the end of the run."""
    keep: Keep = MISSING
    """Which checkpoints stay."""
    newest: int = 2
    """How many stay with keep=newest."""


@dataclass
class TrackerConfig:
    """Where runs are recorded."""

    name: str = MISSING
    """mlflow or none."""
    uri: str = ""
    """Tracking URI of a database or a server, without a password: MLFLOW_TRACKING_URI may hold the same URI with it."""
    artifacts: str = ""
    """Artifact root of new experiments in a database store (a server has its own)."""
    log_every_steps: int = 10
    """Cadence of the training metrics."""
    when_unreachable: WhenUnreachable = WhenUnreachable.refuse
    """What a command does when the store does not answer as it starts: refuse to start, or spool (record in the runs'
    folders, and deliver when it answers). Runs that have started never stop for the store."""
    finish_seconds: float = 30.0
    """How long a run waits at its end for a store that does not take everything; what is left is delivered later."""
    experiment_id: str | None = None
    """Set by the launching process for its jobs."""
    parent_run_id: str | None = None
    """Set by the launching process for its jobs: the MLflow run of the sweep."""


@dataclass
class NoiseConfig:
    """The gradient noise scale, from the gradients of a step's micro-batches or processes (docs/noise.md)."""

    every_steps: int = 0
    """Steps from one measurement to the next; 0 is none."""
    average: int = MISSING
    """Measurements over which the recorded scale is smoothed."""


@dataclass
class SearchConfig:
    """Which trial of a search a run is; set by the launching process."""

    study: str | None = None
    """Name of the study this run is a trial of."""
    storage: str = ""
    """Database URL of the study."""
    trial: int | None = None
    """Number of the trial."""
    pruner: Any = None
    """Configuration of one of Optuna's pruners."""


@dataclass
class LimitsConfig:
    """What may be started on this machine without `force=true`."""

    hours: float = MISSING
    """Estimated hours of the whole sweep here."""
    memory_share: float = MISSING
    """Estimated memory of a step, as a share of the device's; on a CPU a run counts with its threads' part of it."""
    memory_gb: float | None = None
    """Memory that a step may take, in 1e9 bytes, instead of that share."""


@dataclass
class TrainConfig(PlacesConfig):
    """One cell of a sweep."""

    suite: SuiteConfig = field(default_factory=SuiteConfig)
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    lr_base: float = MISSING
    """Rate before the lr_rule divides it by the shape."""
    lr_rule: LrRuleConfig = field(default_factory=LrRuleConfig)
    lr_batch_scaling: BatchScaling = BatchScaling.none
    """How the rate follows batch_tokens; part of the identity wherever it changes the rate."""
    lr_batch_reference: float = 0.0
    """Tokens of the batch at which lr_base holds as it is; needed with lr_batch_scaling."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    cooldown: CooldownConfig = field(default_factory=CooldownConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    spikes: SpikesConfig = field(default_factory=SpikesConfig)
    data: DataConfig = field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
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
    micro_batch_sequences: int | str = MISSING
    """Sequences of one forward pass on a device; the rest of the batch is accumulated. auto: the most that fit its memory
    by the estimate, and half as many when they do not; 0: all that the device gets."""
    compile: bool | str = MISSING
    """Whether blocks and loss are compiled (torch.compile); auto: on a GPU."""
    seed: int = MISSING
    """Seed of the initial weights."""
    order_seed: int = MISSING
    """Seed of the order of sequences."""
    precision: Precision = MISSING
    """Number format of the matrix products: bf16 (weights stay fp32), fp32; auto: bf16 on a GPU."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    force: bool = False
    """Start even what exceeds `limits`."""
    accelerator: str = "auto"
    """What it trains on: auto (a GPU where there is one), cpu, gpu."""
    devices: int = 1
    """Devices of one run on each node."""
    num_nodes: int = 1
    """Nodes of one run."""
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    threads: int = 1
    """CPU threads of one run, at most 1,024; 0 leaves torch's own choice."""
    progress: bool = True
    """Whether a single run draws a progress bar."""
