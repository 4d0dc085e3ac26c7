"""What is one chain? Passes of the strategy, each followed by the finishing of its winners.

A chain always has one pending request, or it is over. Whatever stops it, what finishes the best
that it has so far is reserved (reservation.py). The strategy sees its ChainSpec (spec.py) alone.
"""

import weakref
from collections.abc import Generator, Sequence

from ...stepping.transition import ODE
from ..protocol import Move, Node, Request, Stop, Whole
from .plan import thin
from .reservation import Reservation, rank
from .spec import ChainSpec, Shared

__all__ = ["Chain", "finishing"]

Moves = Generator[list[Move], list[Node], None]

_PHASE_CODE = {"search": 0, "finish": 1, "target": 2}


def finishing(handles: list[Node], path: Sequence[float], number: int) -> Moves:
    """Take handles to sigma 0 by ODE steps, side by side; score at 0 only.

    The handles are nodes of one sigma; their list is emptied, so that their tensors can go. The
    number makes the keys of this finishing its own.
    """
    nodes = [*handles]
    handles.clear()
    for step, to in enumerate(path):
        nodes = yield [
            Move(node, to, (number, step, row), ODE, score=to == 0.0)
            for row, node in enumerate(nodes)
        ]


class Chain:
    """One chain of an item: runs the strategy, and finishes what it returns.

    Attributes:
        index: Number of the chain within its item.
        spec: What the strategy sees.
        reservation: What the item keeps back for it.
        alive: Whether it may still ask.
        started: Whether it has a pending request.
        last: The best handle of a pass that brought no winners, while nothing is finished.
        parked: A reply that waits for a new budget, when a checkpoint is continued.
        targets: Handles that reached the target and were finished, in this pass.
    """

    def __init__(self, shared: Shared, index: int) -> None:
        """Prepare the chain; start() makes its first request.

        Args:
            shared: What it shares with its item, which learns of its reservation.
            index: Its number.
        """
        self.index = index
        self.spec = ChainSpec(shared, index)
        self.reservation = Reservation(index, shared.plan, shared.gallery)
        shared.spending.reservations.append(self.reservation)
        self.alive = True
        self.started = False
        self.parked: list[Node] | None = None
        self.last: Node | None = None
        self.targets = 0
        self._shared = shared
        self._plan = shared.plan
        self._strategy = shared.plan.settings.strategy
        self._stopped = ""
        self._pending: list[Move] = []
        self._finishing: tuple[int, ...] = ()
        self._finishes = 0
        self._used: set[tuple[int, ...]] = set()
        self._nodes: weakref.WeakSet[Node] = weakref.WeakSet()
        self._pinned: list[Node] = []
        self._steps = self._passes()

    @property
    def phase(self) -> str:
        """What its pending request is for: "search" or "finish"."""
        return "search" if self.reservation.searches else "finish"

    def start(self) -> None:
        """Run to the first request."""
        self.started = True
        self._advance(None)

    def send(self, nodes: list[Node]) -> None:
        """Reply to the pending request and run to the next one."""
        self._advance(nodes)

    def stop(self, why: str, finish: bool) -> None:
        """Throw Stop into a searching strategy; then finish its winners, or be over.

        Args:
            why: The reason.
            finish: Whether to finish winners; otherwise the chain is over at once.

        Raises:
            RuntimeError: The strategy asked again.
        """
        self._stopped = why
        if self.phase == "search":
            self._pinned = [*self._nodes]
            try:
                self._pending = self._steps.throw(Stop(why))
            except StopIteration:
                self._end()
                return
            if self.phase == "search":
                raise RuntimeError(
                    f"the strategy {self._strategy.name} asked again after Stop({why!r})"
                )
        if not finish:
            self._steps.close()
            self._end()

    def request(self) -> Request:
        """Return the pending request with transitions and full keys filled in."""
        moves = [*map(self._plan.guided, self._pending)]
        head = (self.index, self.spec.pass_, _PHASE_CODE[self.phase])
        keys = [(*head, *move.key) for move in moves]
        return Request(self.index, self.spec.pass_, self.phase, moves, keys, self._finishing)

    def target_request(self, moves: list[Move], handle: int) -> Request:
        """Return a request that finishes a handle which reached the target."""
        moves = [*map(self._plan.guided, moves)]
        keys = [(self.index, self.spec.pass_, _PHASE_CODE["target"], *move.key) for move in moves]
        return Request(self.index, self.spec.pass_, "target", moves, keys, (handle,))

    def adopt(self, node: Node, phase: str, is_mix: bool, handle: int | None) -> None:
        """Take note of a new node of this chain that was paid for.

        Args:
            node: The node.
            phase: Its request's phase.
            is_mix: Whether it is a mix.
            handle: id of the handle that it comes from, in a finishing.
        """
        self._nodes.add(node)
        self.reservation.charge(node, phase, is_mix, handle)

    def last_rank(self) -> tuple[float, float]:
        """Return how good `last` is, for comparing chains."""
        return rank(self.last) if self.last is not None else (float("-inf"), 0.0)

    # ---- inside ----

    def _advance(self, nodes: list[Node] | None) -> None:
        live = [*self._nodes] if self.phase == "search" else []
        try:
            self._pending = next(self._steps) if nodes is None else self._steps.send(nodes)
        except StopIteration:
            self._pinned = live or self._pinned
            self._end()
            return
        if self.phase == "search":
            self._pinned = []
            self._check_pending()
        else:
            self._pinned = live or self._pinned

    def _end(self) -> None:
        self.alive = False
        self.reservation.reserve(0)
        self._pending = []

    def _check_pending(self) -> None:
        if not self._pending:
            raise RuntimeError(f"the strategy {self._strategy.name} asked for nothing")
        for move in self._pending:
            how = move.transition or self._plan.settings.transition
            if isinstance(how, Whole) and (move.parent is not None or move.to > 0.0):
                raise RuntimeError(
                    f"the strategy {self._strategy.name} asked the sampler {how.name} for a step "
                    f"to sigma {move.to:.4g}; it is run whole, so the only draw is Move(None, 0.0, "
                    "key): ask for that, or refuse such samplers in check()"
                )
            if move.key in self._used:
                raise RuntimeError(
                    f"the strategy {self._strategy.name} drew twice with the key {move.key} "
                    f"in pass {self.spec.pass_} of chain {self.index}; the two draws would be one"
                )
            self._used.add(move.key)
        self.spec.has_asked = True

    def _passes(self) -> Moves:
        while True:
            self._open_pass()
            winners = yield from self._search()
            # what kept a handle is free; a finishing freezes shares anew
            self.spec.share += self.reservation.end_search()
            yield from self._finish(winners)
            winners.clear()
            if self._stopped or not self.spec.has_asked or self.spec.share < self.spec.sample_cost:
                return
            self.spec.pass_ += 1

    def _open_pass(self) -> None:
        self.reservation.begin()
        self.spec.has_asked = False
        self._finishing = ()
        self._finishes = self.targets = 0
        self._used = set()
        self._nodes = weakref.WeakSet()

    def _search(self) -> Generator[list[Move], list[Node], list[Node]]:
        try:
            winners = yield from self._strategy.search(self.spec)
            return [*winners]
        except Stop:
            return [held] if (held := self.reservation.held) is not None else []

    def _finish(self, winners: list[Node]) -> Moves:
        """Finish what is not, best first, while it fits; the first one on a shorter way if need be.

        The whole way is reserved beforehand, so that no other chain can spend it.
        """
        gallery, held = self._shared.gallery, self.reservation.held
        done = gallery.by_handle
        waiting: list[Node] = [n for n in winners if n.sigma > 0.0 and n.id not in done]
        self.last = None if winners or gallery.best_node is not None else held
        winners.clear()
        self.reservation.held = held = None
        while waiting:
            sigma = waiting[0].sigma
            group, path = self._fitting([node for node in waiting if node.sigma == sigma])
            waiting = [node for node in waiting if node.sigma != sigma]
            if not group:
                return
            self._finishing = tuple(node.id for node in group)
            self.reservation.reserve((len(path) - 1) * self._plan.finish_step * len(group))
            self._finishes += 1
            yield from finishing(group, path, self._finishes)

    def _fitting(self, group: list[Node]) -> tuple[list[Node], tuple[float, ...]]:
        """Return which of these handles can be finished, and how."""
        spending, path = self._shared.spending, self._plan.finish_path(group[0].sigma)
        afford = spending.free_for(self.index)
        each = self._plan.finish_step
        if (len(path) - 1) * each > afford:
            if self._finishes:
                return [], path
            path = thin(path, afford // each)
        price = (len(path) - 1) * each
        fits = min(len(group), afford // price if price else len(group))
        return group[: spending.reward_calls_left(fits)], path
