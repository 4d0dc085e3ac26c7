"""Score Images: what is kept, in which order, what is told, and that it can be cancelled."""

import json
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import numpy as np
import pytest
import skimage
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from reward_cases.detection import yolo11n

from flowsearch.nodes.rewards import scoring
from flowsearch.nodes.rewards.scoring import CHUNK, Ranking, ScoreImages, scored
from flowsearch.rewards.base import Assessment
from flowsearch.rewards.detection.detector_count import DetectorCount
from flowsearch.rewards.detection.onnx_detector import OnnxDetector
from flowsearch.rewards.frames import FrameReward
from flowsearch.rewards.latent import LatentReward
from flowsearch.rewards.pixels.image_statistic import ImageStatistic
from flowsearch.rewards.prompts.counting import parse_targets


class Corner:
    """The red of the first pixel; remembers what it was given."""

    def __init__(self):
        self.spec = SimpleNamespace(name="corner")
        self.batches = []

    def score(self, images):
        self.batches.append(len(images))
        values = images[:, 0, 0, 0].clone()
        images.zero_()  # as a rude reward does
        return values


class Boxed(Corner):
    """One that says why and draws."""

    def assess(self, images):
        values = self.score(images)
        return Assessment(values, [{"boxes": 2.0}] * len(values), ["two boxes"] * len(values))

    def draw(self, images):
        images[:, -1] = 1.0
        return images


def pictures(*values, size=64):
    images = torch.full((len(values), size, size, 3), 0.5)
    images[:, 0, 0, 0] = torch.tensor(values)
    return images


def run(images, keep=0, at_least=None, order="best_first", draw=False, reward=None):
    threshold = {"threshold": "none"} if at_least is None else {"threshold": "at_least"}
    threshold |= {} if at_least is None else {"value": at_least}
    return ScoreImages.execute(images, reward or Corner(), keep, threshold, order, draw)


def reds(images):
    return [round(float(v), 4) for v in images[:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, [0.9, 0.7, 0.7, 0.1]),
        ({"order": "as_given"}, [0.7, 0.1, 0.9, 0.7]),
        ({"keep": 2}, [0.9, 0.7]),
        ({"keep": 2, "order": "as_given"}, [0.7, 0.9]),
        ({"at_least": 0.7}, [0.9, 0.7, 0.7]),
        ({"at_least": 0.7, "keep": 1}, [0.9]),
        ({"keep": 100}, [0.9, 0.7, 0.7, 0.1]),
    ],
)
def test_what_is_kept(given, kept):
    images = pictures(0.7, 0.1, 0.9, 0.7)
    image, scores, table = run(images, **given).result
    assert reds(image) == kept
    assert scores == images[:, 0, 0, 0].tolist(), "the scores are those of all, as given"
    rows = json.loads(table)["pictures"]
    assert [row["rank"] for row in rows] == [2, 4, 1, 2]
    assert sorted(reds(images)[row["index"]] for row in rows if row["kept"]) == sorted(kept)


def test_the_history_carries_the_table():
    out = run(pictures(0.2, 0.4))
    text, table = out.ui["text"]
    assert "corner of 2 pictures, 2 kept" in text
    assert json.loads(table) == json.loads(out.result[2])
    assert json.loads(table)["quantiles"]["50"] == pytest.approx(0.3)


def test_none_good_enough_stops_what_comes_after_and_still_tells():
    image, scores, table = run(pictures(0.2, 0.4), at_least=0.5).result
    assert isinstance(image, ExecutionBlocker)
    assert image.message is None
    assert len(scores) == 2
    assert json.loads(table)["kept"] == []
    assert "none reaches 0.5" in run(pictures(0.2, 0.4), at_least=0.5).ui["text"][0]


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30), st.integers(0, 30))
def test_the_kept_are_the_best(values, keep):
    ranking = Ranking("x", Assessment(torch.tensor(values)), keep)
    kept = ranking.kept()
    assert len(kept) == (min(keep, len(values)) or len(values))
    left = [values[i] for i in range(len(values)) if i not in kept]
    assert not left or min(values[i] for i in kept) >= max(left)
    quantiles = [*ranking.quantiles().values()]
    assert quantiles == sorted(quantiles)
    assert (quantiles[0], quantiles[-1]) == (min(values), max(values))


def test_any_number_of_pictures_in_chunks_and_left_alone():
    images = pictures(*torch.linspace(0, 1, 2 * CHUNK + 3).tolist(), size=8)
    before, reward = images.clone(), Corner()
    _, scores, _ = run(images, reward=reward).result
    assert reward.batches == [CHUNK, CHUNK, 3]
    assert scores == before[:, 0, 0, 0].tolist()
    assert torch.equal(images, before)


@pytest.mark.parametrize("channels", [3, 4])
def test_drawings_change_only_what_they_cover(channels):
    images = torch.full((2, 64, 64, channels), 0.5)
    drawn = run(images, draw=True, reward=Boxed()).result[0]
    assert drawn.shape == images.shape
    changed = (drawn != 0.5).any(dim=-1)
    assert bool(changed[:, -1].all()), "what the reward draws is missing"
    assert bool(changed[:, -30:-2, :20].any()), "there is no label"
    assert not bool(changed[:, :30].any()), "the upper left is where boxes have their names"
    assert not bool((images != 0.5).any())


def test_labels_of_different_scores_differ():
    images = pictures(0.2, 0.4)
    images = torch.cat([images, pictures(0.2)])
    one, two, again = run(images, order="as_given", draw=True).result[0]
    assert not torch.equal(one, two)
    assert torch.equal(one[1:], again[1:])


def test_a_part_s_value_is_seen_whatever_the_length_of_its_name():
    class Named(Corner):
        def assess(self, images):
            return Assessment(images[:, 0, 0, 0] * 0.0, [{"a name " * 9: 0.25}, {"a name " * 9: 4}])

    one, two = run(pictures(0.5, 0.5), draw=True, reward=Named(), order="as_given").result[0]
    assert not torch.equal(one, two)


def test_the_node_says_what_the_reward_said_and_no_quantiles_of_one():
    text = run(pictures(0.2, 0.4), reward=Boxed()).ui["text"][0]
    assert "picture 1: 0.4 (two boxes)" in text
    assert "quantiles" in text
    alone = run(pictures(0.2), reward=Boxed()).ui["text"][0]
    assert alone.startswith("corner of 1 picture, 1 kept")
    assert "quantiles" not in alone


def test_tiny_pictures_can_be_drawn_on():
    assert run(pictures(0.5, size=4), draw=True).result[0].shape == (1, 4, 4, 3)


def test_a_cancel_is_obeyed_between_chunks():
    class Cancelling(Corner):
        def score(self, images):
            comfy.model_management.interrupt_current_processing()
            return super().score(images)

    reward = Cancelling()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        scored(torch.zeros(3 * CHUNK, 4, 4, 3), reward)
    assert reward.batches == [CHUNK]


class Lost(Corner):
    def score(self, images):
        return super().score(images) / 0.0


class Hearing:
    spec = SimpleNamespace(name="clap", domain="audio")

    def score(self, waveforms):
        return waveforms.amax(dim=(1, 2))


def test_large_pictures_come_in_smaller_chunks_so_that_a_cancel_waits_for_few(monkeypatch):
    monkeypatch.setattr(scoring, "PIXELS", 2 * 4 * 4 + 1)
    reward = Corner()
    scored(torch.zeros(5, 4, 4, 3), reward)
    assert reward.batches == [2, 2, 1]
    scored(torch.zeros(2, 8, 8, 3), reward)
    assert reward.batches[3:] == [1, 1], "one is always scored"


def test_for_a_reward_of_clips_the_pictures_are_one_clip():
    images = pictures(0.1, 0.9, 0.5)
    before = images.clone()
    out = run(images, reward=FrameReward(Corner(), aggregate="min", count=3))
    image, scores, table = out.result
    assert scores == [pytest.approx(0.1)]
    assert torch.equal(image, before), "all frames come out, in their order"
    assert "corner_frames of 1 clip, 1 kept" in out.ui["text"][0]
    assert "worst frame 0" in json.loads(table)["pictures"][0]["note"]
    blocked = run(images, at_least=0.2, reward=FrameReward(Corner(), aggregate="min")).result[0]
    assert isinstance(blocked, ExecutionBlocker)
    drawn = run(images, draw=True, reward=FrameReward(Boxed(), "last")).result[0]
    assert drawn.shape == images.shape
    changed = (drawn != before).any(dim=-1)
    assert changed[2, -1].all(), "the last frame has the reward's own drawing"
    assert not changed[0, -1].all()
    assert changed.any(dim=2).any(dim=1).all(), "each frame has the label"


@pytest.mark.parametrize(
    ("images", "reward", "why"),
    [
        (torch.zeros(0, 4, 4, 3), Corner(), "no pictures"),
        (
            torch.zeros(1, 4, 4, 3),
            LatentReward("mean"),
            "latent scores latent, and these are pictures",
        ),
        (torch.zeros(1, 4, 4, 3), Hearing(), "clap scores audio, and these are pictures"),
        (torch.zeros(0, 4, 4, 3), FrameReward(Corner()), "no pictures"),
        (pictures(0.5)[None], FrameReward(Lost()), "corner_frames returned inf for clip 0 of 1"),
        (pictures(0.5), Lost(), "corner returned inf for picture 0 of 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(images, reward, why):
    with pytest.raises(ValueError, match=why):
        scored(images, reward)


class TestPhotographs:
    """Real photographs, judged by rewards with real weights or none."""

    def photographs(self, names):
        folder = Path(skimage.__file__).parent / "data"
        found = [Image.open(folder / name).convert("RGB").resize((512, 512)) for name in names]
        return torch.stack([torch.from_numpy(np.array(picture)) for picture in found]) / 255.0

    def test_the_sharp_photograph_comes_before_its_blurred_copies(self):
        sharp = self.photographs(["chelsea.png"])
        planes = sharp.movedim(-1, 1)
        blurred = [torch.nn.functional.avg_pool2d(planes, k, 1, k // 2) for k in (9, 3)]
        images = torch.cat([*(plane.movedim(1, -1) for plane in blurred), sharp])
        kept, scores = run(images, keep=1, reward=ImageStatistic("sharpness")).result[:2]
        assert scores == sorted(scores)
        assert torch.equal(kept, sharp)

    def test_the_detector_keeps_the_photograph_of_one_cat(self):
        images = self.photographs(["coffee.png", "chelsea.png", "astronaut.png"])
        reward = DetectorCount(OnnxDetector(yolo11n()), parse_targets("one cat"))
        kept, scores = run(images, at_least=0.0, reward=reward).result[:2]
        assert scores == [-1.0, 0.0, -1.0]
        assert torch.equal(kept, images[1:2])
        drawn = run(images, keep=1, reward=reward, draw=True).result[0]
        assert float((drawn - kept).abs().amax()) > 0.5
