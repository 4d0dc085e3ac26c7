"""Which ways of stepping are there? A table: order, calls, memory, source, scalars of a step.

All but euler_maruyama are (T) of transition.py with predictions combined in other ways. BRIDGES is
the table for models between two densities (bridge.py), whose noise is no law's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ..paths.interpolant import Interpolant, named, r_from_sigma, scale, sigma_dot_linear
from ..paths.noise_law import NoiseLaw, noise_law
from .bridge import brownian, second_order_brownian
from .extrapolation import at_data, correction, prediction
from .step import Coefficients, Inner

__all__ = ["BRIDGES", "LAST_STEPS", "METHODS", "Method", "exact"]

GLIMPSE = 0.25  # heun's last call is at this share of the last sigma

LAST_STEPS = {
    "denoised": "the last prediction, D",
    "extrapolated": "predictions extrapolated to sigma 0: finer detail, needs 8 steps or more",
}


class Settings(Protocol):
    """What a method's row reads of a Transition."""

    @property
    def law(self) -> NoiseLaw: ...
    @property
    def interpolant(self) -> str: ...
    @property
    def last(self) -> str: ...
    @property
    def inner_evaluations(self) -> int: ...
    @property
    def noise_scale(self) -> float: ...


def exact(sigma: float, sigma_next: float, q: float) -> Coefficients:
    """Return the row of (T)."""
    if sigma_next == 0.0 and q != 1.0:
        return Coefficients(sigma, sigma_next, q, lands_on_denoised=True)
    fresh = math.sqrt((1.0 - q) * (1.0 + q))
    return Coefficients(sigma, sigma_next, q, weight_e=q - 1.0, weight_z=fresh)


def _exact_row(
    _transition: Settings, sigma: float, sigma_next: float, q: float, _past: tuple[float, ...]
) -> Coefficients:
    return exact(sigma, sigma_next, q)


def _second_order_row(
    transition: Settings, sigma: float, sigma_next: float, q: float, past: tuple[float, ...]
) -> Coefficients:
    """Return (T) with D extrapolated through the last three predictions.

    The step before is first redone with the prediction at its end, from the same states and noise:
    a corrector without a call of its own.
    """
    row = exact(sigma, sigma_next, q)
    if sigma == sigma_next or not past:
        return row
    nodes = (sigma, *past[:2])
    if sigma_next == 0.0:
        weights = at_data(nodes) if transition.last == "extrapolated" else ()
        return replace(row, lands_on_denoised=True, past=tuple(weights))
    law = transition.law
    ahead = prediction(law, sigma, sigma_next, nodes)
    redone = correction(law, past[0], sigma, past[:3], nodes)
    carried = q * sigma_next / sigma  # weight of the state in the step
    ahead += [0.0] * (len(redone) - len(ahead))
    return replace(row, past=tuple(a + carried * b for a, b in zip(ahead, redone, strict=True)))


def _heun_row(
    transition: Settings, sigma: float, sigma_next: float, q: float, past: tuple[float, ...]
) -> Coefficients:
    """Return (T) with D extrapolated, then redone with the prediction at its end."""
    nodes = (sigma, *past[:1])
    if sigma_next == 0.0:
        middle = GLIMPSE * sigma
        weights = prediction(noise_law("ode"), sigma, middle, nodes)
        look = replace(exact(sigma, middle, 1.0), past=tuple(weights))
        return Coefficients(sigma, 0.0, q, via=look)
    row = exact(sigma, sigma_next, q)
    if sigma == sigma_next:
        return row
    law = transition.law
    weights = prediction(law, sigma, sigma_next, nodes)
    redone = correction(law, sigma, sigma_next, nodes, (sigma_next, *nodes))
    return replace(row, past=tuple(weights), ahead=tuple(redone))


def _glass_row(
    transition: Settings, sigma: float, sigma_next: float, q: float, _past: tuple[float, ...]
) -> Coefficients:
    """Return a draw from p(x' | x) for noise of correlation q, by an inner ODE of M calls.

        x' = gamma x + (1 - sigma') Y,    Y = a x0 + b n,    n: the fresh noise,
        a = s A,  b = 1 - s + s B,    gamma = q sigma' / sigma,  A = 1 - q rho' / rho,
        B = rho' sqrt(1 - q^2)

    with s from 0 to 1. x and Y together say as much of x0 as a state at 1 / rho*^2 = 1 / rho^2 +
    a^2 / b^2, where the model is called. M = 1 is (T).

    Source: Holderrieth et al. 2025, arXiv:2509.25170.
    """
    stages = transition.inner_evaluations
    if sigma_next == 0.0 or q == 1.0 or stages == 1:
        return exact(sigma, sigma_next, q)
    keep = q * sigma_next / sigma
    rho_next = sigma_next / (1.0 - sigma_next) if sigma_next < 1.0 else math.inf
    if math.isinf(rho_next):
        return exact(sigma, sigma_next, q)  # nothing of the picture is left to be sampled
    of_data = 1.0 - keep * (1.0 - sigma) / (1.0 - sigma_next)
    of_noise = rho_next * math.sqrt((1.0 - q) * (1.0 + q))
    known = ((1.0 - sigma) / sigma) ** 2  # 1 / rho^2
    inner: list[Inner] = []
    a, b = 0.0, 1.0
    for stage in range(1, stages + 1):
        s = stage / stages
        a_next, b_next = s * of_data, 1.0 - s + s * of_noise
        ratio = b_next / b
        gain = a_next - a * ratio
        a, b = a_next, b_next
        if stage == stages:
            inner.append(Inner(ratio, gain))
            break
        precision = known + (a / b) ** 2
        at = 1.0 / (1.0 + math.sqrt(precision))  # sigma*, with 1 - sigma* = sqrt(precision) sigma*
        share = (1.0 - at) / precision
        at_x = share * (1.0 - sigma) / sigma**2
        inner.append(Inner(ratio, gain, at, at_x, share * a / b**2))
    return Coefficients(sigma, sigma_next, q, inner=tuple(inner), keep=keep, gain=1.0 - sigma_next)


def _euler_maruyama_row(
    transition: Settings, sigma: float, sigma_next: float, _q: float, _past: tuple[float, ...]
) -> Coefficients:
    """Return the row of Euler-Maruyama in the interpolant's coordinates, y = c x.

        y' = y + (alpha_dot D + sigma_dot e) (r' - r) - eps e / sigma_r |r' - r|
               + sqrt(2 eps |r' - r|) z

    Its last step is the prediction, because its fresh noise would be that of the whole step,
    however small the data's standard deviation.

    Source: Kim et al. 2025, arXiv:2503.19385, eqs. (7) and (9), g^2 = 2 eps.
    """
    if sigma_next == 0.0:
        return exact(sigma, sigma_next, 0.0)
    path = named(transition.interpolant)
    r, r_next = r_from_sigma(path, sigma), r_from_sigma(path, sigma_next)
    eps = _diffusion(transition.law, path, r, sigma)
    if not (math.isfinite(eps) and math.isfinite(r) and math.isfinite(r_next)):
        raise ValueError(
            f"Euler-Maruyama with the law {transition.law.name} on the {path.name} interpolant is "
            f"infinite between sigma {sigma} and {sigma_next}; start below 1 (vp and ve: at their "
            "own noise end, as that interpolant's list of sigmas does) or use the exact transition"
        )
    h, length = r_next - r, abs(r_next - r)
    of_d = path.alpha(r) + path.alpha_dot(r) * h
    of_e = path.sigma(r) + path.sigma_dot(r) * h - eps / path.sigma(r) * length
    of_z = math.sqrt(2.0 * eps * length)
    c_next = scale(path, r_next) * sigma_next
    return Coefficients(
        sigma,
        sigma_next,
        of_e / math.hypot(of_e, of_z),
        weight_d=(of_d - path.alpha(r_next)) / c_next,
        weight_e=of_e / c_next - 1.0,
        weight_z=of_z / c_next,
    )


def _diffusion(law: NoiseLaw, path: Interpolant, r: float, sigma: float) -> float:
    """Convert a law's linear-path eps to the path's time: eps_r = eps sigma' c^2, with dr and y."""
    if math.isinf(r):
        return math.inf
    return law.diffusion(sigma) * sigma_dot_linear(path, r) * scale(path, r) ** 2


def _bridge_row(
    transition: Settings, sigma: float, sigma_next: float, _q: float, _past: tuple[float, ...]
) -> Coefficients:
    return brownian(transition.noise_scale, sigma, sigma_next)


def _bridge_second_order_row(
    transition: Settings, sigma: float, sigma_next: float, _q: float, past: tuple[float, ...]
) -> Coefficients:
    scale, last = transition.noise_scale, transition.last
    return second_order_brownian(scale, sigma, sigma_next, past, last)


_Row = Callable[[Settings, float, float, float, tuple[float, ...]], Coefficients]


@dataclass(frozen=True)
class Method:
    """A way of stepping.

    Attributes:
        summary: One sentence for users.
        row: Computes a step's coefficients from transition, sigma, sigma_next, q and past.
        order: Weak order of convergence in the step for an SDE.
        calls: Model calls a step; glass makes inner_evaluations.
        memory: How many earlier predictions it uses.
        source: Where it comes from.

    Example:
        >>> {name: method.order for name, method in METHODS.items() if method.calls == 1}
        {'second_order': 2, 'exact': 1, 'euler_maruyama': 1}
    """

    summary: str
    row: _Row
    order: int
    calls: int = 1
    memory: int = 0
    source: str = ""


METHODS: dict[str, Method] = {
    "second_order": Method(
        "one call a step, predictions extrapolated and corrected through the last three: the most "
        "accurate for its cost",
        _second_order_row,
        order=2,
        memory=3,
        source="this project; see extrapolation.py",
    ),
    "exact": Method(
        "one call a step, the exact law of the SDE for one prediction; with law ode ComfyUI's "
        "euler to the bit",
        _exact_row,
        order=1,
        source="Song et al. 2021, arXiv:2010.02502",
    ),
    "heun": Method(
        "two calls a step, each step redone with the prediction at its end",
        _heun_row,
        order=2,
        calls=2,
        memory=1,
        source="stochastic Heun, exponential; Gonzalez et al. 2023, arXiv:2305.14267, for the kind",
    ),
    "glass": Method(
        "inner_evaluations calls a step, which sample the clean picture instead of using its mean: "
        "long steps with a fixed correlation, for searching",
        _glass_row,
        order=1,
        calls=4,
        source="Holderrieth et al. 2025, arXiv:2509.25170",
    ),
    "euler_maruyama": Method(
        "one call a step, as published code steps, for comparison; needs many steps",
        _euler_maruyama_row,
        order=1,
        source="Kim et al. 2025, arXiv:2503.19385, eqs. (7) and (9)",
    ),
}

BRIDGES: dict[str, Method] = {
    "bridge": Method(
        "of a Brownian bridge between two densities, one call a step: exact for one prediction",
        _bridge_row,
        order=1,
        source="Tan et al. 2025, arXiv:2511.23199, for noise scale 1",
    ),
    "bridge_second_order": Method(
        "of a Brownian bridge, one call a step, predictions extrapolated and corrected through the "
        "last two",
        _bridge_second_order_row,
        order=2,
        memory=2,
        source="this project; see bridge.py",
    ),
}
