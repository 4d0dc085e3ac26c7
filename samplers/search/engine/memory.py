"""How does a candidate step with a method that remembers earlier predictions?

Candidates branch, go back up and change their transition, so each carries what its next step may
use: the predictions it came from, their sigmas, and which transition stepped from them. A step by
another transition, or in another direction, starts without memory. Under guidance what is
remembered are the guided predictions, which the steps were taken with.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ...paths.interpolant import LINEAR, Interpolant
from ...stepping.guidance import GradientSource
from ...stepping.integrate import guided, row, steering
from ...stepping.steering import Steering
from ...stepping.step import Coefficients, ends_of
from ...stepping.transition import Transition
from ..protocol import State

__all__ = ["moved"]

_SIGMAS, _BY, _PAST = "past_sigmas", "past_by", "past_{}"
_OF_GUIDANCE = ("gradients", "log_weight")


def moved(
    state: State,
    sigma_from: float,
    to: float,
    transition: Transition,
    noise: Callable[[], Tensor],
    predict: Callable[[list[int], Tensor, float], Tensor],
    coordinates: Interpolant = LINEAR,
    own_sigma: Callable[[float], float] = float,
    source: GradientSource | None = None,
    other_end: Tensor | None = None,
) -> State:
    """Carry states from one sigma to another.

    Args:
        state: x, denoised, and what an earlier call left in it.
        sigma_from: Linear sigma of the states.
        to: Linear sigma wanted.
        transition: How to step.
        noise: Draws standard normal noise like x; called only when the step needs it.
        predict: predict(rows, x, sigma) predicts states of the given rows; sigma in the model's
            coordinates.
        coordinates: Those of x: LINEAR or VE.
        own_sigma: Turns a linear sigma into the model's.
        source: Knows the gradient, for a transition that is guided.
        other_end: A bridge's sources like x, by which it goes up; not looked at where it goes down.

    Returns:
        state with x at `to`; with "evaluations" where a step called the model less often than
        transition.calls() says; under guidance with "gradients", how many were asked for, and, for
        a method whose draws are weighed, "log_weight": log of target over proposal density.

    Raises:
        ValueError: A guided transition without a source, or a bridge's way up without other_end.
        GradientError: A gradient is not finite.
    """
    memory = transition.memory
    x, denoised = state["x"], state["denoised"]
    kept = [state[key] for j in range(memory) if (key := _PAST.format(j)) in state]
    groups = _groups(state, _identity(transition), len(kept))
    out = {
        key: value
        for key, value in state.items()
        if not key.startswith("past_") and key not in _OF_GUIDANCE
    }
    z: Tensor | None = None
    parts: list[_Part] = []
    calls = [0] * x.shape[0]
    for sigmas, rows in groups.items():
        places = [own_sigma(s) for s in (sigma_from, to, *sigmas)]
        coefficients = row(transition, places[0], places[1], places[2:], coordinates)
        if coefficients.needs_noise and z is None:
            z = noise()
        pick = slice(None) if len(groups) == 1 else rows

        def model(at: Tensor, sigma: float, rows: list[int] = rows) -> Tensor:
            for index in rows:
                calls[index] += 1
            return predict(rows, at, sigma)

        steer = steering(transition, source, rows, model)
        ends = ends_of(coefficients, other_end)
        past = [tensor[pick] for tensor in (*ends, *kept[: len(sigmas)])]
        drawn = None if z is None else z[pick]
        parts.append(_part(model, x[pick], denoised[pick], coefficients, drawn, past, steer))
        for index in rows if steer is not None else ():
            calls[index] += parts[-1].evaluations
    planned = transition.calls(to)
    if transition.guidance is not None and transition.guidance.ascends and to == sigma_from:
        planned = transition.guidance.price
    if any(count != planned for count in calls):  # glass where the law adds no noise; a window
        out["evaluations"] = torch.tensor([count + (to > 0.0) for count in calls])
    order = torch.tensor([index for rows in groups.values() for index in rows]).argsort()

    def joined(tensors: Sequence[Tensor]) -> Tensor:
        return tensors[0] if len(tensors) == 1 else torch.cat([*tensors])[order.to(x.device)]

    out["x"] = joined([part.x for part in parts])
    if transition.guidance is not None:
        sizes = zip(parts, groups.values(), strict=True)
        asked = [torch.full((len(rows),), part.gradients) for part, rows in sizes]
        out["gradients"] = asked[0] if len(asked) == 1 else torch.cat(asked)[order]
        weights = [weight for part in parts if (weight := part.log_weight) is not None]
        if len(weights) == len(parts):
            out["log_weight"] = joined(weights)
    if memory and to > 0.0:
        used = joined([part.used for part in parts])
        _remember(out, state, sigma_from, used, kept, transition)
    return out


class _Part(NamedTuple):
    """What came of the rows with one past."""

    x: Tensor
    used: Tensor
    gradients: int = 0
    evaluations: int = 0
    log_weight: Tensor | None = None


def _part(
    model: Callable[[Tensor, float], Tensor],
    x: Tensor,
    denoised: Tensor,
    coefficients: Coefficients,
    z: Tensor | None,
    past: Sequence[Tensor],
    steer: Steering | None,
) -> _Part:
    if steer is None:
        return _Part(*guided(model, x, denoised, coefficients, z, past, None))
    if steer.is_ascent(coefficients):
        turned = steer.ascent(x, denoised, coefficients.sigma, coefficients.slope)
        return _Part(turned, denoised, steer.gradients, steer.evaluations)
    moved_to, used = guided(model, x, denoised, coefficients, z, past, steer)
    return _Part(moved_to, used, steer.gradients, steer.evaluations, steer.log_weight)


def _remember(
    out: State,
    state: State,
    sigma_from: float,
    denoised: Tensor,
    kept: Sequence[Tensor],
    transition: Transition,
) -> None:
    count, memory = denoised.shape[0], transition.memory
    for j, tensor in enumerate([denoised, *kept][:memory]):
        out[_PAST.format(j)] = tensor
    identity = _identity(transition)
    sigmas = torch.full((count, memory), math.nan, dtype=torch.float64)
    sigmas[:, 0] = sigma_from
    if _BY in state:
        own = state[_BY].cpu() == identity
        before = state[_SIGMAS].cpu()[:, : memory - 1]
        sigmas[own, 1 : 1 + before.shape[1]] = before[own]
    out[_SIGMAS] = sigmas
    out[_BY] = torch.full((count,), identity, dtype=torch.int64)


def _groups(state: State, identity: int, kept: int) -> dict[tuple[float, ...], list[int]]:
    """Gather the rows that have the same past, by the sigmas of what they remember."""
    count = state["x"].shape[0]
    if not kept or _BY not in state:
        return {(): list(range(count))}
    groups: dict[tuple[float, ...], list[int]] = {}
    by, sigmas = state[_BY].cpu(), state[_SIGMAS].cpu()
    for index in range(count):
        own = [float(s) for s in sigmas[index, :kept]] if int(by[index]) == identity else []
        known = [s for s in own if not math.isnan(s)]
        groups.setdefault(tuple(known), []).append(index)
    return groups


@lru_cache(maxsize=256)
def _identity(transition: Transition) -> int:
    text = json.dumps(transition.to_json(), sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")
