"""Rewards of human preference: PickScore, HPS and ImageReward from their published files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from comfy_api.latest import io

from ...rewards.base import Reward
from ...rewards.preference.clip_preference import ClipPreference, clip_ids, unread
from ...rewards.preference.image_reward import ImageReward, Judged, bert_ids, bert_unread
from ...rewards.preference.kinds import network_from
from ...rewards.weights.sources import BERT_VOCABULARY, HPS, IMAGE_REWARD, PICK_SCORE
from ..host.page.remarks import remark
from ..host.rewards.prompt import plain_prompt
from ..host.rewards.reward_files import choices, clip_vocabulary, complaint, locate, read, stamp
from ..host.rewards.reward_model import Managed, fine_type, kept
from ..inputs import text_input
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "PreferenceReward"]

KNOWN = (PICK_SCORE, HPS, IMAGE_REWARD)

ROW_BYTES = 80 * 2**20
"""What a picture takes in these networks beside their weights, at most: a picture of 1024 x 1024,
its reduction, and the widest layer of one block."""


def _holder(path: Path) -> Managed[Any]:
    """The network of a file, kept once however many nodes use it."""
    dtype = fine_type()
    return kept(
        ("preference", *stamp(path), dtype),
        lambda: Managed(network_from(read(path), dtype), ROW_BYTES),
    )


def _reward(holder: Managed[Any], prompt: str) -> Reward:
    """Close a network over a prompt."""
    if not isinstance(holder.network, Judged):
        remark(unread(prompt, clip_vocabulary()))
        return ClipPreference(holder, clip_ids(prompt, clip_vocabulary()))
    words = locate(BERT_VOCABULARY.name, (BERT_VOCABULARY,))
    remark(bert_unread(prompt, words, holder.network.words))
    return ImageReward(holder, bert_ids(prompt, words, holder.network.words))


class PreferenceReward(io.ComfyNode):
    """What people prefer."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchPreference",
            display_name="Human Preference Reward",
            category=CATEGORY_REWARDS,
            description=(
                "How much people would prefer a picture for a prompt: PickScore v1, HPS v2.1 or "
                "ImageReward v1.0, whichever the chosen file holds. Nothing is downloaded: put the "
                "published file into models/flowsearch_rewards."
            ),
            search_aliases=["pickscore", "hps", "hpsv2", "imagereward", "human preference"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=choices(),
                    default=PICK_SCORE.name,
                    tooltip=(
                        "Published file in models/flowsearch_rewards: PickScore (0.18 poor, 0.23 "
                        "good), HPS v2.1 (0.20 poor, 0.32 good) or ImageReward (-2 poor, 2 good; "
                        "needs bert-base-uncased/vocab.txt too). The file's contents tell which it "
                        "is. The default is PickScore v1."
                    ),
                ),
                text_input(
                    "prompt",
                    tooltip=(
                        "What the picture should show, usually the prompt it is made from, without "
                        "weights in brackets. PickScore and HPS read 75 tokens of it, ImageReward "
                        "33. Empty asks for nothing, which leaves how the picture looks."
                    ),
                ),
            ],
            outputs=[
                FlowReward.Output(
                    id="reward", tooltip="Higher is preferred; the unit is the chosen file's."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, weights: str | None = None) -> str | Literal[True]:
        """Say where a missing file comes from."""
        answer = complaint(weights, KNOWN)
        if answer is True and weights == IMAGE_REWARD.name:
            return complaint(BERT_VOCABULARY.name, (BERT_VOCABULARY,))
        return answer

    @classmethod
    def execute(cls, weights: str, prompt: str) -> io.NodeOutput:
        """Load the file and close the reward over the prompt."""
        return io.NodeOutput(_reward(_holder(locate(weights, KNOWN)), plain_prompt(prompt)))


NODES = [PreferenceReward]
