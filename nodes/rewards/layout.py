"""Where colours should be: a drawing, a picture or coloured boxes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...rewards.pixels.layout import MOST_PLACES, Layout, drawn, parse_boxes
from ..inputs import text_input
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "LayoutReward"]


class LayoutReward(io.ComfyNode):
    """Compares mean colours of places."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchLayoutReward",
            display_name="Layout Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Wants colours where a drawing, a picture or coloured boxes have them: minus the "
                "distance of mean colours on a grid of places, 0 at the drawing. No network; with "
                "Gradient Guidance it composes a picture at no more evaluations than a sample."
            ),
            search_aliases=[
                "composition", "regional", "sketch", "scribble", "drawing", "boxes", "layout",
                "where things are", "colour", "color", "position",
            ],
            inputs=[
                _layout(),
                io.Int.Input(
                    "grid",
                    default=8,
                    min=1,
                    max=MOST_PLACES,
                    tooltip=(
                        "Places along each side, whose mean colours are compared. 1: only the mean "
                        "of the picture; few: free in detail; many: as drawn. 8 by default."
                    ),
                ),
                io.Float.Input(
                    "colour",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip=(
                        "Share of colour against brightness. 0: brightness alone, as of a grey "
                        "drawing; 1: colour alone; 0.5 (default): both, the plain distance."
                    ),
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Where it counts: white wholly, black not at all. None: everywhere, of "
                        "boxes wherever one is. Stretched over the picture; the first of a batch."
                    ),
                ),
            ],
            outputs=[
                FlowReward.Output(
                    id="reward", tooltip="0 is the drawing, -0.1 a tenth of full scale from it."
                )
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        layout: dict[str, Any],
        grid: int = 8,
        colour: float = 0.5,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Close the reward over its drawing.

        Args:
            layout: "boxes" with the key boxes, or "picture" with the key drawing, under "layout".
            grid: Places along each side.
            colour: Share of colour against brightness.
            mask: MASK; None for none.

        Returns:
            FLOW_REWARD.
        """
        weights = None if mask is None else mask[0]
        if layout["layout"] == "picture":
            return io.NodeOutput(Layout(layout["drawing"][0], weights, grid, colour))
        drawing, painted = drawn(parse_boxes(layout["boxes"]), mask=weights)
        return io.NodeOutput(Layout(drawing, painted, grid, colour))


def _layout() -> io.DynamicCombo.Input:
    boxes = text_input(
        "boxes",
        default="background white\nred 0.1 0.1 0.4 0.4\nblue 0.6 0.6 0.9 0.9",
        tooltip=(
            "One box a line: a colour (red, tomato, #e63946), then left, top, right and bottom "
            "as parts of the picture from 0 to 1. Later ones lie over earlier ones. 'background "
            "white' is all the rest; without it nothing is asked there."
        ),
    )
    drawing = io.Image.Input(
        "drawing",
        tooltip=(
            "A drawing or a picture, stretched to the size of what is scored: any size does, the "
            "same proportions are best. The first of a batch."
        ),
    )
    return io.DynamicCombo.Input(
        "layout",
        options=[
            io.DynamicCombo.Option("boxes", [boxes]),
            io.DynamicCombo.Option("picture", [drawing]),
        ],
        tooltip=(
            "What says where colours should be. boxes (default): coloured boxes, written down. "
            "picture: a drawing or a picture, such as one from Load Image."
        ),
    )


NODES = [LayoutReward]
