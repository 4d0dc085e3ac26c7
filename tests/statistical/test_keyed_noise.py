"""Keyed noise is standard normal within a draw, across keys, and independent between them."""

import math

import torch
from fields import FLOAT64, ks_distance

from flowsearch.samplers.stepping.noise import keyed_normal

# rows: keys that differ in their last integer, as candidates of one request do
DRAWS = torch.stack([keyed_normal((4, 16), 12345, 0, 1, i) for i in range(5000)]).to(FLOAT64)


def ks_of_normal(sample):
    """Return sqrt(n) times the distance to N(0, 1); above 2.2 in 1 of 8,000 samples."""
    ordered = sample.flatten().sort().values
    return ks_distance(ordered, torch.special.ndtr(ordered)) * math.sqrt(sample.numel())


def test_normal_within_draws_and_across_keys():
    assert ks_of_normal(DRAWS) < 2.2
    assert ks_of_normal(DRAWS[:, 0, 0]) < 2.2
    assert ks_of_normal(DRAWS[:, 3, 15]) < 2.2


def test_a_wrong_scale_is_seen():
    assert ks_of_normal(1.02 * DRAWS) > 2.2


def test_neighbouring_keys_are_independent():
    for lag in (1, 2, 256):
        product = (DRAWS[lag:] * DRAWS[:-lag]).mean(0)
        assert float(product.abs().max()) * math.sqrt(len(DRAWS) - lag) < 5.0
    squares = DRAWS.square() - 1.0
    assert abs(float((squares[1:] * squares[:-1]).mean())) < 5.0 * 2.0 / math.sqrt(squares.numel())
