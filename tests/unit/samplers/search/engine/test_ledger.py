"""The ledger is what the model counted, whatever the configuration."""

import dataclasses

import pytest
from strategy_cases import CASES
from toy import SIGMAS, Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import rbf_reference
from flowsearch.samplers.search import (
    BestOfN,
    Budget,
    RolloverBudgetForcing,
    Trace,
    Whole,
)
from flowsearch.samplers.stepping.transition import ODE, Transition, fixed_q

RBF = RolloverBudgetForcing
TRANSITIONS = [
    ODE,
    fixed_q(0.8),
    Transition(noise_law("fixed_q", q=0.8), "second_order"),
    Transition(noise_law("fixed_q", q=0.9), "heun"),
    Transition(noise_law("fixed_q", q=0.6), "glass", inner_evaluations=2),
]


def check(toy, outcome, trace, budget):
    for one in outcome.items:
        ledger, rows = one.ledger, trace.spent_by_sigma(one.item)
        assert ledger.evaluations == toy.rows[one.item] <= budget.evaluations
        assert ledger.reward_calls == toy.scored[one.item]
        assert sum(ledger.phases.values()) == ledger.evaluations
        assert sum(row["evaluations"] for row in rows) == ledger.evaluations
        assert one.winners
        if budget.reward_calls is not None:
            assert ledger.reward_calls <= budget.reward_calls


def with_width(strategy, width):
    """Return the strategy with another width, if it has one."""
    names = [field.name for field in dataclasses.fields(strategy)]
    return dataclasses.replace(strategy, width=width) if "width" in names else strategy


@pytest.mark.parametrize("name", CASES)
def test_ledger_is_the_models_counter(name):
    place = [*CASES].index(name)
    rows_per_call, width = ((1, 4), (5, 1), (64, 4))[place % 3]
    toy, trace, budget = Toy(shares_calls=place % 2 > 0), Trace(), Budget(97)
    outcome = make_search(
        toy, with_width(CASES[name].strategy, width), SIGMAS, ODE, budget, items=[0, 3],
        chains=1 + place % 3, rows_per_call=rows_per_call, on_event=trace,
    ).run()  # fmt: skip
    check(toy, outcome, trace, budget)
    assert outcome.calls == len(toy.calls)
    assert max(toy.calls) <= rows_per_call


@pytest.mark.parametrize("name", CASES)
def test_every_transition(name):
    """Inner calls, steps without memory and those that a law spares are told as they were made."""
    for number, transition in enumerate(TRANSITIONS):
        strategy = CASES[name].strategy
        types = {field.name: str(field.type) for field in dataclasses.fields(strategy)}
        if transition != ODE and "None" in types.get("q", ""):
            strategy = dataclasses.replace(strategy, q=None)  # the connected one's
        toy, trace, budget = Toy(), Trace(), Budget((29, 60, 100)[number % 3])
        outcome = make_search(
            toy, strategy, SIGMAS, transition, budget, chains=1 + number % 3, on_event=trace
        ).run()  # fmt: skip
        check(toy, outcome, trace, budget)


@pytest.mark.parametrize("finish_steps", [1, 8, None])
@pytest.mark.parametrize("chains", [1, 2])
def test_ledger_of_the_reference(finish_steps, chains):
    published = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")
    toy, trace, budget = Toy(), Trace(), Budget(150 * chains)
    outcome = make_search(
        toy, RBF.reference(finish_steps), rbf_reference(10), published, budget,
        chains=chains, on_event=trace,
    ).run()  # fmt: skip
    check(toy, outcome, trace, budget)
    assert outcome.items[0].ledger.evaluations == (150 - 1) * chains


@pytest.mark.parametrize("strategy", [BestOfN(), RBF(draws=3)])
def test_reward_calls_are_a_budget(strategy):
    toy, trace, budget = Toy(), Trace(), Budget(400, reward_calls=23)
    outcome = make_search(toy, strategy, SIGMAS, ODE, budget, chains=2, on_event=trace).run()
    check(toy, outcome, trace, budget)
    assert outcome.items[0].why == "reward_calls"
    assert outcome.items[0].ledger.reward_calls > 15


def test_whole_samplers_are_charged_what_they_cost():
    toy, trace, budget = Toy(), Trace(), Budget(50)
    outcome = make_search(toy, BestOfN(), SIGMAS, Whole("euler"), budget, on_event=trace).run()
    check(toy, outcome, trace, budget)
    assert outcome.items[0].ledger.evaluations == 8 * toy.whole_steps == 48
    assert outcome.items[0].why == "budget"


class Guided(Toy):
    """A model that measures its own cost: two rows and two evaluations a prediction."""

    def predict(self, items, state, sigma):
        super().predict(items, state, sigma)
        two = [2] * len(items)
        return {**super().predict(items, state, sigma), "evaluations": two, "rows": two}

    def cost(self, transition, to):
        return 2 * super().cost(transition, to)


def test_measured_costs_are_charged():
    toy, trace, budget = Guided(), Trace(), Budget(200)
    outcome = make_search(toy, RBF(), SIGMAS, ODE, budget, on_event=trace, rows_per_call=64).run()
    assert outcome.items[0].ledger.rows == outcome.items[0].ledger.evaluations == toy.rows[0]


class Uncounted(Toy):
    """A mutant: a prediction the engine is not told of."""

    def predict(self, items, state, sigma):
        super().predict(items, state, sigma)
        return super().predict(items, state, sigma)


def test_a_wrong_count_is_seen():
    toy, trace, budget = Uncounted(), Trace(), Budget(100)
    outcome = make_search(toy, RBF(), SIGMAS, ODE, budget, on_event=trace).run()
    with pytest.raises(AssertionError):
        check(toy, outcome, trace, budget)
