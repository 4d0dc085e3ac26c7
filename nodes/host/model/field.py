"""How does our mathematics reach the host's model?

The host hands a SAMPLER its guider (which returns the prediction D after guidance and masks),
sigmas, initial noise and latent. Field is all of that in one object, in the model's coordinates:

    flow models                   x = (1 - sigma) x0 + sigma eps      LINEAR
    SD1.5, SDXL, EDM, Cosmos      x = x0 + sigma eps                  VE

which are interpolants of samplers/paths/interpolant.py, so that everything there holds for both.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ....samplers.paths.interpolant import LINEAR, VE, Interpolant, r_from_sigma, scale
from ....samplers.stepping.noise import keyed_normal, row_key
from ..versions import empty_for, is_oom, those_known
from .conditioning import cond_tensors
from .converted_sampling import ConvertedSampling
from .differentiation import followed_attention
from .faults import checked, misfit

__all__ = [
    "Field",
    "FieldSampler",
    "FunctionSampler",
    "batch_keys",
    "batch_normal",
    "coordinates_of",
    "fitting_samples",
    "reads_sigmas",
    "require_flow",
    "run_field",
]


def coordinates_of(model_sampling: object) -> Interpolant:
    """Return the interpolant in whose coordinates a model's states stand.

    Args:
        model_sampling: The host's `model_sampling` object of the model.

    Returns:
        LINEAR for flow models; VE for eps, v, EDM and Cosmos models and converted flow models.

    Raises:
        ValueError: States that are no Gaussian path, or one that is not known here.
    """

    def is_a(*names: str) -> bool:
        return isinstance(model_sampling, those_known("comfy.model_sampling", *names))

    if not is_a("IMG_TO_IMG", "IMG_TO_IMG_FLOW", "IMG_TO_IMG_VELOCITY", "V_PREDICTION_DDPM"):
        if is_a("CONST"):
            return LINEAR
        if is_a("EPS", "COSMOS_RFLOW") or isinstance(model_sampling, ConvertedSampling):
            return VE
    names = "/".join(base.__name__ for base in type(model_sampling).__bases__)
    raise ValueError(
        f"this model samples as {names}, whose states are no mixture of picture and noise that "
        "FlowSearch knows; it works with flow models (Flux, SD3.5, Qwen-Image, Z-Image, Lumina, "
        "Wan, LTX-Video and the like) and with SD1.5, SDXL, EDM and Cosmos models; use the host's "
        "own samplers for this one"
    )


def require_flow(model_sampling: object) -> None:
    """Refuse a model that is not sampled in linear coordinates.

    Args:
        model_sampling: The host's `model_sampling` object of the model.

    Raises:
        ValueError: Not a flow model.
    """
    if coordinates_of(model_sampling) is not LINEAR:
        names = "/".join(base.__name__ for base in type(model_sampling).__bases__)
        raise ValueError(
            f"this model samples as {names}, not as a flow model with sigmas from 1 to 0 (Flux, "
            "SD3.5, Qwen-Image, Z-Image, Lumina, Wan, LTX-Video and the like), and only those need "
            "converting: connect it to the sampler as it is"
        )


def reads_sigmas(network: object) -> bool:
    """Return whether a network reads the run's list of sigmas as its own times (MeanFlow models).

    It then predicts the mean velocity from a sigma of the list to the next, and at others another
    one, so its predictions are the list's.

    Args:
        network: The host's `diffusion_model` of the model.

    Returns:
        Whether it does.
    """
    return getattr(network, "time_r_in", None) is not None


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
class Field:
    """The host's model inside a run, and what the host gives a sampler with it.

    Attributes:
        guider: The guider; calling it predicts.
        sigmas: The run's sigmas, in the model's coordinates.
        extra_args: model_options and seed. Not modified.
        noise: Initial noise, one row an item, all zero where the host disabled it.
        latent: Clean latent in the model's space, zeros for none.
        mask: 1 where to sample, 0 where to keep the latent; None for everywhere.
        callback: The host's callback(step, D, x, steps), for its bar and previews; None for none.
        quiet: Whether the console shows no bar.
    """

    guider: comfy.samplers.CFGGuider
    sigmas: Tensor
    extra_args: dict[str, Any]
    noise: Tensor
    latent: Tensor
    mask: Tensor | None = None
    callback: Callable[[int, Tensor, Tensor, int], None] | None = None
    quiet: bool = True

    @property
    def model_sampling(self) -> Any:
        """The host's description of the model's path."""
        return self.guider.inner_model.model_sampling

    @cached_property
    def coordinates(self) -> Interpolant:
        """The path the states stand on: LINEAR or VE."""
        return coordinates_of(self.model_sampling)

    @cached_property
    def noise_scale(self) -> float:
        """Standard deviation of the model's noise; 1 but for a few flow models."""
        return float(getattr(self.model_sampling, "noise_scale", 1.0))

    @cached_property
    def keys(self) -> list[tuple[int, ...]]:
        """What makes each row's noise its own; see batch_keys()."""
        return batch_keys(self.noise, self.latent, self.extra_args.get("seed"))

    def draw(self, *purpose: int) -> Tensor:
        """Draw fresh noise in the model's scale; see batch_normal()."""
        return batch_normal(self.keys, self.noise, *purpose) * self.noise_scale

    def start(self, at_max: bool = False) -> Tensor:
        """Return the states at the first sigma, by the host's own rule.

        Args:
            at_max: Whether sampling starts at pure noise, which changes the rule of some models.

        Returns:
            States in the model's coordinates, shape of the noise.
        """
        return self.model_sampling.noise_scaling(self.sigmas[0], self.noise, self.latent, at_max)

    def finish(self, x: Tensor) -> Tensor:
        """Return states at the last sigma as the host hands them over.

        Args:
            x: States in the model's coordinates.

        Returns:
            The same, in the model's space.
        """
        return self.model_sampling.inverse_noise_scaling(self.sigmas[-1], x)

    @cached_property
    def _model(self) -> Any:
        model: Any = comfy.samplers.KSamplerX0Inpaint(self.guider, self.sigmas)
        model.latent_image, model.noise = self.latent, self.noise
        return model

    @cached_property
    def _options(self) -> dict[str, Any]:
        # some guidance patches append to the options they are given, once per run
        return comfy.model_patcher.create_model_options_clone(self.extra_args["model_options"])

    def show_sigmas(self, sigmas: Tensor) -> None:
        """Show the model another list of the run's sigmas than the host's own.

        Args:
            sigmas: In the model's coordinates.
        """
        self._options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas

    def predict(self, x: Tensor, sigma: float) -> Tensor:
        """Predict the clean latent.

        Args:
            x: States in the model's coordinates.
            sigma: Theirs, above 0. One for all rows: the host reads only the first for ranges,
                hooks and ControlNets.

        Returns:
            D, after guidance, like x.

        Raises:
            ValueError: The model failed on latents of another kind than its own.
        """
        comfy.model_management.throw_exception_if_processing_interrupted()
        per_row = x.new_full((x.shape[0],), sigma)
        seed = self.extra_args.get("seed")
        try:
            made = self._model(x, per_row, self.mask, model_options=self._options, seed=seed)
        except RuntimeError as error:  # torch's, which speaks of layers
            form: Any = self.guider.model_patcher.get_model_object("latent_format")
            axes = form.latent_dimensions
            other = misfit(error, [*cond_tensors(self.guider)])
            if other:
                raise ValueError(other) from error
            if x.ndim == axes + 2 or is_oom(error):
                raise
            kinds = {1: "sound", 2: "pictures", 3: "video"}
            raise ValueError(
                f"the latent has shape {tuple(x.shape)} and the model fails on it: its latents are "
                f"of {kinds[axes]}, {axes + 2} axes. Connect one made for this model"
            ) from error
        return checked(made, x)

    def followed(self, rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """Predict so that autograd can follow.

        Args:
            rows: All of the batch.
            x: See predict().
            sigma: Likewise.

        Returns:
            D, like x.
        """
        del rows
        with followed_attention(self._options):
            return self.predict(x, sigma)

    def predict_linear(self, x: Tensor, sigma: float) -> Tensor:
        """Predict the clean latent of states in linear coordinates, whatever the model's are.

        Args:
            x: States x = (1 - sigma) x0 + sigma eps.
            sigma: Linear sigma, in (0, 1]; below 1 for models whose own sigma is infinite there.

        Returns:
            D, like x.
        """
        r = r_from_sigma(self.coordinates, sigma)
        return self.predict(x * scale(self.coordinates, r), r)

    @contextmanager
    def watched(self, steps: int) -> Iterator[Callable[[int, Tensor, Tensor], None]]:
        """Show steps as the host's samplers do: bar in the console and on the node, preview.

        Args:
            steps: How many there will be.

        Yields:
            tell(step, x, D), to be called after the prediction of each step.
        """
        with tqdm(total=steps, disable=self.quiet) as bar:

            def tell(step: int, x: Tensor, denoised: Tensor) -> None:
                if self.callback is not None:
                    self.callback(step, denoised, x, steps)
                bar.update()

            yield tell


class FieldSampler(comfy.samplers.Sampler):
    """A SAMPLER that is given one Field: what the host has prepared, in one object.

    Packs that wrap a SAMPLER (Detail Daemon, Lying Sigma) take the host's KSAMPLER for granted and
    call its sampler_function with a model of their own: see wrapped_field.py.
    """

    @property
    def extra_options(self) -> dict[str, Any]:
        """What sampler_function is also called with, as KSAMPLER has it: nothing."""
        return {}

    @property
    def inpaint_options(self) -> dict[str, Any]:
        """As KSAMPLER has it: nothing."""
        return {}

    def sampler_function(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
        **_: object,
    ) -> Tensor:
        """Sample as KSAMPLER's function does, with the model that is given.

        Args:
            model: Called as model(x, sigma, **extra_args); a wrapper's, perhaps.
            x: States at the first sigma.
            sigmas: In the model's coordinates.
            extra_args: model_options, seed and denoise_mask. Not modified.
            callback: Called with what k-diffusion's samplers tell.
            disable: No bar in the console.

        Returns:
            States at the last sigma.
        """
        from .wrapped_field import wrapped_field  # which is made of this module

        if len(sigmas) < 2:
            return x
        given = (model, x, sigmas, extra_args or {}, callback, bool(disable))
        return self.run(wrapped_field(*given))

    @abstractmethod
    def run(self, field: Field) -> Tensor:
        """Sample.

        Args:
            field: The run.

        Returns:
            A tensor like field.noise, in the model's space.
        """

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
            sigmas: In the model's coordinates.
            extra_args: model_options and seed. Not modified.
            callback: callback(step, D, x, steps) after each step's first evaluation.
            noise: Initial noise, all zero where the host disabled it.
            latent_image: Clean latent in the model's space, zeros for none.
            denoise_mask: 1 where to sample, 0 where to keep the latent.
            disable_pbar: No bar in the console.

        Returns:
            What run() returns.
        """
        latent = torch.zeros_like(noise) if latent_image is None else latent_image
        given = (sigmas, extra_args, noise, latent, denoise_mask, callback, disable_pbar)
        return self.run(Field(model_wrap, *given))


@dataclass(frozen=True, eq=False)
class FunctionSampler(FieldSampler):
    """A SAMPLER that runs any function of a Field.

    Attributes:
        body: Gets the field, returns a tensor like its noise.
    """

    body: Callable[[Field], Tensor]

    def run(self, field: Field) -> Tensor:
        """Run the function.

        Args:
            field: The run.

        Returns:
            What the function returns.
        """
        return self.body(field)


def fitting_samples(
    model: comfy.model_patcher.ModelPatcher, latent: dict[str, Any], nested: bool = False
) -> Tensor:
    """Return a LATENT's samples as a model takes them, as the host's sampling nodes shape them.

    Args:
        model: MODEL.
        latent: LATENT.
        nested: Whether picture and sound together will do.

    Returns:
        The samples; empty ones of another model are given this one's channels.

    Raises:
        ValueError: Samples of another model, or nested ones where they will not do.
    """
    is_nested = latent["samples"].is_nested
    if is_nested and not nested:
        raise ValueError(
            "the latent holds picture and sound together, which this node does not read; connect "
            "an ordinary latent"
        )
    samples = empty_for(model, latent)
    channels = model.get_model_object("latent_format").latent_channels
    if not is_nested and samples.shape[1] != channels:
        raise ValueError(
            f"the latent has {samples.shape[1]} channels and the model's latents have {channels}: "
            "it is another model's; encode the picture with this model's VAE"
        )
    network: Any = getattr(model.model, "diffusion_model", None)
    if not is_nested and hasattr(network, "require_size"):  # it knows what it was made for
        network.require_size(samples.shape)
    return samples


def run_field(
    guider: comfy.samplers.CFGGuider,
    latent: dict[str, Any],
    sigmas: Tensor,
    body: Callable[[Field], Tensor],
    seed: int = 0,
    noise: Tensor | None = None,
) -> Tensor:
    """Run a function of a Field inside a guider's sample(), as SamplerCustomAdvanced does.

    Args:
        guider: GUIDER.
        latent: LATENT; its noise_mask is obeyed.
        sigmas: What the host should think the run's sigmas are (ranges, hooks); in the model's
            coordinates, at least two.
        body: Gets the field; returns a tensor like the latent, in the model's space.
        seed: The host's seed.
        noise: Initial noise like the latent; None for none.

    Returns:
        What the function returned, as the host puts it into a LATENT's samples.

    Raises:
        ValueError: A nested latent (picture and sound together), or another model's.
    """
    samples = fitting_samples(guider.model_patcher, latent)
    out = guider.sample(
        torch.zeros_like(samples) if noise is None else noise,
        samples,
        FunctionSampler(body),
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        disable_pbar=True,
        seed=seed,
    )
    return out.to(comfy.model_management.intermediate_device())
