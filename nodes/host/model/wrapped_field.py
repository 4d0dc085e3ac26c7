"""A run of the host that reaches our sampler through a wrapper of another pack.

Detail Daemon, Lying Sigma and their like are a KSAMPLER whose function calls the wrapped sampler's
function with a model that changes what it is told. So the states have been scaled already, the host
scales them back afterwards, and every prediction is the wrapper's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from .faults import checked
from .field import Field

__all__ = ["WrappedField", "wrapped_field"]


@dataclass(frozen=True, eq=False)
class WrappedField(Field):
    """A Field whose model is a wrapper's.

    Attributes:
        model: Called as model(x, sigma, **extra_args).
        x: States at the first sigma.
    """

    model: Any = None
    x: Any = None

    def start(self, at_max: bool = False) -> Tensor:
        """The states, as the host has scaled them."""
        del at_max
        return self.x

    def finish(self, x: Tensor) -> Tensor:
        """The states: the host scales them back."""
        return x

    def predict(self, x: Tensor, sigma: float) -> Tensor:
        """See Field.predict."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        given = {**self.extra_args, "model_options": self._options}
        return checked(self.model(x, x.new_full((x.shape[0],), sigma), **given), x)


def wrapped_field(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    callback: Callable[[dict[str, Any]], object] | None,
    quiet: bool,
) -> WrappedField:
    """Make the Field of what a wrapper gives.

    Args:
        model: Its model.
        x: States at the first sigma.
        sigmas: Those it wants.
        extra_args: As the host's samplers are given them.
        callback: Likewise.
        quiet: No bar in the console.

    Returns:
        The Field. The rows' noise is keyed by their initial noise where the wrapper shows it, else
        by their states, which are the noise where sampling starts from noise alone.

    Raises:
        ValueError: A wrapper that hides the model.
    """
    guider: Any = getattr(model, "inner_model", None)
    if not hasattr(guider, "inner_model"):
        raise ValueError(
            "the sampler was called by a wrapper that hides the model (no inner_model), so it "
            "cannot know in which coordinates it samples; use one of ComfyUI's with that wrapper"
        )

    def tell(step: int, denoised: Tensor, states: Tensor, steps: int) -> None:
        del steps
        if callback is not None:
            sigma = sigmas[min(step, len(sigmas) - 1)]
            callback(
                {"i": step, "x": states, "denoised": denoised, "sigma": sigma, "sigma_hat": sigma}
            )

    noise, latent = getattr(model, "noise", None), getattr(model, "latent_image", None)
    return WrappedField(
        guider,
        sigmas,
        {"model_options": {}, **extra_args},
        noise if isinstance(noise, Tensor) else x,
        latent if isinstance(latent, Tensor) else torch.zeros_like(x),
        None,
        tell,
        quiet,
        model,
        x,
    )
