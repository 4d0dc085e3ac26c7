"""The ledger is what the model counted, whatever the configuration."""

import dataclasses

import pytest
from toy import SIGMAS, Toy

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import rbf_reference
from flowsearch.samplers.search import (
    SVDD,
    BestOfN,
    Budget,
    CoDe,
    EvolutionarySearch,
    RolloverBudgetForcing,
    Search,
    SearchOverPaths,
    SequentialMonteCarlo,
    Trace,
    Whole,
    ZeroOrderSearch,
)
from flowsearch.samplers.stepping.transition import ODE, Transition, fixed_q

RBF = RolloverBudgetForcing
STRATEGIES = {
    "best_of_n": BestOfN(),
    "best_of_5": BestOfN(candidates=5, plain=False),
    "evolutionary": EvolutionarySearch(),
    "evolutionary_wide": EvolutionarySearch(
        width=3, levels=1, steps=3, mixes=3, fresh=False, plain=False, finish_steps=2
    ),
    "rbf": RBF(),
    "rbf_many_passes": RBF(draws=3, finalists=2),
    "rbf_never": RBF(draws=4, accept="never"),
    "rbf_threshold": RBF(draws=6, accept="threshold", threshold=-1.0, exhausted="restart"),
    "rbf_pool": RBF(pool=7, width=3, passes=2, plain=False, finish_steps=5),
    "svdd": SVDD(),
    "svdd_shared_out": SVDD(candidates=0, finalists=3, finish_steps=2),
    "code": CoDe(),
    "code_to_the_end": CoDe(block=3, candidates=0, sigma_low=0.0, plain=False),
    "the_whole_way": CoDe(block=0, candidates=0),
    "smc": SequentialMonteCarlo(),
    "smc_few": SequentialMonteCarlo(particles=3, plain=False, resample="always"),
    "search_over_paths": SearchOverPaths(),
    "search_over_paths_legs": SearchOverPaths(leg=4, starts=3, keep=3, finish_steps=1),
    "zero_order": ZeroOrderSearch(),
    "zero_order_wider": ZeroOrderSearch(candidates=2, widen=1.7, plain=False),
}
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


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(("chains", "shares"), [(1, True), (2, False), (3, True)])
def test_ledger_is_the_models_counter(name, chains, shares):
    for evaluations, rows_per_call, width in ((30, 1, 4), (97, 5, 1), (97, 64, 4), (150, 5, 4)):
        toy, trace, budget = Toy(shares_calls=shares), Trace(), Budget(evaluations)
        strategy = with_width(STRATEGIES[name], width)
        outcome = Search(
            toy, strategy, SIGMAS, ODE, budget, items=[0, 3], chains=chains,
            rows_per_call=rows_per_call, on_event=trace,
        ).run()  # fmt: skip
        check(toy, outcome, trace, budget)
        assert outcome.calls == len(toy.calls)
        assert max(toy.calls) <= rows_per_call


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_budget_and_transition(name):
    """Any budget gives a picture, is not exceeded, and is told as the model counted it."""
    for number, evaluations in enumerate((*range(1, 31), *range(31, 61, 4), 100, 237)):
        transition = TRANSITIONS[number % len(TRANSITIONS)]
        strategy, chains = STRATEGIES[name], 1 + number % 3
        if transition != ODE and getattr(strategy, "q", None) and name[:4] not in ("zero", "rbf_"):
            strategy = dataclasses.replace(strategy, q=None)  # the connected one's
        toy, trace, budget = Toy(), Trace(), Budget(evaluations)
        outcome = Search(
            toy, strategy, SIGMAS, transition, budget, chains=chains, on_event=trace
        ).run()  # fmt: skip
        check(toy, outcome, trace, budget)


@pytest.mark.parametrize("finish_steps", [1, 8, None])
@pytest.mark.parametrize("chains", [1, 2])
def test_ledger_of_the_reference(finish_steps, chains):
    published = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")
    toy, trace, budget = Toy(), Trace(), Budget(150 * chains)
    outcome = Search(
        toy, RBF.reference(finish_steps), rbf_reference(10), published, budget,
        chains=chains, on_event=trace,
    ).run()  # fmt: skip
    check(toy, outcome, trace, budget)
    assert outcome.items[0].ledger.evaluations == (150 - 1) * chains


@pytest.mark.parametrize("strategy", [BestOfN(), RBF(draws=3)])
def test_reward_calls_are_a_budget(strategy):
    toy, trace, budget = Toy(), Trace(), Budget(400, reward_calls=23)
    outcome = Search(toy, strategy, SIGMAS, ODE, budget, chains=2, on_event=trace).run()
    check(toy, outcome, trace, budget)
    assert outcome.items[0].why == "reward_calls"
    assert outcome.items[0].ledger.reward_calls > 15


def test_whole_samplers_are_charged_what_they_cost():
    toy, trace, budget = Toy(), Trace(), Budget(50)
    outcome = Search(toy, BestOfN(), SIGMAS, Whole("euler"), budget, on_event=trace).run()
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
    outcome = Search(toy, RBF(), SIGMAS, ODE, budget, on_event=trace, rows_per_call=64).run()
    assert outcome.items[0].ledger.rows == outcome.items[0].ledger.evaluations == toy.rows[0]


class Uncounted(Toy):
    """A mutant: a prediction the engine is not told of."""

    def predict(self, items, state, sigma):
        super().predict(items, state, sigma)
        return super().predict(items, state, sigma)


def test_a_wrong_count_is_seen():
    toy, trace, budget = Uncounted(), Trace(), Budget(100)
    outcome = Search(toy, RBF(), SIGMAS, ODE, budget, on_event=trace).run()
    with pytest.raises(AssertionError):
        check(toy, outcome, trace, budget)
