"""Which right picture is the nearest? A scene of the wanted shapes, drawn over what is there.

Counts go in steps, so nothing says how a picture should change for a better one. The distance to
the nearest picture with the right counts does: where a shape is missing it is least where one half
stands already, a surplus one is drawn over by a missing one of its place, or by background.

    gain of kind k at p = sum |P - B|^2 - |P - B - cover_p (c_k - B)|^2
                        = 2 (cover * m_k)(p) - |c_k - B|^2 sum cover^2,     m_k = (P - B).(c_k - B)

B is the background, c_k the kind's colour, cover_p the kind's shape at p. Places are chosen for the
largest sum of gains such that shapes do not touch: greedily, then each in turn is moved to where it
is better off, and the kinds are dealt out anew over the places. Then each shape takes the middle,
the size and the paint of what is drawn there. A nearer scene may exist: what is minimised is the
distance to the one that was found. Places and sizes are rounded, so that small changes of the
picture leave them, and the paint is the best one: the gradient of the squared distance to the scene
as if that stood still is then the gradient itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor
from torch.nn import functional

from .true_shapes import COLOURS, PAINT, Counts, Floats, clipped, cover

__all__ = ["fitting", "nearest_scene"]

Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]

AREA = 4096.0
"""Pixels of the pictures whose shapes have these sizes: 64 x 64."""

RADII = (4.7, 4.4, 4.1)
"""Of shapes that are sought; a smaller one where not all of the larger find a place."""

LIGHT = (0.93, 1.0)
"""Of the background of true scenes."""

USUAL, LARGEST = 5.3, 6.4
"""Radius of a shape that is not there yet, and most of one that is."""

SWEEPS = 3
SPACE, GAP = 2.7, 0.8
"""Two shapes do not touch whose middles are SPACE radii and GAP pixels apart, triangles too."""

MASS = 0.45 - 1.0 / 3.0
"""Part of a triangle's height from its middle down to its centre of mass."""

MOVE = 1.5
"""Pixels by which a shape may follow the middle of what is drawn at its place."""


def fitting(images: Tensor) -> Tensor:
    """Bring pictures to the size for which the scenes are made, keeping their proportions.

    Args:
        images: Shape (B, H, W, C), 0 to 1; clamped.

    Returns:
        Shape (B, h, w, 3), h w about AREA, float32, or float64 where they are; differentiable.
    """
    wide = images if images.dtype is torch.float64 else images.float()
    height, width = images.shape[1:3]
    scale = math.sqrt(AREA / (height * width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    pictures = wide[..., :3].clamp(0.0, 1.0)
    if size == (height, width):
        return pictures
    planes = pictures.permute(0, 3, 1, 2)
    resized = functional.interpolate(planes, size, mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1)


def nearest_scene(picture: Floats, wanted: Counts) -> Floats:
    """Draw the wanted shapes where they change a picture least.

    Args:
        picture: Shape (H, W, 3), 0 to 1, of about AREA pixels.
        wanted: How many of each (colour, shape). What finds no place is left out.

    Returns:
        The scene, like the picture.
    """
    middle = np.minimum(np.maximum(np.median(picture, axis=(0, 1)), LIGHT[0]), LIGHT[1])
    background = (np.round(middle * 64.0) / 64.0).astype(np.float32)
    kinds = [key for key, number in wanted.items() if number > 0]
    numbers = [wanted[key] for key in kinds]
    away = cast("Floats", picture - background)
    board = None
    for radius in RADII if kinds else ():
        board = _Board(away, background, kinds, radius)
        board.fill(numbers)
        if len(board.placed) == sum(numbers):
            break
    if board is None:
        return np.broadcast_to(background, picture.shape).astype(np.float32)
    for _ in range(SWEEPS if board.placed else 0):
        if not board.improve():
            break
    return board.drawn(away) + background


class _Board:
    """Places of shapes of one size on a picture."""

    def __init__(
        self, away: Floats, background: Floats, kinds: Sequence[tuple[str, str]], radius: float
    ) -> None:
        """Compute what every kind gains everywhere."""
        self.size = height, width = away.shape[0], away.shape[1]
        self.kinds, self.radius = kinds, radius
        self.paints = [np.array(COLOURS[c], dtype=np.float32) - background for c, _ in kinds]
        gains: list[Doubles] = []
        for (_, shape), paint in zip(kinds, self.paints, strict=True):
            spectrum, square = _stamp(shape, radius, self.size)
            overlap = np.fft.irfft2(np.fft.rfft2(away @ paint) * spectrum, self.size)
            gains.append(2.0 * overlap - float(paint @ paint) * square)
        self.gains = np.stack(gains)
        self.reach = 1.2 * radius + 1.0
        rows = np.arange(height, dtype=np.float64) + 0.5
        columns = np.arange(width, dtype=np.float64) + 0.5
        inside = np.outer(
            (rows >= self.reach) & (rows <= height - self.reach),
            (columns >= self.reach) & (columns <= width - self.reach),
        )
        self.taken = np.where(inside, 0, 1).astype(np.int32)
        self.near = _disc(SPACE * radius + GAP, self.size)
        self.placed: list[list[int]] = []

    def fill(self, numbers: Sequence[int]) -> None:
        """Place the kinds one by one, each time where most is gained, until no place is left."""
        left = [*numbers]
        while any(left):
            best = max(((*self.best(k), k) for k, n in enumerate(left) if n), default=None)
            if best is None or best[0] == -math.inf:
                return
            _, row, column, kind = best
            left[kind] -= 1
            self.placed.append([kind, row, column])
            self.mark(row, column, 1)

    def best(self, kind: int) -> tuple[float, int, int]:
        """The most that a kind gains where nothing is near, and where."""
        free = np.where(self.taken == 0, self.gains[kind], -np.inf)
        at = int(free.argmax())
        row, column = divmod(at, self.size[1])
        return float(free[row, column]), row, column

    def mark(self, row: int, column: int, change: int) -> None:
        """Take the surroundings of a place, or give them back."""
        height, width = self.size
        self.taken += (
            change * self.near[height - row : 2 * height - row, width - column : 2 * width - column]
        )

    def improve(self) -> bool:
        """Move each shape to where it is better off, and deal the kinds out anew."""
        changed = False
        for shape in self.placed:
            kind, row, column = shape
            self.mark(row, column, -1)
            gain, *better = self.best(kind)
            if gain > self.gains[kind, row, column] + 1e-6:
                shape[1:], changed = better, True
            self.mark(shape[1], shape[2], 1)
        table = np.array(
            [
                [self.gains[kind, row, column] for kind, *_ in self.placed]
                for _, row, column in self.placed
            ]
        )
        solve: Any = optimize
        dealt = [
            self.placed[int(at)][0]
            for at in cast("Indices", solve.linear_sum_assignment(-table)[1])
        ]
        for shape, kind in zip(self.placed, dealt, strict=True):
            changed, shape[0] = changed or shape[0] != kind, kind
        return changed

    def drawn(self, away: Floats) -> Floats:
        """Draw the shapes as what is there suggests, without the background."""
        found = np.zeros_like(away)
        if not self.placed:
            return found
        circles = self.fitted(away)
        for (kind, *_), (x, y, radius) in zip(self.placed, circles, strict=True):
            share = cover(self.kinds[kind][1], x, y, radius, self.size)[..., None]
            named = self.paints[kind]
            paint = (share * away).sum(axis=(0, 1)) / max(float((share * share).sum()), 1e-6)
            found += share * np.minimum(np.maximum(paint, named - PAINT), named + PAINT)
        return found

    def fitted(self, away: Floats) -> list[tuple[float, float, float]]:
        """Middle and radius of each shape, by the ink about its place where there is enough."""
        rows = np.arange(self.size[0], dtype=np.float64)[:, None] + 0.5
        columns = np.arange(self.size[1], dtype=np.float64)[None] + 0.5
        sought = np.array([[x, y] for _, y, x in self.placed]) + 0.5
        apart = np.hypot(columns[..., None] - sought[:, 0], rows[..., None] - sought[:, 1])
        owner = np.where(apart.min(axis=2) <= 1.45 * LARGEST, apart.argmin(axis=2), -1)
        found, radii = sought + 0.0, np.full(len(sought), USUAL)
        for index, (kind, *_) in enumerate(self.placed):
            paint = self.paints[kind]
            ink = clipped(away @ paint / float(paint @ paint)) * (owner == index)
            mass = float(ink.sum())
            if mass > 0.5 * math.pi * self.radius**2:
                radii[index] = radius = min(max(math.sqrt(mass / math.pi), RADII[-1]), LARGEST)
                middle = np.array([(ink * columns).sum(), (ink * rows).sum()]) / mass
                if self.kinds[kind][1] == "triangle":
                    middle[1] -= MASS * 2.33 * radius
                found[index] += np.minimum(np.maximum(middle - found[index], -MOVE), MOVE)
        found = np.round(found * 4.0) / 4.0
        sharp = [self.kinds[kind][1] == "triangle" for kind, *_ in self.placed]
        found[sharp, 0] = np.floor(found[sharp, 0]) + 0.5  # a tip between two pixels is blunt
        least = SPACE * RADII[-1] + GAP
        while (close := _apart(found).min(axis=1) < least).any() and (found != sought).any():
            found[close] = sought[close]
        room = (_apart(found) - GAP) / (SPACE / 2.0)
        for i, j in zip(*np.nonzero(np.triu(radii + radii[:, None] > room)), strict=True):
            large, small = (i, j) if radii[i] > radii[j] else (j, i)
            radii[large] = min(radii[large], max(room[i, j] / 2.0, room[i, j] - radii[small]))
            radii[small] = min(radii[small], room[i, j] - radii[large])
        rows_of = zip(found, np.floor(radii * 8.0) / 8.0, strict=True)
        return [(float(x), float(y), float(radius)) for (x, y), radius in rows_of]


def _apart(centres: Doubles) -> Doubles:
    """Distance of each from each; of one from itself infinite."""
    offsets = centres[:, None] - centres[None]
    distances = np.hypot(offsets[..., 0], offsets[..., 1])
    np.fill_diagonal(distances, np.inf)
    return distances


@lru_cache(maxsize=64)
def _stamp(
    shape: str, radius: float, size: tuple[int, int]
) -> tuple[NDArray[np.complex128], float]:
    """Spectrum with which a picture is compared with a shape everywhere, and its squared area."""
    middle = size[0] // 2, size[1] // 2
    share = cover(shape, middle[1] + 0.5, middle[0] + 0.5, radius, size)
    rolled = np.roll(share, (-middle[0], -middle[1]), axis=(0, 1))
    spectrum = cast("NDArray[np.complex128]", np.conj(np.fft.rfft2(rolled)))
    return spectrum, float((share * share).sum())


@lru_cache(maxsize=64)
def _disc(reach: float, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which places are nearer than a reach to the middle of a board of twice the size."""
    rows, columns = np.ogrid[-size[0] : size[0] + 1, -size[1] : size[1] + 1]
    return np.asarray(rows * rows + columns * columns < reach * reach)
