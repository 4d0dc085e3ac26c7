"""The counter counts true scenes, and its language says what it means."""

import random

import numpy as np
import pytest
import torch

from flowsearch.demo import prompt as demo_prompt
from flowsearch.demo.scene import Scene, draw, held_out, random_scene
from flowsearch.rewards.base import Reward
from flowsearch.rewards.pixels.shape_count import (
    COLOURS,
    SHAPES,
    ShapeCount,
    count_shapes,
    parse_groups,
    patches_of,
    wrong,
)


def scenes(number: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    drawn = [random_scene(rng) for _ in range(number)]
    return drawn, [draw(scene, rng) for scene in drawn]


def right(drawn, pictures, count=count_shapes) -> float:
    return float(
        np.mean([wrong(count(p), s.counts) == 0 for s, p in zip(drawn, pictures, strict=True)])
    )


def test_true_scenes_are_counted_right():
    drawn, pictures = scenes(500)
    assert right(drawn, pictures) >= 0.98


def test_a_counter_blind_to_shape_or_colour_would_fail():
    drawn, pictures = scenes(200)

    def blind_to_shape(picture):
        total: dict = {}
        for (colour, _), n in count_shapes(picture).items():
            total[colour, "circle"] = total.get((colour, "circle"), 0) + n
        return total

    assert right(drawn, pictures, blind_to_shape) < 0.6
    swapped = [picture[..., ::-1] for picture in pictures]
    assert right(drawn, swapped) < 0.6


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_colour_and_shape_is_told_apart(colour, shape):
    rng = np.random.default_rng(1)
    for count in (1, 6):
        picture = draw(Scene(((count, colour, shape),)), rng)
        assert count_shapes(picture) == {(colour, shape): count}


def test_score_is_minus_the_sum_of_differences():
    rng = np.random.default_rng(2)
    picture = draw(Scene(((3, "red", "circle"), (2, "blue", "square"))), rng)
    image = torch.from_numpy(picture)[None]

    def score(text: str) -> float:
        return ShapeCount.from_groups(parse_groups(text)).score(image).item()

    assert score("three red circles and two blue squares") == 0
    assert score("four red circles and two blue squares") == -1
    assert score("three red circles") == -2
    assert score("three red squares and two blue squares") == -6
    assert score("") == -5


def test_batch_equals_singles_and_empty_batch_is_empty():
    _, pictures = scenes(5)
    images = torch.from_numpy(np.stack(pictures))
    reward = ShapeCount.from_groups(parse_groups("two red circles"))
    assert isinstance(reward, Reward)
    together = reward.score(images)
    assert together.dtype == torch.float32
    assert together.tolist() == [reward.score(images[i : i + 1]).item() for i in range(5)]
    assert reward.score(images.flip(0)).tolist() == together.tolist()[::-1]
    assert reward.score(images[:0]).shape == (0,)
    with_alpha = torch.cat([images, torch.ones_like(images[..., :1])], dim=-1)
    assert reward.score(with_alpha).tolist() == together.tolist()


def test_bad_pictures_are_refused_with_a_remedy():
    reward = ShapeCount({})
    images = torch.rand(2, 64, 64, 3)
    images[1, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="picture 1 of 2"):
        reward.score(images)
    with pytest.raises(ValueError, match="batch, height, width"):
        reward.score(images.permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match="Divide"):
        reward.score(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))


def test_both_forms_of_the_language_mean_the_same():
    expected = ((3, "red", "circle"), (1, "blue", "square"))
    for text in (
        "three red circles and one blue square",
        "3 red circles, a blue square",
        "red circle: 3\nblue square: 1",
        "THREE RED CIRCLES AND ONE BLUE SQUARES",
    ):
        assert parse_groups(text) == expected


def test_what_should_not_be_there_is_a_count_of_0():
    expected = ((2, "red", "circle"), (0, "blue", "square"))
    for text in (
        "two red circles, no blue squares",
        "two red circles and no blue square",
        "two red circles but no blue squares",
        "two red circles without blue squares",
        "two red circles without any blue squares",
        "two red circles, zero blue squares",
        "red circle: 2\nblue square: no",
    ):
        assert parse_groups(text) == demo_prompt.parse(text) == expected
    picture = draw(Scene(((2, "red", "circle"), (1, "blue", "square"))), np.random.default_rng(6))
    reward = ShapeCount.from_groups(expected)
    assert reward.score(torch.from_numpy(picture)[None]).item() == -1


def test_the_demo_model_is_told_only_of_what_should_be_there():
    plain = demo_prompt.encode(demo_prompt.parse("two red circles and a green square"))
    asked = (
        "no blue squares, two red circles, a green square without yellow circles, no red squares"
    )
    assert torch.equal(demo_prompt.encode(demo_prompt.parse(asked)), plain)
    assert not demo_prompt.encode(demo_prompt.parse("no blue squares")).any()


def test_describe_and_parse_are_inverse():
    rng = np.random.default_rng(3)
    for number in range(300):
        groups = random_scene(rng).groups
        named = {group[1:] for group in groups}
        groups += ((0, "red", "circle"),) * (number % 3 == 0 and ("red", "circle") not in named)
        assert demo_prompt.parse(demo_prompt.describe(groups)) == groups


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("three pink circles", "'pink'"),
        ("three red hexagons", "'hexagon'"),
        ("many red circles", "'many'"),
        ("a photo of a cat", "a photo of a cat"),
        ("two red circles and three red circles", "twice"),
    ],
)
def test_what_is_not_known_is_named_and_the_known_listed(text, named):
    with pytest.raises(ValueError, match="triangle") as caught:
        demo_prompt.parse(text)
    assert named in str(caught.value)


def test_the_demo_models_limits_are_stated():
    with pytest.raises(ValueError, match="one to six"):
        demo_prompt.parse("seven red circles")
    with pytest.raises(ValueError, match="4 groups"):
        demo_prompt.parse("a red circle, a blue circle, a green circle, a purple circle")
    assert demo_prompt.parse("") == ()


def test_any_text_parses_or_is_refused_politely():
    words = [*COLOURS, *SHAPES, "three", "and", ",", ":", "2", "\n", "(", "1.2", "", "circles"]
    rng = random.Random(4)
    for _ in range(2000):
        text = " ".join(rng.choices(words, k=rng.randint(0, 8)))
        try:
            groups = parse_groups(text)
        except ValueError as error:
            assert "Write groups" in str(error)  # noqa: PT017 both ends are lawful
        else:
            assert all(n >= 0 and c in COLOURS and s in SHAPES for n, c, s in groups)


def test_training_never_sees_what_is_held_out():
    rng = np.random.default_rng(5)
    assert not any(held_out(random_scene(rng)) for _ in range(500))
    one = Scene(((3, "red", "circle"), (2, "blue", "square")))
    assert held_out(one) == held_out(Scene(one.groups[::-1]))


def test_noise_is_specks_that_are_not_looked_at_one_by_one():
    picture = np.random.default_rng(1).random((128, 128, 3), dtype=np.float32)
    found = patches_of(picture)
    assert found.shapes == []
    assert len(found.areas) > 5000
    assert sum(found.areas) == pytest.approx(found.solid.sum() * 4096 / 128**2)
