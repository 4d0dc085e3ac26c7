"""A number of the latent itself: no decoder, no network.

With the values z of one latent, whatever its rank, and those y of a reference of its shape,

    mean             sum z / n
    std              sqrt(sum (z - mean)^2 / n)
    cosine           z . y / (|z| |y|)
    negative_mse     - sum (z - y)^2 / n

For tests, and for those who work in latent space: a search for it decodes nothing on its way.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import RewardSpec
from .gradient import Gradient, value_and_gradient

__all__ = ["STATISTICS", "TO_REFERENCE", "LatentReward", "check_latents"]

STATISTICS = {
    "mean": ("mean of the latent's values", -float("inf"), float("inf")),
    "std": ("standard deviation of the latent's values", 0.0, float("inf")),
    "cosine": ("cosine of the angle between the latent and the nearest reference", -1.0, 1.0),
    "negative_mse": ("minus the mean square difference to the nearest one", -float("inf"), 0.0),
}  # fmt: skip
"""Name to what it measures, its lowest and its highest value."""

TO_REFERENCE = ("cosine", "negative_mse")


def check_latents(latents: Tensor, name: str) -> None:
    """Refuse what is not a batch of finite latents.

    Args:
        latents: Candidate input of a reward of domain "latent". An empty batch is one.
        name: The reward's name, for the message.

    Raises:
        ValueError: Wrong rank, no values, not floating point, or not finite.

    Example:
        >>> check_latents(torch.zeros(2, 4, 8, 8), "mean")
    """
    shape = tuple(latents.shape)
    if latents.ndim < 3 or 0 in shape[1:]:
        raise ValueError(
            f"{name} was given latents of shape {shape}; it needs (batch, channels, ...). "
            "Connect a LATENT."
        )
    if not torch.is_floating_point(latents):
        raise ValueError(
            f"{name} was given latents of type {latents.dtype}; it needs floating point values"
        )
    finite = torch.isfinite(latents).flatten(1).all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).nonzero()[0])
        raise ValueError(
            f"{name}: latent {bad} of {shape[0]} holds values that are not finite. The model "
            "overflowed: try another dtype for it, or fewer guidance patches."
        )


@dataclass(frozen=True, eq=False)
class LatentReward:
    """A statistic of latents.

    Args:
        statistic: One of STATISTICS.
        reference: Latents (R, C, *S) for "cosine" and "negative_mse"; the nearest one counts.

    Example:
        >>> LatentReward("std").score(torch.zeros(2, 4, 8, 8))
        tensor([0., 0.])
    """

    statistic: str
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: An unknown statistic, or a reference that is missing or is none.
        """
        if self.statistic not in STATISTICS:
            raise ValueError(f"the statistic is '{self.statistic}'; it is one of {[*STATISTICS]}")
        if self.statistic in TO_REFERENCE:
            if self.reference is None or not self.reference.shape[0]:
                raise ValueError(
                    f"{self.statistic} compares with a reference, and there is none; connect a "
                    "LATENT"
                )
            check_latents(self.reference, "Latent Reward's reference")

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        measures, low, high = STATISTICS[self.statistic]
        return RewardSpec("latent", measures, low, high, domain="latent", has_gradient=True)

    def score(self, latents: Tensor) -> Tensor:
        """Score latents.

        Args:
            latents: Shape (B, C, *S), as a LATENT holds them.

        Returns:
            Shape (B,), float32.

        Raises:
            ValueError: Not a batch of finite latents, or not of the reference's shape.
        """
        return self._measured(self._checked(latents).float())

    def gradient(self, latents: Tensor) -> Gradient:
        """Differentiate the value; see rewards/gradient.py.

        Args:
            latents: As for score.

        Returns:
            Values and gradients. The standard deviation of equal values has the gradient 0; of
            several references it is that to the nearest.

        Raises:
            ValueError: As for score.
        """
        return value_and_gradient(self._measured, self._checked(latents))

    def _checked(self, latents: Tensor) -> Tensor:
        check_latents(latents, "Latent Reward")
        reference = latents if self.reference is None else self.reference
        if self.statistic in TO_REFERENCE and reference.shape[1:] != latents.shape[1:]:
            raise ValueError(
                f"Latent Reward compares latents of shape {tuple(latents.shape[1:])} with a "
                f"reference of shape {tuple(reference.shape[1:])}; it needs one of the same size "
                "and model"
            )
        return latents

    def _measured(self, latents: Tensor) -> Tensor:
        """The statistic of latents that were looked at, (B,)."""
        if not latents.shape[0]:
            return latents.new_zeros(0, dtype=torch.float32)
        rows = (latents if latents.dtype is torch.float64 else latents.float()).flatten(1)
        if self.statistic == "mean":
            return rows.mean(dim=1)
        if self.statistic == "std" or self.reference is None:
            # a root's gradient is infinite at 0, and without the first value rounding would be one
            return (rows - rows[:, :1]).std(dim=1, unbiased=False)
        # a copy: one that the host made in inference mode could not be saved for a backward pass
        references = self.reference.to(rows).flatten(1).clone()
        return _likeness(self.statistic, rows[:, None], references[None])


def _likeness(statistic: str, rows: Tensor, references: Tensor) -> Tensor:
    """Compare rows (B, 1, n) with references (1, R, n): that to the nearest, (B,)."""
    if statistic == "cosine":
        found = torch.nn.functional.cosine_similarity(rows, references, dim=2).clamp(-1.0, 1.0)
    else:
        found = -(rows - references).square().mean(dim=2)
    return found.amax(dim=1)
