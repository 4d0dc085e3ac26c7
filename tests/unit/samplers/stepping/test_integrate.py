"""The one loop: what is called, when, and with what."""

import pytest
import torch
from fields import Mixture, gaussian

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import uniform
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.noise import keyed_normal
from flowsearch.samplers.stepping.transition import ODE, RENOISE, Transition, fixed_q, step

DATA = Mixture((0.3, 0.7), (-1.0, 0.5), (0.2, 0.3))


def no_noise(step_index):
    raise AssertionError(f"step {step_index} asked for noise")


def keyed(rows, *key):
    """Noise of each row from its own stream."""
    return lambda i: torch.stack([keyed_normal((3,), row, *key, i) for row in rows]).double()


def test_one_call_and_one_callback_per_step_in_order():
    seen = []

    def model(x, sigma):
        seen.append(("model", sigma))
        return DATA.denoise(x, sigma)

    def noise(i):
        seen.append(("noise", i))
        return torch.zeros(2, 3)

    x = torch.ones(2, 3)
    integrate(model, x, [1.0, 0.5, 0.0], fixed_q(0.5), noise, lambda i, *_: seen.append(("cb", i)))
    # the last step lands on the prediction and needs no noise
    assert seen == [("model", 1.0), ("cb", 0), ("noise", 0), ("model", 0.5), ("cb", 1)]
    assert torch.equal(x, torch.ones(2, 3))


def test_callback_sees_the_state_before_its_step():
    states = []
    x = torch.full((2, 3), 0.7)
    out = integrate(
        DATA.denoise, x, uniform(3), ODE, no_noise, lambda i, x, d: states.append((i, x, d))
    )
    assert [i for i, _, _ in states] == [0, 1, 2]
    assert torch.equal(states[0][1], x)
    assert torch.equal(states[1][2], DATA.denoise(states[1][1], uniform(3)[1]))
    last = ODE.coefficients(uniform(3)[2], 0.0)
    assert torch.equal(out, step(states[2][1], states[2][2], last, None))


def test_the_ode_never_asks_for_noise_and_a_taper_stops_asking():
    x = torch.randn(2, 3)
    integrate(DATA.denoise, x, uniform(8), ODE, no_noise)
    asked = []
    tapered = Transition(noise_law("constant_k", k=1.0, taper=(0.6, 0.5)))
    integrate(DATA.denoise, x, uniform(8), tapered, lambda i: asked.append(i) or torch.zeros(2, 3))
    assert asked == [0, 1, 2, 3]


def test_tensor_and_list_of_sigmas_agree():
    x = torch.randn(2, 3)
    sigmas = torch.tensor(uniform(7, shift=3.0), dtype=torch.float32)
    found = [
        integrate(DATA.denoise, x, s, fixed_q(0.8), keyed([0, 1]))
        for s in (sigmas, sigmas.tolist())
    ]
    assert torch.equal(*found)


def test_illegal_sigmas_are_refused_before_the_first_call():
    def model(x, sigma):
        raise AssertionError("called")

    with pytest.raises(ValueError, match=r"sigma 14.6 is outside \[0, 1\]"):
        integrate(model, torch.ones(1, 1), [0.9, 0.5, 14.6], ODE, no_noise)


def test_no_step_gives_the_state_back():
    x = torch.ones(1, 1)
    assert integrate(DATA.denoise, x, [0.5], ODE, no_noise) is x
    assert integrate(DATA.denoise, x, [], ODE, no_noise) is x


def test_up_from_the_data_and_down_again():
    """No model call at sigma 0: the state is its own prediction."""
    called = []

    def model(x, sigma):
        called.append(sigma)
        return DATA.denoise(x, sigma)

    x = torch.full((2, 3), 0.5, dtype=torch.float64)
    z = keyed([0, 1])
    out = integrate(model, x, [0.0, 0.6, 0.0], RENOISE, z)
    assert called == [0.6]
    assert torch.equal(out, DATA.denoise(0.4 * x + 0.6 * z(0), 0.6))


@pytest.mark.parametrize(
    "transition", [ODE, fixed_q(0.8), Transition(noise_law("sit_sigma"))], ids=str
)
def test_a_row_of_a_batch_is_the_row_alone(transition):
    denoise = gaussian(0.3, 0.7).denoise  # sums and products: exp rounds by its place in memory
    x = torch.randn(3, 3, dtype=torch.float64)
    together = integrate(denoise, x, uniform(6), transition, keyed([10, 11, 12]))
    for b in range(3):
        alone = integrate(denoise, x[b : b + 1], uniform(6), transition, keyed([10 + b]))
        assert torch.equal(together[b : b + 1], alone)
