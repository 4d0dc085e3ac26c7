"""What may an item still spend, and what does a thing cost it? Its ledger under its budget."""

from ..protocol import Move, Whole
from .ledger import Budget, Ledger
from .plan import Plan
from .record import CandidateRecord
from .reservation import Reservation

__all__ = ["Spending"]


class Spending:
    """The ledger of an item, its budget, and what is reserved of it.

    Attributes:
        ledger: What it has spent.
        budget: The budget in force: while a log is replayed, the one it was played under.
        reservations: One a chain, in chain order.
    """

    def __init__(self, plan: Plan, budget: Budget) -> None:
        """Begin with nothing spent.

        Args:
            plan: The run's prices.
            budget: What may be spent.
        """
        self.ledger = Ledger()
        self.budget = budget
        self.reservations: list[Reservation] = []
        self._plan = plan
        self._whole_cost = 0

    def left(self) -> int:
        """Return the evaluations that are left of the item's budget."""
        return self.budget.left(self.ledger)

    def short_of(self) -> str:
        """Return which limit leaves less: "budget" or "rows"."""
        return self.budget.short_of(self.ledger)

    def reserved(self) -> int:
        """Return the evaluations that are reserved for finishing."""
        return sum(one.evaluations for one in self.reservations)

    def free_for(self, chain: int) -> int:
        """Return the evaluations a chain may use without touching what others have reserved."""
        others = sum(one.needs for one in self.reservations if one.chain != chain)
        return max(0, self.left() - others)

    def reward_calls_left(self, most: int) -> int:
        """Return how many of `most` pictures may still be scored."""
        if self.budget.reward_calls is None:
            return most
        return max(0, min(most, self.budget.reward_calls - self.ledger.reward_calls))

    @property
    def sample_cost(self) -> int:
        """Evaluations of one sample of the search; of one run whole, the most one took so far."""
        return max(self._plan.sample_cost, self._whole_cost)

    @property
    def plain_cost(self) -> int:
        """Evaluations of one plain sample, which is not guided."""
        return max(self._plan.plain_cost, self._whole_cost)

    def move_cost(self, move: Move) -> int:
        """Return the evaluations of a move."""
        cost = self._plan.move_cost(move)
        whole = move.transition or self._plan.settings.transition
        return max(cost, self._whole_cost) if isinstance(whole, Whole) else cost

    def charge(self, phase: str, candidate: CandidateRecord) -> None:
        """Enter a candidate; remember what a whole run of the sampler takes.

        Args:
            phase: What it was for.
            candidate: Its record.
        """
        scored = candidate.scores is not None
        evaluations, gradients = candidate.evaluations, candidate.gradients
        self.ledger.charge(phase, evaluations, candidate.rows, scored, candidate.seconds, gradients)
        how = candidate.transition or {}
        if "whole" in how and "sigmas" not in how:
            self._whole_cost = max(self._whole_cost, evaluations)
