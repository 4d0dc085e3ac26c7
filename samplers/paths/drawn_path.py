"""Which interpolant do two drawn curves, alpha(r) and sigma(r), describe?

    x = alpha(r) x0 + sigma(r) eps,    r = 0: data,    r = 1: noise

It is one only if alpha(0) = 1 and sigma(0) = 0 (clean data), next to nothing of the data is left at
r = 1, neither is ever negative, and rho = sigma / alpha rises all the way, for then r can be read
off a noise level. All of it is checked on the polynomials themselves, not on a grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from .curve import Curve, height, slope
from .interpolant import Interpolant, Number

__all__ = ["interpolant_from_curves"]

# at the noise end alpha may be this share of sigma: linear sigma 0.952 (VE's is 0.9877)
_DATA_LEFT = 0.05
# below this a change of rho is a rounding
_ROUNDING = 1e-12
# halvings of [0, 1] that leave less than the spacing of doubles at 1
_HALVINGS = 60


def interpolant_from_curves(alpha: Curve, sigma: Curve) -> Interpolant:
    """Build the interpolant whose coefficients are two curves over its time r from 0 to 1.

    Derivatives are the curves' slopes; r(rho) is the root of sigma(r) - rho alpha(r), to rounding,
    and infinite above rho(1) where data is left there.

    Args:
        alpha: Coefficient of the data, 1 at r = 0, at most a twentieth of sigma at r = 1.
        sigma: Coefficient of the noise, 0 at r = 0, above 0 at r = 1.

    Returns:
        An interpolant with the name "curve".

    Raises:
        ValueError: The curves are no path from data to noise with rising rho. Says at which r, what
            they are there, and what to change.

    Example:
        >>> falls, rises = ((0.0, 1.0), (1.0, 0.0)), ((0.0, 0.0), (1.0, 1.0))
        >>> drawn = interpolant_from_curves(Curve(falls), Curve(rises))
        >>> drawn.alpha(0.25), drawn.sigma(0.25)
        (0.75, 0.25)
    """
    _check_ends(alpha, sigma)
    _check_rising(alpha, sigma)
    inverse = _Inverse(alpha, sigma)
    return Interpolant("curve", alpha, sigma, alpha.slope, sigma.slope, inverse)


@dataclass(frozen=True)
class _Inverse:
    """r(rho) of two curves."""

    alpha: Curve
    sigma: Curve

    def __call__(self, rho: Number, /) -> Number:
        """Return the time at which sigma = rho alpha, of rho's type and shape."""
        if isinstance(rho, Tensor):
            return self._solve(rho.double()).to(rho.dtype)
        return float(self._solve(torch.tensor(rho, dtype=torch.float64)))

    def _solve(self, rho: Tensor) -> Tensor:
        # weights of a sum that has the root and is finite for every rho, infinity included
        of_sigma, of_alpha = 1.0 / (1.0 + rho), 1.0 / (1.0 + 1.0 / rho)
        low, high = torch.zeros_like(rho), torch.ones_like(rho)
        for _ in range(_HALVINGS):
            r = 0.5 * (low + high)
            below = of_sigma * self.sigma(r) < of_alpha * self.alpha(r)
            low, high = torch.where(below, r, low), torch.where(below, high, r)
        r = 0.5 * (low + high)
        for _ in range(3):  # Newton, which next to r = 0 finds the digits that halving cannot
            excess = of_sigma * self.sigma(r) - of_alpha * self.alpha(r)
            speed = of_sigma * self.sigma.slope(r) - of_alpha * self.alpha.slope(r)
            step = torch.where(speed > 0.0, excess / speed, 0.0)
            r = (r - step).clamp(low, high)
        alpha, sigma = self.alpha(1.0), self.sigma(1.0)
        end = sigma / alpha if alpha > 0.0 else math.inf
        r = torch.where(rho == end, 1.0, torch.where(rho > end, math.inf, r))
        return torch.where(rho == 0.0, 0.0, r)


def _check_ends(alpha: Curve, sigma: Curve) -> None:
    for name, curve, value in (("alpha", alpha, 1.0), ("sigma", sigma, 0.0)):
        if curve(0.0) != value:
            raise ValueError(
                f"{name} is {curve(0.0):g} at r = 0, the clean data, and must be {value:g} there; "
                f"drag its first point to (0, {value:g})"
            )
        negative = [p for p in curve.points if p[1] < 0.0]
        if negative:
            r, y = negative[0]
            raise ValueError(f"{name} is {y:g} at r = {r:g}; it must not be negative anywhere")
    if not sigma(1.0) > 0.0:
        raise ValueError(
            "sigma is 0 at r = 1, the noise, and must be above 0 there; raise its last point"
        )
    if alpha(1.0) > _DATA_LEFT * sigma(1.0):
        raise ValueError(
            f"alpha is {alpha(1.0):g} and sigma {sigma(1.0):g} at r = 1, which should be noise: "
            f"alpha must be 0 there or at most {_DATA_LEFT:g} sigma; drag its last point to (1, 0)"
        )


def _check_rising(alpha: Curve, sigma: Curve) -> None:
    knots = sorted({x for curve in (alpha, sigma) for piece in curve.pieces for x in piece[:2]})
    for low, high in pairwise(knots):
        speed = _speed(_bernstein(alpha, low, high), _bernstein(sigma, low, high))
        place = _falls(speed)
        if place is None and max(speed) > _ROUNDING:
            continue
        r = low + (high - low) * (place or 0.0)
        said = "falls at" if place is not None else f"stays up to {high:.4g} from"
        raise ValueError(
            f"the noise ratio sigma / alpha must rise from r = 0 to 1, but it {said} r = {r:.4g}, "
            f"where sigma is {sigma(r):.4g} and alpha {alpha(r):.4g}; let sigma rise or alpha fall "
            "there: add a point, or move the nearest"
        )


def _bernstein(curve: Curve, low: float, high: float) -> list[float]:
    """Bernstein coefficients of the curve on an interval within one of its pieces."""
    piece = curve.piece_at(0.5 * (low + high))
    third = (high - low) / 3.0
    y0, y1 = height(low, *piece), height(high, *piece)
    return [y0, y0 + third * slope(low, *piece), y1 - third * slope(high, *piece), y1]


def _speed(alpha: Sequence[float], sigma: Sequence[float]) -> list[float]:
    """Bernstein coefficients of alpha sigma' - sigma alpha', which has the sign of rho'."""
    out = [0.0] * 6
    for i in range(4):
        for j in range(3):
            weight = math.comb(3, i) * math.comb(2, j) / math.comb(5, i + j)
            rising, falling = sigma[j + 1] - sigma[j], alpha[j + 1] - alpha[j]
            out[i + j] += weight * (alpha[i] * rising - sigma[i] * falling)
    return out


def _falls(coefficients: Sequence[float], low: float = 0.0, high: float = 1.0) -> float | None:
    """Find a place in [0, 1] where a polynomial in Bernstein form is negative, if there is one.

    It lies above its smallest coefficient and takes the outer two; halving draws all of them to it.
    """
    if min(coefficients) >= -_ROUNDING:
        return None
    for value, place in ((coefficients[0], low), (coefficients[-1], high)):
        if value < -_ROUNDING:
            return place
    middle = 0.5 * (low + high)
    if not low < middle < high:
        return None
    left: list[float] = []
    right: list[float] = []
    rest = list(coefficients)
    while rest:
        left.append(rest[0])
        right.insert(0, rest[-1])
        rest = [0.5 * (a + b) for a, b in pairwise(rest)]
    place = _falls(left, low, middle)
    return _falls(right, middle, high) if place is None else place
