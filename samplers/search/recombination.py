"""Where do two pictures differ, and what comes of exchanging some of these places?

Two pictures of one family (one made from the other by noising and finishing it) agree in most
places. Where they do not, each connected place is a change of its own, good or bad. A picture that
takes some of the other's changes and not the rest can be better than both, and costs no prediction
of the model: only a look, and a few low steps that heal the seams if it is kept.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["Mix", "exchanged", "regions"]

BLUR = 20  # differences are averaged over a window of one part in so many of the longest side


@dataclass(frozen=True)
class Mix:
    """Take each place where a donor differs from the parent from the donor, with this probability.

    The result stands at the sigma asked for, noised, with the mix itself as its prediction, like a
    start; it costs no evaluation.

    Attributes:
        share: Probability of each place, above 0 and below 1.

    Example:
        >>> Mix(0.25).share
        0.25
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a share that copies one of the two."""
        if not 0.0 < self.share < 1.0:
            raise ValueError(
                f"a mix takes a share above 0 and below 1 of the donor, got {self.share}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that names this transition in reports."""
        return {"mix": self.share}


def regions(first: Tensor, second: Tensor) -> Tensor:
    """Number the connected places where two pictures differ more than they do on average.

    Args:
        first: Clean latents, shape (B, C, *S), or (B, C) where each coordinate is its own place.
        second: The same shape.

    Returns:
        Shape (B, *S), int64: 0 where they agree, else a number that the places of one region share.
    """
    if first.ndim < 3:
        numbers = torch.arange(1, first.shape[1] + 1, device=first.device)
        return numbers.expand_as(first) * (first != second)
    difference = (first - second).abs().mean(1)
    for axis in range(1, difference.ndim):
        difference = _averaged(difference, axis, max(difference.shape[1:]) // BLUR | 1)
    mean = difference.flatten(1).mean(1).view(-1, *[1] * (difference.ndim - 1))
    inside = difference > mean
    count = inside[0].numel()
    numbers = torch.arange(1, count + 1, device=first.device).view(1, *inside.shape[1:])
    labels = torch.where(inside, numbers, 0)
    while True:  # each place takes the highest number among its neighbours until none rises
        raised = labels
        for axis in range(1, labels.ndim):
            raised = _highest(raised, axis)
        # a number is that of a place of the same region: what that place has by now is as good
        places = (raised.flatten(1) - 1).clamp(min=0)
        raised = torch.where(inside, raised.flatten(1).gather(1, places).view_as(labels), 0)
        if torch.equal(raised, labels):
            return labels
        labels = raised


def exchanged(
    first: Tensor,
    second: Tensor,
    noise: Tensor,
    share: float,
    parts: Sequence[tuple[int, ...]] = (),
) -> Tensor:
    """Put a random part of the regions of one picture into another.

    A region is taken when the sum of the noise over it, which is normal, is among the highest
    `share` of its values. Where the two differ in fewer than two regions there is nothing to
    choose from, and smooth random halves of the picture take the regions' place.

    Args:
        first: Clean latents, shape (B, C, *S) or (B, C).
        second: Whose regions are taken, the same shape.
        noise: Standard normal, the same shape.
        share: Probability of each region, above 0 and below 1.
        parts: Shapes (C, *S) of the latents that lie one after another in rows (B, 1, L), each of
            which has places of its own; empty where a row is one latent.

    Returns:
        The mixed latents, shape of first.
    """
    if parts:
        apart = (_split(rows, parts) for rows in (first, second, noise))
        mixed = [exchanged(a, b, z, share).flatten(1) for a, b, z in zip(*apart, strict=True)]
        return torch.cat(mixed, dim=1).reshape(first.shape)
    field = (noise.mean(1) if noise.ndim > 2 else noise).to(torch.float64)
    ends = [*_changes(first, second), len(field)]  # several mixes of one pair are the rule
    taken: list[Tensor] = []
    begin = 0
    for end in ends:
        places = _places(first[begin : begin + 1], second[begin : begin + 1])
        taken.append(_taken(places, field[begin:end], share))
        begin = end
    mask = torch.cat(taken)
    mask = mask.unsqueeze(1) if noise.ndim > 2 else mask
    return torch.where(mask, second, first)


def _split(rows: Tensor, parts: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut rows into the latents that lie in them one after another."""
    flat, out, begin = rows.flatten(1), list[Tensor](), 0
    for shape in parts:
        size = math.prod(shape)
        out.append(flat.narrow(1, begin, size).reshape(-1, *shape))
        begin += size
    return out


@dataclass(frozen=True, eq=False)
class _Places:
    """The regions of a pair without batch axis: which each place is in, their numbers and sizes."""

    of: Tensor
    regions: Tensor
    sizes: Tensor
    few: bool


def _places(first: Tensor, second: Tensor) -> _Places:
    """Sort the places of one pair by region; where there are none they are in region 0."""
    library: Any = torch  # which does not say what unique returns
    labels = regions(first, second)[0]
    numbers, of = cast("tuple[Tensor, Tensor]", library.unique(labels, return_inverse=True))
    inside = numbers > 0
    sizes = torch.bincount(of.flatten(), minlength=len(numbers))
    return _Places(of, inside, sizes, int(inside.sum()) < 2)


def _changes(first: Tensor, second: Tensor) -> list[int]:
    """Return the rows in which another pair than the row before begins."""
    return [
        row
        for row in range(1, len(first))
        if not all(torch.equal(rows[row], rows[row - 1]) for rows in (first, second))
    ]


def _taken(places: _Places, fields: Tensor, share: float) -> Tensor:
    """Return where one picture takes the other's place, for a pair's mixes; fields (B, *S)."""
    bar = NormalDist().inv_cdf(1.0 - share)
    if places.few:
        for axis in range(1, fields.ndim):
            fields = _averaged(fields, axis, fields.shape[axis] // 4 | 1)
        return torch.stack([(z - z.mean()) > bar * z.std(correction=0) for z in fields])
    sums = fields.new_zeros(len(fields), len(places.sizes))
    sums.index_add_(1, places.of.flatten(), fields.flatten(1))
    scale = torch.stack([field.std(correction=0) for field in fields]).unsqueeze(1)
    chosen = (sums / places.sizes.to(fields).sqrt() > bar * scale) & places.regions
    return chosen[:, places.of]


def _averaged(values: Tensor, axis: int, window: int) -> Tensor:
    """Average over an odd window along one axis, edges repeated."""
    half = window // 2
    size = values.shape[axis]
    index = torch.arange(-half, size + half, device=values.device).clamp(0, size - 1)
    return values.index_select(axis, index).unfold(axis, window, 1).mean(-1)


def _highest(values: Tensor, axis: int) -> Tensor:
    """Take the highest of each place and its two neighbours along one axis."""
    size = values.shape[axis]
    out = values.clone()
    lower, upper = values.narrow(axis, 0, size - 1), values.narrow(axis, 1, size - 1)
    out.narrow(axis, 0, size - 1).copy_(torch.maximum(lower, upper))
    part = out.narrow(axis, 1, size - 1)
    part.copy_(torch.maximum(part, lower))
    return out
