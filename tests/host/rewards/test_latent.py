"""A search for a reward of latents decodes nothing on its way, and may do without a VAE."""

import comfy.model_management
import host_models as hm
import pytest
import searching as s
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from flowsearch.nodes.host.search import judge as judge_module
from flowsearch.nodes.rewards.latent import LatentRewardNode
from flowsearch.nodes.search.reward_search import SearchSamplerNode
from flowsearch.rewards.base import RewardSpec
from flowsearch.rewards.combination import combine
from flowsearch.rewards.latent import LatentReward

MEAN = {"statistic": "mean"}


def reward(**statistic):
    return LatentRewardNode.execute(statistic or MEAN).result[0]


class Counting:
    """A VAE that counts what it decodes."""

    def __init__(self):
        self.vae, self.rows = s.pixel_vae(), 0

    def decode(self, latents):
        self.rows += latents.shape[0]
        return self.vae.decode(latents)


def run(choice="rbf", evaluations=60, **given):
    return s.search(
        hm.guider(hm.gaussian_model(), 0.5), s.sampler("euler") if choice == "best_of_n"
        else s.flow(), strategy=s.strategy(choice), evaluations=evaluations, **given,
    )  # fmt: skip


@pytest.mark.parametrize("choice", ["evolutionary", "rbf", "best_of_n"])
def test_only_what_is_put_out_is_decoded(choice):
    vae = Counting()
    latent, image, report = run(choice, vae=vae, reward=reward())
    assert vae.rows == image.shape[0] == 1
    assert report.best(0) == pytest.approx(float(latent["samples"].mean()), abs=1e-5)
    assert report.best(0) > report.plain(0)


def test_it_is_the_same_search_as_by_the_picture():
    """The pixel VAE is (z + 1) / 2, so the means rank alike; clamping aside."""

    class Bright(s.Brightness):
        def score(self, images):
            return images.mean(dim=(1, 2, 3)) * 2.0 - 1.0

    model = hm.gaussian_model(std=0.1)
    by_latent, by_picture = (
        s.search(hm.guider(model, 0.0), s.flow(), reward=r, evaluations=60)[0]["samples"]
        for r in (reward(), Bright())
    )
    assert torch.allclose(by_latent, by_picture)


def test_it_is_given_the_latents_that_a_latent_holds():
    """What comes out scores what the report says."""
    seen = []

    class Seeing(LatentReward):
        def score(self, latents):
            seen.append(latents.clone())
            return super().score(latents)

    latent, _, report = run(reward=Seeing("std"), vae=None)
    finished = torch.cat(seen)
    assert any(torch.allclose(latent["samples"][0], row, atol=1e-6) for row in finished)
    assert report.best(0) == pytest.approx(float(latent["samples"].std(correction=0)), rel=1e-4)


def test_without_a_vae_the_latent_comes_out_and_the_image_is_blocked():
    latent, image, _ = run(reward=reward(), vae=None)
    assert latent["samples"].shape == (1, 3, hm.SIZE, hm.SIZE)
    assert isinstance(image, ExecutionBlocker)
    assert "no VAE is connected" in image.message


def test_a_reward_of_pictures_needs_the_vae():
    with pytest.raises(ValueError, match=r"no VAE is connected, and brightness can only"):
        run(reward=s.Brightness(), vae=None)
    with pytest.raises(ValueError, match=r"no VAE is connected, and brightness can only"):
        run(reward=reward(), vae=None, held_out={"reward0": s.Brightness()})
    other = s.Brightness()
    other.spec = RewardSpec("loudness", "x", 0.0, 1.0, domain="sound")
    with pytest.raises(ValueError, match="scores sounds"):
        run(reward=other)


def test_a_search_sampler_may_do_without_a_vae():
    sampler = SearchSamplerNode.execute(
        sampler=s.flow(), reward=reward(), evaluations=40, target=s.NEVER
    ).result[0]
    out, _ = hm.run(hm.guider(hm.gaussian_model(), 0.5), sampler, s.SIGMAS, hm.empty_latent())
    assert bool(out.isfinite().all())


def test_held_out_rewards_see_what_they_score():
    vae = Counting()
    held_out = {"reward0": reward(statistic="std"), "reward1": s.Brightness()}
    latent, image, report = run(vae=vae, reward=reward(), held_out=held_out)
    finished = report.trace.record["finished"]
    assert vae.rows == len(finished) + 1, "unfinished pictures were decoded"
    best = max(finished, key=lambda row: row["scores"]["value"])["scores"]["held_out"]
    assert best["latent"] == pytest.approx(float(latent["samples"].std(correction=0)), rel=1e-4)
    assert best["brightness"] == pytest.approx(float(image.mean()), rel=1e-4)

    _, image, report = run(reward=s.Brightness(), held_out={"reward0": reward()})
    assert report.trace.held_out() == ["latent"]
    values = [row["scores"]["held_out"]["latent"] for row in report.trace.record["finished"]]
    assert all(isinstance(value, float) for value in values)


def test_no_model_is_moved_for_a_reward_without_one(monkeypatch):
    """Measured on the host's own function: how often it is asked to load the models again."""
    calls = []
    real = comfy.model_management.load_models_gpu
    monkeypatch.setattr(
        judge_module.comfy.model_management,
        "load_models_gpu",
        lambda *args, **kwargs: (calls.append(args), real(*args, **kwargs))[1],
    )
    run(reward=reward(), vae=None)
    without = len(calls)
    calls.clear()

    class WithNetwork(LatentReward):
        def get_models(self):
            return ["a patcher of its own"]

    run(reward=WithNetwork("mean"), vae=None)
    assert len(calls) > without + 3, "a network may push the model out, and nothing brought it back"


def test_members_in_the_report():
    both = combine([reward(), reward(statistic="std")], "weighted_sum", (1.0, 0.5))
    _, _, report = run(reward=both, vae=None)
    rows = [row["scores"] for row in report.trace.record["evaluated"] if row["scores"]]
    assert all({*row["parts"]} == {"latent", "latent 2"} for row in rows)
    for row in rows:
        parts = row["parts"]
        assert row["value"] == pytest.approx(parts["latent"] + 0.5 * parts["latent 2"], rel=1e-5)


def test_a_reference_of_another_size_is_refused():
    reference = hm.picture_latent(size=32)
    with pytest.raises(Exception, match=r"of shape \(3, 64, 64\) with a reference of shape"):
        run(reward=reward(statistic="cosine", reference=reference), vae=None)
