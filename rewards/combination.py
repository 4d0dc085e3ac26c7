"""Several rewards as one number: a sum, the worst, a product, or one after another.

With values v_i, weights w_i and units (zero z_i, one s_i: see Unit), u_i = (v_i - z_i) / s_i,

    weighted_sum     sum_i w_i u_i
    minimum          min_i u_i
    product          prod_i (v_i - low_i) / (high_i - low_i)
    lexicographic    v_1 decides, where it is equal v_2, ...; see lexicographic.py

Everything is computed in float64 from monotonic operations and rounded to float32 once, so that no
order is reversed by rounding, and the range of the whole is the rule of the members' ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from .base import (
    Annotator,
    Assessed,
    Assessment,
    Reward,
    RewardSpec,
    Views,
    assess,
    models_of,
    named,
    spec_of,
)
from .frames import of_clips
from .lexicographic import InOrder

__all__ = ["NORMALISATIONS", "RULES", "Combination", "Unit", "combine", "units"]

RULES = ("weighted_sum", "minimum", "product", "lexicographic")
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


@dataclass(frozen=True, eq=False)
class Combination(Assessed):
    """Rewards that are scored together.

    Args:
        members: Name to reward, each scored once a batch.
        rule: Values (members, B), float64, within the members' ranges -> (B,), increasing.
        spec: What comes out.

    Example:
        >>> from flowsearch.rewards.latent import LatentReward
        >>> both = combine([LatentReward("mean"), LatentReward("std")], "minimum")
        >>> both.assess(torch.zeros(1, 4, 8, 8)).parts
        [{'latent': 0.0, 'latent 2': 0.0}]
    """

    members: Mapping[str, Reward]
    rule: Callable[[Tensor], Tensor]
    spec: RewardSpec

    def assess(self, images: Tensor | Views) -> Assessment:
        """Score pictures, with each member's value.

        Args:
            images: As for each member; where they score different things, all of them.

        Returns:
            Values; parts "member" and "member.part" of its own; the members' notes in one line.

        Raises:
            ValueError: As for score.
        """
        count = len(images)
        parts: list[dict[str, float]] = [{} for _ in range(count)]
        notes: list[list[str]] = [[] for _ in range(count)]
        rows: list[Tensor] = []
        device = torch.device("cpu")
        for name, reward in self.members.items():
            given = images if isinstance(images, Tensor) else images.of(spec_of(reward))
            with _blaming(name, [*self.members]):
                found = assess(reward, given)
                device = found.values.device
                rows.append(_within(found.values.to("cpu", torch.float64), spec_of(reward)))
            for place, value in enumerate(map(float, rows[-1].detach())):
                inner = {f"{name}.{key}": float(part) for key, part in found.parts[place].items()}
                parts[place] |= {name: value, **inner}
                notes[place] += [f"{name}: {found.notes[place]}"] if found.notes[place] else []
        combined = self.rule(torch.stack(rows)).to(device, torch.float32)
        return Assessment(combined, parts, ["; ".join(lines) for lines in notes])

    def draw(self, images: Tensor) -> Tensor:
        """Draw what each member draws on pictures.

        Args:
            images: As for score.

        Returns:
            The same pictures, with the drawings of all members that draw, later ones on top.
        """
        drawn = images.clone()
        for reward in self.members.values():
            if isinstance(reward, Annotator):
                own = reward.draw(images.clone()).to(images)
                drawn = torch.where((own != images).any(dim=-1, keepdim=True), own, drawn)
        return drawn

    def get_models(self) -> list[Any]:
        """What a memory manager knows the members' networks by."""
        return [model for reward in self.members.values() for model in models_of(reward)]


@contextmanager
def _blaming(name: str, names: Sequence[str]) -> Generator[None]:
    """Put a member's name before what it raises; its type stays, for callers that know it."""
    try:
        yield
    except Exception as error:
        place = f"{name} (reward {names.index(name) + 1} of {len(names)})"
        error.args = (f"{place}: {error}", *error.args[1:])
        raise


def _widened(bound: float, side: float) -> float:
    return bound + side * ROUNDING * (1.0 + abs(bound)) if math.isfinite(bound) else bound


def _within(values: Tensor, spec: RewardSpec) -> Tensor:
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
    with _blaming(name, [*members]):
        values = assess(members[name], examples).values.detach().to("cpu", torch.float64)
        values = _within(values, spec_of(members[name]))
        spread = float(values.std())
        if not spread > 0.0:
            raise ValueError(
                f"all {len(values)} pictures of the calibration get {float(values[0]):g}, so their "
                "spread is no unit. Connect pictures that differ in it, or set normalisation to "
                "spec or none."
            )
    return Unit(float(values.mean()), spread)


def combine(
    rewards: Sequence[Reward],
    rule: str,
    weights: Sequence[float] = (),
    normalisation: str = "none",
    examples: Tensor | None = None,
) -> Combination:
    """Combine rewards.

    Args:
        rewards: At least one. Pictures are scored as frames of a clip beside anything else; where
            some score sound or latents and others do not, the domain is "several".
        rule: One of RULES.
        weights: For weighted_sum, one a reward; none for 1 each. A reward of weight 0 is not
            scored; a negative weight wants it low.
        normalisation: For weighted_sum and minimum, see units().
        examples: For calibration, see units().

    Returns:
        The combination.

    Raises:
        ValueError: What cannot be combined, with the reason and what to do.

    Example:
        >>> from flowsearch.rewards.latent import LatentReward
        >>> mean, std = LatentReward("mean"), LatentReward("std")
        >>> combine([mean, std], "weighted_sum", (1.0, -0.5)).score(torch.ones(1, 4, 8, 8))
        tensor([1.])
    """
    if not rewards:
        raise ValueError("no rewards are connected; connect at least one")
    if len({spec_of(reward).domain for reward in rewards}) > 1:
        rewards = [of_clips(reward) for reward in rewards]
    members = named(rewards)
    kinds = {name: _kind(spec_of(reward)) for name, reward in members.items()}
    if normalisation == "calibration" and len({*kinds.values()}) > 1:
        said = ", ".join(f"{name} scores {kind[0]}" for name, kind in kinds.items())
        raise ValueError(
            f"rewards of different things cannot be calibrated by one batch: {said}. Set "
            "normalisation to spec, or to none and give weights in the rewards' own units."
        )
    if rule == "weighted_sum":
        given = _weights(weights, members)
        members = {name: reward for name, reward in members.items() if given[name]}
        return _weighted_sum(members, given, units(members, normalisation, examples))
    if rule == "minimum":
        return _minimum(members, units(members, normalisation, examples))
    if rule == "product":
        return _product(members)
    if rule == "lexicographic":
        return _lexicographic(members)
    raise ValueError(f"the rule is '{rule}'; it is one of {RULES}")


def _kind(spec: RewardSpec) -> tuple[str, int]:
    """What a reward is given; sound at different rates is different things."""
    return spec.domain, spec.sample_rate


def _weights(weights: Sequence[float], members: Mapping[str, Reward]) -> dict[str, float]:
    if weights and len(weights) != len(members):
        raise ValueError(
            f"{len(weights)} weights were given for {len(members)} rewards ({', '.join(members)}); "
            "give one a reward in their order, or none for 1 each"
        )
    found = dict(zip(members, weights or [1.0] * len(members), strict=True))
    if not all(map(math.isfinite, found.values())) or not any(found.values()):
        raise ValueError(f"the weights are {found}; they must be finite, and one must not be 0")
    return found


def _weighted_sum(
    members: Mapping[str, Reward], weights: Mapping[str, float], scales: Sequence[Unit]
) -> Combination:
    factors = [weights[name] for name in members]

    def rule(values: Tensor) -> Tensor:
        rows = zip(factors, scales, values, strict=True)
        return reduce(torch.add, [w * ((row - unit.zero) / unit.one) for w, unit, row in rows])

    terms = zip(factors, members, strict=True)
    known = [abs(w) * size for w, size in zip(factors, _sizes(members, scales), strict=True)]
    return _made(
        members,
        rule,
        f"the sum of {', '.join(f'{w:g} {name}' for w, name in terms)}{_in_units(scales)}",
        signs=factors,
        quantum=_common_step(members, scales, factors),
        scale=sum(known) if all(known) else 0.0,
    )


def _minimum(members: Mapping[str, Reward], scales: Sequence[Unit]) -> Combination:
    def rule(values: Tensor) -> Tensor:
        rows = [(row - unit.zero) / unit.one for unit, row in zip(scales, values, strict=True)]
        return torch.stack(rows).amin(dim=0)

    return _made(
        members,
        rule,
        f"the lowest of {', '.join(members)}{_in_units(scales)}",
        quantum=_common_step(members, scales, [1.0] * len(members)),
        scale=min(_sizes(members, scales)),
    )


def _product(members: Mapping[str, Reward]) -> Combination:
    ends = {name: (spec_of(m).low, spec_of(m).high) for name, m in members.items()}
    endless = [name for name, pair in ends.items() if not all(map(math.isfinite, pair))]
    if endless:
        raise ValueError(
            f"a product takes values from 0 to 1, and the range of {', '.join(endless)} is not "
            "finite, so nothing says what 0 and 1 are. Use weighted_sum, minimum or lexicographic, "
            "or a form of the reward that has a finite range."
        )

    def rule(values: Tensor) -> Tensor:
        rows = zip(ends.values(), values, strict=True)
        return reduce(torch.mul, [(row - low) / (high - low) for (low, high), row in rows])

    measures = f"the product of {', '.join(members)}, each from 0 to 1 by its range"
    return _made(members, rule, measures)


def _lexicographic(members: Mapping[str, Reward]) -> Combination:
    specs = {name: spec_of(reward) for name, reward in members.items()}
    rule = InOrder(specs)
    return _made(
        members,
        rule,
        f"{', then '.join(members)}: each decides where those before it are equal",
        bounds=rule.order,
        scale=next(iter(specs.values())).scale,
        differentiable=False,
    )


def _made(
    members: Mapping[str, Reward],
    rule: Callable[[Tensor], Tensor],
    measures: str,
    *,
    signs: Sequence[float] = (),
    bounds: Callable[[Tensor], Tensor] | None = None,
    quantum: float = 0.0,
    scale: float = 0.0,
    differentiable: bool = True,
) -> Combination:
    """Put a combination together; its range is the rule of its members' worst and best."""
    specs = [spec_of(reward) for reward in members.values()]
    signs = signs or [1.0] * len(specs)
    ends = [
        (s.low, s.high) if sign > 0 else (s.high, s.low)
        for s, sign in zip(specs, signs, strict=True)
    ]
    low, high = (bounds or rule)(torch.tensor(ends, dtype=torch.float64)).float()
    sizes, kinds = {s.input_size for s in specs}, {_kind(s) for s in specs}
    domain, rate = kinds.pop() if len(kinds) == 1 else ("several", 0)
    spec = RewardSpec(
        name="combination",
        measures=measures,
        low=float(low),
        high=float(high),
        quantum=quantum,
        scale=scale,
        input_size=sizes.pop() if len(sizes) == 1 else None,
        domain=domain,
        sample_rate=rate,
        paid=any(s.paid for s in specs),
        deterministic=all(s.deterministic for s in specs),
        has_gradient=differentiable and all(s.has_gradient for s in specs),
        licence=" and ".join(dict.fromkeys(s.licence for s in specs)),
        source="; ".join(dict.fromkeys(s.source for s in specs)),
    )
    return Combination(dict(members), rule, spec)


def _sizes(members: Mapping[str, Reward], scales: Sequence[Unit]) -> list[float]:
    """Typical differences in the units; a measured unit is one itself where the spec has none."""
    specs = [spec_of(reward) for reward in members.values()]
    return [
        spec.scale / unit.one if spec.scale else float(unit != Unit())
        for spec, unit in zip(specs, scales, strict=True)
    ]


def _in_units(scales: Sequence[Unit]) -> str:
    if all(unit == Unit() for unit in scales):
        return ", each in its own unit"
    said = ", ".join(f"(value - {unit.zero:.4g}) / {unit.one:.4g}" for unit in scales)
    return f", each as {said}"


def _common_step(
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
