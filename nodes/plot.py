"""Drawing reports: axes, lines and bars, with what the host has (Pillow)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .host.outcome import Report

__all__ = ["COLOURS", "INK", "Axes", "as_image", "draw_report", "font", "ticks"]

WIDTH, HEIGHT = 1200, 900
INK, GRID = (40, 40, 40), (222, 222, 222)
COLOURS = [(31, 119, 180), (214, 90, 20), (44, 140, 60), (148, 80, 180), (120, 90, 70)]
PHASES = {
    "plain": (150, 150, 150),
    "calibrate": (200, 170, 60),
    "search": (31, 119, 180),
    "finish": (44, 140, 60),
    "target": (214, 90, 20),
}


@dataclass(frozen=True)
class Axes:
    """A rectangle of a picture with a scale on both sides.

    Attributes:
        draw: Where to draw.
        box: left, top, right, bottom in pixels.
        x: Values at left and right.
        y: Values at bottom and top.
    """

    draw: ImageDraw.ImageDraw
    box: tuple[int, int, int, int]
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        left, top, right, bottom = self.box
        return (
            left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (right - left),
            bottom - (y - self.y[0]) / (self.y[1] - self.y[0]) * (bottom - top),
        )

    def frame(self, title: str, x_label: str) -> None:
        """Draw grid, numbers and titles."""
        left, top, right, bottom = self.box
        for value in ticks(*self.y):
            _, y = self.at(self.x[0], value)
            self.draw.line([(left, y), (right, y)], fill=GRID)
            self.draw.text((left - 8, y), f"{value:g}", INK, font(18), anchor="rm")
        for value in ticks(*self.x):
            x, _ = self.at(value, self.y[0])
            self.draw.text((x, bottom + 8), f"{value:g}", INK, font(18), anchor="ma")
        self.draw.line([(left, top), (left, bottom), (right, bottom)], fill=INK, width=2)
        self.draw.text((left, top - 14), title, INK, font(22), anchor="ls")
        self.draw.text(((left + right) / 2, bottom + 34), x_label, INK, font(18), anchor="ma")

    def stairs(self, points: Sequence[tuple[float, float]], colour: tuple, width: int = 3) -> None:
        """Draw values that hold until the next one, on to the right edge."""
        path: list[tuple[float, float]] = []
        for x, y in points:
            if path:
                path.append((self.at(x, 0.0)[0], path[-1][1]))
            path.append(self.at(x, y))
        if path:
            path.append((self.box[2], path[-1][1]))
            self.draw.line(path, fill=colour, width=width)

    def line(self, points: Sequence[tuple[float, float]], colour: tuple, width: int = 3) -> None:
        """Draw straight lines between points, and the points."""
        path = [self.at(x, y) for x, y in points]
        self.draw.line(path, fill=colour, width=width)
        for x, y in path:
            self.draw.ellipse([x - width, y - width, x + width, y + width], fill=colour)

    def dashes(self, y: float, colour: tuple) -> None:
        """Draw a broken line across."""
        left, _, right, _ = self.box
        level = self.at(self.x[0], y)[1]
        for x in range(left, right, 14):
            self.draw.line([(x, level), (min(x + 7, right), level)], fill=colour, width=2)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font."""
    return ImageFont.load_default(size)


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two values.

    Args:
        low: One end.
        high: Other end.

    Returns:
        Multiples of 1, 2, 2.5 or 5 times a power of ten.
    """
    low, high = min(low, high), max(low, high)
    rough = (high - low) / 5
    power = 10.0
    while power > rough:
        power /= 10.0
    while power * 10.0 <= rough:
        power *= 10.0
    step = next((m * power for m in (1.0, 2.0, 2.5, 5.0) if m * power >= rough), 10.0 * power)
    first = int(low // step) - 1
    values = [round(step * n, 10) for n in range(first, first + 14)]
    return [value for value in values if low - 1e-9 <= value <= high + 1e-9]


def as_image(picture: Image.Image) -> Tensor:
    """Turn a drawing into an IMAGE.

    Args:
        picture: RGB.

    Returns:
        Shape (1, H, W, 3), 0 to 1.
    """
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)[None]


def draw_report(report: Report) -> Image.Image:
    """Draw reward against evaluations, spending along the schedule, and early against late reward.

    Args:
        report: The report.

    Returns:
        The picture.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    _rewards(draw, (90, 60, WIDTH - 40, 380), report)
    _spending(draw, (90, 500, WIDTH // 2 - 40, HEIGHT - 90), report)
    _correlation(draw, (WIDTH // 2 + 70, 500, WIDTH - 40, HEIGHT - 90), report)
    return image


def _rewards(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], report: Report) -> None:
    items = report.trace.items()
    curves = {item: report.trace.reward_curve(item) for item in items}
    seen = [row[key] for rows in curves.values() for row in rows for key in ("seen", "finished")]
    values = [value for value in seen if value is not None] or [0.0]
    spent = max((row["spent"] for row in report.trace.record["evaluated"]), default=1)
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 1.0
    axes = Axes(draw, box, (0, max(spent, 1)), (low - margin, high + margin))
    axes.frame(f"best {report.reward or 'reward'} so far", "evaluations")
    for item, rows in curves.items():
        colour = COLOURS[item % len(COLOURS)]
        pale = tuple((value + 2 * 255) // 3 for value in colour)
        axes.stairs([(row["evaluations"], row["seen"]) for row in rows], pale)
        done = [row for row in rows if row["finished"] is not None]
        axes.stairs([(row["evaluations"], row["finished"]) for row in done], colour, 4)
        plain = report.plain(item)
        if plain is not None:
            axes.dashes(plain, colour)
    names = "full: finished pictures   pale: predictions   broken: the plain sample"
    draw.text((box[2], box[1] - 14), names, INK, font(18), anchor="rs")


def _spending(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], report: Report) -> None:
    totals: dict[float, dict[str, int]] = {}
    for item in report.trace.items():
        for row in report.trace.spent_by_sigma(item):
            place = totals.setdefault(row["sigma"], {})
            place[row["phase"]] = place.get(row["phase"], 0) + row["evaluations"]
    high = max((sum(place.values()) for place in totals.values()), default=1)
    axes = Axes(draw, box, (1.0, 0.0), (0, max(high, 1) * 1.05))
    axes.frame("evaluations spent", "sigma (1: noise, 0: picture)")
    for sigma, place in totals.items():
        below = 0
        for phase, colour in PHASES.items():
            above = below + place.get(phase, 0)
            x, y = axes.at(sigma, above)
            if above > below:
                draw.rectangle([x - 5, y, x + 5, axes.at(sigma, below)[1]], fill=colour)
            below = above
    for index, (phase, colour) in enumerate(PHASES.items()):
        right = box[2] - 84 * (len(PHASES) - 1 - index)
        draw.text((right, box[1] - 14), phase, colour, font(18), anchor="rs")


def _correlation(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int], report: Report) -> None:
    axes = Axes(draw, box, (1.0, 0.0), (-1.0, 1.0))
    axes.frame("correlation of early with finished reward", "sigma (1: noise, 0: picture)")
    axes.dashes(0.0, INK)
    rows = [row for row in report.trace.early_correlation() if row["correlation"] is not None]
    for row in rows:
        x, y = axes.at(row["sigma"], row["correlation"])
        size = 3 + min(6.0, row["n"] ** 0.5)
        draw.ellipse([x - size, y - size, x + size, y + size], fill=COLOURS[0])
    if not rows:
        x, y = axes.at(0.5, 0.3)
        draw.text(
            (x, y), "fewer than three finished pictures to compare", INK, font(18), anchor="mm"
        )
