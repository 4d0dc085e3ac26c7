"""How a picture becomes what a network was trained on: one resize, one crop, one normalisation.

    y = (crop(resize(x)) - mean) / std        x in 0..1, (B, H, W, C) -> (B, 3, height, width)

Resampling is separable with the filter widened by the factor of reduction (antialiased), cubic with
a = -1/2, as PIL's and torchvision's; values are clamped to 0..1 after it, as 8-bit pictures are.
The references round to 8 bits as well, here nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

__all__ = ["CLIP_224", "Preprocess"]


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
            "pad" makes the longer side fit and pads with `fill` to the right and below, "letterbox"
            pads evenly on both sides.
        fill: Value of padding, 0 to 1.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    resample: str = "bicubic"
    fit: str = "crop"
    fill: float = 0.5

    def __call__(self, images: Tensor) -> Tensor:
        """Prepare pictures.

        Args:
            images: Shape (B, H, W, 3 or 4), 0 to 1; a fourth channel is dropped.

        Returns:
            Shape (B, 3, height, width), float32, on the pictures' device.
        """
        x = images[..., :3].movedim(-1, 1).float()
        size = self._resized(x.shape[2], x.shape[3])
        if size != (x.shape[2], x.shape[3]):
            x = functional.interpolate(
                x, size=size, mode=self.resample, antialias=True, align_corners=False
            )
        x = x.clamp(0.0, 1.0)
        if self.fit in ("pad", "letterbox"):
            across, down = self.width - size[1], self.height - size[0]
            left, above = (across // 2, down // 2) if self.fit == "letterbox" else (0, 0)
            sides = (left, across - left, above, down - above)
            x = functional.pad(x, sides, value=self.fill)
        top, left = (x.shape[2] - self.height) // 2, (x.shape[3] - self.width) // 2
        x = x[:, :, top : top + self.height, left : left + self.width]
        mean, std = x.new_tensor(self.mean), x.new_tensor(self.std)
        return (x - mean[:, None, None]) / std[:, None, None]

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width before cropping or padding."""
        if self.fit == "squash":
            return self.height, self.width
        scales = (self.height / height, self.width / width)
        if self.fit == "crop":
            scale = max(scales)
            return max(self.height, int(height * scale)), max(self.width, int(width * scale))
        scale = min(scales)
        if self.fit == "letterbox":
            return max(1, round(height * scale)), max(1, round(width * scale))
        return max(1, int(height * scale)), max(1, int(width * scale))


CLIP_224 = Preprocess(224, 224)
"""OpenAI's CLIP at 224 x 224."""
