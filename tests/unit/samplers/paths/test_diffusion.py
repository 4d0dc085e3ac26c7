"""Diffusions of a bridge: closed forms of q, ends, JSON, what is refused."""

import math

import pytest

from flowsearch.samplers.paths.curve import Curve
from flowsearch.samplers.paths.diffusion import DIFFUSIONS, Diffusion
from flowsearch.samplers.paths.two_sided import GAMMAS, two_sided

STEPS = [(0.9, 0.6), (0.5, 0.1), (0.2, 0.7)]
FALLING = Curve(((0.0, 0.0), (0.4, 0.5), (1.0, 1.0)), "linear")


def some(name):
    return Diffusion(name, 0.7, FALLING) if name == "curve" else Diffusion(name, 0.7)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("t", "to"), STEPS)
def test_the_brownian_bridges_own_noise_keeps_the_root_of_the_odds(scale, t, to):
    path = two_sided("linear", "brownian", scale)
    odds = [u / (1.0 - u) for u in sorted((t, to))]
    own = Diffusion("constant", 0.5 * scale**2)
    assert own.q(path, t, to) == pytest.approx(math.sqrt(odds[0] / odds[1]), rel=1e-12)


@pytest.mark.parametrize("gamma", [name for name in GAMMAS if name != "none"])
@pytest.mark.parametrize("name", DIFFUSIONS)
def test_two_half_steps_keep_what_a_whole_one_does(name, gamma):
    path, diffusion = two_sided("linear", gamma, 1.3), some(name)
    whole = diffusion.q(path, 0.83, 0.21)
    halves = diffusion.q(path, 0.83, 0.4) * diffusion.q(path, 0.4, 0.21)
    assert whole == pytest.approx(halves, rel=1e-9)
    assert whole == diffusion.q(path, 0.21, 0.83)
    assert 0.0 < whole <= 1.0


def test_in_proportion_to_the_variance_noise_is_lost_evenly_in_time():
    even = Diffusion("variance", 3.0)
    for gamma in ("brownian", "sin_squared", "quadratic"):
        path = two_sided("linear", gamma)
        assert even.q(path, 0.7, 0.2) == pytest.approx(math.exp(-1.5), rel=1e-12)
        assert even.q(path, 1.0, 0.0) == pytest.approx(math.exp(-3.0), rel=1e-9)


def test_no_noise_is_kept_to_or_from_an_end_where_gamma_vanishes_faster():
    path = two_sided("linear", "brownian")
    for name in ("constant", "curve"):
        assert some(name).q(path, 1.0, 0.9) == 0.0
    assert Diffusion("constant", 0.01).q(path, 0.1, 0.0) == 0.0
    assert some("curve").q(path, 0.1, 0.0) > 0.0  # it falls to 0 at the target
    assert Diffusion("gamma", 1.0).q(path, 1.0, 0.0) == pytest.approx(math.exp(-math.pi), rel=1e-5)


def test_no_diffusion_keeps_all_noise():
    path = two_sided("linear", "brownian")
    assert Diffusion().q(path, 1.0, 0.0) == 1.0
    assert Diffusion("constant", 0.0).q(path, 1.0, 0.0) == 1.0
    assert Diffusion("constant", 9.0).q(path, 0.4, 0.4) == 1.0


def test_a_wrong_factor_of_two_is_seen():
    path = two_sided("linear", "brownian")
    assert Diffusion("constant", 1.0).q(path, 0.8, 0.5) != pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_json_both_ways(name):
    assert Diffusion.from_json(some(name).to_json()) == some(name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("white",), "unknown diffusion 'white'"),
        (("constant", -1.0), "between 0 and 1000"),
        (("curve",), "needs a curve"),
        (("none", 0.0, FALLING), "takes no curve"),
        (("curve", 0.0, Curve(((0.0, -1.0),))), "must be 0 or above"),
    ],
)
def test_what_the_table_does_not_allow_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Diffusion(*given)


def test_noise_without_a_gamma_and_times_outside_are_refused():
    with pytest.raises(ValueError, match="has no noise"):
        Diffusion("constant", 1.0).q(two_sided("linear", "none"), 0.5, 0.2)
    with pytest.raises(ValueError, match=r"time 1.2 is outside \[0, 1\]"):
        Diffusion().q(two_sided(), 1.2, 0.2)
    with pytest.raises(ValueError, match="the keys name, value, curve"):
        Diffusion.from_json({"name": "none", "k": 1})
