"""Is every colour where it should be? Mean colours of places against those of a drawing.

A picture and a drawing are averaged over grid x grid places, whatever their sizes, each pixel by
its weight. With the difference D_i = (R, G, B) of the two at place i, M_i the mean of its three
numbers, w_i the place's weight and a the share of colour against brightness,

    d_i^2 = 2 (1 - a) M_i^2 + 2 a mean((D_i - M_i)^2)
    reward = - sqrt(sum_i w_i d_i^2 / sum_i w_i)

At a = 1/2 that is the root mean square difference. 0 is the drawing, place by place; what is finer
than a place is not seen, so that the model is free there. The root's gradient is taken as 0 at 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import ImageColor
from torch import Tensor
from torch.nn import functional

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..gradient import Gradient, value_and_gradient
from ..prompts.long_text import check_length, shown

__all__ = ["MOST_BOXES", "MOST_PLACES", "Box", "Layout", "drawn", "parse_boxes"]

MOST_PLACES = 64
"""Places along a side."""
MOST_BOXES = 256
CANVAS = 512
"""Side of the drawing that boxes are painted on."""
LONGEST_WORD = 32
"""Characters of a number."""
THINNEST = 1e-6
"""Part of a pixel that a box covers at least, where it covers most."""

_KNOWN = (
    "Write one box a line: a colour (a name of CSS such as red, or #rrggbb), then its left, top, "
    "right and bottom as parts of the picture from 0 to 1, such as 'red 0.1 0.2 0.4 0.5'; or "
    "'background white' for all that no box covers."
)


@dataclass(frozen=True)
class Box:
    """A coloured rectangle.

    Attributes:
        colour: Red, green, blue, 0 to 1.
        left: As a part of the width, 0 to 1, like the others below right.
        top: As a part of the height, 0 to 1, below bottom.
        right: See left.
        bottom: See top.

    Example:
        >>> Box((1.0, 0.0, 0.0)).right
        1.0
    """

    colour: tuple[float, float, float]
    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0


def parse_boxes(text: str) -> tuple[Box, ...]:
    """Read boxes, one a line; a background is a box of the whole picture, below the others.

        line = colour left top right bottom | "background" colour

    Args:
        text: From a person, or from a file of anybody.

    Returns:
        The boxes, in the order in which they are painted.

    Raises:
        ValueError: None, too many, or a line that is not understood; the message quotes it.

    Example:
        >>> parse_boxes("#ff0000 0.5 0 1 1")
        (Box(colour=(1.0, 0.0, 0.0), left=0.5, top=0.0, right=1.0, bottom=1.0),)
    """
    check_length(text, "boxes", f"At most {MOST_BOXES} boxes are read.")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or len(lines) > MOST_BOXES:
        raise ValueError(
            f"{len(lines)} boxes are given; a layout has 1 to {MOST_BOXES}, one a line. {_KNOWN}"
        )
    below: list[Box] = []
    boxes: list[Box] = []
    for line in lines:
        words = re.split(r"[\s,]+", line)
        if words[0].lower() == "background" and len(words) == 2:
            below.append(Box(_colour(words[1], line)))
        elif len(words) == 5:
            left, top, right, bottom = (_part(word, line) for word in words[1:])
            if not (left < right and top < bottom):
                raise ValueError(
                    f"the box '{shown(line)}' is empty: left must be below right, and top below "
                    f"bottom. {_KNOWN}"
                )
            boxes.append(Box(_colour(words[0], line), left, top, right, bottom))
        else:
            raise ValueError(f"'{shown(line)}' is not a box: it has {len(words)} words. {_KNOWN}")
    if len(below) > 1:
        raise ValueError(f"{len(below)} backgrounds are given; at most one. {_KNOWN}")
    return (*below, *boxes)


def _colour(word: str, line: str) -> tuple[float, float, float]:
    name = word.lower()
    if not (re.fullmatch(r"#([0-9a-f]{3}|[0-9a-f]{6})", name) or name in ImageColor.colormap):
        raise ValueError(f"'{shown(word)}' in '{shown(line)}' is not a colour. {_KNOWN}")
    r, g, b = (level / 255.0 for level in ImageColor.getrgb(name)[:3])
    return r, g, b


def _part(word: str, line: str) -> float:
    known = len(word) <= LONGEST_WORD and re.fullmatch(r"[0-9]+(\.[0-9]*)?|\.[0-9]+", word)
    if not known or not 0.0 <= float(word) <= 1.0:
        raise ValueError(
            f"'{shown(word)}' in '{shown(line)}' is not a number from 0 to 1. {_KNOWN}"
        )
    return float(word)


def drawn(
    boxes: Sequence[Box], size: int = CANVAS, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Paint boxes, later ones over earlier ones, and say where anything is asked for.

    Args:
        boxes: At least one.
        size: Side of the drawing, in pixels.
        mask: Where the boxes count, shape (h, w); None for everywhere.

    Returns:
        Drawing (size, size, 3), the mean colour of what is painted on a pixel, white where nothing
        is, and weights (size, size): how much of a pixel is painted, times the mask.

    Raises:
        ValueError: A box that is too thin to cover anything.

    Example:
        >>> drawing, weights = drawn([Box((1.0, 0.0, 0.0), right=0.5)], 4)
        >>> drawing[0, :, 1].tolist(), weights[0].tolist()
        ([0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0])
    """
    paint = torch.zeros(size, size, 4, dtype=torch.float64)  # colours times coverage, and coverage
    edges = torch.arange(size, dtype=torch.float64)
    for box in boxes:
        columns = (box.right * size - edges).clamp(0, 1) - (box.left * size - edges).clamp(0, 1)
        rows = (box.bottom * size - edges).clamp(0, 1) - (box.top * size - edges).clamp(0, 1)
        share = rows[:, None] * columns
        if float(share.max()) < THINNEST:
            raise ValueError(
                f"the box from left {box.left:.9g}, top {box.top:.9g} to right {box.right:.9g}, "
                f"bottom {box.bottom:.9g} is too thin to cover anything of a drawing {size} pixels "
                "wide: make it wider or higher"
            )
        paint = paint + share[..., None] * (torch.tensor((*box.colour, 1.0)).to(paint) - paint)
    covered = paint[..., 3:]
    drawing = torch.where(covered > 0.0, paint[..., :3] / covered, 1.0).float()
    weights = covered[..., 0].float()
    return drawing, weights if mask is None else weights * _stretched(mask.float(), (size, size))


def _stretched(weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Weights (h, w) at another size."""
    whole = functional.interpolate(weights[None, None], size, mode="bilinear", antialias=True)
    return whole[0, 0].clamp_min(0.0)


@dataclass(frozen=True, eq=False)
class Layout(Assessed):
    """Minus the distance of a picture's mean colours to a drawing's, place by place.

    Args:
        drawing: Shape (H, W, 3 or 4), 0 to 1, of any size.
        weights: Where it counts and how much, shape (h, w), at least 0; None for everywhere.
        grid: Places along each side, 1 to MOST_PLACES.
        colour: Share of colour against brightness, 0 to 1; 0.5 for both alike.

    Raises:
        ValueError: Not a finite picture, weights of another form or 0 everywhere, or numbers out of
            range.

    Example:
        >>> reward = Layout(torch.zeros(8, 8, 3), grid=2)
        >>> reward.score(torch.full((1, 16, 12, 3), 0.5))
        tensor([-0.5000])
    """

    drawing: Tensor
    weights: Tensor | None = None
    grid: int = 8
    colour: float = 0.5

    def __post_init__(self) -> None:
        """Check the settings."""
        check_images(self.drawing[None], "Layout Reward (drawing)")
        if not 1 <= self.grid <= MOST_PLACES or not 0.0 <= self.colour <= 1.0:
            raise ValueError(
                f"Layout Reward was given a grid of {self.grid} and a share of colour of "
                f"{self.colour}; the grid is 1 to {MOST_PLACES} places a side, the share 0 to 1"
            )
        weights = self.weights
        if weights is None:
            return
        if weights.ndim != 2 or not weights.numel() or not weights.is_floating_point():
            raise ValueError(
                f"Layout Reward was given weights of shape {tuple(weights.shape)} and type "
                f"{weights.dtype}; a mask has (height, width), 0 to 1"
            )
        if not bool((weights.isfinite() & (weights >= 0.0)).all()) or not bool(weights.any()):
            raise ValueError(
                "the mask of Layout Reward is empty, negative or not finite, so the layout counts "
                "nowhere. Paint where it should count, or connect none."
            )

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="layout",
            measures=f"minus the distance of mean colours on {self.grid} x {self.grid} places from "
            "a drawing's",
            low=-math.sqrt(2.0 * max(self.colour, 1.0 - self.colour)),
            high=0.0,
            scale=0.1,  # of the embedded model, between plain samples and the best of a search
            has_gradient=True,
        )

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures, and say where they are farthest from the drawing.

        Args:
            images: As for score.

        Returns:
            Values, and as notes the farthest place.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Layout Reward")
        each = self._differences(images.float())
        farthest = each.detach().square().sum(dim=-1).flatten(1)
        places = [divmod(int(row.argmax()), self.grid) for row in farthest]
        notes = [f"farthest at row {y + 1}, column {x + 1} of {self.grid}" for y, x in places]
        return Assessment(self._joined(each), notes=notes, parts=[{} for _ in notes])

    def gradient(self, images: Tensor) -> Gradient:
        """Differentiate the value; see rewards/gradient.py.

        Args:
            images: As for score.

        Returns:
            Values and gradients; 0 where the picture is the drawing.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Layout Reward")
        return value_and_gradient(lambda rows: self._joined(self._differences(rows)), images)

    def _differences(self, images: Tensor) -> Tensor:
        """Differences of pictures (B, H, W, C) from the drawing, weighted: (B, grid, grid, 3)."""
        wide = images if images.dtype is torch.float64 else images.float()
        means, weights = self._places(wide)
        wanted, asked = (part.to(wide) for part in self._wanted)
        weights = weights * asked  # at other sizes a mask's edge may reach another place
        apart = (means - wanted) * weights.sqrt()[..., None]
        grey = apart.mean(dim=-1, keepdim=True)
        brightness, colour = (math.sqrt(2.0 * a) for a in (1.0 - self.colour, self.colour))
        return (brightness * grey + colour * (apart - grey)) / weights.sum().sqrt()

    def _joined(self, differences: Tensor) -> Tensor:
        algebra: Any = torch.linalg
        values: Tensor = algebra.vector_norm(differences.flatten(1), dim=1)
        return -values / math.sqrt(3.0)

    @cached_property
    def _wanted(self) -> tuple[Tensor, Tensor]:
        """Mean colours of the drawing (1, grid, grid, 3), and which places count (grid, grid)."""
        with torch.inference_mode(False):
            means, weights = self._places(self.drawing[None].detach().clone().double())
            return means, weights > 0.0

    def _places(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean colours (B, grid, grid, 3) and weights (grid, grid) of the places of pictures."""
        planes = images[..., :3].clamp(0.0, 1.0).permute(0, 3, 1, 2)
        pool = functional.adaptive_avg_pool2d
        if self.weights is None:
            weights = planes.new_ones(self.grid, self.grid)
            return pool(planes, self.grid).permute(0, 2, 3, 1), weights
        given = self.weights.detach().clone().to(planes)
        share = _stretched(given, (planes.shape[2], planes.shape[3]))[None]
        weights = pool(share, self.grid)
        # however little a place counts, its mean is that of what counts
        means = pool(planes * share, self.grid) / torch.where(weights > 0.0, weights, 1.0)
        return means.permute(0, 2, 3, 1), weights[0]
