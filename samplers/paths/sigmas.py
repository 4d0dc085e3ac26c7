"""At which noise levels is the model called?

Every list holds N + 1 strictly falling linear-path sigmas for N steps, as the host's do: the first
is the sigma of the first evaluation, the last (usually 0) is where the last step ends and is not
evaluated. A list that is uniform in an interpolant's own time is all that "sampling on that
interpolant" means for exact transitions.

    shift:  t' = shift t / (1 + (shift - 1) t)
"""

import math

from .interpolant import VP, Interpolant, named, r_from_sigma, sigma_from_r

__all__ = ["in_interpolant", "rbf_reference", "shifted", "uniform"]


def shifted(sigma: float, shift: float) -> float:
    """Apply the time shift of SD3 and Flux.

        t' = shift t / (1 + (shift - 1) t)

    Args:
        sigma: Linear sigma in [0, 1].
        shift: Above 0; 1 changes nothing, more moves steps towards noise. 1 / shift undoes it.

    Returns:
        The shifted sigma in [0, 1].

    Raises:
        ValueError: sigma or shift out of range.

    Example:
        >>> shifted(0.5, 3.0)
        0.75
    """
    if not 0.0 <= sigma <= 1.0:
        raise ValueError(f"sigma {sigma} is outside [0, 1], the range of a flow model")
    _check_shift(shift)
    # not 1 + (shift - 1) sigma, which can miss 1 at sigma = 1 by a rounding
    return shift * sigma / (shift * sigma + (1.0 - sigma))


def _check_shift(shift: float) -> None:
    if not (shift > 0.0 and math.isfinite(shift)):
        raise ValueError(f"shift {shift} must be a positive number; 1 means no shift")


def _check(steps: int, start: float, end: float) -> None:
    if steps < 1:
        raise ValueError(f"steps is {steps}; at least 1 is needed")
    if not 0.0 <= end < start <= 1.0:
        raise ValueError(
            f"start {start} and end {end} must satisfy 0 <= end < start <= 1 (1 is pure noise)"
        )


# Lists are even in r^(1/exponent), down to floor where they end at 0. Evenly spaced VE times would
# be useless; 7 and 0.002 are Karras et al.'s.
_SPACING: dict[str, tuple[float, float]] = {"ve": (7.0, 0.002)}


def in_interpolant(
    interpolant: str | Interpolant,
    steps: int,
    shift: float = 1.0,
    start: float = 1.0,
    end: float = 0.0,
) -> list[float]:
    """List sigmas that are evenly spaced in an interpolant's own time.

    VE, whose time is its sigma from 80 to 0, is spaced evenly in r^(1/7) instead, down to 0.002
    and then 0 (Karras et al. 2022, arXiv:2206.00364, eq. (5)).
    VP and VE start at their own noise end (linear sigma 0.9935 and 0.9877) when start is above it.

    Args:
        interpolant: Key of INTERPOLANTS, or an interpolant that is not in it.
        steps: Number of steps N, at least 1.
        shift: Time shift applied after spacing.
        start: First sigma.
        end: Last sigma, 0 for a finished sample.

    Returns:
        N + 1 falling sigmas; the last is end.

    Raises:
        ValueError: Unknown name or a number out of range.

    Example:
        >>> [round(s, 3) for s in in_interpolant("vp", 4)]
        [0.993, 0.944, 0.773, 0.488, 0.0]
    """
    path = named(interpolant) if isinstance(interpolant, str) else interpolant
    _check(steps, start, end)
    _check_shift(shift)
    wanted = r_from_sigma(path, shifted(start, 1.0 / shift))
    high = min(wanted, path.r_noise)
    low = r_from_sigma(path, shifted(end, 1.0 / shift))
    if high <= low:
        limit = shifted(sigma_from_r(path, path.r_noise), shift)
        raise ValueError(f"end {end} is above the noise end {limit:.4f} of {path.name}; lower it")
    exponent, floor = _SPACING.get(path.name, (1.0, 0.0))
    first = high ** (1.0 / exponent)
    last = max(low, min(floor, 1e-3 * high)) ** (1.0 / exponent)
    times = [(first + (last - first) * i / steps) ** exponent for i in range(steps)]
    sigmas = [shifted(sigma_from_r(path, r), shift) for r in times]
    if wanted <= path.r_noise:
        sigmas[0] = start  # exact, where rounding would leave 0.9999999999999999
    return [*sigmas, end]


def uniform(steps: int, shift: float = 1.0, start: float = 1.0, end: float = 0.0) -> list[float]:
    """List sigmas evenly spaced on the linear path, then shifted.

    Args:
        steps: Number of steps N, at least 1.
        shift: Time shift; 1 for none.
        start: First sigma of the result.
        end: Last sigma of the result.

    Returns:
        N + 1 falling sigmas from start to end.

    Raises:
        ValueError: A number out of range.

    Example:
        >>> uniform(4)
        [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    return in_interpolant("linear", steps, shift, start, end)


def rbf_reference(steps: int) -> list[float]:
    """List the sigmas of Rollover Budget Forcing's published code.

        u = 1, 1 - 1/N, ..., 0;    r = sqrt(1 - (1 - u)^2) in VP time, mapped to linear sigma

    For N = 10: 0.9935, 0.9931, ..., 0.8591, 0.7087, 0. The code searches the transitions between
    the first N entries and returns the one-step prediction D at entry N - 1. That is what the last
    step of this list does, because a stochastic transition to sigma 0 is x' = D; so the list
    serves reference mode as it is, and one sample takes N evaluations.

    Source: Kim et al. 2025, arXiv:2503.19385, appendix C.

    Args:
        steps: Number of steps N, at least 1; the paper uses 10.

    Returns:
        N + 1 falling sigmas, the last 0.

    Raises:
        ValueError: steps below 1.

    Example:
        >>> [round(s, 4) for s in rbf_reference(3)]
        [0.9935, 0.9887, 0.9426, 0.0]
    """
    _check(steps, 1.0, 0.0)
    # 1 - (1 - u)^2 with 1 - u = i / N, written without cancellation
    times = [math.sqrt((steps - i) * (steps + i)) / steps for i in range(steps)]
    return [*(sigma_from_r(VP, r) for r in times), 0.0]
