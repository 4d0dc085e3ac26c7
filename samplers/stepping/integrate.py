"""The only loop over sigmas: predict, tell, step.

Every sampler is this loop with another transition; the transition's scalars are computed once,
before the first call of the model. advance() is one step of any method, which a search takes too.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..paths.interpolant import LINEAR, VE, Interpolant, sigma_from_r
from .guidance import GradientSource
from .steering import Steering
from .step import Coefficients, check, ends_of, step
from .transition import Transition
from .two_ends import TwoEnds

__all__ = ["advance", "guided", "integrate", "row", "steering", "table"]

Model = Callable[[Tensor, float], Tensor]


def row(
    transition: Transition | TwoEnds,
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
    if isinstance(transition, TwoEnds) or transition.is_bridge:
        raise ValueError(
            "a bridge's states are no x0 + sigma eps, the coordinates of this model; choose a "
            "transition from noise"
        )
    start, end, *before = (sigma_from_r(VE, s) for s in (sigma, sigma_next, *past))
    return transition.coefficients(start, end, before).exploding(sigma, sigma_next)


def table(
    transition: Transition | TwoEnds,
    sigmas: Sequence[float],
    coordinates: Interpolant = LINEAR,
) -> list[Coefficients]:
    """Return the scalars of each step of a run.

    Args:
        transition: How to step.
        sigmas: N + 1 sigmas, in the model's coordinates.
        coordinates: See row().

    Returns:
        N rows.

    Raises:
        ValueError: See row().

    Example:
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> [one.needs_noise for one in table(ODE, [1.0, 0.5, 0.0])]
        [False, False]
    """
    memory = transition.memory
    return [
        row(transition, s, s_next, sigmas[max(0, i - memory) : i][::-1], coordinates)
        for i, (s, s_next) in enumerate(pairwise(sigmas))
    ]


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


def steering(
    transition: Transition | TwoEnds,
    source: GradientSource | None,
    rows: Sequence[int],
    model: Model,
) -> Steering | None:
    """Return what steers a transition's steps; None where it is not guided.

    Args:
        transition: How to step.
        source: Knows the gradient; None for none.
        rows: Rows of the caller's batch that are stepped.
        model: model(x, sigma) predicts these rows.

    Returns:
        The steering.

    Raises:
        ValueError: A guided transition without a source.

    Example:
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> steering(ODE, None, [0], lambda x, sigma: x) is None
        True
    """
    if transition.guidance is None:
        return None
    if source is None:
        raise ValueError(
            f"the transition is guided ({transition.guidance.method}), and here nothing knows the "
            "gradient of a reward; connect a guidance with a reward that has one, or take a "
            "transition without guidance"
        )
    return Steering(transition.guidance, source, rows, model)


def guided(
    model: Model,
    x: Tensor,
    denoised: Tensor,
    coefficients: Coefficients,
    z: Tensor | None,
    past: Sequence[Tensor],
    steer: Steering | None,
) -> tuple[Tensor, Tensor]:
    """Take one step of any method, under guidance if there is any.

    Args:
        model: See advance().
        x: State.
        denoised: Prediction there.
        coefficients: The step's scalars.
        z: Standard normal like x, or None where the step needs none.
        past: Earlier predictions, newest first, as this returned them.
        steer: What steers; None for nothing.

    Returns:
        The state at coefficients.sigma_next, and the prediction that the step was taken with, which
        is what a method with memory remembers.

    Raises:
        ValueError: See advance().

    Example:
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> x, data = torch.ones(1, 1), torch.zeros(1, 1)
        >>> guided(lambda x, sigma: data, x, data, row(ODE, 1.0, 0.25), None, [], None)
        (tensor([[0.2500]]), tensor([[0.]]))
    """
    if steer is None:
        return advance(model, x, denoised, coefficients, z, past), denoised
    used, z = steer.prepared(x, denoised, coefficients, z)
    return advance(steer.model(coefficients), x, used, coefficients, z, past), used


def integrate(
    model: Model,
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    transition: Transition | TwoEnds,
    noise: Callable[[int], Tensor],
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    coordinates: Interpolant = LINEAR,
    source: GradientSource | None = None,
    other_end: Model | None = None,
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
        source: Knows the gradient, for a transition that is guided; else it is not asked.
        other_end: other_end(x, t) returns the prediction S of a bridge's source, or the source
            itself; asked after the model where a step goes by it.

    Returns:
        States at the last sigma, shape and dtype of x; x itself if there is no step.

    Raises:
        ValueError: A sigma outside [0, 1], or one the transition cannot handle; a guided transition
            without a source, or a step of a bridge that lacks its other end.
        GradientError: A gradient is not finite.

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
    memory = transition.memory
    steps = table(transition, times, coordinates)
    past: list[Tensor] = []
    steer = steering(transition, source, range(x.shape[0]), model)
    if steer is not None and steps:
        x = _ascended(model, x, steps[0], steer, transition)
    for i, coefficients in enumerate(steps):
        # at sigma 0 the state is the clean latent: nothing to predict
        denoised = model(x, coefficients.sigma) if coefficients.sigma > 0.0 else x
        if callback is not None:
            callback(i, x, denoised)
        z = noise(i) if coefficients.needs_noise else None
        known: Tensor | None = None
        if coefficients.other_end and other_end is not None:
            known = other_end(x, coefficients.sigma)
        ends = ends_of(coefficients, known)
        x, used = guided(model, x, denoised, coefficients, z, [*ends, *past], steer)
        past = [used, *ends, *past][: memory * (1 + len(ends))]
    return x


def _ascended(
    model: Model,
    x: Tensor,
    first: Coefficients,
    steer: Steering,
    transition: Transition | TwoEnds,
) -> Tensor:
    """Turn the start, where that is what the guidance does."""
    guidance, sigma = transition.guidance, first.sigma
    if guidance is None or not guidance.ascends or sigma == 0.0:
        return x
    for _ in range(guidance.ascents):
        x = steer.ascent(x, model(x, sigma), sigma, first.slope)
    return x
