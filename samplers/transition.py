"""How does a state get from one sigma to another?

    x' = alpha' D + sigma' (q e + sqrt(1 - q^2) z),    e = (x - alpha D) / sigma,   z ~ N(0, I)  (T)

For a frozen prediction D this is the exact law of every SDE with the probability flow's marginals,
in both directions of time and on every interpolant (Song et al. 2021, arXiv:2010.02502, is its
DDIM case). It is computed as

    x' = host_euler(x, D) + sigma' ((q - 1) e + sqrt(1 - q^2) z)

in the host's order of operations, so that q = 1 is the host's Euler to the bit. States are always
in linear coordinates, x = (1 - sigma) x0 + sigma eps. Euler-Maruyama in an interpolant's own
coordinates, as published code has it, is the same sum with other weights; it exists for reference.

A transition is data: a table of scalars computed once per run, one row a step. step() is the only
code that touches tensors. Which D is used (extrapolated, averaged) is the caller's business.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .interpolant import Interpolant, named, r_from_sigma, scale, sigma_dot_linear
from .noise_law import NoiseLaw, noise_law

__all__ = [
    "METHODS",
    "ODE",
    "RENOISE",
    "Coefficients",
    "Transition",
    "fixed_q",
    "step",
]


@dataclass(frozen=True)
class Coefficients:
    """The scalars of one step.

        x' = base + sigma_next (weight_d D + weight_e e + weight_z z)

    where base is the host's Euler step, or D itself if lands_on_denoised.

    Attributes:
        sigma: Where the state is.
        sigma_next: Where it goes.
        q: Correlation of the noise kept, for reports.
        weight_d: Weight of D beyond the host's Euler; 0 for (T).
        weight_e: Weight of the state's own noise beyond the host's Euler; q - 1 for (T).
        weight_z: Weight of fresh noise; sqrt(1 - q^2) for (T).
        lands_on_denoised: The step ends at sigma 0 and is x' = D.
        slope: The state is x = (1 - slope sigma) x0 + sigma eps: 1 in linear coordinates, 0 in
            variance-exploding ones.
    """

    sigma: float
    sigma_next: float
    q: float
    weight_d: float = 0.0
    weight_e: float = 0.0
    weight_z: float = 0.0
    lands_on_denoised: bool = False
    slope: float = 1.0

    @property
    def needs_noise(self) -> bool:
        """Whether step() wants a z."""
        return self.weight_z != 0.0

    def exploding(self, sigma: float, sigma_next: float) -> "Coefficients":
        """Return the same step for states y = x / (1 - sigma) = x0 + rho eps.

        All weights stay, because (1 + rho') sigma' = rho'.

        Args:
            sigma: rho before the step.
            sigma_next: rho after it.

        Returns:
            The row with slope 0.
        """
        return replace(self, sigma=sigma, sigma_next=sigma_next, slope=0.0)


@dataclass(frozen=True)
class Transition:
    """A noise law and the way of stepping; immutable, hashable, JSON both ways.

    Attributes:
        law: How much noise is kept.
        method: Key of METHODS.
        interpolant: Path in whose coordinates euler_maruyama steps; "linear" otherwise.

    Raises:
        ValueError: Unknown method or interpolant, or a combination without meaning.
    """

    law: NoiseLaw
    method: str = "exact"
    interpolant: str = "linear"

    def __post_init__(self) -> None:
        """Refuse combinations that have no meaning."""
        if self.method not in METHODS:
            raise ValueError(
                f"unknown transition method {self.method!r}; choose one of: {', '.join(METHODS)}"
            )
        named(self.interpolant)
        if self.method == "exact" and self.interpolant != "linear":
            raise ValueError(
                f"the exact transition is the same on every interpolant, so it takes none "
                f"(got {self.interpolant!r}); choose sigmas in {self.interpolant} time instead, or "
                "the method euler_maruyama"
            )
        if self.method == "euler_maruyama" and self.law.spec.k is None:
            raise ValueError(
                f"euler_maruyama integrates an SDE, and {self.law.name} belongs to none; "
                "use the method exact, or a law with a k"
            )

    def coefficients(self, sigma: float, sigma_next: float) -> Coefficients:
        """Compute the scalars of one step.

        Args:
            sigma: Where the state is, in [0, 1]. From 0 upward the step is pure re-noising.
            sigma_next: Where it goes, in [0, 1]; below, equal to or above sigma.

        Returns:
            The step's row of the table.

        Raises:
            ValueError: A sigma outside [0, 1], or one at which Euler-Maruyama is infinite.
        """
        sigma, sigma_next = float(sigma), float(sigma_next)
        q = self.law.q(sigma, sigma_next)
        # At sigma 0 there is no noise to keep; and Euler-Maruyama's last step is the prediction,
        # because its fresh noise would be that of the whole step, however small the data's std.
        if sigma == 0.0 or (sigma_next == 0.0 and self.method != "exact"):
            return _exact(sigma, sigma_next, 0.0)
        return METHODS[self.method](self, sigma, sigma_next, q)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that from_json() reads."""
        return {
            "law": self.law.to_json(),
            "method": self.method,
            "interpolant": self.interpolant,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Transition":
        """Build a transition from what to_json() returned.

        Args:
            data: The dict.

        Returns:
            The transition.

        Raises:
            ValueError: An unknown key or value.
        """
        unknown = set(data) - {"law", "method", "interpolant"}
        if unknown or "law" not in data:
            raise ValueError(
                f"a transition has the keys law, method, interpolant; got {sorted(data)}"
            )
        return cls(
            NoiseLaw.from_json(data["law"]),
            data.get("method", "exact"),
            data.get("interpolant", "linear"),
        )


def _exact(sigma: float, sigma_next: float, q: float) -> Coefficients:
    """Return the row of (T)."""
    if sigma_next == 0.0 and q != 1.0:
        return Coefficients(sigma, sigma_next, q, lands_on_denoised=True)
    fresh = math.sqrt((1.0 - q) * (1.0 + q))
    return Coefficients(sigma, sigma_next, q, weight_e=q - 1.0, weight_z=fresh)


def _exact_row(_transition: Transition, sigma: float, sigma_next: float, q: float) -> Coefficients:
    return _exact(sigma, sigma_next, q)


def _euler_maruyama_row(
    transition: Transition, sigma: float, sigma_next: float, _q: float
) -> Coefficients:
    """Return the row of Euler-Maruyama in the interpolant's coordinates, y = c x.

        y' = y + (alpha_dot D + sigma_dot e) (r' - r) - eps e / sigma_r |r' - r|
               + sqrt(2 eps |r' - r|) z

    Source: Kim et al. 2025, arXiv:2503.19385, eqs. (7) and (9), g^2 = 2 eps.
    """
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


METHODS: dict[str, Callable[[Transition, float, float, float], Coefficients]] = {
    "exact": _exact_row,
    "euler_maruyama": _euler_maruyama_row,
}

ODE = Transition(noise_law("ode"))
RENOISE = Transition(noise_law("fixed_q", q=0.0))


def fixed_q(q: float) -> Transition:
    """Return the transition that keeps correlation q of the noise, whatever the step's length.

    Args:
        q: Correlation in [0, 1]; 1 is the ODE, 0 replaces the noise.

    Returns:
        The transition.

    Raises:
        ValueError: q out of range.
    """
    return Transition(noise_law("fixed_q", q=q))


def step(x: Tensor, denoised: Tensor, coefficients: Coefficients, z: Tensor | None) -> Tensor:
    """Take one step; every row of a batch takes the same.

        d = (x - D) / sigma,    host_euler = x + d (sigma' - sigma),    e = d + slope D

    Half-precision states are stepped in float32, as the host does.

    Args:
        x: State at sigma in linear coordinates, shape (B, C, *S).
        denoised: Prediction D of the clean latent, shape of x.
        coefficients: The step's scalars.
        z: Standard normal like x, drawn by the caller; None if coefficients.needs_noise is False.

    Returns:
        The state at sigma_next; shape, dtype and device of x.

    Raises:
        ValueError: Shapes differ, or noise is missing.
    """
    if denoised.shape != x.shape or (z is not None and z.shape != x.shape):
        shapes = [tuple(t.shape) for t in (x, denoised, z) if t is not None]
        raise ValueError(f"state, prediction and noise must have one shape, got {shapes}")
    if coefficients.needs_noise and z is None:
        raise ValueError(
            f"the step from sigma {coefficients.sigma} to {coefficients.sigma_next} keeps only "
            f"{coefficients.q:.4f} of its noise; pass standard normal noise like x"
        )
    dtype = torch.promote_types(x.dtype, torch.float32)
    return _step(x.to(dtype), denoised.to(dtype), coefficients, z).to(x.dtype)


def _step(x: Tensor, denoised: Tensor, c: Coefficients, z: Tensor | None) -> Tensor:
    if c.lands_on_denoised:
        return denoised.clone()
    if c.sigma == 0.0:
        fresh = denoised * (1.0 - c.slope * c.sigma_next)
        return fresh if z is None else fresh + z.to(x) * (c.sigma_next * c.weight_z)
    # A tensor, not a float: CUDA divides by a float by multiplying with its reciprocal, and the
    # host divides by a tensor.
    d = (x - denoised) / x.new_full((1,) * x.ndim, c.sigma)
    euler = x + d * (c.sigma_next - c.sigma)
    if c.weight_d == 0.0 and c.weight_e == 0.0 and c.weight_z == 0.0:
        return euler
    change = (d + denoised if c.slope else d) * c.weight_e
    if z is not None and c.needs_noise:
        change = change + z.to(x) * c.weight_z
    if c.weight_d != 0.0:
        change = change + denoised * c.weight_d
    return euler + change * c.sigma_next
