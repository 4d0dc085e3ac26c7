"""A reward of another pack, which inherits from nothing and knows nothing of this one."""

from types import SimpleNamespace

import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.rewards.combination import CombineRewards
from flowsearch.nodes.scoring import ScoreImages
from flowsearch.rewards.base import spec_of


class Redness:
    """The whole of a foreign reward: a name and a score."""

    def __init__(self, **spec):
        self.spec = SimpleNamespace(name="redness", **spec)

    def score(self, images):
        return images[..., 0].mean(dim=(1, 2)) - images[..., 1:].mean(dim=(1, 2, 3))


def test_what_it_does_not_say_is_taken_to_be_anything():
    spec = spec_of(Redness(high=1.0, scale=0.2))
    assert (spec.low, spec.high, spec.scale) == (-float("inf"), 1.0, 0.2)
    assert (spec.quantum, spec.domain, spec.has_gradient) == (0.0, "image", False)


@pytest.mark.parametrize("target", [{"target": "highest"}, s.NEVER])
def test_it_is_searched_for(target):
    _, image, report = s.reward_search(
        hm.gaussian_model(), reward=Redness(), evaluations=60, target=target
    )
    assert report.reward == "redness"
    assert report.best(0) == pytest.approx(float(Redness().score(image)), abs=1e-5)
    assert report.best(0) > report.plain(0)


def test_it_is_held_out():
    held_out = {"reward0": Redness(), "reward1": Redness()}
    _, _, report = s.reward_search(hm.gaussian_model(), held_out=held_out)
    assert report.trace.held_out() == ["redness", "redness 2"]


def test_it_is_combined():
    rewards = {"reward1": Redness(scale=2.0), "reward0": Redness(scale=1.0)}
    rule = {"rule": "weighted_sum", "weights": "1, -1", "normalisation": "spec"}
    images = torch.rand(3, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    combined = CombineRewards.execute(rewards, rule).result[0]
    wanted = 0.5 * Redness().score(images)
    assert torch.allclose(combined.score(images), wanted), "the inputs came in another order"
    _, _, report = s.reward_search(hm.gaussian_model(), reward=combined)
    assert "redness" in report.trace.record["finished"][0]["scores"]["parts"]


def test_it_scores_images():
    images = torch.rand(5, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    found = ScoreImages.execute(images, Redness(), 1, {"threshold": "none"}, "best_first", False)
    values = Redness().score(images)
    assert found.result[1] == values.tolist()
    assert torch.equal(found.result[0][0], images[values.argmax()])


@pytest.mark.parametrize("thing", [object(), SimpleNamespace(spec=SimpleNamespace(name="x"))])
def test_what_is_no_reward_is_refused_by_every_node(thing):
    images = torch.rand(2, 8, 8, 3)
    for node in (
        lambda: s.reward_search(hm.gaussian_model(), reward=thing),
        lambda: s.reward_search(hm.gaussian_model(), held_out={"reward0": thing}),
        lambda: CombineRewards.execute({"reward0": thing}, {"rule": "product"}),
        lambda: ScoreImages.execute(images, thing, 0, {"threshold": "none"}, "as_given", False),
    ):
        with pytest.raises(ValueError, match="a reward is an object with score"):
            node()
