"""Nodes that search for a high reward: as KSampler, as SamplerCustomAdvanced, as a SAMPLER."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider, Sampler
from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..rewards.base import Reward
from ..samplers.transition import ODE
from .flow_sampler import FlowSampler
from .host.forms import Conditioning, Noise, SeededNoise, cfg_guider, ksampler_sigmas, search_latent
from .host.judge import Judge
from .host.search_sampler import SearchSampler, StrategyChoice, limits
from .search_inputs import advanced_inputs, budget_inputs, reward_inputs, search_outputs
from .sockets import CATEGORY_SEARCH

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NODES", "RBFSearch", "Search", "SearchSamplerNode", "searcher"]

ALIASES = [
    "best of n",
    "rbf",
    "rollover budget forcing",
    "particle search",
    "inference-time scaling",
    "test-time scaling",
    "reward",
    "best seed",
    "reward guided",
]


class Given(TypedDict, total=False):
    """The inputs that all three nodes have; searcher() refuses any other."""

    vae: VAE | None
    reward: Reward
    evaluations: int
    target: dict[str, Any]
    strategy: StrategyChoice | None
    scoring_vae: VAE | None
    score_size: int
    seconds: float
    reward_calls: int
    rows: int
    checkpoint_seconds: float
    top_k: int
    held_out: dict[str, Reward] | None


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

    Returns:
        The search as a SAMPLER.
    """
    budget = limits(reward, evaluations, target, seconds, reward_calls, rows)
    judge = Judge(reward, vae, scoring_vae, score_size, [*(held_out or {}).values()], audio_vae)
    return SearchSampler(
        sampler, judge, budget, strategy, top_k, checkpoint_seconds=checkpoint_seconds
    )


class RBFSearch(io.ComfyNode):
    """A search with the inputs of KSampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchRBFSearch",
            display_name="RBF Search",
            category=CATEGORY_SEARCH,
            description=(
                "Samples a flow model like KSampler, then spends more computation on finding a "
                "picture with a higher reward: it varies the best one so far and goes on with "
                "what is better (or searches as Search Strategy says, Rollover Budget Forcing too)."
            ),
            search_aliases=[*ALIASES, "ksampler"],
            inputs=[
                io.Model.Input("model", tooltip="A flow model: Flux, SD3.5, Qwen-Image, Wan, ..."),
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input(
                    "negative", tooltip="What it should not show; unused at cfg 1."
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip="Where to start; each row of the batch is searched by itself.",
                ),
                *reward_inputs(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip=(
                        "Seed of everything random; the plain sample is KSampler's euler with the "
                        "same seed. Fix it to continue a search that was cancelled."
                    ),
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=10000,
                    tooltip=(
                        "Steps of one picture, one evaluation each. Few: more pictures for the "
                        "budget, each coarser; many: finer, and fewer."
                    ),
                ),
                io.Float.Input(
                    "cfg",
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip=(
                        "Guidance. 1: none, half the time, for guidance-distilled models such as "
                        "Flux; high: closer to the prompt, less varied."
                    ),
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.SCHEDULER_NAMES,
                    default="simple",
                    tooltip="Where the steps lie between noise and picture.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "How much of the latent is replaced. 1: all of it; low: keep its "
                        "structure, and little is left to search."
                    ),
                ),
                *budget_inputs(),
                *advanced_inputs(),
            ],
            outputs=search_outputs(),
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, positive: Conditioning, negative: Conditioning,
        latent_image: dict[str, Any], seed: int, steps: int, cfg: float, scheduler: str,
        denoise: float, **search: Unpack[Given],
    ) -> io.NodeOutput:  # fmt: skip
        """Search.

        Args:
            model: MODEL.
            positive: CONDITIONING.
            negative: CONDITIONING.
            latent_image: LATENT.
            seed: Seed.
            steps: Steps of one picture.
            cfg: Guidance.
            scheduler: The host's.
            denoise: Part of the schedule.
            **search: See searcher().

        Returns:
            LATENT, IMAGE, FLOW_REPORT.
        """
        guider = cfg_guider(model, positive, negative, cfg)
        sigmas = ksampler_sigmas(model, scheduler, steps, denoise)
        sampler = searcher(FlowSampler(ODE), **search)
        return io.NodeOutput(
            *search_latent(guider, SeededNoise(seed), sigmas, latent_image, sampler)
        )


class Search(io.ComfyNode):
    """A search with the inputs of SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchSearch",
            display_name="Search",
            category=CATEGORY_SEARCH,
            description=(
                "As SamplerCustomAdvanced, with a search around the sampler: any noise, guider and "
                "sigmas. With Stochastic Flow Sampler it searches at every step; with any other "
                "sampler it compares whole pictures (best_of_n)."
            ),
            search_aliases=[*ALIASES, "custom sampler", "advanced"],
            inputs=[
                io.Noise.Input("noise", tooltip="Initial noise; its seed is the search's."),
                io.Guider.Input("guider", tooltip="Model, prompt and guidance."),
                io.Sampler.Input(
                    "sampler",
                    tooltip=(
                        "What is searched. Stochastic Flow Sampler: its transition is the "
                        "search's. Any other: whole pictures only."
                    ),
                ),
                io.Sigmas.Input("sigmas", tooltip="Noise levels of one picture, ending at 0."),
                io.Latent.Input(
                    "latent_image",
                    tooltip="Where to start; each row of the batch is searched by itself.",
                ),
                *reward_inputs(needs_vae=False),
                *budget_inputs(),
                *advanced_inputs(),
            ],
            outputs=search_outputs(),
        )

    @classmethod
    def execute(
        cls,
        noise: Noise,
        guider: CFGGuider,
        sampler: Sampler,
        sigmas: Tensor,
        latent_image: dict[str, Any],
        **search: Unpack[Given],
    ) -> io.NodeOutput:
        """Search.

        Args:
            noise: NOISE.
            guider: GUIDER.
            sampler: SAMPLER.
            sigmas: SIGMAS.
            latent_image: LATENT.
            **search: See searcher().

        Returns:
            LATENT, IMAGE, FLOW_REPORT.
        """
        return io.NodeOutput(
            *search_latent(guider, noise, sigmas, latent_image, searcher(sampler, **search))
        )


class SearchSamplerNode(io.ComfyNode):
    """A search as a SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchSearchSampler",
            display_name="Search Sampler",
            category=CATEGORY_SEARCH,
            description=(
                "A search as a SAMPLER, for SamplerCustomAdvanced, detailers, upscalers and "
                "anything else that has a SAMPLER input. One picture for each picture of the "
                "batch."
            ),
            search_aliases=[*ALIASES, "sampler"],
            inputs=[
                io.Sampler.Input(
                    "sampler",
                    tooltip=(
                        "What is searched. Stochastic Flow Sampler: its transition is the "
                        "search's. Any other: whole pictures only."
                    ),
                ),
                *reward_inputs(needs_vae=False),
                *budget_inputs(),
                *advanced_inputs(top_k=False),
            ],
            # an output of the same id as an input is refused by older hosts
            outputs=[io.Sampler.Output(id="search_sampler", display_name="SAMPLER")],
        )

    @classmethod
    def execute(cls, sampler: Sampler, **search: Unpack[Given]) -> io.NodeOutput:
        """Build the sampler.

        Args:
            sampler: SAMPLER.
            **search: See searcher().

        Returns:
            SAMPLER.
        """
        return io.NodeOutput(searcher(sampler, **search))


NODES = [RBFSearch, Search, SearchSamplerNode]
