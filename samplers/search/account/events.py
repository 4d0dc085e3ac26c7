"""What does a run tell? Records, never nodes or tensors; trace, panel and report read nothing else.

Events are emitted at request boundaries, and again when a checkpoint is replayed, in the same order
within each item.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, cast

from ..protocol import Scores

__all__ = ["KINDS", "Chosen", "Evaluated", "Event", "Finished", "Started", "Stopped"]

_R = TypeVar("_R", bound="_Record")


class _Record:
    """What all events can: JSON both ways."""

    kind: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON types, without its kind and without a thumbnail."""
        return {
            name: value.to_json() if isinstance(value, Scores) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls: type[_R], data: Mapping[str, Any]) -> _R:
        """Build the event from what to_json() returned, also after it was text.

        Args:
            data: The dict.

        Returns:
            The event, without a thumbnail.

        Raises:
            TypeError: Keys that this kind of event does not have, or lacks.
        """
        values = dict(data)
        for name, value in data.items():
            if isinstance(value, list):
                values[name] = tuple(cast("list[object]", value))
        if values.get("scores") is not None:
            values["scores"] = Scores.from_json(values["scores"])
        return cls(**values)


@dataclass(frozen=True)
class Started(_Record):
    """A run began, or was taken up again.

    Attributes:
        settings: Strategy, sigmas, transition, seed, items, chains: what a checkpoint must match.
        budget: Budget as JSON types.
        note: Why it starts afresh, or what is being continued; "" for a new run.
    """

    kind: ClassVar[str] = "started"

    settings: dict[str, Any]
    budget: dict[str, Any]
    note: str = ""


@dataclass(frozen=True)
class Evaluated(_Record):
    """A candidate was computed and charged.

    Attributes:
        item: Batch item.
        chain: Chain; -1 is the plain sample.
        pass_: The chain's pass.
        phase: "plain", "calibrate", "search", "finish" or "target".
        id: The node's id within the item.
        parent: id of its parent; None for a start.
        sigma_from: Where it came from; None for a start.
        sigma: Where it is.
        key: Full noise key (chain, pass, phase, step, ...).
        transition: The transition as JSON types; None for a start.
        evaluations: What it cost.
        rows: Rows that reached the network.
        call: Number of the model call that it shared, within this process; -1 if there was none.
        spent: The item's evaluations up to and including this one.
        seconds: Its share of the time, scoring included.
        scores: Its rewards, if they were asked for.
        donor: id of the node that a mix took differences from.
        score_seconds: The part of seconds that decoding and scoring took.
        gradients: Gradients of the reward that it asked for.
        log_weight: Of its draw: log of the density that was wanted over the one drawn from.
    """

    kind: ClassVar[str] = "evaluated"

    item: int
    chain: int
    pass_: int
    phase: str
    id: int
    parent: int | None
    sigma_from: float | None
    sigma: float
    key: tuple[int, ...]
    transition: dict[str, Any] | None
    evaluations: int
    rows: int
    call: int
    spent: int
    seconds: float
    scores: Scores | None
    donor: int | None = None
    score_seconds: float = 0.0
    gradients: int = 0
    log_weight: float = 0.0


@dataclass(frozen=True)
class Chosen(_Record):
    """A strategy decided which nodes go on.

    Attributes:
        item: Batch item.
        chain: Chain.
        ids: The nodes' ids.
        why: The strategy's word for the decision.
        weights: Weights of the nodes, where the strategy has them.
    """

    kind: ClassVar[str] = "chosen"

    item: int
    chain: int
    ids: tuple[int, ...]
    why: str
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Finished(_Record):
    """A picture reached sigma 0 and was scored as it will be seen.

    Attributes:
        item: Batch item.
        id: The node's id.
        scores: Its rewards.
        of: id of the handle that was finished; None if a strategy's own move ended here.
        spent: The item's evaluations so far.
        best: Whether it is the item's best so far.
    """

    kind: ClassVar[str] = "finished"

    item: int
    id: int
    scores: Scores
    of: int | None
    spent: int
    best: bool


@dataclass(frozen=True)
class Stopped(_Record):
    """An item's search ended.

    Attributes:
        item: Batch item.
        why: "budget", "rows", "reward_calls", "seconds", "target", "done" or what a person's stop
            said.
        winners: ids of the finished nodes, best first.
        ledger: The item's ledger as JSON types.
        target: The reward at which the item is done; None for never.
    """

    kind: ClassVar[str] = "stopped"

    item: int
    why: str
    winners: tuple[int, ...]
    ledger: dict[str, Any] = field(default_factory=dict[str, Any])
    target: float | None = None


Event = Started | Evaluated | Chosen | Finished | Stopped

KINDS: dict[str, type[Event]] = {
    event.kind: event for event in (Started, Evaluated, Chosen, Finished, Stopped)
}
"""The kinds of events by name, in the order of a trace."""
