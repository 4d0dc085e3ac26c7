"""The Flow Inspect node: what a model does along a list of sigmas, for choosing settings."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ...samplers.paths.noise_law import NoiseLaw, noise_law
from ...samplers.stepping.integrate import integrate
from ...samplers.stepping.transition import Transition
from ...samplers.study.inspection import Reading, Recorder, as_json
from ..host.model.field import Field, fitting_samples, run_field
from ..host.model.flow_sampler import STEP
from ..host.page.plot import as_image
from ..sockets import CATEGORY_ANALYSIS, FlowNoiseLaw
from .inspection_plot import draw_inspection, draw_sheet, shown

__all__ = ["NODES", "FlowInspect", "inspect_run"]

ODE_LAW = noise_law("ode")


def inspect_run(
    guider: comfy.samplers.CFGGuider,
    sigmas: Tensor,
    latent: dict[str, Any],
    noise: Any,
    law: NoiseLaw,
) -> tuple[list[Reading], Tensor]:
    """Sample along sigmas and record every prediction.

    Args:
        guider: GUIDER.
        sigmas: SIGMAS, falling, at least two.
        latent: LATENT.
        noise: NOISE.
        law: Noise law of the steps.

    Returns:
        A Reading a prediction; and predictions of the first row, in the LATENT's space, those that
        shown() lists.

    Raises:
        ValueError: Fewer than two sigmas, or sigmas that do not fall.
    """
    levels = sigmas.tolist()
    if len(levels) < 2 or any(b >= a for a, b in pairwise(levels)):
        raise ValueError(
            f"an inspection goes from noise to picture along sigmas that fall, two or more; got "
            f"{len(levels)}: {[round(s, 4) for s in levels[:6]]}"
        )
    # shaped for the model once, so without the ratios by which it was
    kept = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio_")}
    latent = {**kept, "samples": fitting_samples(guider.model_patcher, latent)}
    found: list[tuple[list[Reading], Tensor]] = []

    def body(field: Field) -> Tensor:
        found.append(_record(field, levels, law))
        return field.latent

    run_field(guider, latent, sigmas, body, noise.seed, noise.generate_noise(latent))
    return found[0]


def _record(field: Field, levels: list[float], law: NoiseLaw) -> tuple[list[Reading], Tensor]:
    bar = comfy.utils.ProgressBar(len(levels) - 1)
    recorder = Recorder(levels, law, field.coordinates, field.noise_scale)

    def tell(step: int, x: Tensor, denoised: Tensor) -> None:
        recorder(step, x, denoised)
        bar.update(1)

    start = field.start(comfy.samplers.Sampler().max_denoise(field.guider, field.sigmas))
    end = integrate(
        field.predict,
        start,
        levels,
        Transition(law),
        lambda step: field.draw(step, STEP),
        tell,
        field.coordinates,
    )
    # with noise left over, the last prediction is the nearest to a finished picture there is
    finished = recorder.denoised[-1] if levels[-1] > 0.0 else end
    rows = torch.cat([recorder.denoised[i][:1] for i in shown(len(recorder.denoised))])
    return recorder.readings(finished), field.guider.inner_model.process_latent_out(rows)


def pictures_of(latents: Tensor, latent_format: Any, vae: VAE | None) -> Tensor:
    """Show latents: by the VAE, or as the host previews them without one.

    Args:
        latents: Shape (N, C, *S), in the LATENT's space.
        latent_format: The model's.
        vae: VAE or None.

    Returns:
        Pictures (N, H, W, 3), 0 to 1; the first frame of a video.
    """
    if vae is not None:
        decoded = [vae.decode(latents[i : i + 1]) for i in range(len(latents))]
        return torch.cat([d.flatten(0, -4)[:1] for d in decoded]).float().cpu()[..., :3]
    space = latent_format.process_in(latents)
    factors = latent_format.latent_rgb_factors
    if factors is None:  # no colours known: grey, from the mean of the channels
        grey = space.flatten(2, -3)[:, :, 0] if space.ndim > 4 else space
        grey = grey.mean(1)
        low, high = grey.amin(), grey.amax()
        return ((grey - low) / (high - low + 1e-12))[..., None].expand(*grey.shape, 3)
    extra = latent_format.latent_rgb_factors_bias, latent_format.latent_rgb_factors_reshape
    previewer = latent_preview.Latent2RGBPreviewer(factors, *extra)
    seen = [previewer.decode_latent_to_preview(space[i : i + 1]) for i in range(len(space))]
    return torch.cat([as_image(picture) for picture in seen])


class FlowInspect(io.ComfyNode):
    """What a model does along the sigmas."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node; see the help page."""
        return io.Schema(
            node_id="FlowSearchInspect",
            display_name="Flow Inspect",
            category=CATEGORY_ANALYSIS,
            description=(
                "Samples once and plots what happens at each sigma: where the picture forms, "
                "whether the noise prediction has the size it should, and where the noise law "
                "puts its noise. For choosing steps, shift, noise law and search range."
            ),
            search_aliases=["diagnose", "debug", "trajectory", "denoised", "score norm", "plot"],
            inputs=[
                io.Guider.Input("guider", tooltip="Model, prompt and guidance to look at."),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="Where to look; falling. 20 to 50 show the course; few are quicker.",
                ),
                io.Latent.Input(
                    "latent_image", tooltip="What is sampled: an empty latent, or a picture."
                ),
                io.Noise.Input("noise", tooltip="Initial noise: Random Noise."),
                FlowNoiseLaw.Input(
                    "noise_law",
                    optional=True,
                    tooltip="Fresh noise of each step; not connected: none, the ODE.",
                ),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip=(
                        "Decodes the sheet, one decoding a sigma. Not connected: the host's coarse "
                        "latent preview, at once."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(id="plot", tooltip="Curves over sigma."),
                io.Image.Output(
                    id="sheet",
                    tooltip="Prediction of the first picture at each sigma, at most 40.",
                ),
                io.String.Output(id="json", tooltip="Every number."),
            ],
        )

    @classmethod
    def execute(
        cls,
        guider: comfy.samplers.CFGGuider,
        sigmas: Tensor,
        latent_image: dict[str, Any],
        noise: Any,
        noise_law: NoiseLaw | None = None,
        vae: VAE | None = None,
    ) -> io.NodeOutput:
        """Sample and look; see inspect_run().

        Args:
            guider: GUIDER.
            sigmas: SIGMAS.
            latent_image: LATENT.
            noise: NOISE.
            noise_law: FLOW_NOISE_LAW or None.
            vae: VAE or None.

        Returns:
            IMAGE, IMAGE, JSON.
        """
        law = noise_law or ODE_LAW
        readings, latents = inspect_run(guider, sigmas, latent_image, noise, law)
        pictures = pictures_of(latents, guider.model_patcher.model.latent_format, vae)
        sheet = draw_sheet(pictures, [readings[i].sigma for i in shown(len(readings))])
        text = json.dumps(as_json(readings, law), indent=1)
        return io.NodeOutput(as_image(draw_inspection(readings)), sheet, text)


NODES = [FlowInspect]
