"""The transition: the host's Euler without noise, Bayes with k = 1, finite at both ends."""

import json
import math
from itertools import pairwise

import pytest
import torch
from fields import gaussian

from flowsearch.samplers.paths.interpolant import INTERPOLANTS, VP, r_from_sigma
from flowsearch.samplers.paths.noise_law import NOISE_LAWS, NoiseLaw, noise_law
from flowsearch.samplers.paths.sigmas import in_interpolant, rbf_reference, uniform
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import (
    ODE,
    RENOISE,
    Coefficients,
    Transition,
    fixed_q,
    step,
)

GENERATOR = torch.Generator().manual_seed(1)
FLOAT64 = torch.float64


def default(name):
    return noise_law(name, points=[(0.1, 0.0), (0.9, 1.0)] if name == "curve" else None)


def randn(*shape, dtype=FLOAT64):
    return torch.randn(shape, generator=GENERATOR, dtype=FLOAT64).to(dtype)


def host_euler(x, denoised, sigma, sigma_next):
    """The host's three lines (k-diffusion's to_d and sample_euler), on 0-dimensional tensors."""
    d = (x - denoised) / sigma[(...,) + (None,) * x.ndim]
    dt = sigma_next - sigma
    return x + d * dt


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 4, 3, 6, 6), (5, 7)], ids=str)
@pytest.mark.parametrize("law", [noise_law("ode"), noise_law("constant_k", k=0.0)], ids=str)
def test_no_noise_is_the_hosts_euler_to_the_bit(shape, law):
    sigmas = torch.tensor([*uniform(20, shift=3.0), *in_interpolant("vp", 17), *rbf_reference(10)])
    assert sigmas.dtype == torch.float32
    transition = Transition(law)
    for sigma, sigma_next in pairwise(sigmas):
        if sigma > 0.0:
            x, denoised = randn(*shape, dtype=torch.float32), randn(*shape, dtype=torch.float32)
            row = transition.coefficients(sigma.item(), sigma_next.item())
            found = step(x, denoised, row, None)
            assert float((found - host_euler(x, denoised, sigma, sigma_next)).abs().max()) == 0.0


def test_bit_equality_can_fail():
    """The same terms in another order differ in their last bits."""
    x, denoised = randn(2, 3, 32, 32, dtype=torch.float32), randn(2, 3, 32, 32, dtype=torch.float32)
    sigma, sigma_next = torch.tensor(0.7), torch.tensor(0.6)
    other = (1.0 - sigma_next) * denoised + sigma_next * ((x - (1 - sigma) * denoised) / sigma)
    assert 0.0 < float((other - host_euler(x, denoised, sigma, sigma_next)).abs().max()) < 1e-5


def grouped_otherwise(x, denoised, q, sigma, sigma_next, z):
    e = (x - (1.0 - sigma) * denoised) / sigma
    return (1.0 - sigma_next) * denoised + sigma_next * (q * e + math.sqrt(1.0 - q * q) * z)


@pytest.mark.parametrize("q", [0.0, 0.3, 0.85, 0.999999])
@pytest.mark.parametrize("ends", [(1.0, 0.6), (0.7, 0.69), (0.2, 0.8), (0.4, 0.4), (0.5, 1.0)])
def test_transition_is_its_formula(q, ends):
    x, denoised, z = randn(2, 3, 4), randn(2, 3, 4), randn(2, 3, 4)
    found = step(x, denoised, fixed_q(q).coefficients(*ends), z)
    expected = grouped_otherwise(x, denoised, q, *ends, z)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_one_step_by_hand():
    """x = .6, D = .2, sigma .5 -> .25, q = .6: e = 1, so .75 * .2 + .25 (.6 + .8 * 2) = .7."""
    x, denoised, z = (torch.tensor([[v]], dtype=FLOAT64) for v in (0.6, 0.2, 2.0))
    row = fixed_q(0.6).coefficients(0.5, 0.25)
    assert step(x, denoised, row, z).item() == pytest.approx(0.7)
    assert (row.weight_e, row.weight_z) == pytest.approx((-0.4, 0.8))


def test_unit_strength_is_the_ddpm_posterior():
    """Given x and x0 = D, x' has the normalised product p(x' | x0) p(x | x') as its law."""
    sigma, sigma_next, x, x0 = 0.7, 0.5, 0.9, -0.4
    a, a_next = 1.0 - sigma, 1.0 - sigma_next
    gain = a / a_next
    grown = sigma**2 - (gain * sigma_next) ** 2  # variance of x given x'
    variance = 1.0 / (1.0 / sigma_next**2 + gain**2 / grown)
    mean = variance * (a_next * x0 / sigma_next**2 + gain * x / grown)
    row = Transition(noise_law("constant_k", k=1.0)).coefficients(sigma, sigma_next)
    states, predictions = (
        torch.full((2, 1), x, dtype=FLOAT64),
        torch.full((2, 1), x0, dtype=FLOAT64),
    )
    z = torch.tensor([[0.0], [1.0]], dtype=FLOAT64)
    drawn = step(states, predictions, row, z).flatten()
    assert drawn[0].item() == pytest.approx(mean, rel=1e-12)
    assert (drawn[1] - drawn[0]).item() ** 2 == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("name", NOISE_LAWS)
def test_to_zero_is_the_prediction_or_the_hosts_euler(name):
    transition = Transition(default(name))
    x, denoised = randn(2, 3), randn(2, 3)
    row = transition.coefficients(0.3, 0.0)
    found = step(x, denoised, row, None)
    if row.q == 1.0:
        assert torch.equal(found, step(x, denoised, ODE.coefficients(0.3, 0.0), None))
    else:
        assert torch.equal(found, denoised)
    assert not row.needs_noise
    assert found is not denoised


def test_tapered_law_finishes_as_the_host_does():
    tapered = Transition(noise_law("constant_k", k=1.0, taper=(0.2, 0.12)))
    assert tapered.coefficients(0.1, 0.0) == ODE.coefficients(0.1, 0.0)


@pytest.mark.parametrize("transition", [ODE, RENOISE, Transition(noise_law("sit_sigma"))], ids=str)
def test_from_zero_upward_is_pure_renoising(transition):
    x, z = randn(2, 3), randn(2, 3)
    row = transition.coefficients(0.0, 0.6)
    assert (row.q, row.needs_noise) == (0.0, True)
    torch.testing.assert_close(step(x, x, row, z), 0.4 * x + 0.6 * z)
    assert torch.equal(step(x, x, transition.coefficients(0.0, 0.0), None), x)


def test_ode_runs_backward_on_a_frozen_prediction():
    x, denoised = randn(2, 3), randn(2, 3)
    down = step(x, denoised, ODE.coefficients(0.9, 0.4), None)
    up = step(down, denoised, ODE.coefficients(0.4, 0.9), None)
    torch.testing.assert_close(up, x, rtol=1e-12, atol=1e-12)


WAYS = [("exact", name) for name in NOISE_LAWS]
WAYS += [("euler_maruyama", name) for name, spec in NOISE_LAWS.items() if spec.k is not None]


@pytest.mark.parametrize("name", [n for n in NOISE_LAWS if n not in ("fixed_q", "ode")])
@pytest.mark.parametrize("path", INTERPOLANTS)
def test_euler_maruyama_tends_to_the_exact_transition(name, path):
    """For a short step both are the same SDE; the gap of each weight is of second order."""

    def gap(h):
        rows = [
            Transition(default(name), method, path if method == "euler_maruyama" else "linear")
            for method in ("euler_maruyama", "exact")
        ]
        em, exact = (row.coefficients(0.7, 0.7 - h) for row in rows)
        return max(abs(em.weight_d), abs(em.weight_e - exact.weight_e)), abs(
            em.weight_z - exact.weight_z
        )

    coarse, fine = gap(1e-2), gap(1e-3)
    assert coarse[0] < 1.2e-2
    assert coarse[1] < 2e-2
    # fresh noise is of order sqrt(h), so its gap is of order h^1.5
    assert fine[0] < coarse[0] / 50 + 1e-12
    assert fine[1] < coarse[1] / 10 + 1e-12


@pytest.mark.parametrize(("method", "name"), WAYS)
@pytest.mark.parametrize("std", [0.02, 2.0])
def test_samples_are_finite_and_bounded_at_both_ends(method, name, std):
    """float32, pure noise to 0 in 20 steps; exact transitions never add noise to the data's."""
    path = "vp" if method == "euler_maruyama" else "linear"
    data = gaussian(0.5, std)
    x = randn(4000, 1, dtype=torch.float32)
    out = integrate(
        data.denoise,
        x,
        in_interpolant(path, 20),
        Transition(default(name), method, path),
        lambda i: randn(4000, 1, dtype=torch.float32),
    )
    assert bool(out.isfinite().all())
    assert abs(float(out.mean()) - 0.5) < 0.25 * max(std, 0.2)
    if method == "exact":
        assert float(out.std()) < 1.1 * std


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("transition", [ODE, fixed_q(0.85)], ids=["ode", "q"])
def test_dtype_shape_and_input_are_kept(dtype, transition):
    x, denoised, z = (randn(2, 3, 4, dtype=dtype) for _ in range(3))
    copy = x.clone()
    for ends in ((0.8, 0.5), (0.5, 0.0)):
        row = transition.coefficients(*ends)
        out = step(x, denoised, row, z if row.needs_noise else None)
        assert (out.dtype, out.shape, out.device) == (x.dtype, x.shape, x.device)
    assert torch.equal(x, copy)


def test_half_precision_is_stepped_in_float32():
    x, denoised = randn(2, 64, dtype=torch.bfloat16), randn(2, 64, dtype=torch.bfloat16)
    row = ODE.coefficients(0.9935, 0.3)
    exact = step(x.float(), denoised.float(), row, None).to(torch.bfloat16)
    assert torch.equal(step(x, denoised, row, None), exact)


@pytest.mark.parametrize("name", NOISE_LAWS)
def test_json_round_trip(name):
    method = "exact" if NOISE_LAWS[name].k is None else "euler_maruyama"
    transition = Transition(default(name), method, "linear" if method == "exact" else "vp")
    again = Transition.from_json(json.loads(json.dumps(transition.to_json())))
    assert again == transition
    assert hash(again) == hash(transition)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Transition(noise_law("ode"), "heun3"),
            "'heun3'; choose one of: second_order, exact",
        ),
        (lambda: Transition(noise_law("ode"), "exact", "vp"), "same on every interpolant"),
        (
            lambda: Transition(noise_law("ode"), "euler_maruyama", "gvp"),
            "unknown interpolant 'gvp'",
        ),
        (
            lambda: Transition(noise_law("fixed_q"), "euler_maruyama"),
            "integrates an SDE, and fixed_q belongs to none; use the method exact",
        ),
        (lambda: ODE.coefficients(14.6, 1.0), r"sigma 14.6 is outside \[0, 1\]"),
        (lambda: ODE.coefficients(0.5, math.nan), "sigma nan is outside"),
        (
            lambda: Transition(noise_law("constant_k"), "euler_maruyama").coefficients(1.0, 0.9),
            "constant_k on the linear .* infinite between sigma 1.0 and 0.9; start below 1",
        ),
        (
            lambda: Transition(noise_law("sit_sigma"), "euler_maruyama", "vp").coefficients(1, 0.9),
            "vp interpolant is infinite",
        ),
        (lambda: Transition.from_json({"method": "exact"}), "keys law, method, interpolant"),
        (lambda: Transition.from_json({"law": {"name": "ode"}, "k": 1}), "keys law, method"),
        (lambda: fixed_q(1.5), "q = 1.5"),
    ],
)
def test_illegal_transitions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_illegal_tensors_are_refused():
    x, row = randn(2, 3), fixed_q(0.85).coefficients(0.8, 0.5)
    with pytest.raises(ValueError, match=r"keeps only 0.8500 of its noise; pass standard normal"):
        step(x, x, row, None)
    with pytest.raises(ValueError, match=r"one shape, got \[\(2, 3\), \(1, 3\), \(2, 3\)\]"):
        step(x, x[:1], row, x)
    with pytest.raises(ValueError, match="one shape"):
        step(x, x, row, x[:, :1])


def test_reference_noise_is_not_that_of_the_exact_transition():
    """Why reference mode keeps Euler-Maruyama: at these long steps the two differ visibly."""
    law = noise_law("rbf_reference")
    ends = rbf_reference(10)[8:10]
    em = Transition(law, "euler_maruyama", "vp").coefficients(*ends)
    exact = Transition(law).coefficients(*ends)
    assert em.weight_z == pytest.approx(0.473, abs=5e-4)
    assert abs(em.weight_z / exact.weight_z - 1.0) > 0.2


def vp_step_as_published(x_lin, velocity, sigma, sigma_next, g2, z):
    """One Euler-Maruyama step of Kim et al. 2025, eqs. (7)-(11), written from the equations.

    x_lin is on the linear path, velocity(x, t) its model; everything else happens in VP time s.
    """

    def bars(s):
        T, T_dot = 0.5 * s * s * 19.9 + 0.1 * s, 19.9 * s + 0.1
        a, sd = math.exp(-T / 2), math.sqrt(1.0 - math.exp(-T))
        return a, sd, -0.5 * T_dot * math.exp(-T / 2), 0.5 * T_dot * math.exp(-T) / sd

    s, s_next = r_from_sigma(VP, sigma), r_from_sigma(VP, sigma_next)
    a, sd, a_dot, sd_dot = bars(s)
    t = 1.0 / (1.0 + a / sd)
    c = sd / t
    t_dot = t**2 * (sd * a_dot - a * sd_dot) / (sd**2 * (t * -1.0 - (1.0 - t)))
    c_dot = (t * sd_dot - sd * t_dot) / t**2
    x = c * x_lin
    u = c_dot / c * x + c * t_dot * velocity(x / c, t)
    score = (a * u - a_dot * x) / (a_dot * sd - a * sd_dot) / sd
    h = s - s_next
    x_next = x - (u - 0.5 * g2(s) * score) * h + math.sqrt(g2(s) * h) * z
    a_next, sd_next, _, _ = bars(s_next)
    return x_next / (a_next + sd_next)


@pytest.mark.parametrize(("dtype", "tolerance"), [(FLOAT64, 1e-12), (torch.float32, 1e-6)], ids=str)
def test_reference_mode_equals_the_published_equations_in_vp(dtype, tolerance):
    data = gaussian(0.5, 0.3)
    sigmas = rbf_reference(10)[:-1]
    noises = [randn(64, 1, dtype=dtype) for _ in sigmas]
    transition = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")

    def velocity(x, t):
        return (x - data.denoise(x, t)) / t

    ours = theirs = randn(64, 1, dtype=dtype)
    for i in range(len(sigmas) - 1):
        ends = sigmas[i], sigmas[i + 1]
        ours = step(ours, data.denoise(ours, ends[0]), transition.coefficients(*ends), noises[i])
        theirs = vp_step_as_published(theirs, velocity, *ends, lambda s: 9.0 * s**4, noises[i])
    assert float((ours - theirs).abs().max()) < tolerance
    # a mutant: g^2 = 3 r^2 where g = 3 r^2
    wrong = vp_step_as_published(ours, velocity, 0.9, 0.8, lambda s: 3.0 * s**2, noises[0])
    right = vp_step_as_published(ours, velocity, 0.9, 0.8, lambda s: 9.0 * s**4, noises[0])
    assert float((wrong - right).abs().max()) > 1e-2


@pytest.mark.parametrize(("dtype", "tolerance"), [(FLOAT64, 1e-12), (torch.float32, 1e-6)], ids=str)
@pytest.mark.parametrize("law", [noise_law("ode"), noise_law("constant_k", k=1.0)], ids=str)
def test_steps_in_vp_coordinates_give_the_same_states(law, dtype, tolerance):
    """(T) with VP's own alpha and sigma: conversion is a choice of sigmas and no more."""
    data = gaussian(0.5, 0.3)
    sigmas = in_interpolant("vp", 10)
    noises = [randn(64, 1, dtype=dtype) for _ in sigmas]
    start = randn(64, 1, dtype=dtype)
    ours = integrate(data.denoise, start, sigmas, Transition(law), lambda i: noises[i])

    times = [r_from_sigma(VP, s) for s in sigmas]
    y = start * (VP.alpha(times[0]) + VP.sigma(times[0]))
    for i, (r, r_next) in enumerate(pairwise(times)):
        (a, s), (a_next, s_next) = ((VP.alpha(t), VP.sigma(t)) for t in (r, r_next))
        denoised = data.denoise(y / (a + s), s / (a + s))
        e = (y - a * denoised) / s
        q = 1.0 if law.name == "ode" else s_next * a / (a_next * s)
        y = a_next * denoised + s_next * (q * e + math.sqrt(1.0 - q * q) * noises[i])
    assert float((ours - y).abs().max()) < tolerance


def test_the_table_of_a_run_is_plain_numbers():
    row = Transition(NoiseLaw("ode")).coefficients(0.5, 0.25)
    assert row == Coefficients(0.5, 0.25, 1.0)
