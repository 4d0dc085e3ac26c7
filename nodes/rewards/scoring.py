"""The Score Images node: what a reward says of pictures, without any search."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image, ImageDraw
from torch import Tensor

from ...rewards.base import Annotator, Assessment, Reward, assess, spec_of
from ..host.page.card import card_output, draw_card
from ..host.page.plot import as_image, font
from ..host.page.progress import say
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = [
    "NODES",
    "Ranking",
    "ScoreImages",
    "labelled",
    "lowest_value",
    "ranked",
    "ranking_output",
    "scored",
    "taken",
]

CHUNK = 16  # pictures between two looks at the cancel button; networks split them further
PIXELS = 2**22  # of these together: 4 of 1024 x 1024, and at least one of any size
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
LISTED = 8  # best pictures that are named on the node
THINGS = {"image": "picture", "video": "clip"}
"""Domain of a reward to what it scores here."""


def scored(images: Tensor, reward: Reward) -> Assessment:
    """Score pictures chunk by chunk, with a progress bar.

    Args:
        images: IMAGE of any number, or clips (B, T, H, W, C) for a reward of clips. Not modified,
            whatever the reward does.
        reward: FLOW_REWARD.

    Returns:
        Values, parts and notes of all.

    Raises:
        ValueError: No pictures, a reward of something else, or a value that is not finite.
    """
    spec, count = spec_of(reward), len(images)
    if spec.domain not in THINGS:
        raise ValueError(
            f"{spec.name} scores {spec.domain}, and these are pictures. Connect a reward of "
            "pictures, or of clips, to which they are the frames of one; others are for the search "
            "nodes."
        )
    if not count:
        raise ValueError("there are no pictures to score; connect an IMAGE that holds some")
    bar = comfy.utils.ProgressBar(count)
    values: list[Tensor] = []
    parts: list[dict[str, float]] = []
    notes: list[str] = []
    chunk = max(1, min(CHUNK, PIXELS // max(1, images[0, ..., 0].numel())))
    for start in range(0, count, chunk):
        comfy.model_management.throw_exception_if_processing_interrupted()
        found = assess(reward, images[start : start + chunk].clone())
        values.append(found.values.detach().float().cpu())
        parts += [dict(each) for each in found.parts]
        notes += found.notes
        bar.update_absolute(min(start + chunk, count), count)
    together = torch.cat(values)
    if not bool(together.isfinite().all()):
        bad = int((~together.isfinite()).nonzero()[0])
        raise ValueError(
            f"{spec.name} returned {float(together[bad])} for {THINGS[spec.domain]} {bad} of "
            f"{count}"
        )
    return Assessment(together, parts, notes)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Pictures in the order of a reward.

    Args:
        name: Of the reward.
        found: What it said.
        keep: Most pictures to keep, 0 for all.
        at_least: Lowest value to keep; None for any.
        best_first: Whether kept pictures are put in order; else they stay as given.
        thing: What they are.
    """

    name: str
    found: Assessment
    keep: int = 0
    at_least: float | None = None
    best_first: bool = False
    thing: str = "picture"

    @property
    def values(self) -> list[float]:
        """One value a picture."""
        return self.found.values.tolist()

    @property
    def ranks(self) -> list[int]:
        """1 for the best; equal values have equal ranks."""
        values = self.values
        rising = sorted(values)
        return [1 + len(rising) - bisect_right(rising, value) for value in values]

    def order(self) -> list[int]:
        """Return the places of all pictures, best first; of equal ones the earlier first."""
        values = self.values
        return sorted(range(len(values)), key=lambda place: -values[place])

    def kept(self) -> list[int]:
        """Return the places of the pictures to keep."""
        low = -math.inf if self.at_least is None else self.at_least
        low = float(torch.tensor(low, dtype=torch.float32))  # as values are, so that 0.7 is 0.7
        values = self.values
        good = [place for place in self.order() if values[place] >= low]
        good = good[: self.keep] if self.keep else good
        return good if self.best_first else sorted(good)

    def quantiles(self) -> dict[str, float]:
        """Return percent to the value below which so many of the pictures are."""
        shares = torch.tensor(QUANTILES, dtype=torch.float64) / 100.0
        found = torch.quantile(self.found.values.double(), shares)
        return {str(percent): float(v) for percent, v in zip(QUANTILES, found, strict=True)}

    def table(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        kept = {*self.kept()}
        rows = zip(self.values, self.ranks, self.found.parts, self.found.notes, strict=True)
        return {
            "reward": self.name,
            "quantiles": self.quantiles(),
            "kept": self.kept(),
            "pictures": [
                {
                    "index": index,
                    "value": value,
                    "rank": rank,
                    "kept": index in kept,
                    "parts": dict(parts),
                    "note": note,
                }
                for index, (value, rank, parts, note) in enumerate(rows)
            ],
        }

    def captions(self) -> list[str]:
        """Return a short text for each picture that is kept."""
        return [f"#{self.ranks[place]}  {self.values[place]:.4g}" for place in self.kept()]

    def sentences(self) -> list[str]:
        """Return what the node shows."""
        count, kept, values = len(self.values), len(self.kept()), self.values
        found = ", ".join(f"{percent} % {v:.4g}" for percent, v in self.quantiles().items())
        said = [f" ({note})" if note else "" for note in self.found.notes]
        best = [f"{self.thing} {i}: {values[i]:.4g}{said[i]}" for i in self.order()[:LISTED]]
        lines = [f"{self.name} of {count} {self.thing}{'s' * (count > 1)}, {kept} kept"]
        lines += [f"quantiles: {found}"] if count > 1 else []
        if not kept:
            lines[0] += f": none reaches {self.at_least:g}, and what comes after is not run"
        return [*lines, *best, *(["..."] if count > LISTED else [])]


def ranked(images: Tensor, reward: Reward, **how: Any) -> tuple[Tensor, Ranking]:
    """Score what a node was given.

    Args:
        images: IMAGE; for a reward of clips the frames of one.
        reward: FLOW_REWARD.
        **how: See Ranking: keep, at_least, best_first.

    Returns:
        What the places of the ranking are places of, and the ranking.
    """
    spec = spec_of(reward)
    given = images[None] if spec.domain == "video" and len(images) else images
    found = scored(given, reward)
    return given, Ranking(spec.name, found, thing=THINGS[spec.domain], **how)


def taken(given: Tensor, places: Sequence[int]) -> Tensor | ExecutionBlocker:
    """Put out those at some places: the frames of a clip, or pictures as they are.

    Args:
        given: As ranked.
        places: Which, in their order; none blocks what comes after, silently.

    Returns:
        IMAGE, or what the host takes for "do not run".
    """
    return given[[*places]].flatten(0, -4) if places else ExecutionBlocker(None)


def ranking_output(ranking: Ranking, kept: Tensor) -> dict[str, Any]:
    """Tell of a ranking on the node, and in the history with the table.

    Args:
        ranking: Any.
        kept: The pictures or clips that it keeps, in its order.

    Returns:
        The node's `ui`.
    """
    lines = ranking.sentences()
    say(";\n".join(lines))  # the page may show all in one paragraph
    stills = kept[:, kept.shape[1] // 2] if kept.ndim == 5 else kept
    drawn = draw_card(lines, [*stills], ranking.captions())
    return card_output(lines, ranking.table(), drawn)


def labelled(images: Tensor, places: Sequence[int], ranking: Ranking, reward: Reward) -> Tensor:
    """Draw on copies of pictures what a reward saw, their ranks and their values.

    Args:
        images: IMAGE, or clips, all of the ranking's.
        places: Which to draw.
        ranking: Their values.
        reward: Draws its own things if it can.

    Returns:
        IMAGE or clips, one a place.
    """
    pictures: list[Tensor] = []
    ranks, values = ranking.ranks, ranking.values
    for place in places:
        comfy.model_management.throw_exception_if_processing_interrupted()
        picture = images[place : place + 1].clone()
        if isinstance(reward, Annotator):
            picture = reward.draw(picture).to(picture).clone()
        lines = [f"#{ranks[place]}  {values[place]:.4g}"]
        # values first: names may be longer than the picture is wide
        lines += [f"{value:.4g} {name}" for name, value in ranking.found.parts[place].items()]
        label = _label(lines, picture.shape[-2], picture.shape[-3] // 2)
        # at the lower left: boxes have their names at the upper left
        picture[..., -label.shape[0] :, : label.shape[1], :3] = label.to(picture)
        pictures.append(picture)
    return torch.cat(pictures)


def _label(lines: Sequence[str], width: int, height: int) -> Tensor:
    """Lines of text as a picture, as many as fit, at least one."""
    size = max(10, width // 36)
    lines = lines[: max(1, height // (size + 4))]
    used = max(int(font(size).getlength(line)) for line in lines) + 6
    high = min(max(1, 2 * height), len(lines) * (size + 4))
    picture = Image.new("RGB", (min(used, width), high))
    draw = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        draw.text((3, row * (size + 4) + 1), line, (255, 255, 255), font(size))
    return as_image(picture)[0]


def lowest_value(tooltip: str) -> io.Float.Input:
    """Describe the input that says from which value on a picture is good.

    Args:
        tooltip: What becomes of those below.

    Returns:
        The input `value`.
    """
    return io.Float.Input(
        "value", default=0.0, min=-1e9, max=1e9, step=0.01, round=False, tooltip=tooltip
    )


class ScoreImages(io.ComfyNode):
    """Scores, ranks and sifts pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        value = lowest_value(
            "Lowest value to keep, in the reward's own unit. Low keeps all; when none reaches "
            "it, the nodes after the image output are not run."
        )
        return io.Schema(
            node_id="FlowSearchScoreImages",
            display_name="Score Images",
            category=CATEGORY_REWARDS,
            description=(
                "Scores pictures with a reward, whatever made them: ranks, keeps the best, draws "
                "the scores on, and says what values are usual, to choose a search's target by."
            ),
            search_aliases=[
                "rank",
                "filter",
                "best of n",
                "pick best",
                "choose best",
                "rate",
                "sort",
                "top k",
            ],
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip=(
                        "Any number of pictures, from anywhere; for a reward of clips the frames "
                        "of one clip."
                    ),
                ),
                FlowReward.Input(
                    "reward", tooltip="What a good picture is, or with Frame Reward a good clip."
                ),
                io.Int.Input(
                    "keep",
                    default=0,
                    min=0,
                    max=100_000,
                    tooltip="Most pictures to put out, best ones. 0 (default): all; 1: the best.",
                ),
                io.DynamicCombo.Input(
                    "threshold",
                    options=[
                        io.DynamicCombo.Option("none", []),
                        io.DynamicCombo.Option("at_least", [value]),
                    ],
                    tooltip="none (default): any value is kept. at_least: this value and above.",
                ),
                io.Combo.Input(
                    "order",
                    options=["best_first", "as_given"],
                    default="best_first",
                    tooltip=(
                        "Order of the pictures that come out. best_first (the default): highest "
                        "value first. as_given: as they came in."
                    ),
                ),
                io.Boolean.Input(
                    "draw",
                    default=False,
                    tooltip=(
                        "Draw rank, value and parts on the pictures that come out, and what the "
                        "reward shows of itself, such as boxes. Off (the default): they come out "
                        "unchanged."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(id="image", tooltip="The pictures that are kept."),
                io.Float.Output(
                    id="scores",
                    is_output_list=True,
                    tooltip="The value of every picture, in the order given.",
                ),
                io.String.Output(
                    id="table",
                    tooltip="JSON: value, rank, parts and note of every picture, and quantiles.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, images: Tensor, reward: Reward, keep: int, threshold: dict[str, Any], order: str,
        draw: bool,
    ) -> io.NodeOutput:  # fmt: skip
        """Score.

        Args:
            images: IMAGE.
            reward: FLOW_REWARD.
            keep: See Ranking.
            threshold: "none" or "at_least" (with the key value) under "threshold".
            order: "best_first" or "as_given".
            draw: Whether to draw on the pictures.

        Returns:
            IMAGE, FLOAT list, STRING; the text and the table go into the history too.
        """
        how = {
            "keep": keep,
            "at_least": threshold.get("value"),
            "best_first": order == "best_first",
        }
        given, ranking = ranked(images, reward, **how)
        kept = ranking.kept()
        kept_ones = labelled(given, kept, ranking, reward) if draw and kept else given[kept]
        image = taken(kept_ones, range(len(kept)))
        table = json.dumps(ranking.table(), indent=1)
        return io.NodeOutput(image, ranking.values, table, ui=ranking_output(ranking, kept_ones))


NODES = [ScoreImages]
