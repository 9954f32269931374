"""The built-in laws and the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from shapelaw.errors import UserError
from shapelaw.laws import files
from shapelaw.laws.base import EXPONENT, LOG_CEILING, Array, Law, Prior
from shapelaw.laws.choices import CHOICES, median_of
from shapelaw.laws.speedup import speedup_of
from shapelaw.laws.sums import SumLaw, Term
from shapelaw.plugins import GROUPS, installed, is_reference, load

LAWS: dict[str, Law] = {}
"""Registered laws of the loss by name."""
ACCURACY_LAWS: dict[str, Law] = {}
"""Registered laws of a downstream error by name; they read the loss."""
GROUP = GROUPS["law"]
"""Entry points by which an installed package adds a law: in its pyproject.toml, NAME = "module:LAW"."""


def register(law: Law) -> Law:
    """Register a law by its name in this process, so that `law=NAME` finds it; returns the law.

    Raises:
        UserError: if another law has that name.
    """
    if law.name in (*law_names(), *CHOICES):
        raise UserError(f"law={law.name}: a law with this name is registered already; choose another name")
    registry = LAWS if law.target == "loss" else ACCURACY_LAWS
    registry[law.name] = law
    return law


def law_names() -> tuple[str, ...]:
    """Names of all laws, registered or from installed packages. It imports nothing."""
    return tuple(dict.fromkeys([*LAWS, *ACCURACY_LAWS, *installed(GROUP)]))


def get_law(name: str) -> Law:
    """A law by its name, by its file as `path/to/file.py:NAME`, or by its module as `package.module:NAME`.

    Raises:
        UserError: if there is none.

    >>> get_law("params_tokens").formula
    'L = A/params^alpha + B/tokens^beta + E'
    """
    registered = LAWS.get(name) or ACCURACY_LAWS.get(name)
    if registered is not None:
        return registered
    if name in CHOICES:
        return CHOICES[name]
    if is_reference(name):
        return files.load(name)
    composed = median_of(name, get_law) or speedup_of(name, get_law)
    if composed is not None:
        return composed
    if name not in installed(GROUP):
        raise UserError(
            f"law={name}: allowed values are {', '.join([*CHOICES, *sorted(law_names())])}; or give your own as "
            "path/to/file.py:NAME or package.module:NAME"
        )
    law = load(GROUP, name)
    if not isinstance(law, Law) or law.name != name:
        raise UserError(
            f"law={name}: {installed(GROUP)[name].value} of an installed package is not a law with that name"
        )
    return law


def reference_of(law: Law) -> str:
    """How `get_law` finds a law: its name, or its file or module with its name there."""
    origin = files.origin(law)
    return origin[0] if origin else law.name


@dataclass(frozen=True)
class KaplanLaw(SumLaw):
    """Kaplan's joint form, L = [(N_c/N)^(alpha_N/alpha_D) + D_c/D]^alpha_D (+ E).

    It is fitted in the logs of (N_c/N)^... at N = 1 and of D_c, the ratio alpha_N/alpha_D, alpha_D and log E.
    """

    @property
    def parameters(self) -> tuple[str, ...]:  # type: ignore[override]
        """All names; theta holds (ratio * ln N_c, ln D_c, ratio, alpha_D, log E) with ratio = alpha_N/alpha_D."""
        return ("N_c", "D_c", "alpha_N", "alpha_D") + ((self.irreducible,) if self.irreducible else ())

    @property
    def exponents(self) -> tuple[str, ...]:  # type: ignore[override]
        """alpha_N and alpha_D."""
        return ("alpha_N", "alpha_D")

    @property
    def coefficients(self) -> tuple[str, ...]:
        """N_c and D_c."""
        return ("N_c", "D_c")

    @property
    def units(self) -> dict[str, str]:
        """N_c counts parameters, D_c tokens."""
        return super().units | {"N_c": "parameters", "D_c": "tokens"}

    @property
    def priors(self) -> Mapping[str, Prior]:
        """Priors of the solver's own coordinates: the ratio alpha_N/alpha_D under the name alpha_N, and alpha_D."""
        return {"alpha_N": Prior(1.0, 1.0), "alpha_D": Prior(0.3, 0.3)}

    def natural(self, theta: ArrayLike) -> dict[str, float]:
        """Parameters in natural units; N_c is capped at e^700 if the data do not bound it."""
        values = np.asarray(theta, dtype=np.float64)
        ratio, alpha_d = float(values[2]), float(values[3])
        log_n = float(values[0]) / ratio if ratio else LOG_CEILING
        plain = super().natural(values)
        capped = float(np.exp(np.clip(log_n, -LOG_CEILING, LOG_CEILING)))
        return plain | {"N_c": capped, "alpha_N": ratio * alpha_d, "alpha_D": alpha_d}

    def theta(self, parameters: Mapping[str, float]) -> Array:
        """The solver's vector.

        Raises:
            UserError: if a parameter is missing, N_c or D_c is not positive, or alpha_D is 0.
        """
        values = dict(zip(self.parameters, self._ordered(parameters), strict=True))
        if not (values["N_c"] > 0 and values["D_c"] > 0 and values["alpha_D"] != 0):
            raise UserError(f"law {self.name} needs N_c > 0, D_c > 0 and alpha_D other than 0, got {values}")
        ratio = values["alpha_N"] / values["alpha_D"]
        theta = super().theta(values)
        theta[0], theta[2] = ratio * np.log(values["N_c"]), ratio
        return theta

    def compute_optimal_exponent(self, parameters: Mapping[str, float]) -> float | None:
        """alpha_D / (alpha_N + alpha_D): at the optimum both summands keep a constant ratio."""
        total = parameters["alpha_N"] + parameters["alpha_D"]
        return float(parameters["alpha_D"] / total) if total > 0 else None

    def slope_constraint(self, slope: float) -> tuple[Array, float] | None:
        """The ratio alpha_N/alpha_D equals 1/slope - 1."""
        return np.array([float(i == 2) for i in range(len(self.parameters))]), 1.0 / slope - 1.0

    def constraint(self, statistic: str, value: float) -> tuple[Array, float]:
        """As for every law; N_c fixes the ratio of the first two coordinates, and alpha_N, a product, has no constraint.

        Raises:
            UserError: for alpha_N, or a name that is not a parameter.
        """
        if statistic == "alpha_N":
            raise UserError(f"alpha_N is a product in law {self.name}: profile alpha_D or {EXPONENT} instead")
        row, target = super().constraint(statistic, value)
        if statistic == "N_c":
            row[2], target = -np.log(value), 0.0
        return row, target

    def start_levels(self, spread: int | None = None) -> tuple[Array, ...]:
        """Levels of the solver's own coordinates."""
        logs = np.linspace(5.0, 40.0, spread or 5), np.linspace(20.0, 45.0, spread or 4)
        exponents = np.linspace(0.5, 2.0, spread or 4), np.linspace(0.05, 0.6, spread or 4)
        return (*logs, *exponents, *super().start_levels(spread)[4:])


PARAMS = Term("A", falls={"params": "alpha"})
TOKENS = Term("B", falls={"tokens": "beta"})
TOKENS_BY_SIZE = Term("B", falls={"tokens": "beta"}, grows={"params": "gamma"})
GEMSTONES = "McLeish et al. 2025 (Gemstones, arXiv 2502.06857)"
KAPLAN = "Kaplan et al. 2020 (arXiv 2001.08361)"
SKALING = "Skaling (arXiv 2608.07222)"
WITH_ASPECT = "with shapelaw's price on a wrong aspect ratio"

PARAMS_TOKENS = register(
    SumLaw(
        name="params_tokens",
        formula="L = A/params^alpha + B/tokens^beta + E",
        source=f"Hoffmann et al. 2022 (arXiv 2203.15556), approach 3; {GEMSTONES}, eq 1",
        terms=(PARAMS, TOKENS),
        optimum=("beta", ("alpha", "beta")),
    )
)
WIDTH_DEPTH_PARAMS_TOKENS = register(
    SumLaw(
        name="width_depth_params_tokens",
        formula="L = A/width^alpha + B/depth^beta + C/params^gamma + D/tokens^zeta + E",
        source=f"{GEMSTONES}, eq 2",
        terms=(
            Term("A", falls={"width": "alpha"}),
            Term("B", falls={"depth": "beta"}),
            Term("C", falls={"params": "gamma"}),
            Term("D", falls={"tokens": "zeta"}),
        ),
    )
)
WIDTH_DEPTH_TOKENS = register(
    SumLaw(
        name="width_depth_tokens",
        formula="L = A/width^alpha + B/depth^beta + C/tokens^gamma + E",
        source=f"{GEMSTONES}, eq 3",
        terms=(
            Term("A", falls={"width": "alpha"}),
            Term("B", falls={"depth": "beta"}),
            Term("C", falls={"tokens": "gamma"}),
        ),
    )
)
POWER_FLOPS = register(
    SumLaw(
        name="power_flops",
        formula="L = A/flops^alpha",
        source=f"{KAPLAN}, eq 1.3",
        terms=(Term("A", falls={"flops": "alpha"}),),
        irreducible=None,
    )
)
POWER_FLOPS_E = register(
    SumLaw(
        name="power_flops_e",
        formula="L = A/flops^alpha + E",
        source="Henighan et al. 2020 (arXiv 2010.14701), eq 1.1",
        terms=(Term("A", falls={"flops": "alpha"}),),
    )
)
KAPLAN_TERMS = (Term("N_c", falls={"params": "alpha_N"}), Term("D_c", fixed={"tokens": -1.0}))
KAPLAN_JOINT = register(
    KaplanLaw(
        name="kaplan",
        formula="L = [(N_c/params)^(alpha_N/alpha_D) + D_c/tokens]^alpha_D",
        source=f"{KAPLAN}, eq 1.5",
        terms=KAPLAN_TERMS,
        power="alpha_D",
        irreducible=None,
        default_counting="no_embedding_and_head",
    )
)
KAPLAN_JOINT_E = register(
    KaplanLaw(
        name="kaplan_e",
        formula="L = [(N_c/params)^(alpha_N/alpha_D) + D_c/tokens]^alpha_D + E",
        source=f"{KAPLAN}, eq 1.5, with an irreducible loss",
        terms=KAPLAN_TERMS,
        power="alpha_D",
        default_counting="no_embedding_and_head",
    )
)
PARAMS_TOKENS_INTERACTION = register(
    SumLaw(
        name="params_tokens_interaction",
        formula="L = A/params^alpha + B*params^gamma/tokens^beta + E",
        source="shapelaw: the interaction law for data without shapes",
        terms=(PARAMS, TOKENS_BY_SIZE),
        optimum=("beta", ("alpha", "beta", "gamma")),
        default_counting="no_embedding_and_head",
    )
)
INTERACTION = register(
    SumLaw(
        name="interaction",
        formula=("L = E + [A/params^alpha + B*params^gamma/tokens^beta] * (1 + kappa^2 * (ln(width/depth) - mu)^2)"),
        source="shapelaw: params and tokens are not additive, and a wrong aspect ratio costs",
        terms=(PARAMS, TOKENS_BY_SIZE),
        aspect=("kappa", "mu"),
        optimum=("beta", ("alpha", "beta", "gamma")),
        default_counting="no_embedding_and_head",
    )
)
PARAMS_TOKENS_ASPECT = register(
    SumLaw(
        name="params_tokens_aspect",
        formula="L = E + [A/params^alpha + B/tokens^beta] * (1 + kappa^2 * (ln(width/depth) - mu)^2)",
        source=f"{GEMSTONES}, eq 1, {WITH_ASPECT}",
        terms=(PARAMS, TOKENS),
        aspect=("kappa", "mu"),
        optimum=("beta", ("alpha", "beta")),
        default_counting="no_embedding_and_head",
    )
)
SKALING_PARAMS_TOKENS = register(
    SumLaw(
        name="skaling",
        formula="L = (A/params^alpha + B/tokens^beta)^rho + E",
        source=SKALING,
        terms=(PARAMS, TOKENS),
        power="rho",
        optimum=("beta", ("alpha", "beta")),
        default_counting="no_embedding_and_head",
    )
)
SKALING_ASPECT = register(
    SumLaw(
        name="skaling_aspect",
        formula="L = E + (A/params^alpha + B/tokens^beta)^rho * (1 + kappa^2 * (ln(width/depth) - mu)^2)",
        source=f"{SKALING}, {WITH_ASPECT}",
        terms=(PARAMS, TOKENS),
        power="rho",
        aspect=("kappa", "mu"),
        optimum=("beta", ("alpha", "beta")),
        default_counting="no_embedding_and_head",
    )
)
