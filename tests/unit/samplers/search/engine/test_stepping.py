"""A search is an iterator over its events; run() goes through what is left of them."""

import gc

import pytest
import torch
from toy import SIGMAS, Interrupted, MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.search import BestOfN, Budget, RolloverBudgetForcing, Trace
from flowsearch.samplers.search.account.events import Evaluated, Finished, Started, Stopped
from flowsearch.samplers.stepping.transition import ODE

RBF = RolloverBudgetForcing


def search(toy=None, strategy=None, **more):
    return make_search(
        toy or Toy(), strategy or RBF(draws=2), SIGMAS, ODE, Budget(80), seed=4, top_k=2,
        rows_per_call=3, checkpoint_seconds=0.0, **more,
    )  # fmt: skip


def results(outcome):
    return [
        (one.why, one.ledger.evaluations, [(w.node.id, w.scores) for w in one.winners])
        for one in outcome.items
    ]


def same(a, b):
    assert results(a) == results(b)
    for one, other in zip(a.items, b.items, strict=True):
        for left, right in zip(one.winners, other.winners, strict=True):
            assert torch.equal(left.state["x"], right.state["x"])


def facts(events):
    """Events without clocks."""
    found = []
    for event in events:
        row = {**event.to_json(), "kind": event.kind}
        for name in ("seconds", "score_seconds", "ledger"):
            row.pop(name, None)
        found.append(row)
    return found


@pytest.mark.parametrize("chains", [1, 2])
def test_stepping_is_running(chains):
    told = []
    expected = search(items=(0, 1), chains=chains, on_event=told.append).run()
    stepped = search(items=(0, 1), chains=chains)
    events = [*stepped]
    assert facts(events) == facts(told)
    assert isinstance(events[0], Started)
    assert sum(isinstance(event, Stopped) for event in events) == 2
    same(stepped.outcome(), expected)
    assert [*stepped] == []
    same(stepped.run(), expected)


def test_nothing_is_computed_before_it_is_asked_for():
    toy = Toy()
    stepped = search(toy)
    assert isinstance(next(stepped), Started)
    assert toy.calls == []
    assert isinstance(next(stepped), Evaluated)
    assert toy.calls == [1]


def test_a_loop_that_is_left_goes_on_in_the_next_and_in_run():
    expected = search(items=(0, 1)).run()
    stepped, trace = search(items=(0, 1)), Trace()
    for event in stepped:
        trace(event)
        if isinstance(event, Finished) and event.best:
            break
    best = stepped.best(event.item)
    assert best.node.id == event.id
    assert best.scores == event.scores
    assert stepped.outcome().items[0].why == ""
    for event in stepped:
        trace(event)
        if event.kind == "chosen":
            break
    same(stepped.run(), expected)
    assert len({row["id"] for row in trace.record["evaluated"]}) > 3


@pytest.mark.parametrize("count", [1, 2, 7, 20, 31])
def test_a_search_that_is_closed_keeps_the_best_and_is_gone_on_from(count):
    whole, expected = Trace(), search().run()
    search(on_event=whole).run()
    checkpoint, before = MemoryCheckpoint(), []
    stepped = search(checkpoint=checkpoint)
    for event in stepped:
        before.append(event)
        if len(before) == count:
            break
    kept, saves = stepped.best(0), checkpoint.saves
    stepped.close()
    assert checkpoint.saves == saves + (count > 1)  # at the first, nothing is there to keep
    assert stepped.best(0) is kept
    assert (kept is None) == (not any(isinstance(event, Finished) for event in before))
    assert [*stepped] == []
    stepped.close()
    toy = Toy()
    again = search(toy, checkpoint=checkpoint)
    same(again.run(), expected)
    spent = sum(event.evaluations for event in before if isinstance(event, Evaluated))
    assert toy.rows[0] <= expected.items[0].ledger.evaluations - spent


def test_an_interrupt_in_a_step_passes_and_the_best_is_still_there():
    toy, checkpoint = Toy(), MemoryCheckpoint()
    toy.fail_at = 14
    told = []
    stepped = search(toy, checkpoint=checkpoint, on_event=told.append)
    with pytest.raises(Interrupted):
        list(stepped)
    best = [event for event in told if isinstance(event, Finished) and event.best]
    assert stepped.best(0).node.id == best[-1].id
    with pytest.raises(StopIteration):
        next(stepped)
    same(search(checkpoint=checkpoint).run(), search().run())


def test_stop_between_two_steps_brings_what_is_finished():
    stepped = search(strategy=BestOfN())
    for event in stepped:
        if isinstance(event, Finished):
            stepped.stop("enough")
    outcome = stepped.outcome()
    assert outcome.items[0].why == "enough"
    assert outcome.items[0].ledger.evaluations < 80


def test_the_callers_gradients_are_left_alone():
    stepped, seen = search(), []

    class Watched(Toy):
        """Notes whether gradients are recorded while it computes."""

        def predict(self, items, state, sigma):
            seen.append(torch.is_grad_enabled())
            return super().predict(items, state, sigma)

    stepped = search(Watched())
    for _ in stepped:
        assert torch.is_grad_enabled()
    assert seen
    assert not any(seen)


def test_a_search_that_is_dropped_unfinished_writes_nothing_behind_anybodys_back():
    checkpoint = MemoryCheckpoint()
    stepped = search(checkpoint=checkpoint)
    for event in stepped:
        if isinstance(event, Finished):
            break
    saves = checkpoint.saves
    del stepped
    gc.collect()
    assert checkpoint.saves == saves
