"""The Flow Likelihood node: how probable a model finds a picture, and where it is surprised."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..host.model.estimation import METHODS, Question, colours, estimate
from ..inputs import seed_input
from ..sockets import CATEGORY_ANALYSIS

__all__ = ["NODES", "FlowLikelihood"]


class FlowLikelihood(io.ComfyNode):
    """How probable a model finds a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchLikelihood",
            display_name="Flow Likelihood",
            category=CATEGORY_ANALYSIS,
            description=(
                "How probable the model finds a picture under a prompt, in bits per dimension, and "
                "a map of where it is surprised. Compare prompts for one picture, or pictures for "
                "one prompt. Needs a guider without guidance."
            ),
            search_aliases=["log likelihood", "bits per dim", "nll", "elbo", "surprise", "score"],
            inputs=[*_inputs(), *_range_inputs()],
            outputs=[
                io.Float.Output(
                    id="bits",
                    display_name="bits_per_dim",
                    is_output_list=True,
                    tooltip="-log2 p per dimension, one number a picture; lower: more probable.",
                ),
                io.Float.Output(
                    id="error",
                    display_name="standard_error",
                    is_output_list=True,
                    tooltip="Of bits, from the noises; not that of the model.",
                ),
                io.String.Output(id="text", tooltip="All of it in words, with the scale."),
                io.Image.Output(
                    id="map",
                    display_name="surprise_map",
                    tooltip="Bits per dimension by place, one map a picture; bright: surprising.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        guider: comfy.samplers.CFGGuider,
        latent_image: dict[str, Any],
        method: str,
        nodes: int,
        noises: int,
        seed: int,
        log_snr_low: float = -6.0,
        log_snr_high: float = 14.0,
    ) -> io.NodeOutput:
        """Estimate; see estimate().

        Args:
            guider: GUIDER.
            latent_image: LATENT.
            method: Key of METHODS.
            nodes: Log SNR nodes, or steps.
            noises: Noises a node, or probes.
            seed: Of all noise.
            log_snr_low: Lower end of the range.
            log_snr_high: Upper end.

        Returns:
            FLOAT list, FLOAT list, STRING, IMAGE.
        """
        question = Question(method, nodes, noises, seed, log_snr_low, log_snr_high)
        answer = estimate(guider, latent_image, question)
        values, scale = answer.surprise()
        ratio = guider.model_patcher.model.latent_format.spacial_downscale_ratio
        image = colours(values, scale, ratio)
        return io.NodeOutput(answer.bits, answer.errors, answer.text(question, scale), image)


def _inputs() -> list[io.Input]:
    return [
        io.Guider.Input(
            "guider",
            tooltip="Model and prompt: Basic Guider, or CFG Guider with cfg 1; no guidance.",
        ),
        io.Latent.Input("latent_image", tooltip="The pictures, one row each: VAE Encode."),
        io.Combo.Input(
            "method",
            options=list(METHODS),
            default="forward",
            tooltip=(
                "forward: from predictions of noised copies; exact for an exact model, and kind to "
                "memory. ode: the density of the sampler without noise, with a divergence by "
                "differences; twice as dear at the same nodes, and in need of more of them."
            ),
        ),
        io.Int.Input(
            "nodes",
            default=32,
            min=4,
            max=1000,
            tooltip=(
                "Noise levels, even in log SNR; steps of the ode. 8: enough to compare prompts; "
                "32: to a hundredth of a bit; more: for the ode."
            ),
        ),
        io.Int.Input(
            "noises",
            default=2,
            min=2,
            max=1000,
            tooltip=(
                "Noises at each level, each with both signs; probes of the ode. Standard error "
                "falls as 1 / sqrt. 2: enough for pictures; more: to tell close calls apart."
            ),
        ),
        seed_input(
            after=io.ControlAfterGenerate.fixed,
            tooltip=(
                "Of the noises, which are the same for every picture, prompt and model: leave it "
                "alone to compare."
            ),
        ),
    ]


def _range_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "log_snr_low",
            default=-6.0,
            min=-14.0,
            max=20.0,
            step=0.5,
            round=False,
            advanced=True,
            tooltip=(
                "Lower end of the log signal-to-noise ratio, -14 to 20. -6: sigma 0.95, where "
                "hardly anything is left to gain; higher: leaves out composition."
            ),
        ),
        io.Float.Input(
            "log_snr_high",
            default=14.0,
            min=-12.0,
            max=22.0,
            step=0.5,
            round=False,
            advanced=True,
            tooltip=(
                "Upper end, -12 to 22. 14: sigma 0.001, for bits per dimension; 4: sigma 0.12, "
                "composition only, to compare prompts."
            ),
        ),
    ]


NODES = [FlowLikelihood]
