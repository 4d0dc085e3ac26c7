"""Several rewards as one number: a sum, the worst, a product, or one after another.

With values v_i, weights w_i and units (zero z_i, one s_i: see Unit), u_i = (v_i - z_i) / s_i,

    weighted_sum     sum_i w_i u_i
    minimum          min_i u_i
    smooth_minimum   - s log(mean_i exp(- u_i / s))     s: softness; at least the minimum, at most
                                                        the mean and s log n more than the minimum
    product          prod_i (v_i - low_i) / (high_i - low_i)
    lexicographic    v_1 decides, where it is equal v_2, ...; see lexicographic.py

Everything is computed in float64 from monotonic operations and rounded to float32 once, so that no
order is reversed by rounding, and the range of the whole is the rule of the members' ranges.

A combination is as differentiable as its members, by the chain rule; of the minimum it is the
gradient of the lowest (the mean over equal ones). In order it has none: it goes in steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from .gradient import Gradient, gradient_of, why_no_gradient
from .lexicographic import InOrder
from .units import NORMALISATIONS, Unit, blaming, common_step, in_units, sizes, units, within

__all__ = ["NORMALISATIONS", "RULES", "Combination", "Unit", "combine", "units"]

RULES = ("weighted_sum", "minimum", "smooth_minimum", "product", "lexicographic")
SOFTNESS = 0.25
"""Of smooth_minimum where nobody says another, in the members' units."""


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
            with blaming(name, [*self.members]):
                found = assess(reward, given)
                device = found.values.device
                rows.append(within(found.values.to("cpu", torch.float64), spec_of(reward)))
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

    def why_no_gradient(self) -> str:
        """Say why it cannot be differentiated, by the member that cannot; "" where it can."""
        for place, (name, reward) in enumerate(self.members.items()):
            if why := why_no_gradient(reward):
                return f"{name} (reward {place + 1} of {len(self.members)}): {why}"
        if isinstance(self.rule, InOrder):
            return (
                "lexicographic goes in steps of the rewards before the last, and on a step a small "
                "change of the picture changes nothing. Choose the rule weighted_sum"
            )
        rates = _rates(self.members)
        if len(rates) > 1:
            return (
                f"it scores sound at {' and '.join(map(str, sorted(rates)))} samples a second (0: "
                "as decoded), and a gradient has one rate. Use one of these rewards"
            )
        return ""

    def gradient(self, images: Tensor | Views) -> Gradient:
        """Differentiate the value by the chain rule; see rewards/gradient.py.

            d value / d rows = sum_i (d rule / d v_i) (d v_i / d rows)

        Args:
            images: As for assess.

        Returns:
            Values and gradients; by domain where the members score different things.

        Raises:
            ValueError: It has none (see why_no_gradient), or as for score.
        """
        if why := self.why_no_gradient():
            raise ValueError(f"combination has no gradient: {why}.")
        rows: list[Tensor] = []
        parts: list[list[tuple[str, Tensor]]] = []
        exact = True
        for name, reward in self.members.items():
            spec = spec_of(reward)
            given = images if isinstance(images, Tensor) else images.of(spec)
            with blaming(name, [*self.members]):
                found = gradient_of(reward, given)
                rows.append(within(found.values.to("cpu", torch.float64), spec))
            exact = exact and found.values.dtype is torch.float64
            whole = found.gradient
            parts.append([(spec.domain, whole)] if isinstance(whole, Tensor) else [*whole.items()])
        with torch.enable_grad():
            values = torch.stack(rows).requires_grad_()
            combined = self.rule(values)
            (shares,) = torch.autograd.grad(combined.sum(), values)
        slopes: dict[str, Tensor] = {}
        for share, of_member in zip(shares, parts, strict=True):
            for domain, part in of_member:
                scaled = part * share.to(part).reshape(-1, *[1] * (part.ndim - 1))
                slopes[domain] = slopes[domain] + scaled if domain in slopes else scaled
        one = next(iter(slopes.values()))
        found_values = combined.detach().to(one.device)
        found_values = found_values if exact else found_values.float()
        return Gradient(found_values, one if isinstance(images, Tensor) else slopes)

    def get_models(self) -> list[Any]:
        """What a memory manager knows the members' networks by."""
        return [model for reward in self.members.values() for model in models_of(reward)]


def combine(
    rewards: Sequence[Reward],
    rule: str,
    weights: Sequence[float] = (),
    normalisation: str = "none",
    examples: Tensor | None = None,
    softness: float = SOFTNESS,
) -> Combination:
    """Combine rewards.

    Args:
        rewards: At least one. Pictures are scored as frames of a clip beside anything else; where
            some score sound or latents and others do not, the domain is "several".
        rule: One of RULES.
        weights: For weighted_sum, one a reward; none for 1 each. A reward of weight 0 is not
            scored; a negative weight wants it low.
        normalisation: For weighted_sum and the minima, see units().
        examples: For calibration, see units().
        softness: For smooth_minimum, in the members' units, above 0: how much better than the
            worst another may be and still count.

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
    if rule == "smooth_minimum":
        return _smooth_minimum(members, units(members, normalisation, examples), softness)
    if rule == "product":
        return _product(members)
    if rule == "lexicographic":
        return _lexicographic(members)
    raise ValueError(f"the rule is '{rule}'; it is one of {RULES}")


def _kind(spec: RewardSpec) -> tuple[str, int]:
    """What a reward is given; sound at different rates is different things."""
    return spec.domain, spec.sample_rate


def _rates(members: Mapping[str, Reward]) -> set[int]:
    """At which rates sound is scored, by members of members too."""
    found: set[int] = set()
    for member in members.values():
        if isinstance(member, Combination):
            found |= _rates(member.members)
        elif spec_of(member).domain == "audio":
            found.add(spec_of(member).sample_rate)
    return found


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
    known = [abs(w) * size for w, size in zip(factors, sizes(members, scales), strict=True)]
    return _made(
        members,
        rule,
        f"the sum of {', '.join(f'{w:g} {name}' for w, name in terms)}{in_units(scales)}",
        signs=factors,
        quantum=common_step(members, scales, factors),
        scale=sum(known) if all(known) else 0.0,
    )


def _minimum(members: Mapping[str, Reward], scales: Sequence[Unit]) -> Combination:
    def rule(values: Tensor) -> Tensor:
        rows = [(row - unit.zero) / unit.one for unit, row in zip(scales, values, strict=True)]
        return torch.stack(rows).amin(dim=0)

    return _made(
        members,
        rule,
        f"the lowest of {', '.join(members)}{in_units(scales)}",
        quantum=common_step(members, scales, [1.0] * len(members)),
        scale=min(sizes(members, scales)),
    )


def _smooth_minimum(
    members: Mapping[str, Reward], scales: Sequence[Unit], softness: float
) -> Combination:
    if not 0.0 < softness < math.inf:
        raise ValueError(
            f"the softness is {softness}; it is above 0, in the units of the rewards. For none "
            "choose the rule minimum"
        )

    def rule(values: Tensor) -> Tensor:
        rows = [(row - unit.zero) / unit.one for unit, row in zip(scales, values, strict=True)]
        lowness = torch.stack(rows) / -softness
        return -softness * (lowness.logsumexp(dim=0) - math.log(len(rows)))

    return _made(
        members,
        rule,
        f"the lowest of {', '.join(members)}, smoothed by {softness:g}{in_units(scales)}",
        scale=min(sizes(members, scales)),
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
        has_gradient=differentiable
        and all(s.has_gradient for s in specs)
        and len(_rates(members)) < 2,
        licence=" and ".join(dict.fromkeys(s.licence for s in specs)),
        source="; ".join(dict.fromkeys(s.source for s in specs)),
    )
    return Combination(dict(members), rule, spec)
