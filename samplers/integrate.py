"""The only loop over sigmas: predict, tell, step.

Every sampler is this loop with another transition; the transition's scalars are computed once,
before the first call of the model.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from .interpolant import LINEAR, VE, Interpolant, sigma_from_r
from .transition import Coefficients, Transition, step

__all__ = ["integrate"]


def integrate(
    model: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: Sequence[float] | Tensor,
    transition: Transition,
    noise: Callable[[int], Tensor],
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    coordinates: Interpolant = LINEAR,
) -> Tensor:
    """Carry states along a list of sigmas, one model call per step.

    Args:
        model: model(x, sigma) returns the prediction D of the clean latent, shape of x.
        x: States at sigmas[0], shape (B, C, *S). Not modified.
        sigmas: N + 1 sigmas, in any direction; a tensor is read as floats.
        transition: How to step.
        noise: noise(i) returns standard normal noise like x for step i; called only when step i
            needs it.
        callback: callback(i, x, D), called after each prediction and before the step.
        coordinates: Those of x, sigmas and the model: LINEAR, or VE for x = x0 + sigma eps.

    Returns:
        States at the last sigma, shape and dtype of x; x itself if there is no step.

    Raises:
        ValueError: A sigma outside [0, 1], or one the transition cannot handle.
    """
    # one transfer, not one per sigma, where they lie on a GPU
    times = sigmas.cpu() if isinstance(sigmas, Tensor) else sigmas
    table = [_row(transition, float(s), float(t), coordinates) for s, t in pairwise(times)]
    for i, row in enumerate(table):
        # at sigma 0 the state is the clean latent: nothing to predict
        denoised = model(x, row.sigma) if row.sigma > 0.0 else x
        if callback is not None:
            callback(i, x, denoised)
        x = step(x, denoised, row, noise(i) if row.needs_noise else None)
    return x


def _row(transition: Transition, sigma: float, sigma_next: float, path: Interpolant) -> Coefficients:
    if path is VE:
        linear = sigma_from_r(VE, sigma), sigma_from_r(VE, sigma_next)
        return transition.coefficients(*linear).exploding(sigma, sigma_next)
    return transition.coefficients(sigma, sigma_next)
