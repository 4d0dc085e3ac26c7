"""Which path connects two densities?

    x = alpha(t) x0 + beta(t) x1 + gamma(t) z,    t = 1: x1, the source,    t = 0: x0, the target

x0 and x1 are draws of two densities, coupled or not, and z is standard normal and independent of
both. alpha and beta are a row of ENDS, gamma is a row of GAMMAS times a scale; drawn curves make
another. gamma = 0 at both ends, where the path is at its densities exactly.

What a network learns from draws are conditional means given x and t: D = E[x0], S = E[x1] and
eta = E[z]. Of them are made

    drift  v = alpha' D + beta' S,    velocity  b = v + gamma' eta,    score  s = -eta / gamma.

x moves along b, or, for any diffusion eps(t) >= 0 and with the same densities,

    dx = (-b + eps s) dtau + sqrt(2 eps) dW    towards the target, tau = 1 - t,
    dx = (b + eps s) dt + sqrt(2 eps) dW       towards the source.

One-sided interpolants (interpolant.py) are the case in which the source is normal. Then
beta x1 + gamma z is sigma eps with sigma^2 = beta^2 + gamma^2, whatever gamma is, and with
x1 = 0 the formulas here are those there, gamma being sigma.

Source: Albergo, Boffi, Vanden-Eijnden 2023, arXiv:2303.08797, definition 2.1 and table 4, where
t = 0 is the source (their t is 1 - t here).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

from .curve import Curve
from .elementary import Function, Number, constant, inverse, lesser, positive_part, sin, sqrt
from .interpolant import LINEAR, TRIGONOMETRIC, Interpolant

__all__ = [
    "ENDS",
    "GAMMAS",
    "Ends",
    "Gamma",
    "TwoSided",
    "kl_diffusion",
    "two_sided",
    "two_sided_from_curves",
]

LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class Ends:
    """A row of ENDS: the coefficients of x0 and x1, and their derivatives.

    Example:
        >>> ENDS["trigonometric"].alpha(1.0)
        0.0
    """

    summary: str
    alpha: Function
    beta: Function
    alpha_dot: Function
    beta_dot: Function


@dataclass(frozen=True)
class Gamma:
    """A row of GAMMAS: the noise's coefficient of scale 1.

    Attributes:
        summary: One sentence for users.
        value: gamma.
        dot: Its derivative; infinite at the ends for brownian.
        spread: gamma gamma', which is finite everywhere.

    Example:
        >>> GAMMAS["brownian"].value(0.5), GAMMAS["brownian"].spread(0.0)
        (0.5, 0.5)
    """

    summary: str
    value: Function
    dot: Function
    spread: Function


@dataclass(frozen=True)
class TwoSided:
    """Coefficients of x = alpha x0 + beta x1 + gamma z as functions of t in [0, 1].

    Attributes:
        name: Keys of ENDS and GAMMAS and the scale, or "curve" for one that was drawn.
        alpha: Coefficient of the target, 1 at t = 0.
        beta: Coefficient of the source, 1 at t = 1 (mirror has none).
        gamma: Coefficient of the noise, 0 at both ends.
        alpha_dot: Derivative of alpha.
        beta_dot: Derivative of beta.
        gamma_dot: Derivative of gamma; infinite at the ends of a Brownian one.
        spread: gamma gamma', half the derivative of the noise's variance.
        is_noisy: Whether gamma is anything but 0.

    Example:
        >>> path = two_sided("linear", "brownian", 2.0)
        >>> path.alpha(0.25), path.beta(0.25), path.gamma(0.5)
        (0.75, 0.25, 1.0)
    """

    name: str
    alpha: Function
    beta: Function
    gamma: Function
    alpha_dot: Function
    beta_dot: Function
    gamma_dot: Function
    spread: Function
    is_noisy: bool = True


def _of_noise(summary: str, one_sided: Interpolant) -> Ends:
    """Make a row of an interpolant from noise, with another source in the noise's place."""
    i = one_sided
    return Ends(summary, i.alpha, i.sigma, i.alpha_dot, i.sigma_dot)


# encoding-decoding: cos^2(pi t) on one half each, written as sines that are exactly 0 on the other


def _half(t: Number) -> Number:
    wave = sin(math.pi * positive_part(t - 0.5))
    return wave * wave


def _half_dot(t: Number) -> Number:
    return math.pi * sin(2.0 * math.pi * positive_part(t - 0.5))


def _other_half(t: Number) -> Number:
    return _half(1.0 - t)


def _other_half_dot(t: Number) -> Number:
    return -_half_dot(1.0 - t)


ENDS: dict[str, Ends] = {
    "linear": _of_noise("straight from one end to the other", LINEAR),
    "trigonometric": _of_noise(
        "a quarter of a circle, which keeps the variance of independent ends of equal variance",
        TRIGONOMETRIC,
    ),
    "encoding_decoding": Ends(
        "the source fades to noise by the middle, then the target appears from noise",
        _other_half,
        _half,
        _other_half_dot,
        _half_dot,
    ),
    "mirror": Ends(
        "the same density at both ends, noised on the way",
        constant(1.0),
        constant(0.0),
        constant(0.0),
        constant(0.0),
    ),
}


def _product(t: Number) -> Number:
    return t * (1.0 - t)


def _tilt(t: Number) -> Number:
    return 1.0 - 2.0 * t


def _brownian(t: Number) -> Number:
    return sqrt(_product(t))


def _brownian_dot(t: Number) -> Number:
    return 0.5 * _tilt(t) * inverse(_brownian(t))


def _brownian_spread(t: Number) -> Number:
    return 0.5 * _tilt(t)


def _sin_squared(t: Number) -> Number:
    wave = sin(math.pi * lesser(t))
    return wave * wave


def _sin_squared_dot(t: Number) -> Number:
    return math.pi * sin(2.0 * math.pi * t)


def _sin_squared_spread(t: Number) -> Number:
    return _sin_squared(t) * _sin_squared_dot(t)


def _quadratic_spread(t: Number) -> Number:
    return _product(t) * _tilt(t)


_none = constant(0.0)
GAMMAS: dict[str, Gamma] = {
    "brownian": Gamma(
        "sqrt(t (1 - t)), the Brownian bridge's: noise at once at either end",
        _brownian,
        _brownian_dot,
        _brownian_spread,
    ),
    "sin_squared": Gamma(
        "sin^2(pi t): none near the ends, most in the middle",
        _sin_squared,
        _sin_squared_dot,
        _sin_squared_spread,
    ),
    "quadratic": Gamma("t (1 - t): little near the ends", _product, _tilt, _quadratic_spread),
    "none": Gamma("no noise: the path of the two ends alone", _none, _none, _none),
}


def _times(factor: float, function: Function) -> Function:
    def scaled(t: Number, /) -> Number:
        return factor * function(t)

    return scaled


def _entry(table: Mapping[str, object], name: str, what: str) -> None:
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; choose one of: {', '.join(table)}")


@lru_cache(maxsize=64)
def two_sided(ends: str = "linear", gamma: str = "brownian", scale: float = 1.0) -> TwoSided:
    """Build a path between two densities from the tables.

    Args:
        ends: Key of ENDS.
        gamma: Key of GAMMAS.
        scale: Factor s of gamma, above 0 and at most 100; of no effect where gamma is none.

    Returns:
        The path.

    Raises:
        ValueError: Unknown name, or a scale out of range.

    Example:
        >>> two_sided("encoding_decoding", "sin_squared").gamma(0.5)
        1.0
    """
    _entry(ENDS, ends, "pair of ends")
    _entry(GAMMAS, gamma, "gamma")
    if not 0.0 < scale <= LARGEST_SCALE:
        raise ValueError(
            f"the noise scale of a bridge is {scale}; it must be above 0 and at most "
            f"{LARGEST_SCALE:g}. For no noise choose the gamma none"
        )
    of, noise = ENDS[ends], GAMMAS[gamma]
    noisy = gamma != "none"
    times: Callable[[Function], Function] = partial(_times, scale)
    return TwoSided(
        f"{ends}, {gamma} {scale:g}" if noisy else f"{ends}, none",
        of.alpha,
        of.beta,
        times(noise.value),
        of.alpha_dot,
        of.beta_dot,
        times(noise.dot),
        _times(scale * scale, noise.spread),
        noisy,
    )


def two_sided_from_curves(alpha: Curve, beta: Curve, gamma: Curve) -> TwoSided:
    """Build a path between two densities from three curves over t from 0 to 1.

    Args:
        alpha: Coefficient of the target, 1 at t = 0 and 0 at t = 1.
        beta: Coefficient of the source, 0 at t = 0 and 1 at t = 1.
        gamma: Coefficient of the noise: 0 at both ends, above 0 between them or 0 everywhere.

    Returns:
        A path with the name "curve".

    Raises:
        ValueError: A curve that does not begin or end where it must, or a gamma that is 0 or less
            between the ends. Says at which t, what it is there, and what to change.

    Example:
        >>> falls, rises = ((0.0, 1.0), (1.0, 0.0)), ((0.0, 0.0), (1.0, 1.0))
        >>> tent = Curve(((0.0, 0.0), (0.5, 0.3), (1.0, 0.0)), "linear")
        >>> two_sided_from_curves(Curve(falls), Curve(rises), tent).gamma(0.5)
        0.3
    """
    wanted = (
        ("alpha", alpha, (1.0, 0.0)),
        ("beta", beta, (0.0, 1.0)),
        ("gamma", gamma, (0.0, 0.0)),
    )
    for name, curve, values in wanted:
        for t, value in enumerate(values):
            if curve(float(t)) != value:
                raise ValueError(
                    f"{name} is {curve(float(t)):g} at t = {t}, the "
                    f"{('target', 'source')[t]}, and must be {value:g} there; drag its point to "
                    f"({t}, {value:g})"
                )
    noisy = any(y != 0.0 for _, y in gamma.points)
    for t, y in gamma.points[1:-1] if noisy else ():
        if not y > 0.0:
            raise ValueError(
                f"gamma is {y:g} at t = {t:g}; between the ends it must be above 0, or 0 "
                "everywhere; raise that point"
            )
    if noisy and not min(gamma(piece[0] + 0.5 * (piece[1] - piece[0])) for piece in gamma.pieces):
        raise ValueError("gamma is level at 0 next to an end; move its first or last point there")

    def spread(t: Number, /) -> Number:
        return gamma(t) * gamma.slope(t)

    return TwoSided(
        "curve", alpha, beta, gamma, alpha.slope, beta.slope, gamma.slope, spread, noisy
    )


def kl_diffusion(path: TwoSided, t: Number) -> Number:
    """Return the diffusion that is best for a network that is told its source.

        eps = gamma gamma' - gamma^2 alpha' / alpha

    Where x1 is known and D is the one thing learnt, an error of D enters velocity and score
    together, and the bound on the divergence of generated and true targets (bounds in
    ../study/bridge_likelihood.py) is least for this eps. For the linear Brownian bridge of scale s
    it is s^2 / 2 at every t: the noise that the bridge itself has. It is the same formula as for
    interpolants from noise (interpolant.py), gamma standing for sigma.

    Args:
        path: The path.
        t: Time inside (0, 1) at which alpha is not 0, float or tensor.

    Returns:
        eps, of t's type and shape; negative where gamma / alpha falls with t: no noise is best.

    Example:
        >>> round(kl_diffusion(two_sided("linear", "brownian", 2.0), 0.3), 12)
        2.0
    """
    gamma = path.gamma(t)
    return path.spread(t) - gamma * gamma * path.alpha_dot(t) * inverse(path.alpha(t))
