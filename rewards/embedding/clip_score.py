"""CLIP Score: how well a picture fits its prompt, as the cosine of their embeddings.

    score = <image, text> / (|image| |text|)        -1 to 1

The plain cosine, as search uses it: Hessel et al.'s CLIPScore is 2.5 max(cosine, 0), the same
order of pictures but for negative ones (arXiv:2104.08718). With CLIP, fitting pictures
are at about 0.2 to 0.35 and others at 0.1 to 0.2; values of different encoders do not compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..gradient import Gradient
from ..weights.holder import Holder, NetworkReward
from .encoder import ImageEncoder, TextEncoder, Tokens

__all__ = ["ClipScore"]


@dataclass(frozen=True)
class ClipScore(Assessed, NetworkReward):
    """Cosine of the picture's and the prompt's embedding.

    Args:
        images: Encoder of pictures.
        text: Encoder of texts into the same space.
        prompt: Plain words; see prompt_syntax.py for others.

    Raises:
        ValueError: An empty prompt, or encoders that do not share a space.
    """

    images: ImageEncoder
    text: TextEncoder
    prompt: str

    def __post_init__(self) -> None:
        """Check what fits together."""
        if not self.prompt.strip():
            raise ValueError(
                "CLIP Score was given an empty prompt. Say what the picture should show."
            )
        if not self.images.aligned or self.images.width != self.text.width:
            raise ValueError(
                f"CLIP Score was given an encoder of pictures ({self.images.family}, "
                f"{self.images.width} numbers) and one of text ({self.text.width} numbers) that do "
                "not share a space. Use the two halves of one model."
            )

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="clip_score",
            measures="how well the picture fits the prompt: cosine of their embeddings",
            low=-1.0,
            high=1.0,
            scale=0.05,
            input_size=self.images.input_size,
            has_gradient=self.images.has_gradient,
            licence="that of the encoder's weights",
            source="the encoder connected; arXiv:2104.08718",
        )

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """Of both encoders."""
        return tuple(dict.fromkeys((*self.images.holders, *self.text.holders)))

    @cached_property
    def _tokens(self) -> Tokens:
        return self.text.tokenize(self.prompt)

    @property
    def unread(self) -> str:
        """What of the prompt is not read; empty where all is."""
        return self._tokens.note

    @cached_property
    def _direction(self) -> Tensor:
        return self.text.embed(self._tokens.ids)

    def assess(self, images: Tensor) -> Assessment:
        """Score pictures and say what of the prompt was not read.

        Args:
            images: As for score.

        Returns:
            Cosines, and a note where there is something to note.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "CLIP Score")
        found = self.images.embed(images)
        if not images.shape[0]:
            return Assessment(found.sum(dim=-1))
        note = self.unread
        notes = [note] * images.shape[0] if note else ()
        return Assessment(_cosines(found, self._direction), notes=notes)

    def gradient(self, images: Tensor) -> Gradient:
        """See Differentiable.

        Args:
            images: As for score.

        Returns:
            Cosines, and how they change with the pictures.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "CLIP Score")
        direction = self._direction
        return self.images.gradient(images, lambda found: _cosines(found, direction))


def _cosines(found: Tensor, direction: Tensor) -> Tensor:
    return (found @ direction.to(found)).clamp(-1.0, 1.0)
