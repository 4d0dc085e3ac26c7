"""Likelihood estimates against closed forms."""

import math

import pytest
import torch
from fields import FLOAT64, Mixture, gaussian

from flowsearch.samplers.paths.quadrature import gauss_legendre
from flowsearch.samplers.study import likelihood as lk

MIXTURE = Mixture((0.3, 0.5, 0.2), (-1.5, 0.5, 2.0), (0.2, 0.3, 0.1))
LAWS = {f"std {s}": gaussian(0.5, s) for s in (0.02, 0.1, 0.5, 1.0, 2.0)} | {"mixture": MIXTURE}
EACH = pytest.mark.parametrize("data", LAWS.values(), ids=LAWS)
POINTS = torch.tensor([-2.0, -1.5, -0.5, 0.2, 0.5, 1.2, 2.0], dtype=FLOAT64)
REPEATS = 200
RULE = lk.midpoint(24, -8.0, 13.0)


def nats_of(data, x):
    """-log p, elementwise."""
    weights, means, stds = data.components(0.0)
    z = (x.unsqueeze(-1) - means) / stds
    return -torch.logsumexp(weights.log() - stds.log() - 0.5 * z * z, -1) + 0.5 * math.log(
        2 * math.pi
    )


def average(data, x, rule, points=160):
    """forward() with the exact average over noises: a row each, weighted into the prediction.

    The noises are Gauss-Hermite nodes, found as eigenvalues of the Jacobi matrix; E f(eps) is then
    a weighted sum, which the estimate's parts are put together from.
    """
    off = torch.arange(1, points, dtype=FLOAT64).sqrt()
    eps, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    weights = vectors[0] ** 2
    total = torch.zeros_like(x)
    constant, factors, _ = lk._weights(rule)
    for node, factor in zip(rule, factors, strict=True):
        sigma = lk.sigma_at(node.log_snr)
        states = (1 - sigma) * x[:, None] + sigma * eps
        error = (x[:, None] - data.denoise(states, sigma)) ** 2
        total += factor * (error * weights).sum(1)
    return 0.5 * (math.log(2 * math.pi * math.e) - constant) + 0.5 * total


@EACH
def test_with_exact_averages_the_identity_gives_the_density(data):
    centre, std = data.moments()
    x = centre + std * torch.linspace(-2, 2, 9, dtype=FLOAT64)
    found = average(data, x, lk.midpoint(64, -10.0, 18.0))
    torch.testing.assert_close(found, nats_of(data, x), atol=2e-4, rtol=0)


@pytest.mark.parametrize(
    ("nodes", "printed"), [(8, 0.179), (16, 0.021), (32, 0.0)], ids=["8", "16", "32"]
)
def test_gauss_legendre_in_half_log_snr_has_the_printed_accuracy(nodes, printed):
    """Gauss-Legendre on log(alpha / sigma) in [-4, 6]; the points of the printed figures are not
    known, so these are as near as other seven points come. The midpoint rule is nearer."""
    rule = [lk.Node(2.0 + 10.0 * x, 10.0 * w) for x, w in reversed(gauss_legendre(nodes))]
    truth = nats_of(MIXTURE, POINTS)

    def error(rule):
        return float((average(MIXTURE, POINTS, rule) - truth).abs().mean())

    assert error(rule) == pytest.approx(printed, abs=0.01)
    assert error(lk.midpoint(nodes, -8.0, 12.0)) < max(0.6 * error(rule), 1e-4)


def drawn(shape, seed=0):
    """Noise that never repeats."""
    generator = torch.Generator().manual_seed(seed)
    return lambda node, noise: torch.randn(shape, generator=generator, dtype=FLOAT64)


def repeated(data, dimensions=16, seed=1):
    """One picture, REPEATS rows of it, and its -log p."""
    x = data.draw(dimensions, 1e-12, torch.Generator().manual_seed(seed)).T.reshape(
        1, 1, dimensions
    )
    return x.expand(REPEATS, 1, dimensions), float(nats_of(data, x).sum())


def misses(found, truth):
    """How far the mean over repeats lies from the truth, in its standard errors."""
    return float((found.nats.mean() - truth).abs() / found.nats.std() * len(found.nats) ** 0.5)


@EACH
@pytest.mark.parametrize("noises", [2, 4])
def test_forward_is_unbiased_and_its_error_honest(data, noises):
    x, truth = repeated(data)
    found = lk.forward(data.denoise, x, RULE, drawn(x.shape), noises)
    assert misses(found, truth) < 4.0
    spread = float(found.nats.std())
    assert float(found.error.square().mean().sqrt()) == pytest.approx(spread, rel=0.25)
    covered = float(((found.nats - truth).abs() < 1.96 * found.error).double().mean())
    assert 0.8 < covered < 0.99  # few noises: the normal's 95 % is not reached
    assert found.evaluations == 2 * 24 * noises


@pytest.mark.parametrize("dimensions", [1, 3])
def test_few_dimensions_have_no_wild_control(dimensions):
    x, truth = repeated(LAWS["std 0.5"], dimensions)
    found = lk.forward(LAWS["std 0.5"].denoise, x, RULE, drawn(x.shape), 2)
    assert misses(found, truth) < 4.0
    assert float(found.nats.std()) < 2.0 * dimensions


def test_signs_and_control_lower_the_variance(monkeypatch):
    data = LAWS["std 0.5"]
    x, _ = repeated(data, 64)

    def variance():
        return float(lk.forward(data.denoise, x, RULE, drawn(x.shape), 4).nats.var())

    with_both = variance()
    monkeypatch.setattr(lk, "_both", lambda eps: (eps, eps))
    assert with_both < 0.5 * variance() / 2.0  # half the predictions would do
    monkeypatch.undo()
    monkeypatch.setattr(lk, "_controlled", lambda values, control: values)
    assert with_both < 0.5 * variance()


def test_a_dropped_half_is_seen():
    data = LAWS["std 0.1"]
    x, truth = repeated(data)
    found = lk.forward(data.denoise, x, RULE, drawn(x.shape), 2)
    entropy = 0.5 * x[0].numel() * math.log(2 * math.pi * math.e)
    halved = lk.Likelihood(entropy + 2 * (found.nats - entropy), *list(vars(found).values())[1:])
    assert misses(halved, truth) > 4.0


@pytest.mark.parametrize(
    "rule",
    [
        [lk.Node(n.log_snr, n.weight * math.exp(-n.log_snr)) for n in RULE],
        [lk.Node(n.log_snr, 0.5 * n.weight) for n in RULE],
    ],
    ids=["measure d(log g) for dg", "log rho for log g"],
)
def test_a_wrong_measure_is_seen(rule):
    data = LAWS["std 0.1"]
    x, truth = repeated(data)
    assert misses(lk.forward(data.denoise, x, rule, drawn(x.shape), 2), truth) > 4.0


def test_upper_tail_repairs_a_range_that_ends_early():
    data = LAWS["std 0.1"]
    x, truth = repeated(data)
    found = lk.forward(data.denoise, x, lk.midpoint(40, -8.0, 7.0), drawn(x.shape), 4)
    missed = float((found.nats - found.beyond).mean()) - truth
    assert abs(missed) > 2.0 * abs(float(found.nats.mean()) - truth)
    rounded = found.residuals.mean(1)
    assert float(rounded[0]) > float(rounded[-1]) > 0.0


def test_map_is_the_sum_and_shows_where_surprise_lies():
    data = LAWS["std 0.5"]
    x = torch.full((2, 3, 4, 5), 0.5, dtype=FLOAT64)
    x[1, :, 2, 3] = 3.0
    for method in (lk.forward, lk.ode):
        found = method(data.denoise, x, RULE, drawn(x.shape[1:]), 2)
        assert found.map.shape == x.shape
        torch.testing.assert_close(found.map.flatten(1).sum(1), found.nats)
        place = found.map[1].sum(0)
        assert place.argmax() == 2 * 5 + 3
        truth = nats_of(data, x[1]).sum(0)
        assert float(place[2, 3]) == pytest.approx(float(truth[2, 3]), rel=0.2)


@pytest.mark.parametrize("method", [lk.forward, lk.ode])
def test_noise_scale_is_part_of_the_path(method):
    """A model whose noise is n times as strong is the same model at other sigmas."""
    data, n = LAWS["std 0.5"], 8.0
    x, truth = repeated(data)

    def scaled(state, sigma):
        c = (1 - sigma) + sigma * n
        return data.denoise(state / c, sigma * n / c)

    found = method(scaled, x, RULE, drawn(x.shape), 2, n)
    assert float(found.nats.mean()) == pytest.approx(truth, abs=1.0)
    wrong = method(scaled, x, RULE, drawn(x.shape), 2, 1.0)
    assert abs(float(wrong.nats.mean()) - truth) > 5.0


@pytest.mark.parametrize("name", ["std 0.1", "std 1.0", "mixture"])
def test_ode_converges_with_second_order(name):
    data = LAWS[name]
    x, truth = repeated(data)
    x = x[:1]

    def error(steps):
        rule = lk.midpoint(steps, -12.0, 16.0)
        found = lk.ode(data.denoise, x, rule, drawn(x.shape), 2, width=1e-4)
        return abs(float(found.nats[0]) - truth) / x.numel()

    coarse, fine = error(50), error(200)
    assert fine < 5e-3
    assert coarse / fine > 8.0 or fine < 1e-4


class Mixing:
    """A Gaussian whose dimensions depend on each other, so that the probe has an error."""

    def __init__(self, dimensions):
        generator = torch.Generator().manual_seed(3)
        root = torch.randn(dimensions, dimensions, generator=generator, dtype=FLOAT64)
        self.covariance = root @ root.T / dimensions + 0.1 * torch.eye(dimensions, dtype=FLOAT64)

    def denoise(self, x, sigma):
        a = 1 - sigma
        eye = torch.eye(len(self.covariance), dtype=FLOAT64)
        gain = a * self.covariance @ torch.linalg.inv(a * a * self.covariance + sigma**2 * eye)
        return x @ gain.T

    def nats(self, x):
        exponent = 0.5 * x @ torch.linalg.inv(self.covariance) @ x
        return float(exponent + 0.5 * torch.logdet(2 * math.pi * self.covariance))


@pytest.mark.parametrize("method", [lk.forward, lk.ode])
def test_dependent_dimensions(method):
    data = Mixing(16)
    x = torch.randn(16, generator=torch.Generator().manual_seed(4), dtype=FLOAT64)
    rows = x.expand(REPEATS, 16)[:, None]
    found = method(data.denoise, rows, lk.midpoint(60, -9.0, 12.0), drawn(rows.shape), 4)
    bias = abs(float(found.nats.mean()) - data.nats(x))
    assert bias < 4.0 * float(found.nats.std()) / REPEATS**0.5 + 0.02
    ratio = float(found.error.square().mean().sqrt() / found.nats.std())
    assert 0.85 < ratio < 1.15


def test_ode_keeps_its_probe():
    """Signs drawn anew at each step would make equal calls differ and are never asked for."""
    asked = []

    def draw(node, noise):
        asked.append((node, noise))
        return torch.randn(4, generator=torch.Generator().manual_seed(noise), dtype=FLOAT64)

    lk.ode(MIXTURE.denoise, torch.zeros(2, 1, 4, dtype=FLOAT64), RULE, draw, 3)
    assert asked == [(0, 0), (0, 1), (0, 2)]


def test_bits_per_dimension_of_uniform_levels():
    """256 equally likely levels are 8 bits: the density 1 / 2 on [-1, 1], in bins of 2 / 256."""
    nats = torch.tensor([10 * math.log(2.0)])
    assert float(lk.bits_per_dimension(nats, 10, 2 / 256)[0]) == pytest.approx(8.0)
    assert float(lk.bits_per_dimension(torch.zeros(1), 7, 2 / 255)[0]) == pytest.approx(
        math.log2(127.5)
    )


@pytest.mark.parametrize("noise_scale", [1.0, 8.0])
def test_sigma_and_log_snr_are_inverses(noise_scale):
    for value in (-12.0, 0.0, 3.0, 20.0):
        sigma = lk.sigma_at(value, noise_scale)
        assert lk.log_snr_of(sigma, noise_scale) == pytest.approx(value)
        assert ((1 - sigma) / (sigma * noise_scale)) ** 2 == pytest.approx(math.exp(value))


def test_single_precision_keeps_the_figure():
    data = LAWS["std 0.5"]
    x, truth = repeated(data)
    single = x.float()
    found = lk.forward(data.denoise, single, RULE, drawn(x.shape), 2)
    assert found.map.dtype == torch.float32
    assert float(found.nats.mean()) == pytest.approx(truth, abs=1.0)


@pytest.mark.parametrize("method", [lk.forward, lk.ode])
def test_what_cannot_be_estimated_is_refused(method):
    x = torch.zeros(1, 1, 4)
    with pytest.raises(ValueError, match="two"):
        method(MIXTURE.denoise, x, RULE, drawn(x.shape), 1)
    with pytest.raises(ValueError, match="at least one"):
        method(MIXTURE.denoise, x, [], drawn(x.shape), 2)
    with pytest.raises(ValueError, match="lower end below"):
        lk.midpoint(8, 3.0, 3.0)
    with pytest.raises(ValueError, match="at least one node"):
        lk.midpoint(0, 1.0, 3.0)
