"""Are the drawn shapes true shapes? Each patch of colour against the best circle, square, triangle.

A patch is redrawn as the ideal shape with its centre of mass and its area, of the kind that agrees
best, in a paint within what true scenes vary it by. With the picture P, the redrawn one R and the
background B around the patch,

    d = sum |P - R| / (sum |P - B| + sum |R - B|)     0: nothing to correct, 1: nothing in common
    fidelity of a patch = (1 - d) / (1 + d)           for soft covers the overlap over the union

so edges, outline, colour and haze count alike. The reward is the mean over the patches, however
many there are; it is blind to what should have been drawn. Made to be held out of a search for
counts: what the count misses is here.

Its gradient is that of the same formula with R and B left as they are, where sizes, places and
paints are rounded, so that small changes of the picture leave them: a smooth function that stands
in, a few hundredths from the reward.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from ..base import RewardSpec, check_images
from ..gradient import Gradient, value_and_gradient
from .shape_count import SMALLEST, Component, patches_of
from .true_shapes import COLOURS, PAINT, SHAPES, Floats, clipped, cover

__all__ = ["ShapeFidelity", "cover", "fidelity"]

REACH = 3
"""Pixels around a patch that are compared too: its soft edge, and haze."""

COARSE, FINE = 8.0, 64.0
"""Steps of a pixel and of a level to which what stands still is rounded."""

_KINDS = tuple(SHAPES)


@dataclass(frozen=True, eq=False)
class Patch:
    """A component with what surrounds it.

    Attributes:
        corner: Row and column of the window's first pixel.
        drawn: The window (h, w, 3), with what belongs to other components painted over.
        background: Colour around it, (3,).
        colour: What the component's colour should be, (3,).
        own: Which pixels of the window are its own, (h, w, 1).
    """

    corner: tuple[int, int]
    drawn: Floats
    background: Floats
    colour: Floats
    own: NDArray[np.bool_]

    def ink(self) -> Floats:
        """How much of each pixel of the window is painted in the colour, 0 to 1."""
        paint = self.colour - self.background
        share = (self.drawn - self.background) @ paint / np.float32(paint @ paint)
        return clipped(share)


def fidelity(picture: Floats) -> float:
    """Return how true the shapes of one picture are.

    Args:
        picture: Shape (H, W, 3), 0 to 1.

    Returns:
        Mean over its patches of colour, 0 to 1; specks count in proportion to their area and have
        no fidelity of their own. 0 for a picture without patches.
    """
    found = patches_of(picture)
    total, weight = 0.0, _weight(found.areas)
    for patch in _patches(picture, found.solid, found.shapes):
        total += max(_agreement(patch, _redrawn(patch, kind)) for kind in _KINDS)
    return total / weight if weight else 0.0


def _weight(areas: Sequence[float]) -> float:
    """How many patches there are; a speck is a part of one."""
    return sum(min(1.0, area / SMALLEST) for area in areas)


def _patches(
    picture: Floats, solid: NDArray[np.bool_], found: Sequence[Component], still: bool = False
) -> Iterator[Patch]:
    """Give each component the pixels that are nearest to it, and not to a speck.

    Still: the background is rounded.
    """
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
    if still:
        background = cast("Floats", np.round(background * FINE) / FINE)
    for index, part in enumerate(found):
        rows, columns = (slice(max(side.start - REACH, 0), side.stop + REACH) for side in part.box)
        own = (owner[rows, columns] == index)[..., None]
        drawn = np.where(own, picture[rows, columns], background)
        colour = np.array(COLOURS[part.colour], dtype=np.float32)
        corner = (int(rows.start), int(columns.start))
        yield Patch(corner, cast("Floats", drawn), background, colour, own)


def _redrawn(patch: Patch, kind: str, still: bool = False) -> Floats:
    """Draw the best shape of a kind in the best paint, without the background; still: rounded."""
    ideal = _fitted(patch, kind, still)[..., None]
    away = patch.drawn - patch.background
    paint = (ideal * away).sum(axis=(0, 1)) / max(float((ideal * ideal).sum()), 1e-6)
    named = patch.colour - patch.background
    paint = np.minimum(np.maximum(paint, named - PAINT), named + PAINT)
    return ideal * (np.round(paint * FINE) / FINE if still else paint).astype(np.float32)


def _agreement(patch: Patch, redrawn: Floats) -> float:
    """Compare a patch with what it is redrawn as."""
    away = patch.drawn - patch.background
    wrong = float(np.abs(away - redrawn).sum())
    right = float(np.abs(away).sum() + np.abs(redrawn).sum())
    return max(0.0, (right - wrong) / (right + wrong))


def _fitted(patch: Patch, kind: str, still: bool) -> Floats:
    """Return the cover of the shape of a kind with a patch's centre of mass and area."""
    ink = patch.ink()
    find: Any = ndimage
    row, column = cast("tuple[float, float]", find.center_of_mass(ink))
    x, y = patch.corner[1] + column + 0.5, patch.corner[0] + row + 0.5
    radius = math.sqrt(float(ink.sum()) / math.pi)
    if kind == "triangle":
        y -= (0.45 - 1.0 / 3.0) * 2.33 * radius  # from its centre of mass
    if still:
        x, y, radius = (round(each * COARSE) / COARSE for each in (x, y, radius))
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
            has_gradient=True,
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

    def gradient(self, images: Tensor) -> Gradient:
        """Differentiate what stands in for the fidelity; see the module and rewards/gradient.py.

        Args:
            images: As for score.

        Returns:
            Values and gradients of the stand-in; 0 for a picture without patches.

        Raises:
            ValueError: As for score.
        """
        check_images(images, "Shape Fidelity")
        return value_and_gradient(_stand_in, images)


def _stand_in(images: Tensor) -> Tensor:
    """The fidelity of pictures (B, H, W, C) by redrawn shapes that stand still, (B,)."""
    wide = images if images.dtype is torch.float64 else images.float()
    pictures = wide[..., :3].clamp(0.0, 1.0)
    return torch.stack([_of_still(picture) for picture in pictures])


def _of_still(picture: Tensor) -> Tensor:
    array = picture.detach().to("cpu", torch.float32).numpy()
    found = patches_of(array)
    total, weight = picture.sum() * 0.0, _weight(found.areas)
    for patch in _patches(array, found.solid, found.shapes, still=True):
        drawings = [_redrawn(patch, kind, still=True) for kind in _KINDS]
        best = torch.as_tensor(max(drawings, key=partial(_agreement, patch))).to(picture)
        top, left = patch.corner
        window = picture[top : top + best.shape[0], left : left + best.shape[1]]
        away = window - torch.as_tensor(patch.background).to(picture)
        away = away * torch.as_tensor(patch.own).to(picture)
        wrong, right = (away - best).abs().sum(), away.abs().sum() + best.abs().sum()
        total = total + ((right - wrong) / (right + wrong)).clamp_min(0.0)
    return total / weight if weight else total
