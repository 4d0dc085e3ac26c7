"""Lists of sigmas: spacing, ends, and the published table."""

import math
from itertools import pairwise

import pytest

from flowsearch.samplers.paths.interpolant import (
    INTERPOLANTS,
    VP,
    named,
    r_from_sigma,
    scale,
    sigma_from_r,
)
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import in_interpolant, rbf_reference, shifted, uniform
from flowsearch.samplers.stepping.transition import Transition

# Kim et al. 2025, appendix C, N = 10: VP time, linear sigma, alpha-bar, g, ds, noise std, fraction
PUBLISHED = """
1.0000 .9935 .0066 3.000 .0050 .212 .212
 .9950 .9931 .0069 2.970 .0152 .366 .366
 .9798 .9920 .0080 2.880 .0259 .463 .463
 .9539 .9898 .0103 2.730 .0374 .528 .528
 .9165 .9856 .0146 2.520 .0505 .566 .566
 .8660 .9776 .0229 2.250 .0660 .578 .579
 .8000 .9617 .0398 1.920 .0859 .563 .564
 .7141 .9289 .0763 1.530 .1141 .517 .524
 .6000 .8591 .1619 1.080 .1641 .438 .473
 .4359 .7087 .3802  .570 .4359 - -
"""


def reference_table():
    """Rebuild the published table from the list and from our Euler-Maruyama coefficients."""
    transition = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")
    for sigma, sigma_next in pairwise(rbf_reference(10)):
        r, r_next = r_from_sigma(VP, sigma), r_from_sigma(VP, sigma_next)
        g = math.sqrt(2.0 * transition.law.k(sigma) * 0.5 * (0.1 + 19.9 * r))
        fraction = transition.coefficients(sigma, sigma_next).weight_z
        noise = fraction * sigma_next * scale(VP, r_next)
        yield r, sigma, VP.alpha(r), g, r - r_next, noise, fraction


def test_published_schedule_to_its_printed_digits():
    printed = [line.split() for line in PUBLISHED.strip().splitlines()]
    for row, found in zip(printed, reference_table(), strict=True):
        for text, value in zip(row, found, strict=True):
            if text != "-":
                unit = 10.0 ** -len(text.partition(".")[2])
                assert abs(value - float(text)) <= 0.5 * unit + 1e-12, (text, value)


def test_reference_list_ends_in_the_prediction():
    sigmas = rbf_reference(10)
    assert (len(sigmas), sigmas[-1]) == (11, 0.0)
    transition = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")
    assert transition.coefficients(sigmas[-2], 0.0).lands_on_denoised


LISTS = [(name, shift) for name in INTERPOLANTS for shift in (1.0, 3.0, 0.5)]


@pytest.mark.parametrize(("name", "shift"), LISTS)
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.0), (0.9, 0.0), (0.95, 0.1), (0.001, 0.0)])
def test_lists_fall_from_start_to_end(name, shift, start, end):
    for steps in (1, 2, 7, 50):
        sigmas = in_interpolant(name, steps, shift, start, end)
        assert len(sigmas) == steps + 1
        assert all(a > b for a, b in pairwise(sigmas))
        noise_end = shifted(sigma_from_r(named(name), named(name).r_noise), shift)
        assert sigmas[0] == pytest.approx(min(start, noise_end), rel=1e-12)
        assert sigmas[-1] == end


@pytest.mark.parametrize("name", ["linear", "vp", "trigonometric"])
def test_lists_are_even_in_their_own_time(name):
    sigmas = in_interpolant(name, 9, shift=3.0, start=0.9, end=0.05)
    times = [r_from_sigma(named(name), shifted(s, 1.0 / 3.0)) for s in sigmas]
    steps = [a - b for a, b in pairwise(times)]
    assert steps == pytest.approx([steps[0]] * 9, rel=1e-9)
    even = [a - b for a, b in pairwise(sigmas)]
    assert max(even) > 1.1 * min(even)


def test_ve_list_is_even_in_the_seventh_root():
    sigmas = in_interpolant("ve", 8)
    roots = [(s / (1.0 - s)) ** (1 / 7) for s in sigmas[:-1]]
    steps = [a - b for a, b in pairwise(roots)]
    assert steps == pytest.approx([(80 ** (1 / 7) - 0.002 ** (1 / 7)) / 8] * 7, rel=1e-9)


def test_uniform_is_what_it_says():
    assert uniform(4) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0], abs=1e-15)
    assert uniform(10)[0] == 1.0
    assert uniform(2, shift=3.0) == pytest.approx([1.0, 0.75, 0.0])


def test_shift_is_undone_by_its_inverse():
    for sigma in (0.0, 0.2, 0.77, 1.0):
        assert shifted(shifted(sigma, 3.0), 1.0 / 3.0) == pytest.approx(sigma, abs=1e-15)
    assert shifted(0.5, 3.0) == 0.75


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: uniform(0), "steps is 0; at least 1"),
        (lambda: rbf_reference(0), "steps is 0; at least 1"),
        (lambda: uniform(4, start=0.2, end=0.2), "0 <= end < start <= 1"),
        (lambda: uniform(4, start=1.2), "0 <= end < start <= 1"),
        (lambda: uniform(4, shift=0.0), "shift 0.0 must be a positive number"),
        (lambda: uniform(4, shift=math.inf), "must be a positive number"),
        (lambda: shifted(1.5, 1.0), r"sigma 1.5 is outside \[0, 1\]"),
        (lambda: in_interpolant("host", 4), "unknown interpolant 'host'"),
        (
            lambda: in_interpolant("vp", 4, end=0.999),
            r"end 0.999 is above the noise end 0.9935 of vp",
        ),
    ],
)
def test_illegal_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
