"""Two pictures exchange the places in which they differ, and nothing else."""

import pytest
import torch
from scipy import ndimage

from flowsearch.samplers.search.recombination import Mix, exchanged, regions


def pictures(seed=0, patches=4, size=48):
    """Two pictures that differ in some square patches."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(2, 3, size, size, generator=generator)
    second = first.clone()
    for patch in range(patches):
        y, x = 2 + 11 * (patch // 4), 2 + 11 * (patch % 4)
        second[:, :, y : y + 5, x : x + 5] += 3.0
    return first, second


def test_regions_are_the_connected_components():
    first, second = pictures()
    labels = regions(first, second)
    for row in range(2):
        inside = labels[row] > 0
        expected, count = ndimage.label(inside.numpy())
        assert count == len(labels[row].unique()) - 1 == 4
        for number in range(1, count + 1):
            assert len(labels[row][torch.from_numpy(expected == number)].unique()) == 1


@pytest.mark.parametrize("shape", [(3, 2, 200), (3, 2, 24, 20), (2, 2, 6, 12, 10)])
def test_regions_agree_with_a_library_in_any_number_of_dimensions(shape):
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.randn(shape, generator=generator) for _ in range(2))
    for labels in regions(first, second):
        expected, count = ndimage.label(labels.numpy() > 0)
        pairs = {(a, b) for a, b in zip(expected.ravel(), labels.numpy().ravel(), strict=True)}
        assert len(pairs) == count + 1 > 3


def test_each_region_is_taken_whole_and_what_agrees_is_kept():
    first, second = pictures()
    labels = regions(first, second)
    mixed = exchanged(first, second, torch.randn_like(first), 0.5)
    for row in range(2):
        for number in labels[row].unique():
            place = labels[row] == number
            ours = torch.equal(mixed[row][:, place], first[row][:, place])
            theirs = torch.equal(mixed[row][:, place], second[row][:, place])
            assert ours if number == 0 else ours or theirs


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_each_region_is_taken_with_the_share_independently(share):
    first, second = pictures()
    first, second = (p[:1].expand(4000, -1, -1, -1) for p in (first, second))
    noise = torch.randn(4000, 3, 48, 48, generator=torch.Generator().manual_seed(2))
    # smaller pictures: the law is that of the noise
    mixed = exchanged(first, second, noise, share)
    taken = torch.stack(
        [(mixed[:, 0, 4, 4 + 11 * i] != first[:, 0, 4, 4 + 11 * i]).double() for i in range(4)]
    )
    error = (share * (1 - share) / 4000) ** 0.5
    assert (taken.mean(1) - share).abs().max() < 4.5 * error
    assert torch.corrcoef(taken).fill_diagonal_(0).abs().max() < 4.5 / 4000**0.5


def test_where_there_is_nothing_to_choose_from_smooth_halves_are_exchanged():
    first = torch.zeros(200, 2, 32, 32)
    noise = torch.randn(200, 2, 32, 32, generator=torch.Generator().manual_seed(3))
    mixed = exchanged(first, first + 1.0, noise, 0.5)
    shares = mixed.mean(dim=(1, 2, 3))
    assert 0.4 < float(shares.mean()) < 0.6
    assert float((shares > 0.05).double().mean()) > 0.99
    rough = (mixed[:, 0, 1:] != mixed[:, 0, :-1]).double().mean()
    assert rough < 0.2  # halves, not grains, whose neighbours differ in half of the places


def test_of_vectors_each_coordinate_is_a_region():
    first, second = torch.zeros(5000, 4), torch.ones(5000, 4)
    noise = torch.randn(5000, 4, generator=torch.Generator().manual_seed(4))
    mixed = exchanged(first, second, noise, 0.5)
    assert len(mixed.unique(dim=0)) == 16


def test_a_row_is_mixed_as_it_would_be_alone():
    first, second = pictures()
    noise = torch.randn_like(first)
    together = exchanged(first, second, noise, 0.5)
    for row in range(2):
        alone = exchanged(*(t[row : row + 1] for t in (first, second, noise)), 0.5)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_copies_one_of_the_two_is_refused(share):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        Mix(share)


def test_latents_in_one_row_are_mixed_each_by_itself():
    parts = [(3, 2, 12, 12), (2, 40)]
    generator = torch.Generator().manual_seed(5)

    def rows(change):
        made = [torch.randn(4, *shape, generator=generator) for shape in parts]
        for one in made:
            one[..., : one.shape[-1] // 3] += change
        return made

    first, second, noise = rows(0.0), rows(3.0), rows(0.0)
    packed = [
        torch.cat([t.flatten(1) for t in each], 1)[:, None] for each in (first, second, noise)
    ]
    mixed = exchanged(*packed, 0.5, parts)
    assert mixed.shape == packed[0].shape
    apart = [exchanged(*three, 0.5) for three in zip(first, second, noise, strict=True)]
    assert torch.equal(mixed[:, 0], torch.cat([t.flatten(1) for t in apart], 1))
    assert not torch.equal(mixed, exchanged(*packed, 0.5))
