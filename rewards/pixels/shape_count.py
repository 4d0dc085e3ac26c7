"""Does the picture hold the right number of coloured shapes? An exact counter, no network.

A shape is a connected component of one colour on a light background. Colour is read from the
direction of the light that a pixel absorbs, (1 - r, 1 - g, 1 - b) / norm, which blending with a
white background leaves unchanged, so that soft edges do not turn into other colours. The kind of
shape is read from how much of its own width x height it fills: a square 1, a disc pi / 4, a
triangle 1 / 2. Both are exact on the scenes this counts; on photographs it is meaningless.

    reward = - sum over (colour, shape) of | counted - wanted |

Counts go in steps, so where a gradient is asked for the distance to the nearest right picture
stands in (nearest_scene.py), in shapes' worth of ink: a shape missing or too many costs about 1,

    stand-in = - sum over pixels of | P - R |^2 / INK,    R: the nearest scene as wanted

of the picture P at the size for which the scenes are made. It is about 0 where all is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from ..base import RewardSpec, check_images
from ..gradient import Gradient, value_and_gradient
from ..prompts.long_text import check_length, shown
from .nearest_scene import fitting, nearest_scene
from .true_shapes import COLOURS, SHAPES, Counts, Floats

__all__ = [
    "COLOURS",
    "NUMBERS",
    "SHAPES",
    "SMALLEST",
    "Component",
    "Counts",
    "Floats",
    "Group",
    "ShapeCount",
    "count_shapes",
    "parse_groups",
    "patches_of",
    "wrong",
]

NUMBERS: tuple[str, ...] = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
)  # fmt: skip

Group = tuple[int, str, str]
"""Count, colour, shape."""

_NAMES = tuple(COLOURS)
_ABSORBED = 1.0 - np.array([COLOURS[name] for name in _NAMES], dtype=np.float32)
_STRENGTH = np.linalg.norm(_ABSORBED, axis=1)
_DIRECTIONS: Floats = _ABSORBED / _STRENGTH[:, None]
SMALLEST = 14.0
"""Least area of a shape, in pixels of a 64 x 64 picture; smaller specks are not shapes."""
INK = 100.0
"""Squared distance between an empty picture of 64 x 64 and one of a single shape, about."""


def parse_groups(text: str) -> tuple[Group, ...]:
    """Read "three red circles and two blue squares", or one "red circle: 3" a line.

        text  = "" | group (("," | "and" | "but" | newline) group) ...
        group = count colour shape | "without" ["any"] colour shape | colour shape ":" count

    Args:
        text: Counts as words (no, zero to twelve, a, an) or digits; shapes singular or plural.

    Returns:
        The groups in order; none for an empty text. "no" and "without" are a count of 0.

    Raises:
        ValueError: A word or the form is not understood, a colour and shape come twice, or the
            text is longer than any prompt; the message names it and lists what is known.
    """
    check_length(text, "shapes to count", "Name each colour and shape once.")
    known = (
        "Write groups joined by 'and' or commas, each a count (no, zero to twelve, or digits), a "
        f"colour ({', '.join(COLOURS)}) and a shape ({', '.join(SHAPES)}), for example 'three "
        "red circles and two blue squares'."
    )
    groups: list[Group] = []
    written = re.sub(r"\bwithout\b(?:\s+any\b)?", ", no ", text.lower())
    for part in filter(str.strip, re.split(r",|;|\n|\band\b|\bbut\b", written)):
        words = part.replace(":", " : ").split()
        if len(words) == 4 and words[2] == ":":
            words = [words[3], *words[:2]]
        if len(words) != 3:
            raise ValueError(f"'{shown(part)}' is not a count, a colour and a shape. {known}")
        count, colour, shape = words[0], words[1], words[2].removesuffix("s")
        number = _number(count)
        unknown = [
            word
            for word, is_known in (
                (count, number is not None),
                (colour, colour in COLOURS),
                (shape, shape in SHAPES),
            )
            if not is_known
        ]
        if number is None or unknown:
            raise ValueError(f"'{shown(unknown[0])}' in '{shown(part)}' is not known. {known}")
        if any((colour, shape) == group[1:] for group in groups):
            raise ValueError(f"{colour} {shape}s are named twice in '{shown(text)}'. {known}")
        groups.append((number, colour, shape))
    return tuple(groups)


def _number(word: str) -> int | None:
    """The number a word or digits stand for, None when it stands for no number."""
    if word == "no":
        return 0
    if word in ("a", "an"):
        return 1
    if word.isascii() and word.isdigit() and len(word) <= 3:
        return int(word)
    return NUMBERS.index(word) if word in NUMBERS else None


def _kind(fill: float) -> str:
    """Name the shape whose fill is nearest, with cuts half way between neighbours."""
    return min(SHAPES, key=lambda name: abs(SHAPES[name] - fill))


@dataclass(frozen=True, eq=False)
class Component:
    """A connected patch of one colour that is large enough to be counted.

    Attributes:
        colour: Name of the colour.
        area: Its solid pixels, as of a 64 x 64 picture.
        box: Its rows and columns, with a margin of one pixel.
        here: Which pixels of the box are solid and its own.
        soft: How much of each pixel of the box it covers, 0 to 1, its soft edge included.
    """

    colour: str
    area: float
    box: tuple[slice, slice]
    here: NDArray[np.bool_]
    soft: Floats


@dataclass(frozen=True, eq=False)
class Patches:
    """The patches of colour of one picture, colour by colour.

    Noise is specks, hundreds of thousands in a large picture, so those are counted all at once.

    Attributes:
        solid: Pixels of any of them.
        areas: Of all, as of a 64 x 64 picture.
        shapes: Those that are no specks.
    """

    solid: NDArray[np.bool_]
    areas: list[float]
    shapes: list[Component]


def patches_of(picture: Floats) -> Patches:
    """Find the patches of colour of one picture.

    Args:
        picture: Shape (H, W, 3), 0 to 1.

    Returns:
        The patches.
    """
    absorbed = cast("Floats", 1.0 - np.minimum(np.maximum(picture, 0.0), 1.0))
    norm = np.sqrt((absorbed * absorbed).sum(axis=2))
    chroma = absorbed.max(axis=2) - absorbed.min(axis=2)
    colour = cast("NDArray[np.int64]", (absorbed @ np.transpose(_DIRECTIONS)).argmax(axis=2))
    cover = np.minimum(norm / _STRENGTH[colour], 1.0)
    solid = (cover > 0.5) & (chroma > 0.25)
    per_pixel = 4096.0 / (picture.shape[0] * picture.shape[1])
    found = Patches(solid, [], [])
    find: Any = ndimage
    for index in map(int, np.bincount(colour[solid]).nonzero()[0]):
        labels, number = cast(
            "tuple[NDArray[np.int32], int]", find.label(solid & (colour == index))
        )
        areas = np.bincount(labels.ravel(), minlength=number + 1).astype(np.float64) * per_pixel
        found.areas.extend(map(float, areas[1:]))
        large = (areas[1:] >= SMALLEST).nonzero()[0] + 1
        numbers = np.zeros(number + 1, dtype=np.int32)
        numbers[large] = np.arange(1, len(large) + 1)
        boxes = (
            cast("list[tuple[slice, slice]]", find.find_objects(numbers[labels], len(large)))
            if len(large)
            else []
        )
        for label, (rows, columns) in zip(map(int, large), boxes, strict=True):
            box = (
                slice(max(rows.start - 1, 0), rows.stop + 1),
                slice(max(columns.start - 1, 0), columns.stop + 1),
            )
            here = labels[box] == label
            near = here | ((labels[box] == 0) & ~solid[box])
            soft = np.where(near & (cover[box] > 0.15), cover[box], 0.0)
            found.shapes.append(Component(_NAMES[index], float(areas[label]), box, here, soft))
    return found


def count_shapes(picture: Floats) -> dict[tuple[str, str], int]:
    """Count the coloured shapes of one picture.

    Args:
        picture: Shape (H, W, 3), 0 to 1.

    Returns:
        How many of each (colour, shape); what is not there is not a key.
    """
    found: dict[tuple[str, str], int] = {}
    for part in patches_of(picture).shapes:
        fill = part.soft.sum() / (part.soft.sum(axis=0).max() * part.soft.sum(axis=1).max())
        key = (part.colour, _kind(float(fill)))
        found[key] = found.get(key, 0) + 1
    return found


def wrong(found: Counts, wanted: Counts) -> int:
    """Sum of the absolute count differences over all (colour, shape).

    Args:
        found: What is there.
        wanted: What should be there; what is not named should not be there.

    Returns:
        0 when every count is right.
    """
    return sum(abs(found.get(key, 0) - wanted.get(key, 0)) for key in {*found, *wanted})


@dataclass(frozen=True)
class ShapeCount:
    """Minus the number of wrong counts: 0 is right, -1 is one shape too many, too few or (twice)
    of the wrong kind.

    Args:
        wanted: How many of each (colour, shape).
    """

    wanted: Counts

    @classmethod
    def from_groups(cls, groups: Iterable[Group]) -> ShapeCount:
        """The reward that wants these groups and nothing else."""
        return cls({(colour, shape): count for count, colour, shape in groups})

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="shape_count",
            measures="minus the sum of the absolute differences of the counts of coloured shapes",
            low=-float("inf"),
            high=0.0,
            quantum=1.0,
            scale=4.0,  # 5 % to 95 % of plain samples of the embedded model
            input_size=(64, 64),
            has_gradient=True,
        )

    def score(self, images: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images: Shape (B, H, W, C), 0 to 1.

        Returns:
            Shape (B,), float32, at most 0.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Shape Count")
        pictures = images[..., :3].detach().to("cpu", torch.float32).numpy()
        scores = [0.0 - wrong(count_shapes(picture), self.wanted) for picture in pictures]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def gradient(self, images: Tensor) -> Gradient:
        """Differentiate what stands in for the count; see the module and rewards/gradient.py.

        Args:
            images: As for score.

        Returns:
            Values and gradients of the stand-in, at most 0; the count itself is score's.

        Raises:
            ValueError: As for score.
        """
        check_images(images, "Shape Count")
        return value_and_gradient(self._stand_in, images)

    def _stand_in(self, images: Tensor) -> Tensor:
        """Minus the squared distance of pictures (B, H, W, C) to the nearest right ones, (B,)."""
        pictures = fitting(images)
        scenes = [nearest_scene(one, self.wanted) for one in pictures.detach().cpu().numpy()]
        apart = pictures - torch.as_tensor(np.stack(scenes)).to(pictures)
        return apart.square().flatten(1).sum(dim=1) / -INK
