"""Draw scenes of coloured shapes: the data that the embedded model learns.

A scene is one to three groups, each a count of 1 to 6, a colour and a shape. Shapes never touch, so
that a picture can be counted exactly. Some scenes are never used for training: those are what the
benchmarks ask for (``held_out``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..rewards.pixels.shape_count import COLOURS, SHAPES, Counts
from ..rewards.pixels.shape_fidelity import cover
from .prompt import MAX_COUNT, Group

__all__ = ["SIZE", "Scene", "draw", "held_out", "random_scene"]

SIZE = 64
MAX_TOTAL = 12
RADIUS = (4.4, 6.2)
GAP = 2.2
_COLOURS, _SHAPES = tuple(COLOURS), tuple(SHAPES)


@dataclass(frozen=True)
class Scene:
    """What a picture shows: groups of (count, colour, shape), no (colour, shape) twice."""

    groups: tuple[Group, ...]

    @property
    def counts(self) -> Counts:
        """(colour, shape) to how many."""
        return {(colour, shape): count for count, colour, shape in self.groups}

    @property
    def total(self) -> int:
        """Number of shapes."""
        return sum(count for count, _, _ in self.groups)


def held_out(scene: Scene) -> bool:
    """Whether a scene is kept out of training: one in five, by a hash of its sorted groups."""
    text = "|".join(sorted(f"{n} {colour} {shape}" for n, colour, shape in scene.groups))
    return hashlib.blake2b(text.encode(), digest_size=2).digest()[0] % 5 == 0


def random_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene for training, never one that is held out.

    Args:
        rng: Source of randomness.

    Returns:
        One group (30 %), two (50 %) or three (20 %), at most MAX_TOTAL shapes.
    """
    while True:
        number = int(rng.choice(3, p=[0.3, 0.5, 0.2])) + 1
        counts = rng.integers(1, MAX_COUNT + 1, size=number)
        kinds = rng.choice(len(_COLOURS) * len(_SHAPES), size=number, replace=False)
        scene = Scene(
            tuple(
                (int(n), _COLOURS[int(kind) % len(_COLOURS)], _SHAPES[int(kind) // len(_COLOURS)])
                for n, kind in zip(counts, kinds, strict=True)
            )
        )
        if scene.total <= MAX_TOTAL and not held_out(scene):
            return scene


def _places(number: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random centres and radii of discs that do not touch, shape (number, 3)."""
    while True:
        radii = np.sort(rng.uniform(*RADIUS, size=number))[::-1]
        placed: list[tuple[float, float, float]] = []
        for radius in radii:
            reach = radius * 1.2 + 1.0
            for _ in range(60):
                x, y = rng.uniform(reach, SIZE - reach, size=2)
                if all(
                    (x - u) ** 2 + (y - v) ** 2 > (1.18 * (radius + r) + GAP) ** 2
                    for u, v, r in placed
                ):
                    placed.append((float(x), float(y), float(radius)))
                    break
            else:
                break
        if len(placed) == number:
            order = rng.permutation(number)
            return np.array(placed)[order]


def draw(scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a scene at random places, with slightly varying colours and background.

    Args:
        scene: What to draw.
        rng: Source of randomness.

    Returns:
        Shape (SIZE, SIZE, 3), 0 to 1, anti-aliased.
    """
    picture = np.full((SIZE, SIZE, 3), rng.uniform(0.93, 1.0), dtype=np.float32)
    places = iter(_places(scene.total, rng))
    for count, colour, shape in scene.groups:
        paint = np.clip(np.array(COLOURS[colour]) + rng.uniform(-0.04, 0.04, 3), 0, 1)
        for _ in range(count):
            x, y, radius = next(places)
            share = cover(shape, x, y, radius, (SIZE, SIZE))[..., None]
            picture += share * (paint.astype(np.float32) - picture)
    return picture
