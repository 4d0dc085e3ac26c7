"""What is written down of a round? Frozen records, from which nodes and events can be made again.

A round is a request from every chain that asked, each with a candidate for every move, and what was
decided when all had been answered. Records go to JSON and back; reading them checks every value,
for a checkpoint may have been changed by anybody.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..account.events import Evaluated, Event, Finished
from ..protocol import Request, Scores
from .execution import Result
from .json_types import integer, integers, number, objects, optional, table, text
from .ledger import Budget
from .plan import Plan

__all__ = [
    "CandidateRecord",
    "Diverged",
    "RequestRecord",
    "RoundRecord",
    "SegmentRecord",
    "check_same",
    "events_of",
    "record_round",
]


class Diverged(RuntimeError):
    """A checkpoint's log does not fit what the strategy asks for; the run must start afresh."""


@dataclass(frozen=True, slots=True)
class CandidateRecord:
    """What is written down of one candidate.

    Attributes:
        id: Its node's id within the item.
        parent: id of its parent; None for a start.
        donor: id of the node that a mix took differences from.
        sigma_from: Its parent's sigma; None for a start.
        sigma: Where it is.
        key: Full noise key.
        transition: The transition as JSON types; None for a start.
        evaluations: What it cost.
        rows: Rows that reached the network.
        call: Number of the model call that it shared; -1 if there was none.
        seconds: Its share of the time, scoring included.
        score_seconds: The part of it that decoding and scoring took.
        scores: Its rewards, without a thumbnail; None if they were not asked for.
        like: Of a finished picture: ids of the winners that are nearly the same one. None while it
            is not known; it is written down because a log holds no tensors to compare.
        gradients: Gradients of the reward that it asked for.
        log_weight: Of its draw: log of the density that was wanted over the one drawn from.
    """

    id: int
    parent: int | None
    donor: int | None
    sigma_from: float | None
    sigma: float
    key: tuple[int, ...]
    transition: dict[str, Any] | None
    evaluations: int
    rows: int
    call: int
    seconds: float
    score_seconds: float
    scores: Scores | None
    like: tuple[int, ...] | None = None
    gradients: int = 0
    log_weight: float = 0.0

    @property
    def is_mix(self) -> bool:
        """Whether it is a mix, which no prediction of the model stands behind."""
        return self.donor is not None

    @property
    def score(self) -> float | None:
        """Its reward, None if it was not scored."""
        return None if self.scores is None else self.scores.value

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        row: dict[str, Any] = {
            "id": self.id,
            "parent": self.parent,
            "donor": self.donor,
            "from": self.sigma_from,
            "sigma": self.sigma,
            "key": list(self.key),
            "transition": self.transition,
            "evaluations": self.evaluations,
            "rows": self.rows,
            "call": self.call,
            "seconds": self.seconds,
            "score_seconds": self.score_seconds,
            "score": None if self.scores is None else self.scores.to_json(),
        }
        if self.gradients:  # what is not guided is written as it was before there were gradients
            row |= {"gradients": self.gradients, "log_weight": self.log_weight}
        return row if self.like is None else {**row, "like": list(self.like)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CandidateRecord":
        """Read what to_json() returned.

        Args:
            data: The dict.

        Returns:
            The record.

        Raises:
            KeyError: Something is missing.
            TypeError: Something is of another type.
        """
        score = data["score"]
        return cls(
            id=integer(data["id"]),
            parent=optional(integer, data["parent"]),
            donor=optional(integer, data["donor"]),
            sigma_from=optional(number, data["from"]),
            sigma=number(data["sigma"]),
            key=integers(data["key"]),
            transition=optional(table, data["transition"]),
            evaluations=integer(data["evaluations"]),
            rows=integer(data["rows"]),
            call=integer(data["call"]),
            seconds=number(data["seconds"]),
            score_seconds=number(data["score_seconds"]),
            scores=None if score is None else Scores.from_json(table(score)),
            like=integers(data["like"]) if "like" in data else None,
            gradients=integer(data.get("gradients", 0)),
            log_weight=number(data.get("log_weight", 0.0)),
        )


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What is written down of one request.

    Attributes:
        chain: Chain that asked; -1 for plain samples.
        pass_: The chain's pass.
        phase: "plain", "calibrate", "search", "finish" or "target".
        finishes: ids of the handles that are being finished, aligned with the candidates; or empty.
        candidates: One a move.
    """

    chain: int
    pass_: int
    phase: str
    finishes: tuple[int, ...]
    candidates: tuple[CandidateRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {
            "chain": self.chain,
            "pass": self.pass_,
            "phase": self.phase,
            "of": list(self.finishes),
            "rows": [candidate.to_json() for candidate in self.candidates],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RequestRecord":
        """Read what to_json() returned; KeyError or TypeError for anything else."""
        return cls(
            chain=integer(data["chain"]),
            pass_=integer(data["pass"]),
            phase=text(data["phase"]),
            finishes=integers(data["of"]),
            candidates=tuple(map(CandidateRecord.from_json, objects(data["rows"]))),
        )


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What is written down of one round. Each decision is None until it is made.

    Attributes:
        requests: The requests that were answered together.
        hit: (chain, id) of the handle that reached the target; () if none did.
        stop: Why the round was the last one before a stop; "" if it was not.
        shares: (chain, evaluations) of what each live chain may still ask for.
    """

    requests: tuple[RequestRecord, ...]
    hit: tuple[int, ...] | None = None
    stop: str | None = None
    shares: tuple[tuple[int, int], ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types; a decision that was not made has no key."""
        data: dict[str, Any] = {"requests": [request.to_json() for request in self.requests]}
        if self.hit is not None:
            data["hit"] = list(self.hit) or None
        if self.stop is not None:
            data["stop"] = self.stop or None
        if self.shares is not None:
            data["shares"] = [list(share) for share in self.shares]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RoundRecord":
        """Read what to_json() returned; KeyError, TypeError or ValueError for anything else."""
        requests = tuple(map(RequestRecord.from_json, objects(data["requests"])))
        hit = stop = shares = None
        if "hit" in data:
            hit = () if data["hit"] is None else integers(data["hit"])
        if "stop" in data:
            stop = optional(text, data["stop"]) or ""
        if "shares" in data:
            shares = tuple((chain, share) for chain, share in map(integers, data["shares"]))
        if hit and len(hit) != 2:
            raise ValueError(f"a hit is a chain and a candidate, got {hit}")
        return cls(requests, hit, stop, shares)


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """The rounds that were played under one budget.

    Attributes:
        budget: The budget.
        rounds: The rounds, in order.
    """

    budget: Budget
    rounds: tuple[RoundRecord, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON types."""
        return {
            "budget": self.budget.to_json(),
            "rounds": [each.to_json() for each in self.rounds],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SegmentRecord":
        """Read what to_json() returned; KeyError, TypeError or ValueError for anything else."""
        rounds = tuple(map(RoundRecord.from_json, objects(data["rounds"])))
        return cls(Budget.from_json(data["budget"]), rounds)


def record_round(
    requests: Sequence[Request], results: Sequence[Sequence[Result]], first_id: int, plan: Plan
) -> RoundRecord:
    """Write down a round that was computed just now.

    Args:
        requests: The round's requests.
        results: Their results.
        first_id: id of the first node.
        plan: The run's settings.

    Returns:
        The record, nothing decided yet.
    """
    records: list[RequestRecord] = []
    number = first_id
    for request, row in zip(requests, results, strict=True):
        candidates: list[CandidateRecord] = []
        for move, key, result in zip(request.moves, request.keys, row, strict=True):
            parent, how = move.parent, move.transition
            candidates.append(
                CandidateRecord(
                    id=number,
                    parent=None if parent is None else parent.id,
                    donor=None if move.donor is None else move.donor.id,
                    sigma_from=None if parent is None else parent.sigma,
                    sigma=move.to,
                    key=tuple(key),
                    transition=None if how is None else plan.transition_json(how),
                    evaluations=result.evaluations,
                    rows=result.rows,
                    call=result.call,
                    seconds=result.seconds,
                    score_seconds=result.score_seconds,
                    scores=None if result.scores is None else result.scores.kept(),
                    gradients=result.gradients,
                    log_weight=result.log_weight,
                )
            )
            number += 1
        records.append(
            RequestRecord(
                request.chain, request.pass_, request.phase, request.finishes, tuple(candidates)
            )
        )
    return RoundRecord(tuple(records))


def check_same(logged: RoundRecord, requests: Sequence[Request], plan: Plan, partial: bool) -> None:
    """Check that a logged round is what was asked for.

    Args:
        logged: The logged round.
        requests: What is asked now.
        plan: The run's settings.
        partial: Whether the log may hold more requests than are asked now.

    Raises:
        Diverged: It is not.
    """
    held = {record.chain: _signature_of_record(record) for record in logged.requests}
    asked = {request.chain: _signature(request, plan) for request in requests}
    same = all(held.get(chain) == signature for chain, signature in asked.items())
    if not same or (len(held) != len(asked) and not partial):
        raise Diverged("the search asks for other candidates than the checkpoint holds")


def events_of(
    item: int,
    spent: int,
    request: RequestRecord,
    candidate: CandidateRecord,
    scores: Scores | None,
    handle: int | None,
    best: bool,
) -> Iterator[Event]:
    """Yield the events of one candidate.

    Args:
        item: Batch item.
        spent: The item's evaluations, this candidate's included.
        request: The request's record.
        candidate: The candidate's record.
        scores: Its rewards, with a thumbnail if they were computed just now.
        handle: id of the handle that was being finished.
        best: Whether it is the item's best finished picture.

    Yields:
        Evaluated, and Finished if it is.
    """
    yield Evaluated(
        item=item,
        chain=request.chain,
        pass_=request.pass_,
        phase=request.phase,
        id=candidate.id,
        parent=candidate.parent,
        sigma_from=candidate.sigma_from,
        sigma=candidate.sigma,
        key=candidate.key,
        transition=candidate.transition,
        evaluations=candidate.evaluations,
        rows=candidate.rows,
        call=candidate.call,
        spent=spent,
        seconds=candidate.seconds,
        scores=scores,
        donor=candidate.donor,
        score_seconds=candidate.score_seconds,
        gradients=candidate.gradients,
        log_weight=candidate.log_weight,
    )
    if candidate.sigma == 0.0 and scores is not None:
        yield Finished(item, candidate.id, scores, handle, spent, best)


def _signature(request: Request, plan: Plan) -> str:
    rows = [
        [
            None if move.parent is None else move.parent.id,
            None if move.donor is None else move.donor.id,
            move.to,
            key,
            None if move.transition is None else plan.transition_json(move.transition),
            move.score,
        ]
        for move, key in zip(request.moves, request.keys, strict=True)
    ]
    return json.dumps([request.phase, request.pass_, rows], sort_keys=True)


def _signature_of_record(record: RequestRecord) -> str:
    rows = [
        [row.parent, row.donor, row.sigma, row.key, row.transition, row.scores is not None]
        for row in record.candidates
    ]
    return json.dumps([record.phase, record.pass_, rows], sort_keys=True)
