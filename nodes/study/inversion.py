"""Nodes that go from a picture to noise, and to its variations."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io
from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise
from torch import Tensor

from ...samplers.paths.noise_law import noise_law
from ...samplers.stepping.transition import Transition
from ..host.model.inverted_run import invert, undo, vary
from ..inputs import seed_input
from ..sockets import CATEGORY_SAMPLING

__all__ = ["NODES", "Invert", "Variation"]


def _seed() -> io.Int.Input:
    return seed_input(
        tooltip=(
            "Seed of the noise, 0 to 2^64 - 1; each row of a batch gets its own. Another seed: "
            "another draw of equal worth."
        ),
    )


def _guider() -> io.Guider.Input:
    return io.Guider.Input(
        "guider",
        tooltip=(
            "Model and prompt, from BasicGuider or CFGGuider. The prompt should describe the "
            "picture; guidance near 1 keeps it, guidance far above 1 drives it away."
        ),
    )


def _k(default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        "k", default=default, min=0.0, max=1.0, step=0.05, round=False, tooltip=tooltip
    )


class Invert(io.ComfyNode):
    """From a picture to the noise that gives it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        strength = _k(
            0.0,
            "Fresh noise on the way, no unit, 0 to 1. 0: none, the ODE, whose noise gives the "
            "picture back; 1: all, plain noising, whose noise forgets the picture's details.",
        )
        direction = io.Combo.Input(
            "direction",
            options=["to_noise", "to_data"],
            default="to_noise",
            tooltip=(
                "to_noise: picture to noise. to_data: the way back, for the LATENT of another Flow "
                "Invert with the same sigmas."
            ),
        )
        return io.Schema(
            node_id="FlowSearchInvert",
            display_name="Flow Invert",
            category=CATEGORY_SAMPLING,
            description=(
                "Finds the noise that gives a picture, so that a sampler can go on from it: under "
                "the same prompt it gives the picture back, under another a translation of it. "
                "Works with flow models and with SD1.5, SDXL, EDM and Cosmos models."
            ),
            search_aliases=["unsample", "ddim inversion", "edit", "translate", "noising", "edict"],
            inputs=[
                _guider(),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip=(
                        "The list of the sampler that goes on, or its reverse. It is walked upward "
                        "from .02 (what lies below is left out) to its highest sigma, .9999 at "
                        "most. More steps: the way back ends nearer to the picture."
                    ),
                ),
                io.Latent.Input(
                    "latent_image",
                    tooltip=(
                        "The picture, from VAEEncode; with a noise mask only the masked part "
                        "becomes noise. For to_data: the LATENT of the way up."
                    ),
                ),
                io.DynamicCombo.Input(
                    "mode",
                    options=[
                        io.DynamicCombo.Option("second_order", [strength]),
                        io.DynamicCombo.Option("exact", [strength]),
                        io.DynamicCombo.Option("reversible", [direction]),
                    ],
                    tooltip=(
                        "How to step, one evaluation each. second_order: the most accurate noise, "
                        "for any sampler. exact: first order, as ComfyUI's euler. reversible: a "
                        "second state travels in the LATENT, and the way back with this node ends "
                        "at the picture to rounding."
                    ),
                ),
                _seed(),
            ],
            outputs=[
                io.Latent.Output(
                    id="latent",
                    tooltip=(
                        "For a sampler with DisableNoise that begins at the sigma where this ended."
                    ),
                ),
                io.Noise.Output(
                    id="noise",
                    tooltip="For a sampler that begins there with an empty latent or the picture.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        guider: comfy.samplers.CFGGuider,
        sigmas: Tensor,
        latent_image: dict[str, Any],
        mode: dict[str, Any],
        seed: int,
    ) -> io.NodeOutput:
        """Invert; see invert() and undo().

        Args:
            guider: GUIDER.
            sigmas: SIGMAS.
            latent_image: LATENT.
            mode: Name under "mode", and k or direction.
            seed: Of the noise.

        Returns:
            LATENT and NOISE.
        """
        if mode.get("direction") == "to_data":
            return io.NodeOutput(undo(guider, sigmas, latent_image), Noise_EmptyNoise())
        law = None if mode["mode"] == "reversible" else noise_law("constant_k", k=mode["k"])
        transition = law and Transition(law, mode["mode"])
        return io.NodeOutput(*invert(guider, sigmas, latent_image, seed, transition))


class Variation(io.ComfyNode):
    """From a picture to pictures like it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchVariation",
            display_name="Flow Variation",
            category=CATEGORY_SAMPLING,
            description=(
                "Takes a picture up to a noise level and back: pictures like it. sigma says which "
                "scales may change, k how much of them does. Works with flow models and with "
                "SD1.5, SDXL, EDM and Cosmos models."
            ),
            search_aliases=["img2img", "variations", "mirror", "resample", "similar"],
            inputs=[
                _guider(),
                io.Latent.Input(
                    "latent_image",
                    tooltip=(
                        "The picture, from VAEEncode; repeat it (Repeat Latent Batch) for several "
                        "variations. With a noise mask only the masked part varies."
                    ),
                ),
                io.Float.Input(
                    "sigma",
                    default=0.7,
                    min=0.03,
                    max=0.99,
                    step=0.01,
                    round=False,
                    tooltip=(
                        "Noise level at which to turn, as a flow model's sigma, 0.03 to 0.99, for "
                        "every model (its own highest at most). Low: only fine detail changes; "
                        "high: the composition too."
                    ),
                ),
                _k(
                    0.5,
                    "Strength, no unit, 0 to 1. 0: there and back without fresh noise, the picture "
                    "returns; 1: plain noising and ancestral sampling, the most variation at this "
                    "sigma, in half the evaluations.",
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=10000,
                    tooltip=(
                        "Steps of each way, one evaluation each: twice as many in all, once at "
                        "k 1. Few: blurred; many: slower and finer."
                    ),
                ),
                _seed(),
            ],
            outputs=[io.Latent.Output(id="latent", tooltip="The finished variations.")],
        )

    @classmethod
    def execute(
        cls,
        guider: comfy.samplers.CFGGuider,
        latent_image: dict[str, Any],
        sigma: float,
        k: float,
        steps: int,
        seed: int,
    ) -> io.NodeOutput:
        """Vary; see vary().

        Args:
            guider: GUIDER.
            latent_image: LATENT.
            sigma: Where to turn.
            k: Strength.
            steps: Steps of each way.
            seed: Of the noise.

        Returns:
            LATENT.
        """
        return io.NodeOutput(vary(guider, latent_image, sigma, k, steps, seed))


NODES = [Invert, Variation]
