"""Faults that were reported of comparable nodes, each with its right value; docs/OTHER_PACKS.md."""

import host_models as hm
import pytest
import searching as s
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from flowsearch.nodes.host.search import judge, views
from flowsearch.nodes.rewards.scoring import ScoreImages
from flowsearch.nodes.rewards.statistic import ImageStatisticReward
from flowsearch.rewards.pixels.image_statistic import STATISTICS


@pytest.mark.parametrize("inner", [None, s.sampler("euler_ancestral")])
def test_the_least_and_the_largest_seed_are_seeds_like_any(inner):
    # of the very last one the host's samplers on the CPU make one more, which no generator takes
    found = []
    for seed in (0, 1, 2**63 - 1, 2**63, 2**64 - 2):
        if inner is None:
            found.append(s.reward_search(hm.scene_model(), seed=seed)[0]["samples"])
        else:
            guider = hm.guider(hm.scene_model(), 0.5)
            found.append(s.search(guider, inner, seed=seed, evaluations=18)[0]["samples"])
        assert found[-1].isfinite().all()
    pairs = [(a, b) for i, a in enumerate(found) for b in found[:i]]
    assert all((a - b).abs().max() > 1e-2 for a, b in pairs)


def score(images, statistic):
    reward = ImageStatisticReward.execute({"statistic": statistic}, {"direction": "higher"})[0]
    return ScoreImages.execute(images, reward, 0, {"threshold": "none"}, "as_given", False).result[
        1
    ]


@pytest.mark.parametrize("statistic", [name for name in STATISTICS if name != "palette"])
def test_transparency_is_no_colour(statistic):
    images = torch.rand(2, 32, 32, 4, generator=torch.Generator().manual_seed(1))
    assert score(images, statistic) == score(images[..., :3].clone(), statistic)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_pictures_of_another_number_of_channels_are_named(channels):
    with pytest.raises(ValueError, match=r"it needs \(batch, height, width, 3 or 4\)"):
        score(torch.zeros(1, 8, 8, channels), "brightness")


# ---- 4096 x 4096 ----

LARGE = 4096


class Eightfold:
    """A VAE whose pictures are eight times as wide as its latents."""

    def decode(self, latents):
        return torch.nn.functional.interpolate(latents, scale_factor=8).movedim(1, -1)


class Watching(s.Brightness):
    """Brightness that notes which of the pictures that it saw before are still in memory."""

    def __init__(self):
        super().__init__()
        self.seen, self.kept = [], []

    def score(self, images):
        self.kept.append(self.alive())
        self.seen.append(StorageWeakRef(images.untyped_storage()))
        return super().score(images)

    def alive(self):
        return sum(not each.expired() for each in self.seen)


def test_a_search_at_4096_keeps_no_picture_of_that_size_but_what_comes_out():
    reward = Watching()
    _, image, report = s.search(
        hm.guider(hm.gaussian_model()), s.flow(), hm.empty_latent(size=LARGE // 8),
        vae=Eightfold(), reward=reward, sigmas=torch.tensor([1.0, 0.0]), evaluations=2,
        strategy=s.strategy("best_of_n"),
    )  # fmt: skip
    assert image.shape == (1, LARGE, LARGE, 3)
    assert reward.shapes == [(1, LARGE, LARGE, 3)] * 2
    assert reward.kept == [0, 0]
    assert reward.alive() <= 1, "what came out"
    assert report.paths


@pytest.mark.parametrize("name", ["best_of_n", "rbf"])
def test_large_pictures_are_decoded_and_scored_few_at_once_and_found_alike(monkeypatch, name):
    given = {"latent": hm.empty_latent(size=32), "strategy": s.strategy(name)}
    whole, pieces = s.Brightness(), Watching()
    guider = hm.guider(hm.gaussian_model())
    at_once = s.search(guider, s.flow(), reward=whole, **given)[0]["samples"]
    monkeypatch.setattr(judge, "PIXELS", 3 * 32 * 32)
    monkeypatch.setattr(views, "SHOWN", 8)
    found = s.search(guider, s.flow(), reward=pieces, **given)[0]["samples"]
    assert torch.equal(found, at_once)
    counts = [[shape[0] for shape in each.shapes] for each in (whole, pieces)]
    assert max(counts[0]) > 3 >= max(counts[1])
    assert sum(counts[0]) == sum(counts[1]), "each once"
    assert set(pieces.kept) == {0}, "what is looked at is small"


class Starved:
    """The host's VAE with memory for a part of a picture only, so that it decodes in tiles."""

    def __init__(self, side):
        self.vae, self.whole = s.pixel_vae(), 0
        network, decode = self.vae.first_stage_model, self.vae.first_stage_model.decode

        def within(x, *args, **kwargs):
            if x[0, 0].numel() > side**2:
                self.whole += 1
                raise torch.OutOfMemoryError("not so large")
            return decode(x, *args, **kwargs)

        network.decode = within


def test_a_picture_that_is_decoded_in_tiles_is_scored_and_put_out_like_any():
    size, starved = 80, Starved(64)
    given = {"latent": hm.empty_latent(size=size), "evaluations": 18}
    tiled = s.search(hm.guider(hm.gaussian_model()), s.flow(), vae=starved.vae, **given)
    whole = s.search(hm.guider(hm.gaussian_model()), s.flow(), **given)
    assert starved.whole > 1
    assert torch.equal(tiled[0]["samples"], whole[0]["samples"])
    assert tiled[1].shape == (1, size, size, 3)
    assert (tiled[1] - whole[1]).abs().max() < 1e-4
