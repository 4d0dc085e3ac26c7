"""How does a transition become a SAMPLER of the host?

The host hands a sampler its model (which returns the prediction D after guidance and masks), the
sigmas, initial noise and latent. For a flow model its coordinates are ours,
x = (1 - sigma) x0 + sigma eps. So FlowSampler scales the noise as the host's own samplers do, runs
samplers.integrate and hands over as they do; with the ODE it is the host's Euler to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..samplers.integrate import integrate
from ..samplers.noise import keyed_normal, row_key
from ..samplers.transition import Transition
from .converted_sampling import ConvertedSampling

__all__ = ["FlowSampler", "batch_keys", "batch_normal", "require_flow"]

STEP = 1  # purpose of a draw, the last integer of its key: the noise of a sampler's step


def require_flow(model_sampling: object) -> None:
    """Refuse a model whose coordinates are not those of a flow model.

    Args:
        model_sampling: The host's `model_sampling` object of the model.

    Raises:
        ValueError: The model is not a flow model, or was converted for stock samplers.
    """
    if isinstance(model_sampling, ConvertedSampling):
        raise ValueError(
            "this MODEL went through Interpolant Conversion, which is for stock samplers; "
            "FlowSearch's samplers convert by themselves: connect the MODEL from before the "
            "conversion"
        )
    kinds = comfy.model_sampling
    to_image = getattr(kinds, "IMG_TO_IMG_FLOW", ())  # a CONST without noise; not in older hosts
    if not isinstance(model_sampling, kinds.CONST) or isinstance(model_sampling, to_image):
        names = "/".join(base.__name__ for base in type(model_sampling).__bases__)
        raise ValueError(
            f"this model samples as {names}, not as a flow model with sigmas from 1 to 0; "
            "FlowSearch works with Flux, SD3.5, Qwen-Image, Z-Image, Lumina, HunyuanVideo, Wan, "
            "LTX-Video and the like; for SD1.5, SDXL and Cosmos use the host's own samplers"
        )


def batch_keys(noise: Tensor, latent: Tensor | None, seed: int | None) -> list[tuple[int, ...]]:
    """Identify the rows of a batch, whatever batch they stand in.

    A row's key is (seed, digest of its initial noise, occurrence). The host has already applied
    batch_index to the noise. Without initial noise the latent's row stands in. Rows that cannot
    be told apart, such as copies of one latent, are numbered, so that each gets noise of its own.

    Args:
        noise: Initial noise, one row an item.
        latent: Latent of the same rows.
        seed: The host's seed; the nodes that disable noise but keep a seed rely on it.

    Returns:
        One key per row.
    """
    seen: Counter[int] = Counter()
    keys = []
    for index, row in enumerate(noise):
        digest = row_key(row, None if latent is None else latent[index % latent.shape[0]])
        keys.append((seed or 0, digest, seen[digest]))
        seen[digest] += 1
    return keys


def batch_normal(keys: Sequence[tuple[int, ...]], like: Tensor, *purpose: int) -> Tensor:
    """Draw standard normal noise for every row from its own key.

    Args:
        keys: As batch_keys() gives them.
        like: States, one row per key; gives shape, device and type.
        *purpose: What the draw is for, for example (step, STEP).

    Returns:
        Noise like `like`, float32.
    """
    rows = [keyed_normal(like.shape[1:], *key, *purpose) for key in keys]
    return torch.stack(rows).to(like.device)


@dataclass(frozen=True, eq=False)
class FlowSampler(comfy.samplers.Sampler):
    """A SAMPLER that draws every step from one transition.

    Attributes:
        transition: How to step; also what a search takes as its neighbourhood.
    """

    transition: Transition

    @torch.no_grad()
    def sample(
        self,
        model_wrap: comfy.samplers.CFGGuider,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Callable[[int, Tensor, Tensor, int], None] | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """Sample as the host asks; see comfy.samplers.KSAMPLER.sample for the contract.

        Args:
            model_wrap: The guider.
            sigmas: N + 1 sigmas in [0, 1], in any direction; fewer than two: nothing to do.
            extra_args: model_options and seed. Not modified.
            callback: callback(step, D, x, steps) after each evaluation.
            noise: Initial noise, all zero where the host disabled it.
            latent_image: Clean latent in the model's space, zeros for none.
            denoise_mask: 1 where to sample, 0 where to keep the latent.
            disable_pbar: No bar in the console.

        Returns:
            The samples; between stages (last sigma above 0) divided by 1 - sigma as the host does.

        Raises:
            ValueError: Not a flow model, or sigmas it cannot serve.
        """
        model_sampling: Any = model_wrap.inner_model.model_sampling
        require_flow(model_sampling)
        latent = torch.zeros_like(noise) if latent_image is None else latent_image
        if len(sigmas) < 2:
            return latent
        if float(sigmas[-1]) >= 1.0:
            raise ValueError(
                "the sigmas end at 1 (pure noise), where the host's hand-over x / (1 - sigma) is "
                "infinite; end at 0.9999 or below, and start the next stage there"
            )
        model: Any = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
        model.latent_image, model.noise = latent, noise
        keys = batch_keys(noise, latent, extra_args.get("seed"))
        noise_scale = float(getattr(model_sampling, "noise_scale", 1.0))
        steps = len(sigmas) - 1

        def draw(step: int) -> Tensor:
            return batch_normal(keys, noise, step, STEP) * noise_scale

        with tqdm(total=steps, disable=disable_pbar) as bar:

            def tell(step: int, x: Tensor, denoised: Tensor) -> None:
                if callback is not None:
                    callback(step, denoised, x, steps)
                bar.update()

            at_max = self.max_denoise(model_wrap, sigmas)
            x = model_sampling.noise_scaling(sigmas[0], noise, latent, at_max)
            predict = _predictor(model, extra_args, denoise_mask)
            x = integrate(predict, x, sigmas, self.transition, draw, tell)
        return model_sampling.inverse_noise_scaling(sigmas[-1], x)


def _predictor(
    model: comfy.samplers.KSamplerX0Inpaint, extra_args: dict[str, Any], denoise_mask: Tensor | None
) -> Callable[[Tensor, float], Tensor]:
    """Turn the host's model into predict(x, sigma), with model options of its own."""
    # some guidance patches append to the options they are given, once per run
    options = comfy.model_patcher.create_model_options_clone(extra_args["model_options"])
    seed = extra_args.get("seed")

    def predict(x: Tensor, sigma: float) -> Tensor:
        comfy.model_management.throw_exception_if_processing_interrupted()
        # one sigma a call: the host reads only the first for ranges, hooks and ControlNets
        per_row = x.new_full((x.shape[0],), sigma)
        return model(x, per_row, denoise_mask, model_options=options, seed=seed)

    return predict
