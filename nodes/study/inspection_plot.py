"""Drawing an inspection: five panels over sigma, and a sheet of predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from ...samplers.study.inspection import Reading
from ..host.page.plot import COLOURS, INK, Axes, as_image, font

__all__ = ["draw_inspection", "draw_sheet"]

WIDTH, HEIGHT = 1200, 1260
X_LABEL = "sigma on the linear path (1: noise, 0: picture)"
LEFT, MIDDLE = (80, WIDTH // 2 - 30), (WIDTH // 2 + 70, WIDTH - 30)
ROWS = ((60, 360), (480, 780), (900, 1200))
COLUMNS, THUMBNAIL, MOST = 10, 116, 40
LABEL = 22

Curve = list[tuple[float, float]]


def draw_inspection(readings: Sequence[Reading]) -> Image.Image:
    """Draw what was seen along the sigmas, a colour an item.

    Args:
        readings: Of one run.

    Returns:
        The picture.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)

    def panel(place: int, title: str, curves: Sequence[Curve], *include: float) -> Axes:
        columns, rows = (LEFT, MIDDLE)[place % 2], ROWS[place // 2]
        return _panel(draw, columns, rows, title, curves, include)

    panel(0, "distance of D from the finished picture (rms)", _of(readings, "distance"), 0.0)
    panel(1, "change of D from the step before (rms)", _of(readings, "change"), 0.0)
    noise = panel(2, "noise prediction (rms; 1: unit noise)", _of(readings, "noise"), 0.9, 1.1)
    noise.dashes(1.0, INK)
    panel(3, "rms of D", _of(readings, "denoised"))
    logs = [[(x, math.log10(y)) for x, y in curve if y > 0.0] for curve in _of(readings, "score")]
    panel(4, "log10 of the score's rms", logs)
    strength = [(r.linear_sigma, r.k) for r in readings if r.k is not None]
    panel(5, "strength k of the noise law, by step", [strength], 0.0, 1.0)
    return image


def _of(readings: Sequence[Reading], name: str) -> list[Curve]:
    """One curve an item of a quantity that lists one number an item."""
    seen = [r for r in readings if getattr(r, name) is not None]
    items = range(len(readings[0].denoised))
    return [[(r.linear_sigma, getattr(r, name)[item]) for r in seen] for item in items]


def _panel(
    draw: ImageDraw.ImageDraw,
    x: tuple[int, int],
    y: tuple[int, int],
    title: str,
    curves: Sequence[Curve],
    include: Sequence[float],
) -> Axes:
    """Draw curves on axes that hold them and the values to include."""
    values = [value for curve in curves for _, value in curve] + list(include) or [0.0, 1.0]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.1
    low -= 0.0 if low == 0.0 else margin
    places = [place for curve in curves for place, _ in curve]
    ends = (max(1.0, *places), 0.0) if places else (1.0, 0.0)
    axes = Axes(draw, (x[0], y[0], x[1], y[1]), ends, (low, high + margin))
    axes.frame(title, X_LABEL)
    for item, curve in enumerate(curves):
        if curve:
            axes.line(curve, COLOURS[item % len(COLOURS)], 2)
    return axes


def shown(count: int) -> list[int]:
    """Which of many predictions go on the sheet: all, or MOST evenly chosen.

    Args:
        count: Predictions.

    Returns:
        Rising indices, the first and the last among them.
    """
    if count <= MOST:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST - 1)) for i in range(MOST)})


def draw_sheet(pictures: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Put small pictures in rows, each under its sigma.

    Args:
        pictures: Shape (N, H, W, 3), 0 to 1.
        sigmas: N labels.

    Returns:
        IMAGE, shape (1, H', W', 3).
    """
    height, width = pictures.shape[1:3]
    factor = THUMBNAIL / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    mode = "area" if factor < 1.0 else "nearest"
    small = functional.interpolate(pictures.movedim(-1, 1).float(), size, mode=mode).movedim(1, -1)
    columns, rows = min(COLUMNS, len(sigmas)), -(-len(sigmas) // COLUMNS)
    cell = (THUMBNAIL + 4, size[0] + LABEL + 4)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1]), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, sigma) in enumerate(zip(small, sigmas, strict=True)):
        x, y = index % COLUMNS * cell[0], index // COLUMNS * cell[1]
        pixels = (picture.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()
        draw.text((x + cell[0] / 2, y + LABEL / 2), f"{sigma:.4g}", INK, font(16), anchor="mm")
        sheet.paste(Image.fromarray(pixels), (x + (cell[0] - size[1]) // 2, y + LABEL))
    return as_image(sheet)
