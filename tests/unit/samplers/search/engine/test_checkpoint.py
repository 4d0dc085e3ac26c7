"""A checkpoint that is not as it was written means a fresh start that says so, whatever it is."""

import json
import logging

import pytest
import torch
from toy import MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.search import (
    Budget,
    EvolutionarySearch,
    RolloverBudgetForcing,
    SearchSettings,
    Unreadable,
)
from flowsearch.samplers.search.engine.baseline import Baseline
from flowsearch.samplers.search.engine.chain import Chain
from flowsearch.samplers.search.engine.plan import Plan
from flowsearch.samplers.search.engine.spec import Shared
from flowsearch.samplers.search.engine.spending import Spending
from flowsearch.samplers.search.engine.winner import Gallery
from flowsearch.samplers.search.protocol import Move, Node
from flowsearch.samplers.stepping.transition import ODE

STEPS = [1.0, 0.9, 0.7, 0.5, 0.3, 0.15, 0.0]


def search(checkpoint=None, evaluations=40, toy=None, strategy=None, seconds=0.0):
    return make_search(
        toy or Toy(), strategy or RolloverBudgetForcing(draws=2), STEPS, ODE, Budget(evaluations),
        seed=5, rows_per_call=3, top_k=2, checkpoint=checkpoint, checkpoint_seconds=seconds,
    )  # fmt: skip


class Changed(MemoryCheckpoint):
    """A checkpoint that somebody changes before it is read."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def load(self):
        found = super().load()
        return None if found is None else self.change(*found)


def row(data):
    """The first candidate of the log."""
    return data["logs"][0][0]["rounds"][0]["requests"][0]["rows"][0]


def put(holder, key, value):
    holder[key] = value


def drop(holder, key):
    del holder[key]


def nan(tensors, _):
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))


def lose(tensors, _):
    tensors.clear()


def reshape(tensors, _):
    name = next(name for name in tensors if name.endswith("/x"))
    tensors[name] = torch.zeros(1, 9)


WRONG = {
    "tensors that are not finite": nan,
    "no tensors": lose,
    "one tensor of another shape": reshape,
    "tensors of no candidate": lambda t, _: put(t, "what", torch.zeros(1)),
    "no settings": lambda _, d: drop(d, "settings"),
    "settings that are a list": lambda _, d: put(d, "settings", [1]),
    "no budget": lambda _, d: drop(d, "budget"),
    "a budget of words": lambda _, d: put(d["budget"], "evaluations", "many"),
    "a budget with a key too many": lambda _, d: put(d["budget"], "cost", 3),
    "no rows in a call": lambda _, d: put(d, "rows_per_call", 0),
    "a time that is none": lambda _, d: put(d, "elapsed", float("nan")),
    "no logs": lambda _, d: put(d, "logs", []),
    "an empty log": lambda _, d: put(d, "logs", [[]]),
    "a log that is a number": lambda _, d: put(d, "logs", [3]),
    "rounds of nothing": lambda _, d: put(d["logs"][0][0], "rounds", [None]),
    "a round without requests": lambda _, d: drop(d["logs"][0][0]["rounds"][0], "requests"),
    "another order": lambda _, d: d["logs"][0][0]["rounds"].reverse(),
    "a candidate without a number": lambda _, d: drop(row(d), "id"),
    "an unknown parent": lambda _, d: put(row(d), "parent", 10**9),
    "evaluations of words": lambda _, d: put(row(d), "evaluations", "one"),
    "shares of chains that are not there": lambda _, d: [
        put(entry, "shares", [[7, 7]]) for entry in d["logs"][0][0]["rounds"] if "shares" in entry
    ],
    "lineages of another kind": lambda _, d: put(d, "lineages", [[1, 2]]),
    "too many lineages": lambda _, d: put(d, "lineages", [None] * 3),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_checkpoint_means_a_fresh_start_that_says_so(name):
    def change(tensors, data):
        WRONG[name](tensors, data)
        return tensors, data

    fresh = search().run()
    checkpoint = Changed(change)
    search(checkpoint, evaluations=25).run()
    outcome = search(checkpoint).run()
    assert sum("afresh" in note for note in outcome.notes) == 1, outcome.notes
    assert not any("another budget" in note for note in outcome.notes)
    assert [w.scores for w in outcome.items[0].winners] == [
        w.scores for w in fresh.items[0].winners
    ]
    assert torch.equal(outcome.items[0].winners[0].state["x"], fresh.items[0].winners[0].state["x"])
    assert outcome.items[0].ledger.evaluations == fresh.items[0].ledger.evaluations


def test_what_cannot_be_read_at_all_too():
    def change(*_):
        raise Unreadable("it is torn")

    checkpoint = Changed(change)
    search(checkpoint).run()
    outcome = search(checkpoint).run()
    assert outcome.notes == [
        "the checkpoint is not used, because it is torn; the search starts afresh"
    ]


def test_an_error_of_the_run_itself_is_no_checkpoints_fault():
    class Broken(Toy):
        """Cannot tell what a move costs, once the log is told."""

        def start(self, *given):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        search(MemoryCheckpoint(), toy=Broken()).run()


def test_each_kind_of_failing_save_is_one_line(caplog):
    class Full(MemoryCheckpoint):
        """First the disk is full, then it is read-only."""

        def save(self, tensors, data):
            self.saves += 1
            if self.saves % 2:
                raise OSError(28, "No space left on device")
            raise PermissionError(13, "Permission denied")

    checkpoint = Full()
    with caplog.at_level(logging.WARNING, logger="flowsearch"):
        search(checkpoint).run()
    assert checkpoint.saves > 4
    lines = [record for record in caplog.records if "checkpoint" in record.getMessage()]
    assert len(lines) == 2
    assert all(record.exc_info is None for record in lines)


def test_a_move_that_is_given_the_samplers_transition_keeps_all_else():
    toy = Toy()
    plan = Plan(toy, SearchSettings(EvolutionarySearch(), STEPS, ODE, Budget(1)))
    a, b = (Node(n, 0, 0.5, None, 0.0) for n in (0, 1))

    budget = plan.settings.budget
    chain = Chain(Shared(0, plan, Spending(plan, budget), Gallery(1), Baseline(plan)), 0)
    chain._pending = [Move(a, 0.4, (1,), score=False, donor=b)]
    (move,) = chain.request().moves
    assert (move.donor, move.score, move.transition) == (b, False, ODE)


def test_the_log_is_json_again():
    """What the table above changes is what a file would hold."""
    checkpoint = MemoryCheckpoint()
    search(checkpoint, evaluations=25).run()
    assert row(json.loads(checkpoint.kept[1]))["id"] == 0
