"""Aesthetic: how much people liked the look of such pictures, by a published linear head.

    score = head(e / |e|),    e the picture's embedding

Three heads, told apart by their files' keys and shapes:

* LAION improved aesthetic predictor ("v2"): 768-1024-128-64-16-1 on CLIP ViT-L/14
* LAION aesthetic predictor ("v1"): 768-1 on CLIP ViT-L/14
* Aesthetic Predictor V2.5: 1152-1024-128-64-16-1 on SigLIP so400m-patch14-384

None has a nonlinearity (their layers have only dropout between them), so each is one affine
function of the direction, and its range is exactly bias -+ |weight|. They were trained on ratings
of 1 to 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from ..base import RewardSpec, check_images
from ..gradient import Gradient, holder_gradient
from ..weights.holder import Holder, NetworkReward, dtype_of
from ..weights.preprocess import Preprocess
from .encoder import ImageEncoder

__all__ = ["KINDS", "Aesthetic", "AestheticHead", "Kind", "head_from"]


class Operations(Protocol):
    """Where layers are taken from: torch.nn, or the host's."""

    Linear: Any


@dataclass(frozen=True)
class Kind:
    """A published head and the encoder it was trained on.

    Attributes:
        name: As people know it.
        layers: Keys of its linear layers in the file, first to last, without ".weight".
        widths: Of the embedding and after each layer.
        family: Of the encoder.
        side: Height and width of the encoder's input.
        encoder: The encoder, for messages.
        licence: Of the weights.
        source: Where they are published.
        centre: How its training halved odd margins of a crop; see Preprocess.
    """

    name: str
    layers: tuple[str, ...]
    widths: tuple[int, ...]
    family: str
    side: int
    encoder: str
    licence: str
    source: str
    centre: str = "even"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key of the file to shape."""
        found: dict[str, tuple[int, ...]] = {}
        steps = zip(self.layers, self.widths[:-1], self.widths[1:], strict=True)
        for layer, before, after in steps:
            prefix = f"{layer}." if layer else ""
            found[f"{prefix}weight"], found[f"{prefix}bias"] = (after, before), (after,)
        return found


KINDS = (
    Kind(
        name="LAION v2",
        layers=tuple(f"layers.{i}" for i in (0, 2, 4, 6, 7)),
        widths=(768, 1024, 128, 64, 16, 1),
        family="clip",
        side=224,
        encoder="CLIP ViT-L/14",
        licence="Apache-2.0",
        source="github.com/christophschuhmann/improved-aesthetic-predictor",
    ),
    Kind(
        name="LAION v1",
        layers=("",),
        widths=(768, 1),
        family="clip",
        side=224,
        encoder="CLIP ViT-L/14",
        licence="MIT",
        source="github.com/LAION-AI/aesthetic-predictor",
    ),
    Kind(
        name="V2.5",
        layers=tuple(f"scoring_head.{i}" for i in (0, 2, 4, 6, 8)),
        widths=(1152, 1024, 128, 64, 16, 1),
        family="siglip",
        side=384,
        encoder="SigLIP so400m-patch14-384",
        licence="AGPL-3.0",
        source="github.com/discus0434/aesthetic-predictor-v2-5",
    ),
)


class AestheticHead(nn.Module):
    """Linear layers, one after the other."""

    def __init__(self, kind: Kind, operations: Operations = nn) -> None:
        """Build it.

        Args:
            kind: Which.
            operations: Where Linear is taken from: torch.nn, or the host's.
        """
        super().__init__()
        pairs = zip(kind.widths[:-1], kind.widths[1:], strict=True)
        self.kind = kind
        self.bounds = (-torch.inf, torch.inf)
        self.layers = nn.Sequential(*(operations.Linear(a, b) for a, b in pairs))

    def forward(self, directions: Tensor) -> Tensor:
        """Rate directions.

        Args:
            directions: Shape (B, width), of length 1.

        Returns:
            Shape (B, 1).
        """
        return self.layers(directions)


def head_from(weights: Mapping[str, Tensor], operations: Operations = nn) -> AestheticHead:
    """Make the head that a file holds.

    Args:
        weights: Key to tensor, as published.
        operations: See AestheticHead.

    Returns:
        The head in float32, with `bounds`, the lowest and highest value that it can give.

    Raises:
        ValueError: The keys or shapes are not exactly those of one of KINDS.
    """
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    kind = next((kind for kind in KINDS if kind.shapes == shapes), None)
    if kind is None:
        closest = max(KINDS, key=lambda kind: len(kind.shapes.items() & shapes.items()))
        missing = sorted(closest.shapes.items() - shapes.items())
        unknown = sorted(shapes.items() - closest.shapes.items())
        raise ValueError(
            "These weights are no aesthetic head that is known "
            f"({', '.join(k.name for k in KINDS)}). Beside {closest.name}, the closest: missing "
            f"{missing[:3]}, unknown {unknown[:3]}. Choose a file of those that the node's help "
            "page names."
        )
    head = AestheticHead(kind, operations)
    renamed = {
        f"layers.{i}.{part}": weights[f"{layer}.{part}" if layer else part].float()
        for i, layer in enumerate(kind.layers)
        for part in ("weight", "bias")
    }
    head.load_state_dict(renamed, strict=True)
    head.bounds = _bounds(renamed, len(kind.layers))
    return head


def _bounds(weights: Mapping[str, Tensor], count: int) -> tuple[float, float]:
    """Lowest and highest value over all directions, widened by rounding.

    Layer after layer is one affine map: w, b <- W w, W b + bias.
    """
    w, b = weights["layers.0.weight"].double(), weights["layers.0.bias"].double()
    for i in range(1, count):
        weight = weights[f"layers.{i}.weight"].double()
        w, b = weight @ w, weight @ b + weights[f"layers.{i}.bias"].double()
    reach, middle = float(w.square().sum().sqrt()), float(b)
    slack = 1e-4 * (1.0 + reach + abs(middle))
    return middle - reach - slack, middle + reach + slack


@dataclass(frozen=True)
class Aesthetic(NetworkReward):
    """Rating of a picture's look.

    Args:
        images: Encoder of pictures.
        head: Holder of the head.

    Raises:
        ValueError: The encoder is not the one that the head was trained on, as far as can be told.
    """

    images: ImageEncoder
    head: Holder[AestheticHead]

    def __post_init__(self) -> None:
        """Check that head and encoder belong together."""
        kind, images = self.head.network.kind, self.images
        given, wanted = (
            (images.family, images.width, images.side),
            (kind.family, kind.widths[0], kind.side),
        )
        if given != wanted or not images.aligned:
            raise ValueError(
                f"The aesthetic head {kind.name} rates embeddings of {kind.encoder} ({wanted[1]} "
                f"numbers, {wanted[2]} pixels); connected is an encoder of family {given[0]} "
                f"({given[1]} numbers, {given[2]} pixels). Connect {kind.encoder}."
            )

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        kind, (low, high) = self.head.network.kind, self.head.network.bounds
        return RewardSpec(
            name="aesthetic",
            measures=f"how much people liked the look of such pictures, 1 to 10 ({kind.name})",
            low=low,
            high=high,
            scale=0.5,
            input_size=self.images.input_size,
            has_gradient=self.images.has_gradient,
            licence=kind.licence,
            source=kind.source,
        )

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """Of the encoder and the head."""
        return (*self.images.holders, self.head)

    @cached_property
    def _encoder(self) -> ImageEncoder:
        """The encoder, cropping as the head's training did."""
        preprocess = self.images.preprocess
        if not isinstance(preprocess, Preprocess):
            return self.images
        preprocess = replace(preprocess, centre=self.head.network.kind.centre)
        return replace(self.images, preprocess=preprocess)

    def score(self, images: Tensor) -> Tensor:
        """Score pictures; see Reward.score.

        Args:
            images: Shape (B, H, W, C), 0 to 1.

        Returns:
            Ratings, shape (B,), float32.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Aesthetic")
        return self.head.run(_rate, self._encoder.embed(images))

    def gradient(self, images: Tensor) -> Gradient:
        """See Differentiable.

        Args:
            images: As for score.

        Returns:
            Ratings, and how they change with the pictures.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "Aesthetic")
        weight, bias = self._affine
        return self._encoder.gradient(images, lambda found: found @ weight.to(found) + bias)

    @cached_property
    def _affine(self) -> tuple[Tensor, float]:
        """The head as one affine function: its slope, which is the same everywhere, and its value
        at 0."""
        head = self.head.network
        zero = torch.zeros(1, head.kind.widths[0], dtype=dtype_of(head))
        found = holder_gradient(self.head, _rate, zero)
        with torch.inference_mode(False):
            slope = cast("Tensor", found.gradient)[0].detach().clone()
        return slope, float(found.values)


def _rate(head: AestheticHead, directions: Tensor) -> Tensor:
    return head(directions.to(dtype_of(head)))[:, 0]
