"""The only loop over sigmas: predict, tell, step.

Every sampler is this loop with another transition; the transition's scalars are computed once,
before the first call of the model. advance() is one step of any method, which a search takes too.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..paths.interpolant import LINEAR, VE, Interpolant, sigma_from_r
from .step import Coefficients, check, step
from .transition import METHODS, Transition

__all__ = ["advance", "integrate", "row"]

Model = Callable[[Tensor, float], Tensor]


def row(
    transition: Transition,
    sigma: float,
    sigma_next: float,
    past: Sequence[float] = (),
    coordinates: Interpolant = LINEAR,
) -> Coefficients:
    """Return the scalars of one step in the coordinates of a model.

    Args:
        transition: How to step.
        sigma: Where the state is, in the model's coordinates.
        sigma_next: Where it goes.
        past: Sigmas of earlier predictions, newest first.
        coordinates: LINEAR, or VE for states x = x0 + sigma eps.

    Returns:
        The step's row.

    Raises:
        ValueError: A sigma that the coordinates or the transition cannot have.

    Example:
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> row(ODE, 0.8, 0.4).q
        1.0
    """
    if coordinates is not VE:
        return transition.coefficients(sigma, sigma_next, past)
    start, end, *before = (sigma_from_r(VE, s) for s in (sigma, sigma_next, *past))
    return transition.coefficients(start, end, before).exploding(sigma, sigma_next)


def advance(
    model: Model,
    x: Tensor,
    denoised: Tensor,
    coefficients: Coefficients,
    z: Tensor | None,
    past: Sequence[Tensor] = (),
) -> Tensor:
    """Take one step of any method.

    Args:
        model: model(x, sigma) returns the prediction; called as often as the step needs.
        x: State at coefficients.sigma, shape (B, C, *S).
        denoised: Prediction there.
        coefficients: The step's scalars.
        z: Standard normal like x, or None where the step needs none.
        past: Earlier predictions, newest first.

    Returns:
        The state at coefficients.sigma_next, like x.

    Raises:
        ValueError: Shapes differ, or noise or an earlier prediction is missing.

    Example:
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> x, data = torch.ones(1, 1), torch.zeros(1, 1)
        >>> advance(lambda x, sigma: data, x, data, row(ODE, 1.0, 0.25), None)
        tensor([[0.2500]])
    """
    if coefficients.via is not None:
        look = coefficients.via
        return model(step(x, denoised, look, None, past), look.sigma_next)
    if coefficients.inner and z is not None:
        check(x, denoised, coefficients, z, past)
        return _glass(model, x, denoised, coefficients, z)
    moved = step(x, denoised, coefficients, z, past)
    if coefficients.ahead:
        seen = model(moved, coefficients.sigma_next)
        for weight, known in zip(coefficients.ahead, (denoised, *past), strict=False):
            moved = moved + (known - seen).to(moved) * weight
    return moved


def _glass(
    model: Model, x: Tensor, denoised: Tensor, coefficients: Coefficients, z: Tensor
) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    wide, y = x.to(dtype), z.to(x.device, dtype)
    for stage in coefficients.inner:
        y = y * stage.of_y + denoised.to(dtype) * stage.of_d
        if stage.sigma > 0.0:
            denoised = model((wide * stage.at_x + y * stage.at_y).to(x.dtype), stage.sigma)
    return (wide * coefficients.keep + y * coefficients.gain).to(x.dtype)


def integrate(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    transition: Transition,
    noise: Callable[[int], Tensor],
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    coordinates: Interpolant = LINEAR,
) -> Tensor:
    """Carry states along a list of sigmas.

    Args:
        model: model(x, sigma) returns the prediction D of the clean latent, shape of x.
        x: States at sigmas[0], shape (B, C, *S). Not modified.
        sigmas: N + 1 sigmas, in any direction; a tensor is read as floats.
        transition: How to step.
        noise: noise(i) returns standard normal noise like x for step i; called only when step i
            needs it.
        callback: callback(i, x, D), called after each step's first prediction.
        coordinates: Those of x, sigmas and the model: LINEAR, or VE for x = x0 + sigma eps.

    Returns:
        States at the last sigma, shape and dtype of x; x itself if there is no step.

    Raises:
        ValueError: A sigma outside [0, 1], or one the transition cannot handle.

    Example:
        >>> from flowsearch.samplers.paths.sigmas import uniform
        >>> from flowsearch.samplers.stepping.noise import keyed_normal
        >>> from flowsearch.samplers.stepping.transition import fixed_q
        >>> noise = keyed_normal((2, 3), 7)
        >>> def model(x, sigma):  # the exact denoiser of data N(0, 1)
        ...     return x * (1 - sigma) / ((1 - sigma) ** 2 + sigma**2)
        >>> def fresh(i):
        ...     return keyed_normal((2, 3), 7, i)
        >>> integrate(model, noise, uniform(4), fixed_q(0.8), fresh).shape
        torch.Size([2, 3])
    """
    # one transfer, not one per sigma, where they lie on a GPU
    times = [float(s) for s in (sigmas.cpu() if isinstance(sigmas, Tensor) else sigmas)]
    memory = METHODS[transition.method].memory
    table = [
        row(transition, s, s_next, times[max(0, i - memory) : i][::-1], coordinates)
        for i, (s, s_next) in enumerate(pairwise(times))
    ]
    past: list[Tensor] = []
    for i, coefficients in enumerate(table):
        # at sigma 0 the state is the clean latent: nothing to predict
        denoised = model(x, coefficients.sigma) if coefficients.sigma > 0.0 else x
        if callback is not None:
            callback(i, x, denoised)
        z = noise(i) if coefficients.needs_noise else None
        x = advance(model, x, denoised, coefficients, z, past)
        past = [denoised, *past][:memory]
    return x
