"""Checks of single values, and the choices that are enumerations."""

from __future__ import annotations

import math
import re
from enum import Enum

from shapelaw.errors import UserError


def whole(key: str, value: float, minimum: int = 1, maximum: int | None = None) -> int:
    """`value` as a whole number of at least `minimum`, and at most `maximum` if there is one.

    Raises:
        UserError: naming the key, for fractions, infinities and numbers out of the range.
    """
    above = maximum is not None and value > maximum
    if not math.isfinite(value) or value != int(value) or value < minimum or above:
        most = "" if maximum is None else f" to {maximum:,}"
        raise UserError(f"{key}={value:g}: allowed values are whole numbers from {minimum:,}{most}; give one")
    return int(value)


THREADS_MAX = 1024
"""More than any node has cores; of far more, libraries fail to reserve the memory and end the process without a word."""


def positive(key: str, value: float) -> float:
    """`value` if it is finite and above zero; raises UserError otherwise."""
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{key}={value:g}: allowed values are finite numbers above 0; give one")
    return value


AUTO = "auto"
"""The choice is made by what is found where the run starts."""


def file_name(key: str, value: str) -> str:
    """`value` if it can name a file or folder and lead nowhere else; raises UserError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,99}", value):
        raise UserError(
            f"{key}={value!r}: allowed values are names of up to 100 letters, digits and . _ + -, not starting with a dot"
        )
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


class BatchScaling(Enum):
    """How the rate follows the batch: multiplied by 1, sqrt(r) or r, r = batch_tokens / lr_batch_reference."""

    none = "none"
    sqrt = "sqrt"
    linear = "linear"


class ScheduleKind(Enum):
    """The rate as a function of tokens seen."""

    constant = "constant"
    wsd = "wsd"
    cosine = "cosine"
    linear = "linear"
    own = "own"


class Precision(Enum):
    """Arithmetic of the training step; auto is bf16 mixed where the device has it and fp32 elsewhere."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Source(Enum):
    """Where text comes from."""

    stdlib = "stdlib"
    packages = "packages"
    text = "text"
    jsonl = "jsonl"
    parquet = "parquet"
    huggingface = "huggingface"


class TokenizerKind(Enum):
    """How text becomes token ids."""

    bytes = "bytes"
    bpe = "bpe"
    file = "file"


class Verify(Enum):
    """When a corpus's shards are read and compared with their hashes; auto is: if it is small. Sizes always are."""

    auto = "auto"
    always = "always"
    never = "never"

    @property
    def hashes(self) -> bool | None:
        """Whether; None for the corpus's size to decide."""
        return None if self is Verify.auto else self is Verify.always


class Keep(Enum):
    """Which checkpoints stay on disk."""

    all = "all"
    newest = "newest"


class ParallelKind(Enum):
    """How one run is shared out over its processes; auto is single for one process and ddp for several."""

    auto = "auto"
    single = "single"
    ddp = "ddp"
    fsdp = "fsdp"
    axonn = "axonn"


class WhenUnreachable(Enum):
    """What a command does when the tracking store does not answer as it starts."""

    refuse = "refuse"
    spool = "spool"


class SpikePolicy(Enum):
    """What a run does when its loss or gradient norm spikes."""

    stop = "stop"
    rollback = "rollback"
    ignore = "ignore"
