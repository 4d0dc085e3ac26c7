"""What a gradient does to a step: strengths compose, laws are kept, methods agree."""

import math

import pytest
import torch
from fields import FLOAT64, gaussian

from flowsearch.samplers.paths.interpolant import VE
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.guidance import GUIDANCE_METHODS, GradientError, Guidance
from flowsearch.samplers.stepping.integrate import guided, integrate, row, steering
from flowsearch.samplers.stepping.transition import METHODS, ODE, Transition, fixed_q

DATA = gaussian(0.3, 0.8)
SHAPE = (3, 2, 4, 4)
Z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(5), dtype=FLOAT64)
G = torch.randn(SHAPE, generator=torch.Generator().manual_seed(6), dtype=FLOAT64)
G = G / G.flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)


class Fixed:
    """A source that says the same gradient everywhere; what it was asked is kept."""

    def __init__(self, gradient=G):
        self.gradient = gradient
        self.seen = []

    def at(self, rows, clean):
        self.seen.append(("at", tuple(rows), clean.clone()))
        return self.gradient[list(rows)].to(clean.dtype)

    def free(self, rows):
        return None

    def through(self, rows, x, sigma):
        self.seen.append(("through", tuple(rows), sigma))
        return self.gradient[list(rows)].to(x.dtype)


def no_noise(_):
    raise AssertionError("no noise is needed")


def frozen(x, sigma):
    return torch.full_like(x, 0.25)


def stepped(transition, sigma, after, x=Z, z=None, source=None):
    z = torch.zeros_like(x) if z is None else z
    coefficients = row(transition, sigma, after)
    steer = steering(transition, source or Fixed(), range(len(x)), frozen)
    out, _ = guided(frozen, x, frozen(x, sigma), coefficients, z, (), steer)
    return out


# ---- settings ----


def test_guidance_goes_to_json_and_back():
    given = Guidance("mean_shift", 0.3, "network", 0.9, 0.2, 0, "spectrum", 0.25, 3)
    assert Guidance.from_json(given.to_json()) == given
    transition = Transition(noise_law("constant_k", k=1.0), guidance=given)
    assert Transition.from_json(transition.to_json()) == transition
    assert "guidance" not in ODE.to_json()
    assert hash(transition) != hash(transition.guided(None))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "dps"}, "unknown guidance method 'dps'"),
        ({"through": "vae"}, "unknown guidance through"),
        ({"whitening": "zca"}, "unknown guidance whitening"),
        ({"strength": 0.0}, "above 0 and at most 1"),
        ({"strength": 1.5}, "above 0 and at most 1"),
        ({"strength": math.nan}, "above 0"),
        ({"fade": -0.1}, "fade must be 0 to 4"),
        ({"fade": math.nan}, "fade must be 0 to 4"),
        ({"start": 0.2, "stop": 0.4}, "stop <= start"),
        ({"trust": 0.0}, "trust must be above 0"),
        ({"look_ahead": -1}, "look_ahead must be 0"),
        ({"look_ahead": 1, "through": "network"}, "look_ahead 0, or through prediction"),
        ({"ascents": 0}, "ascents 1 to 1000"),
    ],
)
def test_what_has_no_meaning_is_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Guidance(**settings)


@pytest.mark.parametrize("data", [{"strenth": 1}, {"strength": "1"}, {"ascents": True}])
def test_json_of_something_else_is_refused(data):
    with pytest.raises(ValueError, match="guidance has the settings"):
        Guidance.from_json(data)


def test_a_guided_transition_without_a_source_is_refused():
    transition = ODE.guided(Guidance())
    with pytest.raises(ValueError, match="nothing knows the gradient"):
        integrate(frozen, Z, [0.5, 0.2], transition, no_noise)


# ---- strength is said for the whole path ----


@pytest.mark.parametrize("law", [noise_law("constant_k", k=1.0), noise_law("sit_sigma")])
def test_two_tilted_steps_are_one(law):
    transition = Transition(law, guidance=Guidance(strength=0.6, fade=0.0))
    once = stepped(transition, 0.8, 0.4)
    twice = stepped(transition, 0.6, 0.4, stepped(transition, 0.8, 0.6))
    torch.testing.assert_close(once, twice, rtol=1e-9, atol=1e-9)


def test_the_variance_of_two_tilted_steps_is_that_of_one_within_half_a_squared():
    law, strength = noise_law("constant_k", k=1.0), 0.5

    def variance(places):
        total, kept = 0.0, 1.0
        for sigma, after in reversed(places):
            q = law.q(sigma, after)
            tilt = strength**2 * (1.0 - q) / (1.0 + q)
            total += kept**2 * (1.0 - q * q) * (1.0 - tilt)
            kept *= q
        return total

    one, two = variance([(0.8, 0.4)]), variance([(0.8, 0.6), (0.6, 0.4)])
    assert abs(one - two) <= strength**2 / 2.0
    assert one < 1.0 - law.q(0.8, 0.4) ** 2


@pytest.mark.parametrize(("sigma", "after"), [(0.64, 0.2), (0.2, 0.64), (0.0, 0.64)])
def test_a_tilt_fades_with_the_noise_of_the_higher_end(sigma, after):
    transition = fixed_q(0.0) if sigma < after else Transition(noise_law("constant_k", k=1.0))

    def drawn(strength, fade):
        guidance = Guidance(strength=strength, fade=fade)
        return stepped(transition.guided(guidance), sigma, after)

    torch.testing.assert_close(drawn(0.5, 0.5), drawn(0.5 * 0.8, 0.0))


@pytest.mark.parametrize("method", ["noise_tilt", "mean_shift"])
@pytest.mark.parametrize("through", ["prediction", "network"])
def test_8_and_25_steps_drift_alike(method, through):
    law = noise_law("constant_k", k=1.0)
    transition = Transition(law, guidance=Guidance(method, 0.5, through, trust=10.0))
    still = Transition(law)

    def drift(steps):
        def noise(i):
            return torch.zeros_like(Z)

        sigmas = [0.95 * (1.0 - i / steps) for i in range(steps + 1)]
        ends = [
            integrate(DATA.denoise, Z, sigmas, way, noise, None, source=Fixed())
            for way in (transition, still)
        ]
        return float(((ends[0] - ends[1]) * G).mean())

    few, many = drift(8), drift(25)
    assert many > 0.05
    assert few == pytest.approx(many, rel=0.3)


# ---- order and memory ----


@pytest.mark.parametrize(("method", "least"), [("second_order", 1.6), ("heun", 1.6)])
def test_a_shifted_field_is_integrated_at_the_methods_order(method, least):
    guidance = Guidance("mean_shift", 0.5, trust=10.0)

    class Linear(Fixed):
        def at(self, rows, clean):  # of a reward -|clean - goal|^2: it turns on the way
            return G[list(rows)] * 2.0 - clean

    transition = Transition(noise_law("ode"), method, guidance=guidance)

    def end(steps):
        sigmas = [0.95 - 0.75 * i / steps for i in range(steps + 1)]
        return integrate(DATA.denoise, Z, sigmas, transition, no_noise, source=Linear())

    exact = end(320)
    errors = [float((end(n) - exact).norm()) for n in (20, 40)]
    assert math.log2(errors[0] / errors[1]) > least


# ---- every method of stepping ----


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("method", [m for m in GUIDANCE_METHODS if m != "start_noise"])
def test_linear_and_exploding_coordinates_agree(name, method):
    law = noise_law("constant_k", k=1.0)
    guidance = Guidance(method, 0.5, look_ahead=1, trust=0.3)
    transition = Transition(law, name, guidance=guidance)
    sigmas = [0.9, 0.7, 0.45, 0.2, 0.0]
    z = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=FLOAT64)
    if name == "euler_maruyama":
        sigmas = sigmas[:-1]

    class Towards(Fixed):
        def at(self, rows, clean):
            return G[list(rows)] - clean

    x = Z * 0.9 + 0.03
    ours = integrate(DATA.denoise, x, sigmas, transition, lambda i: z[i], source=Towards())

    def model(y, rho):
        s = rho / (1.0 + rho)
        return DATA.denoise(y * (1.0 - s), s)

    rhos = [s / (1.0 - s) for s in sigmas]
    theirs = integrate(
        model, x / 0.1, rhos, transition, lambda i: z[i], coordinates=VE, source=Towards()
    )
    torch.testing.assert_close(theirs * (1.0 - sigmas[-1]), ours, rtol=1e-9, atol=1e-9)
    plain = integrate(DATA.denoise, x, sigmas, transition.guided(None), lambda i: z[i])
    assert float((ours - plain).abs().max()) > 1e-3


def test_the_start_is_turned_in_both_coordinates_alike():
    transition = ODE.guided(Guidance("start_noise", 0.6))
    x, sigmas = Z * 0.9 + 0.03, [0.9, 0.4, 0.0]
    ours = integrate(DATA.denoise, x, sigmas, transition, no_noise, source=Fixed())

    def model(y, rho):
        s = rho / (1.0 + rho)
        return DATA.denoise(y * (1.0 - s), s)

    rhos = [s / (1.0 - s) for s in sigmas]
    theirs = integrate(model, x / 0.1, rhos, transition, no_noise, None, VE, Fixed())
    torch.testing.assert_close(theirs, ours, rtol=1e-9, atol=1e-9)


def test_ascents_compose_and_keep_the_norm():
    def end(ascents):
        guidance = Guidance("start_noise", 0.6, ascents=ascents)
        steer = steering(ODE.guided(guidance), Fixed(), range(3), frozen)
        x = Z
        for _ in range(ascents):
            x = steer.ascent(x, frozen(x, 1.0), 1.0, 1.0)
        return x

    torch.testing.assert_close(end(1), end(5), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(end(3).flatten(1).norm(dim=1), Z.flatten(1).norm(dim=1))
    assert float((end(1) * G).sum()) > float((Z * G).sum())


# ---- where it acts ----


def test_the_window_the_last_step_and_steps_without_noise_are_left_alone():
    source = Fixed()
    inside = fixed_q(0.8).guided(Guidance(start=0.7, stop=0.3))
    for sigma, after in ((0.9, 0.8), (0.25, 0.1), (0.5, 0.0)):
        free = stepped(inside.guided(None), sigma, after, source=source)
        assert torch.equal(stepped(inside, sigma, after, source=source), free)
    stepped(ODE.guided(Guidance()), 0.5, 0.3, source=source)
    stepped(ODE.guided(Guidance("mean_shift")), 0.5, 0.0, source=source)
    stepped(fixed_q(0.5).guided(Guidance("mean_shift")), 0.3, 0.6, source=source)
    assert not source.seen
    stepped(inside, 0.5, 0.4, source=source)
    stepped(ODE.guided(Guidance("mean_shift")), 0.5, 0.3, source=source)
    stepped(fixed_q(0.0).guided(Guidance()), 0.0, 0.6, source=source)
    assert len(source.seen) == 3


@pytest.mark.parametrize("method", GUIDANCE_METHODS)
@pytest.mark.parametrize("whitening", ["scale", "spectrum"])
def test_a_row_without_a_gradient_is_left_as_it_is(method, whitening):
    gradient = G.clone()
    gradient[1] = 0.0
    guidance = Guidance(method, 0.5, whitening=whitening)
    transition = Transition(noise_law("constant_k", k=1.0), guidance=guidance)
    z = Z.flip(0)
    args = (DATA.denoise, Z, [0.9, 0.5, 0.2])
    out = integrate(*args, transition, lambda _: z, source=Fixed(gradient))
    free = integrate(*args, transition.guided(None), lambda _: z)
    assert torch.equal(out[1], free[1])
    assert not torch.equal(out[0], free[0])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("method", GUIDANCE_METHODS)
def test_a_gradient_that_is_not_finite_names_its_row(method, bad):
    gradient = G.clone()
    gradient[2, 0, 1, 1] = bad
    transition = Transition(noise_law("constant_k", k=1.0), guidance=Guidance(method))
    with pytest.raises(GradientError, match="row 2") as caught:
        integrate(frozen, Z, [0.9, 0.5], transition, lambda _: Z, source=Fixed(gradient))
    assert caught.value.row == 2


def test_a_gradient_of_another_shape_is_refused():
    class Other(Fixed):
        def at(self, rows, clean):
            return clean.mean(1, keepdim=True)

    with pytest.raises(ValueError, match="the gradient has the shape"):
        stepped(fixed_q(0.5).guided(Guidance()), 0.9, 0.5, source=Other())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_states_are_steered_in_float32(dtype):
    transition = Transition(noise_law("constant_k", k=1.0), guidance=Guidance("mean_shift"))
    for method in GUIDANCE_METHODS:
        way = transition.guided(Guidance(method, whitening="spectrum"))
        x, tiny = Z.to(dtype), Fixed((G * 1e-3).float())
        out = integrate(DATA.denoise, x, [0.9, 0.5, 0.2], way, lambda _: Z.to(dtype), source=tiny)
        wide = integrate(DATA.denoise, Z, [0.9, 0.5, 0.2], way, lambda _: Z, source=tiny)
        assert out.dtype == dtype
        if method != "twist":  # which wants the gradient's own size
            torch.testing.assert_close(out.double(), wide, rtol=0.05, atol=0.05)


# ---- what it costs ----


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("method", GUIDANCE_METHODS)
@pytest.mark.parametrize(("through", "look_ahead"), [("network", 0), ("prediction", 2)])
def test_a_transition_says_the_most_that_a_step_evaluates(name, method, through, look_ahead):
    law = noise_law("constant_k", k=1.0)
    guidance = Guidance(method, 0.5, through, look_ahead=look_ahead)
    transition = Transition(law, name, guidance=guidance)
    for sigma, after in ((0.8, 0.5), (0.3, 0.0)):
        calls = []

        def model(x, s, calls=calls):
            calls.append(s)
            return DATA.denoise(x, s)

        source = Fixed()
        steer = steering(transition, source, range(3), model)
        guided(model, Z, model(Z, sigma), row(transition, sigma, after), Z, (), steer)
        made = len(calls) - 1 + steer.evaluations
        assert made == transition.calls(after), (sigma, after)
        assert steer.gradients == len(source.seen)


def test_a_look_ahead_takes_the_gradient_at_a_later_prediction():
    source, x = Fixed(), Z * 0.8
    transition = fixed_q(0.5).guided(Guidance(look_ahead=3))
    places = []

    def model(at, sigma):
        places.append(sigma)
        return DATA.denoise(at, sigma)

    steer = steering(transition, source, range(3), model)
    steer.prepared(x, model(x, 0.8), row(transition, 0.8, 0.6), Z)
    assert places == pytest.approx([0.8, 0.6, 0.4, 0.2])
    expected = integrate(DATA.denoise, x, [0.8, 0.6, 0.4, 0.2, 0.0], ODE, no_noise)
    torch.testing.assert_close(source.seen[0][2], expected)


def test_mean_shift_stays_within_its_trust():
    guidance = Guidance("mean_shift", 5.0, trust=0.1)
    x = DATA.denoise(Z, 0.9)
    steer = steering(ODE.guided(guidance), Fixed(), range(3), frozen)
    shifted, _ = steer.prepared(Z, x, row(ODE, 0.9, 0.5), None)
    size = (shifted - x).flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(size, 0.1 * x.flatten(1).std(dim=1, correction=0))


def test_the_weight_of_a_twisted_draw_is_exact():
    guidance = Guidance("twist", 2.0, trust=3.0)
    transition = fixed_q(0.7).guided(guidance)
    steer = steering(transition, Fixed(G * 0.1), range(3), frozen)
    _, drawn = steer.prepared(Z, frozen(Z, 0.8), row(transition, 0.8, 0.5), Z)
    normal = torch.distributions.Normal(torch.zeros_like(Z), torch.ones_like(Z))
    shifted = torch.distributions.Normal(drawn - Z, torch.ones_like(Z))
    exact = (normal.log_prob(drawn) - shifted.log_prob(drawn)).flatten(1).sum(1)
    torch.testing.assert_close(steer.log_weight, exact)
    assert float((drawn - Z).flatten(1).norm(dim=1).max()) <= 3.0 + 1e-9
    assert float((drawn - Z).abs().max()) > 0.0


# ---- masks and windows ----


class Masked(Fixed):
    """Half of every row may move, an eighth of it by half."""

    MASK = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=FLOAT64)

    def __init__(self):
        super().__init__(G * self.MASK)

    def free(self, rows):
        return self.MASK.expand(len(rows), 1, 4, 4)


@pytest.mark.parametrize("method", ["noise_tilt", "mean_shift", "start_noise"])
def test_a_mask_makes_no_push_larger_and_leaves_what_it_keeps(method):
    guidance = Guidance(method, 0.4, trust=0.3, ascents=1)
    how = Transition(fixed_q(0.5).law).guided(guidance)
    inside = Masked.MASK > 0.0

    def pushed(source):
        steer = steering(how, source, range(3), frozen)
        place = row(how, 0.6, 0.6 if method == "start_noise" else 0.4)
        if steer.is_ascent(place):
            return steer.ascent(Z, frozen(Z, 0.6), 0.6, 1.0) - Z
        used, noise = steer.prepared(Z, 0.5 * Z, place, Z)
        return (used - 0.5 * Z) + (noise - Z)

    change, whole = pushed(Masked()), pushed(Fixed())
    assert not change[..., ~inside].any()
    ratio = change[..., inside].square().mean().sqrt() / whole.square().mean().sqrt()
    assert 0.8 < float(ratio) < 1.2


def test_a_start_that_is_turned_within_a_mask_keeps_its_norm_there():
    how = Transition(ODE.law).guided(Guidance("start_noise", 1.2, ascents=1))
    turned = steering(how, Masked(), range(3), frozen).ascent(Z, frozen(Z, 1.0), 1.0, 1.0)
    inside = Masked.MASK > 0.0
    norms = [e[..., inside].flatten(1).norm(dim=1) for e in (turned, Z)]
    assert torch.allclose(*norms, rtol=1e-9)


def test_a_sigma_of_float32_is_inside_its_own_window():
    guidance = Guidance(start=0.8, stop=0.3)
    assert guidance.covers(float(torch.tensor(0.8)))
    assert guidance.covers(float(torch.tensor(0.3)))
    assert not guidance.covers(0.8001)
