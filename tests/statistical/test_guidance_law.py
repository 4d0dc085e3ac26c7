"""Tilted noise is noise: mean, deviation, norm, spectrum and distribution, within stated bounds.

z' = sqrt(1 - a^2) z + a g with g white and independent of z has a mean square of 1 a row, but for
the product of the two. Its distribution is N(0, 1) but for g's own shape: a sparse g leaves most
places with a deviation of sqrt(1 - a^2), which moves the distribution function by at most a^2 / 4.
"""

import math

import pytest
import torch
from fields import FLOAT64, gaussian, ks_distance

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.guidance import Guidance
from flowsearch.samplers.stepping.integrate import guided, integrate, row, steering
from flowsearch.samplers.stepping.transition import Transition, fixed_q
from flowsearch.samplers.stepping.whitening import bands, white

ROWS, CHANNELS, SIDE = 24, 3, 32
COUNT = ROWS * CHANNELS * SIDE * SIDE
KS_CRITICAL = 2.2 / math.sqrt(COUNT)
DATA = gaussian(0.2, 0.6)


def noise(seed, shape=(ROWS, CHANNELS, SIDE, SIDE)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=FLOAT64)


def blocks():
    """What a reward of colours on 8 x 8 places gives."""
    small = noise(1, (ROWS, CHANNELS, 8, 8))
    return small.repeat_interleave(SIDE // 8, 2).repeat_interleave(SIDE // 8, 3)


def sparse():
    """What a reward of one small thing gives."""
    g = torch.zeros(ROWS, CHANNELS, SIDE, SIDE, dtype=FLOAT64)
    g[:, :, 10:13, 20:23] = noise(2, (ROWS, CHANNELS, 3, 3))
    return g


GRADIENTS = {"noise": lambda: noise(3), "blocks": blocks, "sparse": sparse}


class Given:
    def __init__(self, gradient):
        self.gradient = gradient

    def free(self, rows):
        return None

    def at(self, rows, clean):
        return self.gradient[list(rows)]


def tilted(gradient, whitening, tilt, transition=None, after=0.5):
    """Return z, z' and the states x and x' that a step takes them to; q = 0, so a = A."""
    transition = transition or fixed_q(0.0)
    transition = transition.guided(Guidance(strength=tilt, whitening=whitening, fade=0.0))
    x, z = DATA.draw(COUNT, 0.8, torch.Generator().manual_seed(4)).view(gradient.shape), noise(5)
    denoised, coefficients = DATA.denoise(x, 0.8), row(transition, 0.8, after)
    ends = []
    for source in (Given(torch.zeros_like(gradient)), Given(gradient)):
        steer = steering(transition, source, range(ROWS), DATA.denoise)
        _, changed = steer.prepared(x, denoised, coefficients, z)
        moved, _ = guided(DATA.denoise, x, denoised, coefficients, z, (), steer)
        ends.append((changed, moved))
    (_, free), (changed, moved) = ends
    return z, changed, free, moved


@pytest.mark.parametrize("tilt", [0.15, 0.5])
@pytest.mark.parametrize("whitening", ["scale", "spectrum"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_tilted_noise_has_the_marginals_of_noise(name, whitening, tilt):
    _, z, free, moved = tilted(GRADIENTS[name](), whitening, tilt)
    assert abs(float(z.mean())) < 5.0 / math.sqrt(COUNT) + tilt * 5.0 / math.sqrt(
        ROWS * CHANNELS * 9
    )
    assert abs(float(z.std()) - 1.0) < 5.0 / math.sqrt(2.0 * COUNT) + 5.0 * tilt / math.sqrt(COUNT)
    size = SIDE * SIDE * CHANNELS
    norms = z.flatten(1).norm(dim=1) / math.sqrt(size)
    assert float((norms - 1.0).abs().max()) < 5.0 * (1.0 + tilt) / math.sqrt(2.0 * size)
    ordered = z.flatten().sort().values
    assert ks_distance(ordered, torch.special.ndtr(ordered)) < KS_CRITICAL + 0.25 * tilt**2
    # and so do the states: both samples against each other
    places = free.flatten().sort().values
    steps = torch.arange(1, COUNT + 1, dtype=FLOAT64) / COUNT
    share = torch.searchsorted(moved.flatten().sort().values, places, right=True) / COUNT
    assert float((share - steps).abs().max()) < 2.0 * KS_CRITICAL + 0.25 * tilt**2


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_white_spectrum_keeps_that_of_noise_in_every_octave(name):
    tilt = 0.5
    _, z, _, _ = tilted(GRADIENTS[name](), "spectrum", tilt)
    of = bands((SIDE, SIDE)).flatten()
    power = torch.fft.fftn(z, dim=(2, 3), norm="ortho").abs().square().flatten(2).mean((0, 1))
    for band in range(int(of.max()) + 1):
        inside = of == band
        error = 5.0 * math.sqrt(2.0 / (int(inside.sum()) * ROWS * CHANNELS))
        assert abs(float(power[inside].mean()) - 1.0) < error, f"octave {band}"


def test_scaling_alone_does_not_keep_the_spectrum():
    """The mutant of the law above: what is smooth stays smooth."""
    _, z, _, _ = tilted(blocks(), "scale", 0.5)
    power = torch.fft.fftn(z, dim=(2, 3), norm="ortho").abs().square().flatten(2).mean((0, 1))
    highest = bands((SIDE, SIDE)).flatten() == 5
    assert float(power[highest].mean()) < 0.85


def test_a_tilt_without_its_shrinking_is_seen():
    """The mutant z + a g: a quarter more variance at a = .5."""
    z, g = noise(5), white(blocks(), "scale")
    assert abs(float((z + 0.5 * g).std()) - 1.0) > 0.1
    assert abs(float((z * math.sqrt(0.75) + 0.5 * g).std()) - 1.0) < 0.01


@pytest.mark.parametrize("whitening", ["scale", "spectrum"])
def test_the_drift_of_8_and_25_steps_is_the_same(whitening):
    """The mean of states whose reward pulls one way, at the end of the path."""
    transition = Transition(noise_law("constant_k", k=1.0))
    shape = (4, CHANNELS, SIDE, SIDE)
    gradient = noise(3, shape)
    g = white(gradient, whitening)

    def drift(steps):
        x = DATA.draw(g.numel(), 0.95, torch.Generator().manual_seed(4)).view(shape)
        sigmas = [0.95 * (1.0 - i / steps) for i in range(steps + 1)]
        way = transition.guided(Guidance(strength=0.4, whitening=whitening, fade=0.0))
        out = integrate(
            DATA.denoise, x, sigmas, way, lambda i: noise(10 + i, shape), source=Given(gradient)
        )
        return float((out * g).mean())

    few, many = drift(8), drift(25)
    assert many > 0.05
    assert few == pytest.approx(many, rel=0.25)
