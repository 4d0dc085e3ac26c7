"""The Gate node: pictures that are good enough one way, the others another."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...rewards.base import Reward
from ..sockets import CATEGORY_REWARDS, FlowReward
from .scoring import lowest_value, ranked, ranking_output, taken

__all__ = ["NODES", "Gate"]


class Gate(io.ComfyNode):
    """Parts pictures by a reward."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        value = lowest_value(
            "Lowest value that is accepted, in the reward's own unit. Low accepts all, high none; "
            "Score Images says what values are usual."
        )
        n = io.Int.Input(
            "n",
            default=1,
            min=1,
            max=100_000,
            tooltip=(
                "How many are accepted, the best ones; of equal ones the earlier. 1 (default): the "
                "best. As many as there are, or more: all."
            ),
        )
        return io.Schema(
            node_id="FlowSearchGate",
            display_name="Gate",
            category=CATEGORY_REWARDS,
            description=(
                "Lets pictures through that a reward finds good enough, and puts the others out "
                "apart. What comes after an output that is empty is not run: only good pictures "
                "are upscaled, only bad ones sampled again."
            ),
            search_aliases=[
                "filter", "threshold", "accept", "reject", "if good enough", "quality gate",
                "pick best", "choose best", "switch", "only good ones",
            ],
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "images",
                    tooltip=(
                        "Any number of pictures, from anywhere; for a reward of clips the frames "
                        "of one clip, which passes or fails whole."
                    ),
                ),
                FlowReward.Input(
                    "reward", tooltip="What a good picture is, or with Frame Reward a good clip."
                ),
                io.DynamicCombo.Input(
                    "keep",
                    options=[
                        io.DynamicCombo.Option("threshold", [value]),
                        io.DynamicCombo.Option("top", [n]),
                    ],
                    tooltip=(
                        "Which are accepted. threshold (default): all that reach a value, maybe "
                        "none. top: the n best, whatever their values."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    id="accepted",
                    tooltip="Those that are good enough, in the order given; none: not run.",
                ),
                io.Image.Output(
                    id="rejected", tooltip="The others, in the order given; none: not run."
                ),
                io.Int.Output(
                    id="indices",
                    is_output_list=True,
                    tooltip=(
                        "Places of the accepted in the batch, from 0, as a list: ImageFromBatch "
                        "and LatentFromBatch run once for each; none: not run."
                    ),
                ),
                io.Float.Output(
                    id="scores",
                    is_output_list=True,
                    tooltip="The value of every picture, in the order given.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, images: Tensor, reward: Reward, keep: dict[str, Any]) -> io.NodeOutput:
        """Part them.

        Args:
            images: IMAGE.
            reward: FLOW_REWARD.
            keep: "threshold" with the key value, or "top" with the key n, under "keep".

        Returns:
            IMAGE, IMAGE, INT list, FLOAT list; the text and a table go into the history too.
        """
        how = {"keep": keep.get("n", 0), "at_least": keep.get("value")}
        given, ranking = ranked(images, reward, **how)
        good = ranking.kept()
        others = [place for place in range(len(given)) if place not in {*good}]
        parted = (taken(given, good), taken(given, others))
        places = good or ExecutionBlocker(None)
        return io.NodeOutput(
            *parted, places, ranking.values, ui=ranking_output(ranking, given[good])
        )


NODES = [Gate]
