"""A reward of clips, made of a reward of pictures: which frames it sees, and one number of them.

    value = aggregate(r(frame i_1), ..., r(frame i_k))        aggregate: mean, min or max

Evenly spaced frames of T are those nearest to i_j = (T - 1) (j - 1) / (k - 1), the first and the
last among them. A clip shorter than k has some of them more than once in the mean, so that the
value is always a mean of k; each is scored once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from .base import (
    Annotator,
    Assessed,
    Assessment,
    Reward,
    RewardSpec,
    assess,
    check_clips,
    models_of,
    spec_of,
)
from .gradient import Gradient, gradient_of, why_no_gradient

__all__ = ["AGGREGATES", "COUNT", "FRAMES", "FrameReward", "of_clips", "places"]

FRAMES = ("evenly_spaced", "all", "first", "middle", "last")
AGGREGATES = ("mean", "min", "max")

COUNT = 8
"""Frames that are scored where nobody says how many."""

CHUNK = 16
"""Frames that are given to a reward at once: all of a long clip may not fit beside each other."""


def places(frames: str, total: int, count: int = COUNT) -> list[int]:
    """Return the numbers of the frames that are scored, rising.

    Args:
        frames: One of FRAMES.
        total: Frames of the clip, at least 1.
        count: How many, for "evenly_spaced"; 1 is the middle one.

    Returns:
        Numbers from 0; one occurs more than once where a clip has fewer frames than `count`.

    Example:
        >>> places("evenly_spaced", 9, 3)
        [0, 4, 8]
    """
    last = total - 1
    if frames == "evenly_spaced" and count > 1:
        return [(2 * last * j + count - 1) // (2 * (count - 1)) for j in range(count)]
    single = {"first": 0, "last": last}
    return [*range(total)] if frames == "all" else [single.get(frames, last // 2)]


@dataclass(frozen=True)
class FrameReward(Assessed):
    """A reward of pictures, of frames of a clip.

    Args:
        inner: Scores the frames.
        frames: One of FRAMES.
        count: How many frames, for "evenly_spaced".
        aggregate: One of AGGREGATES.

    Raises:
        ValueError: A reward of something else than pictures, or unknown settings.

    Example:
        >>> from flowsearch.rewards.pixels.image_statistic import ImageStatistic
        >>> reward = FrameReward(ImageStatistic("brightness"), "all", aggregate="max")
        >>> reward.score(torch.linspace(0, 1, 4).reshape(1, 4, 1, 1, 1).expand(1, 4, 8, 8, 3))
        tensor([1.])
    """

    inner: Reward
    frames: str = FRAMES[0]
    count: int = COUNT
    aggregate: str = AGGREGATES[0]

    def __post_init__(self) -> None:
        """Check the settings."""
        spec = spec_of(self.inner)
        if spec.domain != "image":
            raise ValueError(
                f"Frame Reward was given {spec.name}, which scores {spec.domain}; it needs a "
                "reward of pictures. A reward of clips, sound or latents is connected to a search "
                "as it is."
            )
        if self.frames not in FRAMES or self.aggregate not in AGGREGATES or self.count < 1:
            raise ValueError(
                f"Frame Reward was given frames '{self.frames}', count {self.count} and aggregate "
                f"'{self.aggregate}'; frames are one of {FRAMES}, the count is at least 1, and the "
                f"aggregate is one of {AGGREGATES}"
            )

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec; a mean of k values has a k-th of their quantum."""
        inner = spec_of(self.inner)
        quantum = inner.quantum
        if self.aggregate == "mean":
            many = {"evenly_spaced": 1.0 / self.count, "all": 0.0}
            quantum *= many.get(self.frames, 1.0)
        return replace(
            inner,
            name=f"{inner.name}_frames",
            measures=f"{self.said()}: {inner.measures}",
            quantum=quantum,
            domain="video",
        )

    def said(self) -> str:
        """Say of which frames the value is what."""
        which = f"{self.count} evenly spaced frames" if self.frames == FRAMES[0] else "all frames"
        single = self.frames in FRAMES[2:] or (self.frames == FRAMES[0] and self.count == 1)
        only = "middle" if self.frames == FRAMES[0] else self.frames
        return f"of the {only} frame" if single else f"{self.aggregate} over {which} of a clip"

    def get_models(self) -> list[Any]:
        """What a memory manager knows the inner reward's networks by."""
        return models_of(self.inner)

    def assess(self, images: Tensor) -> Assessment:
        """Score clips, and say what each frame got and which was the worst.

        Args:
            images: Clips (B, T, H, W, C), floating point, 0 to 1. B may be 0.

        Returns:
            Values; parts "frame 12"; as notes the worst frame, and what was said of it.

        Raises:
            ValueError: Not a batch of finite clips, or what the inner reward raises.
        """
        check_clips(images, "Frame Reward")
        used = Counter(places(self.frames, images.shape[1], self.count))
        found = [self._of(clip[[*used]]) for clip in images]
        if not found:
            return Assessment(images.new_zeros(0, dtype=torch.float32))
        values = torch.stack([each.values for each in found]).double()
        return Assessment(
            self._joined(values, used).float(),
            [
                {f"frame {at}": float(v) for at, v in zip(used, each.values.detach(), strict=True)}
                for each in found
            ],
            [_note([*used], each) for each in found],
        )

    def gradient(self, images: Tensor) -> Gradient:
        """Differentiate the value: that of the scored frames, and 0 for the others.

            d value / d frame_i = w_i d r(frame_i) / d frame_i

        where w_i is the frame's share of the mean, or for min and max 1 for the worst or best one
        (shared by equal ones). See rewards/gradient.py.

        Args:
            images: As for score.

        Returns:
            Values and gradients of the clips.

        Raises:
            ValueError: Not a batch of finite clips, or the inner reward has no gradient.
        """
        check_clips(images, "Frame Reward")
        used = Counter(places(self.frames, images.shape[1], self.count))
        values: list[Tensor] = []
        slopes = torch.zeros_like(images)
        for clip, slope in zip(images, slopes, strict=True):
            each, inner = self._slopes(clip[[*used]])
            with torch.enable_grad():
                of_frames = each.double()[None].requires_grad_()
                value = self._joined(of_frames, used)
                (weights,) = torch.autograd.grad(value.sum(), of_frames)
            values.append(value.detach().to(each))
            slope[[*used]] = inner * weights.to(inner).reshape(-1, 1, 1, 1)
        found = torch.cat(values) if values else images.new_zeros(0, dtype=torch.float32)
        return Gradient(found, slopes)

    def why_no_gradient(self) -> str:
        """Say why the inner reward cannot be differentiated; "" where it can."""
        return why_no_gradient(self.inner)

    def _joined(self, values: Tensor, used: Counter[int]) -> Tensor:
        """One value a clip of those of its frames (B, k)."""
        shares = values.new_tensor([*used.values()]) / used.total()
        joined = {"mean": (values * shares).sum, "min": values.amin, "max": values.amax}
        return joined[self.aggregate](dim=1)

    def _slopes(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Values and gradients of frames (k, H, W, C) by the inner reward."""
        starts = range(0, len(frames), CHUNK)
        found = [gradient_of(self.inner, frames[at : at + CHUNK]) for at in starts]
        slopes = [cast("Tensor", each.gradient) for each in found]
        return torch.cat([each.values for each in found]), torch.cat(slopes)

    def draw(self, images: Tensor) -> Tensor:
        """Draw on the scored frames what the inner reward draws.

        Args:
            images: As for score.

        Returns:
            Clips of the same shape; the other frames are as they were.
        """
        drawn = images.clone()
        if isinstance(self.inner, Annotator):
            used = [*Counter(places(self.frames, images.shape[1], self.count))]
            for clip in drawn:
                clip[used] = self.inner.draw(clip[used]).to(clip)
        return drawn

    def _of(self, frames: Tensor) -> Assessment:
        """What the inner reward says of frames (k, H, W, C)."""
        starts = range(0, len(frames), CHUNK)
        found = [assess(self.inner, frames[at : at + CHUNK]) for at in starts]
        return Assessment(
            torch.cat([each.values for each in found]),
            [part for each in found for part in each.parts],
            [note for each in found for note in each.notes],
        )


def _note(used: list[int], found: Assessment) -> str:
    """Name the worst frame, and repeat what was said of it."""
    worst = int(found.values.argmin())
    said = found.notes[worst]
    place = f"worst frame {used[worst]}" if len(used) > 1 else f"frame {used[worst]}"
    return f"{place}: {said}" if said else place


def of_clips(reward: Reward) -> Reward:
    """Return a reward as one of clips, by the defaults of Frame Reward.

    Args:
        reward: Any.

    Returns:
        A FrameReward of a reward of pictures, any other as it is.

    Example:
        >>> from flowsearch.rewards.pixels.image_statistic import ImageStatistic
        >>> of_clips(ImageStatistic("brightness")).spec.domain
        'video'
    """
    return FrameReward(reward) if spec_of(reward).domain == "image" else reward
