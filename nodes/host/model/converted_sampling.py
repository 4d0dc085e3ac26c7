"""In which coordinates must a flow model stand so that stock samplers are right for it?

The host's samplers come from k-diffusion: they are written for variance-exploding states

    x = x0 + s eps,    d = (x - D) / s,    noise fractions and log-SNR from s alone,

and branch to other formulas for flow models, some of them wrong or missing. The host shows models
that were trained on VP (SD1.5, SDXL) to samplers in these coordinates too; what makes them VP is
their schedule. ConvertedSampling does the same for a flow model: with s = noise_scale * rho and
rho = t / (1 - t),

    x_linear = (1 - t) x,    network called at t,

whatever the target; the target chooses the schedule: which rho belongs to a fraction r of the way.

    ve             t = r: the model's own schedule, seen in VE coordinates
    vp             rho of the VP interpolant (linear beta .1 to 20)
    trigonometric  rho = tan(pi r / 2)

each passed through the model's own shift, which multiplies rho. Schedulers that build their list
from its two ends (karras, exponential, kl_optimal) see only the ends of the target.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ....samplers.paths.interpolant import LINEAR, TRIGONOMETRIC, VP, Interpolant, sigma_from_r

__all__ = ["SCHEDULES", "T_MAX", "ConvertedSampling"]

SCHEDULES: dict[str, Interpolant] = {"vp": VP, "ve": LINEAR, "trigonometric": TRIGONOMETRIC}
T_MAX = 1.0 - 1e-4  # rho is infinite at 1, and most stock schedulers then give inf or NaN
BEYOND = 999999999.9  # the host's "above every sigma"


class ConvertedSampling(torch.nn.Module):
    """A flow model's `model_sampling` in variance-exploding coordinates.

    It is neither CONST, whose formulas are for flow coordinates, nor EPS, which scales the initial
    noise by sqrt(1 + s^2).

    Args:
        base: The model's own model_sampling, shift included; a CONST.
        target: Key of SCHEDULES. The host's Model Noise Scale rebuilds model_sampling without it.

    Raises:
        ValueError: Unknown target.
    """

    base: Any

    def __init__(self, base: object, target: str = "") -> None:
        if target not in SCHEDULES:
            raise ValueError(
                f"unknown interpolant {target!r}; choose one of: {', '.join(SCHEDULES)}. Where a "
                "node after Interpolant Conversion says this (Model Noise Scale does), place it "
                "before Interpolant Conversion"
            )
        super().__init__()
        # Hidden from torch: with dynamic memory the host saves and restores buffers by path, and
        # would look for those of `base` in the model when this patch is not in place.
        self.__dict__["base"] = base
        self.target = target
        self._unit = float(getattr(base, "multiplier", 1.0))
        self._scale = float(getattr(base, "noise_scale", 1.0))
        count = len(self.base.sigmas)
        self.sigmas = self._s(torch.arange(1, count + 1) / count)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Ignore the buffers of other model_sampling objects that the host restores by path.

        Args:
            name: Name of the buffer.
            tensor: Its value.
            persistent: Whether it belongs to the state dict.
        """
        if name not in ("sigmas", "log_sigmas"):
            super().register_buffer(name, tensor, persistent)

    @property
    def audio_scale(self) -> float:
        """Scale of packed audio, which newer hosts read here; only where the base has one."""
        return self.base.audio_scale

    def _s(self, r: Tensor) -> Tensor:
        """Schedule: the sampler's sigma at fraction r of the way from data to noise."""
        path = SCHEDULES[self.target]
        t = self.base.sigma(sigma_from_r(path, r * path.r_noise) * self._unit)
        return self.s_from_t(t)

    def s_from_t(self, t: Tensor) -> Tensor:
        """Convert the flow model's time to the sampler's sigma.

        Args:
            t: Linear-path time in [0, 1]; cut off at T_MAX.

        Returns:
            s = noise_scale t / (1 - t), like t.
        """
        t = t.clamp(max=T_MAX)
        return self._scale * t / (1.0 - t)

    def t_from_s(self, s: Tensor) -> Tensor:
        """Convert the sampler's sigma to the flow model's time.

        Args:
            s: At least 0, not infinite.

        Returns:
            t = s / (noise_scale + s), like s.
        """
        return s / (self._scale + s)

    @property
    def sigma_min(self) -> Tensor:
        """Smallest sigma of the schedule above 0."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> Tensor:
        """Largest sigma of the schedule."""
        return self.sigmas[-1]

    def timestep(self, sigma: Tensor) -> Tensor:
        """Return the timestep that the network is called with.

        Args:
            sigma: The sampler's.

        Returns:
            The base's timestep at the same noise-to-signal ratio.
        """
        return self.base.timestep(self.t_from_s(sigma))

    def sigma(self, timestep: Tensor) -> Tensor:
        """Return the schedule's sigma for a timestep, as `normal` and `sgm_uniform` use it.

        The network's timesteps between those of sigma_min and sigma_max are spread evenly over the
        target's own time. As in the host under shift, this is not the inverse of timestep().

        Args:
            timestep: In the units of timestep().

        Returns:
            Sigma between sigma_min and sigma_max.
        """
        first, last = self.timestep(self.sigma_min), self.timestep(self.sigma_max)
        low = 1.0 / len(self.sigmas)
        share = ((timestep - first) / (last - first)).clamp(0.0, 1.0)
        return self._s(low + (1.0 - low) * share)

    def percent_to_sigma(self, percent: float) -> float:
        """Return where a percentage of the schedule lies; ranges of prompts and ControlNets use it.

        Args:
            percent: 0 (start of sampling) to 1 (end).

        Returns:
            The sampler's sigma.
        """
        if percent <= 0.0:
            return BEYOND
        if percent >= 1.0:
            return 0.0
        return float(self._s(torch.tensor(1.0 - percent)))

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Return the network's input for the sampler's state.

        Args:
            sigma: Shape (B,), or one value.
            noise: State x = x0 + s eps.

        Returns:
            The state in linear coordinates, as the base feeds it.
        """
        return self.base.calculate_input(self.t_from_s(sigma), self._linear(sigma, noise))

    def calculate_denoised(
        self, sigma: Tensor, model_output: Tensor, model_input: Tensor
    ) -> Tensor:
        """Return the prediction of the clean latent.

        Args:
            sigma: Shape (B,), or one value.
            model_output: The network's.
            model_input: State x = x0 + s eps.

        Returns:
            D.
        """
        linear = self._linear(sigma, model_input)
        return self.base.calculate_denoised(self.t_from_s(sigma), model_output, linear)

    def noise_scaling(
        self,
        sigma: Tensor,
        noise: Tensor,
        latent_image: Tensor,
        max_denoise: bool = False,  # noqa: ARG002
    ) -> Tensor:
        """Return the state x = x0 + s eps.

        Args:
            sigma: One value, shape (B,) or broadcastable.
            noise: Standard normal.
            latent_image: Clean latent.
            max_denoise: Whether sampling starts at pure noise; changes nothing here.

        Returns:
            The state.
        """
        return latent_image + _beside(sigma, noise) * noise

    def inverse_noise_scaling(
        self,
        sigma: Tensor,  # noqa: ARG002
        latent: Tensor,
    ) -> Tensor:
        """Return what is handed to the next stage: the state, as flow models hand over too.

        Args:
            sigma: Last sigma.
            latent: State.

        Returns:
            The state.
        """
        return latent

    def _linear(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x * (self._scale / (self._scale + _beside(sigma, x)))


def _beside(sigma: Tensor, x: Tensor) -> Tensor:
    """Shape sigma so that it broadcasts over the trailing axes of x."""
    if sigma.nelement() == 1:
        return sigma.view(())
    return sigma.view(sigma.shape[:1] + (1,) * (x.ndim - 1))
