"""The exact bridge between mixtures: its density, its fields, its draws."""

import math

import pytest
import torch
from fields import FLOAT64

from flowsearch.samplers.paths.two_sided import two_sided
from flowsearch.samplers.study.mixture_bridge import (
    Mixture,
    MixtureBridge,
    schroedinger_covariance,
)

COUPLING = torch.tensor([[0.3, 0.1], [0.05, 0.55]], dtype=FLOAT64)


def bridge_of(gamma="brownian", covariance=0.1):
    def tensor(values):
        return torch.tensor(values, dtype=FLOAT64)

    target = Mixture(COUPLING.sum(1), tensor([[-1.0, 0.0], [1.0, 0.5]]), tensor([[0.2, 0.4]] * 2))
    source = Mixture(COUPLING.sum(0), tensor([[0.0, 2.0], [0.5, -1.0]]), tensor([[0.3, 0.6]] * 2))
    return MixtureBridge(target, source, two_sided("linear", gamma), COUPLING, covariance)


@pytest.mark.parametrize("gamma", ["brownian", "sin_squared", "none"])
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_the_density_moves_along_the_velocity_and_has_the_score(gamma, t):
    """d rho / dt + div (b rho) = 0, by differences in t; score by autograd."""
    bridge = bridge_of(gamma)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=FLOAT64)
    x.requires_grad_(True)
    log_p = bridge.log_density(x, t)
    score = torch.autograd.grad(log_p.sum(), x)[0]
    fields = bridge.fields(x, t)
    assert torch.allclose(fields.score, score, atol=1e-10)
    if 0.0 < t < 1.0:
        b = fields.velocity
        slopes = [torch.autograd.grad(b[:, i].sum(), x, retain_graph=True)[0] for i in (0, 1)]
        divergence = slopes[0][:, 0] + slopes[1][:, 1]
        h = 1e-5
        change = (bridge.log_density(x, t + h) - bridge.log_density(x, t - h)) / (2.0 * h)
        assert torch.allclose(change, -divergence - (b * score).sum(1), atol=1e-7)
        parts = bridge.path
        whole = parts.alpha(t) * fields.x0 + parts.beta(t) * fields.x1
        assert torch.allclose(whole + parts.gamma(t) * fields.noise, x)


def test_draws_have_the_coupling_and_the_covariance():
    bridge = bridge_of()
    x0, x1 = bridge.draw(40_000, torch.Generator().manual_seed(0))
    centred = torch.cat([x0, x1], 1)
    means, other = bridge.target.means, bridge.source.means
    mixed = (COUPLING @ other).T @ means - torch.outer(
        bridge.source.weights @ other, bridge.target.weights @ means
    )
    found = torch.cov(centred.T)[2:, :2]
    assert torch.allclose(found, mixed + 0.1 * torch.eye(2, dtype=FLOAT64), atol=0.03)


def test_the_distribution_function_is_that_of_draws_along_a_direction():
    target = bridge_of().target
    x, _ = target.draw(40_000, torch.Generator().manual_seed(0))
    direction = torch.tensor([0.6, 0.8], dtype=FLOAT64)
    at = torch.tensor([-0.5, 0.4, 1.2], dtype=FLOAT64)
    share = ((x @ direction).unsqueeze(-1) <= at).double().mean(0)
    assert torch.allclose(target.cdf(at, direction), share, atol=0.012)


def test_the_schroedinger_covariance_has_its_limits():
    assert schroedinger_covariance(0.36, 1.69, 0.0) == pytest.approx(0.6 * 1.3)
    assert schroedinger_covariance(0.36, 1.69, 1e6) == pytest.approx(0.0, abs=1e-6)
    assert schroedinger_covariance(1.0, 1.0, 0.5) == pytest.approx(math.sqrt(1.25) - 0.5)


def test_weights_and_shapes_that_are_no_mixture_are_refused():
    one = torch.ones(1, 2)
    with pytest.raises(ValueError, match="add to 1"):
        Mixture(torch.tensor([0.5]), one, one)
    with pytest.raises(ValueError, match="has weights"):
        Mixture(torch.ones(2), one, one)
