"""Options of prescribe.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from shapelaw.config.fitting import NamedConfig
from shapelaw.config.places import PlacesConfig


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
    """Whether the number of heads must be even."""
    width_min: int | None = None
    """Smallest width."""
    width_max: int | None = None
    """Largest width."""
    depth_min: int | None = None
    """Fewest blocks."""
    depth_max: int | None = None
    """Most blocks."""


@dataclass
class ShapeLimitsConfig:
    """What a size must meet beside the rules, in every space; null is no limit."""

    params_min: float | None = None
    """Fewest parameters, embedding included; in space=params as the law counts them."""
    params_max: float | None = None
    """Most parameters."""
    aspect_min: float | None = None
    """Smallest width / depth."""
    aspect_max: float | None = None
    """Largest width / depth."""


@dataclass
class PrescribeConfig(PlacesConfig):
    """One prescription: give budget, or loss, or width, depth and tokens."""

    fit: str | None = None
    """Folder of a fit, or its fit.json; null is the newest under outputs_dir/fits whose law has width and depth, or, with
    batch_tokens or params, the newest of the step-and-batch law."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    budget: float | None = None
    """Budget, in the objective's unit (FLOPs, device hours or dollars)."""
    loss: float | None = None
    """Instead of a budget: the loss to reach, nats per token."""
    least: str = MISSING
    """With loss: cost (in the objective's unit) or tokens."""
    width: int | None = None
    """With depth and tokens, instead of a budget: the shape whose loss is asked."""
    depth: int | None = None
    """Blocks of that shape."""
    params: float | None = None
    """Instead of width and depth, for a fit of the step-and-batch law: parameters as the law counts them."""
    batch_tokens: float | None = None
    """Tokens of one step, for a fit of the step-and-batch law: whole sequences."""
    tokens: float | None = None
    """Training tokens of that shape."""
    space: str = MISSING
    """feasible (every whole shape), relaxed (real width and depth) or params (no shape at all, params as the law counts them,
    6N FLOPs)."""
    aspect_ratio: float | None = None
    """Width / depth to hold; a law without width and depth needs it, or space=params."""
    rules: RulesConfig = field(default_factory=RulesConfig)
    limits: ShapeLimitsConfig = field(default_factory=ShapeLimitsConfig)
    vocab_size: int | None = None
    """Vocabulary size, if the runs do not name it."""
    seq_len: int | None = None
    """Context of the models to train, in tokens; null is that of the runs. The FLOPs of a token grow with it."""
    flops: NamedConfig = field(default_factory=NamedConfig)
    """exact, 6n or kaplan; auto (null) is as the fit counted, exact where it took a recorded column."""
    compare: list[str] = field(default_factory=list)
    """Further fits, for what each law prescribes for the budget and what following it costs if another is true."""
    studies: bool = MISSING
    """Whether the price of overtraining and of a wrong aspect ratio is listed too (with a budget in FLOPs)."""
