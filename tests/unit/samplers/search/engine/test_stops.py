"""When a search ends, and what comes out."""

import itertools
import weakref
from dataclasses import dataclass

import pytest
import torch
from toy import SIGMAS, MemoryCheckpoint, Scripted, Toy, make_search

from flowsearch.samplers.search import BestOfN, Budget, RolloverBudgetForcing, Trace, Whole
from flowsearch.samplers.search.protocol import Move, Stop
from flowsearch.samplers.stepping.transition import ODE, fixed_q

RBF = RolloverBudgetForcing


@dataclass(frozen=True)
class Script:
    """A strategy made of a function, for one rule at a time."""

    body: object
    name = "script"
    plain: bool = True
    finish_steps: int | None = None
    score_below: float = 0.0
    target_stop: bool = True

    def check(self, sigmas, transition):
        pass

    def to_json(self):
        return {"strategy": self.name}

    def search(self, spec):
        return (yield from self.body(spec)) or []


def run(strategy, budget, toy=None, **more):
    toy, trace = toy or Toy(), Trace()
    search = make_search(toy, strategy, SIGMAS, ODE, budget, on_event=trace, **more)
    return search.run(), trace, toy


def down(spec, to, draws=1, score=True):
    """Start, and go down to a sigma with several draws at the last step."""
    (node,) = yield [Move(None, 1.0, (0,), score=False)]
    index = spec.sigmas.index(to)
    for step in range(1, index):
        (node,) = yield [Move(node, spec.sigmas[step], (step,), ODE, score=False)]
    moves = [Move(node, to, (index, row), fixed_q(0.5), score) for row in range(draws)]
    del node
    return (yield moves)


# ---- the plain sample first ----


@pytest.mark.parametrize("strategy", [BestOfN(), RBF()])
def test_the_plain_sample_comes_first_and_is_kept(strategy):
    outcome, trace, _ = run(strategy, Budget(80))
    rows = trace.record["evaluated"]
    assert [row["phase"] for row in rows[:11]] == ["plain"] * 11
    assert [row["sigma"] for row in rows[:11]] == SIGMAS
    assert outcome.items[0].plain.node.id == rows[10]["id"]
    assert outcome.items[0].winners[0].scores.value >= outcome.items[0].plain.scores.value


def test_a_budget_of_exactly_one_picture_gives_it():
    outcome, _, toy = run(RBF(), Budget(10))
    assert toy.rows == {0: 10}
    assert outcome.items[0].winners[0].node is outcome.items[0].plain.node
    assert outcome.items[0].why == "budget"


def test_the_plain_samples_nodes_can_be_branched_from():
    seen = []

    def body(spec):
        plain = spec.plain()
        seen.append([node.sigma for node in plain])
        unused, moves = weakref.ref(plain[5]), [Move(plain[3], 0.6, (0,), fixed_q(0.8))]
        del plain
        (node,) = yield moves
        seen.append(spec.plain())
        seen.append(unused())
        return [node]

    outcome, trace, _ = run(Script(body), Budget(20))
    assert seen[0] == SIGMAS
    assert seen[1:] == [[], None]
    branch = next(row for row in trace.record["evaluated"] if row["phase"] == "search")
    assert (branch["parent"], branch["sigma"]) == (3, 0.6)
    assert outcome.items[0].ledger.phases == {"plain": 10, "search": 1, "finish": 5}


# ---- the reserve ----


@pytest.mark.parametrize("evaluations", range(11, 60))
@pytest.mark.parametrize("chains", [1, 2])
def test_a_search_stopped_by_the_budget_finishes_its_best(evaluations, chains):
    strategy = RBF(accept="never", draws=3, best_kept=False)
    outcome, trace, _ = run(strategy, Budget(evaluations), chains=chains)
    assert outcome.items[0].ledger.evaluations <= evaluations
    rows = trace.record["evaluated"]
    for chain in range(chains):
        scored = [r for r in rows if r["chain"] == chain and r["phase"] == "search"]
        if any(row["scores"] for row in scored):
            assert any(
                r["sigma"] == 0.0 and r["chain"] == chain and r["phase"] == "finish" for r in rows
            )


def test_the_held_handle_is_finished_in_full():
    """A strategy that spends all it can on one level has the whole way left for its best."""

    def body(spec):
        nodes = yield from down(spec, 0.7)
        best = nodes.pop()
        for step in itertools.count():
            (node,) = yield [Move(best, 0.6, (9, step), fixed_q(0.9))]
            best = max(best, node, key=lambda n: (n.score, -n.sigma)) if step == 0 else best
            del node

    outcome, trace, _ = run(Script(body), Budget(60))
    finish = [row["sigma"] for row in trace.record["evaluated"] if row["phase"] == "finish"]
    handle = next(r for r in trace.record["evaluated"] if r["phase"] == "finish")["parent"]
    start = next(r["sigma"] for r in trace.record["evaluated"] if r["id"] == handle)
    assert finish == [sigma for sigma in SIGMAS if sigma < start]
    assert outcome.items[0].ledger.evaluations in (58, 59, 60)


def test_remaining_subtracts_the_reserve():
    seen = []

    def body(spec):
        seen.append(spec.remaining())
        (node,) = yield from down(spec, 0.6)
        seen.append(spec.remaining())
        return [node]

    run(Script(body), Budget(100))
    assert seen[:2] == [90, 90 - 5 - 5]


def test_a_request_is_taken_whole_or_not_at_all():
    def body(spec):
        yield [Move(None, 1.0, (row,), score=False) for row in range(20)]

    outcome, _, toy = run(Script(body), Budget(38))
    assert toy.rows[0] == 10
    assert outcome.items[0].why == "budget"
    _, _, toy = run(Script(body), Budget(39))
    assert toy.rows[0] == 30


# ---- target ----


def test_a_target_reached_by_the_plain_sample_ends_the_run():
    outcome, _, toy = run(RBF(), Budget(100, target=-100.0))
    assert (toy.rows[0], outcome.items[0].why) == (10, "target")


def test_a_target_reached_finished_ends_the_run():
    outcome, _, toy = run(RBF(), Budget(400, target=-0.6))
    assert outcome.items[0].why == "target"
    assert outcome.items[0].winners[0].scores.value >= -0.6
    assert toy.rows[0] < 200


def test_the_target_can_be_switched_off():
    outcome, _, toy = run(RBF(target_stop=False), Budget(100, target=-100.0))
    assert toy.rows[0] > 80
    assert outcome.items[0].why == "budget"


def scripted_target(finished_scores):
    """Draw twice at 0.5; the second reaches the target 1.0 unfinished and finishes as scripted."""

    def body(spec):
        nodes = yield from down(spec, 0.5, draws=2)
        log.append("goes on")
        return (yield [Move(nodes[0], 0.4, (9, 0), ODE)])

    log = []
    rewards = [0.0, 0.5, 2.0, *finished_scores, *([0.1] * 50)]
    outcome, trace, _ = run(Script(body), Budget(26, target=1.0), Scripted(rewards))
    return outcome.items[0], trace, log


def test_a_target_reached_unfinished_finishes_that_handle():
    item, trace, log = scripted_target([1.5])
    rows = [row for row in trace.record["evaluated"] if row["phase"] == "target"]
    assert [row["sigma"] for row in rows] == [0.4, 0.3, 0.2, 0.1, 0.0]
    hit = next(row for row in trace.record["evaluated"] if row["id"] == rows[0]["parent"])
    assert hit["scores"]["value"] == 2.0
    assert (item.why, item.winners[0].scores.value) == ("target", 1.5)
    assert log == []  # stopped at the request that reached it


def test_a_target_that_falls_short_finished_goes_on():
    item, trace, log = scripted_target([0.7])
    assert log == ["goes on"]
    assert item.ledger.phases["target"] == 4
    assert item.why == "budget"
    assert item.winners[0].scores.value == 0.7
    assert trace.record["evaluated"][-1]["phase"] == "finish"


# ---- seconds, stop, Stop ----


class Clock:
    def __init__(self, tick):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


def test_seconds_end_the_search_and_winners_are_finished():
    strategy = RBF(pool=1, draws=50)
    outcome, trace, toy = run(strategy, Budget(1000, seconds=40.0), clock=Clock(1.0))
    assert outcome.items[0].why == "seconds"
    assert 20 < toy.rows[0] < 200
    assert trace.record["evaluated"][-1]["sigma"] == 0.0


def test_a_persons_stop_gives_the_best_at_once():
    toy = Toy()

    def listener(event):
        if toy.rows.get(0, 0) > 40:
            search.stop("enough")

    search = make_search(toy, RBF(), SIGMAS, ODE, Budget(1000), on_event=listener)
    outcome = search.run()
    assert outcome.items[0].why == "enough"
    assert toy.rows[0] < 50
    assert outcome.items[0].winners


def test_a_stop_is_kept_in_the_checkpoint():
    checkpoint = MemoryCheckpoint()
    first, _, _ = run(RBF(), Budget(500, seconds=30.0), clock=Clock(1.0), checkpoint=checkpoint)
    again, _, toy = run(RBF(), Budget(500, seconds=30.0), clock=Clock(0.0), checkpoint=checkpoint)
    assert toy.calls == []
    assert torch.equal(first.items[0].winners[0].state["x"], again.items[0].winners[0].state["x"])


def test_seconds_count_over_interrupts():
    budget, strategy = Budget(1000, seconds=60.0), RBF(draws=9)
    whole, _, toy = run(strategy, budget, clock=Clock(1.0), checkpoint=MemoryCheckpoint())
    checkpoint, broken = MemoryCheckpoint(), Toy()
    broken.fail_at, broken.failure = len(toy.calls) // 2, KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(strategy, budget, broken, clock=Clock(1.0), checkpoint=checkpoint)
    outcome, _, _ = run(strategy, budget, clock=Clock(1.0), checkpoint=checkpoint)
    assert outcome.items[0].why == whole.items[0].why == "seconds"
    spent, expected = outcome.items[0].ledger.evaluations, whole.items[0].ledger.evaluations
    assert 0.8 * expected < spent < 1.2 * expected


def test_a_strategy_may_return_winners_when_it_is_stopped():
    def body(spec):
        nodes = yield from down(spec, 0.8, draws=3)
        chosen = min(nodes, key=lambda node: node.score)
        del nodes
        try:
            for number in itertools.count():
                yield [Move(chosen, 0.7, (7, number), fixed_q(0.5))]
        except Stop as stop:
            reasons.append(stop.why)
        return [chosen]

    reasons = []
    _, trace, _ = run(Script(body), Budget(40))
    assert reasons == ["budget"]
    rows = trace.record["evaluated"]
    parent = next(row["parent"] for row in rows if row["phase"] == "finish")
    scores = [r["scores"]["value"] for r in rows if r["sigma"] == 0.8 and r["scores"]]
    assert next(r for r in rows if r["id"] == parent)["scores"]["value"] == min(scores)


def test_asking_again_after_a_stop_is_an_error():
    def body(spec):
        while True:
            try:
                yield [Move(None, 1.0, (spec.remaining(),), score=False)]
            except Stop:
                continue

    with pytest.raises(RuntimeError, match="asked again after Stop"):
        run(Script(body), Budget(30))


def test_drawing_twice_with_one_key_is_an_error():
    def body(spec):
        yield [Move(None, 1.0, (0,), score=False), Move(None, 1.0, (0,), score=False)]

    with pytest.raises(RuntimeError, match=r"drew twice with the key \(0,\)"):
        run(Script(body), Budget(50))


def test_an_empty_request_is_an_error():
    def body(spec):
        yield []

    with pytest.raises(RuntimeError, match="asked for nothing"):
        run(Script(body), Budget(50))


def test_a_strategy_that_asks_nothing_ends():
    def body(spec):
        yield from ()

    outcome, _, toy = run(Script(body), Budget(100))
    assert toy.rows[0] == 10
    assert outcome.items[0].why == "done"


def test_without_a_plain_sample_and_winners_the_plain_sample_is_taken():
    def body(spec):
        yield from ()

    outcome, _, toy = run(Script(body, plain=False), Budget(100))
    assert toy.rows[0] == 10
    assert outcome.items[0].winners


def test_the_first_of_equals_wins():
    outcome, _, _ = run(BestOfN(), Budget(60), Scripted([1.0] * 50), top_k=4)
    ids = [winner.node.id for winner in outcome.items[0].winners]
    assert ids == sorted(ids)
    assert outcome.items[0].winners[0].node is outcome.items[0].plain.node


def test_passes_repeat_while_a_picture_fits():
    outcome, trace, _ = run(RBF(draws=2), Budget(300))
    passes = {row["pass_"] for row in trace.record["evaluated"] if row["phase"] == "search"}
    assert len(passes) > 5
    assert 300 - outcome.items[0].ledger.evaluations < 10


def test_whole_samplers_are_refused_per_step_and_run_whole():
    with pytest.raises(ValueError, match="dpmpp_2m can only be run whole"):
        make_search(Toy(), RBF(), SIGMAS, Whole("dpmpp_2m"), Budget(100))
    toy = Toy()
    outcome = make_search(toy, BestOfN(), SIGMAS, Whole("dpmpp_2m"), Budget(100), top_k=3).run()
    assert len(outcome.items[0].winners) == 3
    values = [winner.scores.value for winner in outcome.items[0].winners]
    assert values == sorted(values, reverse=True)
