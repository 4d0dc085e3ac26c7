"""Which Gaussian path connects data and noise?

    x = alpha(r) x0 + sigma(r) eps,    r = r_data: data,    r = r_noise: noise

An interpolant is two functions of its own time r, their derivatives, and the inverse r(rho) of the
noise-to-signal ratio rho = sigma / alpha. rho is what all interpolants share: two states with equal
rho differ by a factor only, so that

    sigma_linear = sigma / (alpha + sigma),    x = (alpha + sigma) x_linear.

Nothing here steps or calls a model; see transition.py.
"""

import math
from dataclasses import dataclass

from .elementary import (
    Function,
    Number,
    atan,
    constant,
    cos,
    exp,
    inverse,
    log1p,
    one_minus_exp,
    sin,
    sqrt,
)

__all__ = [
    "INTERPOLANTS",
    "LINEAR",
    "TRIGONOMETRIC",
    "VE",
    "VP",
    "Interpolant",
    "Number",
    "kl_diffusion",
    "named",
    "r_from_sigma",
    "scale",
    "sigma_dot_linear",
    "sigma_from_r",
]

BETA_MIN, BETA_MAX = 0.1, 20.0
VE_SIGMA_MAX = 80.0


@dataclass(frozen=True)
class Interpolant:
    """Coefficients of x = alpha x0 + sigma eps as functions of the interpolant's own time r.

    Attributes:
        name: Key in INTERPOLANTS, or "curve" for one that was drawn.
        alpha: Coefficient of the data, 1 at r_data, falling.
        sigma: Coefficient of the noise, 0 at r_data, rising.
        alpha_dot: Derivative of alpha in r.
        sigma_dot: Derivative of sigma in r; VP's is infinite at r = 0.
        r_from_rho: Inverse of rho(r) = sigma / alpha for 0 <= rho <= infinity.
        r_noise: Time at which sampling customarily starts. VP and VE stop short of rho = infinity
            there (linear sigma 0.9935 and 0.9877); their formulas hold beyond it.
        r_data: Time of clean data.

    Example:
        >>> VP.alpha(0.0), VP.sigma(0.0)
        (1.0, 0.0)
        >>> TRIGONOMETRIC.alpha(1.0)
        0.0
    """

    name: str
    alpha: Function
    sigma: Function
    alpha_dot: Function
    sigma_dot: Function
    r_from_rho: Function
    r_noise: float = 1.0
    r_data: float = 0.0


# linear: alpha = 1 - r, sigma = r


def _linear_alpha(r: Number) -> Number:
    return 1.0 - r


def _linear_r(rho: Number) -> Number:
    return inverse(1.0 + inverse(rho))


def _identity(r: Number) -> Number:
    return r


# trigonometric: alpha = cos(pi r / 2), written as a sine so that alpha(1) is exactly 0


def _trigonometric_alpha(r: Number) -> Number:
    return sin(0.5 * math.pi * (1.0 - r))


def _trigonometric_sigma(r: Number) -> Number:
    return sin(0.5 * math.pi * r)


def _trigonometric_alpha_dot(r: Number) -> Number:
    return -0.5 * math.pi * sin(0.5 * math.pi * r)


def _trigonometric_sigma_dot(r: Number) -> Number:
    return 0.5 * math.pi * cos(0.5 * math.pi * r)


def _trigonometric_r(rho: Number) -> Number:
    return atan(rho) * (2.0 / math.pi)


# VP: T(r) = integral of beta = BETA_MIN r + (BETA_MAX - BETA_MIN) r^2 / 2, alpha = exp(-T / 2)


def _vp_integral(r: Number) -> Number:
    return r * (BETA_MIN + 0.5 * (BETA_MAX - BETA_MIN) * r)


def vp_beta(r: Number) -> Number:
    """Return beta(r) = T'(r) of the VP interpolant, which is twice its KL-optimal diffusion."""
    return BETA_MIN + (BETA_MAX - BETA_MIN) * r


def _vp_alpha(r: Number) -> Number:
    return exp(-0.5 * _vp_integral(r))


def _vp_sigma(r: Number) -> Number:
    return sqrt(one_minus_exp(-_vp_integral(r)))


def _vp_alpha_dot(r: Number) -> Number:
    return -0.5 * vp_beta(r) * _vp_alpha(r)


def _vp_sigma_dot(r: Number) -> Number:
    return 0.5 * vp_beta(r) * exp(-_vp_integral(r)) * inverse(_vp_sigma(r))


def _vp_r(rho: Number) -> Number:
    # the root of T(r) = log(1 + rho^2), divided through by T so that both ends are limits
    above = inverse(log1p(rho * rho))
    half = BETA_MIN * above
    return 2.0 * inverse(half + sqrt(half * half + 2.0 * (BETA_MAX - BETA_MIN) * above))


LINEAR = Interpolant("linear", _linear_alpha, _identity, constant(-1.0), constant(1.0), _linear_r)
VP = Interpolant("vp", _vp_alpha, _vp_sigma, _vp_alpha_dot, _vp_sigma_dot, _vp_r)
TRIGONOMETRIC = Interpolant(
    "trigonometric",
    _trigonometric_alpha,
    _trigonometric_sigma,
    _trigonometric_alpha_dot,
    _trigonometric_sigma_dot,
    _trigonometric_r,
)
VE = Interpolant(
    "ve", constant(1.0), _identity, constant(0.0), constant(1.0), _identity, VE_SIGMA_MAX
)
INTERPOLANTS: dict[str, Interpolant] = {i.name: i for i in (LINEAR, VP, TRIGONOMETRIC, VE)}


def named(name: str) -> Interpolant:
    """Look an interpolant up by name.

    Args:
        name: Key of INTERPOLANTS.

    Returns:
        The interpolant.

    Raises:
        ValueError: Unknown name; lists the known ones.

    Example:
        >>> named("vp") is VP
        True
    """
    if name not in INTERPOLANTS:
        known = ", ".join(INTERPOLANTS)
        raise ValueError(f"unknown interpolant {name!r}; choose one of: {known}")
    return INTERPOLANTS[name]


def scale(interpolant: Interpolant, r: Number) -> Number:
    """Return c = alpha(r) + sigma(r), the factor in x = c x_linear.

    Args:
        interpolant: The path of x.
        r: Its time, float or tensor.

    Returns:
        c, of r's type and shape; 1 on the linear path.

    Example:
        >>> scale(LINEAR, 0.3), scale(VE, 3.0)
        (1.0, 4.0)
    """
    return interpolant.alpha(r) + interpolant.sigma(r)


def sigma_from_r(interpolant: Interpolant, r: Number) -> Number:
    """Return the linear-path sigma with the noise-to-signal ratio of time r.

        sigma_linear = sigma(r) / (alpha(r) + sigma(r))

    Args:
        interpolant: The path whose time r is.
        r: Time, float or tensor.

    Returns:
        Linear sigma in [0, 1], of r's type and shape.

    Example:
        >>> round(sigma_from_r(VP, 1.0), 4)
        0.9935
    """
    return inverse(1.0 + interpolant.alpha(r) * inverse(interpolant.sigma(r)))


def r_from_sigma(interpolant: Interpolant, sigma: Number) -> Number:
    """Return the interpolant's time at which the noise-to-signal ratio is sigma / (1 - sigma).

    Args:
        interpolant: The path whose time is wanted.
        sigma: Linear sigma in [0, 1], float or tensor.

    Returns:
        r, of sigma's type and shape; at sigma = 1 infinity for VP and VE.

    Example:
        >>> r_from_sigma(VE, 0.75)
        3.0
    """
    return interpolant.r_from_rho(sigma * inverse(1.0 - sigma))


def sigma_dot_linear(interpolant: Interpolant, r: Number) -> Number:
    """Return d sigma_linear / d r, the speed of linear time along the interpolant.

        sigma_linear' = (alpha sigma' - sigma alpha') / (alpha + sigma)^2

    Args:
        interpolant: The path whose time r is.
        r: Time, float or tensor.

    Returns:
        The derivative, of r's type and shape.

    Example:
        >>> sigma_dot_linear(LINEAR, 0.3)
        1.0
    """
    alpha, sigma = interpolant.alpha(r), interpolant.sigma(r)
    wronskian = alpha * interpolant.sigma_dot(r) - sigma * interpolant.alpha_dot(r)
    return wronskian / ((alpha + sigma) * (alpha + sigma))


def kl_diffusion(interpolant: Interpolant, r: Number) -> Number:
    """Return the KL-optimal diffusion of the path, the unit in which k is measured.

        eps_KL = sigma sigma' - sigma^2 alpha' / alpha       (linear: r / (1 - r); VP: beta / 2)

    SDEs are written dx = (-v + eps_KL score) dtau + sqrt(2 eps_KL) dW with tau running to the data.

    Source: Ma et al. 2024, arXiv:2401.08740, where w_KL = 2 eps_KL.

    Args:
        interpolant: The path.
        r: Its time, float or tensor, above r_data.

    Returns:
        eps_KL, of r's type and shape; infinite where alpha = 0.

    Example:
        >>> kl_diffusion(LINEAR, 0.5)
        1.0
    """
    alpha, sigma = interpolant.alpha(r), interpolant.sigma(r)
    wronskian = alpha * interpolant.sigma_dot(r) - sigma * interpolant.alpha_dot(r)
    return sigma * wronskian * inverse(alpha)
