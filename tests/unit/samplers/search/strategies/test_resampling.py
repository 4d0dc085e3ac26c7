"""Resampling: copies as many as the weights say, on average, and never of what weighs nothing."""

import math
from fractions import Fraction
from random import Random

import pytest

from flowsearch.samplers.search.strategies.resampling import SCHEMES

WEIGHTS = [0.05, 0.0, 0.4, 0.15, 0.3, 0.0, 0.1]


class Edge(Random):
    """Uniform numbers at the very end of their range."""

    def random(self):
        return math.nextafter(1.0, 0.0)


def counts(ancestors, size):
    return [ancestors.count(index) for index in range(size)]


def mean_counts(scheme, weights, count, draws=4000):
    random, total = Random(7), [0] * len(weights)
    for _ in range(draws):
        ancestors = scheme(weights, count, random)
        assert len(ancestors) == count
        total = [a + b for a, b in zip(total, counts(ancestors, len(weights)), strict=True)]
    return [number / draws for number in total]


def is_unbiased(scheme, count, draws=4000):
    """Whether the mean number of copies is count W_i, within 5 standard errors at most."""
    found = mean_counts(scheme, WEIGHTS, count, draws)
    wanted = [count * w for w in WEIGHTS]
    # no scheme has more variance than the multinomial one
    errors = [5.0 * math.sqrt(count * w * (1.0 - w) / draws) for w in WEIGHTS]
    return all(abs(a - b) <= e for a, b, e in zip(found, wanted, errors, strict=True))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("count", [1, 3, 7, 12, 50])
def test_the_number_of_copies_is_unbiased_for_any_count(name, count):
    assert is_unbiased(SCHEMES[name], count)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_cap_is_seen(name):
    """The mutant: the last particle can never be chosen."""

    def capped(weights, count, random):
        return [min(a, len(weights) - 2) for a in SCHEMES[name](weights, count, random)]

    assert not is_unbiased(capped, 7)


@pytest.mark.parametrize("name", SCHEMES)
def test_weights_need_no_sum_of_one(name):
    for scale in (1e-300, 3.0, 1e300):
        assert is_unbiased(
            lambda w, n, r, k=scale: SCHEMES[name]([k * x for x in w], n, r), 5, 2000
        )


@pytest.mark.parametrize("name", SCHEMES)
def test_what_weighs_nothing_is_never_chosen(name):
    random = Random(3)
    for trial in range(400):
        weights = [random.random() if random.random() < 0.6 else 0.0 for _ in range(64)]
        weights[-1] = 0.0
        source = Edge() if trial % 2 else random
        total = math.fsum(weights)
        for given in (weights, [w / total for w in weights]):
            chosen = SCHEMES[name](given, 1 + trial % 90, source)
            assert all(weights[a] > 0.0 for a in chosen)


@pytest.mark.parametrize("name", SCHEMES)
def test_the_edge_where_rounding_ends_below_one(name):
    weights = [0.1] * 10 + [0.0]
    assert math.fsum(weights) == 1.0 > sum(weights)
    for count in (1, 10, 11, 37):
        assert max(SCHEMES[name](weights, count, Edge())) == 9
    assert SCHEMES[name]([0.0, 5e-324, 0.0], 3, Edge()) == [1, 1, 1]


@pytest.mark.parametrize("name", ["systematic", "residual"])
def test_copies_are_the_expected_number_rounded(name):
    random = Random(5)
    for _ in range(200):
        for index, number in enumerate(counts(SCHEMES[name](WEIGHTS, 11, random), len(WEIGHTS))):
            expected = 11 * Fraction(WEIGHTS[index])
            assert number >= math.floor(expected)
            assert name == "residual" or number <= math.ceil(expected)


def test_one_in_each_part():
    random = Random(5)
    for _ in range(200):
        places = SCHEMES["stratified"]([0.25] * 4, 4, random)
        assert places == [0, 1, 2, 3]


def test_equal_weights_are_kept_by_all_but_the_multinomial_scheme():
    for name in SCHEMES:
        kept = [SCHEMES[name]([0.2] * 5, 5, Random(seed)) == [*range(5)] for seed in range(20)]
        assert all(kept) == (name != "multinomial")


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("wrong", [[], [0.0, 0.0], [0.5, -0.1], [math.nan, 1.0], [math.inf]])
def test_weights_that_are_none_are_refused(name, wrong):
    with pytest.raises(ValueError, match="finite, at least 0 and not all 0"):
        SCHEMES[name](wrong, 3, Random(0))
