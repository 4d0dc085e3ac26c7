"""Fidelity is near 1 for true shapes, whatever their number, and falls with every damage."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from flowsearch.demo.scene import Scene, draw, random_scene
from flowsearch.rewards.base import Reward
from flowsearch.rewards.pixels.shape_count import COLOURS, SHAPES, count_shapes
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity, cover, fidelity

SIZE = (64, 64)


def blank(value=1.0):
    return np.full((*SIZE, 3), value, dtype=np.float32)


def put(picture, shape, x, y, radius=5.3, colour="red", amount=1.0):
    """Paint a shape over a picture."""
    paint = np.array(COLOURS[colour], dtype=np.float32)
    share = amount * cover(shape, x, y, radius, SIZE)[..., None]
    return (picture + share * (paint - picture)).astype(np.float32)


def true_scenes(number, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < number:
        scene = random_scene(rng)
        picture = draw(scene, rng)
        if count_shapes(picture) == scene.counts:  # two of one colour may touch
            found.append(picture)
    return found


def falls(values):
    return all(b < a for a, b in itertools.pairwise(values))


def test_true_scenes_are_near_one():
    values = [fidelity(picture) for picture in true_scenes(60)]
    assert min(values) > 0.96
    assert max(values) <= 1.0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("colour", COLOURS)
def test_adding_true_shapes_changes_nothing(shape, colour):
    picture, values = blank(0.96), []
    for x, y in (
        (12.3, 10.8),
        (32.1, 12.2),
        (51.9, 11.4),
        (13.7, 40.5),
        (33.0, 41.3),
        (50.2, 42.1),
    ):
        picture = put(picture, shape, x, y, colour=colour)
        values.append(fidelity(picture))
    assert min(values) > 0.97
    assert max(values) - min(values) < 0.02


def test_equal_damage_counts_alike_whatever_the_number():
    rng = np.random.default_rng(1)
    blurred = [
        fidelity(ndimage.gaussian_filter(draw(Scene(((n, "blue", "circle"),)), rng), (1, 1, 0)))
        for n in (1, 2, 4, 6)
    ]
    assert max(blurred) - min(blurred) < 0.04


def test_blur_lowers_it():
    for picture in true_scenes(8):
        values = [fidelity(picture)]
        for width in (0.5, 0.75, 1.0, 1.5, 2.0):
            values.append(fidelity(ndimage.gaussian_filter(picture, (width, width, 0))))
        assert falls(values)


def test_noise_lowers_it():
    for number, picture in enumerate(true_scenes(8)):
        z = np.random.default_rng(number).normal(size=picture.shape)
        noisy = [np.clip(picture + s * z, 0, 1) for s in (0, 0.02, 0.05, 0.1)]
        assert falls([fidelity(each.astype(np.float32)) for each in noisy])


@pytest.mark.parametrize("shape", SHAPES)
def test_merging_lowers_it(shape):
    apart = put(put(blank(), shape, 20, 30), shape, 40, 30)
    merged = [put(put(blank(), shape, 30 - d, 30), shape, 30 + d, 30) for d in (1.0, 2.0, 4.0)]
    assert falls([fidelity(apart), *map(fidelity, merged)])
    assert fidelity(merged[-1]) < 0.75


def test_another_outline_lowers_it():
    whole = put(blank(), "circle", 30, 30, 6.0)
    bitten = np.where(cover("circle", 35, 27, 3.0, SIZE)[..., None] > 0.5, 1.0, whole)
    narrow = whole.copy()
    narrow[:, 32:] = 1.0
    assert falls([fidelity(each.astype(np.float32)) for each in (whole, bitten, narrow)])


def test_impure_colour_lowers_it():
    values = []
    for strength in (0.0, 0.2, 0.4):
        picture = put(blank(), "square", 30, 30, 6.0)
        picture[26:30, 26:30] += strength * (np.float32([0.1, 0.6, 0.2]) - picture[26:30, 26:30])
        values.append(fidelity(picture))
    pale = fidelity(put(blank(), "square", 30, 30, 6.0, amount=0.75))
    assert falls(values)
    assert pale < 0.95 * values[0]


def test_a_kind_is_not_told_by_its_name():
    """Between two kinds the value bends, but does not jump."""
    square = cover("square", 30, 30, 6.0, SIZE)[..., None]
    disc = cover("circle", 30, 30, 6.0, SIZE)[..., None]
    paint = np.float32(COLOURS["green"])
    values = []
    for share in np.linspace(0, 1, 21):
        mixed = (1 - share) * square + share * disc
        values.append(fidelity((1 + mixed * (paint - 1)).astype(np.float32)))
    assert max(abs(b - a) for a, b in itertools.pairwise(values)) < 0.03
    assert min(values) < 0.96


def test_specks_count_in_proportion_to_their_area():
    clean = put(blank(), "circle", 20, 20)
    values = [fidelity(clean)]
    for side in (1, 2, 3):
        speckled = clean.copy()
        speckled[50 : 50 + side, 50 : 50 + side] = COLOURS["blue"]
        values.append(fidelity(speckled))
    expected = [values[0] / (1 + side * side / 14) for side in (0, 1, 2, 3)]
    assert values == pytest.approx(expected, abs=1e-3)


def test_nothing_drawn_has_none():
    assert fidelity(blank()) == 0.0
    assert fidelity(blank(0.5)) == 0.0


def test_it_is_a_reward_and_a_batch_is_its_singles():
    images = torch.from_numpy(np.stack(true_scenes(4)))
    reward = ShapeFidelity()
    assert isinstance(reward, Reward)
    together = reward.score(images)
    assert together.dtype == torch.float32
    assert together.tolist() == [reward.score(images[i : i + 1]).item() for i in range(4)]
    assert reward.score(images[:0]).shape == (0,)
    assert bool(((together >= reward.spec.low) & (together <= reward.spec.high)).all())
    with pytest.raises(ValueError, match="Shape Fidelity"):
        reward.score(images[0])
