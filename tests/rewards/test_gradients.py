"""Gradients of rewards without a network: what they are, where they are 0, and who has none."""

import pytest
import torch
from reward_cases.combined import Brightness, counted

from flowsearch.rewards.base import RewardSpec, spec_of
from flowsearch.rewards.combination import combine
from flowsearch.rewards.frames import AGGREGATES, FrameReward
from flowsearch.rewards.gradient import gradient_of, value_and_gradient, why_no_gradient
from flowsearch.rewards.latent import LatentReward
from flowsearch.rewards.pixels.image_statistic import (
    DIRECTIONS,
    STATISTICS,
    ImageStatistic,
    parse_palette,
)

SMOOTH = [name for name, row in STATISTICS.items() if row.has_gradient]
PALETTE = parse_palette("#1d3557 #e63946")


def drawn(*shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64) * 0.8 + 0.1


def agree(reward, rows, step=1e-6, tolerance=1e-5):
    """Assert that values change along a direction as the gradient says, in float64, row by row."""
    slopes = gradient_of(reward, rows).gradient
    towards = torch.randn(rows.shape, generator=torch.Generator().manual_seed(9)).to(rows)
    ahead, back = (gradient_of(reward, rows + s * towards).values for s in (step, -step))
    assert ahead.dtype is torch.float64
    told = (slopes * towards).flatten(1).sum(dim=1)
    assert bool((told != 0.0).all())
    assert torch.allclose((ahead - back) / (2 * step), told, rtol=tolerance, atol=1e-9)


def statistic(name, direction="higher", target=0.3):
    return ImageStatistic(name, direction, target if direction == "target" else 0.0, PALETTE)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", SMOOTH)
def test_a_statistic_changes_as_its_gradient_says(name, direction):
    if name == "palette" and direction == "target":
        reward = ImageStatistic("palette", "target", -20.0, PALETTE)
    else:
        reward = statistic(name, direction)
    agree(reward, drawn(2, 6, 5, 3))
    values = gradient_of(reward, drawn(2, 6, 5, 3).float()).values
    assert torch.equal(values, reward.score(drawn(2, 6, 5, 3).float()))


@pytest.mark.parametrize("shade", [0.0, 0.04045, 0.5, 1.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_an_even_picture_has_a_finite_gradient(name, shade):
    even = torch.full((1, 6, 6, 3), shade)
    for direction in DIRECTIONS[:2]:
        found = gradient_of(statistic(name, direction), even)
        assert found.gradient.abs().max() < 1e3
        if name in ("contrast", "sharpness"):
            assert not found.gradient.any()


def test_values_that_are_clamped_have_no_gradient():
    pixels = torch.full((1, 2, 2, 3), 0.5)
    pixels[0, 0, 0], pixels[0, 1, 1] = 1.2, -0.1
    slopes = gradient_of(ImageStatistic("brightness"), pixels).gradient
    assert (slopes != 0.0).all(dim=-1)[0].tolist() == [[False, True], [True, False]]


def test_a_fourth_channel_has_no_gradient():
    slopes = gradient_of(ImageStatistic("contrast"), drawn(1, 4, 4, 4)).gradient
    assert not slopes[..., 3].any()
    assert slopes[..., :3].any()


def test_a_count_of_bytes_has_none_and_says_what_has():
    reward = ImageStatistic("compressibility")
    assert not reward.spec.has_gradient
    for ask in (lambda: gradient_of(reward, drawn(1, 4, 4, 3)), lambda: reward.gradient(drawn(1))):
        with pytest.raises(ValueError, match=r"compressibility counts the bytes.*brightness"):
            ask()


@pytest.mark.parametrize("name", ["mean", "std", "cosine", "negative_mse"])
def test_a_latents_number_changes_as_its_gradient_says(name):
    agree(LatentReward(name, drawn(2, 4, 3, 3, seed=7)), drawn(3, 4, 3, 3))


@pytest.mark.parametrize("name", ["mean", "std", "cosine", "negative_mse"])
@pytest.mark.parametrize("level", [0.0, 1.0, 0.1])
def test_an_even_latent_has_a_finite_gradient(name, level):
    reference = torch.full((1, 4, 3, 3), level)
    found = gradient_of(LatentReward(name, reference), torch.full((1, 4, 3, 3), level))
    assert found.gradient.isfinite().all()
    if name in ("std", "negative_mse"):
        assert not found.gradient.any()


def test_a_reference_of_the_hosts_inference_mode_can_be_differentiated_against():
    with torch.inference_mode():
        reward = LatentReward("cosine", drawn(1, 4, 3, 3, seed=7))
        found = gradient_of(reward, drawn(2, 4, 3, 3))
    assert found.gradient.any()


@pytest.mark.parametrize("frames", ["evenly_spaced", "all", "last"])
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_a_clip_changes_as_its_gradient_says_and_only_in_what_is_scored(frames, aggregate):
    reward = FrameReward(ImageStatistic("contrast"), frames, 3, aggregate)
    clips = drawn(2, 5, 4, 4, 3)
    agree(reward, clips)
    slopes = gradient_of(reward, clips).gradient.flatten(2).any(dim=2).sum(dim=1)
    each = {"evenly_spaced": 3, "all": 5, "last": 1}[frames]
    assert slopes.tolist() == [each if aggregate == "mean" else 1] * 2


def test_a_short_clips_frames_weigh_as_often_as_they_are_scored():
    reward = FrameReward(ImageStatistic("brightness"), count=4)  # frames 0, 0, 1, 1 of two
    agree(reward, drawn(1, 2, 4, 4, 3))
    assert gradient_of(reward, drawn(0, 2, 4, 4, 3)).values.shape == (0,)


def test_frames_of_what_has_no_gradient_have_none():
    reward = FrameReward(ImageStatistic("compressibility"))
    with pytest.raises(ValueError, match=r"image_statistic_frames.*compressibility counts"):
        gradient_of(reward, drawn(1, 3, 4, 4, 3))


def pair(rule, **settings):
    members = [ImageStatistic("brightness"), ImageStatistic("contrast")]
    return combine(members, rule, **settings)


@pytest.mark.parametrize(
    "made",
    [
        lambda: pair("weighted_sum", weights=(2.0, -0.5)),
        lambda: pair("weighted_sum", normalisation="spec"),
        lambda: pair("minimum", normalisation="spec"),
        lambda: pair("minimum", normalisation="calibration", examples=drawn(4, 5, 5, 3)),
        lambda: pair("smooth_minimum", normalisation="spec"),
        lambda: pair("product"),
        lambda: combine([pair("product"), ImageStatistic("colourfulness")], "weighted_sum"),
    ],
)
def test_a_combination_changes_as_its_gradient_says(made):
    agree(made(), drawn(3, 5, 5, 3))


def test_a_combination_of_a_reward_that_only_autograd_follows():
    both = combine([Brightness(), ImageStatistic("contrast")], "weighted_sum")
    found = gradient_of(both, drawn(2, 5, 5, 3).float())
    alone = gradient_of(ImageStatistic("contrast"), drawn(2, 5, 5, 3).float())
    assert torch.allclose(found.gradient - alone.gradient, torch.tensor(1 / 75), atol=1e-7)


class Both:
    """Views of clips and latents."""

    def __init__(self, clips, latents):
        self.clips, self.latents = clips, latents

    def __len__(self):
        return len(self.clips)

    def of(self, spec):
        return {"video": self.clips, "latent": self.latents}.get(spec.domain, self)


def test_members_of_different_things_have_a_gradient_each():
    parts = [ImageStatistic("brightness"), LatentReward("std"), LatentReward("mean")]
    inner = combine([ImageStatistic("contrast"), LatentReward("mean")], "weighted_sum")
    reward = combine([*parts, inner], "weighted_sum", (1.0, 2.0, 3.0, 0.5))
    views = Both(drawn(2, 3, 4, 4, 3), drawn(2, 4, 3, 3))
    found = gradient_of(reward, views)
    assert set(found.gradient) == {"video", "latent"}
    towards = {"clips": drawn(2, 3, 4, 4, 3, seed=5), "latents": drawn(2, 4, 3, 3, seed=6)}

    def at(step):
        return gradient_of(
            reward,
            Both(views.clips + step * towards["clips"], views.latents + step * towards["latents"]),
        ).values

    told = (found.gradient["video"] * towards["clips"]).flatten(1).sum(1)
    told = told + (found.gradient["latent"] * towards["latents"]).flatten(1).sum(1)
    assert torch.allclose((at(1e-6) - at(-1e-6)) / 2e-6, told, rtol=1e-5)


def test_a_member_without_a_gradient_is_named():
    rewards = [ImageStatistic("contrast"), ImageStatistic("compressibility")]
    reward = combine([combine(rewards, "weighted_sum"), Brightness()], "weighted_sum")
    assert not reward.spec.has_gradient
    with pytest.raises(
        ValueError, match=r"combination \(reward 1 of 2\).*image_statistic 2 .*byte"
    ):
        gradient_of(reward, drawn(1, 4, 4, 3))


def test_a_member_of_weight_0_needs_none():
    rewards = [ImageStatistic("compressibility"), ImageStatistic("contrast")]
    agree(combine(rewards, "weighted_sum", (0.0, 1.0)), drawn(1, 4, 4, 3))


def test_in_order_there_is_none_and_it_says_why():
    reward = combine([Stepped(), Brightness()], "lexicographic")
    with pytest.raises(ValueError, match="lexicographic goes in steps"):
        gradient_of(reward, drawn(1, 4, 4, 3))
    with pytest.raises(ValueError, match="lexicographic goes in steps"):
        reward.gradient(drawn(1, 4, 4, 3))


class Stepped(Brightness):
    """Has a quantum, and says it has a gradient."""

    spec = RewardSpec("stepped", "brightness", 0.0, 1.0, quantum=0.5, has_gradient=True)


class Sound:
    """Loudness of sound at a rate."""

    def __init__(self, rate):
        self.spec = RewardSpec(
            "sound", "loudness", 0.0, 9.0, domain="audio", sample_rate=rate, has_gradient=True
        )

    def score(self, waveforms):
        return waveforms.square().mean(dim=(1, 2)).float()


def test_sound_at_two_rates_has_no_common_gradient():
    assert "16000 and 48000" in why_no_gradient(
        combine([Sound(16000), Sound(48000)], "weighted_sum")
    )
    assert not why_no_gradient(combine([Sound(16000), Sound(16000)], "weighted_sum"))


@pytest.mark.parametrize("softness", [0.01, 0.25, 4.0])
def test_a_smooth_minimum_lies_between_the_lowest_and_the_mean(softness):
    rows = drawn(20, 5, 5, 3).float()
    members = [ImageStatistic(name) for name in ("brightness", "contrast")]
    values = torch.stack([member.score(rows) for member in members])
    found = combine(members, "smooth_minimum", softness=softness).score(rows)
    assert bool((found >= values.amin(dim=0) - 1e-6).all())
    assert bool((found <= values.mean(dim=0) + 1e-6).all())
    assert bool((found <= values.amin(dim=0) + softness * 0.6932 + 1e-6).all())


def test_a_smooth_minimum_has_the_bounds_of_its_rule():
    both = combine([Brightness(), counted()], "smooth_minimum")
    assert (spec_of(both).low, spec_of(both).high) == (-float("inf"), pytest.approx(0.17, abs=0.01))
    with pytest.raises(ValueError, match="softness is 0"):
        combine([Brightness()], "smooth_minimum", softness=0.0)


def test_the_laws_hold_of_any_function():
    found = value_and_gradient(lambda rows: rows.square().sum(dim=1), drawn(3, 2))
    assert torch.equal(found.gradient, 2.0 * drawn(3, 2))
