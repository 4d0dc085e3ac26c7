"""How does the prediction change between two sigmas, judging by those made before?

In variance-exploding coordinates y = x / (1 - sigma) the transition (T) of transition.py is exact
for a D that changes on the way,

    y' = w0 y + integral of D dw + rho' sqrt(1 - q^2) z,    w(u) = q(u, sigma') rho' / rho(u)

with w from w0 at sigma to 1 at sigma'. Here D is a polynomial through known predictions, in

    g(sigma) = 1 / sqrt(1 + (rho / SCALE)^2),

in which D is exactly linear along the ODE for Gaussian data of standard deviation SCALE. g falls
from 1 at the data to 0 at noise and is even in rho at the data, as D is.

Known predictions are numbered from the newest, 0, back; weights are those of D_j - D_0, so that
none is needed for D_0. The same formulas hold upward. Linear multistep formulas with exponential
integrators: Lu et al. 2022, arXiv:2211.01095; Xue et al. 2023, arXiv:2309.05019 (with corrector);
the variable and the treatment of general noise laws are ours (docs/INTEGRATORS.md).
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from ..paths.law_table import log_rho
from ..paths.noise_law import NoiseLaw
from ..paths.quadrature import gauss_legendre

__all__ = ["at_data", "correction", "interpolation", "level", "prediction", "run_of"]

SCALE = 1.7
NODES = 16
FAR = 24.0  # in log rho; the kernel falls at least as exp(-distance)


def level(sigma: float) -> float:
    """Return g(sigma), the variable in which predictions are extrapolated.

    Args:
        sigma: Linear sigma in [0, 1].

    Returns:
        1 at sigma 0, falling to 0 at sigma 1.
    """
    signal = SCALE * (1.0 - sigma)
    return signal / math.hypot(signal, sigma)


def run_of(sigma: float, sigma_next: float, past: Sequence[float]) -> tuple[float, ...]:
    """Return those of the earlier sigmas that lead straight here, newest first.

    Args:
        sigma: Where the state is.
        sigma_next: Where it goes.
        past: Sigmas of earlier predictions, newest first.

    Returns:
        The longest beginning of past that, read backwards, goes on in the step's direction. What
        lies at 0 was noised anew, which no law describes, and ends it.
    """
    run: list[float] = []
    down = sigma_next < sigma
    for before in past:
        after = run[-1] if run else sigma
        if before in (after, 0.0) or (before > after) != down:
            break
        run.append(before)
    return tuple(run)


def interpolation(nodes: Sequence[float], at: float) -> list[float]:
    """Return the weights of the polynomial through values at `nodes`, evaluated at `at`.

    Args:
        nodes: Distinct places.
        at: Any place.

    Returns:
        One weight a node; they sum to 1.
    """
    weights: list[float] = []
    for i, own in enumerate(nodes):
        factors = [(at - other) / (own - other) for j, other in enumerate(nodes) if j != i]
        weights.append(math.prod(factors))
    return weights


def at_data(sigmas: Sequence[float]) -> list[float]:
    """Return the weights of D_j - D_0 in the prediction extrapolated to sigma 0.

    In sigma^2, for D(sigma) = x0 + O(sigma^2) along the ODE.

    Args:
        sigmas: Where predictions are known, newest first.

    Returns:
        One weight for each but the first.
    """
    return interpolation([s * s for s in sigmas], 0.0)[1:]


def prediction(
    law: NoiseLaw, sigma: float, sigma_next: float, nodes: Sequence[float]
) -> list[float]:
    """Return the weights of D_j - D_0 in a step's integral of D.

        (1 - sigma') integral of L_j(g(u)) dw(u),    L_j: the polynomial that is 1 at node j

    Args:
        law: The noise law.
        sigma: Where the state is, in (0, 1].
        sigma_next: Where it goes, in (0, 1).
        nodes: Where predictions are known, newest first.

    Returns:
        One weight for each node but the first, in linear coordinates.
    """
    levels = [level(s) for s in nodes]
    totals = [0.0] * len(nodes)
    for place, weight in _kernel(law, sigma, sigma_next):
        for j, share in enumerate(interpolation(levels, level(place))):
            totals[j] += weight * share
    return [(1.0 - sigma_next) * total for total in totals[1:]]


def correction(
    law: NoiseLaw, start: float, sigma: float, before: Sequence[float], after: Sequence[float]
) -> list[float]:
    """Return the weights of D_j - D_0 that redo the last step with the prediction at its end.

    Args:
        law: The noise law.
        start: Where that step began.
        sigma: Where it ended; D_0 is the prediction there.
        before: Sigmas of the predictions that the step used; the first is start.
        after: Sigmas of those to use now, the first is sigma, the others begin as before does.

    Returns:
        Weights for the predictions at before, in linear coordinates at sigma.
    """
    # over all of (sigma, *before), in differences from the prediction at sigma
    redone = prediction(law, start, sigma, after)
    used = prediction(law, start, sigma, before)
    total = (1.0 - sigma) * sum(weight for _, weight in _kernel(law, start, sigma))
    done = [total - sum(used), *used]
    redone += [0.0] * (len(done) - len(redone))
    return [new - old for new, old in zip(redone, done, strict=True)]


def _kernel(law: NoiseLaw, sigma: float, sigma_next: float) -> list[tuple[float, float]]:
    """Return sigmas and weights of a quadrature of dw."""
    end = log_rho(sigma_next)
    start = max(min(log_rho(sigma), end + FAR), end - FAR)
    k, q = _path(law, sigma, sigma_next)
    if math.isinf(k(sigma_next)):
        return [(sigma_next, 1.0)]  # all noise is replaced on arrival
    sign = 1.0 if start > end else -1.0
    kinks = [y for s in law.kinks if min(start, end) < (y := log_rho(s)) < max(start, end)]
    out: list[tuple[float, float]] = []
    before, kept = sigma_next, 1.0
    # outward from the step's end, so that what is kept of the noise is a running product
    for near, far in pairwise(sorted([start, end, *kinks], key=lambda y: abs(y - end))):
        panels = max(1, math.ceil(abs(far - near)))
        half = 0.5 * (far - near) / panels
        for panel in range(panels):
            middle = near + (2 * panel + 1) * half
            for x, weight in reversed(gauss_legendre(NODES)):  # by rising x
                y = middle + half * x
                place = 1.0 / (1.0 + math.exp(-y))
                kept *= q(place, before)
                before = place
                density = kept * math.exp(end - y) * (k(place) + sign)
                out.append((place, abs(half) * weight * density))
    return out


def _path(
    law: NoiseLaw, sigma: float, sigma_next: float
) -> tuple[Callable[[float], float], Callable[[float, float], float]]:
    """Return k(u) and q(u, u') between two sigmas; a law of q is taken as a constant k."""
    if law.spec.k is not None:
        return law.k, law.q
    whole = law.q(sigma, sigma_next)
    length = abs(log_rho(sigma) - log_rho(sigma_next))
    rate = -math.log(whole) / length if whole > 0.0 else math.inf
    return lambda _: rate, lambda u, v: math.exp(-rate * abs(log_rho(u) - log_rho(v)))
