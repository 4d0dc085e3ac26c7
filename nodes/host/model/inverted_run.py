"""How does a picture become noise, and a variation, inside the host?

Each way is a function of a Field (field.py), run where the host's SamplerCustomAdvanced runs its
SAMPLER, so that masks, previews, cancelling and the conditioning are the host's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced
from torch import Tensor

from ....samplers.paths.interpolant import r_from_sigma, scale, sigma_from_r
from ....samplers.paths.noise_law import noise_law
from ....samplers.stepping.integrate import integrate
from ....samplers.stepping.transition import Transition
from ....samplers.study.inversion import (
    CEILING,
    FLOOR,
    Reversible,
    mirror,
    rising,
    to_data,
    to_noise,
)
from .field import Field, FunctionSampler, coordinates_of, fitting_samples

__all__ = ["StateNoise", "invert", "undo", "vary"]

KEY = "flowsearch.reversible"
UP, DOWN = 2, 3  # purposes of a draw, the last integer of its key: noise of a variation's two ways

Tell = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True, eq=False)
class StateNoise:
    """A NOISE with which a sampler starts at a given state.

    The host mixes state = a noise + b latent with its model's own a and b; this is solved for the
    noise, whatever latent comes: an empty one, or the picture that the state belongs to.

    Attributes:
        seed: The host's, for samplers that draw more noise.
        model: Whose state it is.
        state: In the model's space, on the CPU.
        sigma: Where the sampler is to start, in the model's coordinates.
    """

    seed: int
    model: ModelPatcher
    state: Tensor
    sigma: float

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """Return the noise for a latent.

        Args:
            input_latent: LATENT that the sampler starts from.

        Returns:
            Noise like its samples.

        Raises:
            ValueError: Its shape is not the state's.
        """
        latent = input_latent["samples"]
        if latent.is_nested or latent.shape != self.state.shape:
            shape = "nested" if latent.is_nested else tuple(latent.shape)
            raise ValueError(
                f"this noise was found for a latent of shape {tuple(self.state.shape)} and cannot "
                f"serve one of shape {shape}; connect an empty latent of the same size and number, "
                "or the latent that was inverted"
            )
        if latent.count_nonzero() > 0:
            latent = self.model.model.process_latent_in(latent)
        sampling: Any = self.model.get_model_object("model_sampling")
        highest = float(sampling.sigma_max)
        at_max = math.isclose(highest, self.sigma, rel_tol=1e-5) or self.sigma > highest
        sigma, zero, one = torch.tensor([[self.sigma], [0.0], [1.0]])
        of_noise = sampling.noise_scaling(sigma, one.clone(), zero, at_max)
        of_latent = sampling.noise_scaling(sigma, zero.clone(), one, at_max)
        return (self.state.to(latent) - of_latent.to(latent) * latent) / of_noise.to(latent)


@dataclass(frozen=True, eq=False)
class Carried:
    """What a LATENT of a reversible inversion carries beside its samples.

    Attributes:
        previous: The second state, linear coordinates, on the CPU.
        residual: What the first prediction lacked of the picture, likewise.
        sigmas: The rising list, linear.
        seed: That of the noise at the start.
    """

    previous: Tensor
    residual: Tensor
    sigmas: list[float]
    seed: int


def _way_up(guider: comfy.samplers.CFGGuider, sigmas: Tensor) -> list[float]:
    """Rising sigmas in the model's coordinates, inside the model's own range."""
    sampling: Any = guider.model_patcher.get_model_object("model_sampling")
    path = coordinates_of(sampling)
    lowest = max(r_from_sigma(path, FLOOR), float(sampling.sigma_min))
    return rising(sigmas.tolist(), lowest, r_from_sigma(path, CEILING))


def _run(
    guider: comfy.samplers.CFGGuider,
    latent: dict[str, Any],
    sigmas: list[float],
    body: Callable[[Field], Tensor],
    noise: Any,
) -> dict[str, Any]:
    """Run a body where the host's own node runs a sampler, with its previews; return the LATENT."""
    fitting_samples(guider.model_patcher, latent)  # a refusal; the host's node shapes it
    listed = torch.tensor(sigmas, dtype=torch.float32)
    return SamplerCustomAdvanced.execute(
        noise=noise,
        guider=guider,
        sampler=FunctionSampler(body),
        sigmas=listed,
        latent_image=latent,
    )[0]


def _handed_over(field: Field, x: Tensor) -> Tensor:
    """What the host's samplers hand on; the picture itself where the mask keeps it."""
    x = field.model_sampling.inverse_noise_scaling(field.sigmas[-1], x)
    return x if field.mask is None else x * field.mask + field.latent * (1.0 - field.mask)


def _linear(field: Field, sigmas: Sequence[float]) -> list[float]:
    return [sigma_from_r(field.coordinates, s) for s in sigmas]


def _scale(field: Field, sigma: float) -> float:
    """States in the model's coordinates over those in linear ones."""
    return scale(field.coordinates, sigma)


def _integrated(
    field: Field, x: Tensor, way: list[float], transition: Transition, purpose: int, tell: Tell
) -> Tensor:
    def draw(step: int) -> Tensor:
        return field.draw(step, purpose)

    return integrate(field.predict, x, way, transition, draw, tell, field.coordinates)


def invert(
    guider: comfy.samplers.CFGGuider,
    sigmas: Tensor,
    latent: dict[str, Any],
    seed: int,
    transition: Transition | None,
) -> tuple[dict[str, Any], StateNoise]:
    """Go from a picture to noise.

    Args:
        guider: GUIDER.
        sigmas: The list of the sampler that is to go on, falling or rising.
        latent: LATENT of the picture; its noise_mask is obeyed.
        seed: Of the noise at the start and of a stochastic transition.
        transition: How to step; None for the reversible scheme.

    Returns:
        LATENT to go on from without noise, and NOISE to start with.

    Raises:
        ValueError: A list that inversion cannot use, a model or a latent that it does not know.
    """
    way = _way_up(guider, sigmas)
    states: list[Tensor] = []
    carried: dict[str, Any] = {}

    def body(field: Field) -> Tensor:
        with field.watched(len(way) - 1) as tell:
            if transition is None:
                x, carried[KEY] = _reversible_up(field, way, seed, tell)
            else:
                x = _integrated(field, field.start(), way, transition, UP, tell)
        states.append(x.cpu())
        return _handed_over(field, x)

    out = _run(guider, latent, way, body, Noise_RandomNoise(seed))
    out.pop(KEY, None)
    return {**out, **carried}, StateNoise(seed, guider.model_patcher, states[0], way[-1])


def _reversible_up(field: Field, way: list[float], seed: int, tell: Tell) -> tuple[Tensor, Carried]:
    linear = _linear(field, way)
    start = field.start() / _scale(field, way[0])
    state = to_noise(field.predict_linear, start, field.latent, linear, tell)
    kept = Carried(state.previous.cpu(), state.residual.cpu(), linear, seed)
    return state.newest * _scale(field, way[-1]), kept


def undo(
    guider: comfy.samplers.CFGGuider, sigmas: Tensor, latent: dict[str, Any]
) -> dict[str, Any]:
    """Go back from the noise of a reversible inversion.

    Args:
        guider: GUIDER; another prompt than on the way up gives a translation.
        sigmas: The list of the way up, falling or rising.
        latent: LATENT of the way up.

    Returns:
        LATENT of the picture.

    Raises:
        ValueError: A latent without its second state, or another list.
    """
    way = _way_up(guider, sigmas)
    carried = latent.get(KEY)
    if not isinstance(carried, Carried) or carried.previous.shape != latent["samples"].shape:
        raise ValueError(
            "this latent does not carry the second state that the way back needs; connect the "
            "LATENT of a Flow Invert in mode reversible, direction to_noise, directly (files and "
            "nodes that cut, join or repeat latents lose it)"
        )

    def body(field: Field) -> Tensor:
        linear = _linear(field, way)
        if linear != carried.sigmas:
            raise ValueError(
                f"this latent went up along {len(carried.sigmas)} sigmas to "
                f"{carried.sigmas[-1]:.4f}, and the list connected here gives {len(linear)} to "
                f"{linear[-1]:.4f}; connect the same SIGMAS to both nodes"
            )
        silent = torch.zeros_like(field.noise)
        sigma = field.sigmas.new_tensor(way[-1])
        x = field.model_sampling.noise_scaling(sigma, silent, field.latent)
        previous, residual = carried.previous.to(x), carried.residual.to(x)
        state = Reversible(x / _scale(field, way[-1]), previous, residual)
        with field.watched(len(way) - 1) as tell:
            return to_data(field.predict_linear, state, linear, tell)

    out = _run(guider, latent, way[::-1], body, Noise_RandomNoise(carried.seed))
    out.pop(KEY)
    return out


def vary(
    guider: comfy.samplers.CFGGuider,
    latent: dict[str, Any],
    sigma: float,
    k: float,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """Go up to a sigma and back to a picture.

    Args:
        guider: GUIDER.
        latent: LATENT of the picture; its noise_mask is obeyed.
        sigma: Where to turn, linear.
        k: Strength of the noise on both ways.
        steps: Steps of each way.
        seed: Of all noise.

    Returns:
        LATENT of the variation.

    Raises:
        ValueError: A number out of range, a model or a latent that it does not know.
    """
    sampling: Any = guider.model_patcher.get_model_object("model_sampling")
    path = coordinates_of(sampling)
    lowest, highest = (
        sigma_from_r(path, float(s)) for s in (sampling.sigma_min, sampling.sigma_max)
    )
    linear = mirror(min(sigma, highest), steps, k, max(lowest, FLOOR))
    up, down = ([r_from_sigma(path, s) for s in way] for way in linear)
    transition = Transition(noise_law("constant_k", k=k), "second_order")

    def body(field: Field) -> Tensor:
        climbed = len(up) - 1
        with field.watched(climbed + steps) as tell:
            x = _integrated(field, field.start(), up, transition, UP, tell)

            def told(step: int, x: Tensor, denoised: Tensor) -> None:
                tell(climbed + step, x, denoised)

            return _integrated(field, x, down, transition, DOWN, told)

    return _run(guider, latent, [*up, *down[1:]], body, Noise_RandomNoise(seed))
