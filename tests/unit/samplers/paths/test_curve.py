"""Curves through points: values, slopes, no overshoot, JSON. The host's own values: tests/host."""

import json
import math
import random
from itertools import pairwise

import pytest
import torch

from flowsearch.samplers.paths import curve as module
from flowsearch.samplers.paths.curve import INTERPOLATIONS, Curve

WILD = ((0.05, 0.2), (0.1, 0.9), (0.4, 0.9), (0.45, 0.1), (0.8, 0.3), (0.95, 1.0))
BOTH = pytest.mark.parametrize("kind", INTERPOLATIONS)
GRID = torch.linspace(0.0, 1.0, 1001, dtype=torch.float64)


def between(points):
    """Grid of x strictly inside the pieces, where a curve of either kind is smooth."""
    return torch.tensor([x for x in GRID.tolist() if min(abs(x - p[0]) for p in points) > 1e-6])


def slope_error(curve):
    x = between(curve.points).double().requires_grad_()
    found = torch.autograd.grad(curve(x).sum(), x)[0]
    return float((found - curve.slope(x.detach())).abs().max())


@BOTH
def test_slope_equals_autograd(kind):
    assert slope_error(Curve(WILD, kind)) < 1e-11


def test_a_wrong_slope_is_seen(monkeypatch):
    wrong = lambda x, x0, x1, y0, y1, m0, m1: (y1 - y0) / (x1 - x0)  # noqa: E731
    monkeypatch.setattr(module, "slope", wrong)
    assert slope_error(Curve(WILD)) > 0.1


@BOTH
def test_points_are_met_to_the_bit_and_outside_is_level(kind):
    curve = Curve(WILD, kind)
    assert [curve(x) for x, _ in WILD] == [y for _, y in WILD]
    assert (curve(0.0), curve(1.0)) == (0.2, 1.0)
    assert (curve.slope(0.01), curve.slope(0.99)) == (0.0, 0.0)


@BOTH
def test_floats_and_tensors_agree(kind):
    curve = Curve(WILD, kind)
    for f in (curve, curve.slope):
        floats = torch.tensor([f(x) for x in GRID.tolist()], dtype=torch.float64)
        torch.testing.assert_close(f(GRID), floats, rtol=1e-14, atol=1e-15)
    x = torch.rand(2, 3)
    assert (curve(x).dtype, curve(x).shape) == (torch.float32, (2, 3))


def overshoot(kind):
    """Largest step in the wrong direction within a piece, over random points."""
    source, wrong = random.Random(5), 0.0
    for _ in range(50):
        xs = sorted(source.random() for _ in range(6))
        for piece in Curve(tuple((x, source.random() ** 4) for x in xs), kind).pieces:
            x = torch.linspace(*piece[:2], 101, dtype=torch.float64)
            y = module.height(x, *piece)  # before what is a rounding is cut off
            wrong = max(wrong, float(-(y.diff() * math.copysign(1.0, piece[3] - piece[2])).min()))
    return wrong


@BOTH
def test_curves_do_not_overshoot(kind):
    assert overshoot(kind) < 1e-15


def test_unlimited_slopes_overshoot(monkeypatch):
    def means(chords):
        inner = [0.5 * (a + b) for a, b in pairwise(chords)]
        return list(pairwise([*chords[:1], *inner, *chords[-1:]]))

    monkeypatch.setitem(INTERPOLATIONS, "monotone_cubic", means)
    assert overshoot("monotone_cubic") > 0.01


def test_straight_lines_and_smooth_ones():
    assert Curve(((0.2, 1.0), (0.6, 3.0)), "linear")(0.3) == pytest.approx(1.5, rel=1e-15)
    smooth = Curve(((0.0, 0.0), (0.5, 0.0), (1.0, 1.0)))
    t = 0.25  # slopes 0 and, at the end, the chord's 2
    assert smooth(0.5 + 0.5 * t) == pytest.approx(t * t * (3 - 2 * t) - t * t * (1 - t))
    assert Curve(((0.5, 0.25),))(0.9) == pytest.approx(0.25, rel=1e-15)


@BOTH
def test_json_round_trip(kind):
    curve = Curve(WILD, kind)
    assert Curve.from_json(json.loads(json.dumps(curve.to_json()))) == curve
    shuffled = {"points": [list(p) for p in reversed(WILD)]}
    assert Curve.from_json(shuffled) == Curve(WILD, "monotone_cubic")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curve(()), "at least one point"),
        (lambda: Curve(((0.5, 1.0),), "spline"), "unknown interpolation 'spline'.*linear, mono"),
        (lambda: Curve(((1.5, 1.0),)), r"x must be in \[0, 1\]"),
        (lambda: Curve(((0.5, math.nan),)), "y a finite number"),
        (lambda: Curve(((0.5, 1.0), (0.5, 2.0))), "rise and differ.*move or delete one"),
        (lambda: Curve.from_json({"point": []}), r"keys points, interpolation; got \['point'\]"),
        (lambda: Curve.from_json({"points": [[0.5]]}), r"pairs of numbers \(x, y\)"),
        (lambda: Curve.from_json({"points": torch.tensor(0.5)}), r"pairs of numbers \(x, y\)"),
    ],
)
def test_illegal_curves_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([[0, 0], [1, 10**400]], "pairs of numbers"),
        ([[10**400, 0]], "pairs of numbers"),
        (dict, "pairs of numbers"),
        (7, "pairs of numbers"),
        ([[i / 200_000, 0.5] for i in range(200_000)], "2000 points at most, got 200000"),
    ],
)
def test_numbers_that_no_float_holds_and_more_points_than_a_person_draws(points, said):
    with pytest.raises(ValueError, match=said):
        Curve.from_json({"points": points})


def test_a_piece_is_found_by_where_it_is():
    curve = Curve(tuple((i / 999, (i / 999) ** 2) for i in range(1000)))
    for piece in curve.pieces:
        assert curve.piece_at(0.5 * (piece[0] + piece[1])) is piece
