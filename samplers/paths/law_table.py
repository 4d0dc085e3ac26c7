"""Which noise laws are there? A table: numbers with ranges, the strength k, closed forms.

Nodes build their widgets from it, noise_law.py its behaviour. A preset that its authors wrote as a
diffusion eps on the linear path is converted by k = eps (1 - sigma) / sigma.

Sources: SiT, Ma et al. 2024, arXiv:2401.08740 (code, where w = eps; the paper has w = 2 eps); RBF,
Kim et al. 2025, arXiv:2503.19385 (g^2 = 2 eps, in VP time); Flow-GRPO, Liu et al. 2025,
arXiv:2505.05470 (std = sqrt(2 eps)).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .curve import Curve
from .interpolant import VP, r_from_sigma, sigma_from_r, vp_beta

__all__ = ["NOISE_LAWS", "LawSpec", "Numbers", "Parameter", "log_rho"]

# log rho at which every integrand that converges has vanished
_FAR = 45.0


class Numbers(Protocol):
    """What a row's functions read of a law: its parameters by name, and its curve."""

    @property
    def curve(self) -> Curve: ...

    def __getitem__(self, parameter: str, /) -> float: ...


@dataclass(frozen=True)
class Parameter:
    """A law's number: default, range, and what it does.

    Example:
        >>> NOISE_LAWS["constant_k"].parameters["k"].low
        0.0
    """

    default: float
    low: float
    high: float
    meaning: str


@dataclass(frozen=True)
class LawSpec:
    """A row of the table of laws.

    Attributes:
        summary: One sentence for users.
        parameters: Numbers by name.
        k: k(law, sigma) for 0 < sigma <= 1; None if the law gives q itself.
        decay: Closed form of the integral of k d(log rho) from low to high, where there is one.
        diffusion: Linear-path eps(law, sigma), where it is finite at sigma = 1; else None.
        knots: Sigmas at which k is not smooth.
        takes_points: Whether the law is given by points (sigma, k).

    Example:
        >>> NOISE_LAWS["fixed_q"].k is None  # it gives q itself
        True
    """

    summary: str
    parameters: Mapping[str, Parameter]
    k: Callable[["Numbers", float], float] | None
    decay: Callable[["Numbers", float, float], float] | None = None
    diffusion: Callable[["Numbers", float], float] | None = None
    knots: Callable[["Numbers"], tuple[float, ...]] | None = None
    takes_points: bool = False


def log_rho(sigma: float) -> float:
    """Return log(sigma / (1 - sigma)), cut off where every convergent integrand has vanished.

    Args:
        sigma: Linear sigma in [0, 1].

    Returns:
        log rho; -45 and 45 at the ends.

    Example:
        >>> log_rho(0.5), log_rho(1.0)
        (0.0, 45.0)
    """
    if sigma in (0.0, 1.0):
        return math.copysign(_FAR, sigma - 0.5)
    return math.log(sigma) - math.log1p(-sigma)


# k and the closed forms of its integral


def _k_zero(_law: Numbers, _sigma: float) -> float:
    return 0.0


def _decay_zero(_law: Numbers, _low: float, _high: float) -> float:
    return 0.0


def _k_constant(law: Numbers, _sigma: float) -> float:
    return law["k"]


def _decay_constant_k(law: Numbers, low: float, high: float) -> float:
    return law["k"] * (log_rho(high) - log_rho(low)) if law["k"] > 0.0 else 0.0


def _decay_flow_grpo(law: Numbers, low: float, high: float) -> float:
    k = _k_flow_grpo(law, high)
    return k * (log_rho(high) - log_rho(low)) if k > 0.0 else 0.0


def _k_flow_grpo(law: Numbers, _sigma: float) -> float:
    return 0.5 * law["a"] ** 2


def _eps_constant(law: Numbers, _sigma: float) -> float:
    return law["norm"]


def _eps_sigma(law: Numbers, sigma: float) -> float:
    return law["norm"] * sigma


def _eps_decreasing(law: Numbers, sigma: float) -> float:
    return 0.25 * (1.0 - law["norm"] * math.cos(math.pi * sigma)) ** 2


def _eps_increasing_decreasing(law: Numbers, sigma: float) -> float:
    return law["norm"] * math.sin(math.pi * sigma) ** 2


def _decay_constant_eps(law: Numbers, low: float, high: float) -> float:
    return law["norm"] * (high - low) / (high * low) if law["norm"] > 0.0 else 0.0


def _decay_sigma(law: Numbers, low: float, high: float) -> float:
    return law["norm"] * math.log(high / low) if law["norm"] > 0.0 else 0.0


def _k_rbf_reference(law: Numbers, sigma: float) -> float:
    # eps_KL of VP is beta / 2; beyond the VP noise end, which the paper never leaves, k stays
    r = min(r_from_sigma(VP, sigma), VP.r_noise)
    return (law["norm"] * r * r) ** 2 / vp_beta(r)


def _knots_rbf_reference(_law: Numbers) -> tuple[float, ...]:
    return (sigma_from_r(VP, VP.r_noise),)


def _k_curve(law: Numbers, sigma: float) -> float:
    return law.curve(sigma)


def _knots_curve(law: Numbers) -> tuple[float, ...]:
    return tuple(s for s, _ in law.curve.points)


def _written_as_diffusion(
    summary: str,
    eps: Callable[[Numbers, float], float],
    decay: Callable[[Numbers, float, float], float] | None = None,
) -> LawSpec:
    """Make a row for a law that its authors wrote as a diffusion on the linear path."""

    def k(law: Numbers, sigma: float) -> float:
        return eps(law, sigma) * (1.0 - sigma) / sigma

    norm = Parameter(1.0, 0.0, 100.0, "factor of the diffusion; 0 is the ODE")
    return LawSpec(summary, {"norm": norm}, k, decay, eps)


NOISE_LAWS: dict[str, LawSpec] = {
    "ode": LawSpec(
        "No noise: the probability-flow ODE, the host's Euler.", {}, _k_zero, _decay_zero
    ),
    "constant_k": LawSpec(
        "The same strength at every sigma; 1 is the DDPM posterior (ancestral sampling).",
        {"k": Parameter(0.25, 0.0, 100.0, "strength; 0 is the ODE, 1 the DDPM posterior")},
        _k_constant,
        _decay_constant_k,
    ),
    "sit_constant": _written_as_diffusion(
        "SiT's constant diffusion, very strong near the data.", _eps_constant, _decay_constant_eps
    ),
    "sit_sigma": _written_as_diffusion(
        "SiT's default, diffusion = sigma: k = 1 - sigma, none at pure noise.",
        _eps_sigma,
        _decay_sigma,
    ),
    "sit_linear": _written_as_diffusion(
        "SiT's linear diffusion, which equals sit_sigma on the linear path.",
        _eps_sigma,
        _decay_sigma,
    ),
    "sit_decreasing": _written_as_diffusion(
        "SiT's decreasing diffusion, strong at noise and none at the data.", _eps_decreasing
    ),
    "sit_increasing_decreasing": _written_as_diffusion(
        "SiT's sin^2(pi sigma), strongest in the middle.", _eps_increasing_decreasing
    ),
    "flow_grpo": LawSpec(
        "Flow-GRPO's std = a sqrt(sigma / (1 - sigma)): a constant k of a^2 / 2.",
        {"a": Parameter(0.7, 0.0, 10.0, "noise level; 0 is the ODE")},
        _k_flow_grpo,
        _decay_flow_grpo,
    ),
    "fixed_q": LawSpec(
        "Each transition keeps the same share of the noise, whatever its length; for searching.",
        {"q": Parameter(0.85, 0.0, 1.0, "correlation kept; 1 is the ODE, 0 replaces the noise")},
        None,
    ),
    "rbf_reference": LawSpec(
        "Rollover Budget Forcing's g = norm r^2 in VP time.",
        {"norm": Parameter(3.0, 0.0, 100.0, "factor of g; the paper uses 3, 0 is the ODE")},
        _k_rbf_reference,
        knots=_knots_rbf_reference,
    ),
    "curve": LawSpec(
        "Strength k drawn through points (sigma, k), level outside them.",
        {},
        _k_curve,
        knots=_knots_curve,
        takes_points=True,
    ),
}
