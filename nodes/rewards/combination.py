"""Several rewards as one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...rewards.base import Reward
from ...rewards.combination import NORMALISATIONS, SOFTNESS, combine
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "CombineRewards", "numbers"]

PREFIX = "reward"

REWARDS = (
    "Any number of rewards, which decide together, of pictures, clips, sound or latents. The first "
    "matters most in lexicographic; in the others the order is that of the weights."
)
WEIGHTS = (
    "One number a reward, in the order of the inputs, with commas or spaces between: 1, 0.5, 2. "
    "Empty: 1 each. 0: that reward is not scored; large: it decides; negative: low is wanted."
)
NORMALISATION = (
    "What makes different rewards comparable. spec: each is divided by the difference between a "
    "good and a poor picture that its description names; not all name one. calibration: minus the "
    "mean, divided by the standard deviation, over the pictures at calibration, measured once. "
    "none: values as they are."
)
CALIBRATION = (
    "Ordinary pictures of your prompt (latents for rewards of latents), at least 2, for the "
    "normalisation calibration. Few: rough units; 16 and more: good ones. Scored once, when the "
    "node runs, and never again, so that a score keeps its meaning."
)


def numbers(text: str) -> list[float]:
    """Read weights.

    Args:
        text: Numbers with commas or white space between, or nothing.

    Returns:
        The numbers.

    Raises:
        ValueError: Something that is no number.
    """
    found: list[float] = []
    for word in text.replace(",", " ").split():
        try:
            found.append(float(word))
        except ValueError:
            raise ValueError(
                f"'{word}' in the weights '{text.strip()}' is no number; give one number a reward, "
                "such as 1, 0.5, 2, with a point for decimals"
            ) from None
    return found


class CombineRewards(io.ComfyNode):
    """Makes one reward of several."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        each = FlowReward.Input(PREFIX, tooltip=REWARDS)
        template = io.Autogrow.TemplatePrefix(each, prefix=PREFIX, min=1, max=100)
        weights = io.String.Input("weights", default="", dynamic_prompts=False, tooltip=WEIGHTS)
        softness = io.Float.Input(
            "softness",
            default=SOFTNESS,
            min=0.001,
            max=1000.0,
            step=0.01,
            round=False,
            tooltip=(
                "How much better than the worst another may be and still count, in the rewards' "
                "units. Small: as minimum; large: as their mean. Default 0.25."
            ),
        )
        return io.Schema(
            node_id="FlowSearchCombineRewards",
            display_name="Combine Rewards",
            category=CATEGORY_REWARDS,
            description=(
                "One reward of several: a weighted sum, the lowest, a product, or in order of "
                "importance (counts right first, then beauty). The report and Score Images show "
                "the value of each."
            ),
            search_aliases=["weighted sum", "ensemble", "multiple rewards", "mix", "minimum"],
            inputs=[
                io.Autogrow.Input("rewards", template=template, tooltip=REWARDS),
                io.DynamicCombo.Input(
                    "rule",
                    options=[
                        io.DynamicCombo.Option("weighted_sum", [weights, _normalisation("spec")]),
                        io.DynamicCombo.Option("minimum", [_normalisation("calibration")]),
                        io.DynamicCombo.Option(
                            "smooth_minimum", [_normalisation("calibration"), softness]
                        ),
                        io.DynamicCombo.Option("product", []),
                        io.DynamicCombo.Option("lexicographic", []),
                    ],
                    tooltip=(
                        "weighted_sum: one may make up for another. minimum: the worst one counts, "
                        "so all must be good. smooth_minimum: mostly the worst one; for gradients, "
                        "which would else move one reward at a time. product: of values from 0 to "
                        "1 by their ranges; one at 0 spoils all. lexicographic: the first decides, "
                        "where it is equal the second, and so on; all but the last must move in "
                        "steps, as counts do."
                    ),
                ),
                io.MultiType.Input(
                    "calibration", types=[io.Image, io.Latent], optional=True, tooltip=CALIBRATION
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="The combination; higher is better.")],
        )

    @classmethod
    def execute(
        cls,
        rewards: dict[str, Reward],
        rule: dict[str, Any],
        calibration: Tensor | dict[str, Tensor] | None = None,
    ) -> io.NodeOutput:
        """Combine; see rewards.combination.combine().

        Args:
            rewards: Input to FLOW_REWARD.
            rule: Name of the rule under "rule", with its settings.
            calibration: IMAGE or LATENT.

        Returns:
            FLOW_REWARD.
        """
        names = sorted(rewards, key=lambda name: int(name.removeprefix(PREFIX)))
        examples = calibration["samples"] if isinstance(calibration, dict) else calibration
        combined = combine(
            [rewards[name] for name in names],
            rule["rule"],
            numbers(rule.get("weights", "")),
            rule.get("normalisation", "none"),
            examples,
            rule.get("softness", SOFTNESS),
        )
        return io.NodeOutput(combined)


def _normalisation(default: str) -> io.Input:
    return io.Combo.Input(
        "normalisation", options=[*NORMALISATIONS], default=default, tooltip=NORMALISATION
    )


NODES = [CombineRewards]
