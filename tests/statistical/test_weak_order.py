"""On a mixture, W1 falls with the order that a method declares; its noise is quasi-random."""

import math

import pytest
import torch
from fields import FLOAT64, Mixture

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import uniform
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import METHODS, Transition

COUNT = 60_000
MIXTURE = Mixture((0.3, 0.5, 0.2), (-1.5, 0.5, 2.0), (0.2, 0.3, 0.1))
LEVELS = (torch.arange(COUNT, dtype=FLOAT64) + 0.5) / COUNT
NORMAL = torch.special.ndtri(LEVELS)


def truth():
    places = torch.linspace(-4.0, 4.0, 400_001, dtype=FLOAT64)
    return places[torch.searchsorted(MIXTURE.cdf(places), LEVELS)]


TRUTH = truth()


def w1(transition, steps):
    """Every draw is a permutation of the normal's quantiles: no sampling error within a draw."""
    generator = torch.Generator().manual_seed(3)

    def draw(_):
        return NORMAL[torch.randperm(COUNT, generator=generator)].unsqueeze(-1)

    out = integrate(MIXTURE.denoise, draw(0), uniform(steps), transition, draw)
    return float((out.flatten().sort().values - TRUTH).abs().mean())


CASES = [
    ("exact", noise_law("ode")),
    ("exact", noise_law("constant_k", k=0.5)),
    ("second_order", noise_law("ode")),
    ("second_order", noise_law("constant_k", k=0.5)),
    ("second_order", noise_law("sit_sigma")),
    ("heun", noise_law("ode")),
    ("heun", noise_law("sit_sigma")),
]


@pytest.mark.parametrize(("method", "law"), CASES, ids=lambda v: getattr(v, "name", v))
def test_w1_falls_with_the_declared_order(method, law):
    # where the error is above the draws' own, about .005
    steps = (5, 10) if method == "heun" else (10, 20)
    coarse, fine = (w1(Transition(law, method), count) for count in steps)
    slope = math.log2(coarse / fine)
    order = METHODS[method].order
    assert slope > order - 0.4
    assert fine < {1: 0.09, 2: 0.012}[order]
    if method == "exact":
        assert slope < 1.3
