"""What is the value of a curve that was drawn through points?

Between neighbouring points (x0, y0) and (x1, y1), with slopes m0 and m1 at them, t = (x - x0) / h,
u = 1 - t and h = x1 - x0,

    y = y0 (1 + 2t) u^2 + y1 (1 + 2u) t^2 + h t u (m0 u - m1 t).

Left of the first point and right of the last the curve is level. INTERPOLATIONS says which slopes:
those of ComfyUI's curve editor, so that a curve here is the one that was seen there. Neither kind
overshoots: between two neighbouring points a curve only rises or only falls.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["INTERPOLATIONS", "Curve", "Piece", "Point", "height", "slope"]

MOST_POINTS = 2_000
"""Points of a curve: a person draws a dozen, and reading one takes longer the more there are."""

Number = TypeVar("Number", float, Tensor)
Point = tuple[float, float]
# x0, x1, y0, y1, m0, m1 of a piece
Piece = tuple[float, float, float, float, float, float]


def _straight(chords: Sequence[float]) -> list[Point]:
    return [(chord, chord) for chord in chords]


def _monotone_cubic(chords: Sequence[float]) -> list[Point]:
    """Slopes at both ends of each piece, one per point.

    At a point the mean of the two chords, 0 where they differ in sign, the chord itself at the two
    ends; then, piece by piece, both are shortened so that (m0, m1) / chord lies within a circle of
    radius 3.

    Source: Fritsch and Carlson 1980, SIAM J. Numer. Anal. 17, 238; order of operations as in
    ComfyUI's MonotoneCubicCurve.
    """
    inner = [0.5 * (a + b) if a * b > 0.0 else 0.0 for a, b in pairwise(chords)]
    slopes = [*chords[:1], *inner, *chords[-1:]]
    for i, chord in enumerate(chords):
        length = math.hypot(slopes[i], slopes[i + 1])
        if length > 3.0 * abs(chord):
            factor = 3.0 * abs(chord) / length
            slopes[i] *= factor
            slopes[i + 1] *= factor
    return list(pairwise(slopes))


INTERPOLATIONS: dict[str, Callable[[Sequence[float]], list[Point]]] = {
    "linear": _straight,
    "monotone_cubic": _monotone_cubic,
}


def _length(given: object) -> int:
    """How many points were given; 0 where that is for the reading of them to say."""
    return len(given) if isinstance(given, Sized) and getattr(given, "ndim", 1) else 0


@dataclass(frozen=True)
class Curve:
    """A curve through points on [0, 1]; immutable, hashable, JSON both ways.

    Attributes:
        points: (x, y) by rising x, 0 <= x <= 1.
        interpolation: Key of INTERPOLATIONS.

    Raises:
        ValueError: No points, an x out of range or twice, a y that is not finite, an unknown kind.

    Example:
        >>> Curve(((0.0, 0.0), (1.0, 2.0)), "linear")(0.25)
        0.5
    """

    points: tuple[Point, ...]
    interpolation: str = "monotone_cubic"

    def __post_init__(self) -> None:
        """Refuse what has no value somewhere, or two."""
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"unknown interpolation {self.interpolation!r} of a curve; choose one of: "
                f"{', '.join(INTERPOLATIONS)}"
            )
        if not 0 < len(self.points) <= MOST_POINTS:
            raise ValueError(
                f"a curve needs at least one point (x, y) and takes {MOST_POINTS} at most, got "
                f"{len(self.points)}; draw it with fewer"
            )
        for x, y in self.points:
            if not (0.0 <= x <= 1.0 and math.isfinite(y)):
                raise ValueError(
                    f"point ({x}, {y}) of a curve: x must be in [0, 1] and y a finite number"
                )
        for (x, y0), (x1, y1) in pairwise(self.points):
            if not x < x1:
                raise ValueError(
                    f"the points' x must rise and differ, but ({x}, {y0}) comes before "
                    f"({x1}, {y1}); move or delete one of the two"
                )

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """Cubic pieces from x = 0 to 1, the level ones outside the points included."""
        (first, start), (last, end) = self.points[0], self.points[-1]
        chords = [(y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(self.points)]
        slopes = INTERPOLATIONS[self.interpolation](chords)
        drawn = [
            (x0, x1, y0, y1, m0, m1)
            for ((x0, y0), (x1, y1)), (m0, m1) in zip(pairwise(self.points), slopes, strict=True)
        ]
        before = [(0.0, first, start, start, 0.0, 0.0)] if first > 0.0 else []
        after = [(last, 1.0, end, end, 0.0, 0.0)] if last < 1.0 else []
        return (*before, *drawn, *after)

    def __call__(self, x: Number) -> Number:
        """Return the curve's value.

        Args:
            x: Where, in [0, 1]; float or tensor.

        Returns:
            y, of x's type and shape; a point's own y to the bit.
        """
        if isinstance(x, Tensor):
            piece = self._piece_of_each(x)
            low, high = torch.minimum(piece[2], piece[3]), torch.maximum(piece[2], piece[3])
            return height(x, *piece).clamp(low, high)
        piece = self.piece_at(x)
        # a rounding must not lead out of the piece: alpha, sigma and k are not negative
        return min(max(height(x, *piece), min(piece[2:4])), max(piece[2:4]))

    def slope(self, x: Number) -> Number:
        """Return the curve's derivative; at a corner that of the piece on the right.

        Args:
            x: Where, in [0, 1]; float or tensor.

        Returns:
            dy/dx, of x's type and shape.
        """
        if isinstance(x, Tensor):
            return slope(x, *self._piece_of_each(x))
        return slope(x, *self.piece_at(x))

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types that from_json() reads; ComfyUI's own form of a curve."""
        return {"points": [list(p) for p in self.points], "interpolation": self.interpolation}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Curve":
        """Build a curve from what to_json() or ComfyUI's curve editor wrote.

        Args:
            data: points, in any order, and interpolation (monotone_cubic where it is left out).

        Returns:
            The curve.

        Raises:
            ValueError: An unknown key, or a curve that Curve refuses.
        """
        if not {"points"} <= set(data) <= {"points", "interpolation"}:
            raise ValueError(f"a curve has the keys points, interpolation; got {sorted(data)}")
        given: Any = data["points"]
        count = _length(given)
        if count > MOST_POINTS:  # before any of them is looked at
            raise ValueError(
                f"a curve takes {MOST_POINTS} points at most, got {count}; draw it with fewer"
            )
        try:
            points = sorted((float(x), float(y)) for x, y in given)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"the points of a curve are pairs of numbers (x, y), such as [[0, 0], [1, 1]]; "
                f"got {' '.join(repr(given).split()):.100}"
            ) from error
        return cls(tuple(points), data.get("interpolation", "monotone_cubic"))

    @cached_property
    def _starts(self) -> list[float]:
        return [piece[0] for piece in self.pieces]

    def piece_at(self, x: float) -> Piece:
        """Return the piece at x; where two meet, that on the right."""
        return self.pieces[max(0, bisect_right(self._starts, x) - 1)]

    def _piece_of_each(self, x: Tensor) -> list[Tensor]:
        table = x.new_tensor(self.pieces)
        starts = table[1:, 0].contiguous()
        index = torch.bucketize(x.detach().contiguous(), starts, right=True)
        return list(table[index].unbind(-1))


def height(
    x: Number, x0: Number, x1: Number, y0: Number, y1: Number, m0: Number, m1: Number
) -> Number:
    """Return the value at x of a cubic piece; its numbers are those of a Piece."""
    h = x1 - x0
    t, u = (x - x0) / h, (x1 - x) / h
    ends = y0 * (1.0 + 2.0 * t) * u * u + y1 * (1.0 + 2.0 * u) * t * t
    return ends + h * t * u * (m0 * u - m1 * t)


def slope(
    x: Number, x0: Number, x1: Number, y0: Number, y1: Number, m0: Number, m1: Number
) -> Number:
    """Return the derivative at x of a cubic piece; its numbers are those of a Piece."""
    h = x1 - x0
    t, u = (x - x0) / h, (x1 - x) / h
    chord = (y1 - y0) / h
    return 6.0 * t * u * chord + m0 * u * (u - 2.0 * t) + m1 * t * (t - 2.0 * u)
