"""Interpolants from two curves: what is refused and why, and that dense points give the known ones.

The laws of every interpolant hold for drawn ones too: they are rows of test_interpolant.py.
"""

import math
import random
from itertools import pairwise

import pytest
import torch

from flowsearch.samplers.paths import drawn_path
from flowsearch.samplers.paths.curve import INTERPOLATIONS, Curve
from flowsearch.samplers.paths.drawn_path import interpolant_from_curves
from flowsearch.samplers.paths.interpolant import named, r_from_sigma, sigma_from_r
from flowsearch.samplers.paths.sigmas import in_interpolant, shifted

ONE_TO_NONE, NONE_TO_ONE = ((0.0, 1.0), (1.0, 0.0)), ((0.0, 0.0), (1.0, 1.0))


def dense(name, kind, count):
    path, times = named(name), [i / count for i in range(count + 1)]
    return interpolant_from_curves(
        Curve(tuple((r, path.alpha(r)) for r in times), kind),
        Curve(tuple((r, path.sigma(r)) for r in times), kind),
    )


def spacing_error(name, kind, count):
    drawn = in_interpolant(dense(name, kind, count), 20, shift=2.0)
    known = in_interpolant(name, 20, shift=2.0)
    return max(abs(a - b) for a, b in zip(drawn, known, strict=True))


@pytest.mark.parametrize("kind", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("name", "bound"), [("linear", 3e-16), ("trigonometric", 4e-7), ("vp", 1.5e-4)]
)
def test_dense_points_of_a_known_path_give_its_spacing(name, kind, bound):
    assert spacing_error(name, kind, 64) < bound
    # straight lines: second order in the distance of the points
    assert spacing_error(name, kind, 256) < max(bound / 12.0, 3e-16)


def test_another_path_is_seen():
    drawn, known = in_interpolant(dense("vp", "linear", 64), 20), in_interpolant("linear", 20)
    assert max(abs(a - b) for a, b in zip(drawn, known, strict=True)) > 0.1


def test_lists_are_even_in_the_drawn_time_and_meet_their_ends():
    path = interpolant_from_curves(
        Curve(((0.0, 1.0), (0.3, 0.9), (1.0, 0.0))), Curve(((0.0, 0.0), (0.5, 0.8), (1.0, 1.0)))
    )
    sigmas = in_interpolant(path, 9, shift=3.0, start=0.9, end=0.05)
    assert (sigmas[0], sigmas[-1]) == (0.9, 0.05)
    times = [r_from_sigma(path, shifted(s, 1.0 / 3.0)) for s in sigmas]
    steps = [a - b for a, b in pairwise(times)]
    assert steps == pytest.approx([steps[0]] * 9, rel=1e-9)
    assert in_interpolant(path, 4)[0] == 1.0


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_times_of_a_jagged_path_are_exact(kind):
    source = random.Random(3)
    times = [i / 60 for i in range(61)]
    heights = sorted(source.random() ** 3 for _ in times)
    sigma = Curve(tuple((r, y - heights[0]) for r, y in zip(times, heights, strict=True)), kind)
    path = interpolant_from_curves(Curve(ONE_TO_NONE, kind), sigma)
    levels = torch.linspace(0.0, 1.0, 2001, dtype=torch.float64)
    back = sigma_from_r(path, r_from_sigma(path, levels))
    torch.testing.assert_close(back, levels, rtol=1e-12, atol=0.0)


def test_data_left_at_the_noise_end():
    """Like VP the list starts below 1, and the time of what lies above is infinite."""
    path = interpolant_from_curves(
        Curve(((0.0, 1.0), (1.0, 0.02))), Curve(((0.0, 0.0), (1.0, 0.8)))
    )
    end = 0.8 / 0.82
    assert sigma_from_r(path, 1.0) == pytest.approx(end, rel=1e-15)
    assert in_interpolant(path, 4)[0] == pytest.approx(end, rel=1e-15)
    assert r_from_sigma(path, 1.0) == math.inf
    assert path.r_from_rho(0.8 / 0.02) == 1.0


def test_a_falling_sigma_is_a_path_as_long_as_the_ratio_rises():
    path = interpolant_from_curves(Curve(ONE_TO_NONE), Curve(((0.0, 0.0), (0.5, 1.0), (1.0, 0.8))))
    assert in_interpolant(path, 10) == sorted(in_interpolant(path, 10), reverse=True)


DIP = ((0.0, 0.0), (0.5, 0.6), (0.501, 0.5), (1.0, 1.0))
FLAT = ((0.0, 1.0), (0.25, 0.5), (0.5, 0.5), (1.0, 0.0))
PAUSE = ((0.0, 0.0), (0.25, 0.4), (0.5, 0.4), (1.0, 1.0))
REFUSED = [
    # alpha's points, sigma's points, what is said
    (((0.0, 0.9), (1.0, 0.0)), NONE_TO_ONE, r"alpha is 0.9 at r = 0.*drag .* to \(0, 1\)"),
    (ONE_TO_NONE, ((0.0, 0.1), (1.0, 1.0)), r"sigma is 0.1 at r = 0.*drag .* to \(0, 0\)"),
    (ONE_TO_NONE, ((0.0, 0.0), (0.5, 0.5), (1.0, 0.0)), "sigma is 0 at r = 1.*raise its last"),
    (((0.0, 1.0), (1.0, 0.2)), NONE_TO_ONE, r"alpha is 0.2 and sigma 1 at r = 1.*at most 0.05"),
    (((0.0, 1.0), (0.7, -0.1), (1.0, 0.0)), NONE_TO_ONE, "alpha is -0.1 at r = 0.7; it must not"),
    (ONE_TO_NONE, DIP, r"falls at r = 0.5\d*, where sigma is 0.\d+ and alpha 0.\d+; let sigma"),
    (FLAT, PAUSE, r"stays up to 0.5 from r = 0.25, where sigma is 0.4 and alpha 0.5; let sigma"),
    (ONE_TO_NONE, ((0.1, 0.0), (1.0, 1.0)), r"stays up to 0.1 from r = 0, where sigma is 0 and"),
    (((0.0, 1.0), (0.8, 0.0)), NONE_TO_ONE, r"stays up to 1 from r = 0.8, .* alpha 0;"),
]


@pytest.mark.parametrize("kind", INTERPOLATIONS)
@pytest.mark.parametrize(("alpha", "sigma", "message"), REFUSED)
def test_what_is_no_path_is_refused(alpha, sigma, message, kind):
    with pytest.raises(ValueError, match=message):
        interpolant_from_curves(Curve(alpha, kind), Curve(sigma, kind))


def alpha_rises(by, kind="linear"):
    """Curves whose alpha rises by a little over a stretch where sigma is nearly level."""
    alpha = Curve(((0.0, 1.0), (0.5, 0.5), (0.6, 0.5 + by), (1.0, 0.0)), kind)
    return alpha, Curve(((0.0, 0.0), (0.5, 0.5), (0.6, 0.51), (1.0, 1.0)), kind)


def test_the_turning_point_of_the_ratio_is_exact():
    """On the middle stretch rho' has the sign of .01 alpha - by sigma, so by = .01 is the limit."""
    assert interpolant_from_curves(*alpha_rises(0.01 - 1e-9)).name == "curve"
    with pytest.raises(ValueError, match=r"falls at r = 0.5, where sigma is 0.5 and alpha 0.5"):
        interpolant_from_curves(*alpha_rises(0.01 + 1e-9))


def test_a_fall_between_the_points_is_found():
    """rho rises from tenth to tenth and yet dips in between."""
    alpha, sigma = alpha_rises(0.0095, "monotone_cubic")
    grid = [i / 10 for i in range(10)]
    ratios = [sigma(r) / alpha(r) for r in grid]
    assert ratios == sorted(ratios)
    with pytest.raises(ValueError, match=r"falls at r = 0\.5"):
        interpolant_from_curves(alpha, sigma)


def test_without_the_check_of_the_ratio_such_curves_pass(monkeypatch):
    monkeypatch.setattr(drawn_path, "_check_rising", lambda alpha, sigma: None)
    sigmas = in_interpolant(interpolant_from_curves(Curve(ONE_TO_NONE), Curve(DIP)), 500)
    assert sigmas != sorted(sigmas, reverse=True)
