"""What is kept of a run, and can it be gone on from?

    data = {"settings", "budget", "elapsed", "rows_per_call", "scores_per_call", "logs", "lineages"}

beside the tensors of live handles. What was kept may come from another version, or have been
changed: it is looked through before any of it is used, and whatever is wrong with it is Unreadable.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..account.lineage import PREFIX
from ..protocol import State
from .ledger import Budget
from .record import SegmentRecord

__all__ = ["Kept", "Unreadable", "kept_of"]


class Unreadable(RuntimeError):
    """What a checkpoint holds is no run, or not as it was written; it says why."""


@dataclass(frozen=True)
class Kept:
    """A run that was kept.

    Attributes:
        settings: What a run must share to go on from it.
        budget: The last one it had.
        elapsed: Seconds it took.
        rows_per_call: As the executor had it.
        scores_per_call: Likewise.
        logs: One an item.
        lineages: One an item; None for none.
        tensors: Those of live handles and of their lineages, by name.
    """

    settings: Mapping[str, Any]
    budget: Budget
    elapsed: float
    rows_per_call: int
    scores_per_call: int
    logs: Sequence[Sequence[SegmentRecord]]
    lineages: Sequence[Any]
    tensors: dict[str, Tensor]

    def states(self, item: int) -> dict[int, State]:
        """Return the tensors of an item's live handles, by id."""
        states: dict[int, State] = {}
        for name, value in self.tensors.items():
            if name.startswith(PREFIX):
                continue
            owner, node, key = name.split("/", 2)
            if int(owner) == item:
                states.setdefault(int(node), {})[key] = value
        return states

    def to_json(self) -> dict[str, Any]:
        """Return all but the tensors as JSON types."""
        return {
            "settings": dict(self.settings),
            "budget": self.budget.to_json(),
            "elapsed": self.elapsed,
            "rows_per_call": self.rows_per_call,
            "scores_per_call": self.scores_per_call,
            "logs": [[segment.to_json() for segment in log] for log in self.logs],
            "lineages": list(self.lineages),
        }


def kept_of(tensors: dict[str, Tensor], data: Mapping[str, Any], items: Sequence[int]) -> Kept:
    """Read what was kept.

    Args:
        tensors: Of a checkpoint.
        data: Of the same.
        items: The run's batch rows.

    Returns:
        The run.

    Raises:
        Unreadable: Something is missing, of another kind, or not finite.
    """
    try:
        kept = Kept(
            dict(data["settings"]),
            Budget.from_json(data["budget"]),
            float(data["elapsed"]),
            int(data["rows_per_call"]),
            int(data["scores_per_call"]),
            [tuple(map(SegmentRecord.from_json, log)) for log in data["logs"]],
            data.get("lineages") or [None] * len(items),
            tensors,
        )
        states = [kept.states(item) for item in items]
    except Exception as error:
        raise Unreadable(f"it holds no run ({type(error).__name__}: {error})") from error
    _check(kept, states)
    return kept


def _check(kept: Kept, states: Sequence[dict[int, State]]) -> None:
    """Refuse what would only fail later, or never end."""
    if not 0.0 <= kept.elapsed < math.inf or kept.rows_per_call < 1 or kept.scores_per_call < 0:
        raise Unreadable("it holds numbers that no run has")
    if len(kept.logs) != len(states) or len(kept.lineages) != len(states) or not all(kept.logs):
        raise Unreadable(f"it holds {len(kept.logs)} logs for {len(states)} pictures")
    shapes: set[tuple[int, ...]] = set()
    for table in states:
        for number, state in table.items():
            if "x" not in state:
                raise Unreadable(f"candidate {number} has no state")
            shapes |= {tuple(state[key].shape) for key in ("x", "denoised") if key in state}
    if len(shapes) > 1 or any(shape[:1] != (1,) for shape in shapes):
        raise Unreadable(f"its candidates have the shapes {sorted(shapes)}")
    for name, tensor in kept.tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise Unreadable(f"its tensor {name} holds numbers that are not finite")
