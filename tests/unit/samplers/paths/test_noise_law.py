"""Noise laws: strengths, correlations, ends, tapers, JSON."""

import json
import math
from dataclasses import replace

import pytest
from scipy.integrate import quad

from flowsearch.samplers.paths.interpolant import VP, kl_diffusion, r_from_sigma, sigma_from_r
from flowsearch.samplers.paths.noise_law import NOISE_LAWS, NoiseLaw, noise_law

POINTS = [(0.1, 0.0), (0.4, 0.3), (0.9, 2.0)]


def default(name):
    return noise_law(name, points=POINTS if NOISE_LAWS[name].takes_points else None)


SDES = [name for name, spec in NOISE_LAWS.items() if spec.k is not None]
SMOOTH = noise_law("curve", points=POINTS, interpolation="monotone_cubic")
ALL_SDES = pytest.mark.parametrize(
    "law", [*(default(name) for name in SDES), SMOOTH], ids=[*SDES, "curve, smooth"]
)

# k at sigma .95, .75, .5, .25, .1, .03: printed digits
TABLE = {
    "sit_sigma": [".05", ".25", ".5", ".75", ".9", ".97"],
    "sit_constant": [".053", ".333", "1", "3", "9", "32"],
    "sit_increasing_decreasing": [".001", ".167", "1", "1.5", ".86", ".29"],
    "sit_decreasing": [".05", ".24", ".25", ".064", ".005", "0"],
    "flow_grpo": [".245"] * 6,
    "rbf_reference": [".20", ".048", ".008", "0", "0", "0"],
}


def half_unit(printed):
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


@pytest.mark.parametrize("name", TABLE)
def test_strengths_of_known_settings(name):
    law = noise_law(name)
    for sigma, printed in zip((0.95, 0.75, 0.5, 0.25, 0.1, 0.03), TABLE[name], strict=True):
        # a strength of .0004 was printed as 0 where three digits had been given before
        assert abs(law.k(sigma) - float(printed)) <= max(
            half_unit(printed), 5e-4 * (name[0] == "r")
        )


def decay_by_scipy(law, sigma, sigma_next):
    knots = [*(law.taper or ()), *(s for s, _ in law.points), sigma_from_r(VP, 1.0)]
    low, high = min(sigma, sigma_next), max(sigma, sigma_next)
    value, _ = quad(
        lambda s: law.k(s) / (s * (1.0 - s)),
        low,
        high,
        points=[s for s in knots if low < s < high] or None,
        epsabs=1e-13,
        epsrel=1e-13,
        limit=400,
    )
    return value


@ALL_SDES
@pytest.mark.parametrize("taper", [None, (0.2, 0.12), (0.95, 0.3)], ids=str)
@pytest.mark.parametrize("ends", [(0.9, 0.8), (0.5, 0.02), (0.998, 0.31), (0.15, 0.14)], ids=str)
def test_q_is_the_integral_of_k(law, taper, ends):
    law = replace(law, taper=taper)
    assert law.q(*ends) == pytest.approx(math.exp(-decay_by_scipy(law, *ends)), abs=1e-8, rel=1e-8)


@pytest.mark.parametrize(
    ("law", "q"),
    [
        (noise_law("sit_constant", norm=0.4), lambda s, t: math.exp(-0.4 * (1 / t - 1 / s))),
        (noise_law("sit_sigma", norm=1.5), lambda s, t: (t / s) ** 1.5),
        (noise_law("sit_linear", norm=2.0), lambda s, t: (t / s) ** 2),
        (noise_law("constant_k", k=0.7), lambda s, t: (t * (1 - s) / (s * (1 - t))) ** 0.7),
        (noise_law("flow_grpo", a=2.0), lambda s, t: (t * (1 - s) / (s * (1 - t))) ** 2),
        (noise_law("fixed_q", q=0.3), lambda s, t: 0.3),
        (noise_law("ode"), lambda s, t: 1.0),
    ],
    ids=lambda v: getattr(v, "name", ""),
)
def test_closed_forms(law, q):
    for s, t in ((0.9, 0.85), (0.7, 0.2), (0.3, 0.001)):
        assert law.q(s, t) == pytest.approx(q(s, t), rel=1e-12, abs=1e-300)


def test_closed_forms_equal_the_quadrature_that_a_taper_brings():
    """A taper that is nearly a step keeps all noise below it."""
    for name in SDES:
        law = default(name)
        tapered = NoiseLaw(law.name, law.parameters, (0.5, 0.5 - 1e-9), law.points)
        assert tapered.q(0.9, 0.4) == pytest.approx(law.q(0.9, 0.5), rel=1e-7), name


@ALL_SDES
def test_q_multiplies_over_a_split_and_has_no_direction(law):
    whole, parts = law.q(0.93, 0.2), law.q(0.93, 0.6) * law.q(0.6, 0.2)
    assert whole == pytest.approx(parts, rel=1e-11, abs=1e-300)
    assert law.q(0.2, 0.93) == whole
    assert 0.0 <= whole <= 1.0


def test_fixed_q_does_not_multiply():
    law = noise_law("fixed_q", q=0.5)
    assert law.q(0.9, 0.2) != pytest.approx(law.q(0.9, 0.5) * law.q(0.5, 0.2))


@ALL_SDES
def test_strength_does_not_depend_on_the_path_it_is_read_on(law):
    """k = eps / eps_KL in VP time too, with eps carried over by the change of time and scale."""
    for sigma in (0.9, 0.6, 0.3):
        r = r_from_sigma(VP, sigma)
        step = 1e-6
        speed = (sigma_from_r(VP, r + step) - sigma_from_r(VP, r - step)) / (2 * step)
        eps_vp = law.diffusion(sigma) * speed * (VP.sigma(r) / sigma) ** 2
        assert eps_vp / kl_diffusion(VP, r) == pytest.approx(law.k(sigma), rel=1e-8)


@ALL_SDES
def test_strength_is_finite_and_q_in_range_next_to_the_ends(law):
    for sigma in (1e-12, 1e-7, 1.0 - 2.0**-24, 1.0 - 1e-15):
        assert 0.0 <= law.k(sigma) < math.inf
        for other in (0.0, 0.5, 1.0):
            assert 0.0 <= law.q(sigma, other) <= 1.0


ENDS = {
    # name: q(1, .5), q(.5, 0), of the laws for which they are known in closed form
    "ode": (1.0, 1.0),
    "constant_k": (0.0, 0.0),
    "flow_grpo": (0.0, 0.0),
    "sit_sigma": (0.5, 0.0),
    "sit_linear": (0.5, 0.0),
    "sit_constant": (math.exp(-1.0), 0.0),
    "rbf_reference": (0.0, None),
    "sit_decreasing": (None, None),
    "sit_increasing_decreasing": (None, None),
    "curve": (0.0, None),
    "fixed_q": (0.85, 0.85),
}


@pytest.mark.parametrize("name", NOISE_LAWS)
def test_ends(name):
    law = default(name)
    for found, expected in zip(
        (law.q(1.0, 0.5), law.q(0.5, 0.0)), ENDS.get(name, ()), strict=False
    ):
        # None: the integral converges, so that some noise is kept
        assert found == pytest.approx(expected) if expected is not None else 0.0 < found < 1.0
    assert law.q(0.0, 0.5) == 0.0
    assert law.q(0.5, 1.0) == law.q(1.0, 0.5)
    if name != "fixed_q":
        assert law.q(0.4, 0.4) == law.q(1.0, 1.0) == law.q(0.0, 0.0) == 1.0


def test_converging_ends_equal_scipy():
    law = noise_law("sit_increasing_decreasing")
    assert law.q(0.5, 0.0) == pytest.approx(math.exp(-decay_by_scipy(law, 1e-14, 0.5)), rel=1e-8)
    law = noise_law("sit_decreasing")
    assert law.q(1.0, 0.5) == pytest.approx(
        math.exp(-decay_by_scipy(law, 0.5, 1.0 - 1e-13)), rel=1e-8
    )


def test_taper_is_a_line_and_leaves_the_ode_below():
    law = noise_law("constant_k", k=1.0, taper=(0.2, 0.12))
    assert [law.k(s) for s in (0.9, 0.2, 0.12, 0.05)] == [1.0, 1.0, 0.0, 0.0]
    assert law.k(0.16) == pytest.approx(0.5)
    assert law.q(0.12, 0.03) == law.q(0.1, 0.0) == 1.0
    assert law.q(0.9, 0.5) == noise_law("constant_k", k=1.0).q(0.9, 0.5)


def test_curves():
    flat = noise_law("curve", points=[(0.5, 0.25)])
    assert flat.q(0.9, 0.1) == pytest.approx(noise_law("constant_k").q(0.9, 0.1), rel=1e-12)
    line = noise_law("curve", points=[(1.0, 0.0), (0.0, 1.0)])
    assert line.q(1.0, 0.3) == pytest.approx(noise_law("sit_sigma").q(1.0, 0.3), rel=1e-12)
    assert line.points == ((0.0, 1.0), (1.0, 0.0))


def test_curves_that_fall_to_0_at_an_end_keep_some_noise_there():
    tent = noise_law("curve", points=[(0.0, 0.0), (0.5, 1.0), (1.0, 0.0)])
    # the integral of 2 s / (s (1 - s)) from 0 to .5 is 2 log 2
    assert tent.q(0.5, 0.0) == pytest.approx(0.25, rel=1e-12)
    assert tent.q(1.0, 0.5) == pytest.approx(0.25, rel=1e-12)


def test_smooth_curves():
    step = [(0.0, 0.0), (0.1, 0.0), (0.6, 1.0), (1.0, 1.0)]
    smooth = noise_law("curve", points=step, interpolation="monotone_cubic")
    assert smooth.k(0.35) == pytest.approx(0.5)
    assert smooth.k(0.225) == pytest.approx(0.25**2 * 2.5)
    assert smooth.q(0.1, 0.0) == 1.0
    assert smooth != noise_law("curve", points=step)


@pytest.mark.parametrize("name", NOISE_LAWS)
def test_json_round_trip(name):
    taper = None if NOISE_LAWS[name].k is None else (0.3, 0.1)
    tapered = NoiseLaw(name, default(name).parameters, taper, default(name).points)
    for law in (tapered, SMOOTH):
        again = NoiseLaw.from_json(json.loads(json.dumps(law.to_json())))
        assert again == law
        assert hash(again) == hash(law)
    assert NoiseLaw.from_json({"name": "curve", "points": POINTS}) == default("curve")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise_law("sigma"), "unknown noise law 'sigma'; choose one of: ode, constant_k"),
        (lambda: noise_law("constant_k", a=1.0), "constant_k has no parameter a; it takes: k"),
        (lambda: noise_law("ode", k=0.0), "ode has no parameter k; it takes: none"),
        (lambda: noise_law("constant_k", k=-0.1), r"k = -0.1 .* between 0.0 and 100.0"),
        (lambda: noise_law("fixed_q", q=1.1), r"q = 1.1 .* between 0.0 and 1.0"),
        (lambda: noise_law("constant_k", k=math.nan), r"k = nan .* between"),
        (lambda: noise_law("curve"), r"curve needs points"),
        (lambda: noise_law("ode", points=[(0.5, 1.0)]), "ode takes no points"),
        (lambda: noise_law("curve", points=[(0.5, 1.0), (0.5, 2.0)]), "must rise and differ"),
        (lambda: noise_law("curve", points=[(1.5, 1.0)]), r"x must be in \[0, 1\]"),
        (lambda: noise_law("curve", points=[(0.5, -1.0)]), "k must be 0 or above"),
        (lambda: noise_law("ode", interpolation="monotone_cubic"), "no points, so it takes no int"),
        (lambda: noise_law("curve", points=POINTS, interpolation="x"), "unknown interpolation 'x'"),
        (lambda: noise_law("curve", points=[(0.5,)]), r"pair \(sigma, k\)"),
        (lambda: noise_law("ode", taper=(0.1, 0.2)), "0 <= stop < start <= 1"),
        (lambda: noise_law("ode", taper=(0.1,)), r"two sigmas \(start, stop\)"),
        (lambda: noise_law("fixed_q", taper=(0.2, 0.1)), "fixed_q has none; drop the taper"),
        (lambda: noise_law("fixed_q").k(0.5), "so it has no k; use constant_k or curve"),
        (lambda: noise_law("ode").k(0.0), "0 < sigma <= 1, not at sigma 0.0"),
        (lambda: noise_law("ode").q(14.6, 0.5), r"sigma 14.6 is outside \[0, 1\]"),
        (lambda: noise_law("ode").q(0.5, math.nan), "sigma nan is outside"),
        (lambda: NoiseLaw("constant_k"), "takes the parameters"),
        (lambda: NoiseLaw.from_json({"name": "ode", "k": 1}), "has the keys name, parameters"),
    ],
)
def test_illegal_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
