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
from .method import BRIDGES, LAST_STEPS, METHODS, Method, exact
from .step import Coefficients, step

__all__ = [
    "BRIDGES",
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
        method: Key of METHODS, or of BRIDGES for a model of a Brownian bridge, with the law ode.
        interpolant: Path in whose coordinates euler_maruyama steps; "linear" otherwise.
        last: Key of LAST_STEPS: what the step to sigma 0 is; other than "denoised" only for
            second_order and bridge_second_order.
        inner_evaluations: Model calls of a glass transition, the one that its start had included.
        noise_scale: s of the bridge that the model was trained on, 0 to 100; 1 of any other method.
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
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        """Refuse combinations that have no meaning."""
        if self.method not in METHODS and not self.is_bridge:
            known = ", ".join([*METHODS, *BRIDGES])
            raise ValueError(f"unknown transition method {self.method!r}; choose one of: {known}")
        _check_bridge(self)
        named(self.interpolant)
        if self.method != "euler_maruyama" and self.interpolant != "linear":
            raise ValueError(
                f"the {self.method} transition is the same on every interpolant, so it takes none "
                f"(got {self.interpolant!r}); choose sigmas in {self.interpolant} time instead, or "
                "the method euler_maruyama"
            )
        if self.last not in LAST_STEPS or (
            self.last != "denoised" and not self.method.endswith("second_order")
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

    @property
    def is_bridge(self) -> bool:
        """Whether it is of a model between two densities."""
        return self.method in BRIDGES

    @property
    def spec(self) -> Method:
        """The method's row of METHODS or BRIDGES."""
        return BRIDGES[self.method] if self.is_bridge else METHODS[self.method]

    @property
    def memory(self) -> int:
        """How many earlier predictions a step uses."""
        return self.spec.memory

    def calls(self, sigma_next: float) -> int:
        """Return how often a step may call the model beyond the prediction at its start.

        Args:
            sigma_next: Where the step goes.

        Returns:
            1 for heun; inner_evaluations - 1 for glass, but none on the last step, and none where
            the law keeps all noise; else 0. What guidance evaluates comes to it.
        """
        inner = self.spec.calls - 1
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
        before = tuple(map(float, past[: self.memory]))
        return _row(self, float(sigma), float(sigma_next), before)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that from_json() reads."""
        return {
            "law": self.law.to_json(),
            "method": self.method,
            "interpolant": self.interpolant,
            "last": self.last,
            "inner_evaluations": self.inner_evaluations,
            **({"guidance": self.guidance.to_json()} if self.guidance is not None else {}),
            **({"noise_scale": self.noise_scale} if self.is_bridge else {}),
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
        keys = ("law", "method", "interpolant", "last", "inner_evaluations")
        keys += ("noise_scale", "guidance")
        if set(data) - set(keys) or "law" not in data:
            raise ValueError(f"a transition has the keys {', '.join(keys)}; got {sorted(data)}")
        rest = {key: data[key] for key in keys[1:-1] if key in data}
        steered = data.get("guidance")
        guidance = None if steered is None else Guidance.from_json(steered)
        return cls(NoiseLaw.from_json(data["law"]), **rest, guidance=guidance)


def _check_bridge(transition: Transition) -> None:
    scale, law, guidance = transition.noise_scale, transition.law, transition.guidance
    if not transition.is_bridge:
        if scale != 1.0:
            raise ValueError(
                f"noise_scale {scale} is of bridges; leave it at 1 for {transition.method}, or "
                f"choose one of: {', '.join(BRIDGES)}"
            )
        return
    if not 0.0 <= scale <= 100.0:
        raise ValueError(
            f"the noise scale of a bridge is {scale}; it must be between 0 (no noise) and 100, and "
            "what the model was trained with"
        )
    if law.name != "ode":
        raise ValueError(
            f"a bridge brings its own noise, and the law {law.name} is of models from noise; "
            "choose the law ode, and the noise scale that the model was trained with"
        )
    if guidance is not None and guidance.ascends:
        raise ValueError(
            f"the guidance {guidance.method} turns the noise that a run starts from, and a bridge "
            "starts from its source; choose another guidance method"
        )


@lru_cache(maxsize=4096)
def _row(
    transition: Transition, sigma: float, sigma_next: float, past: tuple[float, ...]
) -> Coefficients:
    q = transition.law.q(sigma, sigma_next)
    if sigma == 0.0 and not transition.is_bridge:  # there is no noise to keep
        return exact(sigma, sigma_next, 0.0)
    run = run_of(sigma, sigma_next, past)
    return transition.spec.row(transition, sigma, sigma_next, q, run)


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
