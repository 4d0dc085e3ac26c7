"""How is one batch item searched? Plain sample, then rounds of its chains, until nothing fits.

rounds() is a generator of rounds: it yields the requests that were admitted and is sent their
results. It decides from the item's own ledger and scores only, so a row of a batch is searched as
it would be alone. Where a log exists (a checkpoint), rounds are answered from it, by the same code.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from ..account.events import Event, Stopped
from ..account.lineage import Lineages
from ..protocol import Node, Request, State
from .baseline import Baseline
from .chain import Chain, finishing
from .execution import Result
from .plan import Plan, thin
from .record import (
    CandidateRecord,
    Diverged,
    RequestRecord,
    RoundRecord,
    SegmentRecord,
    events_of,
    record_round,
)
from .script import Script
from .spec import Shared
from .spending import Spending
from .winner import Gallery, Winner

__all__ = ["ItemSearch", "Rounds"]

Rounds = Generator[list[Request], list[list[Result]], None]
Replies = dict[int, list[Node]]
"""Chain -> the nodes that answer its request."""


@dataclass
class _Played:
    """A round that was answered; its record is replaced whenever something is decided."""

    record: RoundRecord
    place: int
    replies: Replies


class ItemSearch:
    """The search of one item.

    Attributes:
        index: Batch item.
        spending: What it has spent, and may still spend.
        gallery: Its finished pictures.
        baseline: The plain samples, and the target that they stand for.
        lineages: Where its live candidates came from.
        tensors: The states of its live candidates.
        script: Its log, for the checkpoint and from one.
        stop_now: Set from outside at a boundary: "seconds", or a person's reason.
        why: Why it ended; "" while it runs.
    """

    def __init__(self, plan: Plan, index: int, log: bool = False) -> None:
        """Prepare the item.

        Args:
            plan: The run's settings.
            index: Batch item.
            log: Whether rounds are kept for a checkpoint.
        """
        budget = plan.settings.budget
        self.index = index
        self.spending = Spending(plan, budget)
        self.gallery = Gallery(plan.settings.top_k)
        self.baseline = Baseline(plan)
        self.lineages = Lineages()
        self.tensors: WeakKeyDictionary[Node, State] = WeakKeyDictionary()
        self.script = Script(budget, log)
        self.stop_now: str | None = None
        self.why = ""
        self._plan = plan
        self._strategy = plan.settings.strategy
        self._shared = Shared(index, plan, self.spending, self.gallery, self.baseline)
        self._chains: list[Chain] = []
        self._ids = 0
        self._saved: dict[int, State] = {}

    def replay(self, segments: Sequence[SegmentRecord], saved: dict[int, State]) -> None:
        """Answer the first rounds from a log.

        Args:
            segments: The log of an earlier run with the same settings.
            saved: States of its live nodes, by id.
        """
        self.script.load(segments)
        self.spending.budget = self.script.budget
        self._saved = dict(saved)

    def take_events(self) -> list[Event]:
        """Return the events since the last boundary, once."""
        events = [*self._shared.outbox]
        self._shared.outbox.clear()
        return events

    def state_of(self, node: Node) -> State:
        """Return a live node's tensors, one row; Diverged if the checkpoint does not hold it."""
        try:
            return self.tensors[node]
        except KeyError:
            raise Diverged(f"the checkpoint lacks candidate {node.id}") from None

    @property
    def target(self) -> float | None:
        """The reward at which the item is done; the highest there is while it is measured."""
        budget = self.spending.budget
        if budget.top is None:
            return budget.target
        return budget.highest if self.baseline.target is None else self.baseline.target

    # ---- rounds ----

    def rounds(self) -> Rounds:
        """Yield rounds of admitted requests; be sent their results; return when it is over."""
        if self._strategy.plain:
            yield from self._plain_sample()
        while True:
            if self.baseline.falls_short(self.spending.left()) and not self._reached():
                yield from self._plain_sample()
            yield from self._calibrate()
            if not self._reached():
                self._wake()
                yield from self._play()
            if not self.gallery.winners:
                yield from self._rescue()
            if not self._renew():
                break
        ids = tuple(winner.node.id for winner in self.gallery.winners)
        spending = self.spending
        share = spending.left() // self._plan.settings.chains
        short = spending.short_of() if share < spending.sample_cost else "done"
        self.why = "target" if self._reached() else self.why or short
        ledger = spending.ledger.to_json()
        self._shared.outbox.append(Stopped(self.index, self.why, ids, ledger, self.target))

    def _plain_sample(self) -> Rounds:
        steps = self.baseline.sample(
            self.spending.left, self.spending.plain_cost, self.spending.reward_calls_left
        )
        yield from self._baseline(steps, False)

    def _calibrate(self) -> Rounds:
        """Measure a target that is said as a share of plain samples."""
        spending = self.spending
        if spending.budget.top is None or not self._strategy.target_stop or self._reached():
            return
        kept, price = spending.reserved(), spending.plain_cost
        steps = self.baseline.calibrate(spending.budget, spending.ledger, kept, price)
        yield from self._baseline(steps, True)

    def _baseline(self, steps: Generator[Request, list[Node], None], stops: bool) -> Rounds:
        """Carry out the baseline's requests; one that stops does so between pictures."""
        request = next(steps, None)
        while request is not None:
            finished = request.moves[0].to == 0.0
            played = yield from self._ask([request])
            try:
                request = steps.send(played.replies.pop(-1))
            except StopIteration:
                return
            why = self._stop_of(played) if stops else ""
            if finished and stops and (why or self.script.is_at_its_end):
                self.why = self.why or why
                steps.close()
                return

    def _play(self) -> Rounds:
        """Play rounds until no chain has a request that fits."""
        self._launch()
        while requests := self._admit():
            self.baseline.nodes.clear()
            played = yield from self._ask(requests)
            del requests
            hit = self._hit(played)
            self._park(played.replies)
            if hit is not None:
                chain, handle = hit
                del hit
                path = self._plan.finish_path(handle.sigma)
                yield from self._target(chain, [handle], path)
                del handle
            self._deliver(played)

    def _launch(self) -> None:
        if not self._chains:
            count = self._plan.settings.chains
            self._chains = [Chain(self._shared, index) for index in range(count)]
            self._share(None)
        for chain in self._chains:
            if chain.alive and not chain.started and not self.script.is_waiting(chain.index):
                chain.start()

    def _admit(self) -> list[Request]:
        """Return the requests that fit, in chain order; stop the chains whose do not."""
        admitted: list[Request] = []
        for chain in self._chains:
            while chain.alive and chain.started and chain.parked is None:
                request = chain.request()
                cost = sum(map(self.spending.move_cost, request.moves))
                price = chain.reservation.price(request, cost)
                why = self._refusal(chain, request, price, admitted)
                if not why:
                    admitted.append(request)
                    chain.reservation.admit(price)
                    break
                self.why = self.why or why
                chain.stop(why, finish=request.phase == "search")
        return admitted

    def _refusal(
        self, chain: Chain, request: Request, price: int, admitted: Sequence[Request]
    ) -> str:
        """Return why a request does not fit; "" if it does, or if the log says that it did."""
        logged = self.script.next_phases()
        if logged is not None and logged.get(chain.index) == request.phase:
            return ""
        scores = sum(move.score for asked in (*admitted, request) for move in asked.moves)
        scores += len(self._chains) if request.phase == "search" else 0
        if self.spending.reward_calls_left(scores) < scores:
            return "reward_calls"
        # what finishing takes is reserved; should rows cost more than any before, it still goes on
        too_dear = request.phase == "search" and price > self.spending.free_for(chain.index)
        return self.spending.short_of() if logged is not None or too_dear else ""

    def _park(self, replies: Replies) -> None:
        """Keep the last logged reply of each chain for the new budget."""
        for chain in self._chains:
            if self.script.is_waiting(chain.index) and chain.index in replies:
                chain.parked = replies.pop(chain.index)

    def _target(self, chain: Chain, handles: list[Node], path: Sequence[float]) -> Rounds:
        """Finish a handle at once: one that reached the target, or the last resort."""
        chain.targets += 1
        identity = handles[0].id
        steps = finishing(handles, path, chain.targets)
        moves = next(steps)
        while moves:
            played = yield from self._ask([chain.target_request(moves, identity)])
            try:
                moves = steps.send(played.replies.pop(chain.index))
            except StopIteration:
                return

    def _rescue(self) -> Rounds:
        """Where nothing was finished, finish the best handle there is, or take the plain sample."""
        holding = [chain for chain in self._chains if chain.last is not None]
        left = self.spending.left()
        if any(chain.parked is not None for chain in self._chains):
            return
        if holding:
            chain = max(holding, key=Chain.last_rank)
            handle, chain.last = chain.last, None
            if handle is not None:
                afford = left // self._plan.finish_step
                path = thin(self._plan.finish_path(handle.sigma), afford)
                yield from self._target(chain, [handle], path)
        elif left:
            yield from self._plain_sample()

    def _decide(self, played: _Played, record: RoundRecord) -> None:
        """Enter into the log what was decided about a round."""
        played.record = record
        self.script.amend(played.place, record)

    def _stop_of(self, played: _Played) -> str:
        """Return why a round is the last one; decided once, "" if it is not."""
        if played.record.stop is None:
            self._decide(played, replace(played.record, stop=self.stop_now or ""))
        return played.record.stop or ""

    def _hit(self, played: _Played) -> tuple[Chain, Node] | None:
        """Return the round's best handle that reached the target; decided once."""
        if played.record.hit is None:
            self._decide(played, replace(played.record, hit=self._find_hit(played.record)))
        if not played.record.hit:
            return None
        index, number = played.record.hit
        nodes = {node.id: node for nodes in played.replies.values() for node in nodes}
        return self._chains[index], nodes[number]

    def _find_hit(self, record: RoundRecord) -> tuple[int, ...]:
        target = self.target
        if target is None or not self._strategy.target_stop or self._reached():
            return ()
        found: list[tuple[float, float, int, int]] = [
            (-score, candidate.sigma, candidate.id, request.chain)
            for request in record.requests
            if request.phase == "search"
            for candidate in request.candidates
            # a mix that reaches it is to be predicted first: jumped to, it would come out unhealed
            if candidate.sigma > 0.0 and not candidate.is_mix
            if (score := candidate.score) is not None and score >= target
        ]
        for _, sigma, number, index in sorted(found):
            cost = self._plan.finish_cost(sigma)
            if cost <= self.spending.free_for(index) and self.spending.reward_calls_left(1):
                return (index, number)
        return ()

    def _deliver(self, played: _Played) -> None:
        """Stop what is to be stopped, freeze the shares, send the replies."""
        replies = played.replies
        stop = self._stop_of(played)
        why = "target" if self._reached() else stop
        if why:
            self.why = self.why or why
            useful = why != "target" and (why == "seconds" or not self.gallery.winners)
            for chain in self._chains:
                if chain.alive and chain.parked is None and chain.started:
                    if chain.phase == "search" or not useful:
                        chain.stop(why, finish=useful)
                    elif chain.index in replies:
                        chain.send(replies.pop(chain.index))
            return
        self._share(played)
        for chain in self._chains:
            if chain.index in replies:
                chain.send(replies.pop(chain.index))

    def _share(self, played: _Played | None) -> None:
        """Freeze what each live chain may still ask for."""
        if played is not None and played.record.shares is not None:
            for index, share in played.record.shares:
                self._chains[index].spec.share = share
            return
        live = [chain for chain in self._chains if chain.alive]
        free = self.spending.left() - self.spending.reserved()
        for chain in live:
            chain.spec.share = max(0, free // len(live))
        if played is not None:
            shares = tuple((chain.index, chain.spec.share) for chain in live)
            self._decide(played, replace(played.record, shares=shares))

    def _reached(self) -> bool:
        target = self.target
        if target is None or not self._strategy.target_stop or not self.gallery.winners:
            return False
        return self.gallery.winners[0].scores.value >= target

    def _renew(self) -> bool:
        """Put the next budget in force once the log is told; return whether there is one."""
        if not self.script.has_next_budget:
            return False
        for record in self.script.unread():
            self._absorb(record, None)
        self.script.open()
        self.spending.budget = self.script.budget
        self.why, self.baseline.target = "", None
        return True

    def _wake(self) -> None:
        """Let the chains that waited for this budget go on."""
        if not self._chains:
            return
        self._share(None)
        for chain in self._chains:
            if chain.parked is not None and not self.script.is_waiting(chain.index):
                parked, chain.parked = chain.parked, None
                chain.send(parked)

    # ---- answers ----

    def _ask(
        self, requests: list[Request]
    ) -> Generator[list[Request], list[list[Result]], _Played]:
        """Play one round: from the log if there is one, else for real."""
        record, results = self.script.answer(requests, self._plan), None
        if record is None:
            results = yield requests
            record = record_round(requests, results, self._ids, self._plan)
        played = self._absorb(record, results)
        replies = {request.chain: played.replies[request.chain] for request in requests}
        return replace(played, replies=replies)

    def _absorb(self, record: RoundRecord, results: list[list[Result]] | None) -> _Played:
        """Charge a round, make its nodes, take note of what is finished; nothing here can fail."""
        replies: Replies = {}
        requests: list[RequestRecord] = []
        for number, request in enumerate(record.requests):
            nodes: list[Node] = []
            candidates: list[CandidateRecord] = []
            for place, candidate in enumerate(request.candidates):
                result = results[number][place] if results is not None else None
                node, known = self._node(request, place, candidate, result)
                nodes.append(node)
                candidates.append(known)
            replies[request.chain] = nodes
            requests.append(replace(request, candidates=tuple(candidates)))
        record = replace(record, requests=tuple(requests))
        return _Played(record, self.script.write(record), replies)

    def _node(
        self, request: RequestRecord, place: int, candidate: CandidateRecord, result: Result | None
    ) -> tuple[Node, CandidateRecord]:
        """Return a candidate's node, and its record with what was found out of it."""
        sigma, index = candidate.sigma, request.chain
        node = Node(
            candidate.id,
            self.index,
            sigma,
            candidate.parent,
            candidate.score,
            candidate.log_weight,
        )
        self._ids = max(self._ids, node.id + 1)
        state = result.state if result is not None else self._saved.pop(node.id, None)
        if state is not None:
            self.tensors[node] = state
        self.spending.charge(request.phase, candidate)
        scores = result.scores if result is not None else candidate.scores
        # a mix's prediction is not the model's: what leads to a picture begins after it
        self.lineages.add(
            node,
            None if candidate.is_mix else candidate.sigma_from,
            None if result is None or candidate.is_mix else result.state,
            None if scores is None else scores.thumbnail,
        )
        handle = request.finishes[place] if request.finishes else None
        best = False
        if sigma == 0.0 and candidate.scores is not None:
            winner = Winner(node, candidate.scores, state or {}, self.lineages.of(node))
            if candidate.like is None:
                candidate = replace(candidate, like=self.gallery.like(winner))
            plain = request.phase == "plain"
            best = self.gallery.enter(winner, candidate.like or (), handle, plain)
        if index >= 0 and self._chains:
            self._chains[index].adopt(node, request.phase, candidate.is_mix, handle)
        spent = self.spending.ledger.evaluations
        self._shared.outbox.extend(
            events_of(self.index, spent, request, candidate, scores, handle, best)
        )
        return node, candidate
