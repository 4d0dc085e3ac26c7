"""Rewards of sound."""

from __future__ import annotations

from typing import Literal

from comfy_api.latest import io

from ...rewards.embedding import clap_score
from ...rewards.registry import REWARDS
from ..host.rewards.prompt import plain_prompt
from ..host.rewards.reward_files import choices, complaint, locate, stamp
from ..host.rewards.reward_model import Managed, fine_type, kept
from ..inputs import text_input
from ..sockets import CATEGORY_REWARDS, FlowReward

__all__ = ["NODES", "ClapScoreReward"]

KNOWN = REWARDS["clap_score"].weights


class ClapScoreReward(io.ComfyNode):
    """Compares sound with a prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """See the help page."""
        return io.Schema(
            node_id="FlowSearchClapScore",
            display_name="CLAP Score Reward",
            category=CATEGORY_REWARDS,
            description=(
                "How well a sound fits a prompt: the cosine of their embeddings by CLAP, -1 to 1. "
                "For searches of models of sound (ACE-Step, Stable Audio) and of video with sound "
                "(LTX 2). Hears what makes the sound and in which style; weak at words and order."
            ),
            search_aliases=["audio reward", "music", "clap", "sound", "text audio similarity"],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=choices(folders=True),
                    default=KNOWN[0].name,
                    tooltip=(
                        "A folder below models/flowsearch_rewards with a CLAP model as published: "
                        "config.json, *.safetensors, preprocessor, tokenizer. clap-htsat-unfused "
                        "(the default) for sounds, larger_clap_music for music, "
                        "larger_clap_general for both and speech."
                    ),
                ),
                text_input(
                    "prompt",
                    tooltip=(
                        "What should be heard, in plain words, such as 'a dog barks' or 'slow jazz "
                        "with a saxophone'. Short: what is asked for counts most; long: each part "
                        "counts less. It must not be empty."
                    ),
                ),
            ],
            outputs=[FlowReward.Output(id="reward", tooltip="Cosine, -1 to 1.")],
        )

    @classmethod
    def validate_inputs(cls, weights: str | None = None) -> str | Literal[True]:
        """Say where a missing folder comes from."""
        return complaint(weights, KNOWN)

    @classmethod
    def execute(cls, weights: str, prompt: str) -> io.NodeOutput:
        """Load the folder once, and close the reward over its prompt."""
        path, dtype = locate(weights, KNOWN), fine_type()
        key = ("clap", *stamp(path), dtype)
        holder = kept(key, lambda: Managed(clap_score.load(path, dtype)))
        return io.NodeOutput(clap_score.clap_score(holder, path, plain_prompt(prompt)))


NODES = [ClapScoreReward]
