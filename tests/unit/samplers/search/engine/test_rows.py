"""A row is what it is alone: in a batch, in any chunking, after memory ran out."""

import pytest
import torch
from toy import SIGMAS, MemoryCheckpoint, Noise, Toy, make_search

from flowsearch.samplers.search import (
    BestOfN,
    Budget,
    EvolutionarySearch,
    RolloverBudgetForcing,
    Trace,
)
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.transition import ODE, fixed_q

RBF = RolloverBudgetForcing
STRATEGIES = [
    BestOfN(),
    RBF(draws=3),
    RBF(pool=3, width=3),
    EvolutionarySearch(),
    EvolutionarySearch(width=3),
]


def run(strategy, toy=None, items=(0,), transition=ODE, budget=80, **more):
    toy, trace = toy or Toy(), Trace()
    settings = {"seed": 11, "on_event": trace, "rows_per_call": 64, **more}
    outcome = make_search(
        toy, strategy, SIGMAS, transition, Budget(budget), items=items, **settings
    ).run()
    return outcome, trace, toy


def rows_of(trace, item):
    """What was decided and scored for an item."""
    return [
        (row["id"], row["parent"], row["sigma"], row["key"], row["scores"])
        for row in trace.record["evaluated"]
        if row["item"] == item
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("shares", "chains"), [(True, 2), (False, 1)])
def test_a_batch_row_is_searched_as_it_is_alone(strategy, shares, chains):
    together, trace, _ = run(strategy, Toy(shares_calls=shares), items=(0, 1, 2), chains=chains)
    for item in (0, 1, 2):
        alone, alone_trace, _ = run(strategy, items=(item,), chains=chains)
        assert rows_of(trace, item) == rows_of(alone_trace, item)
        one, other = together.items[item].winners[0], alone.items[0].winners[0]
        assert torch.equal(one.state["x"], other.state["x"])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rows_per_call", [1, 3])
def test_chunkings_agree(strategy, rows_per_call):
    expected, trace, toy = run(strategy, items=(0, 1))
    outcome, chunked, other = run(strategy, items=(0, 1), rows_per_call=rows_per_call)
    assert sorted(toy.drawn) == sorted(other.drawn)
    for item in (0, 1):
        assert rows_of(trace, item) == rows_of(chunked, item)
        one, two = expected.items[item].winners[0], outcome.items[item].winners[0]
        assert torch.equal(one.state["x"], two.state["x"])
    assert len(other.calls) >= len(toy.calls)
    assert max(other.calls) <= rows_per_call


def test_noise_does_not_depend_on_the_chunk():
    toy, keys = Toy(), [(0, 0, 0, 1, i) for i in range(6)]
    whole = Noise(toy, 3, [0] * 6, keys)["move"]
    parts = [Noise(toy, 3, [0], [key])["move"] for key in keys]
    assert torch.equal(whole, torch.cat(parts))
    assert len({tuple(row.tolist()) for row in whole}) == 6


def test_requests_of_one_sigma_share_calls():
    _, _, one = run(BestOfN(width=2), items=(0,))
    _, _, three = run(BestOfN(width=2), items=(0, 1, 2))
    assert len(one.calls) == len(three.calls)
    assert max(three.calls) == 6


@pytest.mark.parametrize("room", [1, 3])
def test_memory_halves_the_chunk_and_changes_nothing_else(room):
    expected, trace, _ = run(STRATEGIES[1], items=(0, 1))
    small = Toy()
    small.room = room
    outcome, chunked, _ = run(STRATEGIES[1], small, items=(0, 1))
    assert max(small.calls) <= room
    assert [rows for _, rows in outcome.chunks] == sorted(
        (rows for _, rows in outcome.chunks), reverse=True
    )
    assert len(outcome.chunks) > 1
    assert rows_of(trace, 1) == rows_of(chunked, 1)
    one, two = expected.items[1].winners[0], outcome.items[1].winners[0]
    assert torch.equal(one.state["x"], two.state["x"])


def test_a_row_that_does_not_fit_raises():
    toy = Toy()
    toy.room = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run(BestOfN(), toy)


def test_a_resumed_run_keeps_its_chunks():
    checkpoint, toy = MemoryCheckpoint(), Toy()
    toy.room, toy.fail_at, toy.failure = 2, 20, RuntimeError("no")
    with pytest.raises(RuntimeError, match="no"):
        run(STRATEGIES[1], toy, checkpoint=checkpoint)
    again = Toy()
    outcome, _, _ = run(STRATEGIES[1], again, checkpoint=checkpoint)
    assert max(again.calls) == 2
    assert outcome.chunks == [(0, 2)]


@pytest.mark.parametrize("transition", [ODE, fixed_q(0.7)])
def test_the_plain_sample_is_the_connected_samplers(transition):
    outcome, _, toy = run(BestOfN(), transition=transition, items=(2,), budget=12)
    start = Noise(toy, 11, [2], [()])["start"]
    expected = integrate(
        lambda x, sigma: toy.model([2], x, sigma),
        start,
        SIGMAS,
        transition,
        lambda i: Noise(toy, 11, [2], [(i,)])["move"],
    )
    assert torch.equal(outcome.items[0].plain.state["x"], expected)


def test_width_is_part_of_the_algorithm():
    narrow, trace_1, _ = run(RBF(width=1, draws=4))
    wide, trace_4, _ = run(RBF(width=4, draws=4))
    assert rows_of(trace_1, 0) != rows_of(trace_4, 0)
    assert narrow.items[0].ledger.evaluations <= wide.items[0].ledger.evaluations + 10


def test_seeds_and_chains_have_their_own_noise():
    _, _, toy = run(RBF(draws=3), items=(0, 1), chains=3, budget=150)
    assert len(set(toy.drawn)) == len(toy.drawn)
    _, _, other = run(RBF(draws=3), items=(0, 1), chains=3, budget=150, seed=12)
    assert not set(toy.drawn) & set(other.drawn)


class Coupled(Toy):
    """The mutant: noise that depends on the place in the chunk."""

    def noise(self, seed, items, keys):
        return Noise(self, seed, items, [(*key, place) for place, key in enumerate(keys)])


def test_noise_by_place_in_the_chunk_is_seen():
    _, trace, _ = run(STRATEGIES[1], Coupled())
    _, chunked, _ = run(STRATEGIES[1], Coupled(), rows_per_call=2)
    assert rows_of(trace, 0) != rows_of(chunked, 0)
