"""Methods of stepping: their accuracy on exact Gaussian fields, their calls, their ends."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from fields import FLOAT64, gaussian
from propagation import MEAN, STDS, Broken, propagate, propagate_stds

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import uniform
from flowsearch.samplers.stepping.integrate import advance, integrate
from flowsearch.samplers.stepping.transition import METHODS, Transition, fixed_q

SIT = noise_law("sit_sigma")
STEPS = (5, 10, 20, 40)


def w2(transition, steps, shift=1.0):
    """W2 over the four coordinates N(.5, S^2) of the committed table."""
    ends = propagate_stds(transition, uniform(steps, shift))
    return math.hypot(*itertools.chain.from_iterable(
        (m - MEAN, d - s) for (m, d), s in zip(ends, STDS, strict=True)
    ))  # fmt: skip


TARGETS = {
    "one call, last = D": (Transition(SIT, "second_order"), (0.184, 0.059, 0.024, 0.008)),
    "one call, extrapolated": (
        Transition(SIT, "second_order", last="extrapolated"),
        (0.103, 0.039, 0.015, 0.005),
    ),
    "two calls": (Transition(SIT, "heun"), (0.097, 0.039, 0.010, 0.003)),
}


@pytest.mark.parametrize("name", TARGETS)
def test_errors_on_the_four_variances_are_within_what_was_asked(name):
    transition, bounds = TARGETS[name]
    for steps, bound in zip(STEPS, bounds, strict=True):
        assert w2(transition, steps) <= bound


# W2 of the best of the host's one-call SDE samplers at k = .25, .5, 1, measured in the host
# (benchmarks/integrators.py): dpmpp_2m_sde, dpmpp_3m_sde, er_sde, sa_solver.
HOST_BEST = {
    (1.0, 10): (0.0527, 0.0505, 0.0717),
    (1.0, 20): (0.0177, 0.0134, 0.0232),
    (3.0, 10): (0.1296, 0.1471, 0.1620),
    (3.0, 20): (0.0532, 0.0550, 0.0698),
}


@pytest.mark.parametrize(("shift", "steps"), HOST_BEST)
def test_one_setting_is_below_the_hosts_best_at_equal_strength(shift, steps):
    factor = 1.3 if shift == 1.0 else 1.0
    for k, best in zip((0.25, 0.5, 1.0), HOST_BEST[shift, steps], strict=True):
        ours = Transition(noise_law("constant_k", k=k), "second_order", last="extrapolated")
        assert w2(ours, steps, shift) * factor <= best


@pytest.mark.parametrize("law", [noise_law("ode"), SIT, noise_law("constant_k", k=1.0)])
@pytest.mark.parametrize("method", ["second_order", "heun", "exact"])
def test_errors_fall_with_the_declared_order(method, law):
    """Away from the ends: from the exact marginal at .9 to .2."""
    transition, data = Transition(law, method), gaussian(0.5, 1.0)

    def gap(steps):
        sigmas = uniform(steps, start=0.9, end=0.2)
        found = propagate(transition, sigmas, data, *data.moments(0.9))
        return math.dist(found, data.moments(0.2))

    slope = math.log2(gap(40) / gap(80))
    order = METHODS[method].order
    assert order - 0.25 < slope
    if method == "exact":
        assert slope < 1.4


def test_a_corrector_without_the_noise_of_its_step_is_seen():
    """The mutant that drops the corrector's weights of earlier predictions loses the order."""
    right = Transition(noise_law("constant_k", k=1.0), "second_order")

    cut = Broken(right, lambda c: replace(c, past=c.past[:1]))
    assert w2(cut, 20) > 2.0 * w2(right, 20)


@pytest.mark.parametrize("std", [0.02, 2.0])
@pytest.mark.parametrize("law", ["ode", "sit_sigma", "constant_k", "sit_constant"])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "euler_maruyama"])
def test_both_ends_are_finite_for_data_of_any_scale(method, law, std):
    transition = Transition(noise_law(law), method)
    for sigmas in (uniform(20), uniform(20, 3.0)):
        mean, spread = propagate(transition, sigmas, gaussian(0.5, std))
        assert abs(mean - 0.5) < 0.05 * max(1.0, std)
        assert spread < 1.1 * std  # never noisier than the data


@pytest.mark.parametrize("method", METHODS)
def test_calls_are_what_the_table_says(method):
    law = noise_law("constant_k", k=0.5)
    transition = Transition(law, method, inner_evaluations=3)
    sigmas = [0.9, 0.7, 0.4, 0.2, 0.0]
    places = []

    def model(x, sigma):
        places.append(sigma)
        return 0.5 * x

    x = torch.ones(1, 1, dtype=FLOAT64)
    integrate(model, x, sigmas, transition, lambda _: torch.zeros_like(x))
    assert len(places) == sum(1 + transition.calls(s) for s in sigmas[1:])
    expected = {"heun": 8, "glass": 4 + 2 * 3}.get(method, 4)
    assert len(places) == expected


def test_methods_state_where_they_come_from():
    for method in METHODS.values():
        assert method.source
        assert method.summary
        assert method.order in (1, 2)


def test_glass_with_one_call_is_the_exact_transition():
    for law in (SIT, noise_law("fixed_q", q=0.4)):
        one = Transition(law, "glass", inner_evaluations=1)
        for ends in ((0.9, 0.7), (1.0, 0.8), (0.3, 0.0), (0.3, 0.6)):
            assert one.coefficients(*ends) == Transition(law).coefficients(*ends)


def test_glass_without_noise_is_the_hosts_euler():
    ode = Transition(noise_law("ode"), "glass")
    assert ode.coefficients(0.9, 0.7) == Transition(noise_law("ode")).coefficients(0.9, 0.7)


@pytest.mark.parametrize("q", [0.0, 0.4, 0.85])
def test_glass_draws_from_the_posterior_as_its_calls_grow(q):
    """On Gaussian data the state's spread tends to the marginal's, at first order in the calls."""
    data, sigmas = gaussian(0.5, 1.0), [0.9, 0.7]
    right = data.moments(0.7)
    gaps = []
    for calls in (1, 4, 16, 64):
        glass = Transition(fixed_q(q).law, "glass", inner_evaluations=calls)
        found = propagate(glass, sigmas, data, *data.moments(0.9))
        assert found[0] == pytest.approx(right[0], abs=1e-9)
        gaps.append(abs(found[1] - right[1]))
    assert gaps[0] > 0.01
    for coarse, fine in itertools.pairwise(gaps):
        assert fine < 0.35 * coarse
    assert gaps[-1] < 0.005


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"last": "extrapolated"}, "needs the method second_order"),
        ({"method": "heun", "last": "extrapolated"}, "needs the method second_order"),
        ({"method": "second_order", "last": "mean"}, "choose one of denoised, extrapolated"),
        ({"method": "glass", "inner_evaluations": 0}, "1 to 100"),
        ({"method": "heun", "interpolant": "vp"}, "same on every interpolant"),
    ],
)
def test_settings_without_meaning_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Transition(SIT, **given)


def test_json_keeps_every_setting():
    transition = Transition(SIT, "second_order", last="extrapolated", inner_evaluations=7)
    assert Transition.from_json(transition.to_json()) == transition
    assert Transition.from_json({"law": SIT.to_json()}) == Transition(SIT)


def test_missing_predictions_are_refused():
    row = Transition(SIT, "second_order").coefficients(0.5, 0.3, (0.7, 0.9))
    x = torch.ones(1, 1)
    with pytest.raises(ValueError, match="earlier predictions and got 0"):
        advance(lambda x, s: x, x, x, row, x)
