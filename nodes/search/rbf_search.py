"""RBF Search: Rollover Budget Forcing and nothing else, with the inputs of KSampler.

`adaptive` is the pack's own, on any model and schedule. `published` is what the authors' code runs
(arXiv:2503.19385): it brings its noise levels, noise law, step, pool and chains, so what KSampler's
widgets say of those is refused, or told to be unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ...samplers.search.strategies.published import VP_SDE, published
from ...samplers.stepping.transition import ODE, Transition
from ..host.model.schedule import schedule
from ..host.search.forms import (
    Conditioning,
    SeededNoise,
    cfg_guider,
    ksampler_sigmas,
    search_latent,
)
from ..host.search.gradients import RewardGuidance
from ..host.search.search_sampler import StrategyChoice
from ..host.search.summary import put_back
from ..host.versions import shows_results
from ..sockets import CATEGORY_SEARCH
from .inputs import (
    ALIASES,
    advanced_inputs,
    budget_inputs,
    guidance_input,
    ksampler_inputs,
    search_outputs,
)
from .searcher import SearchInputs, guided
from .strategy import CHOICES, choice_of, option

__all__ = ["RBFSearch"]

TOOLTIP = (
    "adaptive: the pack's own, on any model and schedule; a plain sample first, a pool sized to "
    "the budget, finished pictures. published: the authors' code, decision for decision, for "
    "few-step models without guidance. It brings its noise levels, noise and step (VP, "
    "Euler-Maruyama), a pool of 25 and two chains; the node's steps, scheduler and target are not "
    "used, denoise must be 1. The paper gave it 500 evaluations."
)


def _published_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "steps",
            default=10,
            min=2,
            max=1000,
            optional=True,
            tooltip=(
                "Noise levels of the published list, in place of the node's steps. 10: as "
                "published; few: large jumps, many draws at each; many: small jumps, few draws."
            ),
        ),
        io.Int.Input(
            "finish_steps",
            default=1,
            min=1,
            max=1000,
            optional=True,
            tooltip=(
                "Steps without noise from the last level (sigma .71) to the finished picture. 1: "
                "the prediction is the picture, as published, blurred unless the model is "
                "distilled; 4 to 8: finished, on any model."
            ),
        ),
    ]


@dataclass(frozen=True)
class Run:
    """What a mode searches, and how.

    Attributes:
        sigmas: Noise levels, in the model's coordinates.
        transition: Of the sampler.
        choice: The strategy and its chains.
        notes: What of the node's widgets is not used.
    """

    sigmas: Tensor
    transition: Transition
    choice: StrategyChoice
    notes: tuple[str, ...] = ()


def _adaptive(
    model: ModelPatcher,
    settings: Mapping[str, Any],
    steps: int,
    scheduler: str,
    denoise: float,
    target: Mapping[str, Any],
) -> Run:
    del target
    sigmas = ksampler_sigmas(model, scheduler, steps, denoise)
    return Run(sigmas, ODE, choice_of({**settings, "strategy": "rbf"}, 1, 0))


def _published(
    model: ModelPatcher,
    settings: Mapping[str, Any],
    steps: int,
    scheduler: str,
    denoise: float,
    target: Mapping[str, Any],
) -> Run:
    if denoise != 1.0:
        raise ValueError(
            f"denoise is {denoise:g}, and the published search starts from noise, for which it "
            "must be 1; set it to 1, or set rbf to adaptive, which can start from a picture"
        )
    levels = settings.get("steps", 10)
    row = published("rbf", settings.get("finish_steps", 1))
    unused = f"steps {steps} and scheduler {scheduler}"
    if target["target"] != "never":
        unused += f" and target {target['target']} (it spends its whole budget)"
    return Run(
        schedule("rbf_reference", levels, 1.0, 1.0, 0.0, scheduler, model),
        VP_SDE,
        StrategyChoice(row.strategy, row.chains, published=row),
        (f"published brings its own {levels} noise levels and rules; not used: {unused}",),
    )


MODES = {"adaptive": _adaptive, "published": _published}


class RBFSearch(io.ComfyNode):
    """Rollover Budget Forcing with the inputs of KSampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        mode = io.DynamicCombo.Input(
            "rbf",
            options=[
                option("adaptive", CHOICES["rbf"]),
                io.DynamicCombo.Option("published", _published_inputs()),
            ],
            optional=True,  # the node was without it: what clients kept goes on
            tooltip=TOOLTIP,
        )
        return io.Schema(
            node_id="FlowSearchRBFSearch",
            display_name="RBF Search",
            category=CATEGORY_SEARCH,
            description=(
                "Samples a flow model like KSampler and searches by Rollover Budget Forcing for a "
                "higher reward. For few-step (distilled) models, whose early predictions already "
                "show the picture; for others take Reward Search."
            ),
            search_aliases=[*ALIASES, "ksampler"],
            inputs=[
                *ksampler_inputs(), *budget_inputs(), mode, *advanced_inputs(strategy=False),
                guidance_input(),
            ],
            outputs=search_outputs(),
            hidden=[io.Hidden.extra_pnginfo],
            **shows_results(),
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> str:
        """See put_back()."""
        return put_back()

    @classmethod
    def execute(
        cls, model: ModelPatcher, positive: Conditioning, negative: Conditioning,
        latent_image: dict[str, Any], seed: int, steps: int, cfg: float, scheduler: str,
        denoise: float, rbf: dict[str, Any], guidance: RewardGuidance | None = None, **search: Any,
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
            rbf: Which one under "rbf", and its settings.
            guidance: FLOW_GUIDANCE or None.
            **search: See SearchInputs.

        Returns:
            LATENT, IMAGE, FLOW_REPORT, FLOAT list.
        """
        settings = {key: value for key, value in rbf.items() if key != "rbf"}
        run = MODES[rbf["rbf"]](model, settings, steps, scheduler, denoise, search["target"])
        inputs = SearchInputs(**{**search, "strategy": run.choice, "notes": run.notes})
        sampler = inputs.search(guided(run.transition, guidance))
        guider = cfg_guider(model, positive, negative, cfg)
        noise = SeededNoise(seed)
        return search_latent(guider, noise, run.sigmas, latent_image, sampler, cls.hidden)
