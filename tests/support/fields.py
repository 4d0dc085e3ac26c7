"""Data laws whose denoiser is known exactly, and exact propagation of a sampler on them.

Linear coordinates: x = (1 - sigma) x0 + sigma eps. Nothing here is imported by the pack.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FLOAT64 = torch.float64


@dataclass(frozen=True)
class Mixture:
    """A one-dimensional Gaussian mixture; one component makes it a Gaussian."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]

    def components(self, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights, means and stds of the marginal at sigma."""
        weights, means, stds = (
            torch.tensor(v, dtype=FLOAT64) for v in (self.weights, self.means, self.stds)
        )
        a = 1.0 - sigma
        return weights, a * means, torch.sqrt((a * stds) ** 2 + sigma**2)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Return E[x0 | x] at sigma > 0, elementwise."""
        # components in the first axis: a last axis of three is several times slower
        shape = (-1, *[1] * x.ndim)
        weights, centres, spreads = (v.view(shape) for v in self.components(sigma))
        means, stds = (torch.tensor(v, dtype=FLOAT64).view(shape) for v in (self.means, self.stds))
        gap = x.to(FLOAT64) - centres
        inner = means + (1.0 - sigma) * stds**2 / spreads**2 * gap
        if len(self.means) == 1:
            return inner[0].to(x.dtype)
        log_p = torch.log(weights / spreads) - 0.5 * (gap / spreads) ** 2
        return (torch.softmax(log_p, 0) * inner).sum(0).to(x.dtype)

    def cdf(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Return the marginal's distribution function at sigma."""
        weights, centres, spreads = self.components(sigma)
        z = (x.to(FLOAT64).unsqueeze(-1) - centres) / spreads
        return (weights * torch.special.ndtr(z)).sum(-1)

    def moments(self, sigma: float = 0.0) -> tuple[float, float]:
        """Return mean and standard deviation of the marginal at sigma."""
        weights, centres, spreads = self.components(sigma)
        mean = float((weights * centres).sum())
        second = float((weights * (spreads**2 + centres**2)).sum())
        return mean, math.sqrt(second - mean**2)

    def draw(self, count: int, sigma: float, generator: torch.Generator) -> Tensor:
        """Draw states at sigma, shape (count, 1)."""
        weights, centres, spreads = self.components(sigma)
        which = torch.multinomial(weights, count, replacement=True, generator=generator)
        z = torch.randn(count, generator=generator, dtype=FLOAT64)
        return (centres[which] + spreads[which] * z).unsqueeze(-1)


def gaussian(mean: float, std: float) -> Mixture:
    """Return N(mean, std^2)."""
    return Mixture((1.0,), (mean,), (std,))


def ks_distance(sample: Tensor, cdf: Tensor) -> float:
    """Return the Kolmogorov-Smirnov distance of a sample from cdf, given at the sorted sample."""
    count = sample.numel()
    steps = torch.arange(count + 1, dtype=FLOAT64) / count
    return float(torch.maximum(steps[1:] - cdf, cdf - steps[:-1]).max())
