"""Rows to try a reward on, of every domain: they differ, and no seed changes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

__all__ = ["EXAMPLES", "clips", "pictures", "sounds"]


def pictures(count: int = 3, size: int = 64) -> Tensor:
    """Return pictures that differ: noise of rising contrast, (B, H, W, 3)."""
    generator = torch.Generator().manual_seed(5)
    contrast = torch.linspace(0.2, 1.0, count)[:, None, None, None]
    return (torch.rand(count, size, size, 3, generator=generator) - 0.5) * contrast + 0.5


def clips(count: int = 3, frames: int = 5) -> Tensor:
    """Return clips of such pictures, (B, T, H, W, 3)."""
    flat = pictures(count * frames)
    return flat.reshape(count, frames, *flat.shape[1:])


def sounds(count: int = 3, length: int = 4000) -> Tensor:
    """Return sounds that differ: noise of rising loudness, (B, 2, samples)."""
    generator = torch.Generator().manual_seed(6)
    loudness = torch.linspace(0.1, 0.9, count)[:, None, None]
    return (torch.rand(count, 2, length, generator=generator) * 2.0 - 1.0) * loudness


def _latents(count: int = 3) -> Tensor:
    return pictures(count).movedim(-1, 1).contiguous()


EXAMPLES: Mapping[str, Callable[[int], Tensor]] = {
    "image": pictures,
    "video": clips,
    "audio": sounds,
    "latent": _latents,
}
"""Domain to a function that makes a number of rows of it."""
