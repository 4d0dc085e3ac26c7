"""Two-sided paths: their ends, their derivatives, what is drawn, what is refused."""

import math

import pytest
import torch
from fields import FLOAT64

from flowsearch.samplers.paths.curve import Curve
from flowsearch.samplers.paths.interpolant import LINEAR, TRIGONOMETRIC
from flowsearch.samplers.paths.interpolant import kl_diffusion as one_sided_kl
from flowsearch.samplers.paths.two_sided import (
    ENDS,
    GAMMAS,
    kl_diffusion,
    two_sided,
    two_sided_from_curves,
)

INSIDE = torch.linspace(0.01, 0.99, 99, dtype=FLOAT64)
EVERY = pytest.mark.parametrize(
    "path",
    [two_sided(ends, gamma, 1.5) for ends in ENDS for gamma in GAMMAS],
    ids=lambda path: path.name,
)
FALLS = Curve(((0.0, 1.0), (0.3, 0.8), (1.0, 0.0)))
RISES = Curve(((0.0, 0.0), (0.6, 0.3), (1.0, 1.0)))
HILL = Curve(((0.0, 0.0), (0.4, 0.6), (1.0, 0.0)))


@EVERY
def test_the_ends_are_the_two_densities_exactly(path):
    mirror = path.name.startswith("mirror")
    at_target = path.alpha(0.0), path.beta(0.0), path.gamma(0.0)
    at_source = path.alpha(1.0), path.beta(1.0), path.gamma(1.0)
    assert at_target == (1.0, 0.0, 0.0)
    assert at_source == ((1.0, 0.0, 0.0) if mirror else (0.0, 1.0, 0.0))


@EVERY
def test_floats_and_tensors_agree(path):
    times = torch.linspace(0.0, 1.0, 11, dtype=FLOAT64)
    for name in ("alpha", "beta", "gamma", "alpha_dot", "beta_dot", "gamma_dot", "spread"):
        function = getattr(path, name)
        one_by_one = torch.tensor([function(float(t)) for t in times], dtype=FLOAT64)
        assert torch.allclose(function(times), one_by_one, rtol=1e-13, atol=1e-13), name


def derivative(function, t):
    t = t.clone().requires_grad_(True)
    value = function(t)
    if not value.requires_grad:  # a constant
        return torch.zeros_like(t)
    return torch.autograd.grad(value.sum(), t)[0]


@EVERY
def test_derivatives_are_those_of_the_coefficients(path):
    for name in ("alpha", "beta", "gamma"):
        found = getattr(path, f"{name}_dot")(INSIDE)
        assert torch.allclose(found, derivative(getattr(path, name), INSIDE), atol=1e-12), name
    half_variance = derivative(lambda t: 0.5 * path.gamma(t) ** 2, INSIDE)
    assert torch.allclose(path.spread(INSIDE), half_variance, atol=1e-12)


def test_a_wrong_derivative_is_seen():
    path = two_sided("encoding_decoding", "sin_squared")
    assert not torch.allclose(0.5 * path.gamma_dot(INSIDE), derivative(path.gamma, INSIDE))


def test_the_brownian_gamma_is_steep_at_the_ends_and_its_spread_is_not():
    path = two_sided("linear", "brownian", 3.0)
    assert path.gamma_dot(0.0) == math.inf
    assert path.gamma_dot(1.0) == -math.inf
    assert path.spread(0.0) == 4.5
    assert path.spread(1.0) == -4.5


def test_encoding_decoding_passes_through_noise_alone():
    path = two_sided("encoding_decoding", "sin_squared")
    assert (path.alpha(0.5), path.beta(0.5), path.gamma(0.5)) == (0.0, 0.0, 1.0)
    assert path.beta(0.3) == path.alpha(0.7) == 0.0


@pytest.mark.parametrize("name", ["linear", "trigonometric"])
def test_a_path_without_noise_is_the_one_sided_interpolant(name):
    """x1 = eps: the one-sided interpolants are the special case of a normal source."""
    one, two = {"linear": LINEAR, "trigonometric": TRIGONOMETRIC}[name], two_sided(name, "none")
    for of_one, of_two in (("alpha", "alpha"), ("sigma", "beta"), ("sigma_dot", "beta_dot")):
        assert torch.equal(getattr(one, of_one)(INSIDE), getattr(two, of_two)(INSIDE))


def test_the_best_diffusion_of_the_brownian_bridge_is_its_own():
    for scale in (0.5, 1.0, 2.0):
        best = kl_diffusion(two_sided("linear", "brownian", scale), INSIDE)
        assert torch.allclose(best, torch.full_like(best, 0.5 * scale**2), atol=1e-12)


def test_the_best_diffusion_has_the_formula_of_one_sided_paths():
    """With gamma = sigma of the linear path it is eps_KL = t / (1 - t)."""
    rises = two_sided_from_curves(
        Curve(((0.0, 1.0), (1.0, 0.0))),
        Curve(((0.0, 0.0), (1.0, 1.0))),
        Curve(((0.0, 0.0), (0.9, 0.9), (1.0, 0.0)), "linear"),
    )
    below = INSIDE[INSIDE < 0.9]
    assert torch.allclose(kl_diffusion(rises, below), one_sided_kl(LINEAR, below))


def test_drawn_curves_are_the_path():
    path = two_sided_from_curves(FALLS, RISES, HILL)
    assert (path.alpha(0.3), path.beta(0.6), path.gamma(0.4)) == (0.8, 0.3, 0.6)
    for name in ("alpha", "beta", "gamma"):
        found = getattr(path, f"{name}_dot")(INSIDE)
        assert torch.allclose(found, derivative(getattr(path, name), INSIDE), atol=1e-10)
    still = two_sided_from_curves(FALLS, RISES, Curve(((0.0, 0.0), (1.0, 0.0))))
    assert path.is_noisy
    assert not still.is_noisy


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ((RISES, RISES, HILL), "alpha is 0 at t = 0, the target, and must be 1"),
        ((FALLS, FALLS, HILL), "beta is 1 at t = 0, the target, and must be 0"),
        ((FALLS, RISES, RISES), "gamma is 1 at t = 1, the source, and must be 0"),
        (
            (FALLS, RISES, Curve(((0.0, 0.0), (0.2, -0.1), (0.4, 0.3), (1.0, 0.0)))),
            "gamma is -0.1 at t = 0.2",
        ),
        ((FALLS, RISES, Curve(((0.2, 0.0), (0.4, 0.6), (1.0, 0.0)))), "level at 0 next to an end"),
    ],
)
def test_curves_that_are_no_bridge_are_refused(curves, message):
    with pytest.raises(ValueError, match=message):
        two_sided_from_curves(*curves)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ends": "vp"}, "unknown pair of ends 'vp'; choose one of: linear"),
        ({"gamma": "white"}, "unknown gamma 'white'; choose one of: brownian"),
        ({"scale": 0.0}, "above 0 and at most 100"),
        ({"scale": math.nan}, "above 0 and at most 100"),
    ],
)
def test_names_and_scales_out_of_the_tables_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        two_sided(**given)
