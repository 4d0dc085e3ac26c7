"""What happens along a list of sigmas: numbers by which to choose settings.

At each sigma, with x = alpha x0 + sigma n z the state and D its prediction,

    e = (x - alpha D) / (sigma n)        prediction of the unit noise
    score = -e / (sigma n)

An exact model has E rms(e)^2 = 1 - g E|x0 - D|^2 / d with g the signal-to-noise ratio: 1 wherever
noise can be told from picture, falling where fine grain no longer can, never above 1.
"""

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor

from ..paths.interpolant import LINEAR, Interpolant, sigma_from_r
from ..paths.noise_law import NoiseLaw

__all__ = ["Reading", "Recorder", "as_json", "effective_k"]


@dataclass(frozen=True)
class Reading:
    """What is seen at one sigma; lists hold one number a row.

    Attributes:
        sigma: In the model's coordinates.
        linear_sigma: On the linear path, 1 noise, 0 data.
        denoised: rms of D.
        noise: rms of e.
        score: rms of the score.
        change: rms of D minus the D before; None at the first sigma.
        distance: rms of D minus the finished latent.
        k: Strength of the law over the step that starts here; None where it has no meaning.
    """

    sigma: float
    linear_sigma: float
    denoised: list[float]
    noise: list[float]
    score: list[float]
    change: list[float] | None
    distance: list[float]
    k: float | None


def effective_k(law: NoiseLaw, sigma: float, sigma_next: float) -> float | None:
    """Return k of a step, -log q / |log rho - log rho'|.

    Args:
        law: The noise law.
        sigma: Linear sigma at the step's start.
        sigma_next: At its end.

    Returns:
        k; None where rho is 0 or infinite at an end, where q = 0 or where nothing moves.
    """
    if not (0.0 < sigma < 1.0 and 0.0 < sigma_next < 1.0) or sigma == sigma_next:
        return None
    q = law.q(sigma, sigma_next)
    way = math.log(sigma / (1.0 - sigma)) - math.log(sigma_next / (1.0 - sigma_next))
    return abs(math.log(q) / way) if q > 0.0 else None


class Recorder:
    """A callback of integrate() that keeps what is needed for the readings.

    Attributes:
        denoised: Every D, on the CPU.
    """

    def __init__(
        self,
        sigmas: list[float],
        law: NoiseLaw,
        path: Interpolant = LINEAR,
        noise_scale: float = 1.0,
    ) -> None:
        """Keep the settings.

        Args:
            sigmas: The run's, in the model's coordinates.
            law: Its noise law.
            path: The model's coordinates.
            noise_scale: Standard deviation of its noise.
        """
        self.denoised: list[Tensor] = []
        self._sigmas, self._law, self._path, self._scale = sigmas, law, path, noise_scale
        self._noise: list[Tensor] = []

    def __call__(self, step: int, x: Tensor, denoised: Tensor) -> None:
        """Note one prediction; see integrate()."""
        sigma = self._sigmas[step]
        alpha = 1.0 - sigma if self._path is LINEAR else 1.0
        self._noise.append(_rms((x - alpha * denoised) / max(sigma * self._scale, 1e-30)))
        self.denoised.append(denoised.float().cpu())

    def readings(self, finished: Tensor) -> list[Reading]:
        """Return what was seen.

        Args:
            finished: Clean latent at the end of the run.

        Returns:
            One Reading a prediction, in the order of the run.
        """
        last, before = finished.float().cpu(), [None, *self.denoised]
        linear = [sigma_from_r(self._path, s) if s > 0.0 else 0.0 for s in self._sigmas]
        strengths = [effective_k(self._law, *pair) for pair in pairwise(linear)]
        return [
            Reading(
                sigma=self._sigmas[i],
                linear_sigma=linear[i],
                denoised=_floats(_rms(d)),
                noise=_floats(self._noise[i]),
                score=_floats(self._noise[i] / max(self._sigmas[i] * self._scale, 1e-30)),
                change=None if previous is None else _floats(_rms(d - previous)),
                distance=_floats(_rms(d - last)),
                k=strengths[i],
            )
            for i, (d, previous) in enumerate(zip(self.denoised, before, strict=False))
        ]


def as_json(readings: list[Reading], law: NoiseLaw) -> dict[str, Any]:
    """Return readings as JSON types.

    Args:
        readings: Of a run.
        law: Its noise law.

    Returns:
        {noise_law, readings: [{sigma, ...}]}.
    """
    return {"noise_law": law.to_json(), "readings": [asdict(reading) for reading in readings]}


def _rms(values: Tensor) -> Tensor:
    return values.flatten(1).double().square().mean(1).sqrt().cpu()


def _floats(values: Tensor) -> list[float]:
    return [float(value) for value in values]
