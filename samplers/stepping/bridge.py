"""How does a state get from one time of a Brownian bridge to another?

Of the linear Brownian bridge of scale s, x = (1 - t) x0 + t x1 + s sqrt(t (1 - t)) z, the SDE with
the bridge's own noise, eps = s^2 / 2, needs a network for D = E[x0 | x] alone:

    x' = (t' / t) x + (1 - t' / t) D + s sqrt(t' (t - t') / t) z                        (B)

downward, exact for a frozen D: the host's Euler step plus noise, whatever x1 was. Upward it is
pinned at the source instead, whatever D is. The last step of either is its end, without noise.
Second order takes D linear in t through the last two predictions, and redoes the step before with
the prediction at its end. Bridges on other paths and with other diffusions: two_ends.py.

Source: (B) is the step of ViBT, Tan et al. 2025, arXiv:2511.23199, for s = 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from .step import Coefficients

__all__ = ["Share", "brownian", "multistep", "row_between", "second_order_brownian"]

Share = Callable[[float, float], float]


def brownian(scale: float, t: float, t_next: float) -> Coefficients:
    """Return the row of (B).

    Args:
        scale: s, the bridge's noise.
        t: Where the state is.
        t_next: Where it goes. Above t the row takes the source as its other end.

    Returns:
        The row; its q is the correlation of the bridge's noise before and after.
    """
    if t_next == 0.0:
        return Coefficients(t, 0.0, 0.0, lands_on_denoised=True)
    if t_next > t:  # pinned at the source
        keep = (1.0 - t_next) / (1.0 - t)
        noise = scale * math.sqrt((t_next - t) * keep)
        q = math.sqrt(keep * t / t_next)
        return row_between(t, t_next, q, keep, (0.0, 1.0 - keep), noise)
    q = math.sqrt(t_next * (1.0 - t) / (t * (1.0 - t_next))) if t_next < t else 1.0
    return Coefficients(t, t_next, q, weight_z=scale * math.sqrt((t - t_next) / (t * t_next)))


def second_order_brownian(
    scale: float, t: float, t_next: float, past: Sequence[float], last: str = "denoised"
) -> Coefficients:
    """Return (B) with D linear in t through the last two predictions, the step before redone.

    Args:
        scale: s, the bridge's noise.
        t: Where the state is.
        t_next: Where it goes.
        past: Times of earlier predictions that lead straight here, newest first; two are used.
        last: "denoised" or "extrapolated": what the step to t = 0 is.

    Returns:
        The row.
    """
    row = brownian(scale, t, t_next)
    if t_next >= t or not past:
        return row

    def share(start: float, end: float) -> float:
        return end - start + end * math.log(start / end)

    weights = multistep(share, t_next / t, t, t_next, past, last)
    return replace(row, past=weights)


def multistep(
    share: Share, carried: float, t: float, t_next: float, past: Sequence[float], last: str
) -> tuple[float, ...]:
    """Return the weights of D_j - D_0 for an end that is linear in t.

    Args:
        share: share(a, b) is what a step from a to b has of an end that is u - a at time u.
        carried: Weight of the state in the step.
        t: Where the state is.
        t_next: Where it goes.
        past: Times of earlier predictions, newest first, at least one.
        last: What the step to t = 0 is.

    Returns:
        One weight for each of up to two earlier predictions.
    """
    before = past[0]
    if t_next == 0.0:  # nothing of the state is carried
        return (t / (t - before),) if last == "extrapolated" else ()
    ahead = share(t, t_next) / (before - t)
    step = share(before, t) if carried else 0.0
    redone = step / (t - before)
    used = step / (past[1] - before) if len(past) > 1 else 0.0
    first = ahead + carried * (used - redone)
    return (first, -carried * used) if len(past) > 1 else (first,)


def row_between(
    t: float,
    t_next: float,
    q: float,
    keep: float,
    of_ends: tuple[float, float],
    noise: float,
    past: Sequence[tuple[float, float]] = (),
) -> Coefficients:
    """Return a row with a second end, which stands first among the earlier predictions.

        x' = keep x + of_ends . (D, S) + noise z + sum_j (w_j (D_j - D) + v_j (S_j - S))

    Args:
        t: Where the state is.
        t_next: Where it goes.
        q: For reports.
        keep: Weight of the state.
        of_ends: Weights of D and S.
        noise: Weight of z.
        past: Pairs (w_j, v_j), newest first; the step's earlier predictions are S, D_1, S_1, ...

    Returns:
        The row.
    """
    total = of_ends[0] + of_ends[1]
    of_source = of_ends[1] - sum(v for _, v in past)
    earlier = (of_source, *(weight for pair in past for weight in pair))
    if t_next == 0.0:
        return Coefficients(t, 0.0, q, lands_on_denoised=True, past=earlier, other_end=True)
    z = noise / t_next
    if t == 0.0:  # the state is D
        slope = (1.0 - total - keep) / t_next
        return Coefficients(t, t_next, q, weight_z=z, past=earlier, slope=slope, other_end=True)
    weight_e = keep * t / t_next - 1.0
    weight_d = (total - 1.0) / t_next + 1.0 / t + weight_e * (1.0 - t) / t
    return Coefficients(t, t_next, q, weight_d, weight_e, z, past=earlier, other_end=True)
