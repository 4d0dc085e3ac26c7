"""Encoders: networks that give pictures and texts directions in one space.

An encoder joins a holder (which network, where), a function of the network, and what comes before
it: preprocessing for pictures, a tokenizer for text. Whether the network came from the host's
loaders or from a folder as transformers saves them, a reward sees the same two classes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..gradient import Gradient, holder_gradient
from ..weights.holder import Holder, NetworkReward, widened
from ..weights.pretrained import Foreign

__all__ = ["Encoder", "ImageEncoder", "TextEncoder", "Tokens", "cut_off"]


@dataclass(frozen=True)
class Tokens:
    """A text as numbers.

    Attributes:
        ids: Shape (1, L), int64, as the network wants them.
        note: What people should know, such as how much was cut off; may be empty.
    """

    ids: Tensor
    note: str = ""


@dataclass(frozen=True)
class ImageEncoder(NetworkReward):
    """Pictures to unit vectors.

    Attributes:
        holder: Keeps the network.
        forward: (network, pixels (B, 3, h, w) float32) -> (B, width), which casts as it needs.
        preprocess: Pictures (B, H, W, C) -> pixels.
        width: Length of a vector.
        family: "clip", "siglip" or "dinov2".
        side: Height and width of the network's input, 0 for any.
        has_gradient: Whether pictures can be differentiated through.
        aligned: Whether texts have directions in the same space.
        mutates: Whether the network writes into what it computed before; see holder_gradient.
    """

    holder: Holder[Any]
    forward: Callable[[Any, Tensor], Tensor]
    preprocess: Callable[[Tensor], Tensor]
    width: int
    family: str
    side: int = 0
    has_gradient: bool = True
    aligned: bool = True
    mutates: bool = False

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """The network's."""
        return (self.holder,)

    @property
    def input_size(self) -> tuple[int, int] | None:
        """As RewardSpec has it."""
        return (self.side, self.side) if self.side else None

    def embed(self, images: Tensor) -> Tensor:
        """Find the directions of pictures.

        Args:
            images: Shape (B, H, W, C), 0 to 1.

        Returns:
            Shape (B, width), float32, length 1, on the pictures' device.
        """
        if not images.shape[0]:
            return images.new_zeros(0, self.width, dtype=torch.float32)

        return self.holder.run(self._directions, images)

    def gradient(self, images: Tensor, value: Callable[[Tensor], Tensor]) -> Gradient:
        """Differentiate a function of directions with respect to the pictures.

        Args:
            images: As for embed.
            value: Directions (B, width), on the network's device -> one value a picture.

        Returns:
            Values and gradient.
        """

        def run(network: Foreign, rows: Tensor) -> Tensor:
            return value(self._directions(network, rows))

        return holder_gradient(self.holder, run, images, mutates=self.mutates)

    def _directions(self, network: Foreign, rows: Tensor) -> Tensor:
        return functional.normalize(widened(self.forward(network, self.preprocess(rows))), dim=-1)


@dataclass(frozen=True)
class TextEncoder(NetworkReward):
    """A text to a unit vector.

    Attributes:
        holder: Keeps the network.
        forward: (network, ids (1, L)) -> (1, width).
        tokenize: Plain words to ids; no syntax is read from them.
        width: Length of the vector.
    """

    holder: Holder[Any]
    forward: Callable[[Any, Tensor], Tensor]
    tokenize: Callable[[str], Tokens]
    width: int

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """The network's."""
        return (self.holder,)

    def embed(self, ids: Tensor) -> Tensor:
        """Find the direction of a text.

        Args:
            ids: Of Tokens.

        Returns:
            Shape (width,), float32, length 1, on the CPU, usable outside inference mode.
        """
        found = functional.normalize(self.holder.run(self.forward, ids)[0], dim=-1)
        with torch.inference_mode(False):
            return found.detach().cpu().clone()


@dataclass(frozen=True)
class Encoder(NetworkReward):
    """What a loader gives: pictures, and texts where there are any.

    Attributes:
        images: Pictures to vectors.
        text: Texts to vectors of the same space, or None.
    """

    images: ImageEncoder
    text: TextEncoder | None = None

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """Of pictures and, where it is another network, of texts."""
        text = self.text.holders if self.text else ()
        return tuple(dict.fromkeys((*self.images.holders, *text)))


def cut_off(count: int, longest: int) -> str:
    """Say, and log, how much of a text an encoder does not read.

    Args:
        count: Tokens of the text, with those for its start and end.
        longest: Tokens that the encoder reads.

    Returns:
        A line, or nothing when all is read.
    """
    if count <= longest:
        return ""
    note = f"the prompt has {count} tokens and the encoder reads {longest}: its end is not judged"
    logging.getLogger("flowsearch").warning("FlowSearch: %s.", note)
    return note
