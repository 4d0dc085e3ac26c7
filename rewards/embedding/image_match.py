"""Image Match: how much a picture resembles reference pictures.

    score = mean or max over references of  <image, reference> / (|image| |reference|)      -1 to 1

What resemblance means is the encoder's: CLIP and SigLIP compare content and style as words would
name them, DINOv2 compares objects and their look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..gradient import Gradient
from ..weights.holder import Holder, NetworkReward
from .encoder import ImageEncoder

__all__ = ["RULES", "ImageMatch"]

RULES = ("mean", "max")


@dataclass(frozen=True)
class ImageMatch(Assessed, NetworkReward):
    """Cosine of the picture's embedding and those of references.

    Args:
        images: Encoder of pictures.
        references: Batches of pictures (R, H, W, C), 0 to 1, each of its own size.
        rule: "mean" wants likeness to all of them, "max" to any.

    Raises:
        ValueError: No reference, one that is not a picture, or an unknown rule.
    """

    images: ImageEncoder
    references: Sequence[Tensor]
    rule: str = "mean"

    def __post_init__(self) -> None:
        """Check the references and the rule."""
        for batch in self.references:
            check_images(batch, "Image Match (references)")
        if not sum(batch.shape[0] for batch in self.references):
            raise ValueError("Image Match was given no reference picture; connect at least one.")
        if self.rule not in RULES:
            raise ValueError(f"Image Match knows no rule '{self.rule}'; choose one of {RULES}.")

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="image_match",
            measures="how much the picture resembles the reference pictures: cosine of embeddings",
            low=-1.0,
            high=1.0,
            scale=0.1,
            input_size=self.images.input_size,
            has_gradient=self.images.has_gradient,
            licence="that of the encoder's weights",
            source="the encoder connected",
        )

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """The encoder's."""
        return self.images.holders

    @cached_property
    def _directions(self) -> Tensor:
        """Shape (references, width)."""
        found = torch.cat([self.images.embed(batch.detach()).cpu() for batch in self.references])
        with torch.inference_mode(False):
            return found.clone()

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures, with the likeness to each reference.

        Args:
            images: As for score.

        Returns:
            Cosines; parts "reference 1", "reference 2", ... in the order given.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Image Match")
        found = self.images.embed(images)
        if not images.shape[0]:
            return Assessment(found.sum(dim=-1))
        each = _cosines(found, self._directions)
        rows = each.detach().cpu()
        parts = [{f"reference {i}": float(v) for i, v in enumerate(row, 1)} for row in rows]
        return Assessment(self._together(each), parts)

    def gradient(self, images: Tensor) -> Gradient:
        """See Differentiable; by the rule "max" it is that of the likeness to the nearest.

        Args:
            images: As for score.

        Returns:
            Cosines, and how they change with the pictures.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Image Match")
        references = self._directions
        return self.images.gradient(
            images, lambda found: self._together(_cosines(found, references))
        )

    def _together(self, each: Tensor) -> Tensor:
        return each.mean(dim=1) if self.rule == "mean" else each.amax(dim=1)


def _cosines(found: Tensor, references: Tensor) -> Tensor:
    """Shape (pictures, references)."""
    return (found @ references.to(found).T).clamp(-1.0, 1.0)
