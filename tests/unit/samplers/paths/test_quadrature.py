"""Gauss-Legendre quadrature."""

import math

import pytest

from flowsearch.samplers.paths.quadrature import NODES, gauss_legendre, integrate_panels


def test_weights_fill_the_interval():
    assert sum(w for _, w in gauss_legendre(NODES)) == pytest.approx(2.0, abs=1e-14)


@pytest.mark.parametrize("count", [1, 2, 5, NODES])
def test_exact_up_to_its_degree_and_not_beyond(count):
    def error(degree):
        exact = 2.0 / (degree + 1)
        return abs(sum(w * x**degree for x, w in gauss_legendre(count)) - exact)

    assert error(2 * count - 2) < 1e-14
    assert error(2 * count) > 1e-12 or count == NODES


def test_smooth_integrals_to_nearly_all_digits():
    assert integrate_panels(math.exp, [-40.0, 3.0]) == pytest.approx(math.exp(3.0), rel=1e-13)
    assert integrate_panels(math.sin, [0.0, 1.0, 1.5, math.pi]) == pytest.approx(2.0, rel=1e-14)


def test_a_kink_needs_to_be_named():
    def kink(x):
        return abs(x - 0.3)

    exact = (0.3**2 + 0.7**2) / 2
    assert integrate_panels(kink, [0.0, 0.3, 1.0]) == pytest.approx(exact, rel=1e-14)
    assert abs(integrate_panels(kink, [0.0, 1.0]) - exact) > 1e-5
