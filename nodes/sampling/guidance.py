"""Node of a reward's gradient: what steers Stochastic Flow Sampler and the searches."""

from __future__ import annotations

from typing import Any

from comfy.sd import VAE
from comfy_api.latest import io

from ...rewards.base import Reward
from ...rewards.gradient import require_gradient
from ...samplers.stepping.guidance import GUIDANCE_METHODS, THROUGH, Guidance
from ...samplers.stepping.whitening import WHITENINGS
from ..host.search.gradients import RewardGuidance
from ..host.search.views import Decoders
from ..inputs import choice_input
from ..sockets import CATEGORY_SAMPLING, FlowGuidance, FlowReward

__all__ = ["NODES", "GradientGuidance"]

STRENGTHS = {"noise_tilt": 0.3, "mean_shift": 0.3, "start_noise": 1.0, "twist": 10.0}
WHITENED = ("noise_tilt", "mean_shift", "start_noise")
SAID = {
    "noise_tilt": (
        "Share of the gradient in the fresh noise of the whole path, however many steps it has. 0: "
        "no guidance; 0.3: with start 0.8 for colours and counts, the strongest that broke nothing "
        "where it was measured; not for layouts, which take 0.7 with start 1; 1: as much as there "
        "is, where pictures may break."
    ),
    "mean_shift": (
        "How far predictions are shifted along the gradient, in parts of the noise at each sigma. "
        "0: no guidance; 0.1: a nudge; above 1: soft and broken pictures."
    ),
    "start_noise": (
        "Angle in radians by which the start is turned towards the gradient. 0: no guidance; 0.5: "
        "a nudge; 1.5: little of the seed's own picture is left. Strategies that vary a picture "
        "which they have refuse it: evolutionary, the default, and zero_order."
    ),
    "twist": (
        "Weight of the reward in the shift of draws: that for a law in which a picture better by 1 "
        "counts exp(strength) times as much. Strategy smc samples the law of its own strength, "
        "whatever this is; meant is the same number. 0: no guidance; high: steps at the limit of "
        "trust."
    ),
}
TRUST = (
    "Limit of one step's change. Low: safe where gradients are large, and slower to climb; high: "
    "the strength alone decides. "
)
FADE = (
    "How the strength falls with the noise, as sigma to this power. 0: as strong to the end, where "
    "details may break; high: composition only."
)
TRUSTS = {
    "mean_shift": TRUST + "In parts of the prediction's own spread.",
    "twist": TRUST + "Length of the shift of the noise.",
}


def _number(
    name: str, default: float, low: float, high: float, tooltip: str, advanced: bool = False
) -> io.Float.Input:
    folded: dict[str, Any] = {"optional": True, "advanced": True} if advanced else {}
    return io.Float.Input(
        name, default=default, min=low, max=high, step=0.01, round=False, tooltip=tooltip, **folded
    )


def _option(name: str) -> io.DynamicCombo.Option:
    """A method with its settings."""
    inputs: list[io.Input] = [
        _number("strength", STRENGTHS[name], 0.0, GUIDANCE_METHODS[name].most, SAID[name])
    ]
    if name == "start_noise":
        inputs.append(
            io.Int.Input(
                "ascents",
                default=4,
                min=1,
                max=1000,
                tooltip=(
                    "Turns of the start, one evaluation and one gradient each. 1: one straight "
                    "turn; many: follows the reward round bends, slower."
                ),
            )
        )
    if name == "noise_tilt":
        inputs.append(_number("fade", Guidance.fade, 0.0, 4.0, FADE, True))
    if name in TRUSTS:
        inputs.append(_number("trust", Guidance.trust, 0.01, 1000.0, TRUSTS[name], True))
    if name in WHITENED:
        said = " ".join(f"{key}: {text}." for key, text in WHITENINGS.items())
        tooltip = f"How the gradient is made like noise. {said}"
        inputs.append(choice_input("whitening", WHITENINGS, tooltip=tooltip))
    return io.DynamicCombo.Option(name, inputs)


class GradientGuidance(io.ComfyNode):
    """A reward's gradient as guidance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        methods = [f"{name}: {row.summary}." for name, row in GUIDANCE_METHODS.items()]
        through = " ".join(f"{name}: {text}." for name, text in THROUGH.items())
        return io.Schema(
            node_id="FlowSearchGradientGuidance",
            display_name="Gradient Guidance",
            category=CATEGORY_SAMPLING,
            description=(
                "Steers sampling by the gradient of a reward: for rewards that have one, a few "
                "guided evaluations do what hundreds of a search do. Feeds Stochastic Flow Sampler "
                "and the searches."
            ),
            search_aliases=[
                "dps", "universal guidance", "classifier guidance", "noise tilt", "reward gradient",
                "guidance", "steer", "reno",
            ],
            inputs=[
                FlowReward.Input(
                    "reward",
                    tooltip=(
                        "What to climb; one that has a gradient: Layout, Shape Count, Image "
                        "Statistic, CLIP Score, Image Match, Aesthetic, Preference, VQA Score, "
                        "CLAP Score, Latent Reward, and Combine Rewards of such. Counts of "
                        "detectors, read text and judges have none."
                    ),
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=(
                        "Decodes what the reward is shown, and the way back goes through it: a "
                        "small decoder (TAESD and the like) is several times cheaper than the "
                        "model's VAE. Not connected: that of the search, which Stochastic Flow "
                        "Sampler does not have."
                    ),
                ),
                io.DynamicCombo.Input(
                    "method",
                    options=[_option(name) for name in STRENGTHS],
                    tooltip="What the gradient changes.\n" + "\n".join(methods),
                ),
                io.Combo.Input(
                    "through",
                    options=list(THROUGH),
                    default="prediction",
                    tooltip=(
                        f"{through} prediction is cheap and serves nearly always; network takes "
                        "six to ten times as long, and more memory."
                    ),
                ),
                _number(
                    "start",
                    0.8,
                    0.0,
                    1.0,
                    "Sigma down from which steps are guided. 1: from pure noise, for rewards that "
                    "say where things are, such as Layout Reward; 0.8: composition is there, "
                    "for colours, statistics and learned scores, which mislead on blurs; low: "
                    "details only. start_noise acts before the first step, whatever this says.",
                ),
                _number(
                    "stop",
                    0.0,
                    0.0,
                    1.0,
                    "Sigma below which steps are no longer guided. 0: to the end; high: the last "
                    "steps are the model's alone, which repairs much.",
                ),
                io.Int.Input(
                    "look_ahead",
                    default=0,
                    min=0,
                    max=100,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "ODE steps towards the finished picture before the gradient is taken, each "
                        "one evaluation a step. 0: at the prediction, which is a blur at high "
                        "sigma; 2 to 4: at what it will be, slower. With through prediction only."
                    ),
                ),
                io.Int.Input(
                    "score_size",
                    default=0,
                    min=0,
                    max=8192,
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "Longer side in pixels to which pictures are shrunk for the reward. 0: as "
                        "decoded; small: faster and smoother gradients, which miss detail."
                    ),
                ),
            ],
            outputs=[
                FlowGuidance.Output(
                    id="guidance",
                    tooltip="For Stochastic Flow Sampler, Reward Search and RBF Search.",
                )
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        reward: Reward,
        method: dict[str, Any],
        through: str,
        start: float,
        stop: float,
        look_ahead: int = 0,
        score_size: int = 0,
        vae: VAE | None = None,
    ) -> io.NodeOutput:
        """Build the guidance.

        Args:
            reward: FLOW_REWARD.
            method: Name under "method", and its settings.
            through: Key of THROUGH.
            start: First guided sigma.
            stop: Last guided sigma.
            look_ahead: ODE steps before the gradient.
            score_size: Longer side of the reward's pictures, 0 for as decoded.
            vae: VAE or None.

        Returns:
            FLOW_GUIDANCE.
        """
        require_gradient(reward)
        settings = {key: value for key, value in method.items() if key != "method"}
        settings |= {"through": through, "start": start, "stop": stop, "look_ahead": look_ahead}
        if GUIDANCE_METHODS[method["method"]].kept is not None:
            settings["start"] = 1.0
        # strength 0 is no guidance at all, and its other settings are looked at all the same
        strength = settings.pop("strength")
        guidance = Guidance(method["method"], strength or 1.0, **settings)
        chosen = guidance if strength else None
        return io.NodeOutput(RewardGuidance(chosen, reward, Decoders.of(vae), score_size))


NODES = [GradientGuidance]
