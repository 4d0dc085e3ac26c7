"""What can be measured on the pixels themselves."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...rewards.pixels.image_statistic import STATISTICS, ImageStatistic, palette_of, parse_palette
from ..inputs import text_input
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "ImageStatisticReward"]

ALIASES = [
    "sharpness", "brightness", "contrast", "colourfulness", "colorfulness", "palette", "colour",
    "compressibility", "jpeg", "saturation", "color",
]  # fmt: skip


class ImageStatisticReward(io.ComfyNode):
    """Measures the pixels."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchImageStatistic",
            display_name="Image Statistic Reward",
            category=CATEGORY_REWARDS,
            description=(
                "A number measured on the pixels, without a network: sharpness, brightness, "
                "contrast, colourfulness, compressibility or nearness to a palette; higher, lower "
                "or near a target. Easily over-done by a search: use it beside another reward, or "
                "with a target."
            ),
            search_aliases=ALIASES,
            inputs=[_statistic(), _direction()],
            outputs=[
                FlowReward.Output(
                    id="reward", tooltip="The value, its opposite, or minus its distance."
                )
            ],
        )

    @classmethod
    def execute(cls, statistic: dict[str, Any], direction: dict[str, Any]) -> io.NodeOutput:
        """Close the reward over its settings."""
        reference = statistic.get("reference")
        palette = ()
        if statistic["statistic"] == "palette":
            palette = (
                parse_palette(statistic["colours"])
                if reference is None
                else palette_of(reference[0], statistic["count"])
            )
        target = direction.get("value", 0.0)
        return io.NodeOutput(
            ImageStatistic(statistic["statistic"], direction["direction"], target, palette)
        )


def _statistic() -> io.DynamicCombo.Input:
    palette: list[io.Input] = [
        text_input(
            "colours",
            default="#1d3557 #457b9d #a8dadc #f1faee #e63946",
            tooltip=(
                "Colours as hexadecimal red, green, blue, separated by spaces, commas or lines. "
                "Few: a picture of few colours; many: nearly any picture fits."
            ),
        ),
        io.Image.Input(
            "reference",
            optional=True,
            tooltip=(
                "A picture whose main colours are the palette, instead of the list. Only the first "
                "of a batch is used."
            ),
        ),
        io.Int.Input(
            "count",
            default=8,
            min=1,
            max=64,
            optional=True,
            tooltip=(
                "Most colours taken from the reference, 8 by default. 1: its mean colour; 64: even "
                "small details of it, and more pictures fit."
            ),
        ),
    ]
    options = [
        io.DynamicCombo.Option(name, palette if name == "palette" else []) for name in STATISTICS
    ]
    return io.DynamicCombo.Input(
        "statistic",
        options=options,
        tooltip=(
            "sharpness: variance of the Laplacian (below 100 looks blurred). brightness: mean "
            "luma, 0 to 1. contrast: its standard deviation, 0 to 0.5. colourfulness: 0 grey to "
            "109 extreme. compressibility: minus JPEG bytes per pixel. palette: minus the mean "
            "distance from the nearest of your colours (2.3 is just visible)."
        ),
    )


def _direction() -> io.DynamicCombo.Input:
    value = io.Float.Input(
        "value",
        default=0.5,
        min=-1e7,
        max=1e7,
        step=0.01,
        round=False,
        tooltip=(
            "Wanted value in the statistic's own unit, such as 0.5 for a brightness in the middle. "
            "What lies above it and below it counts alike; -1 for compressibility is a byte per "
            "pixel."
        ),
    )
    return io.DynamicCombo.Input(
        "direction",
        options=[
            io.DynamicCombo.Option("higher", []),
            io.DynamicCombo.Option("lower", []),
            io.DynamicCombo.Option("target", [value]),
        ],
        tooltip=(
            "higher (the default): the more the better. lower: the less the better. target: the "
            "nearer to a value of yours the better, 0 at it; the search then has something to stop "
            "at."
        ),
    )


NODES = [ImageStatisticReward]
