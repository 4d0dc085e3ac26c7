"""Steps between two densities: closed forms on Gaussian pairs, exactly propagated."""

import math
from dataclasses import replace

import pytest
import torch
from fields import FLOAT64
from propagation import Broken

from flowsearch.samplers.paths.diffusion import Diffusion
from flowsearch.samplers.paths.interpolant import LINEAR
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.two_sided import GAMMAS, TwoSided, two_sided
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import Transition, step
from flowsearch.samplers.stepping.two_ends import Pair, TwoEnds
from flowsearch.samplers.study.mixture_bridge import Mixture, MixtureBridge

PAIR = ((1.0, 0.6), (-0.5, 1.3))  # mean and std of target and source
NOISES = [Diffusion(), Diffusion("constant", 0.7), Diffusion("variance", 4.0)]
PATHS = [
    *(two_sided("linear", gamma) for gamma in GAMMAS),
    two_sided("trigonometric", "none"),
    two_sided("trigonometric", "brownian", 0.7),
    two_sided("encoding_decoding", "sin_squared"),
    two_sided("mirror", "brownian"),
]
CASES = [(path, noise) for path in PATHS[:4] for noise in NOISES if path.is_noisy]
CASES += [(path, NOISES[2 * path.is_noisy]) for path in PATHS[3:]]
EVERY = pytest.mark.parametrize(
    ("path", "noise"), CASES, ids=[f"{path.name}, {noise.name}" for path, noise in CASES]
)


def normal(mean, std):
    at = torch.full((1, 1), mean, dtype=FLOAT64)
    return Mixture(torch.ones(1, dtype=FLOAT64), at, torch.full_like(at, std * std))


def bridge_of(path):
    target, source = (normal(*end) for end in PAIR)
    if path.name.startswith("mirror"):
        source = target
    return MixtureBridge(target, source, path)


def marginal(path, t):
    (m, v), (n, w) = PAIR
    a, b, g = path.alpha(t), path.beta(t), path.gamma(t)
    return a * m + b * n, math.sqrt((a * v) ** 2 + (b * w) ** 2 + g * g)


def carried(transition, path, times):
    """Return mean and std at the end of the marginal at times[0], by one row a source of noise."""
    fields = bridge_of(path)
    mean, std = marginal(path, times[0])
    x = torch.full((len(times) + 1, 1), mean, dtype=FLOAT64)
    x[1] += std

    def noise(i):
        z = torch.zeros_like(x)
        z[2 + i] = 1.0
        return z

    pair = Pair(fields.ends)
    end = integrate(pair.target, x, times, transition, noise, other_end=pair.source)
    return float(end[0]), float((end[1:] - end[0]).norm())


def times(start, stop, steps):
    return [start + (stop - start) * i / steps for i in range(steps + 1)]


@pytest.mark.parametrize("ends", [(0.95, 0.1), (0.05, 0.9)], ids=["down", "up"])
@EVERY
def test_densities_are_kept_in_both_directions(path, noise, ends):
    """Mean and standard deviation of a Gaussian pair, for every gamma and eps."""
    right = marginal(path, ends[1])
    one, two = (
        math.dist(carried(TwoEnds(path, noise, second), path, times(*ends, 40)), right)
        for second in (False, True)
    )
    assert one < 0.17
    assert two < min(0.021, 0.45 * one)


MUTANTS = {
    "noise by the root of two": lambda c: replace(c, weight_z=c.weight_z * math.sqrt(2.0)),
    "no noise": lambda c: replace(c, weight_z=0.0),
    "the target in the place of the source": lambda c: replace(c, past=(0.0, *c.past[1:])),
}


@pytest.mark.parametrize("mutant", MUTANTS)
@pytest.mark.parametrize("ends", [(0.95, 0.1), (0.05, 0.9)], ids=["down", "up"])
def test_broken_steps_lose_the_density(mutant, ends):
    path = two_sided("linear", "brownian")
    broken = Broken(TwoEnds(path, NOISES[1]), MUTANTS[mutant])
    assert math.dist(carried(broken, path, times(*ends, 60)), marginal(path, ends[1])) > 0.1


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: noise.name)
@pytest.mark.parametrize("second", [False, True])
def test_errors_fall_with_the_order(noise, second):
    path = two_sided("trigonometric", "brownian")

    def gap(steps):
        found = carried(TwoEnds(path, noise, second), path, times(0.9, 0.2, steps))
        return math.dist(found, marginal(path, 0.2))

    slope = math.log2(gap(50) / gap(100))
    assert (1.4 if second else 0.8) < slope < (2.6 if second else 1.25)


# a constant eps is far more than the gamma of others near the ends, as the table of diffusions says
REACHED = [("brownian", noise) for noise in NOISES]
REACHED += [(gamma, noise) for gamma in ("sin_squared", "quadratic") for noise in NOISES[::2]]


@pytest.mark.parametrize(("gamma", "noise"), REACHED, ids=lambda v: getattr(v, "name", v))
def test_both_ends_are_reached(gamma, noise):
    """From the source itself to the target itself, and back."""
    path = two_sided("linear", gamma)
    both = [0.5 - 0.5 * math.cos(math.pi * i / 60) for i in range(60)] + [1.0]
    for way in (both, both[::-1]):
        found = carried(TwoEnds(path, noise, True), path, way)
        assert math.dist(found, marginal(path, way[-1])) < 0.03


@pytest.mark.parametrize("k", [0.0, 0.5, 1.0])
def test_with_a_point_as_source_it_is_the_transition_from_noise(k):
    """x1 = 0 and gamma = sigma: (T2) is (T), and eps = k eps_KL is the law constant_k."""
    zero = lambda t: 0.0 * t  # noqa: E731
    path = TwoSided(
        "one-sided", LINEAR.alpha, zero, LINEAR.sigma,
        LINEAR.alpha_dot, zero, LINEAR.sigma_dot, LINEAR.sigma,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    x, denoised, z = torch.randn(3, 2, 5, generator=generator, dtype=FLOAT64)
    one = Transition(noise_law("constant_k", k=k))

    class Strength(Diffusion):
        draws = k > 0.0

        def eps(self, path, t):
            return k * t / (1.0 - t)

    two = TwoEnds(path, Strength())
    for t, to in ((0.8, 0.3), (0.4, 0.7)):
        expected = step(x, denoised, one.coefficients(t, to), z)
        found = step(x, denoised, two.coefficients(t, to), z, [0.0 * x])
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_normal_source_is_the_noise_of_one_sided_paths():
    """sigma^2 = beta^2 + gamma^2: any gamma has the density, and the D, of another sigma."""
    path = two_sided("linear", "brownian", 0.8)
    data, t = normal(0.7, 0.4), 0.6
    bridge = MixtureBridge(data, normal(0.0, 1.0), path)
    x = torch.linspace(-2.0, 2.0, 9, dtype=FLOAT64).unsqueeze(-1)
    sigma = math.hypot(path.beta(t), path.gamma(t))
    a = path.alpha(t)
    expected = 0.7 + a * 0.16 / (a * a * 0.16 + sigma**2) * (x - a * 0.7)
    fields = bridge.fields(x, t)
    assert torch.allclose(fields.x0, expected)
    total = (path.beta(t) * fields.x1 + path.gamma(t) * fields.noise) / sigma
    assert torch.allclose(fields.score, -total / sigma)


def test_a_held_source_gives_the_conditional_law():
    """Of the target given its source, with a network that is told it; the ODE too draws once."""
    path, at = two_sided("linear", "brownian", 0.7), 0.4
    told = MixtureBridge(normal(1.0, 0.6), normal(at, 0.0), path)
    way = [0.5 + 0.5 * math.cos(math.pi * i / 60) for i in range(60)] + [0.0]
    x = torch.full((len(way) + 1, 1), at, dtype=FLOAT64)

    def noise(i):
        z = torch.zeros_like(x)
        z[1 + i] = 1.0
        return z

    for diffusion in NOISES:
        held = TwoEnds(path, diffusion, True, held=True)
        end = integrate(
            lambda x, t: told.fields(x, t).x0 if t < 1.0 else torch.ones_like(x),
            x, way, held, noise, other_end=lambda x, t: torch.full_like(x, at),
        )  # fmt: skip
        assert float(end[0]) == pytest.approx(1.0, abs=0.01)
        assert float((end[1:] - end[0]).norm()) == pytest.approx(0.6, abs=0.02)
        free = TwoEnds(path, diffusion, True)
        assert held.coefficients(1.0, 0.99).needs_noise
        assert free.coefficients(1.0, 0.99).needs_noise == (diffusion.draws)


def test_steps_of_a_frozen_pair_compose():
    """(T2) is exact for frozen ends: two half steps have the law of the whole."""
    path, noise = two_sided("trigonometric", "sin_squared", 0.6), Diffusion("constant", 0.2)
    between = TwoEnds(path, noise)
    generator = torch.Generator().manual_seed(0)
    x, d, s = torch.randn(3, 1, 4, generator=generator, dtype=FLOAT64)
    zero = torch.zeros_like(x)

    def at(t, to, x, z):
        return step(x, d, between.coefficients(t, to), z, [s])

    whole, half = at(0.8, 0.3, x, zero), at(0.5, 0.3, at(0.8, 0.5, x, zero), zero)
    assert torch.allclose(whole, half, rtol=1e-12)
    one = at(0.8, 0.3, x, zero + 1.0) - whole
    first = at(0.5, 0.3, at(0.8, 0.5, x, zero + 1.0), zero) - whole
    second = at(0.5, 0.3, at(0.8, 0.5, x, zero), zero + 1.0) - whole
    assert torch.allclose(one**2, first**2 + second**2, rtol=1e-12)


def test_a_pair_asks_its_network_once():
    calls = []

    def network(x, t):
        calls.append(t)
        return x, 2.0 * x

    pair = Pair(network)
    x = torch.ones(2, 1)
    between = TwoEnds(two_sided("linear", "brownian"), Diffusion("constant", 0.3), True)
    integrate(pair.target, x, [1.0, 0.5, 0.2, 0.0], between, lambda _: x, other_end=pair.source)
    assert calls == [1.0, 0.5, 0.2]
    assert torch.equal(pair.source(3.0 * x, 0.2), 6.0 * x)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": two_sided("linear", "none"), "diffusion": NOISES[1]}, "has no noise"),
        ({"last": "mean"}, "choose denoised"),
        ({"last": "extrapolated"}, "with second order"),
        ({"path": two_sided("linear", "none"), "held": True}, "leads to one point"),
    ],
)
def test_what_has_no_meaning_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        TwoEnds(**{"path": two_sided(), "diffusion": Diffusion(), **given})


def test_the_second_end_must_be_given():
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="goes by its other end as well"):
        integrate(lambda x, t: x, x, [0.9, 0.1], TwoEnds(two_sided(), NOISES[1]), lambda _: x)
