"""Which picture is better when one reward matters more than another, however little it differs?

Rewards in order of importance, as one number that float32 holds. With v_1 on multiples of its
quantum q_1 and r the same number of the rewards after it,

    value = q_1 (v_1 / q_1 + S squash(r)),    squash increasing into 0..1, S < 1

A higher v_1 is at least one quantum more, and the rest moves the value by less than one: a higher
v_1 is a higher value, and v_1 is the value rounded down to a multiple of q_1. All is increasing and
rounded to float32 once, so no order is ever reversed; what float32 cannot tell apart is equal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .base import RewardSpec

__all__ = ["MOST_QUANTA", "SHARE", "InOrder"]

SHARE = 0.99
"""S: part of a quantum by which later rewards may move a value."""

MOST_QUANTA = 2**14
"""Quanta from zero up to which float32 has at least 2**9 steps in each for what comes later."""


class InOrder:
    """The rule: values (members, B), float64 -> (B,)."""

    def __init__(self, specs: Mapping[str, RewardSpec]) -> None:
        """Check what can be checked before there are values.

        Args:
            specs: Name to description, the most important first.

        Raises:
            ValueError: One before the last has no quantum, or so many values that float32 has no
                room for what comes after it.
        """
        self._firsts = {name: spec for name, spec in list(specs.items())[:-1]}
        smooth = [name for name, spec in self._firsts.items() if not spec.quantum > 0.0]
        if smooth:
            raise ValueError(
                f"{', '.join(smooth)} has no quantum: two of its values may differ by as little as "
                "can be, so nothing would be left for the rewards after it to decide. Put it last, "
                "or use weighted_sum."
            )
        self._require_room()
        self._tails = [_tail(spec, name in self._firsts) for name, spec in specs.items()][1:]

    def __call__(self, values: Tensor) -> Tensor:
        """Combine values.

        Args:
            values: Shape (members, B), float64, each within its range.

        Returns:
            Shape (B,), float64.

        Raises:
            ValueError: One before the last is off its quantum, or too many of them from zero.
        """
        for (name, spec), row in zip(self._firsts.items(), values, strict=False):
            quanta = row / spec.quantum
            whole = quanta.round()
            wrong = ((quanta - whole).abs() > 0.01) | (whole.abs() > MOST_QUANTA)
            if bool(wrong.any()):
                place = int(wrong.nonzero()[0])
                raise ValueError(
                    f"{name} returned {float(row[place]):g} for picture {place} of {len(row)}; to "
                    "decide before other rewards its values must be multiples of its quantum "
                    f"{spec.quantum:g}, at most {MOST_QUANTA} of them from zero. Put it last, or "
                    "use weighted_sum."
                )
        return self.order(values)

    def order(self, values: Tensor) -> Tensor:
        """Combine values that need no check, infinite bounds too.

        Args:
            values: Shape (members, B), float64.

        Returns:
            Shape (B,), float64.
        """
        rest = values[-1]
        steps = zip(self._firsts.values(), self._tails, values, strict=False)
        for spec, tail, row in reversed([*steps]):
            quanta = (row / spec.quantum).round()
            rest = spec.quantum * (quanta + SHARE * _squash(rest, *tail))
        return rest

    def _require_room(self) -> None:
        """Refuse finite ranges of more quanta than float32 can hold with something after them."""
        quanta = 1.0
        for place, (name, spec) in enumerate(self._firsts.items()):
            reach = spec.high - spec.low if place else max(abs(spec.low), abs(spec.high))
            quanta *= max(1.0, reach / spec.quantum) if math.isfinite(reach) else 1.0
            if quanta > MOST_QUANTA:
                before = ", ".join([*self._firsts][: place + 1])
                raise ValueError(
                    f"{before} can have {quanta:.3g} different values, and float32 has room for no "
                    f"more than {MOST_QUANTA} with another reward after them. Put {name} last, or "
                    "use weighted_sum."
                )


def _tail(spec: RewardSpec, has_more: bool) -> tuple[float, float, float]:
    """Range of a reward with all after it, and the unit in which an infinite one is squashed."""
    more = SHARE * spec.quantum if has_more else 0.0
    return spec.low, spec.high + more, spec.scale or spec.quantum or 1.0


def _squash(values: Tensor, low: float, high: float, unit: float) -> Tensor:
    """Map a range to 0..1, increasing: linear where it is finite, else a / (1 + a) from its end."""
    if math.isfinite(low) and math.isfinite(high):
        return ((values - low) / (high - low)).clamp(0.0, 1.0)
    if math.isfinite(high):
        return 1.0 / (1.0 + ((high - values) / unit).clamp_min(0.0))
    if math.isfinite(low):
        return 1.0 - 1.0 / (1.0 + ((values - low) / unit).clamp_min(0.0))
    away = 1.0 - 1.0 / (1.0 + values.abs() / unit)
    return 0.5 + 0.5 * torch.sign(values) * away
