"""Options of train.py."""

from __future__ import annotations

import math
import re

from shapelaw.config.option import option, record
from shapelaw.config.parts import CooldownConfig, ModelConfig, OptimConfig, ScheduleConfig
from shapelaw.config.places import PlacesConfig
from shapelaw.config.preparing import DataConfig, TokenizerConfig
from shapelaw.config.running import (
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
from shapelaw.config.values import (
    AUTO,
    THREADS_MAX,
    BatchScaling,
    LrRule,
    Precision,
    Rounding,
    SpikePolicy,
    positive,
    whole,
)
from shapelaw.errors import UserError

NAMED_SHAPE = re.compile(r"[1-9]\d*x[1-9]\d*")


@record("suite")
class SuiteConfig:
    """A named world of shapes and scale (conf/suite/NAME/suite.yaml)."""

    name: str = option("Name of the suite, of its MLflow experiment and of its folder under outputs/.")
    folder: str | None = option(
        "Value of SHAPELAW_SUITE that selects the suite: the name of a folder in conf/suite, or a path. Set by the scripts.",
        default=None,
    )
    head_size: int = option("Features of one attention head; widths are multiples of it.", low=1)
    width_unit: float = option(
        "The rate rule counts width in units of the paper's models: width * width_unit (1 for gemstones, 128 / "
        "head_size for suites with smaller heads).",
        above=0,
    )
    branches: list[float] = option(
        "Token counts at which the suite's cooldowns branch off (sweeps/cooldown.yaml).",
        default_factory=list,
        above=0,
        unit="tokens",
    )
    extremes: list[str] = option(
        "Extreme shapes of the suite, for a study of the rate (sweeps/lr_prestudy.yaml, sweeps/lr_search.yaml).",
        default_factory=list,
    )
    prestudy_tokens: float = option("Tokens of each run of the study of the rate.", default=0.0, low=0, unit="tokens")
    step_batch_shapes: list[str] = option(
        "Shapes of the study of steps and batches (sweeps/step_batch.yaml).", default_factory=list
    )
    step_batch_batches: list[float] = option(
        "Batches of the study of steps and batches.", default_factory=list, above=0, unit="tokens"
    )
    step_batch_tokens: list[float] = option(
        "Tokens of the runs of the study of steps and batches: one value per batch, rounded up to whole batches.",
        default_factory=list,
        above=0,
        unit="tokens",
    )
    step_batch_every: list[float] = option(
        "Tokens between validations in the study of steps and batches: one value per batch.",
        default_factory=list,
        above=0,
        unit="tokens",
    )
    step_batch_warmup: float = option(
        "Tokens of the warm-up in the study of steps and batches.", default=0.0, low=0, unit="tokens"
    )
    step_batch_validation: float = option(
        "Tokens of the held-out sample of the study of steps and batches.", default=0.0, low=0, unit="tokens"
    )


@record("shape")
class ShapeConfig:
    """One shape of the suite (conf/suite/NAME/shape/WIDTHxDEPTH.yaml)."""

    width: int = option("Features of the residual stream: a multiple of the head size.", low=1)
    depth: int = option("Number of blocks.", low=1)
    nodes: int = option(
        "Nodes that a run of this shape takes on a cluster; resources.nodes refers to it.", default=1, low=1
    )


@record("lr_rule")
class DepthPatch:
    """Treats a very wide and shallow shape as if it were deeper, in its learning rate and its initial variances. The defaults
    are the rule of the paper's text.

    A shape is patched when width / depth > patch_ratio (>= patch_ratio unless strict), and if it is one of patch_shapes. Its
    depth then counts as depth' = ceil(width / patch_divisor). The paper's text and its list disagree: the text says "greater
    than" 256, and the list names 2560x8 (320), 1792x7 and 3072x12 (exactly 256) as patched, but not 768x3 (256 too). So the
    suite gemstones names those three shapes, and every other shape goes by the text.
    """

    patch_ratio: float = option(
        "Width / depth from which a shape counts as extreme and is treated as if it were deeper; inf turns this off.",
        default=256.0,
        above=0,
        also=(math.inf,),
    )
    patch_strict: bool = option("Whether a shape at exactly patch_ratio is left unpatched.", default=True)
    patch_divisor: float = option(
        "Width that one block of the counted depth stands for: the depth of an extreme shape counts as ceil(width / "
        "patch_divisor).",
        default=100.0,
        above=0,
    )

    patch_shapes: list[str] = option(
        "Shapes that are patched whatever their ratio, as WIDTHxDEPTH, with the width in the units of the rate rule "
        "(width * width_unit).",
        default_factory=list,
    )

    def check(self) -> None:
        """Refuse what names no shape."""
        for name in self.patch_shapes:
            if not NAMED_SHAPE.fullmatch(name):
                raise UserError(
                    f"lr_rule.patch_shapes={name}: allowed values are shapes as WIDTHxDEPTH; give one such as 1792x7"
                )

    def __hash__(self) -> int:
        return hash((self.patch_ratio, self.patch_strict, self.patch_divisor, *self.patch_shapes))

    def __str__(self) -> str:
        above = ">" if self.patch_strict else ">="
        rule = [] if math.isinf(self.patch_ratio) else [f"from width / depth {above} {self.patch_ratio:g}"]
        named = [f"for {', '.join(self.patch_shapes)}"] if self.patch_shapes else []
        which = " and ".join([*rule, *named])
        return f"{which}, depth counts as width / {self.patch_divisor:g}" if which else "none"

    def applies(self, width: float, depth: float) -> bool:
        """Whether a shape of this width and depth is patched."""
        return self.names(width, depth) or self.rules(width / depth)

    def names(self, width: float, depth: float) -> bool:
        """Whether a shape is one of patch_shapes."""
        return f"{width:.12g}x{depth:.12g}" in self.patch_shapes

    def rules(self, ratio: float) -> bool:
        """Whether a shape of this width / depth is patched by its ratio."""
        return ratio > self.patch_ratio if self.patch_strict else ratio >= self.patch_ratio

    def depth(self, width: float, depth: float) -> float:
        """The depth that counts: depth' for a patched shape, the shape's own otherwise."""
        return float(math.ceil(width / self.patch_divisor)) if self.applies(width, depth) else float(depth)


@record("lr_rule")
class LrRuleConfig(DepthPatch):
    """How lr_base becomes the rate of one shape."""

    name: LrRule = option("What lr_base is divided by: width * sqrt(depth), width, sqrt(depth) or nothing.")


@record("spikes")
class SpikeRule:
    """When a step is high, and how many high steps make a spike."""

    window_steps: int = option(
        "Normal steps from which the running median and scale are computed.", low=1, unit="steps"
    )
    least_steps: int = option("Normal steps before any step is judged.", low=1, unit="steps")
    loss_mads: float = option(
        "A loss is high this many robust standard deviations (1.4826 median absolute deviations) above the median.",
        above=0,
    )
    norm_mads: float = option(
        "A gradient norm is high when its logarithm is this many robust standard deviations above the median.", above=0
    )
    over_best_nats: float = option(
        "A loss is also high this much above the run's lowest running median; inf means no limit.",
        above=0,
        also=(math.inf,),
        unit="nats per token",
    )
    over_chance_nats: float = option(
        "After warm-up, a loss is also high this much above that of a uniform guess, ln(vocabulary), or above the loss of "
        "the first step if that is higher; inf means no limit.",
        above=0,
        also=(math.inf,),
        unit="nats per token",
    )
    sustain_steps: int = option("High steps in a row that make a spike; fewer are noise.", low=1, unit="steps")

    def check(self) -> None:
        """The scale needs no more steps than it keeps."""
        if self.least_steps > self.window_steps:
            raise UserError(
                f"spikes.least_steps={self.least_steps}: allowed values are 1 to spikes.window_steps={self.window_steps}; "
                "give one of these"
            )


@record("spikes")
class SpikesConfig(SpikeRule):
    """Divergence and spikes. Part of the identity where they change the result: with policy=rollback."""

    policy: SpikePolicy = option(
        "stop: the run ends as diverged. rollback: the run returns to the newest checkpoint before the spike and "
        "skips the batches of the spike, at a lower rate. ignore: the spike is only recorded. NaN or infinity ends the "
        "run unless the policy is rollback."
    )
    every_steps: int = option(
        "How often loss and gradient norm are read from the device; they are also read before validations and checkpoints.",
        low=1,
        unit="steps",
    )
    lr_factor: float = option("rollback: factor on the rate after each rollback.", default=1.0, above=0, high=1)
    max_rollbacks: int = option("rollback: the most rollbacks; after them a spike ends the run.", default=0, low=0)
    margin_steps: int = option(
        "rollback: fewest steps between the checkpoint that the run returns to and the spike.",
        default=0,
        low=0,
        unit="steps",
    )

    def check(self) -> None:
        """As of the rule; and a policy of rollbacks allows one."""
        super().check()
        if self.policy is SpikePolicy.rollback:
            whole("spikes.max_rollbacks", self.max_rollbacks)


@record("validation")
class ValidationConfig:
    """Held-out loss, in nats per token."""

    every_tokens: float = option(
        "Tokens between validations, rounded up to whole steps; the end of the run is validated too.",
        above=0,
        unit="tokens",
    )
    tokens: float = option("Size of the fixed held-out sample.", low=1, whole=True, unit="tokens")
    further: dict[str, str] = option(
        "Further held-out sets: NAME -> a prepared corpus (its folder under data_dir, or CORPUS@SOURCE), whose held-out part "
        "is measured too and tracked as val/NAME/loss; fit.py runs.loss=NAME fits it.",
        default_factory=dict,
    )

    def check(self) -> None:
        """Names of losses are parts of metrics' names."""
        for name in self.further:
            if not re.fullmatch(r"[A-Za-z0-9_]+", name):
                raise UserError(
                    f"validation.further: {name!r} cannot name a loss; "
                    "allowed characters are letters, digits and _; give another"
                )


@record("noise")
class NoiseConfig:
    """The gradient noise scale, from the gradients of a step's micro-batches or processes (docs/noise.md)."""

    every_steps: int = option(
        "Steps from one measurement to the next; 0 turns measuring off.", default=0, low=0, unit="steps"
    )
    average: int = option("Measurements over which the recorded scale is smoothed.", low=1)


@record()
class TrainConfig(PlacesConfig):
    """One run of a sweep."""

    suite: SuiteConfig
    shape: ShapeConfig
    model: ModelConfig
    lr_base: float = option(
        "Rate before the lr_rule divides it by the shape.", above=0, advice="give a positive rate, such as 5"
    )
    lr_rule: LrRuleConfig
    lr_batch_scaling: BatchScaling = option(
        "How the rate follows batch_tokens; part of the identity wherever it changes the rate.",
        default=BatchScaling.none,
    )
    lr_batch_reference: float = option(
        "Tokens of the batch at which lr_base applies unchanged; needed with lr_batch_scaling.",
        default=0.0,
        low=0,
        unit="tokens",
    )
    schedule: ScheduleConfig
    cooldown: CooldownConfig
    optim: OptimConfig
    spikes: SpikesConfig
    data: DataConfig
    tokenizer: TokenizerConfig
    attention: AttentionConfig
    parallel: ParallelConfig
    tokens: float = option("Training tokens of the run: a whole number of batches.", low=1, whole=True, unit="tokens")
    tokens_rounding: Rounding = option("What to do if tokens is not a whole number of batches.")
    flops: float | None = option(
        "Training FLOPs of the run, from which its tokens are computed by the shape's exact count, to the nearest batch; null: "
        "tokens sets the length.",
        default=None,
        above=0,
        unit="FLOPs",
    )
    tokens_per_param: float | None = option(
        "Tokens for each parameter, embedding and head included, from which the run's tokens are computed to the nearest "
        "batch; null: tokens sets the length.",
        default=None,
        above=0,
        unit="tokens per parameter",
    )
    batch_tokens: float = option(
        "Tokens of one optimizer step over all devices: a whole number of sequences.", low=1, whole=True, unit="tokens"
    )
    seq_len: int = option("Context: tokens of one sequence.", low=2, unit="tokens")
    warmup_tokens: float = option("Tokens of the suite's warm-up; the schedules refer to it.", low=0, unit="tokens")
    micro_batch_sequences: int | str = option(
        "Sequences of one forward pass on a device; the rest of the batch is accumulated. auto: the most that fit "
        "its memory by the estimate, and half as many if they do not fit after all; 0: all sequences of the device.",
        low=0,
        whole=True,
        also=(AUTO,),
        unit="sequences",
    )
    compile: bool | str = option(
        "Whether blocks and loss are compiled (torch.compile); auto: on a GPU.", choices=(AUTO, True, False)
    )
    deterministic: bool = option(
        "Whether a GPU also sums attention's gradients in a fixed order, so that a run repeats bit for bit at every "
        "context; its steps take longer. On a CPU runs always repeat.",
        default=False,
    )
    seed: int = option("Seed of the initial weights.", low=0)
    order_seed: int = option("Seed of the order of sequences.", low=0)
    precision: Precision = option(
        "Number format of the matrix products: bf16 (weights stay fp32), fp32; auto: bf16 on a GPU."
    )
    validation: ValidationConfig
    checkpoint: CheckpointConfig
    tracker: TrackerConfig
    trainer: TrainerConfig
    sweep: SweepConfig
    noise: NoiseConfig
    search: SearchConfig
    limits: LimitsConfig
    force: bool = option("Whether runs that exceed `limits` start all the same.", default=False)
    accelerator: str = option(
        "What runs train on: auto (a GPU if available), cpu, gpu.", default="auto", choices=(AUTO, "cpu", "gpu")
    )
    devices: int = option("Devices of one run on each node.", default=1, low=1)
    num_nodes: int = option("Nodes of one run.", default=1, low=1)
    resources: ResourcesConfig
    threads: int = option("CPU threads of one run; 0 leaves the choice to torch.", default=1, low=0, high=THREADS_MAX)
    progress: bool = option("Whether a single run draws a progress bar.", default=True)

    def check(self) -> None:
        """A rate that follows the batch has a batch at which it holds; one option says how long a run is."""
        if self.lr_batch_scaling is not BatchScaling.none:
            positive("lr_batch_reference", self.lr_batch_reference)
        if self.flops is not None and self.tokens_per_param is not None:
            raise UserError(
                f"flops={self.flops:g} tokens_per_param={self.tokens_per_param:g}: each sets the length of a run; give only one"
            )

    @property
    def sized(self) -> bool:
        """Whether the shape decides how many tokens a run has."""
        return self.flops is not None or self.tokens_per_param is not None
