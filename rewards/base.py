"""What a reward is: a number per picture, higher is better, closed over its prompt.

Any object with ``spec`` and ``score`` is a reward, whoever wrote it; nothing has to inherit from
anything here. The module holds the protocol, the description every reward carries, and the one
check that all of them make on their input.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = ["Reward", "RewardSpec", "check_images"]


@dataclass(frozen=True)
class RewardSpec:
    """Description of a reward, for reports, for combining rewards and for choosing a target.

    Args:
        name: Short id, lower-case snake case.
        measures: One sentence: what a higher value means.
        low: Lowest possible value, or -inf.
        high: Highest possible value, or +inf.
        quantum: Smallest difference between two different values, 0 for a continuous reward.
        input_size: Height and width the reward was made for, or None when any size will do.
        deterministic: Whether the same pictures always get the same values.
        has_gradient: Whether the value can be differentiated with respect to the pictures.
        licence: Licence of the weights, or of the code where there are no weights.
        source: Where the weights or the rule come from.
    """

    name: str
    measures: str
    low: float
    high: float
    quantum: float = 0.0
    input_size: tuple[int, int] | None = None
    deterministic: bool = True
    has_gradient: bool = False
    licence: str = "MIT"
    source: str = "FlowSearch"
    sha256: str = field(default="")


@runtime_checkable
class Reward(Protocol):
    """Scores pictures."""

    @property
    def spec(self) -> RewardSpec:
        """What the value means."""
        ...

    def score(self, images: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images: Shape (B, H, W, C), floating point, 0 to 1, red-green-blue.

        Returns:
            Shape (B,), float32, higher is better.
        """
        ...


def check_images(images: Tensor, name: str) -> None:
    """Refuse what is not a batch of finite pictures.

    Args:
        images: Candidate input of a reward.
        name: The reward's name, for the message.

    Raises:
        ValueError: Wrong rank, wrong channel count, not floating point, or not finite.
    """
    shape = tuple(images.shape)
    if images.ndim != 4 or shape[-1] not in (3, 4):
        raise ValueError(
            f"{name} was given images of shape {shape}; it needs (batch, height, width, 3 or 4). "
            "Connect the IMAGE output of a VAE Decode."
        )
    if not torch.is_floating_point(images):
        raise ValueError(
            f"{name} was given images of type {images.dtype}; it needs floating point values "
            "from 0 to 1. Divide 8-bit values by 255."
        )
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0])
        raise ValueError(
            f"{name}: picture {bad} of {shape[0]} holds values that are not finite. The model or "
            "the VAE overflowed: try another dtype for it, or fewer guidance patches."
        )
