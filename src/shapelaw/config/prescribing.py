"""Options of prescribe.py."""

from __future__ import annotations

import math

from shapelaw.config.fitting import NamedConfig
from shapelaw.config.option import option, record
from shapelaw.config.places import PlacesConfig
from shapelaw.errors import UserError

LARGEST = 2**24
"""Width or depth of a shape."""


@record("objective")
class ObjectiveConfig:
    """What a prescription spends."""

    name: str = option(
        "flops, device_hours or dollars: the unit of the budget.", choices=("flops", "device_hours", "dollars")
    )
    mfu: float | None = option(
        "device_hours, dollars: share of device_flops that training reaches; null: from the runs' measured steps.",
        default=None,
        above=0,
        high=1,
        advice="0.4 is usual",
    )
    device_flops: float | None = option(
        "device_hours, dollars: rated FLOP/s of one device, for mfu.", default=None, above=0, unit="FLOP/s"
    )
    price: float = option("dollars: price of one device hour.", default=1.0, above=0, unit="dollars an hour")
    inference_tokens: float = option(
        "Tokens that the model will serve; their cost counts too.", default=0.0, low=0, unit="tokens"
    )


@record("rules")
class RulesConfig:
    """What makes a shape feasible; null is the suite's own (two to 64 heads, an even number, 2 to 255 blocks)."""

    even_heads: bool | None = option("Whether the number of heads must be even.", default=None)
    width_min: int | None = option("Smallest width.", default=None, low=1, high=LARGEST)
    width_max: int | None = option("Largest width.", default=None, low=1, high=LARGEST)
    depth_min: int | None = option("Fewest blocks.", default=None, low=1, high=LARGEST)
    depth_max: int | None = option("Most blocks.", default=None, low=1, high=LARGEST)


@record("limits")
class ShapeLimits:
    """What a size must meet beside the rules, in every space."""

    params_min: float = option(
        "Fewest parameters, embedding included; in space=params as the law counts them.", default=0.0, low=0
    )
    params_max: float = option("Most parameters; inf means no limit.", default=math.inf, above=0, also=(math.inf,))
    aspect_min: float = option("Smallest width / depth.", default=0.0, low=0)
    aspect_max: float = option(
        "Largest width / depth; inf means no limit.", default=math.inf, above=0, also=(math.inf,)
    )

    def check(self) -> None:
        """Some size meets them."""
        for name in ("params", "aspect"):
            low, high = getattr(self, f"{name}_min"), getattr(self, f"{name}_max")
            if low > high:
                raise UserError(
                    f"limits.{name}_min={low:g}, limits.{name}_max={high:g}: the smallest is above the largest; "
                    "give other limits"
                )


@record()
class PrescribeConfig(PlacesConfig):
    """One prescription: give budget, or loss, or width, depth and tokens."""

    fit: str | None = option(
        "Folder of a fit, or its fit.json; null takes the newest under outputs_dir/fits whose law has width and "
        "depth, or, with batch_tokens or params, the newest of the step-and-batch law.",
        default=None,
    )
    objective: ObjectiveConfig
    budget: float | None = option(
        "Budget, in the objective's unit (FLOPs, device hours or dollars).", default=None, above=0
    )
    loss: float | None = option(
        "Instead of a budget: the loss to reach, in the unit of the fit's losses.",
        default=None,
        above=0,
        unit="the unit of the fit's losses",
    )
    least: str = option("With loss: cost (in the objective's unit) or tokens.")
    width: int | None = option(
        "With depth and tokens, instead of a budget: the width of the shape whose loss is wanted.",
        default=None,
        low=1,
    )
    depth: int | None = option("With width: the number of blocks of that shape.", default=None, low=1)
    params: float | None = option(
        "Instead of width and depth, with tokens or a loss, for a law of params and tokens, and for the step-and-batch law: "
        "parameters as the law counts them.",
        default=None,
        above=0,
    )
    batch_tokens: float | None = option(
        "Tokens of one step, for a fit of the step-and-batch law: a whole number of sequences.",
        default=None,
        above=0,
        unit="tokens",
    )
    tokens: float | None = option(
        "With width and depth, or params: the training tokens.", default=None, above=0, unit="tokens"
    )
    unique_tokens: float | None = option(
        "Different tokens available for training, for a fit of a law of repeated data; training beyond them repeats them.",
        default=None,
        above=0,
        unit="tokens",
    )
    axes: dict[str, float] = option(
        "Values of the further columns that the law reads, at which the answer holds: 'axes={experts: 8}'.",
        default_factory=dict,
    )
    accuracy: str | None = option(
        "Folder of a fit of an accuracy (law=accuracy/...): adds the accuracy of the prescribed model to the answer.",
        default=None,
    )
    space: str = option(
        "feasible (every whole shape), relaxed (real width and depth) or params (no shape at all, params as the "
        "law counts them, 6N FLOPs).",
        choices=("feasible", "relaxed", "params"),
    )
    aspect_ratio: float | None = option(
        "Fixed width / depth; a law without width and depth needs it, or space=params.",
        default=None,
        above=0,
        advice="64 is usual",
    )
    rules: RulesConfig
    limits: ShapeLimits
    vocab_size: int | None = option("Vocabulary size, if the runs do not name it.", default=None, low=1)
    seq_len: int | None = option(
        "Context of the models to train; null takes that of the runs. The FLOPs of a token grow with it.",
        default=None,
        low=2,
        unit="tokens",
    )
    flops: NamedConfig
    compare: list[str] = option(
        "Further fits to compare: what each law prescribes for the budget, and what following it costs if another is true.",
        default_factory=list,
    )
    studies: bool = option(
        "Whether the price of overtraining and of a wrong aspect ratio is listed too (with a budget in FLOPs)."
    )
