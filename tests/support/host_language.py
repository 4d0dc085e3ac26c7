"""The host's own Qwen3-VL and Qwen3.5, small and seeded: its own classes and tokenizers."""

import functools
from contextlib import contextmanager
from typing import ClassVar

import comfy.sd
import comfy.text_encoders.qwen3vl as host
import comfy.text_encoders.qwen35 as host35
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


QWEN35 = {
    "qwen35_08b": dict(
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=1,
        linear_num_key_heads=2,
        linear_num_value_heads=2,
        vision=dict(hidden_size=32, num_heads=2, intermediate_size=48, depth=2),
    )
}


class Target:
    """What the host's CLIP is made of, as its loader chooses it for Qwen3-VL 4B."""

    params: ClassVar = {}
    clip = host.te(model_type="qwen3vl_4b")
    tokenizer = host.tokenizer(model_type="qwen3vl_4b")


class Target35:
    """The same for Qwen3.5 0.8B."""

    params: ClassVar = {}
    clip = host35.te(model_type="qwen35_08b")
    tokenizer = host35.tokenizer(model_type="qwen35_08b")


@contextmanager
def _small():
    """Widths that the host keeps in tables and takes from nowhere else."""
    tables = (host.QWEN3VL_VISION, host.QWEN3VL_VISION_COMMON, host35.QWEN35_MODELS)
    before = [dict(table) for table in tables]
    for table, widths in zip(tables, (VISION, {"num_heads": 2}, QWEN35), strict=True):
        table.update(widths)
    try:
        yield
    finally:
        for table, widths in zip(tables, before, strict=True):
            table.update(widths)


def _made(target, options) -> comfy.sd.CLIP:
    with _small():
        clip = comfy.sd.CLIP(target, model_options={**options, "dtype": torch.float32})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in clip.cond_stage_model.parameters():
            is_matrix = parameter.ndim > 1
            drawn = torch.randn(parameter.shape, generator=generator) * (0.1 if is_matrix else 0.0)
            parameter.copy_(drawn + (0.0 if is_matrix else 1.0))
    return clip


@functools.cache
def qwen3_vl() -> comfy.sd.CLIP:
    """Three layers of each part, in float32."""
    return _made(Target, {"qwen3vl_4b_model_config": TEXT})


@functools.cache
def qwen3_5() -> comfy.sd.CLIP:
    """Three layers of linear attention, one of the usual kind, two that see."""
    return _made(Target35, {})
