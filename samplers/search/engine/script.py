"""How is a run taken up again? By answering its first rounds from a log, in segments by budget.

A segment holds the rounds that were played under one budget. Under the same budget the run goes on
where the log ends. Where another budget follows, a chain waits after its last logged reply, the
rounds that finished its winners are entered without being asked for, and it goes on under the new
budget as if that had been there at this point. What was admitted, the shares and what stopped
depend on all chains, waiting or not, so they are read from the log.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ..protocol import Request
from .ledger import Budget
from .plan import Plan
from .record import matches

__all__ = ["Script"]

Entry = dict[str, Any]


class Script:
    """The log of an item: what is still to be answered from it, and what is written to it.

    Attributes:
        budget: The budget in force.
        log: [{"budget", "rounds"}] so far, for the checkpoint; None if none is kept.
    """

    def __init__(self, budget: Budget, keep: bool) -> None:
        """Begin an empty log.

        Args:
            budget: The run's budget.
            keep: Whether to keep a log.
        """
        self.budget = budget
        self.log: list[Entry] | None = [_segment(budget)] if keep else None
        self._entries: deque[Entry] = deque()
        self._segments: deque[Entry] = deque()
        self._last_search: dict[int, int] = {}
        self._round = -1

    def load(self, segments: Sequence[Entry]) -> None:
        """Answer from an earlier run's log first.

        Args:
            segments: The log of a run with the same settings.
        """
        self._segments = deque(segments)
        if Budget.from_json(segments[-1]["budget"]) != self.budget:
            self._segments.append(_segment(self.budget))
        self.log = []
        self.open()

    @property
    def follows(self) -> bool:
        """Whether another budget follows the one in force."""
        return bool(self._segments)

    @property
    def told(self) -> bool:
        """Whether this budget's log is at its end, and another budget follows."""
        return self.follows and not self._entries

    def open(self) -> None:
        """Put the next budget in force."""
        segment = self._segments.popleft()
        self.budget = Budget.from_json(segment["budget"])
        self._entries = deque(segment["rounds"])
        self._round = -1
        self._last_search = {
            part["chain"]: number
            for number, entry in enumerate(segment["rounds"])
            for part in entry["requests"]
            if part["phase"] == "search"
        }
        if self.log is not None:
            self.log.append(_segment(self.budget))

    def waits(self, chain: int) -> bool:
        """Return whether a chain asked nothing more under this budget, and another one follows."""
        return self.follows and self._last_search.get(chain, -1) <= self._round

    def answer(self, requests: list[Request], plan: Plan) -> Entry | None:
        """Return the logged round that answers these requests, None if the log is at its end.

        Args:
            requests: The round's requests.
            plan: The run's settings.

        Returns:
            The round's record.

        Raises:
            Diverged: The logged round is another one.
        """
        self._round += 1
        if not self._entries:
            return None
        entry = self._entries.popleft()
        matches(entry, requests, plan, partial=self.follows)
        return entry

    def asks_next(self) -> dict[int, str] | None:
        """Return chain -> phase of the next logged round; None if there is none."""
        if not self._entries:
            return None
        return {part["chain"]: part["phase"] for part in self._entries[0]["requests"]}

    def rest(self) -> Iterator[Entry]:
        """Yield what is left of the segment."""
        while self._entries:
            yield self._entries.popleft()

    def write(self, entry: Entry) -> None:
        """Append a round."""
        if self.log is not None:
            self.log[-1]["rounds"].append(entry)


def _segment(budget: Budget) -> Entry:
    return {"budget": budget.to_json(), "rounds": []}
