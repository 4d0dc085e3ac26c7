"""How do the inputs that all searching nodes have become a search?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from comfy.samplers import Sampler
from comfy.sd import VAE

from ...rewards.base import Reward
from ..host.search.judge import Judge
from ..host.search.search_sampler import SearchSampler, StrategyChoice, limits

if TYPE_CHECKING:
    from typing_extensions import Required

__all__ = ["Given", "searcher"]


class Given(TypedDict, total=False):
    """The inputs that all searching nodes have; searcher() refuses any other."""

    vae: VAE | None
    reward: Reward
    evaluations: int
    target: Required[dict[str, Any]]
    strategy: StrategyChoice | None
    scoring_vae: VAE | None
    score_size: int
    seconds: float
    reward_calls: int
    rows: int
    checkpoint_seconds: float
    top_k: int
    held_out: dict[str, Reward] | None
    audio_vae: VAE | None
    notes: tuple[str, ...]


def searcher(
    sampler: Sampler,
    *,
    vae: VAE | None = None,
    reward: Reward,
    evaluations: int,
    target: dict[str, Any],
    strategy: StrategyChoice | None = None,
    scoring_vae: VAE | None = None,
    score_size: int = 0,
    seconds: float = 0.0,
    reward_calls: int = 0,
    rows: int = 0,
    checkpoint_seconds: float = 30.0,
    top_k: int = 1,
    held_out: dict[str, Reward] | None = None,
    audio_vae: VAE | None = None,
    notes: tuple[str, ...] = (),
) -> SearchSampler:
    """Put a search together from what a node was given.

    Args:
        sampler: SAMPLER to be searched.
        vae: VAE of the finished pictures; None for a reward of latents.
        reward: FLOW_REWARD.
        evaluations: Budget of an item.
        target: See limits().
        strategy: FLOW_STRATEGY or None.
        scoring_vae: VAE of unfinished pictures or None.
        score_size: Longer side for scoring unfinished pictures, 0 for as decoded.
        seconds: Time limit, 0 for none.
        reward_calls: Limit of pictures scored, 0 for none.
        rows: Limit of rows that reach the network, 0 for none.
        checkpoint_seconds: Time between two checkpoints, 0 for none.
        top_k: Finished pictures an item.
        held_out: Rewards that are only reported, by input.
        audio_vae: VAE of the sound of a model of video with sound, or None.
        notes: Sentences for the report.

    Returns:
        The search as a SAMPLER.
    """
    budget = limits(reward, evaluations, target, seconds, reward_calls, rows)
    judge = Judge(reward, vae, scoring_vae, score_size, [*(held_out or {}).values()], audio_vae)
    return SearchSampler(
        sampler,
        judge,
        budget,
        strategy,
        top_k,
        checkpoint_seconds=checkpoint_seconds,
        notes=notes,
    )
