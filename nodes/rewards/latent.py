"""A reward of latents: nothing is decoded for it."""

from __future__ import annotations

from typing import Any

import comfy.utils
from comfy_api.latest import io

from ...rewards.latent import STATISTICS, TO_REFERENCE, LatentReward
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "LatentRewardNode"]


class LatentRewardNode(io.ComfyNode):
    """Takes a number from latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        reference = io.Latent.Input(
            "reference",
            tooltip=(
                "What the latent should be like: from the same model and of the same size. With "
                "several, the nearest counts."
            ),
        )
        return io.Schema(
            node_id="FlowSearchLatentReward",
            display_name="Latent Reward",
            category=CATEGORY_REWARDS,
            description=(
                "A number of the latent itself: its mean, its spread, or how like a reference it "
                "is. A search for it decodes nothing and needs no VAE. For tests, and for those "
                "who work in latent space."
            ),
            search_aliases=["latent space", "similarity", "statistic", "no vae"],
            inputs=[
                io.DynamicCombo.Input(
                    "statistic",
                    options=[
                        io.DynamicCombo.Option(name, [reference] if name in TO_REFERENCE else [])
                        for name in STATISTICS
                    ],
                    tooltip=(
                        "mean: of all values, in the units of the LATENT. std: their spread. "
                        "cosine: direction shared with a reference, -1 to 1, whatever the size. "
                        "negative_mse: minus the mean square difference to it, 0 when equal."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="Higher is better.")],
        )

    @classmethod
    def execute(cls, statistic: dict[str, Any]) -> io.NodeOutput:
        """Make the reward.

        Args:
            statistic: Its name under "statistic", and the reference where it has one.

        Returns:
            FLOW_REWARD.
        """
        reference = statistic.get("reference")
        samples = None if reference is None else reference["samples"]
        if samples is not None and samples.is_nested:  # a search has them packed as the host does
            samples = comfy.utils.pack_latents(samples.unbind())[0]
        return io.NodeOutput(LatentReward(statistic["statistic"], samples))


NODES = [LatentRewardNode]
