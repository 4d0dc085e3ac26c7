"""Networks whose velocity is known exactly, as MODELs of the real host.

Importing this file enters the host at COMFYUI_PATH (`dev.py bench` sets it) with its options for
the CPU. Nothing of the host is replaced; only the network inside its BaseModel is ours:

    x = (1 - t) x0 + t noise_scale eps,    v = (x - D(x, t)) / t,    D = E[x0 | x]

in float64 inside, for data whose D is a closed form, pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import _host
import torch
from torch import Tensor, nn

_host.enter(cpu=True)

import comfy.latent_formats  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.model_patcher  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.supported_models_base  # noqa: E402
from comfy_extras.nodes_custom_sampler import (  # noqa: E402
    CFGGuider,
    RandomNoise,
    SamplerCustomAdvanced,
)

__all__ = ["ExactNet", "GaussianNet", "MixtureNet", "sample", "wrap"]


class ExactNet(nn.Module):
    """Velocity of a flow model from a closed form of D.

    Args:
        channels: Of the latent.

    Attributes:
        unit: The host's timestep at pure noise; wrap() sets it.
        noise_scale: Standard deviation of pure noise; wrap() sets it.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dtype = torch.float32
        self.channels = channels
        self.unit = 1.0
        self.noise_scale = 1.0

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """D for x = alpha x0 + sigma eps, float64; alpha and sigma broadcast over x."""
        raise NotImplementedError

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function of the data, x of shape (channels, n)."""
        raise NotImplementedError

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw data, shape (channels, count), float64."""
        raise NotImplementedError

    def forward(self, x: Tensor, timestep: Tensor, **_: object) -> Tensor:
        """The velocity, as the host calls a network."""
        t = (timestep.double() / self.unit).view(-1, *(1,) * (x.ndim - 1))
        wide = x.double()
        return ((wide - self.denoise(wide, 1 - t, t * self.noise_scale)) / t).to(x.dtype)


class GaussianNet(ExactNet):
    """Pixels of channel c are independent N(means[c], stds[c]^2).

    Args:
        means: One a channel.
        stds: One a channel.
    """

    def __init__(self, means: Sequence[float], stds: Sequence[float]) -> None:
        super().__init__(len(means))
        self.means = torch.tensor(means, dtype=torch.float64)
        self.stds = torch.tensor(stds, dtype=torch.float64)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """D in closed form; see the base class."""
        shape = (1, -1, *(1,) * (x.ndim - 2))
        mean, variance = self.means.view(shape), self.stds.view(shape) ** 2
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        return mean + gain * (x - alpha * mean)

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function; see the base class."""
        return torch.special.ndtr((x - self.means[:, None]) / self.stds[:, None])

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw data; see the base class."""
        z = torch.randn(self.channels, count, generator=generator, dtype=torch.float64)
        return self.means[:, None] + self.stds[:, None] * z


class MixtureNet(ExactNet):
    """Pixels of every channel are independent draws of one mixture of Gaussians.

    Args:
        weights: Of the components; they sum to 1.
        means: Of the components.
        stds: Of the components.
        channels: Of the latent.
    """

    def __init__(
        self,
        weights: Sequence[float],
        means: Sequence[float],
        stds: Sequence[float],
        channels: int = 4,
    ) -> None:
        super().__init__(channels)
        self.weights, self.means, self.stds = (
            torch.tensor(values, dtype=torch.float64) for values in (weights, means, stds)
        )

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """D in closed form; see the base class."""
        alpha, sigma = alpha.unsqueeze(-1), sigma.unsqueeze(-1)
        spread = torch.sqrt((alpha * self.stds) ** 2 + sigma**2)
        gap = x.unsqueeze(-1) - alpha * self.means
        log_p = torch.log(self.weights) - torch.log(spread) - 0.5 * (gap / spread) ** 2
        gain = alpha * self.stds**2 / spread**2
        return (torch.softmax(log_p, -1) * (self.means + gain * gap)).sum(-1)

    def cdf(self, x: Tensor) -> Tensor:
        """Distribution function; see the base class."""
        z = (x.unsqueeze(-1) - self.means) / self.stds
        return (self.weights * torch.special.ndtr(z)).sum(-1)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw data; see the base class."""
        which = torch.multinomial(
            self.weights, self.channels * count, replacement=True, generator=generator
        )
        z = torch.randn(self.channels * count, generator=generator, dtype=torch.float64)
        return (self.means[which] + self.stds[which] * z).view(self.channels, count)


def wrap(
    network: ExactNet, kind: str = "FLOW", **sampling_settings: float
) -> comfy.model_patcher.ModelPatcher:
    """Make a MODEL of a network.

    Args:
        network: Gives velocities.
        kind: Name in the host's ModelType, a flow kind: FLOW or FLUX.
        **sampling_settings: shift, multiplier, noise_scale.

    Returns:
        What a loader node outputs as MODEL.
    """
    config = comfy.supported_models_base.BASE({"disable_unet_model_creation": True})
    config.latent_format = comfy.latent_formats.LatentFormat()
    config.latent_format.latent_channels = network.channels
    config.sampling_settings = sampling_settings
    model: Any = comfy.model_base.BaseModel(
        config, model_type=comfy.model_base.ModelType[kind], device=torch.device("cpu")
    )
    network.unit = float(model.model_sampling.timestep(torch.ones(())))
    network.noise_scale = float(getattr(model.model_sampling, "noise_scale", 1.0))
    model.diffusion_model = network.eval().requires_grad_(False)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(model, device, torch.device("cpu"))


def sample(
    model: comfy.model_patcher.ModelPatcher,
    sampler: comfy.samplers.Sampler,
    sigmas: Tensor,
    channels: int,
    count: int,
    seed: int,
) -> Tensor:
    """Sample with the host's nodes: CFGGuider, RandomNoise, SamplerCustomAdvanced.

    The guider has a negative, equal to the positive: without one the host hands cfg_pp samplers
    zeros for the unconditional prediction.

    Args:
        model: MODEL.
        sampler: SAMPLER.
        sigmas: SIGMAS.
        channels: Of the latent.
        count: Pixels, a multiple of 4096.
        seed: Of the initial noise, the sampler's noise and torch's own generator, which the host
            uses for s_churn.

    Returns:
        Samples, shape (channels, count), float64.
    """
    conditioning = [[torch.zeros(1, 1, 1), {}]]
    guider = CFGGuider.execute(model=model, positive=conditioning, negative=conditioning, cfg=1.0)[
        0
    ]
    noise = RandomNoise.execute(noise_seed=seed)[0]
    torch.manual_seed(seed + 1)
    out = SamplerCustomAdvanced.execute(
        noise=noise,
        guider=guider,
        sampler=sampler,
        sigmas=sigmas,
        latent_image={"samples": torch.zeros(1, channels, 64, count // 64)},
    )
    return out[0]["samples"][0].reshape(channels, -1).double()
