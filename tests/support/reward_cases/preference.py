"""Human preference: small networks of the published layouts, weights from their names."""

import functools

import torch
from preference_weights import seeded, small

from flowsearch.rewards.preference.clip_preference import ClipPreference
from flowsearch.rewards.preference.image_reward import ImageReward
from flowsearch.rewards.preference.kinds import network_from
from flowsearch.rewards.weights.holder import Local


@functools.cache
def holder(name, dtype=torch.float32):
    """Keeps the small network of a kind."""
    return Local(network_from(seeded(small(name)), dtype))


def clip_preference(name, dtype=torch.float32, tokens=(94, 5, 17, 3, 60, 95)):
    """PickScore or HPS for six tokens."""
    return ClipPreference(holder(name, dtype), torch.tensor([tokens]))


def image_reward(dtype=torch.float32, tokens=(2, 5, 6, 8, 9, 3)):
    """ImageReward for six tokens."""
    return ImageReward(holder("image_reward", dtype), torch.tensor([tokens]))


CASES = {
    "pick_score": lambda: clip_preference("pick_score"),
    "hps": lambda: clip_preference("hps_v2_1"),
    "image_reward": image_reward,
}
OTHER = {
    "pick_score": lambda: clip_preference("pick_score", tokens=(94, 7, 2, 95)),
    "hps": lambda: clip_preference("hps_v2_1", tokens=(94, 7, 2, 95)),
    "image_reward": lambda: image_reward(tokens=(2, 7, 4, 3)),
}
