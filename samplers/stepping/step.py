"""What are the scalars of one step, and what do they do to tensors?

A step is a sum of the state, predictions and noise with weights that are known before the run; the
methods (method.py) compute them. States are in linear coordinates, x = (1 - sigma) x0 + sigma eps,
or, with nearly the same weights, in variance-exploding ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Coefficients", "Inner", "check", "ends_of", "step"]


class Inner(NamedTuple):
    """One stage of a GLASS transition.

        Y <- of_y Y + of_d d,    then, but for the last stage,    d <- D(at_x x + at_y Y, sigma)

    Y starts as the fresh noise z and d as the prediction D.
    """

    of_y: float
    of_d: float
    sigma: float = 0.0
    at_x: float = 0.0
    at_y: float = 0.0


@dataclass(frozen=True)
class Coefficients:
    """The scalars of one step.

        x' = base + sigma_next (weight_d D + weight_e e + weight_z z) + sum_j past_j (D_j - D)

    where base is the host's Euler step, or D itself if lands_on_denoised, and D_j are earlier
    predictions, newest first.

    Attributes:
        sigma: Where the state is.
        sigma_next: Where it goes.
        q: Correlation of the noise kept, for reports.
        weight_d: Weight of D beyond the host's Euler; 0 for (T).
        weight_e: Weight of the state's own noise beyond the host's Euler; q - 1 for (T).
        weight_z: Weight of fresh noise; sqrt(1 - q^2) for (T).
        lands_on_denoised: The step ends at sigma 0 and is x' = D + sum_j past_j (D_j - D).
        past: Weights of the differences of earlier predictions from D.
        ahead: If not empty, the model is called at x' and the step redone: these are the weights
            of (D, D_1, ...) less the new prediction, to be added to x'.
        inner: If not empty, the stages of a GLASS transition: x' = keep x + gain Y.
        keep: See inner.
        gain: See inner.
        via: If not None, a step to a lower sigma whose prediction is x'.
        slope: The state is x = (1 - slope sigma) x0 + sigma eps: 1 in linear coordinates, 0 in
            variance-exploding ones.
        other_end: The first of past is the weight of a bridge's other end, not of an earlier
            prediction.

    Example:
        >>> Coefficients(0.8, 0.4, 0.6, weight_e=-0.4, weight_z=0.8).needs_noise
        True
    """

    sigma: float
    sigma_next: float
    q: float
    weight_d: float = 0.0
    weight_e: float = 0.0
    weight_z: float = 0.0
    lands_on_denoised: bool = False
    past: tuple[float, ...] = ()
    ahead: tuple[float, ...] = ()
    inner: tuple[Inner, ...] = ()
    keep: float = 0.0
    gain: float = 0.0
    via: "Coefficients | None" = None
    slope: float = 1.0
    other_end: bool = False

    @property
    def needs_noise(self) -> bool:
        """Whether the step wants a z."""
        return self.weight_z != 0.0 or bool(self.inner)

    def exploding(self, sigma: float, sigma_next: float) -> "Coefficients":
        """Return the same step for states y = x / (1 - sigma) = x0 + rho eps.

        The weights that multiply sigma' stay, because (1 + rho') sigma' = rho'.

        Args:
            sigma: rho before the step.
            sigma_next: rho after it.

        Returns:
            The row with slope 0.
        """
        scale, scale_next = 1.0 + sigma, 1.0 + sigma_next
        return replace(
            self,
            sigma=sigma,
            sigma_next=sigma_next,
            past=tuple(scale_next * weight for weight in self.past),
            ahead=tuple(scale_next * weight for weight in self.ahead),
            inner=tuple(_exploding(stage, scale) for stage in self.inner),
            keep=self.keep * scale_next / scale,
            gain=self.gain * scale_next,
            via=self.via
            and self.via.exploding(sigma, self.via.sigma_next / (1.0 - self.via.sigma_next)),
            slope=0.0,
        )


def _exploding(stage: Inner, scale: float) -> Inner:
    # the model's state grows by 1 / (1 - sigma*), the outer state by `scale`
    own = 1.0 / (1.0 - stage.sigma)
    return Inner(
        stage.of_y, stage.of_d, stage.sigma * own, stage.at_x * own / scale, stage.at_y * own
    )


def step(
    x: Tensor,
    denoised: Tensor,
    coefficients: Coefficients,
    z: Tensor | None,
    past: Sequence[Tensor] = (),
) -> Tensor:
    """Take one step that needs no further prediction; every row of a batch takes the same.

        d = (x - D) / sigma,    host_euler = x + d (sigma' - sigma),    e = d + slope D

    Half-precision states are stepped in float32, as the host does.

    Args:
        x: State at sigma, shape (B, C, *S).
        denoised: Prediction D of the clean latent, shape of x.
        coefficients: The step's scalars; without ahead, inner and via.
        z: Standard normal like x, drawn by the caller; None if coefficients.needs_noise is False.
        past: Earlier predictions like x, newest first, at least as many as coefficients.past.

    Returns:
        The state at sigma_next; shape, dtype and device of x.

    Raises:
        ValueError: Shapes differ, or noise or an earlier prediction is missing.

    Example:
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> x, denoised = torch.tensor([[1.0]]), torch.tensor([[0.5]])
        >>> step(x, denoised, ODE.coefficients(0.8, 0.4), None)
        tensor([[0.7500]])
    """
    check(x, denoised, coefficients, z, past)
    dtype = torch.promote_types(x.dtype, torch.float32)
    denoised = denoised.to(dtype)
    moved = _step(x.to(dtype), denoised, coefficients, z)
    for weight, earlier in zip(coefficients.past, past, strict=False):
        moved = moved + (earlier.to(dtype) - denoised) * weight
    return moved.to(x.dtype)


def check(
    x: Tensor,
    denoised: Tensor,
    coefficients: Coefficients,
    z: Tensor | None,
    past: Sequence[Tensor],
) -> None:
    """Refuse tensors that do not fit a step.

    Args:
        x: State.
        denoised: Prediction.
        coefficients: The step.
        z: Noise or None.
        past: Earlier predictions.

    Raises:
        ValueError: Shapes differ, or noise or an earlier prediction is missing.
    """
    given = [t for t in (x, denoised, z, *past) if t is not None]
    if any(t.shape != x.shape for t in given):
        shapes = [tuple(t.shape) for t in given]
        raise ValueError(f"state, predictions and noise must have one shape, got {shapes}")
    if coefficients.needs_noise and z is None:
        raise ValueError(
            f"the step from sigma {coefficients.sigma} to {coefficients.sigma_next} keeps only "
            f"{coefficients.q:.4f} of its noise; pass standard normal noise like x"
        )
    if len(past) < len(coefficients.past):
        raise ValueError(
            f"the step uses {len(coefficients.past)} earlier predictions and got {len(past)}; "
            "compute its coefficients for those that there are"
        )


def ends_of(coefficients: Coefficients, other_end: Tensor | None) -> list[Tensor]:
    """Return what a step takes before its earlier predictions: a bridge's other end, or nothing.

    Args:
        coefficients: The step.
        other_end: The source of each row or its prediction, like x; None where there is none.

    Returns:
        None or one tensor.

    Raises:
        ValueError: The step goes by its other end, and there is none.

    Example:
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> ends_of(ODE.coefficients(0.8, 0.4), torch.ones(1))
        []
    """
    if not coefficients.other_end:
        return []
    if other_end is None:
        raise ValueError(
            f"the step of a bridge from {coefficients.sigma} to {coefficients.sigma_next} goes by "
            "its other end as well; pass the source, or what predicts it"
        )
    return [other_end]


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
