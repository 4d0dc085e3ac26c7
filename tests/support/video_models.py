"""A small video model with random weights, whole: the host's Wan, its text encoder aside, and VAEs.

The VAEs are read by comfy.sd.VAE from state dicts of the published layout with fewer channels.
"""

from functools import cache
from typing import Any

import comfy.ldm.wan.vae
import comfy.sd
import families as f
import torch

WAN = f.BY_NAME["Wan 2.1, 2.2 14B"]


def seeded(module: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict under which values keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in module.state_dict().items():
        wide = value.ndim > 1 and not name.endswith("gamma")
        std = value[0].numel() ** -0.5 if wide else 0.1
        centre = 1.0 if name.endswith("gamma") else 0.0
        state[name] = torch.randn(value.shape, generator=generator) * std + centre
    return state


def wan_vae_state(dim: int = 8) -> dict[str, torch.Tensor]:
    """What a file of Wan 2.1's VAE holds, with `dim` channels instead of 96."""
    network = comfy.ldm.wan.vae.WanVAE(
        dim=dim, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
        temperal_downsample=[False, True, True], dropout=0.0,
    )  # fmt: skip
    return seeded(network)


@cache
def wan_vae() -> comfy.sd.VAE:
    """VAE of Wan 2.1: T latent frames make 4 T - 3, eight times the side."""
    return comfy.sd.VAE(sd=wan_vae_state())


def latent(
    rows: int = 1, frames: int = 3, side: int = 4, seed: int | None = None
) -> dict[str, Any]:
    """LATENT of Wan: zeros, or values."""
    shape = (rows, 16, frames, side, side)
    if seed is None:
        return {"samples": torch.zeros(shape)}
    return {"samples": torch.randn(shape, generator=torch.Generator().manual_seed(seed))}


@cache
def audio_vae() -> comfy.sd.VAE:
    """VAE of Stable Audio: 2048 samples of two channels for each latent."""
    network = comfy.ldm.audio.autoencoder.AudioOobleckVAE()
    return comfy.sd.VAE(sd=seeded(network))
