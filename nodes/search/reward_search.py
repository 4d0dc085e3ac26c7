"""Nodes that search for a high reward: as KSampler, as SamplerCustomAdvanced, as a SAMPLER."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider, Sampler
from comfy_api.latest import io
from torch import Tensor

from ...samplers.stepping.transition import ODE
from ..host.search.forms import (
    Conditioning,
    Noise,
    SeededNoise,
    cfg_guider,
    ksampler_sigmas,
    search_latent,
)
from ..host.search.gradients import RewardGuidance
from ..host.search.summary import put_back
from ..host.versions import shows_results
from ..sockets import CATEGORY_SEARCH
from .inputs import (
    ALIASES,
    advanced_inputs,
    budget_inputs,
    guidance_input,
    ksampler_inputs,
    reward_inputs,
    search_outputs,
)
from .rbf_search import RBFSearch
from .searcher import SearchInputs, guided

__all__ = ["NODES", "RBFSearch", "RewardSearch", "Search", "SearchSamplerNode"]


class RewardSearch(io.ComfyNode):
    """A search with the inputs of KSampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchRewardSearch",
            display_name="Reward Search",
            category=CATEGORY_SEARCH,
            description=(
                "Start here. Samples a flow model like KSampler, then spends more computation on "
                "finding a picture with a higher reward: it varies the best one so far and goes "
                "on with what is better, or searches as a connected Search Strategy says."
            ),
            search_aliases=[*ALIASES, "ksampler", "evolutionary"],
            inputs=[*ksampler_inputs(), *budget_inputs(), *advanced_inputs(), guidance_input()],
            outputs=search_outputs(),
            hidden=[io.Hidden.extra_pnginfo],
            **shows_results(),
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> str:
        """See put_back()."""
        return put_back()

    @classmethod
    def execute(
        cls, model: ModelPatcher, positive: Conditioning, negative: Conditioning,
        latent_image: dict[str, Any], seed: int, steps: int, cfg: float, scheduler: str,
        denoise: float, guidance: RewardGuidance | None = None, **search: Any,
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
            guidance: FLOW_GUIDANCE or None.
            **search: See SearchInputs.

        Returns:
            LATENT, IMAGE, FLOW_REPORT, FLOAT list.
        """
        guider = cfg_guider(model, positive, negative, cfg)
        sigmas = ksampler_sigmas(model, scheduler, steps, denoise)
        sampler = SearchInputs(**search).search(guided(ODE, guidance))
        return search_latent(guider, SeededNoise(seed), sigmas, latent_image, sampler, cls.hidden)


class Search(io.ComfyNode):
    """A search with the inputs of SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchSearch",
            display_name="Reward Search (Advanced)",
            category=CATEGORY_SEARCH,
            description=(
                "Reward Search for graphs with SamplerCustomAdvanced: any noise, guider, sigmas "
                "and sampler. With Stochastic Flow Sampler it searches at every step; with any "
                "other sampler it compares whole pictures (best_of_n)."
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
            hidden=[io.Hidden.extra_pnginfo],
            **shows_results(),
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> str:
        """See put_back()."""
        return put_back()

    @classmethod
    def execute(
        cls,
        noise: Noise,
        guider: CFGGuider,
        sampler: Sampler,
        sigmas: Tensor,
        latent_image: dict[str, Any],
        **search: Any,
    ) -> io.NodeOutput:
        """Search.

        Args:
            noise: NOISE.
            guider: GUIDER.
            sampler: SAMPLER.
            sigmas: SIGMAS.
            latent_image: LATENT.
            **search: See SearchInputs.

        Returns:
            LATENT, IMAGE, FLOW_REPORT, FLOAT list.
        """
        found = SearchInputs(**search).search(sampler)
        return search_latent(guider, noise, sigmas, latent_image, found, cls.hidden)


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
                "Reward Search as a SAMPLER, for detailers, upscalers and anything else that has "
                "a SAMPLER input. One picture for each picture of the batch."
            ),
            search_aliases=[*ALIASES, "sampler", "upscale search", "detailer"],
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
            outputs=[io.Sampler.Output(id="search_sampler", display_name="sampler")],
        )

    @classmethod
    def execute(cls, sampler: Sampler, **search: Any) -> io.NodeOutput:
        """Build the sampler.

        Args:
            sampler: SAMPLER.
            **search: See SearchInputs.

        Returns:
            SAMPLER.
        """
        return io.NodeOutput(SearchInputs(**search).search(sampler))


NODES = [RewardSearch, RBFSearch, Search, SearchSamplerNode]
