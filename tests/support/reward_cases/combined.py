"""Combinations of small rewards, rewards of frames, and rewards of latents."""

import torch

from flowsearch.rewards.base import RewardSpec
from flowsearch.rewards.combination import combine
from flowsearch.rewards.frames import FrameReward
from flowsearch.rewards.latent import LatentReward
from flowsearch.rewards.pixels.shape_count import ShapeCount
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity


def counted(count=2):
    return ShapeCount({("red", "circle"): count})


def reference():
    return torch.linspace(0.0, 1.0, 2 * 3 * 64 * 64).reshape(2, 3, 64, 64)


class Brightness:
    """A reward that inherits from nothing, differentiable, 0 to 1."""

    spec = RewardSpec("brightness", "mean of all pixels", 0.0, 1.0, scale=0.1, has_gradient=True)

    def score(self, images):
        from flowsearch.rewards.base import check_images
        from flowsearch.rewards.weights.holder import widened

        check_images(images, "Brightness")
        return widened(images).mean(dim=(1, 2, 3)).clamp(0.0, 1.0)


CASES = {
    "latent:mean": lambda: LatentReward("mean"),
    "latent:std": lambda: LatentReward("std"),
    "latent:cosine": lambda: LatentReward("cosine", reference()),
    "latent:negative_mse": lambda: LatentReward("negative_mse", reference()),
    "combination:sum": lambda: combine([Brightness(), Brightness()], "weighted_sum", (1.0, -0.5)),
    "combination:counts": lambda: combine([counted(), counted()], "weighted_sum", (1.0, 0.5)),
    "combination:minimum": lambda: combine(
        [Brightness(), ShapeFidelity()],
        "minimum",
        normalisation="calibration",
        examples=torch.rand(4, 16, 16, 3, generator=torch.Generator().manual_seed(1)),
    ),
    "combination:product": lambda: combine([Brightness(), ShapeFidelity()], "product"),
    "combination:order": lambda: combine([counted(), Brightness()], "lexicographic"),
    "frames": lambda: FrameReward(Brightness()),
    "frames:min": lambda: FrameReward(counted(), count=2, aggregate="min"),
    "frames:mean": lambda: FrameReward(counted(), count=4),
    "frames:all": lambda: FrameReward(Brightness(), "all", aggregate="max"),
    "frames:middle": lambda: FrameReward(Brightness(), "middle"),
    "combination:clips": lambda: combine([FrameReward(Brightness()), Brightness()], "minimum"),
    "combination:latents": lambda: combine(
        [LatentReward("mean"), LatentReward("std")], "weighted_sum"
    ),
}
OTHER = {
    "combination:counts": lambda: combine([counted(5), counted(5)], "weighted_sum", (1.0, 0.5)),
    "combination:order": lambda: combine([counted(5), Brightness()], "lexicographic"),
    "frames:min": lambda: FrameReward(counted(5), count=2, aggregate="min"),
    "frames:mean": lambda: FrameReward(counted(5), count=4),
}
