"""Small models with random weights of the families that ComfyUI knows (family_rows.py).

A family's network is made by the host's own classes, and recognised by the host's own detection:
a network of the row's sizes is laid out, its keys and shapes go through
comfy.model_detection as a file's would, and the model is made of what came out, with the row's
sizes in place of those that the host writes down for the published weights.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.nested_tensor
import comfy.supported_models
import torch
from family_rows import FAMILIES, Family
from torch import Tensor, nn


def _model(kind: type, sizes: Mapping[str, Any], state: dict[str, Tensor], device: str) -> Any:
    config = kind(dict(sizes))
    config.set_inference_dtype(torch.float32, None)
    return config.get_model(state, "", device=torch.device(device))


@cache
def detect(name: str) -> Any:
    """What the host's detection makes of the keys and shapes of a family's network.

    Args:
        name: Name of the family.

    Returns:
        The host's model config.
    """
    family = BY_NAME[name]
    extra = {key: torch.zeros(shape) for key, shape in family.state.items()}
    kind = getattr(comfy.supported_models, family.kind)
    device = "meta" if family.marks else "cpu"  # published widths are laid out only
    network = _model(kind, {**family.sizes, **family.marks}, extra, device).diffusion_model
    return comfy.model_detection.model_config_from_unet({**network.state_dict(), **extra}, "")


def _fill(network: nn.Module, seed: int) -> None:
    """Random weights under which values keep their size from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        wide = parameter.ndim > 1
        std = parameter[0].numel() ** -0.5 if wide else 0.1
        centre = 1.0 if not wide and name.endswith(("weight", "scale", "gamma")) else 0.0
        parameter.data.normal_(centre, std, generator=generator)
    # what the host leaves as memory had it, since the published files hold it
    for name, table in network.named_buffers():
        if name.endswith("pos_embed"):  # SD 3
            table.normal_(0.0, 0.1, generator=generator)
        elif name.endswith(("rotary_pos_emb.inv_freq", "rope.inv_freq")):  # sound, MiniMax
            table.copy_(10000.0 ** -torch.linspace(0.0, 1.0, len(table)))


@cache
def model(family_name: str, seed: int = 0) -> comfy.model_patcher.ModelPatcher:
    """MODEL of a family, with random weights.

    Args:
        family_name: Name of the family.
        seed: Of the weights.

    Returns:
        What a loader node outputs as MODEL; do not patch it, patch a clone.
    """
    family = BY_NAME[family_name]
    config = detect(family_name)
    extra = {key: torch.zeros(shape) for key, shape in family.state.items()}
    made = _model(type(config), {**config.unet_config, **family.sizes}, extra, "cpu")
    for name, length in family.cut.items():
        layers = made.diffusion_model.get_submodule(name)
        del layers[length:]
    _fill(made, seed)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.CoreModelPatcher(made.eval(), device, torch.device("cpu"))


def latent(family: Family, rows: int = 1, empty: bool = True) -> dict[str, Any]:
    """LATENT of a family.

    Args:
        family: The family.
        rows: Batch size.
        empty: Zeros, or values.

    Returns:
        The LATENT.
    """
    generator = torch.Generator().manual_seed(11)
    parts = [torch.randn(rows, *shape, generator=generator) for shape in family.latents]
    if empty:
        parts = [torch.zeros_like(part) for part in parts]
    return {"samples": comfy.nested_tensor.NestedTensor(parts) if family.nested else parts[0]}


def conditioning(family: Family, seed: int = 1) -> list:
    """CONDITIONING of a family.

    Args:
        family: The family.
        seed: Which prompt.

    Returns:
        The list that the host's nodes pass around.
    """
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, TOKENS, family.width, generator=generator)

    def made(value: Any) -> Any:
        if isinstance(value, list):
            return torch.tensor([value])
        return torch.randn(1, *value, generator=generator) if isinstance(value, tuple) else value

    options = {
        "pooled_output": None,
        **family.options,
    }  # which every text encoder of the host gives
    return [[text, {key: made(value) for key, value in options.items()}]]


TOKENS = 5  # of text
BY_NAME = {family.name: family for family in FAMILIES}
