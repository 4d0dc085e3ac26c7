"""How is one batch item searched? Plain sample, then rounds of its chains, until nothing fits.

rounds() is a generator of rounds: it yields the requests that were admitted and is sent their
results. It decides from the item's own ledger and scores only, so a row of a batch is searched as
it would be alone. Where a log exists (a checkpoint), rounds are answered from it, by the same code.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from ..account.events import Event, Stopped
from ..account.lineage import Lineages
from ..protocol import Move, Node, Request, Scores, State, Whole
from .baseline import Baseline
from .chain import Chain, finishing
from .execution import Result
from .ledger import Budget, Ledger
from .plan import Plan, thin
from .record import Diverged, Winner, alike, emit, entry_of, scores_of
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
        whole = move.transition or self.plan.transition
        return max(cost, self._whole_cost) if isinstance(whole, Whole) else cost

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
        share = self.left() // self.plan.chains
        short = self.budget.short_of(self.ledger) if share < self.sample_cost else "done"
        self.why = "target" if self._reached() else self.why or short
        self.outbox.append(Stopped(self.index, self.why, ids, self.ledger.to_json(), self.target))

    def _plain_sample(self) -> Generator[list[Request], list[list[Result]], None]:
        yield from self._baseline(self.baseline.sample(self.left, self.sample_cost), False)

    def _calibrate(self) -> Generator[list[Request], list[list[Result]], None]:
        """Measure a target that is said as a share of plain samples."""
        if self.budget.top is None or not self.plan.strategy.target_stop or self._reached():
            return
        kept = sum(chain.claim for chain in self._chains if chain.alive)
        given = (self.budget, self.ledger, kept, self.sample_cost)
        yield from self._baseline(self.baseline.calibrate(*given), True)

    def _baseline(
        self, steps: Generator[Request, list[Node], None], stops: bool
    ) -> Generator[list[Request], list[list[Result]], None]:
        """Carry out the baseline's requests; one that stops does so between pictures."""
        request = next(steps, None)
        while request is not None:
            finished = request.moves[0].to == 0.0
            entry, replies = yield from self._ask_logged([request])
            try:
                request = steps.send(replies.pop(-1))
            except StopIteration:
                return
            why = entry.setdefault("stop", self.stop_now) if stops else None
            if finished and stops and (why or self.script.told):
                self.why = self.why or why or ""
                steps.close()
                return

    def _play(self) -> Generator[list[Request], list[list[Result]], None]:
        """Play rounds until no chain has a request that fits."""
        self._launch()
        while requests := self._admit():
            self.baseline.nodes.clear()
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

    def _hit(self, entry: dict[str, Any], replies: dict[int, list[Node]]) -> Node | None:
        """Return the round's best handle that reached the target, and enter it into the log."""
        nodes = {node.id: node for nodes in replies.values() for node in nodes}
        if "hit" not in entry:
            entry["hit"] = self._find_hit(entry)
        return nodes[entry["hit"][1]] if entry["hit"] else None

    def _find_hit(self, entry: dict[str, Any]) -> list[int] | None:
        target = self.target
        if target is None or not self.plan.strategy.target_stop or self._reached():
            return None
        found: list[tuple[float, float, int, int]] = [
            (-row["score"]["value"], row["sigma"], row["id"], part["chain"])
            for part in entry["requests"]
            if part["phase"] == "search"
            for row in part["rows"]
            # a mix that reaches it is to be predicted first: jumped to, it would come out unhealed
            if row["sigma"] > 0.0 and row["donor"] is None
            if row["score"] and row["score"]["value"] >= target
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
        rest = self.left()
        rest -= sum(chain.claim for chain in live)
        for chain in live:
            chain.share = max(0, rest // len(live))
        if entry is not None:
            entry["shares"] = [[chain.index, chain.share] for chain in live]

    def _reached(self) -> bool:
        target = self.target
        if target is None or not self.plan.strategy.target_stop or not self.winners:
            return False
        return self.winners[0].scores.value >= target

    def _renew(self) -> bool:
        """Put the next budget in force once the log is told; return whether there is one."""
        if not self.script.follows:
            return False
        for entry in self.script.rest():
            self._absorb(entry, None)
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
        how: dict[str, Any] = row["transition"] or {}
        if "whole" in how and "sigmas" not in how:
            self._whole_cost = max(self._whole_cost, row["evaluations"])
        scores = result.scores if result is not None else scores_of(row)
        seen = None if scores is None else scores.thumbnail
        # a mix's prediction is not the model's: what leads to a picture begins after it
        mixed = row["donor"] is not None
        fresh = None if result is None or mixed else result.state
        self.lineages.add(node, None if mixed else row["from"], fresh, seen)
        best = False
        handle = part["of"][place] if part["of"] else None
        if sigma == 0.0 and scores is not None:
            best = self._finish(node, state, scores, handle, row, phase == "plain")
        if chain >= 0 and self._chains:
            if handle is not None and sigma == 0.0:
                self._chains[chain].finished(handle)
            self._chains[chain].adopt(node, phase, mixed)
        self.outbox.extend(
            emit(self.index, self.ledger.evaluations, part, row, scores, handle, best)
        )
        return node

    def _finish(
        self,
        node: Node,
        state: State | None,
        scores: Scores,
        handle: int | None,
        row: dict[str, Any],
        plain: bool,
    ) -> bool:
        """Enter a finished picture; return whether it is the best so far."""
        kept = replace(scores, thumbnail=None)
        winner = Winner(node, kept, state or {}, self.lineages.of(node))
        if not self.winners or kept.value >= self.winners[0].scores.value:
            self.best_node = node
        if plain:
            self.plain = winner
        if handle is not None:
            self.finished_handles[handle] = kept.value
        if "like" not in row:  # written down, because a log holds no tensors to compare
            row["like"] = self._like(winner)
        like = [w for w in self.winners if w.node.id in row["like"]]
        if all(kept.value > w.scores.value for w in like):
            ranked = [*(w for w in self.winners if w not in like), winner]
            ranked.sort(key=lambda w: (-w.scores.value, w.node.id))
            self.winners = ranked[: self.plan.top_k]
        return self.winners[0] is winner

    def _like(self, winner: Winner) -> list[int]:
        """Return the ids of the winners that are nearly the same picture; one needs no others."""
        if self.plan.top_k == 1:
            return []
        return [w.node.id for w in self.winners if alike(w.state["x"], winner.state["x"])]
