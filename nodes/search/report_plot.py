"""Drawing a search's report: its rewards, where its evaluations went, the winner's family.

A node shows it at about half its size, on a dark page mostly: so one column of panels, large
letters, dark paper, and no panel that has nothing to show.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from PIL import Image, ImageDraw

from ...samplers.search.account.lineage import Frame
from ...samplers.search.account.trace import value_of
from ..host.page.plot import Axes, font
from ..host.page.text import cleaned
from ..host.search.outcome import Report
from ..host.search.summary import score_lines

__all__ = ["draw_report"]

WIDTH = 800
LEFT, RIGHT = 110, WIDTH - 30
PAPER, INK, GRID, DIM = (30, 31, 34), (232, 232, 232), (62, 64, 70), (170, 170, 175)
RED = (255, 130, 110)
COLOURS = [(95, 175, 245), (255, 165, 85), (120, 215, 130), (200, 155, 245), (215, 185, 145)]
PHASES = {
    "plain": (165, 165, 170),
    "calibrate": (230, 200, 90),
    "search": (95, 175, 245),
    "finish": (120, 215, 130),
    "target": (255, 140, 70),
}
SIZE = 22  # of letters; titles are four larger
LINE = 30
TALL = 260  # of a panel's axes
HEAD, FOOT = 84, 76  # above the axes, for title and legend; below, for numbers and label
ROW = 6  # pictures of the family in a row
SHOWN = 2 * ROW  # of them, the last
CELL = (RIGHT - 20) // ROW
Colour: TypeAlias = tuple[int, int, int]
Legend: TypeAlias = Sequence[tuple[str, Colour]]
Panel: TypeAlias = tuple[int, Callable[[Image.Image, int], None]]
"""Height, and what draws it from a top on."""


def draw_report(report: Report, brief: bool = False) -> Image.Image:
    """Draw rewards against evaluations, spending, early against late reward, and the family.

    Args:
        report: The report.
        brief: Only the rewards and the sentences, about as high as wide: what a node can show.

    Returns:
        The picture; as high as it needs to be.
    """
    panels = [
        *_words(score_lines(report), INK),
        *_rewards(report),
        *([] if brief else _details(report)),
        *(panel for text in report.sentences() for panel in _words([text], _tone(text, report))),
    ]
    image = Image.new("RGB", (WIDTH, 20 + sum(height for height, _ in panels)), PAPER)
    top = 10
    for height, draw in panels:
        draw(image, top)
        top += height
    return image


def _details(report: Report) -> list[Panel]:
    """What there is no room for on a node."""
    families = [
        panel
        for item, frames in report.families.items()
        if frames
        for panel in _family(report, item, frames)
    ]
    held_out = [_held_out(report, name, i) for i, name in enumerate(report.trace.held_out())]
    return [*held_out, *_spending(report), *_correlation(report), *families]


def _words(lines: Sequence[str], colour: Colour) -> list[Panel]:
    wrapped = [line for text in lines for line in textwrap.wrap(cleaned(text), 66)]

    def draw(image: Image.Image, top: int) -> None:
        pen = ImageDraw.Draw(image)
        for number, line in enumerate(wrapped):
            pen.text((20, top + LINE * number), line, colour, font(SIZE))

    return [(LINE * len(wrapped) + 10, draw)] if wrapped else []


def _tone(text: str, report: Report) -> Colour:
    return RED if text in report.warnings() else DIM


def _axes(
    image: Image.Image, top: int, x: tuple[float, float], y: tuple[float, float]
) -> tuple[ImageDraw.ImageDraw, Axes]:
    pen = ImageDraw.Draw(image)
    box = (LEFT, top + HEAD, RIGHT, top + HEAD + TALL)
    return pen, Axes(pen, box, x, y, INK, GRID, SIZE)


def _frame(pen: ImageDraw.ImageDraw, axes: Axes, title: str, x_label: str, legend: Legend) -> None:
    """Title on a line of its own, below it what the colours mean, then the axes."""
    axes.frame("", x_label)
    left, top = 20, axes.box[1] - HEAD + 30
    pen.text((left, top), _short(title, WIDTH - 40, SIZE + 4), INK, font(SIZE + 4), anchor="ls")
    for text, colour in legend:
        pen.text((left, top + 32), text, colour, font(SIZE), anchor="ls")
        left += int(pen.textlength(text, font(SIZE))) + 24


def _short(text: str, room: int, size: int) -> str:
    """As much of a text as fits."""
    text = cleaned(text).replace("\n", " ")
    while text and font(size).getlength(text) > room:
        text = f"{text[: -max(4, len(text) // 8)]}..."
    return text


def _spent(report: Report) -> int:
    return max((row["spent"] for row in report.trace.record["evaluated"]), default=1) or 1


def _until(report: Report) -> tuple[float, float]:
    """The evaluations that are drawn: a budget too that is not far off."""
    spent, budget = _spent(report), _budget(report)
    return (0, budget if budget is not None and budget <= 1.5 * spent else spent)


def _budget(report: Report) -> int | None:
    started = report.trace.record["started"]
    return started[-1]["budget"]["evaluations"] if started else None


def _rewards(report: Report) -> list[Panel]:
    items = report.trace.items()
    curves = {item: report.trace.reward_curve(item) for item in items}
    seen = [row[key] for rows in curves.values() for row in rows for key in ("seen", "finished")]
    plains = [plain for item in items if (plain := report.plain(item)) is not None]
    values = [value for value in [*seen, *plains] if value is not None]
    if not values:
        return []
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 1.0

    def draw(image: Image.Image, top: int) -> None:
        pen, axes = _axes(image, top, _until(report), (low - margin, high + margin))
        first = COLOURS[0]
        legend = [("finished", first), ("predicted", _pale(first)), ("- - plain sample", first)]
        title = f"best {report.reward or 'reward'} so far"
        _frame(pen, axes, title, _used(report), [*legend, *_mark_budget(axes, report)])
        for item, rows in curves.items():
            colour = COLOURS[item % len(COLOURS)]
            axes.stairs([(row["evaluations"], row["seen"]) for row in rows], _pale(colour), 3)
            done = [row for row in rows if row["finished"] is not None]
            axes.stairs([(row["evaluations"], row["finished"]) for row in done], colour, 5)
            plain = report.plain(item)
            if plain is not None:
                axes.dashes(plain, colour)

    return [(HEAD + TALL + FOOT, draw)]


def _pale(colour: Colour) -> Colour:
    """Part of the way to the paper."""
    mixed = zip(colour, PAPER, strict=True)
    red, green, blue = ((3 * value + 2 * paper) // 5 for value, paper in mixed)
    return red, green, blue


def _used(report: Report) -> str:
    budget = _budget(report)
    asked = report.spent("gradient_calls")
    beside = f"; {report.spent('reward_calls')} scored"
    beside += (f", {asked} gradients" if asked else "") + f", {report.seconds:.3g} s"
    of = f" (used {_spent(report)} of {budget}{beside})" if budget is not None else ""
    return f"evaluations{of}"


def _mark_budget(axes: Axes, report: Report) -> Legend:
    """A line where the budget ends, if that is in the picture, and a word on it."""
    budget = _budget(report)
    if budget is None:
        return []
    if budget > axes.x[1]:
        return [(f"budget {budget}, further right", DIM)]
    _, top, _, bottom = axes.box
    x = axes.at(budget, axes.y[0])[0]
    axes.draw.line([(x, top), (x, bottom)], fill=DIM, width=3)
    return [("| budget", DIM)]


def _held_out(report: Report, name: str, place: int) -> Panel:
    """A held-out reward of the best picture so far."""
    colour = COLOURS[(place + 1) % len(COLOURS)]

    def draw(image: Image.Image, top: int) -> None:
        pen, axes = _axes(image, top, _until(report), _range(report, name))
        legend = [("held out: of the same picture, it decides nothing", colour)]
        _frame(pen, axes, name, _used(report), legend)
        for item in report.trace.items():
            rows = report.trace.held_out_curve(item, name)
            points = [(r["evaluations"], r["value"]) for r in rows if r["value"] is not None]
            axes.stairs(points, colour, 5)

    return HEAD + TALL + FOOT, draw


def _range(report: Report, name: str) -> tuple[float, float]:
    """Where all finished pictures lie, so that what is no more than their spread looks it."""
    found = [value_of(row["scores"], name) for row in report.trace.record["finished"]]
    values = [value for value in found if value is not None] or [0.0]
    margin = 0.08 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _spending(report: Report) -> list[Panel]:
    totals: dict[float, dict[str, int]] = {}
    phases: dict[str, int] = dict.fromkeys(PHASES, 0)
    for item in report.trace.items():
        for row in report.trace.spent_by_sigma(item):
            place = totals.setdefault(row["sigma"], {})
            place[row["phase"]] = place.get(row["phase"], 0) + row["evaluations"]
            phases[row["phase"]] = phases.get(row["phase"], 0) + row["evaluations"]
    high = max((sum(place.values()) for place in totals.values()), default=0)
    if not high:
        return []

    def draw(image: Image.Image, top: int) -> None:
        pen, axes = _axes(image, top, (1.0, 0.0), (0, high * 1.05))
        legend = [(f"{name} {n}", PHASES[name]) for name, n in phases.items() if n]
        label = "sigma (1: noise, 0: picture)"
        _frame(pen, axes, "where the evaluations went", label, legend)
        for sigma, place in totals.items():
            below = 0
            for phase, colour in PHASES.items():
                above = below + place.get(phase, 0)
                x, y = axes.at(sigma, above)
                if above > below:
                    pen.rectangle([x - 5, y, x + 5, axes.at(sigma, below)[1]], fill=colour)
                below = above

    return [(HEAD + TALL + FOOT, draw)]


def _correlation(report: Report) -> list[Panel]:
    rows = [row for row in report.trace.early_correlation() if row["correlation"] is not None]

    def draw(image: Image.Image, top: int) -> None:
        pen, axes = _axes(image, top, (1.0, 0.0), (-1.0, 1.0))
        legend = [("1: they rank finished pictures, 0: they say nothing", DIM)]
        title = "do early rewards foretell the finished ones?"
        _frame(pen, axes, title, "sigma (1: noise, 0: picture)", legend)
        axes.dashes(0.0, DIM)
        for row in rows:
            x, y = axes.at(row["sigma"], row["correlation"])
            size = 5 + min(7.0, row["n"] ** 0.5)
            pen.ellipse([x - size, y - size, x + size, y + size], fill=COLOURS[0])

    return [(HEAD + TALL + FOOT, draw)] if rows else []


def _family(report: Report, item: int, frames: Sequence[Frame]) -> list[Panel]:
    """Strips of what the reward saw, each with sigma and reward; ^ where it went up again."""
    rows = {r["id"]: r for r in report.trace.record["evaluated"] if r["item"] == item}
    last = frames[-SHOWN:]
    small = [_picture(frame.picture) for frame in last]
    tall = max(picture.height for picture in small) + 2 * (SIZE + 4) + 12
    lines = -(-len(last) // ROW)
    of = f" of picture {item + 1}" if len(report.families) > 1 else ""
    title = f"how the best picture{of} came about"
    title += f" (last {SHOWN} of {len(frames)} steps)" if len(frames) > SHOWN else ""
    unit = f"sigma (^: noised again) and {report.reward or 'reward'}"

    def draw(image: Image.Image, top: int) -> None:
        pen = ImageDraw.Draw(image)
        pen.text((20, top + 34), title, INK, font(SIZE + 4), anchor="ls")
        said = _short(f"under each: {unit}", WIDTH - 40, SIZE)
        pen.text((20, top + 66), said, DIM, font(SIZE), anchor="ls")
        before = None
        for place, (frame, picture) in enumerate(zip(last, small, strict=True)):
            row, left = rows[frame.id], 20 + CELL * (place % ROW)
            y = top + HEAD + tall * (place // ROW)
            image.paste(picture, (left, y))
            up = "^ " if before is not None and row["sigma"] > before else ""
            before = row["sigma"]
            y += tall - 2 * (SIZE + 4) - 8
            pen.text((left, y), f"{up}{row['sigma']:.3g}", DIM, font(SIZE))
            score = f"{row['scores']['value']:.3g}"
            pen.text((left, y + SIZE + 4), score, COLOURS[0], font(SIZE))

    return [(HEAD + lines * tall + 10, draw)]


def _picture(pixels: torch.Tensor) -> Image.Image:
    """Turn a kept picture into PIL's form, to the size of a cell."""
    picture = Image.fromarray(pixels.numpy())
    times = (CELL - 10) / max(picture.size)
    size = (max(1, round(picture.width * times)), max(1, round(picture.height * times)))
    return picture.resize(size, Image.Resampling.BICUBIC)
