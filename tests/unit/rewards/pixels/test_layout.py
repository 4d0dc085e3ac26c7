"""Layout Reward: what it measures, where its gradient is 0, and which boxes it reads."""

import pytest
import torch

from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.pixels import layout
from flowsearch.rewards.pixels.layout import (
    LONGEST_WORD,
    MOST_BOXES,
    Box,
    Layout,
    drawn,
    parse_boxes,
)


def rows(count=2, height=24, width=24, seed=1, dtype=torch.float64):
    return torch.rand(
        count, height, width, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def test_it_is_the_root_mean_square_distance_of_mean_colours():
    pictures, drawing = rows(), rows(seed=2)[0]
    means = [
        torch.nn.functional.avg_pool2d(one.permute(0, 3, 1, 2), 3)
        for one in (pictures, drawing[None])
    ]
    wanted = -(means[0] - means[1]).square().mean(dim=(1, 2, 3)).sqrt()
    assert torch.allclose(Layout(drawing).score(pictures).double(), wanted, atol=1e-6)
    assert torch.allclose(gradient_of(Layout(drawing), pictures).values, wanted)


def test_what_is_finer_than_a_place_does_not_matter():
    drawing = rows()[0]
    mixed = drawing.reshape(8, 3, 8, 3, 3).flip(1, 3).reshape(24, 24, 3)
    assert float(Layout(drawing).score(mixed[None])) == pytest.approx(0.0, abs=1e-6)
    assert float(Layout(drawing, grid=24).score(mixed[None])) < -0.1
    assert float(Layout(drawing, grid=1).score(mixed[None])) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (50, 37), (5, 3), (1, 1)])
def test_the_drawing_has_any_size_and_so_has_the_picture(size):
    even = torch.tensor([0.2, 0.5, 0.7])
    reward = Layout(even.expand(7, 9, 3))
    found = gradient_of(reward, even.expand(2, *size, 3))
    assert found.values.abs().max() < 1e-6
    assert found.gradient.isfinite().all()


def test_where_the_picture_is_the_drawing_the_gradient_is_0():
    drawing = rows()[0]
    found = gradient_of(Layout(drawing), drawing[None])
    assert float(found.values) == 0.0
    assert not found.gradient.any()


@pytest.mark.parametrize("colour", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("grid", [5, 8])
def test_it_changes_as_its_gradient_says(grid, colour):
    mask = (rows(seed=5)[0, :13, :11, 0] - 0.5).clamp_min(0.0).float()
    reward = Layout(rows(seed=2)[0].float(), mask, grid, colour)
    pictures, towards = rows(2, 30, 22), rows(2, 30, 22, seed=7) - 0.5
    pictures = pictures * 0.8 + 0.1
    told = (gradient_of(reward, pictures).gradient * towards).flatten(1).sum(dim=1)
    ahead, back = (gradient_of(reward, pictures + s * towards).values for s in (1e-6, -1e-6))
    assert torch.allclose((ahead - back) / 2e-6, told, rtol=1e-6)


def test_colour_and_brightness_are_told_apart():
    grey, red = torch.full((1, 8, 8, 3), 0.5), torch.full((1, 8, 8, 3), 0.3)
    red[..., 0] = 0.9  # as bright
    assert float(Layout(grey[0], colour=0.0).score(red)) == pytest.approx(0.0, abs=1e-6)
    assert float(Layout(grey[0], colour=1.0).score(red)) < -0.3
    assert float(Layout(grey[0], colour=1.0).score(grey + 0.2)) == pytest.approx(0.0, abs=1e-6)
    assert float(Layout(grey[0], colour=0.0).score(grey + 0.2)) < -0.2
    assert float(Layout(torch.zeros(8, 8, 3)).score(torch.ones(1, 8, 8, 3))) == -1.0


@pytest.mark.parametrize("colour", [0.0, 0.5, 0.8, 1.0])
def test_no_picture_is_below_the_range(colour):
    black = torch.zeros(8, 8, 3)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    reward = Layout(black, colour=colour)
    values = reward.score(corners[:, None, None].expand(8, 4, 4, 3))
    assert reward.spec.low <= values.min() <= values.max() <= 0.0


def test_a_mask_says_where_it_counts_to_the_pixel():
    drawing = torch.zeros(32, 32, 3)
    mask = torch.zeros(32, 32)
    mask[:, :14] = 1.0  # within a place
    pictures = torch.zeros(1, 32, 32, 3)
    pictures[:, :, 14:] = 1.0
    assert float(Layout(drawing, mask).score(pictures)) == 0.0
    assert float(Layout(drawing).score(pictures)) < -0.5
    assert not gradient_of(Layout(drawing, mask), 1.0 - pictures).gradient[:, :, 14:].any()


def test_boxes_ask_for_nothing_beside_them_unless_there_is_a_background():
    pictures = torch.zeros(1, 64, 64, 3)
    pictures[:, :32, :32, 0] = 1.0
    alone, whole = "red 0 0 .5 .5", "background black\nred 0 0 .5 .5"
    for text, green in ((alone, 0.0), (whole, -0.3)):
        reward = Layout(*drawn(parse_boxes(text)))
        assert float(reward.score(pictures)) == pytest.approx(0.0, abs=1e-6)
        pictures[:, 32:, :, 1] = 1.0
        assert float(reward.score(pictures)) <= green + 1e-6
        pictures[:, 32:, :, 1] = 0.0


def test_later_boxes_lie_over_earlier_ones_and_the_background_below():
    text = "#00F 0 0 1 1\nred 0.25, 0.25, 0.75, 0.75\nBackground white"
    drawing, weights = drawn(parse_boxes(text), 8)
    assert drawing[4, 4].tolist() == [1.0, 0.0, 0.0]
    assert drawing[0, 0].tolist() == [0.0, 0.0, 1.0]
    assert weights.min() == 1.0
    mask = torch.zeros(4, 4)
    mask[:, :2] = 1.0
    assert drawn(parse_boxes(text), 8, mask)[1][:, -3:].max() == 0.0


def test_an_edge_within_a_pixel_covers_a_part_of_it():
    _, weights = drawn([Box((1.0, 0.0, 0.0), left=0.375, right=0.75)], 4)
    assert weights[0].tolist() == [0.0, 0.5, 1.0, 0.0]


THIN = [
    "red .1 .1 .4 .4",
    "red .1 .1 .11 .11",
    "red .1 .1 .1005 .9",
    "red .3 .1 .30001 .10001",
    "red .1 .1 .4 .4\nred .33333 .1 .77777 .5001",
]


@pytest.mark.parametrize("grid", [1, 5, 8])
@pytest.mark.parametrize("text", THIN)
def test_boxes_between_pixels_ask_for_their_own_colour_alone(text, grid):
    reward = Layout(*drawn(parse_boxes(text)), grid)
    red = torch.zeros(1, 64, 48, 3)
    red[..., 0] = 1.0
    assert float(reward.score(red)) == pytest.approx(0.0, abs=1e-6)
    assert float(reward.score(torch.ones_like(red))) < -0.5
    pictures, towards = rows(2, 30, 22) * 0.8 + 0.1, rows(2, 30, 22, seed=7) - 0.5
    told = (gradient_of(reward, pictures).gradient * towards).flatten(1).sum(dim=1)
    ahead, back = (gradient_of(reward, pictures + s * towards).values for s in (1e-6, -1e-6))
    assert torch.allclose((ahead - back) / 2e-6, told, rtol=1e-5, atol=1e-8)


def test_over_a_background_the_edge_of_a_box_is_mixed_with_it():
    drawing, weights = drawn(parse_boxes("background blue\nred 0 0 .125 1"), 4)
    assert drawing[0, 0].tolist() == [0.5, 0.0, 0.5]
    assert weights.min() == 1.0


@pytest.mark.parametrize("text", ["red .1 .1 .100000001 .100000001", "red .5 0 .5000000000001 1"])
def test_a_box_that_covers_nothing_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"too thin to cover anything of a drawing 512 pixels"):
        drawn(parse_boxes(f"background white\n{text}"))


@pytest.mark.parametrize("tail", ["", "x"])
def test_a_long_number_is_refused_before_it_is_looked_at(monkeypatch, tail):
    number = "0." + "1" * (LONGEST_WORD - 2)
    assert parse_boxes(f"red {number} 0 1 1")[0].left == float(number)
    seen, match = [], layout.re.fullmatch
    monkeypatch.setattr(
        layout.re, "fullmatch", lambda rule, word: seen.append(len(word)) or match(rule, word)
    )
    for text in (f"{number}1{tail}", "1" * 20_000 + tail):
        with pytest.raises(ValueError, match="is not a number from 0 to 1"):
            parse_boxes(f"red {text} 0 1 1")
    assert max(seen, default=0) <= LONGEST_WORD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 boxes are given"),
        (" \n\t\n", "0 boxes are given"),
        ("red 0 0 1 1\n" * (MOST_BOXES + 1), "257 boxes are given"),
        ("red 0.1 0.2 0.4", "it has 4 words"),
        ("reddish 0 0 1 1", "'reddish' in 'reddish 0 0 1 1' is not a colour"),
        ("rgb(1 0 0 1 1", "is not a colour"),
        ("#12345 0 0 1 1", "is not a colour"),
        ("red 0 0 1 1.1", "'1.1' in .* is not a number from 0 to 1"),
        ("red 0 0 1 nan", "'nan' in .* is not a number"),
        ("red -0.1 0 1 1", "is not a number"),
        ("red 0 0 1e-1 1", "is not a number"),
        ("red 0.5 0 0.5 1", "is empty"),
        ("red 0 0.5 1 0.1", "is empty"),
        ("background red\nbackground blue", "2 backgrounds"),
        ("background 0 0 1 1", "'background' in .* is not a colour"),
        ("x" * 70_000, "70,000 characters"),
    ],
)
def test_what_is_no_box_is_refused_in_a_sentence(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        parse_boxes(text)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"grid": 0}, "grid of 0"),
        ({"grid": 65}, "grid of 65"),
        ({"colour": 1.5}, "share of colour of 1.5"),
        ({"weights": torch.zeros(4, 4)}, "counts nowhere"),
        ({"weights": torch.full((4, 4), -1.0)}, "negative"),
        ({"weights": torch.ones(1, 4, 4)}, r"shape \(1, 4, 4\)"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Layout(rows()[0], **settings)


def test_it_says_where_a_picture_is_farthest():
    pictures = torch.zeros(1, 16, 16, 3)
    pictures[0, 4:6, 10:12] = 1.0
    assert Layout(torch.zeros(16, 16, 3)).assess(pictures).notes == [
        "farthest at row 3, column 6 of 8"
    ]
