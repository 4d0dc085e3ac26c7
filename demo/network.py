"""The embedded model's network: a small U-Net that predicts velocity on 64 x 64 pictures.

    F = net(input);   D = m + c_skip (x - (1 - t) m) + c_out F;   v = (x - D) / t

with t the linear-path time (1 = noise), m and s the data's mean and spread,
C = (1 - t)^2 s^2 + t^2, c_skip = (1 - t) s^2 / C, c_out = t s / sqrt(C) and the input divided by
sqrt(C): the preconditioning of Karras et al. 2022 (arXiv 2206.00364, section 5) on the linear path,
so that input and target of the network have unit spread at every t and the last steps keep what is
already drawn.

Prompts arrive as (B, GROUPS, FEATURES): per group one-hot count, colour and shape; all zero for no
group. An all-zero prompt is the unconditional model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["CHECKPOINTS", "CONFIG", "FEATURES", "LARGEST", "MEAN", "SIDE", "SPREAD", "SceneNet"]

CHECKPOINTS = {
    "base": Path(__file__).with_name("weights.safetensors"),
    "few_step": Path(__file__).with_name("weights_few_step.safetensors"),
}
FEATURES = 14
CONFIG: dict[str, Any] = {"channels": (48, 96, 160), "blocks": (1, 2, 2), "width": 256}
MEAN, SPREAD = 0.78, 0.43
SIDE = 64  # of its pictures
LARGEST = 2 * SIDE  # of what it takes: every place looks at every other, so time grows as side^4
STEP = 8  # a side is halved three times


class Block(nn.Module):
    """Residual block: two convolutions, the second modulated by the embedding."""

    def __init__(self, inside: int, outside: int, width: int, ops: Any, **kw: Any) -> None:
        super().__init__()
        self.norm1 = ops.GroupNorm(8, inside, **kw)
        self.conv1 = ops.Conv2d(inside, outside, 3, padding=1, **kw)
        self.embed = ops.Linear(width, 2 * outside, **kw)
        self.norm2 = ops.GroupNorm(8, outside, **kw)
        self.conv2 = ops.Conv2d(outside, outside, 3, padding=1, **kw)
        self.skip = ops.Conv2d(inside, outside, 1, **kw) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply the block; x (B, C, H, W), embedding (B, width)."""
        h = self.conv1(functional.silu(self.norm1(x)))
        scale, shift = self.embed(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(functional.silu(h))


class Attention(nn.Module):
    """Attention of every place to every place and to the groups of the prompt."""

    def __init__(self, channels: int, width: int, ops: Any, **kw: Any) -> None:
        super().__init__()
        self.heads = channels // 32
        self.norm = ops.GroupNorm(8, channels, **kw)
        self.qkv = ops.Conv2d(channels, 3 * channels, 1, **kw)
        self.prompt = ops.Linear(width, 2 * channels, **kw)
        self.out = ops.Conv2d(channels, channels, 1, **kw)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Apply attention; x (B, C, H, W), tokens (B, GROUPS, width)."""
        batch, channels, height, width = x.shape
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        pk, pv = self.prompt(tokens).chunk(2, dim=2)

        def split(y: Tensor) -> Tensor:
            return y.reshape(batch, -1, self.heads, 32).transpose(1, 2)

        keys, values = split(torch.cat([k, pk], dim=1)), split(torch.cat([v, pv], dim=1))
        # Written out: on CPUs the fused kernel is slower at this size, in bfloat16 twice so.
        weights = (split(q) @ keys.transpose(2, 3) * 32**-0.5).softmax(dim=3)
        y = (weights @ values).transpose(1, 2).reshape(batch, height, width, channels)
        return x + self.out(y.permute(0, 3, 1, 2))


class SceneNet(nn.Module):
    """Velocity of the embedded model, in the form that the host calls its networks.

    Args:
        channels: Widths at 32, 16 and 8 pixels.
        blocks: Residual blocks at each of them on the way down; one more on the way up.
        width: Width of the embedding.
        operations: Namespace of layer classes; the host passes its own.
        dtype: Type of the weights.
        device: Device of the weights.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = CONFIG["channels"],
        blocks: tuple[int, ...] = CONFIG["blocks"],
        width: int = CONFIG["width"],
        operations: Any = nn,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        ops, kw = operations, {"dtype": dtype, "device": device}
        self.dtype = dtype
        self.time = nn.Sequential(
            ops.Linear(64, width, **kw), nn.SiLU(), ops.Linear(width, width, **kw)
        )
        self.group = nn.Sequential(
            ops.Linear(FEATURES, width, **kw), nn.SiLU(), ops.Linear(width, width, **kw)
        )
        self.enter = ops.Conv2d(12, channels[0], 3, padding=1, **kw)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        last = channels[0]
        widths = [last]
        for level, (c, number) in enumerate(zip(channels, blocks, strict=True)):
            for index in range(number):
                attends = level > 1 or (level == 1 and index == number - 1)
                attention = Attention(c, width, ops, **kw) if attends else nn.Identity()
                self.down.append(nn.ModuleList([Block(last, c, width, ops, **kw), attention]))
                last = c
                widths.append(c)
            if level < len(channels) - 1:
                self.down.append(ops.Conv2d(c, c, 3, stride=2, padding=1, **kw))
                widths.append(c)
        self.middle = nn.ModuleList(
            [Block(last, last, width, ops, **kw), Attention(last, width, ops, **kw)]
        )
        for level, (c, number) in reversed(list(enumerate(zip(channels, blocks, strict=True)))):
            for index in range(number + 1):
                attends = level > 1 or (level == 1 and index == number)
                attention = Attention(c, width, ops, **kw) if attends else nn.Identity()
                block = Block(last + widths.pop(), c, width, ops, **kw)
                self.up.append(nn.ModuleList([block, attention]))
                last = c
            if level:
                self.up.append(ops.Conv2d(c, c, 3, padding=1, **kw))
        self.norm = ops.GroupNorm(8, last, **kw)
        self.leave = ops.Conv2d(last, 12, 3, padding=1, **kw)

    def features(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The network proper; x (B, 12, 32, 32) of unit spread, t (B,), context as for forward."""
        frequencies = torch.exp(torch.linspace(0.0, 6.0, 32, device=x.device))
        angles = t.float()[:, None] * frequencies
        wave = torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype)
        present = (context.abs().sum(dim=2, keepdim=True) > 0).to(x.dtype)
        tokens = self.group(context.to(x.dtype)) * present
        embedding = functional.silu(self.time(wave) + tokens.sum(dim=1))
        h = self.enter(x)
        kept = [h]
        for stage in self.down:
            h = stage(h) if not isinstance(stage, nn.ModuleList) else stage[0](h, embedding)
            if isinstance(stage, nn.ModuleList) and isinstance(stage[1], Attention):
                h = stage[1](h, tokens)
            kept.append(h)
        h = self.middle[1](self.middle[0](h, embedding), tokens)
        for stage in self.up:
            if isinstance(stage, nn.ModuleList):
                h = stage[0](torch.cat([h, kept.pop()], dim=1), embedding)
                h = stage[1](h, tokens) if isinstance(stage[1], Attention) else h
            else:
                h = stage(functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.leave(functional.silu(self.norm(h)))

    def denoise(self, x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """Predict the clean picture; x (B, 3, 64, 64), t (B,) in 0..1, context (B, GROUPS, F)."""
        t4 = t.view(-1, 1, 1, 1).to(x.dtype)
        variance = ((1 - t4) * SPREAD) ** 2 + t4 * t4
        centred = x - (1 - t4) * MEAN
        inside = functional.pixel_unshuffle(centred / variance.sqrt(), 2)
        f = functional.pixel_shuffle(self.features(inside, t, context), 2).to(x.dtype)
        return MEAN + (1 - t4) * SPREAD**2 / variance * centred + t4 * SPREAD / variance.sqrt() * f

    @staticmethod
    def require_size(shape: Sequence[int]) -> None:
        """Refuse what it was not made for, before anything is computed.

        Args:
            shape: Of pictures: (B, 3, height, width).

        Raises:
            ValueError: Too large, or sides that it cannot halve.
        """
        height, width = (int(side) for side in shape[-2:])
        if len(shape) != 4 or all(s % STEP == 0 and 0 < s <= LARGEST for s in (height, width)):
            return  # what is no picture at all others speak of
        raise ValueError(
            f"the demo model makes pictures of {SIDE} x {SIDE} and was given latents of {width} x "
            f"{height}. Connect the latent of Load Demo Model, or set width and height of Empty "
            f"Latent Image to {SIDE} (multiples of {STEP} up to {LARGEST} work, with pictures that "
            "it has never seen)"
        )

    def forward(self, x: Tensor, timestep: Tensor, context: Tensor, **_: Any) -> Tensor:
        """Velocity; timestep (B,) is 1000 t, as the host's flow models are called."""
        self.require_size(x.shape)
        t = timestep / 1000.0
        return (x - self.denoise(x, t, context)) / t.view(-1, 1, 1, 1).to(x.dtype)
