"""How does a state get from one sigma to another?

    x' = alpha' D + sigma' (q e + sqrt(1 - q^2) z),    e = (x - alpha D) / sigma,   z ~ N(0, I)  (T)

For a frozen prediction D this is the exact law of every SDE with the probability flow's marginals,
in both directions of time and on every interpolant (Song et al. 2021, arXiv:2010.02502, is its
DDIM case). It is computed as

    x' = host_euler(x, D) + sigma' ((q - 1) e + sqrt(1 - q^2) z)

in the host's order of operations, so that q = 1 is the host's Euler to the bit. Methods of higher
order add multiples of the differences of predictions, earlier ones (second_order), one ahead
(heun), or replace D by an inner sample (glass). Euler-Maruyama in an interpolant's own coordinates,
as published code has it, is the same sum with other weights; it exists for reference.

States are in linear coordinates, x = (1 - sigma) x0 + sigma eps, or, with the same weights, in
variance-exploding ones. A transition is data: a table of scalars computed once per run, one row a
step. step() takes a step that needs no further call of the model; integrate.advance() takes any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..paths.interpolant import named
from ..paths.noise_law import NoiseLaw, noise_law
from .extrapolation import run_of
from .guidance import Guidance
from .method import LAST_STEPS, METHODS, exact
from .step import Coefficients, step

__all__ = [
    "LAST_STEPS",
    "METHODS",
    "ODE",
    "RENOISE",
    "Coefficients",
    "Transition",
    "fixed_q",
    "step",
]


@dataclass(frozen=True)
class Transition:
    """A noise law and the way of stepping; immutable, hashable, JSON both ways.

    Attributes:
        law: How much noise is kept.
        method: Key of METHODS.
        interpolant: Path in whose coordinates euler_maruyama steps; "linear" otherwise.
        last: Key of LAST_STEPS: what the step to sigma 0 is; other than "denoised" only for
            second_order.
        inner_evaluations: Model calls of a glass transition, the one that its start had included.
        guidance: How a reward's gradient steers; None for not at all. A step that is guided needs a
            gradient source beside its model.

    Raises:
        ValueError: Unknown method or interpolant, or a combination without meaning.

    Example:
        >>> law = noise_law("constant_k", k=1.0)
        >>> Transition(law, "heun").calls(0.5)
        1
        >>> Transition.from_json(ODE.to_json()) == ODE
        True
    """

    law: NoiseLaw
    method: str = "exact"
    interpolant: str = "linear"
    last: str = "denoised"
    inner_evaluations: int = 4
    guidance: Guidance | None = None

    def __post_init__(self) -> None:
        """Refuse combinations that have no meaning."""
        if self.method not in METHODS:
            raise ValueError(
                f"unknown transition method {self.method!r}; choose one of: {', '.join(METHODS)}"
            )
        named(self.interpolant)
        if self.method != "euler_maruyama" and self.interpolant != "linear":
            raise ValueError(
                f"the {self.method} transition is the same on every interpolant, so it takes none "
                f"(got {self.interpolant!r}); choose sigmas in {self.interpolant} time instead, or "
                "the method euler_maruyama"
            )
        if self.last not in LAST_STEPS or (
            self.last != "denoised" and self.method != "second_order"
        ):
            raise ValueError(
                f"the last step {self.last!r} of the method {self.method}: choose one of "
                f"{', '.join(LAST_STEPS)}; extrapolated needs the method second_order"
            )
        if not 1 <= self.inner_evaluations <= 100:
            raise ValueError(
                f"inner_evaluations is {self.inner_evaluations}; glass takes 1 to 100, and 1 is "
                "the exact transition"
            )
        if self.method == "euler_maruyama" and self.law.spec.k is None:
            raise ValueError(
                f"euler_maruyama integrates an SDE, and {self.law.name} belongs to none; "
                "use the method exact, or a law with a k"
            )
        if self.last != "denoised" and self.guidance is not None and self.guidance.shifts:
            raise ValueError(
                f"the last step {self.last} would extrapolate the shifts of {self.guidance.method} "
                "into the picture; choose the last step denoised, or another guidance method"
            )

    def calls(self, sigma_next: float) -> int:
        """Return how often a step may call the model beyond the prediction at its start.

        Args:
            sigma_next: Where the step goes.

        Returns:
            1 for heun; inner_evaluations - 1 for glass, but none on the last step, and none where
            the law keeps all noise; else 0. What guidance evaluates comes to it.
        """
        inner = METHODS[self.method].calls - 1
        if self.method == "glass":
            inner = self.inner_evaluations - 1 if sigma_next > 0.0 else 0
        if self.guidance is None:
            return inner
        return inner + self.guidance.price * self.guidance.gradients(1 + inner, sigma_next)

    def guided(self, guidance: Guidance | None) -> "Transition":
        """Return this transition under a guidance, or under none."""
        return self if guidance == self.guidance else replace(self, guidance=guidance)

    def coefficients(
        self, sigma: float, sigma_next: float, past: Sequence[float] = ()
    ) -> Coefficients:
        """Compute the scalars of one step.

        Args:
            sigma: Where the state is, in [0, 1]. From 0 upward the step is pure re-noising.
            sigma_next: Where it goes, in [0, 1]; below, equal to or above sigma.
            past: Sigmas of the earlier predictions that this transition stepped from, newest first;
                those that do not lead straight here are ignored.

        Returns:
            The step's row of the table.

        Raises:
            ValueError: A sigma outside [0, 1], or one at which Euler-Maruyama is infinite.
        """
        kept = METHODS[self.method].memory
        return _row(self, float(sigma), float(sigma_next), tuple(map(float, past[:kept])))

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that from_json() reads."""
        return {
            "law": self.law.to_json(),
            "method": self.method,
            "interpolant": self.interpolant,
            "last": self.last,
            "inner_evaluations": self.inner_evaluations,
            **({"guidance": self.guidance.to_json()} if self.guidance is not None else {}),
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
        keys = ("law", "method", "interpolant", "last", "inner_evaluations", "guidance")
        if set(data) - set(keys) or "law" not in data:
            raise ValueError(f"a transition has the keys {', '.join(keys)}; got {sorted(data)}")
        rest = {key: data[key] for key in keys[1:-1] if key in data}
        steered = data.get("guidance")
        guidance = None if steered is None else Guidance.from_json(steered)
        return cls(NoiseLaw.from_json(data["law"]), **rest, guidance=guidance)


@lru_cache(maxsize=4096)
def _row(
    transition: Transition, sigma: float, sigma_next: float, past: tuple[float, ...]
) -> Coefficients:
    q = transition.law.q(sigma, sigma_next)
    if sigma == 0.0:  # there is no noise to keep
        return exact(sigma, sigma_next, 0.0)
    run = run_of(sigma, sigma_next, past)
    return METHODS[transition.method].row(transition, sigma, sigma_next, q, run)


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

    Example:
        >>> fixed_q(0.6).coefficients(0.8, 0.4).weight_z
        0.8
    """
    return Transition(noise_law("fixed_q", q=q))
