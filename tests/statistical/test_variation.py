"""A variation correlates with its picture by the Gaussian law, and has the data's own spread.

    corr(in, out) = (alpha^2 S^2 / (alpha^2 S^2 + sigma^2))^k

Exact fields, the lists that the node uses. What the law does not hold is the noise of the start at
FLOOR, which forgets 1 / (1 + (FLOOR / (alpha S))^2) of fine data: .2 % at S = .5.
"""

import math

import pytest
import torch
from fields import FLOAT64, gaussian

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import Transition
from flowsearch.samplers.study.inversion import mirror

COUNT, STEPS, MEAN = 40_000, 60, 0.3
CASES = [
    (s, sigma, k) for s in (0.5, 1.0, 2.0) for sigma in (0.3, 0.5, 0.8) for k in (0, 0.25, 0.5, 1)
]
STD_BOUND = 0.015 + 5.0 / math.sqrt(2.0 * COUNT)


def law(std, sigma, k):
    signal = ((1.0 - sigma) * std) ** 2
    return (signal / (signal + sigma**2)) ** k


def corr_bound(right):
    """Steps, start, and 5 standard errors of a correlation."""
    return 0.005 + 5.0 * (1.0 - right**2) / math.sqrt(COUNT)


def varied(std, sigma, k, back=None, seed=0):
    """Correlation of input and output, and std of the output over the data's."""
    generator = torch.Generator().manual_seed(seed)
    field, up_down = gaussian(MEAN, std), mirror(sigma, STEPS, float(k))

    def normal(_=0):
        return torch.randn(COUNT, 1, generator=generator).to(FLOAT64)  # drawn three times faster

    x0 = MEAN + std * normal()
    first = up_down[0][0]
    x = (1.0 - first) * x0 + first * normal()
    for way, strength in zip(up_down, (k, k if back is None else back), strict=True):
        transition = Transition(noise_law("constant_k", k=float(strength)), "second_order")
        x = integrate(field.denoise, x, way, transition, normal)
    pair = torch.stack([x0.flatten(), x.flatten()])
    return float(torch.corrcoef(pair)[0, 1]), float(x.std()) / std


@pytest.mark.parametrize(("std", "sigma", "k"), CASES)
def test_correlation_and_spread(std, sigma, k):
    corr, spread = varied(std, sigma, k)
    # the table of web/docs/FlowSearchVariation.md: run with -rP
    line = f"| {std} | {sigma} | {k} | {law(std, sigma, k):.3f} | {corr:.3f} | {spread:.3f} |"
    print(line)  # noqa: T201
    assert abs(corr - law(std, sigma, k)) < corr_bound(law(std, sigma, k))
    assert spread == pytest.approx(1.0, abs=STD_BOUND)


def test_a_way_back_without_noise_is_seen_in_the_correlation():
    """The mutant: noise on the way up only, which keeps the spread but not the law."""
    corr, spread = varied(1.0, 0.5, 0.5, back=0.0)
    right = law(1.0, 0.5, 0.5)
    assert abs(corr - right) > 5.0 * corr_bound(right)
    assert spread == pytest.approx(1.0, abs=STD_BOUND)
