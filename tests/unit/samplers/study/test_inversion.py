"""Lists for inversion, and a scheme that is undone exactly whatever the model says."""

import math
from itertools import pairwise

import pytest
import torch
from fields import FLOAT64, gaussian

from flowsearch.samplers.paths.sigmas import in_interpolant, uniform
from flowsearch.samplers.study import inversion
from flowsearch.samplers.study.inversion import CEILING, FLOOR, mirror, rising, to_data, to_noise

LISTS = {
    "uniform": uniform(50),
    "shift 3": uniform(50, 3.0),
    "shift .3": uniform(50, 0.3),
    "vp": in_interpolant("vp", 50),
    "trigonometric": in_interpolant("trigonometric", 50),
    "ve": in_interpolant("ve", 50),
    "partial": uniform(12, start=0.6),
    "one step": [0.5, 0.0],
}


def rough(x, sigma):
    """A model that is wrong everywhere, and not smooth in sigma."""
    return torch.tanh(1.7 * x.roll(1, -1) + math.sin(40.0 * sigma)) + 0.2 * x


def data(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 3, 16, 16, generator=generator, dtype=dtype) * 2.0 - 1.0
    return x0, (1.0 - FLOOR) * x0 + FLOOR * torch.randn(x0.shape, generator=generator).to(dtype)


def there_and_back(model, sigmas, dtype=torch.float32):
    clean, x = data(dtype)
    state = to_noise(model, x, clean, sigmas)
    return to_data(model, state, sigmas) - clean


@pytest.mark.parametrize("name", LISTS)
def test_there_and_back_is_the_identity_for_a_wrong_model(name):
    gap = there_and_back(rough, rising(LISTS[name]))
    assert gap.pow(2).mean().sqrt() <= 1e-4


def test_a_broken_scheme_is_not_undone(monkeypatch):
    """Euler in place of the two-step formula, which is what inversion usually is."""

    def euler(model, x, before, sigmas, watch, first):
        for sigma, sigma_next in pairwise(sigmas[1:]):
            x, before = x + (x - model(x, sigma)) * ((sigma_next - sigma) / sigma), x
        return x, before

    monkeypatch.setattr(inversion, "_two_step", euler)
    assert there_and_back(rough, rising(LISTS["uniform"])).pow(2).mean().sqrt() > 1e-2


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_reversible_scheme_is_of_second_order(shift):
    """On Gaussian data the ODE's flow is known: the state keeps its place in the marginal.

    The mean error of the two states is taken, from which their small alternating part drops out.
    """
    mean, std = 0.4, 0.6
    field = gaussian(mean, std)
    x = torch.linspace(-1.0, 1.5, 7, dtype=FLOAT64).unsqueeze(-1)
    errors = []
    for steps in (20, 320):
        sigmas = rising(uniform(steps, shift, start=0.9))
        state = to_noise(field.denoise, x, x, sigmas)
        place = (x - (1.0 - sigmas[0]) * mean) / field.moments(sigmas[0])[1]
        gap = torch.zeros_like(x)
        for found, sigma in ((state.newest, sigmas[-1]), (state.previous, sigmas[-2])):
            gap += found - (1.0 - sigma) * mean - place * field.moments(sigma)[1]
        errors.append(float(gap.abs().max()) / 2.0)
    assert math.log(errors[0] / errors[1]) / math.log(16.0) > 1.75, errors


def test_calls_are_one_a_step_in_both_directions():
    seen = []

    def model(x, sigma):
        seen.append(sigma)
        return 0.5 * x

    told = []
    clean, x = data()
    sigmas = rising(uniform(10))
    state = to_noise(model, x, clean, sigmas, lambda i, *_: told.append(i))
    assert seen == sigmas[:-1]
    to_data(model, state, sigmas, lambda i, *_: told.append(i))
    assert seen[len(sigmas) - 1 :] == sigmas[:-1][::-1]
    assert told == [*range(len(sigmas) - 1)] * 2


def test_rising_turns_a_list_round_and_begins_at_the_floor():
    assert rising([1.0, 0.5, 0.021, 0.0]) == [FLOOR, 0.5, CEILING]
    assert rising([0.0, 0.01, 0.5]) == rising([0.5, 0.01, 0.0]) == [FLOOR, 0.5]
    assert rising([0.8, 0.4]) == [FLOOR, 0.4, 0.8]
    assert rising([14.0, 1.0, 0.03, 0.0], 0.03, 9999.0) == [0.03, 1.0, 14.0]


@pytest.mark.parametrize("sigmas", [[], [1.0], [0.0, 0.5, 0.4, 0.9], [1.0, 0.5, 0.5, 0.0]])
def test_lists_that_turn_or_repeat_are_refused(sigmas):
    with pytest.raises(ValueError, match="only fall or only rise"):
        rising(sigmas)


def test_lists_without_noise_are_refused():
    with pytest.raises(ValueError, match="reaches further up"):
        rising([0.02, 0.01, 0.0])


def test_mirror_goes_up_and_back_and_skips_the_way_up_of_plain_noising():
    up, down = mirror(0.6, 3, 0.5)
    assert up == pytest.approx([FLOOR, 0.02 + 0.58 / 3, 0.02 + 1.16 / 3, 0.6])
    assert down == pytest.approx([0.6, 0.4, 0.2, 0.0])
    assert up[-1] == down[0]
    assert mirror(0.6, 3, 1.0) == ([0.6], down)


@pytest.mark.parametrize(("sigma", "steps", "k"), [(0.021, 3, 0.5), (1.0, 3, 1.0), (0.5, 0, 0.5)])
def test_mirror_refuses_what_is_no_variation(sigma, steps, k):
    with pytest.raises(ValueError, match="a variation needs"):
        mirror(sigma, steps, k)
