"""What is kept back for a chain, so that whatever stops it, enough is left to finish?

While a chain searches it holds one handle, the pass's best at the lowest sigma so far, and what
finishes that is reserved; while it finishes, what is left of the way is. Three operations change a
reservation: admit() when a request is let in, charge() when a candidate of it was paid for, and
reserve() when a finishing begins or a chain ends.
"""

from ..protocol import Node, Request
from .plan import Plan
from .winner import Gallery

__all__ = ["Reservation", "rank"]


class Reservation:
    """What an item keeps back for one chain.

    Attributes:
        chain: The chain's number.
        held: The handle that would be finished if the search were stopped now.
        evaluations: What is reserved.
        searches: Whether the chain searches; else it finishes.
    """

    def __init__(self, chain: int, plan: Plan, gallery: Gallery) -> None:
        """Begin with nothing.

        Args:
            chain: The chain's number.
            plan: The run's prices.
            gallery: The item's finished pictures; without any, every handle is worth holding.
        """
        self.chain = chain
        self.held: Node | None = None
        self.evaluations = 0
        self.searches = True
        self._plan = plan
        self._gallery = gallery
        self._admitted: int | None = None

    @property
    def needs(self) -> int:
        """Evaluations that nobody else may use, a request that was let in included."""
        return self.evaluations if self._admitted is None else self._admitted

    def begin(self) -> None:
        """Begin a pass: nothing is held."""
        self.held, self.evaluations, self.searches = None, 0, True

    def end_search(self) -> int:
        """Go over to finishing; return the evaluations that the held handle had reserved."""
        freed, self.evaluations, self.searches = self.evaluations, 0, False
        return freed

    # ---- the three operations ----

    def admit(self, evaluations: int) -> None:
        """Let a request in, at the price that price() said; its candidates are charged later."""
        self._admitted = evaluations

    def charge(self, node: Node, request: str, is_mix: bool, handle: int | None) -> None:
        """Take note of a candidate that was paid for.

        A mix is not held: no prediction of the model stands behind it.

        Args:
            node: The candidate.
            request: Its request's phase.
            is_mix: Whether it is a mix.
            handle: id of the handle that it comes from, in a finishing.
        """
        self._admitted = None
        if self.searches and node.sigma == 0.0 and self._is_held(handle):
            self.evaluations = 0
        if request == "finish" and not self.searches:
            self.evaluations -= self._plan.finish_step if node.sigma > 0.0 else 0
        if request != "search" or is_mix or not self._can_hold(node.sigma, node.score is not None):
            return
        if self.held is None or rank(node) > rank(self.held):
            self.held = node
            self.evaluations = self._plan.finish_cost(node.sigma)

    def reserve(self, evaluations: int) -> None:
        """Reserve the whole way of a finishing, before another chain can spend it; 0 at the end."""
        self.evaluations = evaluations

    # ---- what it would take ----

    def price(self, request: Request, evaluations: int) -> int:
        """Return what letting a request in takes: itself, and what is reserved once it is paid.

        Args:
            request: The request.
            evaluations: What its moves cost.

        Returns:
            Evaluations.
        """
        return evaluations + self._after(request)

    def _after(self, request: Request) -> int:
        plan = self._plan
        if request.phase != "search":
            return self.evaluations - sum(map(plan.move_cost, request.moves))
        if self.held is None:
            return max(plan.finish_cost(move.to) for move in request.moves)
        better = [
            move.to
            for move in request.moves
            if move.donor is None and self._can_hold(move.to, move.score)
        ]
        rows = max(map(plan.finish_cost, better), default=0)
        lower = min(better, default=1.0) < self.held.sigma
        return rows if lower else max(self.evaluations, rows)

    def _can_hold(self, sigma: float, scored: bool) -> bool:
        """Whether such a node can be held: unfinished, and scored unless nothing is finished."""
        return sigma > 0.0 and (scored or self._gallery.best_node is None)

    def _is_held(self, handle: int | None) -> bool:
        return handle is not None and self.held is not None and self.held.id == handle


def rank(node: Node) -> tuple[float, float]:
    """Rank by lower sigma, then by score: early scores mean less, and take more to finish."""
    return (-node.sigma, float("-inf") if node.score is None else node.score)
