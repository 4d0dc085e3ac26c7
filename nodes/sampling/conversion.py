"""Node that shows a flow model to stock samplers on another interpolant."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.patcher_extension
import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..host.model.converted_sampling import SCHEDULES, ConvertedSampling
from ..host.model.field import FieldSampler, reads_sigmas, require_flow
from ..host.page.remarks import tell
from ..sockets import CATEGORY_SAMPLING

__all__ = ["NODES", "InterpolantConversion", "convert"]

KEY = "flowsearch.conversion"
REPLACED = (
    "a node after Interpolant Conversion replaced the conversion (the ModelSampling nodes do)"
)


def convert(model: ModelPatcher, target: str) -> ModelPatcher:
    """Convert a flow MODEL for stock samplers.

    Args:
        model: MODEL, with shift nodes already applied. Not modified.
        target: Key of SCHEDULES.

    Returns:
        A clone. Converting a converted model starts from its own coordinates again.

    Raises:
        ValueError: Not a flow model, one that reads the sampler's sigmas, or an unknown target.
    """
    current = model.get_model_object("model_sampling")
    base = current.base if isinstance(current, ConvertedSampling) else current
    require_flow(base)
    network: Any = model.get_model_object("diffusion_model")
    if reads_sigmas(network):
        raise ValueError(
            "this is a MeanFlow model, whose network reads the sampler's list of sigmas as its own "
            "times; converted sigmas would mislead it: use the model without conversion"
        )
    out = model.clone()
    sampling = ConvertedSampling(base, target)
    out.add_object_patch("model_sampling", sampling)
    inpaint: Any = model.get_model_object("scale_latent_inpaint")
    if isinstance(inpaint, _ConvertedInpaint):
        inpaint = inpaint.original
    stock = comfy.model_base.BaseModel.scale_latent_inpaint
    if getattr(inpaint, "__func__", None) is not stock:
        out.add_object_patch("scale_latent_inpaint", _ConvertedInpaint(inpaint, sampling))
    kinds = comfy.patcher_extension.WrappersMP
    for kind, wrapper in (
        (kinds.OUTER_SAMPLE, _notice_replacement),
        (kinds.SAMPLER_SAMPLE, _retime_cache),
    ):
        out.remove_wrappers_with_key(kind, KEY)
        out.add_wrapper_with_key(kind, KEY, wrapper)
    return out


@dataclass(frozen=True)
class _ConvertedInpaint:
    """Converts what a model of its own ways puts in the unmasked places.

    Models with a noise level per place (Wan 2.2, LTX-Video) put the clean latent there, in the
    network's coordinates; the sampler's state is 1 / (1 - t) times that.
    """

    original: Callable[..., Tensor]
    sampling: ConvertedSampling

    def __call__(self, *, sigma: Tensor, latent_image: Tensor, **kwargs: object) -> Tensor:
        kept = self.original(sigma=sigma, latent_image=latent_image, **kwargs)
        if kept is not latent_image:  # made by the model_sampling in force, which is `sampling`
            return kept
        t = self.sampling.t_from_s(sigma)
        return kept / (1.0 - t).view(-1, *(1,) * (kept.ndim - 1))


def _notice_replacement(
    executor: comfy.patcher_extension.WrapperExecutor,
    noise: Tensor,
    latent_image: Tensor,
    sampler: comfy.samplers.Sampler,
    *args: object,
    **kwargs: object,
) -> Tensor:
    """See whether a later node has silently put its own model_sampling in the conversion's place.

    Stock samplers would then be wrong without a word, so they stop. FlowSearch's own convert
    inside and are right either way, so they go on with a warning, unless half of the conversion is
    still in place.
    """
    guider: Any = executor.class_obj
    current, inpaint = map(
        guider.model_patcher.get_model_object, ("model_sampling", "scale_latent_inpaint")
    )
    if not isinstance(current, ConvertedSampling):
        ours = isinstance(getattr(sampler, "inner", sampler), FieldSampler)
        if not ours or isinstance(inpaint, _ConvertedInpaint):
            raise ValueError(f"{REPLACED}: place it before Interpolant Conversion")
        text = (
            f"{REPLACED}, and with it a noise scale set before; FlowSearch's samplers convert by "
            "themselves and go on"
        )
        logging.getLogger("flowsearch").warning(text)
        tell(f"warning: {text}")
    return executor(noise, latent_image, sampler, *args, **kwargs)


def _retime_cache(
    executor: comfy.patcher_extension.WrapperExecutor,
    guider: Any,
    sigmas: Tensor,
    extra_args: dict[str, Any],
    *args: object,
    **kwargs: object,
) -> Tensor:
    """Translate the percentages of EasyCache and LazyCache again.

    The host does it before it has put the patches of a model in place, so that on a model's first
    run they would be a flow's. The object is the run's own copy.
    """
    cache = extra_args["model_options"].get("transformer_options", {}).get("easycache")
    if cache is not None:
        cache.prepare_timesteps(guider.inner_model.model_sampling)
    return executor(guider, sigmas, extra_args, *args, **kwargs)


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
                "For stock samplers: shows them a flow model as a diffusion model, so that "
                "ancestral, SDE and multistep samplers use their diffusion formulas. Place it "
                "after shift and noise scale nodes and before nodes with a start and end percent, "
                "and take the sigmas from the converted model. FlowSearch's own samplers do not "
                "need it: the RBF paper's conversion is Flow Sigmas, Noise Law and Stochastic Flow "
                "Sampler."
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
            outputs=[io.Model.Output(id="converted", display_name="model")],
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
