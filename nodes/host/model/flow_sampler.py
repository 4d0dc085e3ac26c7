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

from ....samplers.paths.interpolant import LINEAR
from ....samplers.paths.noise_law import noise_law
from ....samplers.stepping.guidance import GradientSource
from ....samplers.stepping.integrate import integrate
from ....samplers.stepping.transition import Transition
from .field import Field, FieldSampler, reads_sigmas

__all__ = ["DEFAULT_LAW", "STEP", "FlowSampler", "Gradients", "source_of"]

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
            ValueError: A model or sigmas it cannot serve.
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
        with field.watched(len(sigmas) - 1) as tell:
            x = field.start(self.max_denoise(field.guider, sigmas))
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
