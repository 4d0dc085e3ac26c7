"""How do the inputs that all searching nodes have become a search?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.samplers import Sampler
from comfy.sd import VAE

from ...rewards.base import Reward
from ...samplers.stepping.transition import Transition
from ..host.model.flow_sampler import FlowSampler
from ..host.search.gradients import RewardGuidance
from ..host.search.judge import Judge
from ..host.search.search_sampler import SearchSampler, StrategyChoice, limits

__all__ = ["SearchInputs", "guided"]


@dataclass(frozen=True)
class SearchInputs:
    """The inputs that all searching nodes have, by their names; it knows no other.

    Attributes:
        reward: FLOW_REWARD.
        evaluations: Budget of an item.
        target: See limits().
        vae: VAE of the finished pictures; None for a reward of latents.
        strategy: FLOW_STRATEGY or None.
        scoring_vae: VAE of unfinished pictures or None.
        score_size: Longer side for scoring unfinished pictures, 0 for as decoded.
        seconds: Time limit, 0 for none.
        reward_calls: Limit of pictures scored, 0 for none.
        rows: Limit of rows that reach the network, 0 for none.
        checkpoint_seconds: Time between two checkpoints, 0 for none.
        top_k: Finished pictures an item.
        held_out: Rewards that are only reported, by input; None for none.
        audio_vae: VAE of the sound of a model of video with sound, or None.
        notes: Sentences for the report.
    """

    reward: Reward
    evaluations: int
    target: dict[str, Any]
    vae: VAE | None = None
    strategy: StrategyChoice | None = None
    scoring_vae: VAE | None = None
    score_size: int = 0
    seconds: float = 0.0
    reward_calls: int = 0
    rows: int = 0
    checkpoint_seconds: float = 30.0
    top_k: int = 1
    held_out: Mapping[str, Reward] | None = None
    audio_vae: VAE | None = None
    notes: tuple[str, ...] = ()

    def search(self, sampler: Sampler) -> SearchSampler:
        """Put the search together.

        Args:
            sampler: SAMPLER to be searched.

        Returns:
            The search as a SAMPLER.
        """
        budget = limits(
            self.reward, self.evaluations, self.target, self.seconds, self.reward_calls, self.rows
        )
        judge = Judge(
            self.reward,
            self.vae,
            self.scoring_vae,
            self.score_size,
            [*(self.held_out or {}).values()],
            self.audio_vae,
        )
        return SearchSampler(
            sampler,
            judge,
            budget,
            self.strategy,
            self.top_k,
            checkpoint_seconds=self.checkpoint_seconds,
            notes=self.notes,
        )


def guided(transition: Transition, guidance: RewardGuidance | None) -> FlowSampler:
    """Put a guidance on the transition of a node that has no sampler input.

    Args:
        transition: The node's.
        guidance: FLOW_GUIDANCE or None.

    Returns:
        The sampler.
    """
    if guidance is None or guidance.guidance is None:
        return FlowSampler(transition)
    return FlowSampler(transition.guided(guidance.guidance), guidance)
