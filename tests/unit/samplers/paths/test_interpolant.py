"""Interpolants: derivatives, inverses, limits."""

import math
from dataclasses import replace

import pytest
import torch

from flowsearch.samplers.paths.curve import INTERPOLATIONS, Curve
from flowsearch.samplers.paths.drawn_path import interpolant_from_curves
from flowsearch.samplers.paths.interpolant import (
    INTERPOLANTS,
    LINEAR,
    TRIGONOMETRIC,
    VE,
    VP,
    kl_diffusion,
    named,
    r_from_sigma,
    scale,
    sigma_dot_linear,
    sigma_from_r,
)

ALPHA = ((0.0, 1.0), (0.3, 0.9), (0.8, 0.1), (1.0, 0.0))
SIGMA = ((0.0, 0.0), (0.25, 0.1), (0.5, 0.8), (1.0, 0.9))
DRAWN = {
    f"curve_{kind}": interpolant_from_curves(Curve(ALPHA, kind), Curve(SIGMA, kind))
    for kind in INTERPOLATIONS
}
PATHS = {**INTERPOLANTS, **DRAWN}
ALL = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)


def times(path):
    return torch.linspace(0.002, 0.998, 101, dtype=torch.float64) * path.r_noise


def slope(f, r):
    r = r.clone().requires_grad_()
    value = f(r)
    return torch.autograd.grad(value.sum(), r)[0] if value.requires_grad else torch.zeros_like(r)


def derivative_error(path):
    """Largest relative gap between the stated derivatives and autograd's."""
    r = times(path)
    gaps = [
        (stated(r) - slope(f, r)).abs() / (1.0 + slope(f, r).abs())
        for f, stated in ((path.alpha, path.alpha_dot), (path.sigma, path.sigma_dot))
    ]
    return float(torch.cat(gaps).max())


@ALL
def test_derivatives_equal_autograd(path):
    assert derivative_error(path) < 1e-12


def test_wrong_derivatives_are_seen():
    assert derivative_error(replace(VP, alpha_dot=VP.sigma_dot)) > 0.1
    wrong = replace(TRIGONOMETRIC, sigma_dot=lambda r: (2.0 / math.pi) * TRIGONOMETRIC.sigma_dot(r))
    assert derivative_error(wrong) > 0.1


@ALL
def test_floats_and_tensors_agree(path):
    for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot, path.r_from_rho):
        r = times(path)[::20]
        floats = torch.tensor([f(float(v)) for v in r], dtype=torch.float64)
        torch.testing.assert_close(f(r), floats, rtol=1e-14, atol=1e-15)


@ALL
def test_inverse_undoes_the_noise_ratio(path):
    r = times(path)
    torch.testing.assert_close(path.r_from_rho(path.sigma(r) / path.alpha(r)), r, rtol=1e-9, atol=0)
    rho = torch.logspace(-9, 9, 73, dtype=torch.float64)
    back = path.r_from_rho(rho)
    alpha = path.alpha(back)
    usable = alpha > 1e-6  # alpha loses its digits near the noise end, sigma_from_r does not matter
    torch.testing.assert_close((path.sigma(back) / alpha)[usable], rho[usable], rtol=1e-8, atol=0)


@ALL
def test_noise_ratio_rises(path):
    r = times(path)
    assert bool((torch.diff(path.sigma(r) / path.alpha(r)) > 0).all())


@ALL
def test_sigma_survives_the_round_trip(path):
    sigma = torch.tensor([0.0, 1e-12, 1e-4, 0.3, 0.5, 0.95, 0.9999, 1.0], dtype=torch.float64)
    back = sigma_from_r(path, r_from_sigma(path, sigma))
    torch.testing.assert_close(back, sigma, rtol=1e-9, atol=0)
    for s in sigma.tolist():
        assert sigma_from_r(path, r_from_sigma(path, s)) == pytest.approx(s, rel=1e-9)


@ALL
def test_data_end(path):
    assert (path.alpha(path.r_data), path.sigma(path.r_data)) == (1.0, 0.0)
    assert r_from_sigma(path, 0.0) == 0.0
    assert sigma_from_r(path, path.r_data) == 0.0
    zero = torch.zeros(2, dtype=torch.float64)
    assert torch.equal(path.alpha(zero), torch.ones_like(zero))
    assert torch.equal(sigma_from_r(path, zero), zero)


@pytest.mark.parametrize(
    ("path", "sigma"), [(LINEAR, 1.0), (TRIGONOMETRIC, 1.0), (VP, 0.99347), (VE, 80 / 81)]
)
def test_noise_end(path, sigma):
    assert sigma_from_r(path, path.r_noise) == pytest.approx(sigma, abs=5e-6)
    infinite = path in (VP, VE)
    assert r_from_sigma(path, 1.0) == (math.inf if infinite else 1.0)
    assert sigma_from_r(path, r_from_sigma(path, 1.0)) == 1.0
    assert path.alpha(path.r_noise) == 0.0 or infinite


def test_vp_sigma_dot_is_infinite_at_the_data():
    assert VP.sigma_dot(0.0) == math.inf
    assert VP.sigma_dot(torch.zeros(1)).item() == math.inf


@ALL
def test_speed_of_linear_time_equals_autograd(path):
    r = times(path)
    stated = sigma_dot_linear(path, r)
    torch.testing.assert_close(stated, slope(lambda t: sigma_from_r(path, t), r))


@ALL
def test_kl_diffusion_is_the_speed_of_the_log_noise_ratio(path):
    """eps_KL = sigma^2 d(log rho)/dr, which makes k = 1 the same on every path."""
    r = times(path)
    log_rho_dot = slope(lambda t: torch.log(path.sigma(t)) - torch.log(path.alpha(t)), r)
    torch.testing.assert_close(kl_diffusion(path, r), path.sigma(r) ** 2 * log_rho_dot)


def test_kl_diffusion_at_the_noise_end():
    assert kl_diffusion(LINEAR, 1.0) == math.inf
    assert kl_diffusion(LINEAR, 0.75) == pytest.approx(3.0)
    assert kl_diffusion(VP, 1.0) == pytest.approx(10.0)


@ALL
def test_dtype_and_shape_are_kept(path):
    r = torch.rand(2, 3, dtype=torch.float32)
    for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot, path.r_from_rho):
        assert (f(r).dtype, f(r).shape) == (torch.float32, (2, 3))
    assert scale(path, r).dtype == torch.float32


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"'gvp'.*linear, vp, trigonometric, ve"):
        named("gvp")
