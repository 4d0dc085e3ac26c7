"""What do the true shapes look like: their colours, their outlines, and how they are drawn?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "PAINT", "SHAPES", "Counts", "Floats", "clipped", "cover"]

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.88, 0.12, 0.12),
    "green": (0.10, 0.62, 0.18),
    "blue": (0.12, 0.22, 0.88),
    "yellow": (0.95, 0.80, 0.08),
    "purple": (0.58, 0.12, 0.72),
}
SHAPES: Mapping[str, float] = {"circle": np.pi / 4, "square": 1.0, "triangle": 0.5}
"""Kinds of shapes and the share of its own width x height that each fills."""

Counts = Mapping[tuple[str, str], int]
"""(colour, shape) to how many."""

Floats = NDArray[np.float32]

PAINT = 0.04
"""How much a channel of a true shape's paint may differ from its colour's."""


def clipped(share: NDArray[Any]) -> Floats:
    """Return shares within 0 to 1."""
    return np.minimum(np.maximum(share, 0.0), 1.0)


def cover(
    shape: str,
    x: float,
    y: float,
    radius: float,
    size: tuple[int, int],
    corner: tuple[int, int] = (0, 0),
) -> Floats:
    """Draw a shape with a soft edge of one pixel.

    Args:
        shape: One of SHAPES.
        x: Centre, in pixels of the picture.
        y: Centre, downwards. For a triangle .05 of its height below half of it.
        radius: Of the disc that has the shape's area.
        size: Rows and columns to draw.
        corner: Row and column of the first of them.

    Returns:
        How much of each pixel is covered, 0 to 1, shape (rows, columns).
    """
    rows = np.arange(corner[0], corner[0] + size[0], dtype=np.float32) + np.float32(0.5)
    columns = np.arange(corner[1], corner[1] + size[1], dtype=np.float32) + np.float32(0.5)
    dx, dy = columns[None, :] - np.float32(x), rows[:, None] - np.float32(y)
    if shape == "circle":
        distance = np.sqrt(dx * dx + dy * dy) - np.float32(radius)
    elif shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - np.float32(radius * 0.886)
    else:
        height = radius * 2.33
        base = dy - np.float32(height * 0.45)
        sides = np.abs(dx) * np.float32(0.8660254)
        sides = sides - (dy + np.float32(height * 0.55)) * np.float32(0.5)
        distance = np.maximum(base, sides)
    return clipped(0.5 - distance)
