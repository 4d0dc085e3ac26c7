"""How is one batch item searched? Plain sample, then rounds of its chains, until nothing fits.

rounds() is a generator of rounds: it yields the requests that were admitted and is sent their
results. It decides from the item's own ledger and scores only, so a row of a batch is searched as
it would be alone. Where a log exists (a checkpoint), rounds are answered from it, by the same code.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from .chain import Chain, finishing
from .events import Event, Stopped
from .execution import Result
from .ledger import Budget, Ledger
from .lineage import Lineages
from .plan import Plan, thin
from .protocol import Move, Node, Request, Scores, State, Whole
from .record import Diverged, Winner, emit, entry_of, scores_of
from .script import Script

__all__ = ["ItemSearch"]

Round = Generator[list[Request], list[list[Result]], "dict[int, list[Node]]"]


class ItemSearch:
    """The search of one item.

    Attributes:
        plan: The run's settings.
        index: Batch item.
        ledger: What it has spent.
        winners: Finished pictures, best first, at most top_k.
        plain: The plain sample's finished picture.
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
        self.plain_nodes: list[Node] = []
        self.finished_handles: set[int] = set()
        self.outbox: list[Event] = []
        self.script = Script(budget, log)
        self.stop_now: str | None = None
        self.why = ""
        self.tensors: WeakKeyDictionary[Node, State] = WeakKeyDictionary()
        self.lineages = Lineages()
        self._chains: list[Chain] = []
        self._ids = 0
        self._pledged: dict[int, int] = {}
        self._saved: dict[int, State] = {}

    def replay(self, segments: Sequence[dict[str, Any]], saved: dict[int, State]) -> None:
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
        return max(0, self.budget.evaluations - self.ledger.evaluations - self._others(chain))

    def reward_calls_left(self, most: int) -> int:
        """Return how many of `most` pictures may still be scored."""
        if self.budget.reward_calls is None:
            return most
        return max(0, min(most, self.budget.reward_calls - self.ledger.reward_calls))

    # ---- rounds ----

    def rounds(self) -> Generator[list[Request], list[list[Result]], None]:
        """Yield rounds of admitted requests; be sent their results; return when it is over."""
        if self.plan.strategy.plain:
            yield from self._plain_sample()
        while True:
            if not self._reached():
                yield from self._play()
            if not self.winners:
                yield from self._rescue()
            if not self._renew():
                break
        ids = tuple(winner.node.id for winner in self.winners)
        rest = self.budget.evaluations - self.ledger.evaluations
        share = rest // self.plan.chains
        self.why = self.why or ("budget" if share < self.plan.sample_cost else "done")
        self.why = "target" if self._reached() else self.why
        self.outbox.append(Stopped(self.index, self.why, ids, self.ledger.to_json()))

    def _plain_sample(self) -> Generator[list[Request], list[list[Result]], None]:
        """Take the plain sample of the seed to sigma 0 with the connected sampler."""
        sigmas, transition = self.plan.sigmas, self.plan.transition
        if isinstance(transition, Whole):
            moves = [Move(None, 0.0, (), transition)]
            reply = yield from self._ask([Request(-1, 0, "plain", moves, [()])])
            self.plain_nodes = reply[-1]
            return
        below = self.plan.strategy.score_below
        node = None
        for step, to in enumerate(sigmas):
            key = (step - 1,) if step else ()
            how = transition if step else None
            moves = [Move(node, to, key, how, score=to <= below)]
            reply = yield from self._ask([Request(-1, 0, "plain", moves, [key])])
            node = reply[-1][0]
            self.plain_nodes.append(node)

    def _play(self) -> Generator[list[Request], list[list[Result]], None]:
        """Play rounds until no chain has a request that fits."""
        self._launch()
        while requests := self._admit():
            self.plain_nodes.clear()
            entry, replies = yield from self._ask_logged(requests)
            del requests
            handle = self._hit(entry, replies)
            self._park(replies)
            if handle is not None:
                chain = self._chains[int(entry["hit"][0])]
                yield from self._target(chain, [handle], self.plan.finish_path(handle.sigma))
                del handle
            self._deliver(entry, replies)

    def _launch(self) -> None:
        if not self._chains:
            self._chains = [Chain(self, index) for index in range(self.plan.chains)]
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
                cost = sum(map(self.plan.move_cost, request.moves))
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
        return "budget" if logged is not None or pledge > self.free_for(chain) else ""

    def _others(self, chain: Chain) -> int:
        """Return the evaluations that the other chains need, this round's requests included."""
        return sum(
            self._pledged.get(other.index, other.claim)
            for other in self._chains
            if other is not chain
        )

    def _park(self, replies: dict[int, list[Node]]) -> None:
        """Keep the last logged reply of each chain for the new budget."""
        for chain in self._chains:
            if self.script.waits(chain.index) and chain.index in replies:
                chain.parked = replies.pop(chain.index)

    def _target(
        self, chain: Chain, handles: list[Node], path: Sequence[float]
    ) -> Generator[list[Request], list[list[Result]], None]:
        """Finish a handle at once: one that reached the target, or the last resort."""
        chain.targets += 1
        identity = handles[0].id
        steps = finishing(handles, path, chain.targets)
        moves = next(steps)
        while moves:
            reply = yield from self._ask([chain.target_request(moves, identity)])
            try:
                moves = steps.send(reply.pop(chain.index))
            except StopIteration:
                return

    def _rescue(self) -> Generator[list[Request], list[list[Result]], None]:
        """Where nothing was finished, finish the best handle there is, or take the plain sample."""
        left = [chain for chain in self._chains if chain.last is not None]
        rest = self.budget.evaluations - self.ledger.evaluations
        if any(chain.parked is not None for chain in self._chains):
            return
        if left:
            chain = max(left, key=Chain.last_rank)
            handle, chain.last = chain.last, None
            if handle is not None:
                path = thin(self.plan.finish_path(handle.sigma), rest)
                yield from self._target(chain, [handle], path)
        elif rest >= self.plan.sample_cost:
            yield from self._plain_sample()

    def _hit(self, entry: dict[str, Any], replies: dict[int, list[Node]]) -> Node | None:
        """Return the round's best handle that reached the target, and enter it into the log."""
        nodes = {node.id: node for nodes in replies.values() for node in nodes}
        if "hit" not in entry:
            entry["hit"] = self._find_hit(entry)
        return nodes[entry["hit"][1]] if entry["hit"] else None

    def _find_hit(self, entry: dict[str, Any]) -> list[int] | None:
        target = self.budget.target
        if target is None or not self.plan.strategy.target_stop or self._reached():
            return None
        found: list[tuple[float, float, int, int]] = [
            (-row["score"]["value"], row["sigma"], row["id"], part["chain"])
            for part in entry["requests"]
            if part["phase"] == "search"
            for row in part["rows"]
            if row["sigma"] > 0.0 and row["score"] and row["score"]["value"] >= target
        ]
        for _, sigma, number, index in sorted(found):
            cost = self.plan.finish_cost(sigma)
            if cost <= self.free_for(self._chains[index]) and self.reward_calls_left(1):
                return [index, number]
        return None

    def _deliver(self, entry: dict[str, Any], replies: dict[int, list[Node]]) -> None:
        """Stop what is to be stopped, freeze the shares, send the replies."""
        entry.setdefault("stop", self.stop_now)
        why = "target" if self._reached() else entry["stop"]
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
        self._share(entry)
        for chain in self._chains:
            if chain.index in replies:
                chain.send(replies.pop(chain.index))

    def _share(self, entry: dict[str, Any] | None) -> None:
        """Freeze what each live chain may still ask for."""
        live = [chain for chain in self._chains if chain.alive]
        if entry is not None and "shares" in entry:
            for index, share in entry["shares"]:
                self._chains[index].share = share
            return
        rest = self.budget.evaluations - self.ledger.evaluations
        rest -= sum(chain.claim for chain in live)
        for chain in live:
            chain.share = max(0, rest // len(live))
        if entry is not None:
            entry["shares"] = [[chain.index, chain.share] for chain in live]

    def _reached(self) -> bool:
        target = self.budget.target
        if target is None or not self.plan.strategy.target_stop or not self.winners:
            return False
        return self.winners[0].scores.value >= target

    def _renew(self) -> bool:
        """Put the next budget in force once the log is told, and wake the chains that go on."""
        if not self.script.follows:
            return False
        for entry in self.script.rest():
            self._absorb(entry, None)
        self.script.open()
        self.why = ""
        if self._chains:
            self._share(None)
        if not self._reached():
            for chain in self._chains:
                if chain.parked is not None and not self.script.waits(chain.index):
                    parked, chain.parked = chain.parked, None
                    chain.send(parked)
        return True

    # ---- answers ----

    def _ask(self, requests: list[Request]) -> Round:
        _, replies = yield from self._ask_logged(requests)
        return replies

    def _ask_logged(
        self, requests: list[Request]
    ) -> Generator[
        list[Request], list[list[Result]], "tuple[dict[str, Any], dict[int, list[Node]]]"
    ]:
        """Play one round: from the log if there is one, else for real."""
        entry, results = self.script.answer(requests, self.plan), None
        if entry is None:
            results = yield requests
            entry = entry_of(requests, results, self._ids, self.plan)
        replies = self._absorb(entry, results)
        return entry, {request.chain: replies[request.chain] for request in requests}

    def _absorb(
        self, entry: dict[str, Any], results: list[list[Result]] | None
    ) -> dict[int, list[Node]]:
        """Charge a round, make its nodes, take note of what is finished; nothing here can fail."""
        replies: dict[int, list[Node]] = {}
        self._pledged.clear()
        for number, part in enumerate(entry["requests"]):
            nodes: list[Node] = []
            for place, row in enumerate(part["rows"]):
                result = results[number][place] if results is not None else None
                nodes.append(self._node(part, place, row, result))
            replies[part["chain"]] = nodes
        self.script.write(entry)
        return replies

    def _node(
        self, part: dict[str, Any], place: int, row: dict[str, Any], result: Result | None
    ) -> Node:
        phase, sigma = part["phase"], row["sigma"]
        chain: int = part["chain"]
        score = row["score"]["value"] if row["score"] else None
        node = Node(row["id"], self.index, sigma, row["parent"], score)
        self._ids = max(self._ids, node.id + 1)
        state = result.state if result is not None else self._saved.pop(node.id, None)
        if state is not None:
            self.tensors[node] = state
        self.ledger.charge(
            phase, row["evaluations"], row["rows"], score is not None, row["seconds"]
        )
        scores = result.scores if result is not None else scores_of(row)
        seen = None if scores is None else scores.thumbnail
        fresh = None if result is None else result.state
        self.lineages.add(node, row["from"], fresh, seen)
        best = False
        handle = part["of"][place] if part["of"] else None
        if sigma == 0.0 and scores is not None:
            best = self._finish(node, state, scores, handle, phase == "plain")
        if chain >= 0 and self._chains:
            if handle is not None and sigma == 0.0:
                self._chains[chain].finished(handle)
            self._chains[chain].adopt(node, phase)
        self.outbox.extend(
            emit(self.index, self.ledger.evaluations, part, row, scores, handle, best)
        )
        return node

    def _finish(
        self, node: Node, state: State | None, scores: Scores, handle: int | None, plain: bool
    ) -> bool:
        """Enter a finished picture; return whether it is the best so far."""
        kept = replace(scores, thumbnail=None)
        winner = Winner(node, kept, state or {}, self.lineages.of(node))
        if not self.winners or kept.value >= self.winners[0].scores.value:
            self.best_node = node
        if plain:
            self.plain = winner
        if handle is not None:
            self.finished_handles.add(handle)
        self.winners = sorted([*self.winners, winner], key=lambda w: (-w.scores.value, w.node.id))[
            : self.plan.top_k
        ]
        return self.winners[0] is winner
