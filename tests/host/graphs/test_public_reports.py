"""Faults that were reported of comparable nodes, each with its right value; docs/OTHER_PACKS.md."""

import host_models as hm
import pytest
import searching as s
import torch

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
