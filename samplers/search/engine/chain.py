"""What is one chain? Passes of the strategy, each followed by the finishing of its winners.

A chain always has one pending request, or it is over. While it searches it holds one handle (the
pass's best at the lowest sigma so far) and claims the evaluations that finish it; while it finishes
it claims what is left of the way. So whatever stops it, there is enough left to finish.
"""

import weakref
from collections.abc import Generator, Sequence
from dataclasses import replace
from random import Random
from typing import Protocol

from ...stepping.transition import ODE, Transition
from ..account.events import Chosen, Event
from ..protocol import Move, Node, Request, Stop, Whole
from .baseline import Baseline
from .plan import Plan, thin

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


class Owner(Protocol):
    """What a chain asks of its item."""

    plan: Plan
    index: int
    baseline: Baseline
    finished_handles: dict[int, float]
    outbox: list[Event]

    @property
    def best_node(self) -> Node | None:
        """The best finished node so far."""
        ...

    @property
    def sample_cost(self) -> int:
        """Evaluations of one plain sample."""
        ...

    def move_cost(self, move: Move) -> int:
        """Return the evaluations of a move."""
        ...

    def free_for(self, chain: "Chain") -> int:
        """Return the evaluations the chain may use without touching another chain's claim."""
        ...

    def reward_calls_left(self, most: int) -> int:
        """Return how many of `most` pictures may still be scored."""
        ...


class Chain:
    """One chain of an item; also the Spec its strategy sees.

    Attributes:
        index: Number of the chain within its item.
        alive: Whether it may still ask.
        started: Whether it has a pending request.
        phase: "search" or "finish".
        pass_: Passes completed.
        share: What remaining() answers; frozen at the end of each round.
        claim: Evaluations that the item must keep for it.
        last: The best handle of a pass that brought no winners, while nothing is finished.
        parked: A reply that waits for a new budget, when a checkpoint is continued.
    """

    def __init__(self, item: Owner, index: int) -> None:
        """Prepare the chain; start() makes its first request."""
        self._search_of = item
        self._plan = item.plan
        self._name = item.plan.settings.strategy.name
        self.item = item.index
        self.index = self.chain = index
        self.chains = item.plan.settings.chains
        self.sigmas = item.plan.settings.sigmas
        self.alive = True
        self.started = False
        self.phase = "search"
        self.pass_ = 0
        self.share = 0
        self.claim = 0
        self.parked: list[Node] | None = None
        self.last: Node | None = None
        self.targets = 0
        self._why = ""
        self._pending: list[Move] = []
        self._finishing: tuple[int, ...] = ()
        self._held: Node | None = None
        self._asked = 0
        self._finishes = 0
        self._used: set[tuple[int, ...]] = set()
        self._nodes: weakref.WeakSet[Node] = weakref.WeakSet()
        self._kept: list[Node] = []
        self._steps = self._passes()

    # ---- what the strategy sees (Spec) ----

    @property
    def transition(self) -> Transition | Whole:
        """The connected sampler's transition."""
        return self._plan.settings.transition

    @property
    def sample_cost(self) -> int:
        """Evaluations of one ordinary sample."""
        return self._search_of.sample_cost

    def remaining(self) -> int:
        """Return the chain's share, as frozen at the end of the last round."""
        return self.share

    def cost(self, moves: Sequence[Move]) -> int:
        """Return the evaluations of a request."""
        return sum(map(self._search_of.move_cost, moves))

    def path(self, sigma: float) -> tuple[float, ...]:
        """Return the sigmas that finish a node at sigma."""
        return self._plan.finish_path(sigma)

    def finish_cost(self, sigma: float) -> int:
        """Return the evaluations that finish a handle."""
        return self._plan.finish_cost(sigma)

    def finished_score(self, node: Node) -> float | None:
        """Return what finishing a node brought."""
        return self._search_of.finished_handles.get(node.id)

    def random(self, *key: int) -> Random:
        """Return the generator of this key."""
        return self._plan.random(self.item, self.chain, self.pass_, *key)

    def plain(self) -> list[Node]:
        """Return the plain sample's nodes before the first request."""
        return [*self._search_of.baseline.nodes] if self.pass_ == 0 and not self._asked else []

    def best(self) -> Node | None:
        """Return the item's best finished node."""
        return self._search_of.best_node

    @property
    def plain_scores(self) -> tuple[float, ...]:
        """The finished rewards of the item's plain samples."""
        return tuple(self._search_of.baseline.scores)

    def choose(
        self, nodes: Sequence[Node], why: str, weights: Sequence[float] | None = None
    ) -> None:
        """Report a decision."""
        ids = tuple(node.id for node in nodes)
        event = Chosen(self.item, self.index, ids, why, tuple(weights) if weights else None)
        self._search_of.outbox.append(event)

    # ---- what the item does with it ----

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
        self._why = why
        if self.phase == "search":
            self._kept = [*self._nodes]
            try:
                self._pending = self._steps.throw(Stop(why))
            except StopIteration:
                self._end()
                return
            if self.phase == "search":
                raise RuntimeError(f"the strategy {self._name} asked again after Stop({why!r})")
        if not finish:
            self._steps.close()
            self._end()

    def request(self) -> Request:
        """Return the pending request with transitions and full keys filled in."""
        moves = [self._resolved(move) for move in self._pending]
        head = (self.index, self.pass_, _PHASE_CODE[self.phase])
        keys = [(*head, *move.key) for move in moves]
        return Request(self.index, self.pass_, self.phase, moves, keys, self._finishing)

    def target_request(self, moves: list[Move], handle: int) -> Request:
        """Return a request that finishes a handle which reached the target."""
        keys = [(self.index, self.pass_, _PHASE_CODE["target"], *move.key) for move in moves]
        return Request(self.index, self.pass_, "target", moves, keys, (handle,))

    def claim_with(self, request: Request) -> int:
        """Return what must be kept for this chain after the request is paid."""
        plan = self._plan
        if request.phase != "search":
            return self.claim - sum(map(plan.move_cost, request.moves))
        if self._held is None:
            return max(plan.finish_cost(move.to) for move in request.moves)
        better = [
            move.to
            for move in request.moves
            if move.donor is None and self._holds(move.to, move.score)
        ]
        rows = max(map(plan.finish_cost, better), default=0)
        return max(self.claim, rows) if min(better, default=1.0) >= self._held.sigma else rows

    def adopt(self, node: Node, phase: str, mixed: bool) -> None:
        """Take note of a new node of this chain; hold the pass's best at its lowest sigma.

        A mix is not held: no prediction of the model stands behind it.
        """
        self._nodes.add(node)
        if phase == "finish" and self.phase == "finish":
            self.claim -= node.sigma > 0.0
        if phase != "search" or mixed or not self._holds(node.sigma, node.score is not None):
            return
        if self._held is None or _rank(node) > _rank(self._held):
            self._held = node
            self.claim = self._plan.finish_cost(node.sigma)

    def _holds(self, sigma: float, scored: bool) -> bool:
        """Whether such a node can be held: unfinished, and scored unless nothing is finished."""
        return sigma > 0.0 and (scored or self._search_of.best_node is None)

    def last_rank(self) -> tuple[float, float]:
        """Return how good `last` is, for comparing chains."""
        return _rank(self.last) if self.last is not None else (float("-inf"), 0.0)

    def finished(self, handle: int) -> None:
        """Drop the claim of a handle that has just been finished."""
        if self._held is not None and self._held.id == handle and self.phase == "search":
            self.claim = 0

    # ---- inside ----

    def _advance(self, nodes: list[Node] | None) -> None:
        live = [*self._nodes] if self.phase == "search" else []
        try:
            self._pending = next(self._steps) if nodes is None else self._steps.send(nodes)
        except StopIteration:
            self._kept = live or self._kept
            self._end()
            return
        if self.phase == "search":
            self._kept = []
            self._check_pending()
        else:
            self._kept = live or self._kept

    def _end(self) -> None:
        self.alive = False
        self.claim = 0
        self._pending = []

    def _check_pending(self) -> None:
        if not self._pending:
            raise RuntimeError(f"the strategy {self._name} asked for nothing")
        for move in self._pending:
            if move.key in self._used:
                raise RuntimeError(
                    f"the strategy {self._name} drew twice with the key {move.key} "
                    f"in pass {self.pass_} of chain {self.index}; the two draws would be one"
                )
            self._used.add(move.key)
        self._asked += 1

    def _resolved(self, move: Move) -> Move:
        own = self._plan.settings.transition
        if move.transition is not None or (move.parent is None and not isinstance(own, Whole)):
            return move
        return replace(move, transition=own)

    def _passes(self) -> Moves:
        while True:
            self._open_pass()
            winners = yield from self._search()
            self.phase = "finish"
            self.share += self.claim  # what kept a handle is free; a finishing freezes shares anew
            self.claim = 0
            yield from self._finish(winners)
            winners.clear()
            if self._why or not self._asked or self.share < self.sample_cost:
                return
            self.pass_ += 1

    def _open_pass(self) -> None:
        self.phase = "search"
        self._held = None
        self._finishing = ()
        self._asked = self._finishes = self.targets = 0
        self.claim = 0
        self._used = set()
        self._nodes = weakref.WeakSet()

    def _search(self) -> Generator[list[Move], list[Node], list[Node]]:
        try:
            winners = yield from self._plan.settings.strategy.search(self)
            return [*winners]
        except Stop:
            return [self._held] if self._held is not None else []

    def _finish(self, winners: list[Node]) -> Moves:
        """Finish what is not, best first, while it fits; the first one on a shorter way if need be.

        The claim is raised to the whole way beforehand, so that no other chain can spend it.
        """
        done = self._search_of.finished_handles
        waiting: list[Node] = [n for n in winners if n.sigma > 0.0 and n.id not in done]
        self.last = None if winners or self._search_of.best_node is not None else self._held
        winners.clear()
        self._held = None
        while waiting:
            sigma = waiting[0].sigma
            group, path = self._fitting([node for node in waiting if node.sigma == sigma])
            waiting = [node for node in waiting if node.sigma != sigma]
            if not group:
                return
            self._finishing = tuple(node.id for node in group)
            self.claim = (len(path) - 1) * len(group)
            self._finishes += 1
            yield from finishing(group, path, self._finishes)

    def _fitting(self, group: list[Node]) -> tuple[list[Node], tuple[float, ...]]:
        """Return which of these handles can be finished, and how."""
        path, afford = self._plan.finish_path(group[0].sigma), self._search_of.free_for(self)
        if len(path) - 1 > afford:
            if self._finishes:
                return [], path
            path = thin(path, afford)
        steps = len(path) - 1
        fits = min(len(group), afford // steps if steps else len(group))
        return group[: self._search_of.reward_calls_left(fits)], path


def _rank(node: Node) -> tuple[float, float]:
    """Rank by lower sigma, then by score: early scores mean less, and take more to finish."""
    return (-node.sigma, float("-inf") if node.score is None else node.score)
