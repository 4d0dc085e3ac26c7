"""What a node goes on showing when it is done: one picture that holds pictures and words.

The page shows a node's pictures in all its versions and both ways of drawing nodes, for as long as
the node is there. Text it shows only while a run lasts (from its version 1.55 on), so the words are
drawn beneath the pictures. They are in the node's ui output as text too, for the history.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image, ImageDraw
from torch import Tensor

from .plot import font
from .text import cleaned, for_page, json_for_page

__all__ = ["card_output", "draw_card", "saved", "to_pil"]

WIDTH = 512  # a node shows it at about 400
SIZE, LINE = 21, 28  # of letters, and from line to line
SMALL, SMALL_LINE = 17, 23
MARGIN = 14
MOST = 16  # pictures
PAPER, INK, DIM, WARNING = (30, 31, 34), (235, 235, 235), (170, 170, 175), (255, 170, 90)


def to_pil(picture: Tensor) -> Image.Image:
    """Turn one picture (H, W, C), 0 to 1, into PIL's form."""
    rgb = picture[..., :3] if picture.shape[-1] >= 3 else picture[..., :1].repeat(1, 1, 3)
    return Image.fromarray((rgb * 255.0).round().clamp(0, 255).byte().cpu().numpy())


def draw_card(
    lines: Sequence[str], pictures: Sequence[Tensor] = (), captions: Sequence[str] = ()
) -> Image.Image:
    """Draw pictures, each with its caption, and words beneath.

    Args:
        lines: The words; the first is the one that is read, a warning has its own colour.
        pictures: Shape (H, W, C), 0 to 1; at most 16 are drawn.
        captions: A short one a picture, or none.

    Returns:
        The card.
    """
    drawn = [to_pil(each) for each in pictures[:MOST]]
    columns = max(1, next(n for n in range(1, 5) if n * n >= len(drawn)))
    cell = (WIDTH - (columns - 1) * 6) // columns
    small = [_fitted(each, cell) for each in drawn]
    under = SMALL_LINE + 4 if captions else 0
    rows = [small[i : i + columns] for i in range(0, len(small), columns)]
    heights = [max(each.height for each in row) + under + 4 for row in rows]
    words = [
        (line, SIZE if number == 0 else SMALL, _colour(number, text))
        for number, text in enumerate(lines)
        for line in _wrapped(cleaned(text), SIZE if number == 0 else SMALL)
    ]
    tall = sum(LINE if size == SIZE else SMALL_LINE for _, size, _ in words)
    card = Image.new("RGB", (WIDTH, sum(heights) + tall + 2 * MARGIN - 4), PAPER)
    draw, top = ImageDraw.Draw(card), 0
    for number, row in enumerate(rows):
        for place, picture in enumerate(row):
            left = place * (cell + 6)
            card.paste(picture, (left + (cell - picture.width) // 2, top))
            if captions:
                text = captions[number * columns + place]
                at = (left + cell // 2, top + heights[number] - under)
                draw.text(at, text, INK, font(SMALL), anchor="ma")
        top += heights[number]
    top += MARGIN - 4
    for line, size, colour in words:
        draw.text((MARGIN, top), line, colour, font(size))
        top += LINE if size == SIZE else SMALL_LINE
    return card


def saved(picture: Image.Image, name: str = "flowsearch_card") -> list[Any]:
    """Write a drawing to the temp folder.

    Args:
        picture: The drawing.
        name: Beginning of the file's name.

    Returns:
        What the page is told of it.
    """
    image = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)[None]
    made = ui.ImageSaveHelper.save_images(
        image, name, io.FolderType.temp, cls=None, compress_level=1
    )
    return [*made]


def card_output(
    lines: Sequence[str], data: Any, picture: Image.Image | None = None
) -> dict[str, Any]:
    """Return a node's ui output: the words as text and data, and a picture.

    Args:
        lines: The words.
        data: JSON types, for the history.
        picture: What the node shows; None for the words alone.

    Returns:
        For NodeOutput's ui.
    """
    drawing = draw_card(lines) if picture is None else picture
    return {"images": saved(drawing), "text": (for_page("\n".join(lines)), json_for_page(data))}


def _fitted(picture: Image.Image, width: int) -> Image.Image:
    """As wide as its cell; small pictures in whole pixels."""
    if picture.width < width:
        times = max(1, width // picture.width)
        if times * picture.height > 2 * WIDTH:
            times = max(1, 2 * WIDTH // picture.height)
        size = (picture.width * times, picture.height * times)
        return picture.resize(size, Image.Resampling.NEAREST)
    made = picture.copy()
    made.thumbnail((width, 2 * WIDTH), Image.Resampling.LANCZOS)
    return made


def _colour(number: int, text: str) -> tuple[int, int, int]:
    if text.startswith("warning"):
        return WARNING
    return INK if number == 0 else DIM


def _wrapped(text: str, size: int) -> list[str]:
    """Lines that fit the card."""
    letters, room = font(size), WIDTH - 2 * MARGIN
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            for piece in _pieces(word, size):
                longer = f"{line} {piece}" if line else piece
                if line and letters.getlength(longer) > room:
                    lines.append(line)
                    longer = piece
                line = longer
        lines.append(line)
    return lines


def _pieces(word: str, size: int) -> list[str]:
    """A word, or what of it fits on a line each."""
    letters, room = font(size), WIDTH - 2 * MARGIN
    if letters.getlength(word) <= room:
        return [word]
    count = max(1, int(room / (size * 0.75)))
    return [word[i : i + count] for i in range(0, len(word), count)]
