"""Rewards of the embedded model's pictures: exact counts of coloured shapes, and their form."""

from __future__ import annotations

from comfy_api.latest import io

from ...rewards.pixels.shape_count import ShapeCount, parse_groups
from ...rewards.pixels.shape_fidelity import ShapeFidelity
from ..host.rewards.prompt import plain_prompt
from ..inputs import text_input
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "ShapeCountReward", "ShapeFidelityReward"]


class ShapeCountReward(io.ComfyNode):
    """Counts coloured shapes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchShapeCount",
            display_name="Shape Count Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Counts coloured circles, squares and triangles on a light background, exactly and "
                "without a network. 0 when every count is right, -1 for each shape missing or too "
                "many. Made for the demo model; meaningless on photographs."
            ),
            search_aliases=["count", "counting reward", "number of objects", "shapes"],
            inputs=[
                text_input(
                    "prompt",
                    default="three red circles and two blue squares",
                    tooltip=(
                        "What should be counted, in the words of the demo model's prompt: counts, "
                        "colours and shapes, 'no blue squares' too. Anything that is not named "
                        "should not be there. Empty wants an empty picture."
                    ),
                ),
                text_input(
                    "targets",
                    advanced=True,
                    tooltip=(
                        "Explicit targets, one a line, such as 'red circle: 3'. When not empty, "
                        "they are counted instead of the prompt."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="0 is right; -1 per wrong count.")],
        )

    @classmethod
    def execute(cls, prompt: str, targets: str = "") -> io.NodeOutput:
        """Close the reward over its targets."""
        return io.NodeOutput(
            ShapeCount.from_groups(parse_groups(targets.strip() or plain_prompt(prompt)))
        )


class ShapeFidelityReward(io.ComfyNode):
    """Compares coloured patches with true shapes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchShapeFidelity",
            display_name="Shape Fidelity Reward",
            category=CATEGORY_REWARDS,
            description=(
                "How nearly every coloured patch is a true circle, square or triangle, from 0 to "
                "1, whatever their number. Connect it as a held-out reward of a search for counts: "
                "it falls where the search wins counts with broken shapes. Made for the demo "
                "model; meaningless on photographs."
            ),
            search_aliases=["held out", "quality", "shapes", "over-optimisation"],
            inputs=[],
            outputs=[FlowReward.Output(id="reward", tooltip="1 is true to shape; 0 is nothing.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Make the reward."""
        return io.NodeOutput(ShapeFidelity())


NODES = [ShapeCountReward, ShapeFidelityReward]
