"""How a picture becomes what a network was trained on: one resize, one crop, one normalisation.

    y = (crop(resize(x)) - mean) / std        x in 0..1, (B, H, W, C) -> (B, 3, height, width)

Networks were trained on what PIL makes of 8-bit pictures, so resampling is PIL's, to the bit:
rounded to 8 bits, then along the rows, then along the columns, each by the filter widened by the
factor of reduction (antialiased; cubic with a = -1/2) in 22 bits of fixed point, clamped and
rounded to 8 bits, halves up. A float filter with one clamp at the end is off by a quarter of a
level (1/255) on average and by up to 31 levels at hard edges. The integers are exact in float32,
so that devices and batch sizes agree to the bit too.

A rounding has no slope. Pictures of which one is asked for (`requires_grad`) take the float twin
instead: the same filters and the same clamps, before the first pass and after each, and nothing
rounded; in float64 where the pictures are. Of pictures of 8 bits the two are .3 levels apart on
average and at most 1.1 (1.0 by the bilinear filter); of others, which are rounded once more, at
most 1.7 (.4 on average). Where a clamp cuts, the slope is 0, as it is in what the network sees.

Pillow 13 does the columns first where a picture is reduced more in height than in width, which is
faster; those before it, with which the networks were trained, and torchvision do the rows first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["CLIP_224", "DINOV2_224", "IMAGENET_MEAN", "IMAGENET_STD", "Patches", "Preprocess"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESAMPLE = {2: "bilinear", 3: "bicubic"}
BITS = 22
HALF_BITS = 1 << 11
BLOCK = 16
"""New pixels at once on a CPU: a filter's matrix is mostly zeros."""


@dataclass(frozen=True)
class Preprocess:
    """A network's preprocessing.

    Args:
        height: Rows of its input.
        width: Columns of its input.
        mean: Of the three channels.
        std: Of the three channels.
        resample: "bicubic" or "bilinear".
        fit: "crop" makes the shorter side fit and crops the middle, "squash" ignores proportions,
            "pad" makes the longer side fit and pads with `fill` to the right and below,
            "letterbox" pads evenly on both sides.
        fill: Value of padding, 0 to 1.
        shorter: For "crop", the shorter side before cropping; 0 for a square input's own.
        centre: Where an odd margin of a crop is halved: "floor" as transformers, "even" to the
            nearest, halves to even, as torchvision's CenterCrop (CLIP's, open_clip's).
        rounded: Whether resampling is PIL's; else it is that of torchvision on float tensors,
            antialiased, neither rounded nor clamped, which hpsv2 does.

    Raises:
        ValueError: An unknown word, or a crop larger than what it is cropped from.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    resample: str = "bicubic"
    fit: str = "crop"
    fill: float = 0.5
    shorter: int = 0
    centre: str = "floor"
    rounded: bool = True

    def __post_init__(self) -> None:
        """Check the words."""
        for field, allowed in (
            ("resample", tuple(RESAMPLE.values())),
            ("fit", ("crop", "squash", "pad", "letterbox")),
            ("centre", ("floor", "even")),
        ):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} is {getattr(self, field)!r}; choose one of {allowed}")
        if self.fit == "crop" and 0 < self.shorter < max(self.height, self.width):
            raise ValueError(
                f"a crop of {self.height} x {self.width} does not fit a shorter side of "
                f"{self.shorter}; make it at least as large"
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocess:
        """Read an image processor's configuration as transformers writes it.

        Args:
            config: `to_dict()` of a CLIP, SigLIP or BiT (DINOv2) image processor.

        Returns:
            The same preprocessing.

        Raises:
            ValueError: It does something that is not done here.
        """
        resample = RESAMPLE.get(int(config.get("resample", 3)))
        if resample is None:
            raise ValueError(f"resampling {config['resample']} is neither 2 (bilinear) nor 3")
        if not all(config.get(f"do_{word}", True) for word in ("resize", "rescale", "normalize")):
            raise ValueError("it leaves out resizing, rescaling or normalisation")
        style: dict[str, Any] = {
            "mean": tuple(config["image_mean"]),
            "std": tuple(config["image_std"]),
            "resample": resample,
        }
        size = _sides(config["size"])
        if not config.get("do_center_crop"):
            if len(size) == 1:
                raise ValueError("it keeps proportions without a crop")
            return cls(size[0], size[1], **style, fit="squash")
        crop = _sides(config["crop_size"])
        if len(size) != 1:
            raise ValueError("it crops after squashing")
        return cls(crop[0], crop[-1], **style, shorter=size[0])

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare pictures.

        Args:
            images: Shape (B, H, W, 3 or 4), 0 to 1; a fourth channel is dropped.

        Returns:
            Shape (B, 3, height, width), float32, on the pictures' device; by the float twin where
            the pictures require a gradient.
        """
        x = _channels_first(images)
        size = self.resized(x.shape[2], x.shape[3])
        if self.rounded:
            x = pil_resize(x, size, self.resample)
        elif size != (x.shape[2], x.shape[3]):
            x = functional.interpolate(x, size, mode=self.resample, antialias=True)
        if self.fit in ("pad", "letterbox"):
            across, down = self.width - size[1], self.height - size[0]
            left, above = (across // 2, down // 2) if self.fit == "letterbox" else (0, 0)
            sides = (left, across - left, above, down - above)
            x = functional.pad(x, sides, value=self.fill)
        top, left = self._margin(x.shape[2], self.height), self._margin(x.shape[3], self.width)
        x = x[:, :, top : top + self.height, left : left + self.width]
        return normalised(x, self.mean, self.std)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size before cropping or padding, rounded down as the references do.

        Args:
            height: Rows of a picture.
            width: Columns of it.

        Returns:
            Height and width.
        """
        if self.fit == "squash":
            return self.height, self.width
        if self.fit == "letterbox":
            scale = min(self.height / height, self.width / width)
            return max(1, round(height * scale)), max(1, round(width * scale))
        if self.fit == "pad":
            if self.height * width <= self.width * height:
                return self.height, max(1, width * self.height // height)
            return max(1, height * self.width // width), self.width
        if self.shorter or self.height == self.width:
            side, short = self.shorter or self.height, min(height, width)
            return side * height // short, side * width // short
        if self.height * width >= self.width * height:
            return self.height, width * self.height // height
        return height * self.width // width, self.width

    def _margin(self, there: int, wanted: int) -> int:
        """Rows or columns that a crop leaves out before it."""
        spare = there - wanted
        return spare // 2 if self.centre == "floor" else round(spare / 2)


@dataclass(frozen=True)
class Patches:
    """Preprocessing of a network that takes any proportions (NaFlex).

    Pictures are squashed to the largest multiple of the patch in both directions that keeps their
    proportions, nearly, and has no more than `most` patches.

    Args:
        patch: Side of a patch in pixels.
        most: Most patches of a picture.
        mean: Of the three channels.
        std: Of the three channels.
        resample: "bilinear" or "bicubic".
    """

    patch: int = 16
    most: int = 256
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    resample: str = "bilinear"

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare pictures.

        Args:
            images: Shape (B, H, W, 3 or 4), 0 to 1; a fourth channel is dropped.

        Returns:
            Shape (B, 3, h, w), multiples of `patch`, float32, on the pictures' device; by the
            float twin where the pictures require a gradient.
        """
        x = _channels_first(images)
        x = pil_resize(x, self.resized(x.shape[2], x.shape[3]), self.resample)
        return normalised(x, self.mean, self.std)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Size of the squashed picture: the reference's bisection of the scale, to 1e-5.

        Args:
            height: Rows of a picture.
            width: Columns of it.

        Returns:
            Height and width.
        """
        low, high = 1e-6, 100.0
        while high - low >= 1e-5:
            middle = (low + high) / 2
            rows, columns = self._patches(height * middle), self._patches(width * middle)
            low, high = (middle, high) if rows * columns <= self.most else (low, middle)
        return self._patches(height * low) * self.patch, self._patches(width * low) * self.patch

    def _patches(self, length: float) -> int:
        return max(1, math.ceil(length / self.patch))


def pil_resize(x: Tensor, size: tuple[int, int], resample: str) -> Tensor:
    """Resample as PIL does.

    Args:
        x: Shape (B, 3, H, W), float32, 0 to 1; float64 too where it requires a gradient.
        size: New height and width.
        resample: "bicubic" or "bilinear".

    Returns:
        Shape (B, 3, *size): multiples of 1/255, or what they are rounded from, clamped likewise,
        where x requires a gradient.
    """
    one_pass = _smooth if x.requires_grad else _resampled
    # one by one on a CPU, where asking for the memory of a batch takes longer than its arithmetic
    at_once = 1 if x.device.type == "cpu" else x.shape[0]
    starts = range(0, max(1, x.shape[0]), max(1, at_once))
    return torch.cat([_two_passes(x[i : i + at_once], size, resample, one_pass) for i in starts])


def _two_passes(
    x: Tensor, size: tuple[int, int], resample: str, one_pass: Callable[[Tensor, int, str], Tensor]
) -> Tensor:
    """Levels of 8 bits, rounded or not; then the rows, then the columns."""
    if x.requires_grad:
        x = x.clamp(0.0, 1.0) * 255.0
    else:
        x = torch.mul(x, 255.0).add_(0.5).floor_().clamp_(0.0, 255.0)
    if x.shape[3] != size[1]:
        x = one_pass(x, size[1], resample)
    if x.shape[2] != size[0]:
        x = one_pass(x.mT, size[0], resample).mT
    return x / 255.0


def _resampled(x: Tensor, wanted: int, resample: str) -> Tensor:
    """One pass over the last dimension.

    A weight of 22 bits is high 2^11 + low with both within 11 bits, so each product with a level
    and the sum of all fits a float32 (of TF32 too) without rounding, and so does
    floor((floor(sum of low / 2^11) + sum of high) / 2^11).
    """
    found = list[Tensor]()
    block = BLOCK if x.device.type == "cpu" else wanted
    for there, both in _filter(x.shape[-1], wanted, resample, block):
        high, low = (x[..., there] @ both.to(x.device)).chunk(2, dim=-1)
        low = low.div_(HALF_BITS).floor_()
        exact = low.add_(high).add_(HALF_BITS >> 1).div_(HALF_BITS).floor_().clamp_(0.0, 255.0)
        found.append(exact)
    return torch.cat(found, dim=-1)


def _smooth(x: Tensor, wanted: int, resample: str) -> Tensor:
    """The same pass by the same weights, not rounded."""
    found = list[Tensor]()
    block = BLOCK if x.device.type == "cpu" else wanted
    for there, both in _filter(x.shape[-1], wanted, resample, block):
        high, low = both.to(x).chunk(2, dim=-1)
        found.append(x[..., there] @ ((high * HALF_BITS + low) / (1 << BITS)))
    return torch.cat(found, dim=-1).clamp(0.0, 255.0)


def _channels_first(images: Tensor) -> Tensor:
    """Three channels, (B, 3, H, W), float32; float64 where a gradient in it is asked for."""
    x = images[..., :3].movedim(-1, 1)
    return x if x.requires_grad and x.dtype is torch.float64 else x.float()


@lru_cache(maxsize=64)
def _filter(length: int, wanted: int, resample: str, block: int) -> list[tuple[slice, Tensor]]:
    """Weights of PIL's filter in fixed point, as high 2^11 + low, for `block` new pixels at a time.

    Each entry: which old pixels they need, and both parts side by side, shape (old pixels,
    2 new pixels).
    """
    scale = length / wanted
    wide = max(scale, 1.0)
    reach = (2.0 if resample == "bicubic" else 1.0) * wide
    centres = (torch.arange(wanted, dtype=torch.float64) + 0.5) * scale
    first = (centres - reach + 0.5).clamp(min=0.0).floor()
    last = (centres + reach + 0.5).floor().clamp(max=length)
    at = torch.arange(length, dtype=torch.float64)[:, None]
    weights = _kernel((at - centres + 0.5) / wide, resample)
    weights = torch.where((at >= first) & (at < last), weights, 0.0)
    fixed = weights / weights.sum(dim=0) * (1 << BITS)
    whole = (fixed.abs() + 0.5).floor() * fixed.sign()
    high = (whole / HALF_BITS).round()
    low = whole - high * HALF_BITS
    blocks: list[tuple[slice, Tensor]] = []
    for start in range(0, wanted, block):
        new = slice(start, min(start + block, wanted))
        old = slice(int(first[new.start]), int(last[new.stop - 1]))
        blocks.append((old, torch.cat([high[old, new], low[old, new]], dim=1).float()))
    return blocks


def _kernel(x: Tensor, resample: str) -> Tensor:
    """Triangle, or the cubic with a = -1/2, over distances in pixels of the wider grid."""
    x = x.abs()
    if resample == "bilinear":
        return (1.0 - x).clamp(min=0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))


def normalised(
    x: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Shift and scale the channels.

    Args:
        x: Shape (B, 3, H, W).
        mean: Of the channels.
        std: Of the channels.

    Returns:
        (x - mean) / std.
    """
    return (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]


def _sides(size: int | Mapping[str, int | None]) -> tuple[int, ...]:
    """One number for a shorter side, two for height and width."""
    if isinstance(size, int):
        return (size,)
    given = {key: value for key, value in size.items() if value}
    if set(given) == {"shortest_edge"}:
        return (int(given["shortest_edge"]),)
    if set(given) == {"height", "width"}:
        return int(given["height"]), int(given["width"])
    raise ValueError(f"its size {given} is neither a shortest edge nor a height and a width")


CLIP_224 = Preprocess(224, 224)
"""CLIP at 224 x 224, as transformers crops."""

DINOV2_224 = Preprocess(224, 224, IMAGENET_MEAN, IMAGENET_STD, shorter=256)
"""DINOv2 as published: the middle 224 x 224 of a shorter side of 256."""
