"""Known laws and small worlds for the tests of prescriptions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from shapelaw.counting import flops_per_token, params_total
from shapelaw.fitting.result import FitResult
from shapelaw.laws import get_law
from shapelaw.lr_rules import DEFAULT_PATCH
from shapelaw.runs.table import RunsTable
from shapelaw.suite import Suite

NATURAL: dict[str, dict[str, float]] = {
    "params_tokens": {"A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "E": 1.8},
    "width_depth_params_tokens": {
        "A": 3.0, "B": 0.8, "C": 440.0, "D": 35000.0, "alpha": 0.22, "beta": 0.48, "gamma": 0.36, "zeta": 0.49, "E": 1.5,
    },
    "width_depth_tokens": {"A": 8.0, "B": 2.0, "C": 1e6, "alpha": 0.26, "beta": 0.34, "gamma": 0.54, "E": 0.4},
    "kaplan_e": {"N_c": 1.5e9, "D_c": 3.6e10, "alpha_N": 0.15, "alpha_D": 0.3, "E": 1.5},
    "interaction": {
        "A": 21.6, "B": 3150.0, "alpha": 0.143, "beta": 0.54, "gamma": 0.18, "kappa": 0.084, "mu": 3.83, "E": 1.37,
    },
    "steps_batch": {"N_c": 6e7, "alpha_N": 0.06, "S_c": 50.0, "alpha_S": 0.6, "B_star": 6e4, "alpha_B": 0.25},
}  # fmt: skip

GEMSTONES = Suite(
    folder="gemstones",
    head_size=128,
    width_unit=1.0,
    lr_rule="width_sqrt_depth",
    patch=DEFAULT_PATCH,
    lr_batch_scaling="none",
    seq_len=2048,
)
"""What the columns of `table` do not say."""


def fitted(law: str, refits: int = 0, counting: str = "total", flops: str | None = None, **changed: float) -> FitResult:
    """A fit with known parameters; its refits scatter their logarithms by a hundredth."""
    parameters = NATURAL[law] | changed
    generator = np.random.default_rng(0)
    drawn = {name: value * np.exp(0.01 * generator.standard_normal(refits)) for name, value in parameters.items()}
    return FitResult(
        method="parametric",
        law=law,
        parameters=parameters,
        units=get_law(law).units,
        objective=0.0,
        compute_optimal_exponent=None,
        settings={"counting": counting, "flops": flops, "bootstrap": {"level": 0.9} if refits else None},
        replicates={name: tuple(map(float, values)) for name, values in drawn.items()} if refits else {},
    )


def table(vocab_size: int = 50_304, rate: float = 1e14, **changed: object) -> RunsTable:
    """Six Gemstones shapes at three token counts; every device computes at `rate` FLOP/s whatever the shape."""
    rows: list[Mapping[str, object]] = []
    for width, depth in ((256, 23), (512, 12), (768, 45), (1024, 28), (1792, 18), (2048, 27)):
        for tokens in (1e10, 3e10, 1e11):
            per_token = float(flops_per_token(width, depth, vocab_size))
            size = {
                "width": width,
                "depth": depth,
                "params": int(params_total(width, depth, vocab_size)),
                "tokens": tokens,
            }
            speed = {"batch_tokens": 2**22, "num_devices": 64, "seconds_per_step": per_token * 2**22 / (64 * rate)}
            facts = {"run": f"{width}x{depth}", "suite": "gemstones", "vocab_size": vocab_size, "lr_base": 5.0}
            rows.append({**facts, "loss": 3.0, **size, **speed})
    frame = pd.DataFrame(rows).assign(**changed)
    return RunsTable(frame, {}, dict.fromkeys(frame["run"], GEMSTONES))
