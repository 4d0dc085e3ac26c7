"""The nearest right picture: it is right, it is near, and the way to it is the gradient."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from flowsearch.demo.prompt import parse
from flowsearch.demo.scene import Scene, draw
from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.pixels.nearest_scene import fitting, nearest_scene
from flowsearch.rewards.pixels.shape_count import ShapeCount, count_shapes, patches_of, wrong
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity, cover, fidelity

PROMPTS = Path(__file__).parents[4] / "benchmarks" / "prompts.json"
SCENES = [Scene(tuple(parse(text))) for text in json.loads(PROMPTS.read_text())["hard"][:6]]


@cache
def picture(index):
    return draw(SCENES[index], np.random.default_rng(index))


def tensor(*pictures):
    return torch.from_numpy(np.stack(pictures))


def apart(one, other):
    """Squared distance in shapes' worth of ink."""
    return float(np.square(one - other).sum()) / 100.0


@pytest.mark.parametrize("index", range(len(SCENES)))
def test_the_nearest_scene_of_anything_has_the_wanted_counts(index):
    scene, random = SCENES[index], np.random.default_rng(index)
    noise = random.uniform(0.5, 1.0, (64, 64, 3)).astype(np.float32)
    for given in (picture(index), noise, np.ones_like(noise), np.zeros_like(noise)):
        assert count_shapes(nearest_scene(given, scene.counts)) == scene.counts


def test_it_stands_where_a_right_picture_does():
    far = [
        apart(picture(index), nearest_scene(picture(index), SCENES[index].counts))
        for index in range(6)
    ]
    assert np.median(far) < 0.25  # a true scene has sizes and places between the rounded ones
    assert max(far) < 2.0


@pytest.mark.parametrize("change", [-1, 1])
def test_a_shape_missing_or_too_many_costs_about_one(change):
    costs = []
    for index, scene in enumerate(SCENES):
        wanted = dict(scene.counts)
        wanted[max(wanted, key=wanted.get)] += change
        near = nearest_scene(picture(index), wanted)
        assert wrong(count_shapes(near), wanted) == 0
        costs.append(apart(picture(index), near))
    assert 0.6 < np.median(costs) < 1.6


def test_what_is_surplus_and_unlike_what_is_missing_is_drawn_over():
    scene = Scene(tuple(parse("two red circles and one blue square")))
    given = draw(scene, np.random.default_rng(3))
    wanted = {("red", "circle"): 3}
    near = nearest_scene(given, wanted)
    blue = next(part for part in patches_of(given).shapes if part.colour == "blue")
    assert count_shapes(near) == wanted
    assert "red" in {p.colour for p in patches_of(near[blue.box]).shapes}


def test_following_the_gradient_makes_the_count_right():
    """Ascent on pixels alone; each step is as long as a third of what is left."""
    wanted = {("red", "circle"): 4, ("green", "triangle"): 2}
    reward = ShapeCount(wanted)
    images = tensor(picture(0), draw(Scene(((5, "red", "circle"),)), np.random.default_rng(1)))
    assert (reward.score(images) < -1.0).all()
    for _ in range(12):
        images = images + 16.0 * gradient_of(reward, images).gradient
    assert reward.score(images).tolist() == [0.0, 0.0]
    assert (gradient_of(reward, images).values > -0.1).all()


def test_values_and_gradients_at_other_sizes_are_those_of_the_same_picture():
    reward = ShapeCount({**SCENES[0].counts, ("green", "circle"): 1})
    small = tensor(picture(0))
    large = small.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    there, here = gradient_of(reward, large), gradient_of(reward, small)
    assert torch.allclose(there.values, here.values, rtol=0.2)
    assert there.gradient.shape == large.shape
    assert fitting(large).shape == small.shape
    assert gradient_of(reward, torch.rand(2, 128, 40, 4)).gradient[..., 3].abs().max() == 0.0


@pytest.mark.parametrize("reward", [ShapeCount(SCENES[1].counts), ShapeFidelity()])
def test_an_empty_picture_has_a_finite_gradient(reward):
    for shade in (0.0, 0.5, 0.96, 1.0):
        assert gradient_of(reward, torch.full((1, 64, 64, 3), shade)).gradient.isfinite().all()


def test_nothing_wanted_is_an_empty_picture():
    found = gradient_of(ShapeCount({("red", "circle"): 0}), torch.full((1, 64, 64, 3), 0.96875))
    assert float(found.values) == 0.0
    assert not found.gradient.any()
    assert float(gradient_of(ShapeCount({}), tensor(picture(0))).values) < -8.0


def test_what_finds_no_place_is_left_out():
    near = nearest_scene(picture(0), {("red", "square"): 900})
    assert 12 <= count_shapes(near)["red", "square"] <= 30
    assert nearest_scene(np.ones((1, 4096, 3), np.float32), {("red", "circle"): 1}).min() == 1.0


@pytest.mark.parametrize("reward", [ShapeCount(SCENES[1].counts), ShapeFidelity()])
def test_what_stands_in_changes_as_its_gradient_says(reward):
    rows = tensor(*(picture(index) for index in range(3))).double()
    found = gradient_of(reward, rows)
    ahead, back = (
        gradient_of(reward, rows + sign * 1e-7 * found.gradient).values for sign in (1.0, -1.0)
    )
    told = found.gradient.square().flatten(1).sum(dim=1)
    assert torch.allclose((ahead - back) / 2e-7, told, rtol=1e-4)


def test_the_fidelity_that_stands_in_is_near_the_fidelity_and_rises_with_its_gradient():
    generator = np.random.default_rng(4)
    rough = np.stack([picture(i) + generator.normal(0, 0.05, (64, 64, 3)) for i in range(4)])
    images = torch.from_numpy(rough).float()
    found = gradient_of(ShapeFidelity(), images)
    before = torch.tensor([fidelity(one) for one in images.numpy()])
    assert torch.allclose(found.values, before, atol=0.05)
    moved = images + 0.03 * found.gradient.sign()
    assert (ShapeFidelity().score(moved) > before + 0.02).all()


@pytest.mark.parametrize("seed", range(6))
def test_the_tips_of_triangles_are_sharp_enough_to_be_counted(seed):
    wanted = {("yellow", "triangle"): 5, ("red", "triangle"): 6}
    noise = np.random.default_rng(seed).uniform(0.5, 1.0, (64, 64, 3)).astype(np.float32)
    assert count_shapes(nearest_scene(noise, wanted)) == wanted


def test_a_small_change_moves_no_shape():
    given = np.full((64, 64, 3), 0.96875, np.float32)
    given += cover("circle", 30.05, 34.1, 5.3, (64, 64))[..., None] * np.float32([-0.1, -0.8, -0.8])
    ramp = np.linspace(-1e-3, 1e-3, 64, dtype=np.float32)[None, :, None]
    outlines = []
    for picture_ in (given, given + ramp, given - ramp):
        ink = 0.96875 - nearest_scene(picture_, {("red", "circle"): 1})[..., 1]
        outlines.append(ink / ink.max())
    for other in outlines[1:]:
        assert np.allclose(outlines[0], other, atol=2e-6)
