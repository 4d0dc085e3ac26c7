"""How does the gradient of a reward enter a step? A table: what is changed, by how much, source.

(T) of transition.py has three places for a gradient g of the reward with respect to D: the
prediction, the fresh noise z and the kept noise e. g is made like noise first (whitening.py), so
that a strength A means the same for every reward. It is said for the whole path: with D and g
frozen, an SDE whose noise drifts towards A g is

    e' = q e + (1 - q) A g + sqrt(1 - q^2) z,

so a step that draws fresh noise tilts it by a = A sqrt((1 - q) / (1 + q)), and two steps are one.
A may fall with the noise, as sigma^fade of the higher end of a step: what is nearly a picture is
not pushed past what it was wanted to be.

A step to sigma 0 ends with a prediction of the model, to which nothing is added.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from .step import Coefficients
from .whitening import WHITENINGS, like_rows, root_mean_square

__all__ = [
    "GUIDANCE_METHODS",
    "THROUGH",
    "GradientError",
    "GradientSource",
    "Guidance",
    "GuidanceMethod",
]

ROUNDING = 1e-6
"""A host's sigma of .8 is .80000001: by how much one may be off."""

THROUGH = {
    "prediction": "the gradient with respect to the prediction; no pass through the network",
    "network": "the gradient with respect to the state, through the network: one more evaluation "
    "and a backward pass each time",
}


class GradientError(RuntimeError):
    """A gradient that is no finite number.

    Attributes:
        row: Which row of the batch it is.
    """

    def __init__(self, row: int, sentence: str) -> None:
        """Keep the row."""
        super().__init__(sentence)
        self.row = row


class GradientSource(Protocol):
    """What knows the gradient of each row's reward with respect to that row."""

    def at(self, rows: Sequence[int], clean: Tensor) -> Tensor:
        """Return the gradient with respect to clean latents.

        Args:
            rows: Which rows of the caller's batch these are, aligned with clean.
            clean: Clean latents, shape (len(rows), C, *S).

        Returns:
            Shape of clean.
        """
        ...

    def free(self, rows: Sequence[int]) -> Tensor | None:
        """Return what may move: 1 there and 0 where a mask keeps the latent, whose gradient is 0.

        Args:
            rows: Which rows of the caller's batch these are.

        Returns:
            Shape that broadcasts to that of the rows' latents; None for all of them.
        """
        ...

    def through(self, rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """Return the gradient with respect to states, of the reward of what is predicted from them.

        Args:
            rows: Which rows of the caller's batch these are, aligned with x.
            x: States at sigma.
            sigma: In the model's own coordinates.

        Returns:
            Shape of x.
        """
        ...


@dataclass(frozen=True)
class Guidance:
    """How a reward's gradient steers; immutable, hashable, JSON both ways.

    Attributes:
        method: Key of GUIDANCE_METHODS.
        strength: A, for the whole path, above 0 and at most the method's `most`. 0.5 is a strong
            pull. twist: lam, the weight of the reward in exp(lam r).
        through: Key of THROUGH: what the gradient is taken with respect to.
        start: Steps from above this sigma are not guided (linear sigmas, 0 to 1).
        stop: Steps from below this sigma are not guided.
        look_ahead: ODE steps taken towards sigma 0 before the gradient is asked for, each one
            evaluation; 0 takes it at the prediction.
        whitening: Key of WHITENINGS.
        trust: Limit of one change, above 0: mean_shift, the shift's size in parts of the
            prediction's own deviation; twist, the length of the shift of the noise. The others are
            limited by their strength.
        ascents: start_noise: how many times the start is turned, each one evaluation.
        fade: noise_tilt: the strength at sigma is strength sigma^fade, 0 to 4; 0 is constant.

    Raises:
        ValueError: Unknown names, a value out of range, or a combination without meaning.

    Example:
        >>> Guidance.from_json(Guidance("mean_shift", 0.3).to_json())
        Guidance(method='mean_shift', strength=0.3, through='prediction', start=1.0, stop=0.0, \
look_ahead=0, whitening='scale', trust=0.25, ascents=4, fade=0.5)
    """

    method: str = "noise_tilt"
    strength: float = 0.5
    through: str = "prediction"
    start: float = 1.0
    stop: float = 0.0
    look_ahead: int = 0
    whitening: str = "scale"
    trust: float = 0.25
    ascents: int = 4
    fade: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what has no meaning."""
        for key, known in (
            ("method", GUIDANCE_METHODS),
            ("through", THROUGH),
            ("whitening", WHITENINGS),
        ):
            if getattr(self, key) not in known:
                raise ValueError(
                    f"unknown guidance {key} {getattr(self, key)!r}; choose one of: "
                    f"{', '.join(known)}"
                )
        most = GUIDANCE_METHODS[self.method].most
        if not 0.0 < self.strength <= most:
            raise ValueError(
                f"the strength of {self.method} must be above 0 and at most {most:g}, got "
                f"{self.strength}"
            )
        if not 0.0 <= self.stop <= self.start <= 1.0:
            raise ValueError(
                f"guidance acts from start down to stop, 0 <= stop <= start <= 1; got start "
                f"{self.start} and stop {self.stop}"
            )
        if not (0.0 < self.trust < math.inf):
            raise ValueError(f"trust must be above 0 and finite, got {self.trust}")
        if not 0 <= self.look_ahead <= 100 or not 1 <= self.ascents <= 1000:
            raise ValueError(
                f"look_ahead must be 0 to 100 and ascents 1 to 1000, got {self.look_ahead} and "
                f"{self.ascents}"
            )
        if not 0.0 <= self.fade <= 4.0:
            raise ValueError(
                f"fade must be 0 to 4, where 0 is a constant strength; got {self.fade}"
            )
        if self.look_ahead and self.through == "network":
            raise ValueError(
                "a look-ahead takes the gradient at the picture it comes to, not through the "
                "network; choose look_ahead 0, or through prediction"
            )

    @property
    def price(self) -> int:
        """Evaluations that one gradient takes."""
        return self.look_ahead + (self.through == "network")

    @property
    def ascends(self) -> bool:
        """Whether it acts on starts alone."""
        return GUIDANCE_METHODS[self.method].kept is not None

    @property
    def shifts(self) -> bool:
        """Whether it changes predictions, so that a step without fresh noise is guided too."""
        return GUIDANCE_METHODS[self.method].prediction is not None

    def covers(self, sigma: float) -> bool:
        """Return whether a linear sigma lies between start and stop, up to float32's rounding."""
        return self.stop - ROUNDING <= sigma <= self.start + ROUNDING

    def acts(self, coefficients: Coefficients) -> bool:
        """Return whether a step is guided at its start.

        Args:
            coefficients: The step.

        Returns:
            Whether the gradient is asked for.
        """
        sigma, after = (
            linear(s, coefficients) for s in (coefficients.sigma, coefficients.sigma_next)
        )
        method = GUIDANCE_METHODS[self.method]
        if not self.covers(max(sigma, after)):
            return False
        if method.kept is not None:
            return sigma == after > 0.0
        if method.noise is not None:
            return coefficients.needs_noise and after > 0.0
        return after < sigma and (after > 0.0 or coefficients.via is not None)

    def gradients(self, method_calls: int, sigma_next: float) -> int:
        """Return how many gradients a step asks for at most.

        Args:
            method_calls: Predictions of the step, the one at its start included.
            sigma_next: Where it goes.

        Returns:
            The number.
        """
        if self.ascends or (not self.shifts and sigma_next == 0.0):
            return 0
        if self.shifts:
            return method_calls if sigma_next > 0.0 else method_calls - 1
        return 1

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that from_json() reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Guidance":
        """Build it from what to_json() returned; what is absent takes its default.

        Args:
            data: The dict.

        Returns:
            The guidance.

        Raises:
            ValueError: An unknown key or value.
        """
        known: dict[str, type] = {}
        for field in fields(cls):
            default: object = field.default
            known[field.name] = type(default)
        wrong = sorted(
            key
            for key, value in data.items()
            if key not in known
            or isinstance(value, bool)
            or not isinstance(value, (int, float) if known[key] is float else known[key])
        )
        if wrong:
            raise ValueError(
                f"guidance has the settings {', '.join(known)}, each of its own type; got {wrong}"
            )
        return cls(**data)


def linear(sigma: float, coefficients: Coefficients) -> float:
    """Return the linear sigma of one in a step's coordinates.

    Args:
        sigma: In the coordinates of the step.
        coefficients: The step.

    Returns:
        In [0, 1].
    """
    return sigma if coefficients.slope else sigma / (1.0 + sigma)


# ---- what the methods do; g is white unless the row says raw ----


def _shifted(guidance: Guidance, sigma: float, denoised: Tensor, g: Tensor) -> Tensor:
    """Return D' = D + A sigma g, the shift at most `trust` of D's own deviation."""
    weight = guidance.strength * sigma
    most = guidance.trust * denoised.flatten(1).std(dim=1, correction=0)
    size = torch.full_like(most, max(weight, 1e-30))  # where it may move: g is white there
    held = torch.where(size > most, most / size, torch.ones_like(size))
    return denoised + g * like_rows(weight * held, g)


def _tilted(
    guidance: Guidance, coefficients: Coefficients, z: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Return z' = sqrt(1 - a^2) z + a g; a row without gradient keeps its z."""
    q = max(0.0, coefficients.q)
    sigma = max(linear(s, coefficients) for s in (coefficients.sigma, coefficients.sigma_next))
    strength = guidance.strength * sigma**guidance.fade
    tilt = strength * math.sqrt((1.0 - q) / (1.0 + q))
    mixed = z * math.sqrt(1.0 - tilt * tilt) + g * tilt
    has_any = like_rows(root_mean_square(g) > 0.0, g)
    return torch.where(has_any, mixed, z), z.new_zeros(z.shape[0], dtype=torch.float64)


def _twisted(
    guidance: Guidance, coefficients: Coefficients, z: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Return z' = z + b and log N(z'; 0, I) - log N(z'; b, I) = -b z - b^2 / 2.

    b is the standard deviation of the step times the gradient of lam r with respect to x'. Where g
    is with respect to D, dD / dx' is taken as that of data of variance 1.
    """
    sigma, after = (linear(s, coefficients) for s in (coefficients.sigma, coefficients.sigma_next))
    if guidance.through == "network":
        slope = 1.0 if coefficients.slope else 1.0 / (1.0 - sigma)
    else:
        slope = (1.0 - after) / ((1.0 - after) ** 2 + after**2)
    fresh = math.sqrt((1.0 - coefficients.q) * (1.0 + coefficients.q))
    b = g.double() * (guidance.strength * slope * after * fresh)
    length = b.flatten(1).square().sum(1).sqrt()
    b = b * like_rows((guidance.trust / length.clamp(min=1e-300)).clamp(max=1.0), b)
    b = b.to(z)  # as it is added, so that the weight is that of what was drawn
    exact, drawn = b.double().flatten(1), z.double().flatten(1)
    return z + b, -(exact * drawn).sum(1) - 0.5 * exact.square().sum(1)


def _turned(guidance: Guidance, e: Tensor, g: Tensor) -> Tensor:
    """Turn e by the angle A / ascents towards g; its norm stays."""
    angle = guidance.strength / guidance.ascents
    flat, towards = e.flatten(1), g.flatten(1)
    norm = flat.square().sum(1, keepdim=True)
    side = towards - flat * ((flat * towards).sum(1, keepdim=True) / norm.clamp(min=1e-30))
    length = side.square().sum(1, keepdim=True)
    has_any = length > 1e-12 * norm
    side = side * (norm / length.clamp(min=1e-30)).sqrt()
    turned = flat * math.cos(angle) + side * math.sin(angle)
    return torch.where(has_any, turned, flat).view_as(e)


@dataclass(frozen=True)
class GuidanceMethod:
    """A way of using a gradient; one of the three functions is there.

    Attributes:
        summary: One sentence for users.
        most: The highest strength.
        prediction: Returns D' of (guidance, linear sigma, D, g).
        noise: Returns z' and the log of target over proposal density of (guidance, step, z, g).
        kept: Returns e' of (guidance, e, g), at constant sigma, before the first step.
        raw: Whether g is given as it is, not white.
        source: Where it comes from.

    Example:
        >>> [name for name, row in GUIDANCE_METHODS.items() if row.noise]
        ['noise_tilt', 'twist']
    """

    summary: str
    most: float
    prediction: Callable[[Guidance, float, Tensor, Tensor], Tensor] | None = None
    noise: Callable[[Guidance, Coefficients, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    kept: Callable[[Guidance, Tensor, Tensor], Tensor] | None = None
    raw: bool = False
    source: str = ""


GUIDANCE_METHODS: dict[str, GuidanceMethod] = {
    "noise_tilt": GuidanceMethod(
        "fresh noise is drawn around the gradient; the law of a step stays nearly what it is, so "
        "pictures stay pictures; needs a sampler that draws noise",
        1.0,
        noise=_tilted,
        source="after NoiseTilt, 2026, arXiv:2606.18066",
    ),
    "mean_shift": GuidanceMethod(
        "predictions are shifted along the gradient; acts on every step, those of an ODE too",
        10.0,
        prediction=_shifted,
        source="Chung et al. 2022, arXiv:2209.14687; Bansal et al. 2023, arXiv:2302.07121",
    ),
    "start_noise": GuidanceMethod(
        "the start is turned towards the gradient before the first step; for few-step models",
        10.0,
        kept=_turned,
        source="Eyring et al. 2024, arXiv:2406.04312; arXiv:2602.08646 for the whitening",
    ),
    "twist": GuidanceMethod(
        "fresh noise is shifted by the gradient and the draw carries its weight, with which "
        "sequential Monte Carlo still samples the exact tilted law; for strategy smc",
        1e6,
        noise=_twisted,
        raw=True,
        source="Wu et al. 2023, arXiv:2306.17775",
    ),
}
