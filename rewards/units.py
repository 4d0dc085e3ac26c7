"""In what units are the values of different rewards compared, and are they what their specs say?

    u = (v - zero) / one

The unit is the difference between a good and a poor picture that a spec names, or what is measured
once over ordinary pictures. The rules of a combination rely on the ranges in the specs, so a value
outside of its own is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from .base import Reward, RewardSpec, assess, spec_of

__all__ = [
    "NORMALISATIONS",
    "Unit",
    "blaming",
    "common_step",
    "in_units",
    "sizes",
    "units",
    "within",
]

NORMALISATIONS = ("spec", "calibration", "none")

ROUNDING = 1e-5
"""Part by which float32 may exceed a bound that is given in float64."""


@dataclass(frozen=True)
class Unit:
    """How a member's values are made comparable: u = (v - zero) / one.

    Args:
        zero: In the member's unit.
        one: In the member's unit, above 0.

    Example:
        >>> Unit(zero=0.5, one=0.1)
        Unit(zero=0.5, one=0.1)
    """

    zero: float = 0.0
    one: float = 1.0


@contextmanager
def blaming(name: str, names: Sequence[str]) -> Generator[None]:
    """Put a member's name before what it raises; its type stays, for callers that know it."""
    try:
        yield
    except Exception as error:
        place = f"{name} (reward {names.index(name) + 1} of {len(names)})"
        error.args = (f"{place}: {error}", *error.args[1:])
        raise


def _widened(bound: float, side: float) -> float:
    return bound + side * ROUNDING * (1.0 + abs(bound)) if math.isfinite(bound) else bound


def within(values: Tensor, spec: RewardSpec) -> Tensor:
    """Refuse values that are not finite or outside the range on which the rules rely."""
    low, high = _widened(spec.low, -1.0), _widened(spec.high, 1.0)
    wrong = ~(values.isfinite() & (values >= low) & (values <= high))
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        raise ValueError(
            f"it returned {float(values[place]):g} for picture {place} of {len(values)}; its spec "
            f"allows finite values from {spec.low:g} to {spec.high:g}"
        )
    return values.clamp(spec.low, spec.high)


def units(
    members: Mapping[str, Reward], normalisation: str, examples: Tensor | None = None
) -> list[Unit]:
    """Return the unit of each reward; measured ones never change again.

    Args:
        members: Name to reward.
        normalisation: "spec" divides by the scale in the spec; "calibration" takes mean and
            standard deviation over examples; "none" takes values as they are.
        examples: What the rewards score, at least 2, for "calibration".

    Returns:
        One unit a reward.

    Raises:
        ValueError: No scale in a spec, no examples, or examples that all get one value.

    Example:
        >>> from flowsearch.rewards.latent import LatentReward
        >>> units({"mean": LatentReward("mean")}, "none")
        [Unit(zero=0.0, one=1.0)]
    """
    if normalisation == "none":
        return [Unit() for _ in members]
    if normalisation == "spec":
        scales = {name: spec_of(reward).scale for name, reward in members.items()}
        unknown = [name for name, scale in scales.items() if not scale > 0.0]
        if unknown:
            raise ValueError(
                "the typical difference between a good and a poor picture is not known for "
                f"{', '.join(unknown)}, so its values cannot be compared with another reward's. "
                "Set normalisation to calibration and connect pictures of your prompt, or to none "
                "and give weights in the rewards' own units."
            )
        return [Unit(0.0, scale) for scale in scales.values()]
    if normalisation != "calibration":
        raise ValueError(f"normalisation is '{normalisation}'; it is one of {NORMALISATIONS}")
    count = 0 if examples is None else examples.shape[0]
    if examples is None or count < 2:
        raise ValueError(
            f"normalisation by calibration needs at least 2 pictures and was given {count}. "
            "Connect ordinary pictures of your prompt to calibration (16 are good), or set "
            "normalisation to spec or none."
        )
    return [_measured(name, members, examples) for name in members]


def _measured(name: str, members: Mapping[str, Reward], examples: Tensor) -> Unit:
    """Mean and standard deviation of a reward's values."""
    with blaming(name, [*members]):
        values = assess(members[name], examples).values.detach().to("cpu", torch.float64)
        values = within(values, spec_of(members[name]))
        spread = float(values.std())
        if not spread > 0.0:
            raise ValueError(
                f"all {len(values)} pictures of the calibration get {float(values[0]):g}, so their "
                "spread is no unit. Connect pictures that differ in it, or set normalisation to "
                "spec or none."
            )
    return Unit(float(values.mean()), spread)


def sizes(members: Mapping[str, Reward], scales: Sequence[Unit]) -> list[float]:
    """Typical differences in the units; a measured unit is one itself where the spec has none."""
    specs = [spec_of(reward) for reward in members.values()]
    return [
        spec.scale / unit.one if spec.scale else float(unit != Unit())
        for spec, unit in zip(specs, scales, strict=True)
    ]


def in_units(scales: Sequence[Unit]) -> str:
    if all(unit == Unit() for unit in scales):
        return ", each in its own unit"
    said = ", ".join(f"(value - {unit.zero:.4g}) / {unit.one:.4g}" for unit in scales)
    return f", each as {said}"


def common_step(
    members: Mapping[str, Reward], scales: Sequence[Unit], factors: Sequence[float]
) -> float:
    """Largest number of which all values are multiples; 0 where there is none worth the name."""
    rows = zip(members.values(), scales, factors, strict=True)
    steps = [abs(w) * spec_of(reward).quantum / unit.one for reward, unit, w in rows]
    parts = [Fraction(step).limit_denominator(1000) for step in steps]
    near = [abs(float(p) - s) <= 1e-9 * s for p, s in zip(parts, steps, strict=True)]
    if any(unit.zero for unit in scales) or not all(steps) or not all(near):
        return 0.0
    below = math.lcm(*(part.denominator for part in parts))
    return math.gcd(*(int(part * below) for part in parts)) / below
