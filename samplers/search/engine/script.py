"""How is a run taken up again? By answering its first rounds from a log, in segments by budget.

A segment holds the rounds that were played under one budget. Under the same budget the run goes on
where the log ends. Where another budget follows, a chain waits after its last logged reply, the
rounds that finished its winners are entered without being asked for, and it goes on under the new
budget as if that had been there at this point. What was admitted, the shares and what stopped
depend on all chains, waiting or not, so they are read from the log.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..protocol import Request
from .ledger import Budget
from .plan import Plan
from .record import RoundRecord, SegmentRecord, check_same

__all__ = ["Script"]


@dataclass
class _Segment:
    """A segment that is being written."""

    budget: Budget
    rounds: list[RoundRecord] = field(default_factory=list[RoundRecord])


class Script:
    """The log of an item: what is still to be answered from it, and what is written to it.

    Attributes:
        budget: The budget in force.
    """

    def __init__(self, budget: Budget, keep: bool) -> None:
        """Begin an empty log.

        Args:
            budget: The run's budget.
            keep: Whether to keep a log.
        """
        self.budget = budget
        self._written: list[_Segment] | None = [_Segment(budget)] if keep else None
        self._unread: deque[RoundRecord] = deque()
        self._segments: deque[SegmentRecord] = deque()
        self._last_search: dict[int, int] = {}
        self._round = -1

    def load(self, segments: Sequence[SegmentRecord]) -> None:
        """Answer from an earlier run's log first.

        Args:
            segments: The log of a run with the same settings.
        """
        self._segments = deque(segments)
        if segments[-1].budget != self.budget:
            self._segments.append(SegmentRecord(self.budget))
        self._written = []
        self.open()

    @property
    def has_next_budget(self) -> bool:
        """Whether another budget follows the one in force."""
        return bool(self._segments)

    @property
    def is_at_its_end(self) -> bool:
        """Whether this budget's log is at its end, and another budget follows."""
        return self.has_next_budget and not self._unread

    def open(self) -> None:
        """Put the next budget in force."""
        segment = self._segments.popleft()
        self.budget = segment.budget
        self._unread = deque(segment.rounds)
        self._round = -1
        self._last_search = {
            request.chain: number
            for number, each in enumerate(segment.rounds)
            for request in each.requests
            if request.phase == "search"
        }
        if self._written is not None:
            self._written.append(_Segment(self.budget))

    def is_waiting(self, chain: int) -> bool:
        """Return whether a chain asked nothing more under this budget, and another one follows."""
        return self.has_next_budget and self._last_search.get(chain, -1) <= self._round

    def answer(self, requests: Sequence[Request], plan: Plan) -> RoundRecord | None:
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
        if not self._unread:
            return None
        logged = self._unread.popleft()
        check_same(logged, requests, plan, partial=self.has_next_budget)
        return logged

    def next_phases(self) -> dict[int, str] | None:
        """Return chain -> phase of the next logged round; None if there is none."""
        if not self._unread:
            return None
        return {request.chain: request.phase for request in self._unread[0].requests}

    def unread(self) -> Iterator[RoundRecord]:
        """Yield what is left of the segment."""
        while self._unread:
            yield self._unread.popleft()

    def write(self, record: RoundRecord) -> int:
        """Append a round, of which nothing need be decided yet; return its place in the segment."""
        if self._written is None:
            return -1
        self._written[-1].rounds.append(record)
        return len(self._written[-1].rounds) - 1

    def amend(self, place: int, record: RoundRecord) -> None:
        """Write a round of the open segment down again, with what was decided since.

        Args:
            place: What write() returned.
            record: The round.
        """
        if self._written is not None:
            self._written[-1].rounds[place] = record

    def written(self) -> list[SegmentRecord]:
        """Return the log so far, for the checkpoint; nothing if none is kept."""
        segments = self._written or []
        return [SegmentRecord(one.budget, tuple(one.rounds)) for one in segments]
