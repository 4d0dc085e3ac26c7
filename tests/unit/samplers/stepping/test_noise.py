"""Keyed noise: a pure function of integers."""

import itertools

import pytest
import torch

from flowsearch.samplers.stepping.noise import digest, keyed_normal, row_key


def test_noise_is_a_function_of_its_key_alone():
    torch.manual_seed(0)
    first = keyed_normal((4, 8, 8), 5, 0, 2)
    keyed_normal((3,), 1)
    torch.randn(100)
    assert torch.equal(first, keyed_normal((4, 8, 8), 5, 0, 2))
    assert (first.dtype, first.device.type, first.shape) == (torch.float32, "cpu", (4, 8, 8))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    keyed_normal((16,), 1, 2, 3)
    assert torch.equal(before, torch.get_rng_state())


def test_keys_tell_order_length_sign_and_every_bit_apart():
    keys = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (-1,), (2**63,), (2**32,), (2**63 - 1, 0)]
    values = [digest(*key) for key in keys[1:]]
    assert len(set(values)) == len(values)
    draws = [keyed_normal((4,), *key) for key in keys[1:]]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(draws, 2))


def test_streams_are_standard_normal_and_independent():
    draws = torch.stack([keyed_normal((2, 40), 11, i, 0) for i in range(500)]).double().flatten(1)
    count = draws.numel()
    assert abs(float(draws.mean())) < 5.0 / count**0.5
    assert abs(float(draws.std()) - 1.0) < 5.0 / (2.0 * count) ** 0.5
    neighbours = float((draws[1:] * draws[:-1]).mean())
    assert abs(neighbours) < 5.0 / count**0.5


def test_row_key_sees_the_row_not_its_batch():
    batch = torch.randn(3, 4, 8, 8)
    keys = [row_key(batch[i]) for i in range(3)]
    assert len(set(keys)) == 3
    assert row_key(batch[1].clone()) == row_key(batch[[2, 1]][1]) == keys[1]
    assert row_key(batch[1].double()) == keys[1]
    assert row_key(batch[1].transpose(1, 2).contiguous().transpose(1, 2)) == keys[1]
    assert all(0 <= key < 2**64 for key in keys)


def test_latent_takes_the_place_of_absent_noise():
    zero, latent = torch.zeros(4, 8, 8), torch.randn(4, 8, 8)
    assert row_key(zero, latent) == row_key(latent)
    assert row_key(latent, zero) == row_key(latent)
    assert row_key(zero) == row_key(-zero) == row_key(zero, -zero)


def test_illegal_keys_are_refused():
    with pytest.raises(ValueError, match="at least one integer"):
        digest()
    with pytest.raises(ValueError, match="does not fit in 64 bits"):
        keyed_normal((2,), 2**64)
