"""A reward of frames: which are scored, what becomes of their values, and what is passed on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowsearch.rewards.base import Assessment, RewardSpec, assess, models_of, spec_of
from flowsearch.rewards.combination import combine
from flowsearch.rewards.frames import AGGREGATES, FRAMES, FrameReward, of_clips, places
from flowsearch.rewards.latent import LatentReward


class Grey:
    """The first pixel: frame t of clip b of `clips` has the value b + t / 100."""

    spec = RewardSpec("grey", "grey", 0.0, 10.0, quantum=0.01, scale=2.0, licence="X")

    def __init__(self):
        self.seen = []

    def assess(self, images):
        values = images[:, 0, 0, 0].float()
        self.seen += [round(float(v) * 100) for v in values]
        notes = [f"grey {float(v):.2f}" for v in values]
        return Assessment(values, [{"a": 1.0}] * len(images), notes)

    def score(self, images):
        return self.assess(images).values

    def draw(self, images):
        return torch.ones_like(images)


def clips(count=2, frames=9):
    value = torch.arange(count)[:, None] + torch.arange(frames)[None] / 100.0
    return value[:, :, None, None, None].expand(-1, -1, 4, 4, 3).clone()


@pytest.mark.parametrize(
    ("frames", "total", "count", "expected"),
    [
        ("evenly_spaced", 33, 5, [0, 8, 16, 24, 32]),
        ("evenly_spaced", 9, 8, [0, 1, 2, 3, 5, 6, 7, 8]),
        ("evenly_spaced", 81, 2, [0, 80]),
        ("evenly_spaced", 9, 1, [4]),
        ("evenly_spaced", 1, 8, [0] * 8),
        ("evenly_spaced", 2, 4, [0, 0, 1, 1]),
        ("all", 3, 8, [0, 1, 2]),
        ("first", 9, 8, [0]),
        ("middle", 9, 8, [4]),
        ("middle", 8, 8, [3]),
        ("last", 9, 8, [8]),
    ],
)
def test_which_frames(frames, total, count, expected):
    assert places(frames, total, count) == expected


@given(total=st.integers(1, 200), count=st.integers(2, 40))
def test_evenly_spaced_frames_are_the_nearest_ones(total, count):
    found = places("evenly_spaced", total, count)
    assert (found[0], found[-1], len(found)) == (0, total - 1, count)
    for j, place in enumerate(found):
        assert abs(place - (total - 1) * j / (count - 1)) <= 0.5
    if total >= count:
        assert len({*found}) == count


@pytest.mark.parametrize("frames", FRAMES)
def test_only_the_chosen_frames_are_scored_each_once(frames):
    inner = Grey()
    FrameReward(inner, frames, 4).score(clips(2, 9))
    used = sorted({*places(frames, 9, 4)})
    assert inner.seen == [100 * b + t for b in range(2) for t in used]


@pytest.mark.parametrize(("aggregate", "value"), [("mean", 0.04), ("min", 0.0), ("max", 0.08)])
def test_the_value_is_that_of_the_frames(aggregate, value):
    for frames in ("evenly_spaced", "all"):
        found = FrameReward(Grey(), frames, 5, aggregate).score(clips(3, 9))
        assert torch.allclose(found, torch.arange(3.0) + value)
    assert FrameReward(Grey(), "last", aggregate=aggregate).score(clips())[1] == pytest.approx(1.08)


def test_a_short_clip_has_a_mean_of_as_many():
    """Frames 0, 0, 1, 1 of two; the quantum of a mean of 4 holds."""
    reward = FrameReward(Grey(), count=4)
    assert float(reward.score(clips(1, 2))) == pytest.approx(0.005)
    odd = FrameReward(Grey(), count=3)
    assert places("evenly_spaced", 2, 3) == [0, 1, 1]
    assert float(odd.score(clips(1, 2))) == pytest.approx(0.02 / 3)


def test_a_clip_of_one_frame_is_its_picture():
    picture = torch.rand(3, 1, 4, 4, 3)
    for frames in FRAMES:
        for aggregate in AGGREGATES:
            found = FrameReward(Grey(), frames, 5, aggregate).score(picture)
            assert torch.allclose(found, Grey().score(picture[:, 0]))


def test_it_says_what_each_frame_got_and_which_was_the_worst():
    rising = clips(1, 9)
    found = assess(FrameReward(Grey(), count=3), torch.cat([rising, rising.flip(1)]))
    assert {k: round(v, 2) for k, v in found.parts[0].items()} == {
        "frame 0": 0.0, "frame 4": 0.04, "frame 8": 0.08,
    }  # fmt: skip
    assert found.notes == ["worst frame 0: grey 0.00", "worst frame 8: grey 0.00"]
    assert assess(FrameReward(Grey(), "last"), rising).notes == ["frame 8: grey 0.08"]


@pytest.mark.parametrize(
    ("settings", "quantum"),
    [
        ({}, 0.01 / 8),
        ({"count": 4}, 0.01 / 4),
        ({"aggregate": "min"}, 0.01),
        ({"frames": "all"}, 0.0),
        ({"frames": "all", "aggregate": "max"}, 0.01),
        ({"frames": "middle"}, 0.01),
    ],
)
def test_its_description_is_the_inner_ones(settings, quantum):
    spec = spec_of(FrameReward(Grey(), **settings))
    assert spec.quantum == pytest.approx(quantum)
    assert (spec.name, spec.domain) == ("grey_frames", "video")
    assert (spec.low, spec.high, spec.scale, spec.licence) == (0.0, 10.0, 2.0, "X")


def test_what_it_says_of_itself():
    said = [FrameReward(Grey(), *rest).said() for rest in ((), ("all", 3, "min"), ("last",))]
    assert said == [
        "mean over 8 evenly spaced frames of a clip", "min over all frames of a clip",
        "of the last frame",
    ]  # fmt: skip
    assert FrameReward(Grey(), count=1).said() == "of the middle frame"


def test_networks_and_drawings_are_passed_on():
    inner = Grey()
    inner.get_models = lambda: ["a patcher"]
    assert models_of(FrameReward(inner)) == ["a patcher"]
    before = clips(2, 9)
    drawn = FrameReward(inner, count=3).draw(before)
    assert torch.equal(before, clips(2, 9))
    for t in range(9):
        assert bool((drawn[:, t] == 1.0).all()) == (t in (0, 4, 8)), t
    plain = RewardSpec("plain", "plain", 0.0, 1.0)

    class Plain:
        spec = plain

        def score(self, images):
            return images.mean(dim=(1, 2, 3))

    assert torch.equal(FrameReward(Plain()).draw(before), before)


def test_many_frames_are_given_a_few_at_a_time():
    most = []

    class Counting(Grey):
        def assess(self, images):
            most.append(len(images))
            return super().assess(images)

    found = FrameReward(Counting(), "all").score(clips(1, 50))
    assert float(found) == pytest.approx(0.245, abs=1e-4)
    assert max(most) <= 16
    assert sum(most) == 50


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: FrameReward(LatentReward("mean")), "scores latent; it needs a reward of pictures"),
        (lambda: FrameReward(FrameReward(Grey())), "scores video; it needs a reward of pictures"),
        (lambda: FrameReward(Grey(), "second"), "frames 'second'"),
        (lambda: FrameReward(Grey(), count=0), "count 0"),
        (lambda: FrameReward(Grey(), aggregate="sum"), "aggregate 'sum'"),
        (lambda: FrameReward(Grey()).score(torch.rand(2, 4, 4, 3)), r"needs \(batch, frames"),
    ],
)
def test_refusals_say_why(act, sentence):
    with pytest.raises(ValueError, match=sentence):
        act()


def test_pictures_beside_clips_are_combined_as_frames():
    both = combine([FrameReward(Grey(), aggregate="min"), Grey()], "weighted_sum", (1.0, 10.0))
    assert spec_of(both).domain == "video"
    found = assess(both, clips(1, 9))
    assert float(found.values) == pytest.approx(10 * 0.04)
    assert {"grey_frames", "grey_frames 2", "grey_frames.frame 0"} <= {*found.parts[0]}
    assert spec_of(combine([Grey(), Grey()], "minimum")).domain == "image"
    assert spec_of(of_clips(LatentReward("mean"))).domain == "latent"


class Loudness:
    """The largest sample, at a rate of its own."""

    def __init__(self, rate):
        self.spec = RewardSpec("loudness", "loud", 0.0, 1.0, domain="audio", sample_rate=rate)

    def score(self, waveforms):
        return waveforms.amax(dim=(1, 2))


class Both:
    """What a search has to show: Views."""

    def __len__(self):
        return 2

    def of(self, spec):
        if spec.domain == "several":
            return self
        sound = torch.tensor([0.25, 0.5])[:, None, None] * (1.0 if spec.sample_rate == 8 else 2.0)
        return {"audio": sound, "video": clips(), "latent": torch.ones(2, 3, 4)}[spec.domain]


def test_each_member_is_shown_what_it_scores():
    eyes_and_ears = [Grey(), Loudness(8), LatentReward("mean")]
    mixed = combine(eyes_and_ears, "weighted_sum", (1.0, 2.0, 4.0))
    assert spec_of(mixed).domain == "several"
    assert torch.allclose(assess(mixed, Both()).values, torch.tensor([4.54, 6.04]), atol=1e-3)
    outer = combine([mixed, Loudness(8)], "weighted_sum")
    assert torch.allclose(assess(outer, Both()).values, torch.tensor([4.79, 6.54]), atol=1e-3)


def test_sound_at_two_rates_is_two_things():
    same = combine([Loudness(8), Loudness(8)], "minimum")
    assert (spec_of(same).domain, spec_of(same).sample_rate) == ("audio", 8)
    mixed = combine([Loudness(8), Loudness(16)], "weighted_sum")
    assert spec_of(mixed).domain == "several"
    assert torch.allclose(assess(mixed, Both()).values, torch.tensor([0.75, 1.5]))


def test_different_things_cannot_be_calibrated_by_one_batch():
    with pytest.raises(ValueError, match="grey_frames scores video, loudness scores audio"):
        combine([Grey(), Loudness(8)], "weighted_sum", (), "calibration", torch.rand(4, 8, 8, 3))
