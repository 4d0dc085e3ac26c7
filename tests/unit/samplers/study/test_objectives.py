"""Objectives of bridges: on a mixture their minimisers are the exact fields."""

import math

import pytest
import torch
from fields import FLOAT64

from flowsearch.samplers.paths.two_sided import two_sided
from flowsearch.samplers.study.mixture_bridge import Mixture, MixtureBridge
from flowsearch.samplers.study.objectives import OBJECTIVES, loss

COUNT = 20_000
PATHS = [
    two_sided("linear", "brownian"),
    two_sided("trigonometric", "sin_squared", 0.7),
    two_sided("encoding_decoding", "sin_squared"),
    two_sided("linear", "none"),
]


def column(*values):
    return torch.tensor(values, dtype=FLOAT64).unsqueeze(-1)


def bridge_of(path):
    weights = torch.tensor([0.4, 0.6], dtype=FLOAT64)
    target = Mixture(weights, column(-1.0, 1.2), column(0.1, 0.3))
    source = Mixture(weights.flip(0), column(0.5, -2.0), column(0.2, 0.5))
    return MixtureBridge(target, source, path)


def exact(bridge, name, x, t):
    fields = bridge.fields(x, t)
    if name == "drift":
        path = bridge.path
        return path.alpha_dot(t) * fields.x0 + path.beta_dot(t) * fields.x1
    return getattr(fields, name)


BASIS = (torch.ones_like, lambda x: x, torch.sin, lambda x: torch.exp(-x * x))


def gradient(bridge, name, t, factor=1.0, antithetic=True):
    """Mean slope of the objective at the exact field, towards each of BASIS, and its error."""
    generator = torch.Generator().manual_seed(1)
    x0, x1 = bridge.draw(COUNT, generator)
    z = torch.randn(COUNT, 1, generator=generator).to(FLOAT64)
    times = torch.full((COUNT,), t, dtype=FLOAT64)
    shares = torch.zeros(COUNT, len(BASIS), dtype=FLOAT64, requires_grad=True)  # own ones a row

    def network(x, _):
        added = (shares * torch.cat([phi(x) for phi in BASIS], 1)).sum(1, keepdim=True)
        return factor * exact(bridge, name, x, t) + added

    loss(name, network, bridge.path, times, x0, x1, z, antithetic).sum().backward()
    errors = shares.grad.std(0) / math.sqrt(COUNT)
    return list(zip(shares.grad.mean(0).tolist(), errors.tolist(), strict=True))


CASES = [
    (path, name)
    for path in PATHS
    for name in OBJECTIVES
    if path.is_noisy or name not in ("noise", "score")
]


@pytest.mark.parametrize(("path", "name"), CASES, ids=lambda v: getattr(v, "name", v))
def test_the_exact_field_is_the_minimum(path, name):
    """No direction leads down from it; one that is too large by .3 is seen."""
    bridge = bridge_of(path)
    for t in (0.2, 0.7):
        slopes = gradient(bridge, name, t)
        assert all(abs(mean) < 4.5 * error + 1e-12 for mean, error in slopes), slopes
    if abs(float(exact(bridge, name, column(0.3), 0.2))) > 1e-9:
        wrong = gradient(bridge, name, 0.2, 1.3)
        assert any(abs(mean) > 6.0 * error for mean, error in wrong)


def test_what_is_above_the_minimum_is_half_the_squared_error():
    bridge = bridge_of(PATHS[0])
    generator = torch.Generator().manual_seed(2)
    x0, x1 = bridge.draw(COUNT, generator)
    z = torch.randn(COUNT, 1, generator=generator).to(FLOAT64)
    t = torch.full((COUNT,), 0.4, dtype=FLOAT64)

    def network(error):
        return lambda x, _: bridge.fields(x, 0.4).velocity + error * torch.sin(x)

    values = [loss("velocity", network(e), PATHS[0], t, x0, x1, z) for e in (0.5, 0.0)]
    x = 0.6 * x0 + 0.4 * x1 + PATHS[0].gamma(0.4) * z
    gap = values[0] - values[1] - 0.125 * torch.sin(x).square().sum(1)
    assert abs(float(gap.mean())) < 4.0 * float(gap.std()) / math.sqrt(COUNT)


@pytest.mark.parametrize("name", ["velocity", "score"])
def test_both_signs_of_the_noise_keep_the_spread_finite_at_the_ends(name):
    bridge = bridge_of(PATHS[0])
    spread = {}
    for t in (1e-2, 1e-6):
        for both in (True, False):
            spread[t, both] = gradient(bridge, name, t, antithetic=both)[1][1]
    assert spread[1e-6, True] < 1.5 * spread[1e-2, True]
    assert spread[1e-6, False] > 50.0 * spread[1e-2, False]


def test_a_sum_over_dimensions_and_one_value_a_row():
    zero = torch.zeros(3, 2, 4)
    found = loss("x1", lambda x, t: zero + 1.0, PATHS[0], torch.full((3,), 0.5), zero, zero, zero)
    assert torch.equal(found, torch.full((3,), 4.0))


@pytest.mark.parametrize(
    ("name", "path", "t", "message"),
    [
        ("b", PATHS[0], 2, "unknown objective 'b'; choose one of: velocity"),
        ("score", PATHS[3], 2, "no score to learn"),
        ("x0", PATHS[0], 3, "one time a row"),
    ],
)
def test_what_cannot_be_learnt_is_refused(name, path, t, message):
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match=message):
        loss(name, lambda x, t: x, path, torch.full((t,), 0.5), x, x, x)
