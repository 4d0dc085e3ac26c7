"""Conversions between x0, eps, v and score, and between interpolants."""

import itertools

import pytest
import torch
from fields import gaussian

from flowsearch.samplers.paths.interpolant import INTERPOLANTS, LINEAR, TRIGONOMETRIC, VE, VP
from flowsearch.samplers.paths.parametrisation import KINDS, convert, convert_prediction

ALL = pytest.mark.parametrize("path", INTERPOLANTS.values(), ids=INTERPOLANTS)
PAIRS = list(itertools.product(KINDS, KINDS))


def case(path, shape=(4, 3, 5, 2)):
    """Return times, the state and all four quantities, from x0 and eps; every row its own time."""
    generator = torch.Generator().manual_seed(3)
    x0, eps = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    r = torch.linspace(0.15, 0.9, shape[0], dtype=torch.float64)
    alpha, sigma, alpha_dot, sigma_dot = (
        f(r).reshape(-1, *[1] * (len(shape) - 1))
        for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot)
    )
    quantities = {
        "x0": x0,
        "eps": eps,
        "v": alpha_dot * x0 + sigma_dot * eps,
        "score": -eps / sigma,
    }
    return r, alpha * x0 + sigma * eps, quantities


@ALL
@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("shape", [(4, 3, 5, 2), (3, 3, 3), (2, 4, 3, 2, 2)], ids=str)
def test_every_pair_gives_the_truth(path, source, target, shape):
    """No round trip: two wrong formulas can cancel in one. Broadcasting slips show at B = C = S."""
    r, x, truth = case(path, shape)
    found = convert_prediction(truth[source], x, r, source, target, path)
    torch.testing.assert_close(found, truth[target], rtol=1e-10, atol=1e-11)


def test_gaussian_score_is_the_gradient_of_the_log_density():
    data, sigma = gaussian(0.5, 0.3), 0.4
    x = torch.linspace(-1, 2, 7, dtype=torch.float64).reshape(7, 1).requires_grad_()
    _, centre, spread = data.components(sigma)
    log_p = (-0.5 * ((x - centre) / spread) ** 2).sum()
    (score,) = torch.autograd.grad(log_p, x)
    r = torch.full((7,), sigma, dtype=torch.float64)
    denoised = data.denoise(x.detach(), sigma)
    torch.testing.assert_close(convert_prediction(denoised, x.detach(), r, "x0", "score"), score)


@ALL
def test_ends_with_an_answer(path):
    r, x = torch.tensor([path.r_data]), torch.randn(1, 2, dtype=torch.float64)
    value = torch.randn(1, 2, dtype=torch.float64)
    assert torch.equal(convert_prediction(value, x, r, "eps", "x0", path), x)
    assert torch.equal(convert_prediction(value, x, r, "score", "x0", path), x)
    noise = torch.tensor([path.r_noise])
    found = convert_prediction(value, x, noise, "x0", "v", path)
    back = convert_prediction(found, x, noise, "v", "x0", path)
    assert bool(found.isfinite().all())
    torch.testing.assert_close(back, value, rtol=1e-6, atol=1e-6)


def test_linear_velocity_gives_all_but_the_score_at_both_ends():
    x, v = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    r = torch.tensor([0.0, 1.0])
    x0 = convert_prediction(v, x, r, "v", "x0")
    eps = convert_prediction(v, x, r, "v", "eps")
    assert torch.equal(x0, torch.stack([x[0], x[1] - v[1]]))
    assert torch.equal(eps, torch.stack([v[0] + x[0], x[1]]))


@pytest.mark.parametrize(
    ("path", "r", "source", "target", "reason"),
    [
        (LINEAR, 0.0, "x0", "eps", "sigma is 0"),
        (LINEAR, 0.0, "v", "score", "sigma is 0"),
        (LINEAR, 1.0, "eps", "x0", "alpha is 0"),
        (TRIGONOMETRIC, 1.0, "score", "v", "alpha is 0"),
        (VP, 0.0, "v", "x0", "sigma_dot is 0 or infinite"),
    ],
)
def test_ends_without_an_answer_are_refused(path, r, source, target, reason):
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match=rf"{target} cannot be had from {source}.*{reason}"):
        convert_prediction(x, x, torch.tensor([0.5, r]), source, target, path)


def test_illegal_input_is_refused():
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"unknown quantity 'noise'.*x0, eps, v, score"):
        convert_prediction(x, x, torch.ones(2) / 2, "noise", "x0")
    with pytest.raises(ValueError, match=r"times have shape \(3,\).*\(2,\)"):
        convert_prediction(x, x, torch.ones(3) / 2, "v", "x0")
    with pytest.raises(ValueError, match=r"\(1, 3\).*\(2, 3\)"):
        convert_prediction(x[:1], x, torch.ones(2) / 2, "v", "x0")
    with pytest.raises(ValueError, match="one time per row"):
        convert(x, torch.tensor(0.5), LINEAR, VP)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype):
    x = torch.ones(2, 3, dtype=dtype)
    r = torch.tensor([0.2, 0.6])
    assert convert_prediction(x, x, r, "v", "score").dtype == dtype
    moved, r_moved = convert(x, r, LINEAR, VP)
    assert (moved.dtype, r_moved.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize(
    ("source", "target"), list(itertools.permutations([LINEAR, VP, TRIGONOMETRIC, VE], 2))
)
def test_conversion_keeps_data_and_noise(source, target):
    r, x, truth = case(source)
    moved, r_moved = convert(x, r, source, target)
    for kind in ("x0", "eps"):
        other = "eps" if kind == "x0" else "x0"
        found = convert_prediction(truth[other], moved, r_moved, other, kind, target)
        torch.testing.assert_close(found, truth[kind], rtol=1e-9, atol=1e-9)
    back, r_back = convert(moved, r_moved, target, source)
    torch.testing.assert_close((back, r_back), (x, r), rtol=1e-10, atol=1e-12)


def test_conversions_compose():
    r, x, _ = case(LINEAR)
    direct = convert(x, r, LINEAR, TRIGONOMETRIC)
    via_vp = convert(*convert(x, r, LINEAR, VP), VP, TRIGONOMETRIC)
    torch.testing.assert_close(direct, via_vp, rtol=1e-10, atol=1e-12)
