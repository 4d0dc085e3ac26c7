"""How does a transition become a SAMPLER of the host?

FlowSampler scales the noise as the host's own samplers do, runs samplers.integrate in the model's
coordinates (field.py) and hands over as they do; with the ODE it is the host's Euler to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ..samplers.integrate import integrate
from ..samplers.interpolant import LINEAR
from ..samplers.transition import Transition
from .field import Field

__all__ = ["STEP", "FlowSampler"]

STEP = 1  # purpose of a draw, the last integer of its key: the noise of a sampler's step


@dataclass(frozen=True, eq=False)
class FlowSampler(comfy.samplers.Sampler):
    """A SAMPLER that draws every step from one transition.

    Attributes:
        transition: How to step; also what a search takes as its neighbourhood.
    """

    transition: Transition

    def noise(self, field: Field, step: int) -> Tensor:
        """Draw a step's fresh noise: a function of each row's own key.

        Args:
            field: The run.
            step: Which step, from 0.

        Returns:
            Noise like field.noise, in the model's scale.
        """
        return field.draw(step, STEP)

    @torch.no_grad()
    def sample(
        self,
        model_wrap: comfy.samplers.CFGGuider,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[[int, Tensor, Tensor, int], None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Sample as the host asks; see comfy.samplers.KSAMPLER.sample for the contract.

        Args:
            model_wrap: The guider.
            sigmas: N + 1 sigmas in the model's coordinates, in any direction; fewer than two:
                nothing to do.
            extra_args: model_options and seed. Not modified.
            callback: callback(step, D, x, steps) after each step's first evaluation.
            noise: Initial noise, all zero where the host disabled it.
            latent_image: Clean latent in the model's space, zeros for none.
            denoise_mask: 1 where to sample, 0 where to keep the latent.
            disable_pbar: No bar in the console.

        Returns:
            The samples; between stages (last sigma above 0) as the host's samplers hand over.

        Raises:
            ValueError: A model or sigmas it cannot serve.
        """
        latent = torch.zeros_like(noise) if latent_image is None else latent_image
        given = (sigmas, extra_args, noise, latent, denoise_mask, callback, disable_pbar)
        field = Field(model_wrap, *given)
        path = field.coordinates
        if len(sigmas) < 2:
            return latent
        if path is LINEAR and float(sigmas[-1]) >= 1.0:
            raise ValueError(
                "the sigmas end at 1 (pure noise), where the host's hand-over x / (1 - sigma) is "
                "infinite; end at 0.9999 or below, and start the next stage there"
            )
        with field.watched(len(sigmas) - 1) as tell:
            x = field.start(self.max_denoise(model_wrap, sigmas))
            noise_of = partial(self.noise, field)
            x = integrate(field.predict, x, sigmas, self.transition, noise_of, tell, path)
        return field.model_sampling.inverse_noise_scaling(sigmas[-1], x)
