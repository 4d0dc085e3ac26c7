"""Drawing a search's report: its rewards, where its evaluations went, the winner's family."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw

from ..samplers.search.lineage import Frame
from ..samplers.search.trace import value_of
from .host.outcome import Report
from .plot import COLOURS, INK, Axes, font

__all__ = ["draw_report"]

WIDTH = 1200
RED = (190, 30, 30)
PHASES = {
    "plain": (150, 150, 150),
    "calibrate": (200, 170, 60),
    "search": (31, 119, 180),
    "finish": (44, 140, 60),
    "target": (214, 90, 20),
}
SHOWN = 12  # pictures of the family, the last of them
CELL = (WIDTH - 130) // SHOWN
Box = tuple[int, int, int, int]


def draw_report(report: Report) -> Image.Image:
    """Draw rewards against evaluations, spending, early against late reward, and the family.

    Args:
        report: The report.

    Returns:
        The picture; as high as it needs to be.
    """
    held_out = report.trace.held_out()
    families = {item: frames for item, frames in report.families.items() if frames}
    warnings = [line for text in report.warnings() for line in textwrap.wrap(text, 118)]
    below = 440 + (270 if held_out else 0)
    strips = below + 410
    notes = strips + (CELL + 90) * len(families)
    image = Image.new("RGB", (WIDTH, max(900, notes + 30 * len(warnings) + 10)), "white")
    draw = ImageDraw.Draw(image)
    _rewards(draw, (90, 60, WIDTH - 40, 380), report)
    if held_out:
        _held_out(draw, (90, 490, WIDTH - 40, 650), report, held_out)
    _spending(draw, (90, below + 60, WIDTH // 2 - 40, below + 310), report)
    _correlation(draw, (WIDTH // 2 + 70, below + 60, WIDTH - 40, below + 310), report)
    for number, (item, frames) in enumerate(families.items()):
        _family(image, strips + (CELL + 90) * number, report, item, frames)
    for number, line in enumerate(warnings):
        draw.text((90, notes + 30 * number), line, RED, font(18))
    return image


def _spent(report: Report) -> int:
    return max((row["spent"] for row in report.trace.record["evaluated"]), default=1) or 1


def _rewards(draw: ImageDraw.ImageDraw, box: Box, report: Report) -> None:
    items = report.trace.items()
    curves = {item: report.trace.reward_curve(item) for item in items}
    seen = [row[key] for rows in curves.values() for row in rows for key in ("seen", "finished")]
    values = [value for value in seen if value is not None] or [0.0]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 1.0
    axes = Axes(draw, box, (0, _spent(report)), (low - margin, high + margin))
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


def _held_out(draw: ImageDraw.ImageDraw, box: Box, report: Report, names: Sequence[str]) -> None:
    """The held-out rewards of the best picture so far; each on its own scale if there are more."""
    curves = {
        (name, item): [
            (row["evaluations"], row["value"])
            for row in report.trace.held_out_curve(item, name)
            if row["value"] is not None
        ]
        for name in names
        for item in report.trace.items()
    }
    ranges = {name: _range(report, name) for name in names}
    scale = ranges[names[0]] if len(names) == 1 else (0.0, 1.0)
    axes = Axes(draw, box, (0, _spent(report)), scale)
    axes.frame("held out, of the same picture", "evaluations")
    for number, name in enumerate(names):
        colour = COLOURS[(number + 1) % len(COLOURS)]
        low, high = ranges[name]
        for (other, _), points in curves.items():
            if other == name:
                unit = [(x, (y - low) / (high - low)) for x, y in points]
                axes.stairs(points if len(names) == 1 else unit, colour)
        label = name if len(names) == 1 else f"{name} {low:.3g} to {high:.3g}"
        draw.text((box[2], box[1] - 14 + 24 * number), label, colour, font(18), anchor="rs")


def _range(report: Report, name: str) -> tuple[float, float]:
    """Where all finished pictures lie, so that what is no more than their spread looks it."""
    found = [value_of(row["scores"], name) for row in report.trace.record["finished"]]
    values = [value for value in found if value is not None] or [0.0]
    margin = 0.08 * (max(values) - min(values)) or 0.5
    return min(values) - margin, max(values) + margin


def _spending(draw: ImageDraw.ImageDraw, box: Box, report: Report) -> None:
    totals: dict[float, dict[str, int]] = {}
    phases: dict[str, int] = dict.fromkeys(PHASES, 0)
    for item in report.trace.items():
        for row in report.trace.spent_by_sigma(item):
            place = totals.setdefault(row["sigma"], {})
            place[row["phase"]] = place.get(row["phase"], 0) + row["evaluations"]
            phases[row["phase"]] = phases.get(row["phase"], 0) + row["evaluations"]
    high = max((sum(place.values()) for place in totals.values()), default=1)
    axes = Axes(draw, box, (1.0, 0.0), (0, max(high, 1) * 1.05))
    axes.frame("evaluations", "sigma (1: noise, 0: picture)")
    for sigma, place in totals.items():
        below = 0
        for phase, colour in PHASES.items():
            above = below + place.get(phase, 0)
            x, y = axes.at(sigma, above)
            if above > below:
                draw.rectangle([x - 5, y, x + 5, axes.at(sigma, below)[1]], fill=colour)
            below = above
    right = box[2]
    for phase in reversed(PHASES):
        text = f"{phase} {phases[phase]}"
        draw.text((right, box[1] - 14), text, PHASES[phase], font(16), anchor="rs")
        right -= int(draw.textlength(text, font(16))) + 12


def _correlation(draw: ImageDraw.ImageDraw, box: Box, report: Report) -> None:
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


def _family(
    image: Image.Image, top: int, report: Report, item: int, frames: Sequence[Frame]
) -> None:
    """A strip of what the reward saw, with sigma and reward; an arrow where it went up again."""
    draw = ImageDraw.Draw(image)
    rows = {r["id"]: r for r in report.trace.record["evaluated"] if r["item"] == item}
    more = len(frames) - SHOWN
    title = f"what the reward saw on the way to the best picture of item {item}"
    title += f" (the last {SHOWN} of {len(frames)})" if more > 0 else ""
    draw.text((90, top + 16), title, INK, font(22), anchor="ls")
    before = None
    for place, frame in enumerate(frames[-SHOWN:]):
        row, left = rows[frame.id], 90 + CELL * place
        small = _picture(frame.picture).copy()
        small.thumbnail((CELL - 6, CELL - 6), Image.Resampling.LANCZOS)
        image.paste(small, (left, top + 28))
        up = "^ " if before is not None and row["sigma"] > before else ""
        before = row["sigma"]
        for line, text in enumerate((f"{up}{row['sigma']:.3g}", f"{row['scores']['value']:.3g}")):
            y = top + 34 + small.height + 20 * line
            draw.text((left, y), text, (INK, COLOURS[0])[line], font(15))


def _picture(pixels: torch.Tensor) -> Image.Image:
    """Turn a kept picture into PIL's form, enlarged if it is tiny."""
    picture = Image.fromarray(pixels.numpy())
    scale = (CELL - 6) // max(picture.size)
    if scale > 1:
        size = (picture.width * scale, picture.height * scale)
        return picture.resize(size, Image.Resampling.NEAREST)
    return picture
