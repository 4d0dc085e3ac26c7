"""What finds objects in pictures: boxes with a name and a score, whoever finds them.

A detector is any object with `vocabulary`, `holders` and `detect`. One with a vocabulary knows
those classes and no others; one without takes any words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..weights.holder import Holder

__all__ = ["Box", "Detector", "boxes_of", "coco", "draw_boxes", "unknown"]

COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#e377c2", "#17becf")


@dataclass(frozen=True)
class Box:
    """An object in a picture.

    Attributes:
        x0: Left edge in pixels of the picture.
        y0: Upper edge.
        x1: Right edge.
        y1: Lower edge.
        score: Confidence, 0 to 1; comparable within one detector only.
        name: Its class.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    score: float
    name: str


class Detector(Protocol):
    """Finds objects."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Names of the classes it knows; empty when it takes any words."""
        ...

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """Holders of its networks, for the host."""
        ...

    def detect(self, images: Tensor, names: Sequence[str]) -> Sequence[Sequence[Box]]:
        """Find objects.

        Args:
            images: Shape (B, H, W, 3 or 4), 0 to 1.
            names: Classes to look for, of the vocabulary if it has one.

        Returns:
            For each picture, the boxes of those classes.
        """
        ...


@cache
def coco() -> tuple[str, ...]:
    """Names of the 80 classes of COCO's detection task, in their order.

    Returns:
        The names.
    """
    file = Path(__file__).with_name("coco.txt")
    return tuple(file.read_text(encoding="utf-8").split("\n")[:-1])


def unknown(name: str, vocabulary: Sequence[str]) -> str:
    """Say that a detector does not know a class.

    Args:
        name: What was asked for.
        vocabulary: What it knows.

    Returns:
        A sentence with the nearest classes, or all where none is near.
    """
    alike = get_close_matches(name, vocabulary, n=5)
    words = [known for known in vocabulary if set(known.split()) & set(name.split())]
    near = list(dict.fromkeys([*alike, *words]))
    choice = f"the nearest are {', '.join(near)}" if near else f"it knows {', '.join(vocabulary)}"
    return (
        f"This detector does not know '{name}': {choice}. Name one of its {len(vocabulary)} "
        "classes, or choose a detector that takes any words (Grounding DINO, OWLv2, SAM 3)."
    )


def boxes_of(rows: Tensor, names: Sequence[str]) -> tuple[Box, ...]:
    """Write rows of numbers as boxes.

    Args:
        rows: Shape (n, 6): x0, y0, x1, y1, score, index of the name.
        names: The names.

    Returns:
        The boxes, best score first.
    """
    ordered = rows[rows[:, 4].argsort(descending=True, stable=True)].cpu()
    numbers = ([float(number) for number in row] for row in ordered)
    return tuple(
        Box(x0, y0, x1, y1, score, names[int(index)]) for x0, y0, x1, y1, score, index in numbers
    )


def draw_boxes(images: Tensor, found: Sequence[Sequence[Box]]) -> Tensor:
    """Draw boxes with names and scores on pictures.

    Args:
        images: Shape (B, H, W, 3 or 4), 0 to 1.
        found: For each picture, its boxes.

    Returns:
        Shape (B, H, W, 3), rounded to 8 bits, in the pictures' type on their device.
    """
    order = {name: i for i, name in enumerate(sorted({box.name for one in found for box in one}))}
    drawn = [
        _drawn(image, boxes, [COLOURS[order[box.name] % len(COLOURS)] for box in boxes])
        for image, boxes in zip(images[..., :3], found, strict=True)
    ]
    return torch.stack(drawn).to(images) if drawn else images[..., :3]


def _drawn(image: Tensor, boxes: Sequence[Box], colours: Sequence[str]) -> Tensor:
    """One picture with its boxes, float32 on the CPU."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    picture = Image.fromarray(pixels.numpy())
    pencil = ImageDraw.Draw(picture)
    unit = max(1, round(min(picture.size) / 256))
    font = ImageFont.load_default(size=max(9, 6 * unit + 3))
    for box, colour in zip(boxes, colours, strict=True):
        pencil.rectangle((box.x0, box.y0, box.x1, box.y1), outline=colour, width=unit)
        label = f"{box.name} {box.score:.2f}"
        _, _, right, low = pencil.textbbox((0, 0), label, font=font)  # of boxes at an edge too
        left = max(0.0, min(box.x0 + unit, picture.width - right - 1))
        corner = (left, max(0.0, min(box.y0 + unit, picture.height - low - 1)))
        pencil.rectangle(pencil.textbbox(corner, label, font=font), fill=colour)
        pencil.text(corner, label, fill="white", font=font)
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(image.shape).float() / 255
