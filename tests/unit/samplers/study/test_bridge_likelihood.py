"""Likelihoods of bridges by paths, and what errors of the fields bound and what they do not."""

import math

import pytest
import torch
from fields import FLOAT64

from flowsearch.samplers.paths.two_sided import two_sided
from flowsearch.samplers.study.bridge_likelihood import best_diffusion, bounds, log_density
from flowsearch.samplers.study.mixture_bridge import Mixture, MixtureBridge


def mixture(*components):
    weights, means, variances = zip(*components, strict=True)
    return Mixture(
        torch.tensor(weights, dtype=FLOAT64),
        torch.tensor(means, dtype=FLOAT64),
        torch.tensor(variances, dtype=FLOAT64),
    )


TARGET = mixture((0.4, (-1.0, 0.5), (0.2, 0.4)), (0.6, (1.0, 0.0), (0.3, 0.2)))
SOURCE = mixture((0.5, (0.0, 1.0), (0.5, 0.3)), (0.5, (0.5, -1.5), (0.3, 0.6)))
POINTS = TARGET.draw(5, torch.Generator().manual_seed(0))[0]


def evaluated(bridge, eps, paths, guide=1.0, steps=40, velocity=1.0, score=1.0):
    generator = torch.Generator().manual_seed(3)

    def draw(_):
        return torch.randn(len(POINTS) * paths, 2, generator=generator).to(FLOAT64)

    return log_density(
        lambda x, t: velocity * bridge.fields(x, t).velocity,
        lambda x, t: score * bridge.fields(x, t).score,
        SOURCE.log_density,
        POINTS,
        [i / steps for i in range(steps + 1)],
        lambda t: eps,
        draw,
        paths,
        guide,
    )


@pytest.mark.parametrize(
    ("gamma", "eps"), [("brownian", 0.0), ("brownian", 0.3), ("sin_squared", 0.3)]
)
def test_with_exact_fields_it_is_the_datas_density(gamma, eps):
    bridge = MixtureBridge(TARGET, SOURCE, two_sided("linear", gamma))
    found = evaluated(bridge, eps, 1 if eps == 0.0 else 8, steps=30)
    assert torch.allclose(found.nats, TARGET.log_density(POINTS), atol=0.3)
    finer = evaluated(bridge, eps, 1 if eps == 0.0 else 8, steps=90)
    gaps = [float((f.nats - TARGET.log_density(POINTS)).abs().mean()) for f in (found, finer)]
    assert gaps[1] < 0.09
    if eps == 0.0:
        assert gaps[1] < 0.6 * gaps[0]
    else:  # what the paths differ by is the steps' error alone
        assert float(finer.spread.mean()) < 0.8 * float(found.spread.mean())


@pytest.mark.parametrize("wrong", [{"score": 0.3}, {"velocity": 0.5}])
def test_wrong_fields_have_another_density(wrong):
    bridge = MixtureBridge(TARGET, SOURCE, two_sided("linear", "brownian"))
    found = evaluated(bridge, 0.3, 16, **wrong)
    assert not torch.allclose(found.nats, TARGET.log_density(POINTS), atol=0.3)


def test_the_guided_paths_agree_and_the_plain_ones_spread():
    """Same mean; the plain formula's weights differ by orders of magnitude."""
    bridge = MixtureBridge(TARGET, SOURCE, two_sided("linear", "brownian"))
    guided, plain = (evaluated(bridge, 0.3, 300, guide, 25) for guide in (1.0, 0.0))
    assert float(plain.spread.mean()) > 4.0 * float(guided.spread.mean())
    assert bool(((plain.nats - guided.nats).abs() < 5.0 * plain.error + 0.1).all())


def test_cross_entropy_is_the_mean_with_its_error():
    bridge = MixtureBridge(TARGET, SOURCE, two_sided("linear", "brownian"))
    found = evaluated(bridge, 0.0, 1)
    mean, error = found.cross_entropy()
    assert mean == pytest.approx(-float(found.nats.mean()))
    assert error == pytest.approx(float(found.nats.std()) / math.sqrt(5.0))


def test_what_cannot_be_a_path_is_refused():
    x = torch.zeros(1, 1)
    still = lambda x, t: 0.0 * x  # noqa: E731
    for times in ([0.0, 0.5], [1.0, 0.0], [0.0, 0.7, 0.3, 1.0]):
        with pytest.raises(ValueError, match="rise"):
            log_density(still, still, still, x, times, lambda t: 0.0, lambda i: x, 1)


# N(0, V) to itself along a quarter of a circle: it stays N(0, V), with b = 0 and s = -x / V
STILL = two_sided("trigonometric", "none")


def moved(eps, variance, of_b, of_s, steps=1000):
    """Mean and variance at the target of the SDE with b = of_b(x), s = -x / V + of_s, both affine.

    Args:
        eps: Diffusion.
        variance: V.
        of_b: (constant, slope) of b's error.
        of_s: The same of the score's.
        steps: Of Euler's method on the two moments.
    """
    mean, spread, h = 0.0, variance, 1.0 / steps
    constant = -of_b[0] + eps * of_s[0]
    slope = -of_b[1] + eps * (of_s[1] - 1.0 / variance)
    for _ in range(steps):
        mean += h * (constant + slope * mean)
        spread += h * (2.0 * slope * spread + 2.0 * eps)
    return mean, spread


def divergence(variance, mean, spread):
    """KL(N(0, V) || N(mean, spread))."""
    return 0.5 * (math.log(spread / variance) + (variance + mean * mean) / spread - 1.0)


def affine_bounds(eps, variance, of_b, of_s):
    generator = torch.Generator().manual_seed(0)
    x = math.sqrt(variance) * torch.randn(20_000, 1, generator=generator).to(FLOAT64)
    zero = lambda x, t: 0.0 * x  # noqa: E731
    return bounds(
        (lambda x, t: of_b[0] + of_b[1] * x, zero),
        (lambda x, t: of_s[0] + of_s[1] * x, zero),
        lambda t: x,
        lambda t: eps,
        4,
    )


ERRORS = [
    ((0.1, 0.0), (0.0, 0.0)),
    ((0.0, 0.1), (0.0, 0.0)),
    ((0.0, 0.0), (0.1, -0.1)),
    ((0.1, 0.05), (0.1, 0.02)),
    ((0.1, 0.0), (-0.1, 0.0)),
]


@pytest.mark.parametrize("eps", [0.2, 1.0, 4.0])
@pytest.mark.parametrize(("of_b", "of_s"), ERRORS)
def test_the_sdes_divergence_is_below_both_bounds(eps, of_b, of_s):
    kl = divergence(1.3, *moved(eps, 1.3, of_b, of_s))
    found = affine_bounds(eps, 1.3, of_b, of_s)
    assert 0.0 < kl <= 1.02 * found.tight
    assert found.tight <= found.loose * (1.0 + 1e-9)


def test_half_the_loose_bound_is_no_bound():
    """It would be for errors that are uncorrelated; these add up, at eps = 1.26 V."""
    eps, variance = 1.256, 1.0
    of_b, of_s = (0.1, 0.0), (-0.1 / eps, 0.0)
    kl = divergence(variance, *moved(eps, variance, of_b, of_s))
    found = affine_bounds(eps, variance, of_b, of_s)
    assert kl > 1.5 * (0.5 * found.loose)
    assert kl < found.loose


def test_the_best_diffusion_makes_the_bounds_least():
    of_b, of_s = (0.1, 0.05), (0.04, -0.1)
    best = affine_bounds(1.0, 1.3, of_b, of_s).best[0]
    least = affine_bounds(best, 1.3, of_b, of_s)
    for factor in (0.7, 1.4):
        other = affine_bounds(factor * best, 1.3, of_b, of_s)
        assert least.tight < other.tight
        assert least.loose < other.loose
    assert best_diffusion(0.0, 1.0) == 0.0
    assert best_diffusion(1.0, 0.0) == math.inf


def test_towards_the_source_errors_enter_with_the_other_sign():
    x = torch.ones(4, 1)
    pair = (lambda x, t: x, lambda x, t: 0.0 * x)
    down, up = (
        bounds(pair, pair, lambda t: x, lambda t: 1.0, 2, towards).tight
        for towards in (False, True)
    )
    assert (down, up) == (0.0, 1.0)


@pytest.mark.parametrize("waves", [5.0, 40.0])
def test_the_odes_divergence_has_no_such_bound(waves):
    """b = .1 sin(k x): the same error in the mean square for every k; the ODE's density breaks up.

    The SDE's is carried on a grid by its own kernel.
    """
    size = 0.1
    grid = torch.linspace(-4.5, 4.5, 901, dtype=FLOAT64).unsqueeze(-1)
    spacing = float(grid[1, 0] - grid[0, 0])
    times = [i / 200 for i in range(201)]

    def normal(x):
        return -0.5 * (x.square().sum(-1) + math.log(2.0 * math.pi))

    def wave(x, t):
        return size * torch.sin(waves * x)

    def score(x, t):
        return -x

    log_p = normal(grid)
    ode = log_density(wave, score, normal, grid, times, lambda t: 0.0, lambda i: grid, 1)
    of_ode = float((log_p.exp() * (log_p - ode.nats)).sum() * spacing)
    assert float(ode.nats.exp().sum() * spacing) == pytest.approx(1.0, abs=0.05)
    eps, h = 1.0, 1.0 / 50
    drift = -wave(grid, 0.0) + eps * score(grid, 0.0)
    gap = grid.T - (grid + h * drift)
    kernel = (
        torch.exp(-gap.square() / (4.0 * eps * h)) * spacing / math.sqrt(4.0 * math.pi * eps * h)
    )
    p = log_p.exp()
    for _ in range(50):
        p = p @ kernel
    of_sde = float((log_p.exp() * (log_p - p.log())).sum() * spacing)
    bound = 0.25 * 0.5 * size**2 / eps
    assert of_sde < 1.2 * bound
    assert of_ode > (10.0 if waves == 5.0 else 300.0) * bound
