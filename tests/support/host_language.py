"""The host's own Qwen3-VL, small and seeded: built by the host's classes, with its tokenizer."""

import functools
from contextlib import contextmanager
from typing import ClassVar

import comfy.sd
import comfy.text_encoders.qwen3vl as host
import torch

VISION = {
    "qwen3vl_4b": dict(
        hidden_size=32, intermediate_size=48, depth=3, deepstack_visual_indexes=[0, 1]
    )
}
TEXT = dict(
    hidden_size=64,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)


class Target:
    """What the host's CLIP is made of, as its loader chooses it for Qwen3-VL 4B."""

    params: ClassVar = {}
    clip = host.te(model_type="qwen3vl_4b")
    tokenizer = host.tokenizer(model_type="qwen3vl_4b")


@contextmanager
def _small():
    """Widths of the picture's part, which the host keeps in two tables and takes from nowhere."""
    before = dict(host.QWEN3VL_VISION), dict(host.QWEN3VL_VISION_COMMON)
    host.QWEN3VL_VISION.update(VISION)
    host.QWEN3VL_VISION_COMMON.update(num_heads=2)
    try:
        yield
    finally:
        host.QWEN3VL_VISION.update(before[0])
        host.QWEN3VL_VISION_COMMON.update(before[1])


@functools.cache
def qwen3_vl() -> comfy.sd.CLIP:
    """Three layers of each part, in float32."""
    options = {"qwen3vl_4b_model_config": TEXT, "dtype": torch.float32}
    with _small():
        clip = comfy.sd.CLIP(Target, model_options=options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in clip.cond_stage_model.parameters():
            is_matrix = parameter.ndim > 1
            drawn = torch.randn(parameter.shape, generator=generator) * (0.1 if is_matrix else 0.0)
            parameter.copy_(drawn + (0.0 if is_matrix else 1.0))
    return clip
