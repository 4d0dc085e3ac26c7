"""How did a winner come about? Its states as NOISE and LATENT, its steps with their noise keys.

A state x is what the host's own rule mixes from a noise and a latent; here the rule is undone with
the prediction as the latent, which is of use by itself: x = a noise + b latent, a and b read from
the model. So whatever takes NOISE, SIGMAS and LATENT starts from the state.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from comfy.samplers import CFGGuider, Sampler
from torch import Tensor

from ....samplers.search import Outcome, Trace, Winner
from ....samplers.search.account.lineage import Frame
from ....samplers.search.account.trace import Row
from ....samplers.stepping.transition import Transition
from ..model.flow_sampler import Gradients
from .problem import HostProblem

__all__ = ["Point", "Step", "WinnerPath", "origins"]

_LOG = logging.getLogger("flowsearch")


@dataclass(frozen=True, eq=False)
class Point:
    """A state on the way.

    Attributes:
        sigma: Linear sigma.
        own_sigma: The model's.
        noise: What the host mixes with the latent, as LATENT holds it, one row, on the CPU.
        latent: The prediction there, as LATENT holds it, one row, on the CPU.
        past: Earlier predictions that a method with memory uses.
    """

    sigma: float
    own_sigma: float
    noise: Any
    latent: Any
    past: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True)
class Step:
    """How the next point was reached.

    Attributes:
        transition: By which transition.
        key: Whose noise, together with the row's own key.
    """

    transition: Transition
    key: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class WinnerPath:
    """One finished picture's way, from its last start or upward move to sigma 0.

    Attributes:
        item: Batch item.
        id: Its id in the trace.
        points: By falling sigma, without the end.
        steps: From each point to the next, the last one to 0; empty for a stock sampler's run.
        sigmas: All the model's sigmas from the first point to 0.
        row_key: What makes the item's noise its own.
        seed: The host's seed, or a stock sampler's own.
        sampler: The stock SAMPLER where it was run whole.
        mask: The item's noise_mask, or None.
        schedule: The model's sigmas of the search's run, by which patches tell which step it is.
        gradients: Where the gradient of guided steps comes from; None for none.
    """

    item: int
    id: int
    points: Sequence[Point]
    steps: Sequence[Step]
    sigmas: Sequence[float]
    row_key: tuple[int, ...]
    seed: int
    sampler: Sampler | None = None
    mask: Any = None
    schedule: Sequence[float] = ()
    gradients: Gradients | None = None

    def place(self, sigma: float) -> int:
        """Return the first point at or below a linear sigma, or else the last one."""
        found = (i for i, point in enumerate(self.points) if point.sigma <= sigma + 1e-6)
        return next(found, len(self.points) - 1)


def origins(
    problem: HostProblem, guider: CFGGuider, trace: Trace, outcome: Outcome, seed: int
) -> tuple[list[WinnerPath | None], dict[int, Sequence[Frame]]]:
    """Say how a run's winners came about.

    Args:
        problem: The run's.
        guider: The guider inside its sample().
        trace: What happened.
        outcome: What came of it.
        seed: The host's seed.

    Returns:
        A path for each winner, in the order of the output's rows; the pictures on the way to each
        item's best.
    """
    paths: list[WinnerPath | None] = []
    families: dict[int, Sequence[Frame]] = {}
    for item in outcome.items:
        rows = {row["id"]: row for row in trace.record["evaluated"] if row["item"] == item.item}
        for winner in item.winners:
            try:
                paths.append(winner_path(problem, guider, rows, winner, seed))
            except problem.interrupts:
                raise
            except Exception:  # noqa: BLE001 - the picture is worth more than its path
                _LOG.exception("how picture %d came about could not be worked out", len(paths))
                paths.append(None)
        if item.winners:
            families[item.item] = item.winners[0].lineage.frames
    return paths, families


def winner_path(
    problem: HostProblem, guider: CFGGuider, rows: Mapping[int, Row], winner: Winner, seed: int
) -> WinnerPath | None:
    """Turn a winner's lineage into a path.

    Args:
        problem: The run's.
        guider: The guider inside its sample().
        rows: The item's evaluated rows of the trace, by id.
        winner: The finished picture.
        seed: The host's seed.

    Returns:
        The path; None where its states were not kept.
    """
    item, last = winner.node.item, rows[winner.node.id]
    line = [(rows[place.id], place.state) for place in winner.lineage.path]
    if last["transition"] and "whole" in last["transition"]:
        return _whole_path(problem, guider, last, item, winner.node.id)
    if len(line) < 2 or any("denoised" not in state for _, state in line[:-1]):
        return None
    points = [_point(problem, guider, item, row["sigma"], state) for row, state in line[:-1]]
    came = [(Transition.from_json(row["transition"]), tuple(row["key"])) for row, _ in line[1:]]
    steps = [Step(transition, key) for transition, key in came]
    sigmas = [*(point.own_sigma for point in points), 0.0]
    key, mask = problem.row_key(item), problem.mask_row(item)
    return WinnerPath(
        item, winner.node.id, points, steps, sigmas, key, seed, None, mask, problem.own_sigmas(),
        problem.gradients,
    )  # fmt: skip


def _point(
    problem: HostProblem, guider: CFGGuider, item: int, sigma: float, state: Mapping[str, Tensor]
) -> Point:
    own, noise = problem.unmixed(item, sigma, state)
    latent = guider.inner_model.process_latent_out(state["denoised"].float())
    past = {key: value for key, value in state.items() if key.startswith("past_")}
    return Point(sigma, own, problem.unpacked(noise), problem.unpacked(latent), past)


def _whole_path(
    problem: HostProblem, guider: CFGGuider, row: Row, item: int, node: int
) -> WinnerPath:
    """A stock sampler's run can be repeated as a whole, from its own noise and seed."""
    key = tuple(row["key"])
    noise, latent = problem.start_of(item, key)
    if bool(latent.any()):  # the host takes an empty latent as it is
        latent = guider.inner_model.process_latent_out(latent.float())
    sigmas = problem.own_sigmas()
    start = problem.unpacked(noise), problem.unpacked(latent)
    point = Point(problem.linear_sigmas[0], sigmas[0], *start)
    return WinnerPath(
        item, node, [point], [], sigmas, problem.row_key(item), problem.inner_seed(item, key),
        problem.inner, problem.mask_row(item),
    )  # fmt: skip
