"""Inputs and outputs that the searching nodes share."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ..host.search.search_sampler import TOP_PERCENT
from ..inputs import seed_input
from ..sockets import FlowGuidance, FlowReport, FlowReward, FlowStrategy

__all__ = [
    "ALIASES",
    "advanced_inputs",
    "budget_inputs",
    "guidance_input",
    "ksampler_inputs",
    "reward_inputs",
    "search_outputs",
]

ALIASES = [
    "best of n",
    "rbf",
    "rollover budget forcing",
    "particle search",
    "inference-time scaling",
    "test-time scaling",
    "reward",
    "best seed",
    "seed search",
    "pick best",
    "choose best",
    "generate until",
    "reward guided",
]

SCORE_SIZE = (
    "Longer side in pixels to which unfinished pictures are shrunk for the reward. 0: as decoded; "
    "small: faster rewards, which miss detail."
)
REWARD_CALLS = (
    "Most pictures to be scored, for slow or paid rewards, for each picture of the batch. 0: no "
    "limit; few: the search ends early."
)
ROWS = (
    "Most rows that may reach the network, for each picture of the batch: 1 an evaluation at cfg "
    "1, 2 above, more with area prompts. 0: no limit; few: at least one evaluation is made."
)
CHECKPOINT_SECONDS = (
    "Seconds between two files from which the same workflow goes on after a crash, a cancel or "
    "with a larger budget. 0: none are written; short: little is done twice, more is written."
)
HELD_OUT = (
    "Only reported: further rewards of the finished pictures, any number. The search never uses "
    "them (Combine Rewards makes one of several that decide); the report shows them and warns when "
    "its own reward rises while they fall. None: no such warning; many: each finished picture is "
    "scored by each."
)
AUDIO_VAE = (
    "Decodes the sound of a model of video with sound, such as LTX 2, for rewards of sound. Not "
    "connected: nothing is heard there; a model of sound only has its audio VAE at vae."
)
STRATEGY = (
    "How to search, from the node Search Strategy. Not connected: evolutionary, or best_of_n for a "
    "sampler that can only be run whole."
)
TOP_K = (
    "Finished pictures to put out for each picture of the batch, best first; those that are nearly "
    "the same count once. 1: only the best; more: runners-up too, as far as there are that many."
)


def ksampler_inputs() -> list[io.Input]:
    """KSampler's, with the VAE and the reward among them."""
    return [
        io.Model.Input("model", tooltip="A flow model: Flux, SD3.5, Qwen-Image, Wan, ..."),
        io.Conditioning.Input("positive", tooltip="What the picture should show."),
        io.Conditioning.Input("negative", tooltip="What it should not show; unused at cfg 1."),
        io.Latent.Input(
            "latent_image",
            tooltip="Where to start; each row of the batch is searched by itself.",
        ),
        *reward_inputs(),
        seed_input(
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
    ]


def reward_inputs(needs_vae: bool = True) -> list[io.Input]:
    """What scores.

    Args:
        needs_vae: Whether the VAE must be connected, which a reward of latents does without.

    Returns:
        The VAE and the reward.
    """
    tooltip = (
        "Decodes what the reward scores, and the finished ones: the model's VAE of pictures or "
        "video, or the audio VAE of a model of sound."
    )
    if not needs_vae:
        tooltip += " Not connected: for rewards of latents, and the image output is blocked."
    return [
        io.Vae.Input("vae", optional=not needs_vae, tooltip=tooltip),
        FlowReward.Input(
            "reward",
            tooltip="What a good picture is: a number per picture, higher is better.",
        ),
    ]


def budget_inputs() -> list[io.Input]:
    """What may be spent."""
    value = io.Float.Input(
        "value",
        default=0.0,
        min=-1e9,
        max=1e9,
        step=0.01,
        round=False,
        tooltip=(
            "Reward at which the search stops, in the reward's own unit. Lower stops sooner, at a "
            "worse picture; one that cannot be reached uses the whole budget."
        ),
    )
    percent = io.Float.Input(
        "percent",
        default=TOP_PERCENT,
        min=0.1,
        max=50.0,
        step=0.1,
        round=False,
        optional=True,
        tooltip=(
            "Stop at a picture as good as this share of plain samples, in percent, measured on 16 "
            "of them from the budget. Small: a rare picture, a longer search; 50: any that is "
            "better than usual."
        ),
    )
    return [
        io.Int.Input(
            "evaluations",
            default=200,
            min=1,
            max=1_000_000,
            tooltip=(
                "Budget: guided predictions of one picture, for each picture of the batch. The "
                "plain sample takes as many as there are steps. That few: no search, the plain "
                "sample comes out, on fewer steps if need be; 10 times that and more: a real "
                "search, in proportion slower."
            ),
        ),
        io.DynamicCombo.Input(
            "target",
            options=[
                io.DynamicCombo.Option("highest", []),
                io.DynamicCombo.Option("value", [value]),
                io.DynamicCombo.Option("top", [percent]),
                io.DynamicCombo.Option("never", []),
            ],
            tooltip=(
                "When to stop before the budget is used up. highest: at the highest value the "
                "reward can have (never, for a reward without one). value: at a value of yours. "
                "top: at a picture as good as the best few percent of plain samples. never: use "
                "the whole budget."
            ),
        ),
    ]


def advanced_inputs(top_k: bool = True, strategy: bool = True) -> list[io.Input]:
    """Inputs that the defaults serve well.

    Args:
        top_k: Whether the node may put out several pictures for one.
        strategy: Whether a strategy can be connected.

    Returns:
        Optional inputs.
    """
    inputs: list[io.Input] = []
    if strategy:
        inputs.append(FlowStrategy.Input("strategy", optional=True, tooltip=STRATEGY))
    inputs += [
        io.Vae.Input(
            "scoring_vae",
            optional=True,
            tooltip=(
                "A cheaper decoder, such as TAESD, for unfinished pictures. Not connected: vae, "
                "slower and exact. Finished pictures always use vae."
            ),
        ),
        _whole("score_size", 0, 8192, SCORE_SIZE),
        io.Float.Input(
            "seconds",
            default=0.0,
            min=0.0,
            max=1e6,
            step=1.0,
            optional=True,
            advanced=True,
            tooltip=(
                "Time limit of the whole search in seconds. 0: none; short: the best so far is "
                "finished and comes out."
            ),
        ),
        _whole("reward_calls", 0, 1_000_000, REWARD_CALLS),
    ]
    if top_k:
        inputs.append(_whole("top_k", 1, 64, TOP_K))
    # new widgets come last: the editor's files hold widgets by their place
    return [*inputs, held_out_input(), *_later_inputs()]


def _later_inputs() -> list[io.Input]:
    return [
        _whole("rows", 0, 10_000_000, ROWS),
        io.Float.Input(
            "checkpoint_seconds",
            default=30.0,
            min=0.0,
            max=3600.0,
            step=1.0,
            round=False,
            optional=True,
            advanced=True,
            tooltip=CHECKPOINT_SECONDS,
        ),
        io.Vae.Input("audio_vae", optional=True, advanced=True, tooltip=AUDIO_VAE),
    ]


def guidance_input() -> io.Input:
    """What steers the pictures that are tried."""
    return FlowGuidance.Input(
        "guidance",
        optional=True,
        tooltip=(
            "Steers the pictures that are tried by a reward's gradient; from the node Gradient "
            "Guidance. Its reward may be another than the one that is searched for. Not connected: "
            "the model alone makes them. The plain sample is never guided."
        ),
    )


def held_out_input() -> io.Input:
    """Any number of rewards that are only reported."""
    # named apart from the reward that is searched for: what they are called in full, and their
    # tooltips, are in locales, for the page looks for those of such sockets nowhere else
    reward = FlowReward.Input("held_out", optional=True, tooltip=HELD_OUT)
    template = io.Autogrow.TemplatePrefix(reward, prefix="held_out", min=0, max=100)
    return io.Autogrow.Input("held_out", template=template, optional=True, tooltip=HELD_OUT)


def _whole(name: str, low: int, high: int, tooltip: str) -> io.Input:
    return io.Int.Input(
        name, default=low, min=low, max=high, optional=True, advanced=True, tooltip=tooltip
    )


def search_outputs() -> list[io.Output]:
    """What comes out."""
    return [
        io.Latent.Output(id="latent", tooltip="The best finished latents."),
        io.Image.Output(
            id="image",
            tooltip="The same, decoded, as the reward saw them; of clips frame after frame.",
        ),
        FlowReport.Output(id="report", tooltip="What was tried and found, for Search Report."),
        io.Float.Output(
            id="scores",
            is_output_list=True,
            tooltip="The reward of each picture that comes out, in its order.",
        ),
    ]
