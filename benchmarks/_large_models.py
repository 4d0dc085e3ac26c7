"""Flux and Wan as large as people run them, of the host's own classes, with random weights.

The weights are drawn on the device that computes, in the type that is stored there, such that
values keep their size from layer to layer; so a model of 12 thousand million parameters is there in
seconds and no file is read. `small` ones have one layer and the smallest widths that the networks'
rules allow, and are what a machine without an accelerator runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management as management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from torch import Tensor, nn

__all__ = ["LARGE", "SMALL", "Size", "conditioning", "flow_model", "vae"]

TOKENS = 256
FLUX: dict[str, Any] = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2,
    "mlp_ratio": 4.0, "axes_dim": [16, 56, 56], "theta": 10000, "qkv_bias": True,
    "guidance_embed": True, "txt_ids_dims": [],
}  # fmt: skip
WAN: dict[str, Any] = {
    "image_model": "wan2.1", "model_type": "t2v", "patch_size": (1, 2, 2), "freq_dim": 256,
    "in_dim": 16, "out_dim": 16, "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True,
    "eps": 1e-6,
}  # fmt: skip


@dataclass(frozen=True)
class Size:
    """A model and one latent of it.

    Attributes:
        kind: Class in comfy.supported_models.
        settings: Arguments of the network's class.
        latent: Shape of one latent.
        text: Width of the text features.
        pooled: Width of the pooled text features, None for none.
        shown: What one latent is, for a person.
    """

    kind: str
    settings: Mapping[str, Any]
    latent: tuple[int, ...]
    text: int
    pooled: int | None
    shown: str


LARGE = {
    "Flux": Size(
        "Flux",
        {**FLUX, "vec_in_dim": 768, "context_in_dim": 4096, "hidden_size": 3072, "num_heads": 24,
         "depth": 19, "depth_single_blocks": 38},
        (16, 128, 128), 4096, 768, "1024 x 1024 pixels",
    ),
    "Wan 2.1 14B": Size(
        "WAN21_T2V",
        {**WAN, "dim": 5120, "ffn_dim": 13824, "num_heads": 40, "num_layers": 40, "text_dim": 4096},
        (16, 5, 60, 104), 4096, None, "17 frames of 832 x 480 pixels",
    ),
}  # fmt: skip
SMALL = {
    "Flux": Size(
        "Flux",
        {**FLUX, "vec_in_dim": 16, "context_in_dim": 32, "hidden_size": 128, "num_heads": 1,
         "depth": 1, "depth_single_blocks": 1},
        (16, 16, 16), 32, 16, "128 x 128 pixels, small",
    ),
    "Wan 2.1 14B": Size(
        "WAN21_T2V",
        {**WAN, "dim": 128, "ffn_dim": 64, "num_heads": 1, "num_layers": 1, "text_dim": 32},
        (16, 3, 8, 8), 32, None, "9 frames of 64 x 64 pixels, small",
    ),
}  # fmt: skip


def _fill(network: nn.Module, device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in network.named_parameters():
        wide = parameter.ndim > 1
        std = parameter[0].numel() ** -0.5 if wide else 0.1
        centre = 1.0 if not wide and name.endswith(("weight", "scale")) else 0.0
        drawn = torch.empty(parameter.shape, dtype=torch.float32, device=device)
        parameter.data = drawn.normal_(centre, std, generator=generator).to(parameter.dtype)


def flow_model(
    size: Size, stored: torch.dtype, computed: torch.dtype | None
) -> comfy.model_patcher.ModelPatcher:
    """Make a MODEL as the host's Load Diffusion Model does.

    Args:
        size: Which.
        stored: Type of the weights.
        computed: Type that the weights are cast to in each call; None where it is `stored`.

    Returns:
        MODEL.
    """
    config = getattr(comfy.supported_models, size.kind)({**size.settings})
    config.set_inference_dtype(stored, computed)
    device = management.get_torch_device()
    made = config.get_model({}, "", device=device)
    _fill(made.diffusion_model, device)
    offload = management.unet_offload_device()
    return comfy.model_patcher.CoreModelPatcher(made.eval(), device, offload)


def conditioning(size: Size, seed: int) -> list[list[Any]]:
    """Make a CONDITIONING as long as that of a short prompt.

    Args:
        size: Of which model.
        seed: Which prompt.

    Returns:
        CONDITIONING.
    """
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, TOKENS, size.text, generator=generator)
    pooled = None
    if size.pooled is not None:
        pooled = torch.randn(1, size.pooled, generator=generator)
    return [[text, {"pooled_output": pooled}]]


def vae() -> comfy.sd.VAE:
    """Make Flux's VAE as the host detects it, with random weights.

    Returns:
        VAE.
    """
    sizes = {
        "double_z": True, "z_channels": 16, "resolution": 256, "in_channels": 3, "out_ch": 3,
        "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [],
        "dropout": 0.0,
    }  # fmt: skip
    network = AutoencoderKL(ddconfig=sizes, embed_dim=16)
    _fill(network, torch.device("cpu"))
    state: dict[str, Tensor] = network.state_dict()
    return comfy.sd.VAE(sd=state)
