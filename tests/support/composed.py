"""Pictures with a known number of objects: pieces of real photographs, pasted without overlap.

The photographs are scikit-image's. A piece keeps some of its surroundings; its size, mirroring,
place and background (grass, gravel, bricks or a plain colour) are drawn from a generator.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image

PIECES = {
    "cat": ("chelsea.png", (15, 0, 410, 300)),
    "person": ("astronaut.png", (60, 10, 340, 400)),
    "cup": ("coffee.png", (100, 0, 500, 400)),
    "motorcycle": ("motorcycle_left.png", (92, 26, 700, 458)),
}
BACKGROUNDS = ("grass.png", "gravel.png", "brick.png")
SIDE = 640
GAP = 12


@cache
def _photograph(name, box=None, size=None):
    picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    picture = picture.crop(box) if box else picture
    return picture.resize(size) if size else picture


def _place(generator, taken, width, height):
    """A free corner, or None where none was found."""
    for _ in range(200):
        x = int(generator.integers(0, SIDE - width))
        y = int(generator.integers(0, SIDE - height))
        if all(
            x + width + GAP <= a or a + w + GAP <= x or y + height + GAP <= b or b + h + GAP <= y
            for a, b, w, h in taken
        ):
            return x, y
    return None


def compose(generator, counts: Mapping[str, int], sizes=(180, 240)):
    """A picture with so many of each piece, shape (640, 640, 3), and where they are."""
    plain = tuple(int(v) for v in generator.integers(120, 256, 3))
    choice = int(generator.integers(len(BACKGROUNDS) + 1))
    while True:
        picture = Image.new("RGB", (SIDE, SIDE), plain)
        if choice < len(BACKGROUNDS):
            picture = _photograph(BACKGROUNDS[choice], size=(SIDE, SIDE)).copy()
        taken = []
        for name in (name for name, count in counts.items() for _ in range(count)):
            piece = _photograph(*PIECES[name])
            scale = generator.uniform(*sizes) / max(piece.size)
            size = tuple(round(side * scale) for side in piece.size)
            corner = _place(generator, taken, *size)
            if corner is None:
                break
            piece = piece.resize(size)
            if generator.random() < 0.5:
                piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            picture.paste(piece, corner)
            taken.append((*corner, *piece.size))
        if len(taken) == sum(counts.values()):
            return torch.from_numpy(np.array(picture)).float() / 255, taken


def cases(number, seed=0):
    """Targets, the right picture and wrong ones: one object fewer, one more of a class.

    Every second case has two classes, one of which is miscounted.
    """
    generator = np.random.default_rng(seed)
    names = list(PIECES)
    for i in range(number):
        first = names[i % len(names)]
        wanted = {first: 1 + (i // 4) % (3 if i % 2 else 4)}
        if i % 2:
            wanted[names[(i + 1 + i // 8) % len(names)] if i % 3 else names[i % 4 - 1]] = 1
        candidates = [wanted, *({**wanted, first: wanted[first] + step} for step in (-1, 1))]
        yield wanted, torch.stack([compose(generator, counts)[0] for counts in candidates])
