"""The Brownian bridge's step: the published one, its laws on Gaussian pairs, the one loop."""

import math

import pytest
import torch
from fields import FLOAT64

from flowsearch.samplers.paths.diffusion import Diffusion
from flowsearch.samplers.paths.interpolant import VE
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import uniform
from flowsearch.samplers.paths.two_sided import two_sided
from flowsearch.samplers.stepping.integrate import advance, integrate, row
from flowsearch.samplers.stepping.transition import BRIDGES, ODE, Transition, step
from flowsearch.samplers.stepping.two_ends import TwoEnds
from flowsearch.samplers.study.mixture_bridge import (
    Mixture,
    MixtureBridge,
    schroedinger_covariance,
)

STEPS = [(1.0, 0.9), (0.8, 0.35), (0.2, 0.01), (0.05, 0.0)]
LAW = noise_law("ode")
ONE = torch.ones(1, dtype=FLOAT64)


def normal(mean, std):
    at = torch.full((1, 1), mean, dtype=FLOAT64)
    return Mixture(ONE, at, torch.full_like(at, std * std))


def tensors(seed=0, dtype=FLOAT64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 4, 3, generator=generator, dtype=dtype)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("t", "to"), STEPS)
def test_the_step_is_the_published_one(t, to, scale):
    """x' = (t'/t) x + (1 - t'/t) D + s sqrt(t' (t - t') / t) z, the host's Euler plus noise."""
    x, denoised, z = tensors()
    found = step(x, denoised, Transition(LAW, "bridge", noise_scale=scale).coefficients(t, to), z)
    share = to / t
    expected = share * x + (1.0 - share) * denoised + scale * math.sqrt(share * (t - to)) * z
    assert torch.allclose(found, expected, rtol=1e-13, atol=1e-13)


def test_without_noise_it_is_the_hosts_euler_to_the_bit():
    x, denoised, z = tensors(dtype=torch.float32)
    still = Transition(LAW, "bridge", noise_scale=0.0).coefficients(0.8, 0.35)
    assert torch.equal(
        step(x, denoised, still, z), step(x, denoised, ODE.coefficients(0.8, 0.35), None)
    )


def test_a_network_that_gives_the_hosts_velocity_is_read_as_the_host_does():
    """v = (x - x0) / t, so D = x - t v; ViBT's scheduler adds v (t' - t) and its noise."""
    x, v, z = tensors()
    t, to = 0.7, 0.4
    published = x + v * (to - t) + math.sqrt((t - to) * to / t) * z
    found = step(x, x - t * v, Transition(LAW, "bridge").coefficients(t, to), z)
    assert torch.allclose(found, published, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("method", BRIDGES)
def test_the_last_step_is_the_prediction_without_noise(method):
    x, denoised, _ = tensors()
    last = Transition(LAW, method).coefficients(0.3, 0.0)
    assert not last.needs_noise
    assert torch.equal(step(x, denoised, last, None), denoised)


@pytest.mark.parametrize("scale", [0.5, 1.0])
@pytest.mark.parametrize(("t", "to"), [(0.9, 0.6), (0.3, 0.1)])
def test_it_is_the_general_step_with_the_bridges_own_noise(t, to, scale):
    """There the weight of the second end is 0, in the one step for which that is so."""
    path = two_sided("linear", "brownian", scale)
    general = TwoEnds(path, Diffusion("constant", 0.5 * scale**2)).coefficients(t, to)
    own = Transition(LAW, "bridge", noise_scale=scale).coefficients(t, to)
    assert general.past[0] == pytest.approx(0.0, abs=1e-13)
    assert general.q == pytest.approx(own.q, rel=1e-12)
    x, denoised, z = tensors()
    assert torch.allclose(
        step(x, denoised, general, z, [x]), step(x, denoised, own, z), rtol=1e-12, atol=1e-12
    )
    other = TwoEnds(path, Diffusion("constant", scale**2)).coefficients(t, to)
    assert abs(other.past[0]) > 0.01


@pytest.mark.parametrize(("t", "to"), [(0.0, 0.4), (0.2, 0.7), (0.5, 0.9), (0.6, 1.0)])
def test_upward_the_bridge_is_pinned_at_the_source(t, to):
    """Mean and variance of a Brownian bridge from (t, x) to (1, x1)."""
    scale = 0.8
    x, source, z = tensors()
    upward = Transition(LAW, "bridge", noise_scale=scale).coefficients(t, to)
    found = advance(lambda *_: x, x, x, upward, z, [source])
    share = (to - t) / (1.0 - t)
    expected = (
        x + share * (source - x) + scale * math.sqrt((to - t) * (1.0 - share)) * z * (to < 1.0)
    )
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_upward_it_asks_for_the_source():
    x = torch.zeros(1, 1)
    bridge = Transition(LAW, "bridge")
    for method in BRIDGES:  # an earlier prediction must not be taken for it
        turning, transition = [0.5, 0.2, 0.6], Transition(LAW, method)
        with pytest.raises(ValueError, match="goes by its other end as well"):
            integrate(lambda x, t: x, x, turning, transition, lambda _: x)
    out = integrate(
        lambda x, t: x,
        x,
        [0.2, 0.6, 1.0],
        bridge,
        lambda _: x,
        other_end=lambda x, t: torch.full_like(x, 5.0),
    )
    assert out.item() == pytest.approx(5.0, abs=1e-6)


def carried(bridge, transition, times, mean, std):
    """Return mean and std at the end and the covariance with the start, propagated exactly."""
    x = torch.full((len(times) + 1, 1), mean, dtype=FLOAT64)
    x[1] += std

    def noise(i):
        z = torch.zeros_like(x)
        z[2 + i] = 1.0
        return z

    end = integrate(lambda x, t: bridge.fields(x, t).x0, x, times, transition, noise)
    return float(end[0]), float((end[1:] - end[0]).norm()), float(end[1] - end[0]) * std


@pytest.mark.parametrize("method", BRIDGES)
def test_the_schroedinger_coupling_of_a_gaussian_pair_is_kept(method):
    """Of the bridge that is Markov, the generated pairs have the covariance in closed form."""
    scale, v, w = 0.9, 0.6, 1.3
    covariance = schroedinger_covariance(v * v, w * w, 0.5 * scale**2)
    path = two_sided("linear", "brownian", scale)
    bridge = MixtureBridge(normal(1.0, v), normal(-0.5, w), path, None, covariance)
    way = [0.5 + 0.5 * math.cos(math.pi * i / 100) for i in range(100)] + [0.0]
    found = carried(bridge, Transition(LAW, method, noise_scale=scale), way, -0.5, w)
    assert found == pytest.approx((1.0, v, covariance), abs=0.015)
    mutant = Transition(LAW, method, noise_scale=scale * math.sqrt(2.0))
    assert carried(bridge, mutant, way, -0.5, w)[1] > v + 0.1


def moments(transition, steps):
    """Mean and std at t = .1 of an uncoupled Gaussian pair."""
    bridge = MixtureBridge(normal(1.0, 0.6), normal(-0.5, 1.3), two_sided("linear", "brownian"))
    times = [0.9 - 0.8 * i / steps for i in range(steps + 1)]
    start = math.sqrt((0.1 * 0.6) ** 2 + (0.9 * 1.3) ** 2 + 0.09)
    return carried(bridge, transition, times, 0.1 * 1.0 - 0.9 * 0.5, start)[:2]


@pytest.mark.parametrize("method", BRIDGES)
def test_errors_fall_with_the_declared_order(method):
    right = (0.9 * 1.0 - 0.1 * 0.5, math.sqrt((0.9 * 0.6) ** 2 + (0.1 * 1.3) ** 2 + 0.09))

    def gap(steps):
        return math.dist(moments(Transition(LAW, method), steps), right)

    slope = math.log2(gap(60) / gap(120))
    order = BRIDGES[method].order
    assert order - 0.25 < slope < order + 0.5


def test_a_second_order_without_its_corrector_is_seen(monkeypatch):
    right = moments(Transition(LAW, "bridge_second_order"), 400)

    class Uncorrected:
        memory, guidance = 1, None

        def coefficients(self, t, to, past=()):
            return Transition(LAW, "bridge_second_order").coefficients(t, to, past[:1])

    with_one = moments(Transition(LAW, "bridge_second_order"), 20)
    assert math.dist(with_one, right) < 0.5 * math.dist(moments(Uncorrected(), 20), right)


def test_one_prediction_makes_it_the_first_order_step():
    two, one = (Transition(LAW, name).coefficients(0.6, 0.4) for name in reversed(BRIDGES))
    assert two == one
    up = Transition(LAW, "bridge_second_order").coefficients(0.6, 0.8, (0.5,))
    assert up == Transition(LAW, "bridge").coefficients(0.6, 0.8)


def test_an_end_that_is_linear_in_time_is_followed_exactly():
    """dx/dt = (x - D) / t with D = t has the solution t log(1 / t) + c t."""
    still = Transition(LAW, "bridge_second_order", noise_scale=0.0)
    times = [0.9, 0.8, 0.75, 0.4, 0.2]
    x = torch.full((1, 1), 0.9 * (math.log(1 / 0.9) + 2.0), dtype=FLOAT64)
    model = lambda x, t: torch.full_like(x, t)  # noqa: E731
    exact = integrate(model, x, times, still, lambda _: x)
    # the first step had one prediction only, and was redone; the last was extrapolated
    assert exact.item() == pytest.approx(0.2 * (math.log(5.0) + 2.0), rel=1e-12)


@pytest.mark.parametrize("general", [False, True])
def test_an_extrapolated_last_step_ends_at_the_linear_end(general):
    """D = 3 + 2 t has 3 at t = 0; the last prediction is that of the step before."""

    def model(x, t):
        return torch.full_like(x, 3.0 + 2.0 * t)

    def ended(last):
        own = Transition(LAW, "bridge_second_order", last=last)
        two = TwoEnds(two_sided("linear", "brownian"), Diffusion("constant", 0.5), True, last)
        x = torch.ones(1, 1, dtype=FLOAT64)
        way = [0.6, 0.3, 0.1, 0.0]
        chosen = two if general else own
        return integrate(model, x, way, chosen, lambda _: x, other_end=lambda x, t: x).item()

    found = [ended("denoised"), ended("extrapolated")]
    assert found == pytest.approx([3.2, 3.0], rel=1e-12)


def test_json_keeps_the_scale_and_old_transitions_have_none():
    bridge = Transition(LAW, "bridge", noise_scale=0.005)
    assert Transition.from_json(bridge.to_json()) == bridge
    assert "noise_scale" not in ODE.to_json()
    assert bridge.is_bridge
    assert not ODE.is_bridge


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "bridge", "noise_scale": -1.0}, "between 0"),
        ({"method": "bridge", "noise_scale": math.nan}, "between 0"),
        ({"method": "exact", "noise_scale": 0.5}, "noise_scale 0.5 is of bridges"),
        ({"law": noise_law("sit_sigma"), "method": "bridge"}, "brings its own noise"),
        ({"method": "bridge", "last": "extrapolated"}, "needs the method second_order"),
        ({"method": "bridges"}, "bridge, bridge_second_order"),
    ],
)
def test_settings_without_meaning_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Transition(**{"law": LAW, **given})


def test_exploding_coordinates_are_refused():
    with pytest.raises(ValueError, match="no x0"):
        row(Transition(LAW, "bridge"), 2.0, 1.0, (), VE)


def test_half_precision_states_keep_their_type():
    x = torch.ones(1, 2, dtype=torch.float16)
    out = integrate(
        lambda x, t: 0.5 * x, x, uniform(3), Transition(LAW, "bridge"), lambda _: torch.ones(1, 2)
    )
    assert out.dtype == torch.float16
