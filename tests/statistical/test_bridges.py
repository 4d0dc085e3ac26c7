"""Mixture to mixture with exact fields: every gamma and eps, both ways, one and two dimensions.

Samples start as draws of the one density itself and must end as draws of the other. In two
dimensions the distribution is looked at along eight directions and by the energy distance.
"""

import math
from dataclasses import replace

import pytest
import torch
from fields import FLOAT64, ks_distance
from propagation import Broken

from flowsearch.samplers.paths.curve import Curve
from flowsearch.samplers.paths.diffusion import Diffusion
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.two_sided import two_sided
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import BRIDGES, Transition
from flowsearch.samplers.stepping.two_ends import Pair, TwoEnds
from flowsearch.samplers.study.mixture_bridge import Mixture, MixtureBridge

COUNT = 40_000
# sqrt(n) KS exceeds 2.2 in 1 of 8,000 runs; .008 is for the steps
KS_BOUND = 0.008 + 2.2 / math.sqrt(COUNT)
PLAIN = noise_law("ode")


def mixture(*components):
    weights, means, variances = zip(*components, strict=True)
    as_tensor = [torch.tensor(values, dtype=FLOAT64) for values in (weights, means, variances)]
    return Mixture(*as_tensor)


LINE = (
    mixture((0.3, (-1.5,), (0.06,)), (0.7, (0.8,), (0.1,))),
    mixture((0.6, (-0.6,), (0.2,)), (0.4, (1.4,), (0.09,))),
)
PLANE = (
    mixture((0.5, (-1.2, 0.6), (0.1, 0.2)), (0.5, (0.9, -0.8), (0.15, 0.08))),
    mixture((0.4, (0.8, 1.0), (0.12, 0.1)), (0.6, (-0.7, -0.9), (0.1, 0.25))),
)


def times(steps, up=False):
    """Times that are denser near both ends."""
    down = [0.5 + 0.5 * math.cos(math.pi * i / steps) for i in range(steps)] + [0.0]
    return [1.0 - t for t in down] if up else down


def run(densities, path, transition, steps, up=False, seed=0):
    """Return the finished samples and the density that they should have."""
    bridge = MixtureBridge(*densities, path)
    generator = torch.Generator().manual_seed(seed)
    start, end = densities if up else densities[::-1]
    x, _ = start.draw(COUNT, generator)

    def noise(_):
        return torch.randn(x.shape, generator=generator).to(FLOAT64)

    pair = Pair(bridge.ends)
    out = integrate(pair.target, x, times(steps, up), transition, noise, other_end=pair.source)
    return out, end


def ks(sample, density, direction):
    ordered = (sample @ direction).sort().values
    return ks_distance(ordered, density.cdf(ordered, direction))


ONE = torch.ones(1, dtype=FLOAT64)
CONSTANT, EVEN = Diffusion("constant", 0.5), Diffusion("variance", 3.0)
DRAWN = Diffusion("curve", 0.0, Curve(((0.0, 0.0), (0.5, 0.6), (1.0, 0.0)), "linear"))
CASES = [
    ("linear", "brownian", 1.0, Diffusion(), False),
    ("linear", "brownian", 1.0, CONSTANT, True),
    ("linear", "brownian", 0.5, EVEN, False),
    ("trigonometric", "brownian", 1.0, DRAWN, True),
    ("linear", "sin_squared", 1.0, EVEN, True),
    ("encoding_decoding", "sin_squared", 1.0, EVEN, False),
    ("linear", "quadratic", 1.0, Diffusion("gamma", 1.0), False),
    ("linear", "quadratic", 1.0, Diffusion(), True),
    ("trigonometric", "none", 1.0, Diffusion(), False),
]


@pytest.mark.parametrize(("ends", "gamma", "scale", "diffusion", "up"), CASES)
def test_a_mixture_becomes_the_other(ends, gamma, scale, diffusion, up):
    path = two_sided(ends, gamma, scale)
    sample, density = run(LINE, path, TwoEnds(path, diffusion, True), 60, up)
    assert ks(sample, density, ONE) < KS_BOUND


@pytest.mark.parametrize("method", BRIDGES)
def test_a_network_for_the_target_alone_is_enough_for_a_brownian_bridge(method):
    path = two_sided("linear", "brownian", 0.7)
    transition = Transition(PLAIN, method, noise_scale=0.7)
    steps = 300 if BRIDGES[method].order == 1 else 60
    sample, density = run(LINE, path, transition, steps)
    assert ks(sample, density, ONE) < KS_BOUND


MUTANTS = {
    "noise by the root of two": lambda c: replace(c, weight_z=c.weight_z * math.sqrt(2.0)),
    "drift without noise": lambda c: replace(c, weight_z=0.0),
    "the second end left out": lambda c: replace(c, past=(0.0, *c.past[1:])),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_broken_steps_are_seen(mutant):
    path = two_sided("linear", "brownian")
    broken = Broken(TwoEnds(path, Diffusion("constant", 1.0), True), MUTANTS[mutant])
    sample, density = run(LINE, path, broken, 40)
    assert ks(sample, density, ONE) > 2.0 * KS_BOUND


def test_the_transitions_from_noise_do_not_sample_a_bridge():
    """Which is why there is one of its own: their e holds the source."""
    path = two_sided("linear", "brownian")
    for law in ("ode", "sit_sigma"):
        sample, density = run(LINE, path, Transition(noise_law(law)), 60)
        assert ks(sample, density, ONE) > 5.0 * KS_BOUND


def energy_distance(first, second):
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, without the pairs of a point with itself."""
    count = len(first)

    def within(x):
        return float(torch.pdist(x).sum()) * 2.0 / (count * (count - 1.0))

    return 2.0 * float(torch.cdist(first, second).mean()) - within(first) - within(second)


@pytest.mark.parametrize(("diffusion", "up"), [(Diffusion(), True), (CONSTANT, False)])
def test_in_the_plane_too(diffusion, up):
    path = two_sided("linear", "brownian")
    sample, density = run(PLANE, path, TwoEnds(path, diffusion, True), 50, up)
    for i in range(8):
        angle = math.pi * i / 8
        direction = torch.tensor([math.cos(angle), math.sin(angle)], dtype=FLOAT64)
        assert ks(sample, density, direction) < KS_BOUND
    size = 3_000
    truth, other = density.draw(2 * size, torch.Generator().manual_seed(7))[0].split(size)
    assert abs(energy_distance(sample[:size], truth)) < 0.004
    assert energy_distance(1.1 * other, truth) > 0.004  # a spread that is wrong by a tenth
