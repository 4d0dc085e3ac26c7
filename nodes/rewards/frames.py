"""A reward of clips, made of one of pictures."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...rewards.base import Reward
from ...rewards.frames import AGGREGATES, COUNT, FRAMES, FrameReward
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "FrameRewardNode"]


class FrameRewardNode(io.ComfyNode):
    """Scores frames of a clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        count = io.Int.Input(
            "count",
            default=COUNT,
            min=1,
            max=1024,
            tooltip=(
                "Frames of each clip that are scored, the first and the last among them. 1: the "
                "middle one; few: fast, and what happens in between is not seen; many: all is "
                "seen, each at the reward's own cost. Default 8."
            ),
        )
        return io.Schema(
            node_id="FlowSearchFrameReward",
            display_name="Frame Reward",
            category=CATEGORY_REWARDS,
            description=(
                "Makes a reward of clips of a reward of pictures: it scores some frames and takes "
                "their mean, or the worst or best of them. A reward of pictures that is connected "
                "to a search of a video model as it is gets the defaults of this node."
            ),
            search_aliases=["video reward", "clip", "frames", "video score", "temporal"],
            inputs=[
                FlowReward.Input("reward", tooltip="Scores the frames: any reward of pictures."),
                io.DynamicCombo.Input(
                    "frames",
                    options=[
                        io.DynamicCombo.Option(name, [count] if name == FRAMES[0] else [])
                        for name in FRAMES
                    ],
                    tooltip=(
                        "Which frames are scored. evenly_spaced (the default): so many over the "
                        "whole clip. all: every one, slow. first, middle, last: that one."
                    ),
                ),
                io.Combo.Input(
                    "aggregate",
                    options=[*AGGREGATES],
                    default=AGGREGATES[0],
                    tooltip=(
                        "What the clip's value is. mean (the default): of the frames. min: of the "
                        "worst one, so that all must be good. max: of the best one, so that "
                        "something is seen once."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="In the unit of the reward given.")],
        )

    @classmethod
    def execute(cls, reward: Reward, frames: dict[str, Any], aggregate: str) -> io.NodeOutput:
        """Make the reward.

        Args:
            reward: FLOW_REWARD of pictures.
            frames: Its name under "frames", with "count" for evenly_spaced.
            aggregate: One of AGGREGATES.

        Returns:
            FLOW_REWARD of clips.
        """
        made = FrameReward(reward, frames["frames"], frames.get("count", COUNT), aggregate)
        return io.NodeOutput(made)


NODES = [FrameRewardNode]
