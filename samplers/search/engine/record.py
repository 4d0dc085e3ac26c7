"""What is written down of a round? JSON types, from which nodes and events can be made again."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..account.events import Evaluated, Event, Finished
from ..account.lineage import Lineage
from ..protocol import Node, Request, Scores, State
from .execution import Result
from .plan import Plan

__all__ = ["Diverged", "Winner", "alike", "emit", "entry_of", "matches", "scores_of"]


NEARLY = 0.05


class Diverged(RuntimeError):
    """A checkpoint's log does not fit what the strategy asks for; the run must start afresh."""


@dataclass(frozen=True, eq=False)
class Winner:
    """A finished picture.

    Attributes:
        node: Its handle.
        scores: Its rewards, as it will be seen.
        state: Its tensors at sigma 0; x has one row.
        lineage: Where it came from.
    """

    node: Node
    scores: Scores
    state: State
    lineage: Lineage = field(default_factory=Lineage)


def alike(a: Tensor, b: Tensor) -> bool:
    """Return whether two latents are nearly the same picture, whatever their scale.

        rms(a - b) <= NEARLY sqrt((var a + var b) / 2)

    Independent pictures are at 1.4; two drawings of one that a person cannot tell apart far below.

    Args:
        a: Finished latents, one row.
        b: Others, the same shape.

    Returns:
        Whether they count once.
    """
    a, b = a.double(), b.double()
    spread = (a.var(correction=0) + b.var(correction=0)) / 2.0
    return bool((a - b).square().mean() <= NEARLY**2 * spread)


def entry_of(
    requests: list[Request], results: list[list[Result]], first_id: int, plan: Plan
) -> dict[str, Any]:
    """Return a round as JSON types.

    Args:
        requests: The round's requests.
        results: Their results.
        first_id: id of the first node.
        plan: The run's settings.

    Returns:
        {"requests": [{chain, pass, phase, of, rows: [...]}]}.
    """
    parts: list[dict[str, Any]] = []
    number = first_id
    for request, rows in zip(requests, results, strict=True):
        lines: list[dict[str, Any]] = []
        last, how = None, None
        for move, key, result in zip(request.moves, request.keys, rows, strict=True):
            parent = move.parent
            if move.transition is not last:
                last = move.transition
                how = None if last is None else plan.transition_json(last)
            lines.append(
                {
                    "id": number,
                    "parent": None if parent is None else parent.id,
                    "donor": None if move.donor is None else move.donor.id,
                    "from": None if parent is None else parent.sigma,
                    "sigma": move.to,
                    "key": list(key),
                    "transition": how,
                    "evaluations": result.evaluations,
                    "rows": result.rows,
                    "call": result.call,
                    "seconds": result.seconds,
                    "score_seconds": result.score_seconds,
                    "score": _json_of(result.scores),
                }
            )
            number += 1
        parts.append(
            {
                "chain": request.chain,
                "pass": request.pass_,
                "phase": request.phase,
                "of": list(request.of),
                "rows": lines,
            }
        )
    return {"requests": parts}


def matches(entry: dict[str, Any], requests: list[Request], plan: Plan, partial: bool) -> None:
    """Check that a logged round is what was asked for.

    Args:
        entry: The logged round.
        requests: What is asked now.
        plan: The run's settings.
        partial: Whether the log may hold more requests than are asked now.

    Raises:
        Diverged: It is not.
    """
    logged = {part["chain"]: _signature_of_part(part) for part in entry["requests"]}
    asked = {request.chain: _signature(request, plan) for request in requests}
    same = all(logged.get(chain) == signature for chain, signature in asked.items())
    if not same or (len(logged) != len(asked) and not partial):
        raise Diverged("the search asks for other candidates than the checkpoint holds")


def emit(
    item: int,
    spent: int,
    part: dict[str, Any],
    row: dict[str, Any],
    scores: Scores | None,
    handle: int | None,
    best: bool,
) -> Iterator[Event]:
    """Yield the events of one candidate.

    Args:
        item: Batch item.
        spent: The item's evaluations, this candidate's included.
        part: The request's record.
        row: The candidate's record.
        scores: Its rewards, with a thumbnail if it was computed just now.
        handle: id of the handle that was being finished.
        best: Whether it is the item's best finished picture.

    Yields:
        Evaluated, and Finished if it is.
    """
    yield Evaluated(
        item, part["chain"], part["pass"], part["phase"], row["id"], row["parent"],
        row["from"], row["sigma"], tuple(row["key"]), row["transition"], row["evaluations"],
        row["rows"], row["call"], spent, row["seconds"], scores, row["donor"],
        row["score_seconds"],
    )  # fmt: skip
    if row["sigma"] == 0.0 and scores is not None:
        yield Finished(item, row["id"], scores, handle, spent, best)


def scores_of(row: dict[str, Any]) -> Scores | None:
    """Return the rewards of a logged row.

    Args:
        row: The candidate's record.

    Returns:
        The rewards, without thumbnail; None if it was not scored.
    """
    return Scores(**row["score"]) if row["score"] else None


def _json_of(scores: Scores | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    return {
        "value": scores.value,
        "parts": dict(scores.parts),
        "note": scores.note,
        "held_out": dict(scores.held_out),
        "held_out_seconds": scores.held_out_seconds,
    }


def _signature(request: Request, plan: Plan) -> str:
    rows = [
        [
            None if move.parent is None else move.parent.id,
            None if move.donor is None else move.donor.id,
            move.to,
            list(key),
            None if move.transition is None else plan.transition_json(move.transition),
            move.score,
        ]
        for move, key in zip(request.moves, request.keys, strict=True)
    ]
    return _hash([request.phase, request.pass_, rows])


def _signature_of_part(part: dict[str, Any]) -> str:
    rows = [
        [
            row["parent"],
            row["donor"],
            row["sigma"],
            row["key"],
            row["transition"],
            row["score"] is not None,
        ]
        for row in part["rows"]
    ]
    return _hash([part["phase"], part["pass"], rows])


def _hash(value: object) -> str:
    data = json.dumps(value, sort_keys=True).encode()
    return hashlib.blake2b(data, digest_size=8).hexdigest()
