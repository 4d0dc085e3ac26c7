"""Predictions extrapolated between sigmas: exact for polynomials in g, for every law, both ways."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from fields import FLOAT64

from flowsearch.samplers.paths.interpolant import VE
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.extrapolation import (
    SCALE,
    at_data,
    interpolation,
    level,
    prediction,
    run_of,
)
from flowsearch.samplers.stepping.integrate import integrate, row
from flowsearch.samplers.stepping.transition import METHODS, Transition

LAWS = {
    "ode": noise_law("ode"),
    "half": noise_law("constant_k", k=0.5),
    "one": noise_law("constant_k", k=1.0),
    "sit_sigma": noise_law("sit_sigma"),
    "tapered": noise_law("constant_k", k=1.0, taper=(0.5, 0.3)),
}
DOWN = [0.9, 0.7, 0.55, 0.4, 0.25, 0.1]
UP = DOWN[::-1]


def test_level_is_linear_for_gaussian_data_of_the_scale():
    """Along the ODE on N(0, SCALE^2), D = SCALE w / sqrt(1 + rho^2 / SCALE^2) with w constant."""
    for sigma in (0.05, 0.3, 0.8):
        a = 1.0 - sigma
        spread = math.hypot(a * SCALE, sigma)
        denoised = a * SCALE**2 / spread**2 * spread  # at the state of one standard deviation
        assert denoised == pytest.approx(SCALE * level(sigma))
    assert (level(0.0), level(1.0)) == (1.0, 0.0)


@pytest.mark.parametrize("nodes", [[0.3], [0.3, 0.8], [0.1, 0.5, 0.9]])
def test_interpolation_is_exact_for_polynomials(nodes):
    def curve(u):
        return sum((-2.0) ** power * u**power for power in range(len(nodes)))

    weights = interpolation(nodes, 0.37)
    assert sum(weights) == pytest.approx(1.0)
    assert sum(w * curve(u) for w, u in zip(weights, nodes, strict=True)) == pytest.approx(
        curve(0.37)
    )


def quadratic(sigma):
    g = level(sigma)
    return 0.3 - 1.1 * g + 0.8 * g * g


def linear(sigma):
    return 0.3 - 1.1 * level(sigma)


def carried(transition, sigmas, curve):
    """A run on a prediction that depends on sigma alone, all noise left out."""
    x = torch.tensor([[0.7]], dtype=FLOAT64)

    def model(state, sigma):
        return torch.full_like(state, curve(sigma))

    return integrate(model, x, sigmas, transition, lambda _: torch.zeros_like(x)).item()


def fine(sigmas, count):
    """The same list with `count` steps in each of its steps."""
    out = [sigmas[0]]
    for a, b in itertools.pairwise(sigmas):
        out += [a + (b - a) * i / count for i in range(1, count + 1)]
    return out


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("sigmas", [DOWN, UP], ids=["down", "up"])
def test_a_prediction_that_is_a_polynomial_is_integrated_exactly(sigmas, law):
    """Against exact steps so small that a frozen prediction is exact too.

    The first step knows one prediction only; the second redoes it.
    """
    small = Transition(LAWS[law])
    coarse, finer = (carried(small, fine(sigmas, n), linear) for n in (150, 300))
    right = 2.0 * finer - coarse  # the error is first order
    for method in ("second_order", "heun"):
        assert abs(carried(Transition(LAWS[law], method), sigmas, linear) - right) < 2e-5
    if (law, sigmas) != ("one", UP):  # there the prediction has no weight
        assert abs(carried(small, sigmas, linear) - right) > 1e-3


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("ends", [(0.7, 0.4), (0.4, 0.7), (0.2, 0.05)])
def test_prediction_weights_are_the_integrals_of_the_lagrange_polynomials(ends, law):
    """The weights with nodes anywhere carry a quadratic exactly over one step."""
    nodes = [ends[0], 0.85, 0.95]
    values = [quadratic(s) for s in nodes]
    weights = prediction(LAWS[law], *ends, nodes)
    plain = carried(Transition(LAWS[law]), list(ends), lambda _: values[0])
    found = plain + sum(w * (v - values[0]) for w, v in zip(weights, values[1:], strict=True))
    coarse, finer = (
        carried(Transition(LAWS[law]), fine(list(ends), n), quadratic) for n in (150, 300)
    )
    assert found == pytest.approx(2.0 * finer - coarse, abs=1e-5)


def test_kinks_of_a_law_do_not_blunt_the_weights():
    """Against the midpoint rule on so many panels that kinks do not matter."""
    law, ends, nodes = noise_law("constant_k", k=1.0, taper=(0.5, 0.45)), (0.7, 0.4), [0.7, 0.8]
    low, high = (math.log(s / (1.0 - s)) for s in ends[::-1])
    count, levels = 4_000, [level(s) for s in nodes]
    total = 0.0
    for i in range(count):
        y = low + (high - low) * (i + 0.5) / count
        u = 1.0 / (1.0 + math.exp(-y))
        density = law.q(u, ends[1]) * math.exp(low - y) * (1.0 + law.k(u))
        total += density * interpolation(levels, level(u))[1]
    right = (1.0 - ends[1]) * total * (high - low) / count
    assert prediction(law, *ends, nodes)[0] == pytest.approx(right, abs=1e-7)


def test_a_law_that_gives_q_is_taken_as_a_constant_strength():
    q = 0.6
    k = -math.log(q) / (math.log(0.8 / 0.2) - math.log(0.5 / 0.5))
    nodes = [0.8, 0.9, 0.95]
    found = prediction(noise_law("fixed_q", q=q), 0.8, 0.5, nodes)
    assert found == pytest.approx(prediction(noise_law("constant_k", k=k), 0.8, 0.5, nodes))
    everything = prediction(noise_law("fixed_q", q=0.0), 0.8, 0.5, nodes)
    levels = [level(s) for s in nodes]
    assert everything == pytest.approx([0.5 * w for w in interpolation(levels, level(0.5))[1:]])


def test_pure_noise_is_a_node_like_any_other():
    for law in LAWS.values():
        weights = prediction(law, 1.0, 0.8, [1.0])
        assert weights == []
        weights = prediction(law, 0.8, 0.6, [0.8, 1.0])
        assert all(math.isfinite(w) for w in weights)
        near = prediction(law, 0.8, 0.6, [0.8, 1.0 - 1e-9])
        assert weights == pytest.approx(near, abs=1e-6)


def test_the_last_step_extrapolates_in_sigma_squared():
    sigmas = [0.1, 0.2, 0.3]
    values = [2.0 - 3.0 * s**2 + 5.0 * s**4 for s in sigmas]
    weights = at_data(sigmas)
    found = values[0] + sum(w * (v - values[0]) for w, v in zip(weights, values[1:], strict=True))
    assert found == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("ends", "past", "kept"),
    [
        ((0.5, 0.3), (0.7, 0.9), (0.7, 0.9)),
        ((0.3, 0.5), (0.2, 0.1), (0.2, 0.1)),
        ((0.3, 0.5), (0.7, 0.9), ()),
        ((0.5, 0.3), (0.4, 0.9), ()),
        ((0.5, 0.3), (0.7, 0.6), (0.7,)),
        ((0.5, 0.3), (0.5, 0.9), ()),
        ((0.3, 0.5), (0.2, 0.0), (0.2,)),
        ((0.5, 0.3), (), ()),
    ],
)
def test_only_what_leads_straight_here_is_remembered(ends, past, kept):
    assert run_of(*ends, past) == kept


def test_turning_back_forgets_what_came_before():
    turned = Transition(LAWS["half"], "second_order").coefficients(0.4, 0.6, (0.5, 0.6, 0.7))
    assert turned == Transition(LAWS["half"]).coefficients(0.4, 0.6)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "euler_maruyama"])
@pytest.mark.parametrize("law", ["ode", "half", "tapered"])
def test_variance_exploding_states_take_the_same_steps(law, method):
    """x / (1 - sigma) is carried along rho as x is along sigma."""
    transition = Transition(LAWS[law], method)
    sigmas = [0.93, 0.7, 0.55, 0.4, 0.25, 0.1, 0.0]
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(len(sigmas), 3, 2, generator=generator, dtype=FLOAT64)

    def model(x, sigma):
        return torch.sin(2.0 * x) * (1.0 - 0.5 * sigma)

    def exploding(y, rho):
        sigma = rho / (1.0 + rho)
        return model(y * (1.0 - sigma), sigma)

    x = z[-1]
    native = integrate(model, x, sigmas, transition, lambda i: z[i])
    rhos = [s / (1.0 - s) for s in sigmas]
    ours = integrate(
        exploding, x / (1.0 - sigmas[0]), rhos, transition, lambda i: z[i], coordinates=VE
    )
    assert torch.allclose(native, ours, atol=1e-10)
    past = [0.93 / 0.07, 0.7 / 0.3][::-1]
    right = row(transition, 0.55 / 0.45, 0.4 / 0.6, past, VE)
    assert right.slope == 0.0
    if right.weight_e:
        mutant = replace(right, slope=1.0)
        assert mutant != right
