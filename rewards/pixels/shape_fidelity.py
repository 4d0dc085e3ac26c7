"""Are the drawn shapes true shapes? Each patch of colour against the best circle, square, triangle.

A patch is redrawn as the ideal shape with its centre of mass and its area, of the kind that agrees
best, in a paint within what true scenes vary it by. With the picture P, the redrawn one R and the
background B around the patch,

    d = sum |P - R| / (sum |P - B| + sum |R - B|)     0: nothing to correct, 1: nothing in common
    fidelity of a patch = (1 - d) / (1 + d)           for soft covers the overlap over the union

so edges, outline, colour and haze count alike. The reward is the mean over the patches, however
many there are; it is blind to what should have been drawn. Made to be held out of a search for
counts: what the count misses is here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from ..base import RewardSpec, check_images
from .shape_count import COLOURS, SHAPES, SMALLEST, Component, Floats, patches_of

__all__ = ["ShapeFidelity", "cover", "fidelity"]

PAINT = 0.04
"""How much a channel of a true shape's paint may differ from its colour's."""

REACH = 3
"""Pixels around a patch that are compared too: its soft edge, and haze."""

_KINDS = tuple(SHAPES)


def _clipped(share: NDArray[Any]) -> Floats:
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
    return _clipped(0.5 - distance)


@dataclass(frozen=True, eq=False)
class Patch:
    """A component with what surrounds it.

    Attributes:
        corner: Row and column of the window's first pixel.
        drawn: The window (h, w, 3), with what belongs to other components painted over.
        background: Colour around it, (3,).
        colour: What the component's colour should be, (3,).
    """

    corner: tuple[int, int]
    drawn: Floats
    background: Floats
    colour: Floats

    def ink(self) -> Floats:
        """How much of each pixel of the window is painted in the colour, 0 to 1."""
        paint = self.colour - self.background
        share = (self.drawn - self.background) @ paint / np.float32(paint @ paint)
        return _clipped(share)


def fidelity(picture: Floats) -> float:
    """Return how true the shapes of one picture are.

    Args:
        picture: Shape (H, W, 3), 0 to 1.

    Returns:
        Mean over its patches of colour, 0 to 1; specks count in proportion to their area and have
        no fidelity of their own. 0 for a picture without patches.
    """
    found = patches_of(picture)
    total = weight = 0.0
    for area in found.areas:
        weight += min(1.0, area / SMALLEST)
    for patch in _patches(picture, found.solid, found.shapes):
        total += max(_agreement(patch, kind) for kind in _KINDS)
    return total / weight if weight else 0.0


def _patches(
    picture: Floats, solid: NDArray[np.bool_], found: Sequence[Component]
) -> Iterator[Patch]:
    """Give each component the pixels that are nearest to it, and not to a speck."""
    owner = np.where(solid, len(found), -1)
    for index, part in enumerate(found):
        owner[part.box][part.here] = index
    if not found:
        return
    find: Any = ndimage
    distance, nearest = cast(
        "tuple[NDArray[np.float64], NDArray[np.int32]]",
        find.distance_transform_edt(owner < 0, return_indices=True),
    )
    owner = np.where(distance <= REACH, owner[nearest[0], nearest[1]], -1)
    away = picture[owner < 0]
    background = np.median(away, axis=0) if len(away) else np.ones(3)
    background = background.astype(np.float32)
    for index, part in enumerate(found):
        rows, columns = (slice(max(side.start - REACH, 0), side.stop + REACH) for side in part.box)
        own = (owner[rows, columns] == index)[..., None]
        drawn = np.where(own, picture[rows, columns], background)
        colour = np.array(COLOURS[part.colour], dtype=np.float32)
        corner = (int(rows.start), int(columns.start))
        yield Patch(corner, cast("Floats", drawn), background, colour)


def _agreement(patch: Patch, kind: str) -> float:
    """Compare a patch with the best shape of a kind."""
    ideal = _fitted(patch, kind)[..., None]
    away = patch.drawn - patch.background
    paint = (ideal * away).sum(axis=(0, 1)) / max(float((ideal * ideal).sum()), 1e-6)
    named = patch.colour - patch.background
    redrawn = ideal * np.minimum(np.maximum(paint, named - PAINT), named + PAINT)
    wrong = float(np.abs(away - redrawn).sum())
    right = float(np.abs(away).sum() + np.abs(redrawn).sum())
    return max(0.0, (right - wrong) / (right + wrong))


def _fitted(patch: Patch, kind: str) -> Floats:
    """Return the cover of the shape of a kind with a patch's centre of mass and area."""
    ink = patch.ink()
    find: Any = ndimage
    row, column = cast("tuple[float, float]", find.center_of_mass(ink))
    x, y = patch.corner[1] + column + 0.5, patch.corner[0] + row + 0.5
    radius = math.sqrt(float(ink.sum()) / math.pi)
    if kind == "triangle":
        y -= (0.45 - 1.0 / 3.0) * 2.33 * radius  # from its centre of mass
    return cover(kind, x, y, radius, (ink.shape[0], ink.shape[1]), patch.corner)


@dataclass(frozen=True)
class ShapeFidelity:
    """How true the shapes are, whatever their number."""

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="shape_fidelity",
            measures="how nearly every coloured patch is a true circle, square or triangle",
            low=0.0,
            high=1.0,
            scale=0.1,  # 5 % to 95 % of plain samples of the embedded model
            input_size=(64, 64),
        )

    def score(self, images: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images: Shape (B, H, W, C), 0 to 1.

        Returns:
            Shape (B,), float32, 0 to 1.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Shape Fidelity")
        pictures = images[..., :3].detach().to("cpu", torch.float32).numpy()
        scores = [fidelity(picture) for picture in pictures]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)
