"""A run that was interrupted anywhere ends as if it had not been.

That every strategy obeys this is a law (test_laws.py); here are the engine's own cases.
"""

import dataclasses

import pytest
import torch
from strategy_cases import CASES
from toy import Interrupted, MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.search import (
    Budget,
    Move,
    RolloverBudgetForcing,
    Trace,
)
from flowsearch.samplers.search.testing.strategy_laws import told
from flowsearch.samplers.stepping.transition import ODE, fixed_q

RBF = RolloverBudgetForcing
NAMES = ("evolutionary_wide", "rbf", "rbf_many_passes", "rbf_never", "rbf_threshold", "smc_max")
STEPS = [1.0, 0.9, 0.7, 0.5, 0.3, 0.15, 0.0]


def make(case, checkpoint=None, toy=None, on_event=None, seconds=0.0, items=None, **changes):
    one = CASES[case]
    items = items or ((0, 1) if case == "rbf" else (0,))
    settings = {"strategy": one.strategy, "budget": one.budget, "seed": 5, **changes}
    return make_search(
        toy or Toy(), sigmas=STEPS, transition=ODE, items=items, chains=one.chains, top_k=2,
        rows_per_call=3, checkpoint=checkpoint, checkpoint_seconds=seconds, on_event=on_event,
        **settings,
    )  # fmt: skip


def results(outcome):
    return [
        (
            one.why,
            dataclasses.replace(one.ledger, seconds=0.0),
            [(w.node.id, w.scores) for w in one.winners],
        )
        for one in outcome.items
    ]


def same(a, b):
    assert results(a) == results(b)
    for one, other in zip(a.items, b.items, strict=True):
        for left, right in zip(one.winners, other.winners, strict=True):
            assert torch.equal(left.state["x"], right.state["x"])


def interrupted(case, checkpoint, **where):
    """Run until it is interrupted; return whether it was."""
    toy = Toy()
    for name, value in where.items():
        setattr(toy, name, value)
    try:
        make(case, checkpoint, toy).run()
    except Interrupted:
        return True
    return False


@pytest.mark.parametrize("case", NAMES)
def test_resume_after_an_interrupt_in_an_event(case):
    whole = Trace()
    expected = make(case, on_event=whole).run()
    for stop_at in range(1, len(whole.record["evaluated"]), 29):
        seen, checkpoint, again = [], MemoryCheckpoint(), Trace()

        def listener(event, seen=seen, stop_at=stop_at):
            seen.append(event)
            if len(seen) == stop_at:
                raise Interrupted

        with pytest.raises(Interrupted):
            make(case, checkpoint, on_event=listener).run()
        same(make(case, checkpoint, on_event=again).run(), expected)
        assert told(again) == told(whole)


@pytest.mark.parametrize("case", NAMES)
def test_resume_twice(case):
    expected = make(case).run()
    checkpoint = MemoryCheckpoint()
    assert interrupted(case, checkpoint, fail_at=9)
    assert interrupted(case, checkpoint, fail_at=3)
    same(make(case, checkpoint).run(), expected)


@pytest.mark.parametrize("case", NAMES)
def test_more_continues_where_the_budget_ended(case):
    budget = CASES[case].budget
    more = Budget(budget.evaluations + 30)
    checkpoint, toy = MemoryCheckpoint(), Toy()
    before = make(case, checkpoint).run()
    after = make(case, checkpoint, toy, budget=more).run()
    assert "continued" in " ".join(after.notes)
    for old, new in zip(before.items, after.items, strict=True):
        assert new.ledger.evaluations == old.ledger.evaluations + toy.rows[old.item]
        assert 0 < toy.rows[old.item] <= more.evaluations - old.ledger.evaluations
        assert more.evaluations - new.ledger.evaluations < 12
        assert new.winners[0].scores.value >= old.winners[0].scores.value
        assert new.plain is None or torch.equal(new.plain.state["x"], old.plain.state["x"])


def test_more_continues_the_pass_itself():
    """The strategy goes on from the handles it had when the budget ended, not from a new pass."""
    checkpoint, trace = MemoryCheckpoint(), Trace()
    strategy = RBF(draws=12, width=4, accept="never", pool=1)
    first = make("rbf", checkpoint, strategy=strategy, items=(0,), budget=Budget(32)).run()
    make("rbf", checkpoint, on_event=trace, strategy=strategy, items=(0,), budget=Budget(80)).run()
    rows = trace.record["evaluated"]
    spent = first.items[0].ledger.evaluations
    resumed = next(row for row in rows if row["spent"] > spent)
    assert resumed["pass_"] == 0
    assert resumed["phase"] == "search"
    assert resumed["parent"] is not None
    parents = {row["id"]: row for row in rows}
    assert parents[resumed["parent"]]["spent"] <= spent


@dataclasses.dataclass(frozen=True)
class Uneven:
    """Two chains ask for too much and are over early; the third decides by what remains."""

    name = "uneven"
    plain = True
    finish_steps = None
    score_below = 0.9
    target_stop = True

    def check(self, sigmas, transition):
        pass

    def to_json(self):
        return {"strategy": self.name}

    def search(self, spec):
        (node,) = yield [Move(None, 1.0, (0,), score=False)]
        count = 90 if spec.chain < 2 else 1 + spec.remaining() % 3
        nodes = yield [Move(node, 0.9, (1, row), fixed_q(0.5)) for row in range(2)]
        return (yield [Move(nodes[0], 0.7, (2, row), fixed_q(0.5)) for row in range(count)])


@pytest.mark.parametrize(
    "strategy",
    [
        RBF(draws=2, finalists=3),
        RBF(passes=3, finish_steps=7),
        RBF(draws=1, width=1),
        Uneven(),
    ],
)
def test_more_repeats_nothing_whatever_the_chains_were_doing(strategy):
    """Every round of the shorter run is the same round of the longer one, to the last finishing."""
    for evaluations in range(20, 100, 9):
        checkpoint, short, long = MemoryCheckpoint(), Trace(), Trace()

        def go_on(budget, trace, checkpoint=checkpoint):
            return make_search(
                Toy(), strategy, STEPS, ODE, Budget(budget), chains=3, checkpoint=checkpoint,
                on_event=trace,
            ).run()  # fmt: skip

        go_on(evaluations, short)
        outcome = go_on(evaluations + 40, long)
        assert [note for note in outcome.notes if "afresh" in note] == []
        before, after = told(short)["evaluated"], told(long)["evaluated"]
        assert after[: len(before)] == before
        assert len(after) > len(before)


@dataclasses.dataclass(frozen=True)
class Thrifty:
    """Holds a handle, and returns nothing while it cannot afford what it wants from it."""

    name = "thrifty"
    plain = True
    finish_steps = None
    score_below = 0.0
    target_stop = True

    def check(self, sigmas, transition):
        pass

    def to_json(self):
        return {"strategy": self.name}

    def search(self, spec):
        (node,) = yield [Move(None, 1.0, (0,), score=False)]
        if spec.remaining() < 40:
            return []
        nodes = yield [Move(node, 0.9, (1, row), fixed_q(0.5)) for row in range(4)]
        return nodes


def test_a_handle_that_was_held_when_the_strategy_returned_can_be_gone_on_from():
    checkpoint, trace, before = MemoryCheckpoint(), Trace(), Trace()
    first = {"strategy": Thrifty(), "items": (0,), "budget": Budget(30)}
    make("rbf", checkpoint, on_event=before, **first).run()
    changes = {"strategy": Thrifty(), "items": (0,), "budget": Budget(70)}
    outcome = make("rbf", checkpoint, on_event=trace, **changes).run()
    assert "continued" in outcome.notes[0]
    starts = [row["id"] for row in before.record["evaluated"] if row["sigma_from"] is None]
    drawn = [row["parent"] for row in trace.record["evaluated"] if row["key"][3:4] == (1,)]
    assert drawn[0] == starts[-1]


@pytest.mark.parametrize("case", ["rbf", "smc_max"])
def test_more_can_be_interrupted_and_continued_again(case):
    budgets = [CASES[case].budget, Budget(80), Budget(120)]
    expected = MemoryCheckpoint()
    for budget in budgets:
        outcome = make(case, expected, budget=budget).run()
    for call in range(2, 14, 3):
        checkpoint = MemoryCheckpoint()
        for budget in budgets:
            toy = Toy()
            toy.fail_at = call
            with pytest.raises(Interrupted):
                make(case, checkpoint, toy, budget=budget).run()
            resumed = make(case, checkpoint, budget=budget).run()
        same(resumed, outcome)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 6}, "seed"),
        ({"strategy": RBF(draws=2, q=0.8)}, "strategy"),
        ({"items": (0, 2)}, "items"),
    ],
)
def test_another_setting_starts_afresh_and_says_so(change, named):
    checkpoint = MemoryCheckpoint()
    assert interrupted("rbf", checkpoint, fail_at=15)
    outcome = make("rbf", checkpoint, **change).run()
    assert named in outcome.notes[0]
    assert "afresh" in outcome.notes[0]
    same(outcome, make("rbf", **change).run())


def test_a_log_that_does_not_fit_starts_afresh_and_says_so():
    checkpoint = MemoryCheckpoint()
    assert interrupted("rbf", checkpoint, fail_at=15)
    tensors, text = checkpoint.kept
    assert '"key": [0, 0, 0, 1, 0, 0]' in text
    changed = text.replace('"key": [0, 0, 0, 1, 0, 0]', '"key": [0, 0, 0, 1, 0, 9]')
    checkpoint.kept = (tensors, changed)
    outcome = make("rbf", checkpoint).run()
    assert "afresh" in outcome.notes[0]
    same(outcome, make("rbf").run())


def test_missing_tensors_start_afresh():
    checkpoint = MemoryCheckpoint()
    assert interrupted("rbf", checkpoint, fail_at=15)
    checkpoint.kept = ({}, checkpoint.kept[1])
    outcome = make("rbf", checkpoint).run()
    assert "afresh" in outcome.notes[0]
    same(outcome, make("rbf").run())


def test_a_run_out_of_step_with_its_checkpoint_is_seen():
    """The mutant: a strategy whose decisions depend on something that is not in the log."""
    expected = make("rbf").run()
    checkpoint = MemoryCheckpoint()
    assert interrupted("rbf", checkpoint, fail_at=15)
    forgetful = make("rbf", checkpoint)
    forgetful._executor.seed = 99
    with pytest.raises(AssertionError):
        same(forgetful.run(), expected)
