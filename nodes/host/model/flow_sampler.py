"""How does a transition become a SAMPLER of the host?

FlowSampler scales the noise as the host's own samplers do, runs samplers.integrate in the model's
coordinates (field.py) and hands over as they do; with the ODE it is the host's Euler to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from comfy.samplers import CFGGuider
from torch import Tensor

from ....samplers.paths.interpolant import LINEAR, Interpolant
from ....samplers.paths.noise_law import noise_law
from ....samplers.stepping.guidance import GUIDANCE_METHODS, GradientSource, Guidance, linear
from ....samplers.stepping.integrate import integrate, table
from ....samplers.stepping.step import Coefficients
from ....samplers.stepping.transition import Transition
from ..page.progress import say
from .field import Field, FieldSampler, reads_sigmas

__all__ = ["DEFAULT_LAW", "STEP", "FlowSampler", "Gradients", "idle", "source_of"]

DEFAULT_LAW = noise_law("constant_k", k=1.0, taper=(0.2, 0.12))
"""As much fresh noise as ancestral sampling, but none where the model's errors would be noised."""
STEP = 1  # purpose of a draw, the last integer of its key: the noise of a sampler's step


class Gradients(Protocol):
    """What makes a gradient source of a run; see search/gradients.py."""

    def source(
        self,
        guider: CFGGuider,
        predict: Callable[[Sequence[int], Tensor, float], Tensor],
        shape: Sequence[int],
        mask: Tensor | None,
        alone: bool = True,
    ) -> GradientSource:
        """Return what a guided step asks.

        Args:
            guider: The guider inside its sample().
            predict: predict(rows, x, sigma) of rows of the caller's batch.
            shape: Of one row.
            mask: 1 where to sample, 0 where to keep the latent; None for everywhere.
            alone: Whether a row may be predicted without the others.

        Returns:
            The source.
        """
        ...


@dataclass(frozen=True, eq=False)
class FlowSampler(FieldSampler):
    """A SAMPLER that draws every step from one transition.

    Attributes:
        transition: How to step; also what a search takes as its neighbourhood.
        gradients: Where the gradient of a guided transition comes from; None for none.
    """

    transition: Transition
    gradients: Gradients | None = None

    def unguided(self) -> FlowSampler:
        """Return this without guidance, as the plain sample is drawn."""
        return replace(self, transition=self.transition.guided(None), gradients=None)

    def noise(self, field: Field, step: int) -> Tensor:
        """Draw a step's fresh noise: a function of each row's own key.

        Args:
            field: The run.
            step: Which step, from 0.

        Returns:
            Noise like field.noise, in the model's scale.
        """
        return field.draw(step, STEP)

    def run(self, field: Field) -> Tensor:
        """Sample.

        Args:
            field: The run; with fewer than two sigmas there is nothing to do.

        Returns:
            The samples; between stages (last sigma above 0) as the host's samplers hand over.

        Raises:
            ValueError: A model or sigmas it cannot serve, or a guidance that would do nothing.
        """
        path, sigmas = field.coordinates, field.sigmas
        if len(sigmas) < 2:
            return field.latent
        if path is LINEAR and float(sigmas[-1]) >= 1.0:
            raise ValueError(
                "the sigmas end at 1 (pure noise), where the host's hand-over x / (1 - sigma) is "
                "infinite; end at 0.9999 or below, and start the next stage there"
            )
        _require_point_velocities(field, self.transition)
        noise = partial(self.noise, field)
        source = source_of(field, self.gradients, self.transition)
        at_max = self.max_denoise(field.guider, sigmas)
        if source is not None:
            is_stage = not at_max or float(sigmas[-1]) > 0.0
            _require_use(self.transition, sigmas.tolist(), path, is_stage)
        with field.watched(len(sigmas) - 1) as tell:
            x = field.start(at_max)
            x = integrate(field.predict, x, sigmas, self.transition, noise, tell, path, source)
        return field.finish(x)


def source_of(
    field: Field, gradients: Gradients | None, transition: Transition
) -> GradientSource | None:
    """Return what a guided step of a run asks.

    Args:
        field: The run.
        gradients: Where the gradient comes from; None for none.
        transition: How to step.

    Returns:
        The source; None where nothing is guided.
    """
    if gradients is None or transition.guidance is None:
        return None
    # a row's conditioning is its place in the batch, so none is predicted alone
    shape = field.noise.shape[1:]
    return gradients.source(field.guider, field.followed, shape, field.mask, alone=False)


def idle(transition: Transition, sigmas: Sequence[float], path: Interpolant = LINEAR) -> str:
    """Say why a guided transition steers no step of a run, and what helps.

    Args:
        transition: How to step.
        sigmas: The run's, in the model's coordinates.
        path: Those coordinates.

    Returns:
        A sentence; "" where a step is steered, or nothing is guided.
    """
    guidance, steps = transition.guidance, table(transition, sigmas, path)
    if guidance is None or _acts(guidance, steps):
        return ""
    method = guidance.method
    if GUIDANCE_METHODS[method].noise is not None and not any(one.needs_noise for one in steps):
        return (
            f"{method} changes fresh noise, and no step of this run draws any, so it does nothing: "
            "connect a noise law that draws noise, or choose mean_shift in Gradient Guidance"
        )
    at = [max(linear(s, one) for s in (one.sigma, one.sigma_next)) for one in steps]
    said = ", ".join(f"{sigma:.3g}" for sigma in at)
    if _acts(replace(guidance, start=1.0), steps):
        remedy = "set start to 1"
    elif _acts(replace(guidance, start=1.0, stop=0.0), steps):
        remedy = "set start to 1 and stop to 0"
    else:
        return (
            f"{method} does nothing in this run, whose steps are at sigma {said}: the step to "
            "sigma 0 and steps upward are the model's alone; take more steps, or disconnect the "
            "guidance"
        )
    return (
        f"{method} does nothing in this run: none of the steps that it could steer is between "
        f"start {guidance.start:g} and stop {guidance.stop:g}, for they are at sigma {said}; "
        f"{remedy} in Gradient Guidance"
    )


def _acts(guidance: Guidance, steps: Sequence[Coefficients]) -> bool:
    """Whether any step of a run is steered, or its start turned."""
    if not guidance.ascends:
        return any(map(guidance.acts, steps))
    first = steps[0]
    return guidance.acts(Coefficients(first.sigma, first.sigma, 1.0, slope=first.slope))


def _require_use(
    transition: Transition, sigmas: Sequence[float], path: Interpolant, is_stage: bool
) -> None:
    """Refuse a guidance that would do nothing in a single run, or what only a search can use.

    One of several stages may well be outside the window of a guidance that they share: it is said.
    """
    guidance = transition.guidance
    if guidance is not None and GUIDANCE_METHODS[guidance.method].raw:
        raise ValueError(
            f"{guidance.method} gives each draw a weight, which a single run has no use for: use "
            "it in a search with strategy smc, or choose noise_tilt in Gradient Guidance"
        )
    why = idle(transition, sigmas, path)
    if why and not is_stage:
        raise ValueError(why)
    if why:
        say(why)


def _require_point_velocities(field: Field, transition: Transition) -> None:
    """Refuse methods that need velocities at a point, where the network predicts means over steps.

    A step that is one prediction from a sigma of the list to the next is what such a network is
    for: x - sigma u lands there exactly, and its noise is kept and drawn like any model's.
    """
    if not reads_sigmas(field.guider.inner_model.diffusion_model):
        return
    method = transition.spec
    if method.calls > 1 or method.memory:
        raise ValueError(
            "this is a MeanFlow model, which predicts the mean velocity of a step, and the method "
            f"{transition.method} predicts within steps or takes earlier predictions for "
            "velocities at a point; use the exact transition"
        )
