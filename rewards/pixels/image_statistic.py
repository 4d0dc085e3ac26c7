"""A number measured on the pixels, no network: how sharp, bright, colourful, compressible?

    Y = .2126 R + .7152 G + .0722 B                                        luma, Rec. 709, of the
                                                                           values as they are shown
    sharpness       Var[L * Y] * 255^2,  L = [0 1 0; 1 -4 1; 0 1 0]        variance of the Laplacian
    brightness      E[Y]
    contrast        Std[Y]                                                 root mean square contrast
    colourfulness   255 (|(Std rg, Std yb)| + .3 |(E rg, E yb)|),          rg = R - G,
                                                                           yb = (R + G) / 2 - B
    compressibility - bytes of the JPEG (quality 95, 4:2:0) / pixels
    palette         - E[ min over the palette of dE ],  dE = |Lab - Lab'|  CIE 1976, D65

All but compressibility, a count of bytes, are differentiable; where a length, a spread or a
distance is 0 its gradient is taken as 0, so that an even picture has a finite one. Values outside 0
to 1 are clamped, and have no gradient. The reward is the value, its opposite, or minus its distance
from a target.

Sources: Pertuz, Puig, Garcia 2013, Pattern Recognition 46(5), operator LAP4 (sharpness); Peli 1990,
JOSA A 7(10) (contrast); Hasler, Suesstrunk 2003, Proc. SPIE 5007 (colourfulness, in 8-bit units as
there); IEC 61966-2-1 (sRGB) and CIE 15 (Lab).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..gradient import Gradient, value_and_gradient

__all__ = ["DIRECTIONS", "STATISTICS", "ImageStatistic", "Palette", "Statistic", "lab"]

LUMA = (0.2126, 0.7152, 0.0722)
WHITE = (0.95047, 1.0, 1.08883)
"""D65, 2 degrees, X Y Z."""
TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
JPEG_QUALITY = 95
DIRECTIONS = ("higher", "lower", "target")

Palette = tuple[tuple[float, float, float], ...]
"""Colours, red-green-blue, 0 to 1."""


def luma(images: Tensor) -> Tensor:
    """Rec. 709 luma.

    Args:
        images: Shape (B, H, W, 3), 0 to 1.

    Returns:
        Shape (B, H, W).
    """
    return images @ images.new_tensor(LUMA)


def lab(images: Tensor) -> Tensor:
    """Convert sRGB to CIELAB with the white D65.

    Args:
        images: Shape (..., 3), 0 to 1.

    Returns:
        L* (0 to 100), a*, b*, same shape. Differentiable everywhere.
    """
    low = images / 12.92
    high = ((images.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4
    linear = torch.where(images > 0.04045, high, low)
    xyz = linear @ images.new_tensor(TO_XYZ).T / images.new_tensor(WHITE)
    # clamped because the untaken branch of a where still has a gradient, infinite at 0
    root = xyz.clamp(min=0.008856) ** (1.0 / 3.0)
    f = torch.where(xyz > 0.008856, root, 7.787 * xyz + 16.0 / 116.0)
    x, y, z = f.unbind(-1)
    return torch.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], dim=-1)


def _length(vectors: Tensor) -> Tensor:
    """Euclidean norm over the last dimension, with the gradient 0 at 0."""
    algebra: Any = torch.linalg
    return algebra.vector_norm(vectors, dim=-1)


def _spread(values: Tensor) -> Tensor:
    """Standard deviation over dimension 1, with the gradient 0 where all values are the same."""
    return (values - values[:, :1]).std(dim=1, unbiased=False)  # or rounding would be a spread


def _sharpness(images: Tensor, palette: Palette) -> Tensor:
    del palette
    if min(images.shape[1:3]) < 3:
        raise ValueError(
            f"Image Statistic was given pictures of {images.shape[2]} x {images.shape[1]} pixels; "
            "sharpness needs 3 x 3 at least. Choose another statistic, or larger pictures."
        )
    kernel = images.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    edges = functional.conv2d(luma(images)[:, None], kernel[None, None])
    return edges.flatten(1).var(dim=1, unbiased=False) * 255.0**2


def _brightness(images: Tensor, palette: Palette) -> Tensor:
    del palette
    return luma(images).flatten(1).mean(dim=1)


def _contrast(images: Tensor, palette: Palette) -> Tensor:
    del palette
    return _spread(luma(images).flatten(1))


def _colourfulness(images: Tensor, palette: Palette) -> Tensor:
    del palette
    r, g, b = images.flatten(1, 2).unbind(-1)
    opponents = torch.stack([r - g, (r + g) / 2.0 - b], dim=-1)
    spread = _length(_spread(opponents))
    mean = _length(opponents.mean(dim=1))
    return 255.0 * (spread + 0.3 * mean)


def _compressibility(images: Tensor, palette: Palette) -> Tensor:
    del palette
    pixels = images.shape[1] * images.shape[2]
    sizes: list[float] = []
    for picture in (images.detach() * 255.0).round().to("cpu", torch.uint8).numpy():
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY)
        sizes.append(-file.tell() / pixels)
    return images.new_tensor(sizes)


def _palette(images: Tensor, palette: Palette) -> Tensor:
    shown, wanted = lab(images), lab(images.new_tensor(palette))
    nearest = _length(shown - wanted[0])
    for colour in wanted[1:]:  # one at a time: a table of all distances would be large
        nearest = torch.minimum(nearest, _length(shown - colour))
    return -nearest.flatten(1).mean(dim=1)


@dataclass(frozen=True)
class Statistic:
    """A row of STATISTICS.

    Attributes:
        measure: (pictures (B, H, W, 3) float32 0 to 1, palette) -> (B,).
        measures: What a higher value means.
        low: Lowest value, or -inf.
        high: Highest value, or +inf.
        scale: Typical difference between pictures of one prompt; 0 where it is not known.
        has_gradient: Whether it can be differentiated.
    """

    measure: Callable[[Tensor, Palette], Tensor]
    measures: str
    low: float
    high: float
    scale: float = 0.0
    has_gradient: bool = True


STATISTICS: Mapping[str, Statistic] = {
    "sharpness": Statistic(
        _sharpness, "variance of the Laplacian of luma, in 8-bit units", 0.0, 16.0 * 255.0**2
    ),
    "brightness": Statistic(_brightness, "mean luma, 0 black to 1 white", 0.0, 1.0, 0.1),
    "contrast": Statistic(_contrast, "standard deviation of luma", 0.0, 0.5, 0.05),
    "colourfulness": Statistic(
        _colourfulness,
        "colourfulness of Hasler and Suesstrunk, 0 grey to 109 extremely colourful",
        0.0,
        float("inf"),
        15.0,
    ),
    "compressibility": Statistic(
        _compressibility,
        "minus the bytes per pixel of the picture as a JPEG of quality 95",
        -float("inf"),
        0.0,
        has_gradient=False,
    ),
    "palette": Statistic(
        _palette,
        "minus the mean distance of the pixels from the nearest colour of the palette, CIE 1976",
        -float("inf"),
        0.0,
        10.0,
    ),
}
"""Name to what it is. Scales: a step of the sources' own verbal ratings, where there is one."""


def parse_palette(text: str) -> Palette:
    """Read colours.

    Args:
        text: "#rrggbb" or "#rgb", the # optional, separated by spaces, commas or newlines.

    Returns:
        The colours.

    Raises:
        ValueError: None, or one that is not understood; the message names it.
    """
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    if not words:
        raise ValueError(
            "the palette is empty. Write colours such as '#1d3557 #e63946 #f1faee', or connect a "
            "picture to take them from."
        )
    colours: list[tuple[float, float, float]] = []
    for word in words:
        digits = word.removeprefix("#")
        if not re.fullmatch(r"[0-9a-fA-F]{3}|[0-9a-fA-F]{6}", digits):
            raise ValueError(
                f"'{word}' in the palette is not a colour. Write six hexadecimal digits for red, "
                "green and blue, such as '#e63946', or three."
            )
        if len(digits) == 3:
            digits = "".join(2 * digit for digit in digits)
        r, g, b = (int(digits[i : i + 2], 16) / 255.0 for i in (0, 2, 4))
        colours.append((r, g, b))
    return tuple(colours)


def palette_of(picture: Tensor, count: int = 8) -> Palette:
    """Take the main colours of a picture, by PIL's median cut.

    Args:
        picture: Shape (H, W, 3 or 4), 0 to 1.
        count: Most colours, 1 to 256.

    Returns:
        At most `count` colours.

    Raises:
        ValueError: Not a finite picture.
    """
    check_images(picture[None], "The palette's picture")
    pixels = (picture[..., :3].detach().clamp(0.0, 1.0) * 255.0).round().to("cpu", torch.uint8)
    cut = Image.fromarray(pixels.numpy()).quantize(count)
    used: NDArray[np.uint8] = np.unique(np.asarray(cut))
    flat = cast("list[int]", cut.getpalette())
    table = [[level / 255.0 for level in flat[3 * i : 3 * i + 3]] for i in used.tolist()]
    return tuple((r, g, b) for r, g, b in table)


@dataclass(frozen=True)
class ImageStatistic(Assessed):
    """A statistic of the pixels.

    Args:
        statistic: Key of STATISTICS.
        direction: "higher" (the value), "lower" (its opposite), "target" (minus the distance).
        target: Wanted value, in the statistic's unit; for "target" only.
        palette: Wanted colours; for "palette" only, at least one.

    Raises:
        ValueError: An unknown name, a target that is not finite or that the statistic
            cannot have, or no palette.
    """

    statistic: str
    direction: str = "higher"
    target: float = 0.0
    palette: Palette = ()

    def __post_init__(self) -> None:
        for value, known in ((self.statistic, tuple(STATISTICS)), (self.direction, DIRECTIONS)):
            if value not in known:
                raise ValueError(f"'{value}' is not one of {', '.join(known)}; choose one of these")
        if not abs(self.target) < float("inf"):
            raise ValueError(f"the target is {self.target}; it must be a finite number")
        row = STATISTICS[self.statistic]
        if self.direction == "target" and not row.low <= self.target <= row.high:
            raise ValueError(
                f"the target is {self.target:g}, and {self.statistic} lies from {row.low:g} to "
                f"{row.high:g}; set the direction's value to one that it can have"
            )
        if self.statistic == "palette" and not self.palette:
            raise ValueError("the statistic palette needs at least one colour; none was given")

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        row = STATISTICS[self.statistic]
        low, high, measures = row.low, row.high, row.measures
        if self.direction == "lower":
            low, high, measures = -row.high, -row.low, f"the opposite of: {measures}"
        elif self.direction == "target":
            farthest = max(abs(row.low - self.target), abs(row.high - self.target))
            low, high = -farthest, 0.0
            measures = f"minus the distance from {self.target:g} of: {measures}"
        return RewardSpec(
            name="image_statistic",
            measures=measures,
            low=low,
            high=high,
            scale=row.scale,
            has_gradient=row.has_gradient,
        )

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures, with the statistic's own value whatever the direction.

        Args:
            images: As for score.

        Returns:
            Values, and the statistic as a part and a note.
        """
        check_images(images, "Image Statistic")
        found = self._measured(images.float())
        values = self._directed(found)
        numbers = [float(number) for number in found.detach()]
        return Assessment(
            values,
            [{self.statistic: number} for number in numbers],
            [f"{self.statistic} {number:.4g}" for number in numbers],
        )

    def gradient(self, images: Tensor) -> Gradient:
        """Differentiate the value; see rewards/gradient.py.

        Args:
            images: As for score.

        Returns:
            Values and gradients; of a picture whose values are all the same, 0 where the statistic
            is a length, a spread or a distance that is 0 there.

        Raises:
            ValueError: The statistic has none, or not a batch of finite pictures.
        """
        if why := self.why_no_gradient():
            raise ValueError(f"image_statistic has no gradient: {why}.")
        check_images(images, "Image Statistic")
        return value_and_gradient(lambda rows: self._directed(self._measured(rows)), images)

    def why_no_gradient(self) -> str:
        """Say why the statistic cannot be differentiated; "" where it can."""
        if STATISTICS[self.statistic].has_gradient:
            return ""
        smooth = ", ".join(name for name, row in STATISTICS.items() if row.has_gradient)
        return f"{self.statistic} counts the bytes of a file; {smooth} can be differentiated"

    def _measured(self, images: Tensor) -> Tensor:
        """The statistic's own value of pictures (B, H, W, C), (B,)."""
        wide = images if images.dtype is torch.float64 else images.float()
        pictures = wide[..., :3].clamp(0.0, 1.0)
        measure = STATISTICS[self.statistic].measure
        return measure(pictures, self.palette) if len(pictures) else pictures.new_zeros(0)

    def _directed(self, found: Tensor) -> Tensor:
        """The reward of the statistic's values."""
        if self.direction == "lower":
            return -found
        return -(found - self.target).abs() if self.direction == "target" else found
