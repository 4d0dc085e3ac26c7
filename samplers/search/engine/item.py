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
from ..protocol import Move, Node, Request, State, Whole
from .baseline import Baseline
from .chain import Chain, finishing
from .execution import Result
from .ledger import Budget, Ledger
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
from .winner import Winner, alike

__all__ = ["ItemSearch"]

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
        plan: The run's settings.
        index: Batch item.
        ledger: What it has spent.
        winners: Finished pictures, best first, at most top_k.
        plain: The plain sample's finished picture.
        baseline: The plain samples, and the target that they stand for.
        best_node: The best finished node so far, of equals the newest, so that a search that
            goes on from it wanders over a plateau. (The first of equals is what comes out.)
        outbox: Events since the last boundary.
        lineages: Where its live candidates came from.
        script: Its log, for the checkpoint and from one.
        stop_now: Set from outside at a boundary: "seconds", or a person's reason.
        why: Why it ended; "" while it runs.
    """

    def __init__(self, plan: Plan, index: int, budget: Budget, log: bool = False) -> None:
        """Prepare the item.

        Args:
            plan: The run's settings.
            index: Batch item.
            budget: What it may spend.
            log: Whether rounds are kept for a checkpoint.
        """
        self.plan = plan
        self.index = index
        self.ledger = Ledger()
        self.winners: list[Winner] = []
        self.plain: Winner | None = None
        self.best_node: Node | None = None
        self.baseline = Baseline(plan)
        self.finished_handles: dict[int, float] = {}
        self.outbox: list[Event] = []
        self.script = Script(budget, log)
        self.stop_now: str | None = None
        self.why = ""
        self.tensors: WeakKeyDictionary[Node, State] = WeakKeyDictionary()
        self.lineages = Lineages()
        self._chains: list[Chain] = []
        self._ids = 0
        self._pledged: dict[int, int] = {}
        self._whole_cost = 0
        self._saved: dict[int, State] = {}

    def replay(self, segments: Sequence[SegmentRecord], saved: dict[int, State]) -> None:
        """Answer the first rounds from a log.

        Args:
            segments: The log of an earlier run with the same settings.
            saved: States of its live nodes, by id.
        """
        self.script.load(segments)
        self._saved = dict(saved)

    @property
    def budget(self) -> Budget:
        """The budget in force: while a log is replayed, the one it was played under."""
        return self.script.budget

    def state_of(self, node: Node) -> State:
        """Return a live node's tensors, one row; Diverged if the checkpoint does not hold it."""
        try:
            return self.tensors[node]
        except KeyError:
            raise Diverged(f"the checkpoint lacks candidate {node.id}") from None

    def free_for(self, chain: Chain) -> int:
        """Return the evaluations a chain may use without touching another chain's claim."""
        return max(0, self.left() - self._others(chain))

    def left(self) -> int:
        """Return the evaluations that are left of the item's budget."""
        return self.budget.left(self.ledger)

    @property
    def target(self) -> float | None:
        """The reward at which the item is done; the highest there is while it is measured."""
        if self.budget.top is None:
            return self.budget.target
        return self.budget.highest if self.baseline.target is None else self.baseline.target

    @property
    def sample_cost(self) -> int:
        """Evaluations of one plain sample; of a sampler run whole, the most one took so far."""
        return max(self.plan.sample_cost, self._whole_cost)

    def move_cost(self, move: Move) -> int:
        """Return the evaluations of a move."""
        cost = self.plan.move_cost(move)
        whole = move.transition or self.plan.settings.transition
        return max(cost, self._whole_cost) if isinstance(whole, Whole) else cost

    def reward_calls_left(self, most: int) -> int:
        """Return how many of `most` pictures may still be scored."""
        if self.budget.reward_calls is None:
            return most
        return max(0, min(most, self.budget.reward_calls - self.ledger.reward_calls))

    # ---- rounds ----

    def rounds(self) -> Rounds:
        """Yield rounds of admitted requests; be sent their results; return when it is over."""
        if self.plan.settings.strategy.plain:
            yield from self._plain_sample()
        while True:
            if self.baseline.falls_short(self.left()) and not self._reached():
                yield from self._plain_sample()
            yield from self._calibrate()
            if not self._reached():
                self._wake()
                yield from self._play()
            if not self.winners:
                yield from self._rescue()
            if not self._renew():
                break
        ids = tuple(winner.node.id for winner in self.winners)
        share = self.left() // self.plan.settings.chains
        short = self.budget.short_of(self.ledger) if share < self.sample_cost else "done"
        self.why = "target" if self._reached() else self.why or short
        self.outbox.append(Stopped(self.index, self.why, ids, self.ledger.to_json(), self.target))

    def _plain_sample(self) -> Rounds:
        yield from self._baseline(self.baseline.sample(self.left, self.sample_cost), False)

    def _calibrate(self) -> Rounds:
        """Measure a target that is said as a share of plain samples."""
        if (
            self.budget.top is None
            or not self.plan.settings.strategy.target_stop
            or self._reached()
        ):
            return
        kept = sum(chain.claim for chain in self._chains if chain.alive)
        given = (self.budget, self.ledger, kept, self.sample_cost)
        yield from self._baseline(self.baseline.calibrate(*given), True)

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
            if finished and stops and (why or self.script.told):
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
                path = self.plan.finish_path(handle.sigma)
                yield from self._target(chain, [handle], path)
                del handle
            self._deliver(played)

    def _launch(self) -> None:
        if not self._chains:
            self._chains = [Chain(self, index) for index in range(self.plan.settings.chains)]
            self._share(None)
        for chain in self._chains:
            if chain.alive and not chain.started and not self.script.waits(chain.index):
                chain.start()

    def _admit(self) -> list[Request]:
        """Return the requests that fit, in chain order; stop the chains whose do not."""
        admitted: list[Request] = []
        for chain in self._chains:
            while chain.alive and chain.started and chain.parked is None:
                request = chain.request()
                cost = sum(map(self.move_cost, request.moves))
                pledge = cost + chain.claim_with(request)
                why = self._refusal(chain, request, pledge, admitted)
                if not why:
                    admitted.append(request)
                    self._pledged[chain.index] = pledge
                    break
                self.why = self.why or why
                chain.stop(why, finish=request.phase == "search")
        return admitted

    def _refusal(
        self, chain: Chain, request: Request, pledge: int, admitted: Sequence[Request]
    ) -> str:
        """Return why a request does not fit; "" if it does, or if the log says that it did."""
        logged = self.script.asks_next()
        if logged is not None and logged.get(chain.index) == request.phase:
            return ""
        wanted = sum(move.score for asked in (*admitted, request) for move in asked.moves)
        wanted += len(self._chains) if request.phase == "search" else 0
        if self.reward_calls_left(wanted) < wanted:
            return "reward_calls"
        # what finishing takes is reserved; should rows cost more than any before, it still goes on
        costs = request.phase == "search" and pledge > self.free_for(chain)
        short = logged is not None or costs
        return self.budget.short_of(self.ledger) if short else ""

    def _others(self, chain: Chain) -> int:
        """Return the evaluations that the other chains need, this round's requests included."""
        return sum(
            self._pledged.get(other.index, other.claim)
            for other in self._chains
            if other is not chain
        )

    def _park(self, replies: Replies) -> None:
        """Keep the last logged reply of each chain for the new budget."""
        for chain in self._chains:
            if self.script.waits(chain.index) and chain.index in replies:
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
        left = [chain for chain in self._chains if chain.last is not None]
        rest = self.left()
        if any(chain.parked is not None for chain in self._chains):
            return
        if left:
            chain = max(left, key=Chain.last_rank)
            handle, chain.last = chain.last, None
            if handle is not None:
                path = thin(self.plan.finish_path(handle.sigma), rest)
                yield from self._target(chain, [handle], path)
        elif rest:
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
        if target is None or not self.plan.settings.strategy.target_stop or self._reached():
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
            cost = self.plan.finish_cost(sigma)
            if cost <= self.free_for(self._chains[index]) and self.reward_calls_left(1):
                return (index, number)
        return ()

    def _deliver(self, played: _Played) -> None:
        """Stop what is to be stopped, freeze the shares, send the replies."""
        replies = played.replies
        stop = self._stop_of(played)
        why = "target" if self._reached() else stop
        if why:
            self.why = self.why or why
            useful = why != "target" and (why == "seconds" or not self.winners)
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
                self._chains[index].share = share
            return
        live = [chain for chain in self._chains if chain.alive]
        free = self.left() - sum(chain.claim for chain in live)
        for chain in live:
            chain.share = max(0, free // len(live))
        if played is not None:
            shares = tuple((chain.index, chain.share) for chain in live)
            self._decide(played, replace(played.record, shares=shares))

    def _reached(self) -> bool:
        target = self.target
        if target is None or not self.plan.settings.strategy.target_stop or not self.winners:
            return False
        return self.winners[0].scores.value >= target

    def _renew(self) -> bool:
        """Put the next budget in force once the log is told; return whether there is one."""
        if not self.script.follows:
            return False
        for record in self.script.unread():
            self._absorb(record, None)
        self.script.open()
        self.why, self.baseline.target = "", None
        return True

    def _wake(self) -> None:
        """Let the chains that waited for this budget go on."""
        if not self._chains:
            return
        self._share(None)
        for chain in self._chains:
            if chain.parked is not None and not self.script.waits(chain.index):
                parked, chain.parked = chain.parked, None
                chain.send(parked)

    # ---- answers ----

    def _ask(
        self, requests: list[Request]
    ) -> Generator[list[Request], list[list[Result]], _Played]:
        """Play one round: from the log if there is one, else for real."""
        record, results = self.script.answer(requests, self.plan), None
        if record is None:
            results = yield requests
            record = record_round(requests, results, self._ids, self.plan)
        played = self._absorb(record, results)
        replies = {request.chain: played.replies[request.chain] for request in requests}
        return replace(played, replies=replies)

    def _absorb(self, record: RoundRecord, results: list[list[Result]] | None) -> _Played:
        """Charge a round, make its nodes, take note of what is finished; nothing here can fail."""
        replies: Replies = {}
        requests: list[RequestRecord] = []
        self._pledged.clear()
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
        node = Node(candidate.id, self.index, sigma, candidate.parent, candidate.score)
        self._ids = max(self._ids, node.id + 1)
        state = result.state if result is not None else self._saved.pop(node.id, None)
        if state is not None:
            self.tensors[node] = state
        self._charge(request.phase, candidate)
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
                candidate = replace(candidate, like=self._like(winner))
            best = self._finish(winner, candidate.like or (), handle, request.phase == "plain")
        if index >= 0 and self._chains:
            if handle is not None and sigma == 0.0:
                self._chains[index].finished(handle)
            self._chains[index].adopt(node, request.phase, candidate.is_mix)
        spent = self.ledger.evaluations
        self.outbox.extend(events_of(self.index, spent, request, candidate, scores, handle, best))
        return node, candidate

    def _charge(self, phase: str, candidate: CandidateRecord) -> None:
        """Enter a candidate into the ledger; remember what a whole run of the sampler takes."""
        scored = candidate.scores is not None
        evaluations = candidate.evaluations
        self.ledger.charge(phase, evaluations, candidate.rows, scored, candidate.seconds)
        how = candidate.transition or {}
        if "whole" in how and "sigmas" not in how:
            self._whole_cost = max(self._whole_cost, evaluations)

    def _finish(self, winner: Winner, like: Sequence[int], handle: int | None, plain: bool) -> bool:
        """Enter a finished picture; return whether it is the best so far."""
        value = winner.scores.value
        if not self.winners or value >= self.winners[0].scores.value:
            self.best_node = winner.node
        if plain:
            self.plain = winner
        if handle is not None:
            self.finished_handles[handle] = value
        same = [other for other in self.winners if other.node.id in like]
        if all(value > other.scores.value for other in same):
            ranked = [*(other for other in self.winners if other not in same), winner]
            ranked.sort(key=lambda one: (-one.scores.value, one.node.id))
            self.winners = ranked[: self.plan.settings.top_k]
        return self.winners[0] is winner

    def _like(self, winner: Winner) -> tuple[int, ...]:
        """Return the ids of the winners that are nearly the same picture; one needs no others."""
        if self.plan.settings.top_k == 1:
            return ()
        return tuple(w.node.id for w in self.winners if alike(w.state["x"], winner.state["x"]))
