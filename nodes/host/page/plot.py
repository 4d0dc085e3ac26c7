"""Drawing: axes, lines and bars, with what the host has (Pillow)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["COLOURS", "INK", "Axes", "as_image", "font", "ticks"]

INK, GRID = (40, 40, 40), (222, 222, 222)
COLOURS = [(31, 119, 180), (214, 90, 20), (44, 140, 60), (148, 80, 180), (120, 90, 70)]


@dataclass(frozen=True)
class Axes:
    """A rectangle of a picture with a scale on both sides.

    Attributes:
        draw: Where to draw.
        box: left, top, right, bottom in pixels.
        x: Values at left and right.
        y: Values at bottom and top.
        ink: Colour of axes and words.
        grid: Colour of the grid.
        small: Size of numbers; titles are four larger.
    """

    draw: ImageDraw.ImageDraw
    box: tuple[int, int, int, int]
    x: tuple[float, float]
    y: tuple[float, float]
    ink: tuple[int, int, int] = INK
    grid: tuple[int, int, int] = GRID
    small: int = 18

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        left, top, right, bottom = self.box
        return (
            left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (right - left),
            bottom - (y - self.y[0]) / (self.y[1] - self.y[0]) * (bottom - top),
        )

    def frame(self, title: str, x_label: str) -> None:
        """Draw grid, numbers and titles."""
        left, top, right, bottom = self.box
        letters = font(self.small)
        for value in ticks(*self.y):
            _, y = self.at(self.x[0], value)
            self.draw.line([(left, y), (right, y)], fill=self.grid)
            self.draw.text((left - 8, y), f"{value:g}", self.ink, letters, anchor="rm")
        for value in ticks(*self.x):
            x, _ = self.at(value, self.y[0])
            self.draw.text((x, bottom + 8), f"{value:g}", self.ink, letters, anchor="ma")
        self.draw.line([(left, top), (left, bottom), (right, bottom)], fill=self.ink, width=2)
        self.draw.text((left, top - 14), title, self.ink, font(self.small + 4), anchor="ls")
        middle = (left + right) / 2
        below = bottom + self.small + 16
        self.draw.text((middle, below), x_label, self.ink, letters, anchor="ma")

    def stairs(self, points: Sequence[tuple[float, float]], colour: tuple, width: int = 3) -> None:
        """Draw values that hold until the next one, on to the right edge."""
        path: list[tuple[float, float]] = []
        for x, y in points:
            if path:
                path.append((self.at(x, 0.0)[0], path[-1][1]))
            path.append(self.at(x, y))
        if path:
            path.append((self.box[2], path[-1][1]))
            self.draw.line(path, fill=colour, width=width)

    def line(self, points: Sequence[tuple[float, float]], colour: tuple, width: int = 3) -> None:
        """Draw straight lines between points, and the points."""
        path = [self.at(x, y) for x, y in points]
        self.draw.line(path, fill=colour, width=width)
        for x, y in path:
            self.draw.ellipse([x - width, y - width, x + width, y + width], fill=colour)

    def dashes(self, y: float, colour: tuple) -> None:
        """Draw a broken line across."""
        left, _, right, _ = self.box
        level = self.at(self.x[0], y)[1]
        for x in range(left, right, 14):
            self.draw.line([(x, level), (min(x + 7, right), level)], fill=colour, width=2)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font."""
    return ImageFont.load_default(size)


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two values.

    Args:
        low: One end.
        high: Other end.

    Returns:
        Multiples of 1, 2, 2.5 or 5 times a power of ten.
    """
    low, high = min(low, high), max(low, high)
    rough = (high - low) / 5
    power = 10.0
    while power > rough:
        power /= 10.0
    while power * 10.0 <= rough:
        power *= 10.0
    step = next((m * power for m in (1.0, 2.0, 2.5, 5.0) if m * power >= rough), 10.0 * power)
    first = int(low // step) - 1
    values = [round(step * n, 10) for n in range(first, first + 14)]
    return [value for value in values if low - 1e-9 <= value <= high + 1e-9]


def as_image(picture: Image.Image) -> Tensor:
    """Turn a drawing into an IMAGE.

    Args:
        picture: RGB.

    Returns:
        Shape (1, H, W, 3), 0 to 1.
    """
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)[None]
