"""The host's own Qwen3-VL, Qwen3.5 and Gemma 4, small and seeded, of its own classes."""

import functools
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import comfy.sd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

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


def part(name: str):
    """A module of the host's text encoders; a host without it skips the test."""
    reason = f"this host has no {name}"
    return pytest.importorskip(f"comfy.text_encoders.{name}", reason=reason)


def target(clip, tokenizer):
    """What the host's CLIP is made of, as its loader chooses it."""
    return type("Target", (), {"params": {}, "clip": clip, "tokenizer": tokenizer})


@contextmanager
def small(*changes):
    """Widths that the host keeps in tables and takes from nowhere else: (table, widths)."""
    before = [dict(table) for table, _ in changes]
    for table, widths in changes:
        table.update(widths)
    try:
        yield
    finally:
        for (table, _), widths in zip(changes, before, strict=True):
            table.update(widths)


def gemma_tokenizer():
    """Letter by letter, with Gemma 4's own special tokens, as the host finds it in a checkpoint."""
    special = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<|channel>": 100, "<channel|>": 101}
    special |= {"<|turn>": 105, "<turn|>": 106}
    special |= {"<|image>": 255999, "<|image|>": 258880, "<image|>": 258882}
    words = {"Yes": 1000, "No": 1001, **{chr(c): 3000 + c for c in range(33, 127)}}
    made = Tokenizer(models.WordLevel({**special, **words}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.add_special_tokens(list(special))
    return torch.tensor(list(made.to_str().encode()), dtype=torch.uint8)


def _made(target, options, **more) -> comfy.sd.CLIP:
    clip = comfy.sd.CLIP(target, model_options={**options, "dtype": torch.float32}, **more)
    for name, buffer in clip.cond_stage_model.named_buffers():
        if name.endswith("layer_scalar"):
            buffer.fill_(1.0)
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
    host, name = part("qwen3vl"), {"model_type": "qwen3vl_4b"}
    common = {"num_heads": 2}
    with small((host.QWEN3VL_VISION, VISION), (host.QWEN3VL_VISION_COMMON, common)):
        made = target(host.te(**name), host.tokenizer(**name))
        return _made(made, {"qwen3vl_4b_model_config": TEXT})


@functools.cache
def qwen3_5() -> comfy.sd.CLIP:
    """Three layers of linear attention, one of the usual kind, two that see."""
    host, name = part("qwen35"), {"model_type": "qwen35_08b"}
    with small((host.QWEN35_MODELS, QWEN35)):
        return _made(target(host.te(**name), host.tokenizer(**name)), {})


@functools.cache
def gemma4() -> comfy.sd.CLIP:
    """Five layers with a window, one without, two that see; its tokenizer is in the weights."""
    host = part("gemma4")

    @dataclass
    class Small(host.Gemma4_31B_Config):
        hidden_size: int = 64
        intermediate_size: int = 48
        num_hidden_layers: int = 6
        num_attention_heads: int = 2
        num_key_value_heads: int = 1
        head_dim = 32
        global_head_dim = 32
        vision_config: ClassVar = {
            **host.GEMMA4_VISION_31B_CONFIG,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 16,
        }

    variant = host._make_variant(Small)
    made = target(host.gemma4_te(model_class=variant), variant.tokenizer)
    return _made(made, {}, tokenizer_data={"tokenizer_json": gemma_tokenizer()})
