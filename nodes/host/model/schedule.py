"""Which sigmas does a list on an interpolant mean in the coordinates of a model?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import comfy.model_sampling
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....samplers.paths.interpolant import (
    INTERPOLANTS,
    LINEAR,
    Interpolant,
    r_from_sigma,
    sigma_from_r,
)
from ....samplers.paths.sigmas import in_interpolant, rbf_reference, shifted
from .converted_sampling import ConvertedSampling
from .field import coordinates_of

__all__ = ["schedule"]


def _section(sigmas: list[float], shift: float, start: float, end: float) -> list[float]:
    """Shift a finished list and squeeze it, keeping its form, between end and start."""
    sigmas = [shifted(s, shift) for s in sigmas]
    top, bottom = min(start, sigmas[0]), max(end, sigmas[-1])
    if not bottom < top:
        raise ValueError(
            f"start {start} and end {end} must satisfy 0 <= end < start <= 1 (1 is pure noise), "
            f"and this list starts at {sigmas[0]:.4f}"
        )
    if (top, bottom) == (sigmas[0], sigmas[-1]):
        return sigmas
    factor = (top - bottom) / (sigmas[0] - sigmas[-1])
    return [top, *(bottom + factor * (s - sigmas[-1]) for s in sigmas[1:-1]), bottom]


def schedule(
    interpolant: str | Interpolant,
    steps: int,
    shift: float,
    start: float,
    end: float,
    scheduler: str,
    model: ModelPatcher | None = None,
) -> Tensor:
    """List sigmas in the coordinates of a model.

    Args:
        interpolant: Key of INTERPOLANTS, "host" or "rbf_reference", or an interpolant.
        steps: Number of steps, at least 1.
        shift: Time shift, applied on top of the model's own where the list is the host's.
        start: First linear sigma; a list or a model that starts lower keeps its start.
        end: Last linear sigma.
        scheduler: Name of the host's scheduler, for "host".
        model: MODEL; None for a flow model without shift.

    Returns:
        steps + 1 falling sigmas, float32, in the model's coordinates. A few of the host's
        schedulers leave out repeated ones.

    Raises:
        ValueError: A model whose coordinates are not known, or a number out of range.
    """
    own = _own_sigmas(model)
    start = min(start, own.highest)
    if isinstance(interpolant, Interpolant) or interpolant in INTERPOLANTS:
        sigmas = in_interpolant(interpolant, steps, shift, start, end)
    elif interpolant == "rbf_reference":
        sigmas = _section(rbf_reference(steps), shift, start, end)
    elif interpolant == "host":
        listed = comfy.samplers.calculate_sigmas(own.sampling, scheduler, steps).double()
        sigmas = _section(own.to_linear(listed).tolist(), shift, start, end)
    else:
        known = ", ".join(["host", *INTERPOLANTS, "rbf_reference", "curve"])
        raise ValueError(f"unknown interpolant {interpolant!r}; choose one of: {known}")
    return own.from_linear(torch.tensor(sigmas, dtype=torch.float64)).float()


class _OwnSigmas(NamedTuple):
    """A model's sigmas and the linear path's.

    Attributes:
        sampling: The host's model_sampling.
        to_linear: From the model's sigmas to linear ones.
        from_linear: Back.
        highest: Largest linear sigma of the model.
    """

    sampling: Any
    to_linear: Callable[[Tensor], Tensor]
    from_linear: Callable[[Tensor], Tensor]
    highest: float


def _own_sigmas(model: ModelPatcher | None) -> _OwnSigmas:
    sampling: Any = comfy.model_sampling.ModelSamplingDiscreteFlow()
    if model is not None:
        sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, ConvertedSampling):
        return _OwnSigmas(sampling, sampling.t_from_s, sampling.s_from_t, 1.0)
    path = LINEAR if model is None else coordinates_of(sampling)
    highest = 1.0 if path is LINEAR else sigma_from_r(path, float(sampling.sigma_max))
    return _OwnSigmas(sampling, partial(sigma_from_r, path), partial(r_from_sigma, path), highest)
