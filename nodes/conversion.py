"""Node that shows a flow model to stock samplers on another interpolant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_base
import comfy.patcher_extension
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from .converted_sampling import SCHEDULES, ConvertedSampling
from .field import require_flow
from .sockets import CATEGORY_SAMPLING

__all__ = ["NODES", "InterpolantConversion", "convert"]

KEY = "flowsearch.conversion"


def convert(model: ModelPatcher, target: str) -> ModelPatcher:
    """Convert a flow MODEL for stock samplers.

    Args:
        model: MODEL, with shift nodes already applied. Not modified.
        target: Key of SCHEDULES.

    Returns:
        A clone. Converting a converted model starts from its own coordinates again.

    Raises:
        ValueError: Not a flow model, or an unknown target.
    """
    if target not in SCHEDULES:
        raise ValueError(f"unknown interpolant {target!r}; choose one of: {', '.join(SCHEDULES)}")
    current = model.get_model_object("model_sampling")
    base = current.base if isinstance(current, ConvertedSampling) else current
    require_flow(base)
    out = model.clone()
    sampling = ConvertedSampling(base, target)
    out.add_object_patch("model_sampling", sampling)
    inpaint: Any = model.get_model_object("scale_latent_inpaint")
    stock = comfy.model_base.BaseModel.scale_latent_inpaint
    if getattr(inpaint, "__func__", None) is not stock and current is base:
        out.add_object_patch("scale_latent_inpaint", _inpaint_patch(inpaint, sampling))
    sample = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    out.remove_wrappers_with_key(sample, KEY)
    out.add_wrapper_with_key(sample, KEY, _insist_on_conversion)
    return out


def _inpaint_patch(
    inpaint: Callable[..., Tensor], sampling: ConvertedSampling
) -> Callable[..., Tensor]:
    """Convert what a model of its own ways puts in the unmasked places.

    Models with a noise level per place (Wan 2.2, LTX-Video) put the clean latent there, in the
    network's coordinates; the sampler's state is 1 / (1 - t) times that.
    """

    def scale_latent_inpaint(*, sigma: Tensor, latent_image: Tensor, **kwargs: object) -> Tensor:
        kept = inpaint(sigma=sigma, latent_image=latent_image, **kwargs)
        if kept is not latent_image:
            return kept
        return kept / (1.0 - sampling.t_from_s(sigma)).view(-1, *(1,) * (kept.ndim - 1))

    return scale_latent_inpaint


def _insist_on_conversion(
    executor: comfy.patcher_extension.WrapperExecutor, *args: object, **kwargs: object
) -> Tensor:
    """Stop where a later node has silently put its own model_sampling in the conversion's place."""
    guider: Any = executor.class_obj
    model_sampling = guider.model_patcher.get_model_object("model_sampling")
    if not isinstance(model_sampling, ConvertedSampling):
        raise ValueError(
            "a node after Interpolant Conversion replaced it (the ModelSampling nodes and Model "
            "Noise Scale do): place Interpolant Conversion last"
        )
    return executor(*args, **kwargs)


class InterpolantConversion(io.ComfyNode):
    """MODEL to MODEL conversion for stock samplers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchInterpolantConversion",
            display_name="Interpolant Conversion",
            category=CATEGORY_SAMPLING,
            description=(
                "Shows a flow model to the host's own samplers as a diffusion model, so that "
                "ancestral, SDE and multistep samplers use their diffusion formulas. Place it "
                "last, after shift and noise scale nodes, and take the sigmas from the converted "
                "model. FlowSearch's own samplers do not need it."
            ),
            search_aliases=["convert flow", "v-pred", "vp", "ve", "ancestral", "model sampling"],
            inputs=[
                io.Model.Input("model", tooltip="A flow model: Flux, SD3.5, Qwen-Image, Wan, ..."),
                io.Combo.Input(
                    "interpolant",
                    options=list(SCHEDULES),
                    default="vp",
                    tooltip=(
                        "Whose schedule the stock schedulers see. vp: variance preserving (linear "
                        "beta .1 to 20), most steps at high noise. ve: the model's own schedule, "
                        "so Euler gives the same pictures as without conversion. trigonometric: "
                        "between the two. The model's shift stays in force."
                    ),
                ),
            ],
            outputs=[io.Model.Output(id="converted", display_name="MODEL")],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, interpolant: str) -> io.NodeOutput:
        """Convert; see convert().

        Args:
            model: MODEL.
            interpolant: Key of SCHEDULES.

        Returns:
            The converted MODEL.
        """
        return io.NodeOutput(convert(model, interpolant))


NODES = [InterpolantConversion]
