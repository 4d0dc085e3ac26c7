"""A search under guidance: where it is put, what it costs, and that it repeats."""

import json
import math
from dataclasses import replace

import pytest
import torch
from toy import Interrupted, MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import (
    STRATEGIES,
    SVDD,
    BestOfN,
    Budget,
    EvolutionarySearch,
    RewardError,
    RolloverBudgetForcing,
    SequentialMonteCarlo,
    Trace,
)
from flowsearch.samplers.search.engine.plan import Plan
from flowsearch.samplers.search.engine.record import CandidateRecord
from flowsearch.samplers.search.engine.settings import SearchSettings
from flowsearch.samplers.search.protocol import Move, Node
from flowsearch.samplers.search.testing import strategy_laws
from flowsearch.samplers.search.testing.mixture import rare_mode_gradient
from flowsearch.samplers.stepping.guidance import GUIDANCE_METHODS, Guidance
from flowsearch.samplers.stepping.transition import ODE, RENOISE, Transition

NOISY = Transition(noise_law("constant_k", k=1.0))
FEW = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)
TILT = Guidance("noise_tilt", 0.5)
SHIFT = Guidance("mean_shift", 0.5, look_ahead=1)
THROUGH = Guidance("noise_tilt", 0.4, "network")
START = Guidance("start_noise", 0.6, "network", ascents=2)
TWIST = Guidance("twist", 2.0)
EVERY = {
    "best_of_n": (BestOfN(width=2), START),
    "best_of_n_tilted": (BestOfN(width=2), THROUGH),
    "rbf": (RolloverBudgetForcing(), SHIFT),
    "rbf_tilted": (RolloverBudgetForcing(), TILT),
    "svdd": (SVDD(candidates=3), THROUGH),
    "evolutionary": (EvolutionarySearch(), SHIFT),
    "evolutionary_tilted": (EvolutionarySearch(), THROUGH),
    "smc": (SequentialMonteCarlo(particles=3, strength=2.0), TWIST),
    "smc_through": (SequentialMonteCarlo(particles=3), replace(TWIST, through="network")),
}


def toy(**more):
    return Toy(gradient=rare_mode_gradient, **more)


def ran(strategy, guidance, evaluations=60, problem=None, transition=NOISY, **more):
    problem = problem or toy()
    trace = Trace()
    search = make_search(
        problem,
        strategy,
        FEW,
        transition.guided(guidance),
        Budget(evaluations),
        on_event=trace,
        seed=5,
        **more,
    )
    return search.run(), trace, problem


# ---- the ledger is what the model counted ----


@pytest.mark.parametrize("name", EVERY)
def test_any_budget_is_kept_and_measured(name):
    strategy, guidance = EVERY[name]
    for number, evaluations in enumerate((1, 3, 8, 17, 60)):
        outcome, trace, problem = ran(
            strategy,
            guidance,
            evaluations,
            chains=1 + number % 2,
            rows_per_call=(1, 4, 64)[number % 3],
        )
        item = outcome.items[0]
        assert item.ledger.evaluations == problem.rows[0] <= evaluations
        assert item.ledger.gradient_calls == problem.gradients.get(0, 0)
        rows = trace.record["evaluated"]
        assert sum(row["gradients"] for row in rows) == item.ledger.gradient_calls
        assert item.winners
    assert item.ledger.gradient_calls > 0


@pytest.mark.parametrize("name", EVERY)
def test_it_goes_on_to_the_bit_where_it_was_interrupted(name):
    strategy, guidance = EVERY[name]
    whole, trace, count = ran(strategy, guidance, 40)
    for call in (len(count.calls) // 3, len(count.calls) - 1):
        checkpoint, broken = MemoryCheckpoint(), toy()
        broken.fail_at = call
        with pytest.raises(Interrupted):
            ran(strategy, guidance, 40, broken, checkpoint=checkpoint, checkpoint_seconds=0.0)
        again, told, _ = ran(strategy, guidance, 40, checkpoint=checkpoint)
        assert not again.notes
        assert strategy_laws.told(told) == strategy_laws.told(trace)
        ends = (one.items[0].winners[0].state["x"] for one in (again, whole))
        assert torch.equal(*ends)


# ---- where it is put ----


def test_the_plain_sample_is_the_models_own():
    guided, trace, _ = ran(RolloverBudgetForcing(), SHIFT)
    free, _, _ = ran(RolloverBudgetForcing(), None)
    ends = (one.items[0].plain.state["x"] for one in (guided, free))
    assert torch.equal(*ends)
    for row in trace.record["evaluated"]:
        steered = "guidance" in (row["transition"] or {})
        assert steered == (
            row["phase"] in ("search", "finish", "target") and row["parent"] is not None
        )
        assert row["gradients"] == 0 or steered


def test_plain_samples_that_measure_a_target_are_not_guided():
    trace = Trace()
    budget = Budget(120, top=10.0)
    make_search(toy(), BestOfN(), FEW, NOISY.guided(TILT), budget, on_event=trace, seed=5).run()
    rows = [row for row in trace.record["evaluated"] if row["phase"] == "calibrate"]
    assert rows
    assert all("guidance" not in (row["transition"] or {}) for row in rows)


def test_only_starts_are_turned():
    _, trace, _ = ran(BestOfN(), START)
    rows = [row for row in trace.record["evaluated"] if row["phase"] == "search"]
    assert {row["parent"] is None for row in rows if row["gradients"]} == {True}
    turned = [row for row in rows if row["parent"] is None]
    assert {(row["gradients"], row["evaluations"]) for row in turned} == {(2, 1 + 2 * 2)}
    assert all("guidance" not in row["transition"] for row in rows if row["parent"] is not None)


def test_prices_are_those_of_guided_moves():
    settings = SearchSettings(BestOfN(), FEW, NOISY.guided(SHIFT), Budget(50))
    plan = Plan(toy(), settings)
    node = Node(0, 0, 0.6, None, None)
    assert plan.sample_cost == 5 + 4  # a look-ahead for each step but the last
    assert plan.plain_cost == 5
    assert plan.finish_cost(0.6) == 2 * 2
    assert plan.move_cost(Move(node, 0.4, ())) == 2
    assert plan.move_cost(Move(node, 0.8, (), RENOISE)) == 2  # at most: up it shifts nothing
    assert plan.move_cost(Move(None, 1.0, ())) == 1


def test_a_problem_without_a_gradient_is_refused():
    with pytest.raises(ValueError, match="this search of toy has none"):
        ran(BestOfN(), TILT, problem=Toy())


# ---- what would change nothing is refused ----


def test_tilted_noise_needs_a_sampler_that_draws_some():
    with pytest.raises(ValueError, match="no step of best_of_n draws any"):
        ran(BestOfN(), TILT, transition=ODE)
    ran(BestOfN(), SHIFT, 12, transition=ODE)
    ran(RolloverBudgetForcing(), TILT, 12, transition=ODE)


def test_a_twist_needs_a_strategy_that_weighs_draws():
    with pytest.raises(ValueError, match="take the strategy smc"):
        ran(RolloverBudgetForcing(), TWIST)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("method", GUIDANCE_METHODS)
def test_each_strategy_uses_each_method_or_refuses_it(name, method):
    guidance = Guidance(method, 0.5)
    for transition in (NOISY, ODE):
        try:
            outcome, _, _ = ran(STRATEGIES[name](), guidance, 120, transition=transition)
        except ValueError as refusal:
            sentence = str(refusal)
        else:
            sentence = "guided" * bool(outcome.items[0].ledger.gradient_calls)
        assert sentence == "guided" or "take" in sentence or "choose" in sentence


# ---- what goes wrong ----


def test_a_gradient_that_is_not_finite_ends_its_item_only():
    def gradient(item, x):
        found = rare_mode_gradient(item, x)
        return found * math.nan if item == 1 else found

    problem = Toy(gradient=gradient)
    search = make_search(
        problem, BestOfN(), FEW, NOISY.guided(TILT), Budget(30), items=(0, 1, 2), rows_per_call=64
    )
    with pytest.raises(RewardError, match=r"gradient .* not finite .* item 1"):
        search.run()
    ends = {item.item: item.why for item in search.outcome().items}
    assert ends[0] == ends[2] == "budget"
    assert all(item.winners for item in search.outcome().items)


# ---- records ----


def test_records_without_gradients_are_written_as_they_were():
    _, trace, _ = ran(BestOfN(), None, 20)
    checkpoint = MemoryCheckpoint()
    ran(BestOfN(), None, 20, checkpoint=checkpoint)
    _, data = checkpoint.load()
    rows = [
        row
        for log in data["logs"]
        for segment in log
        for each in segment["rounds"]
        for request in each["requests"]
        for row in request["rows"]
    ]
    assert all("gradients" not in row for row in rows)
    record = CandidateRecord.from_json(rows[0])
    assert (record.gradients, record.log_weight) == (0, 0.0)
    steered = replace(record, gradients=2, log_weight=-0.5)
    assert CandidateRecord.from_json(json.loads(json.dumps(steered.to_json()))) == steered
    assert trace.record["evaluated"][0]["gradients"] == 0


def test_a_twist_carries_the_log_weight_of_its_draws():
    _, trace, _ = ran(SequentialMonteCarlo(particles=4, strength=2.0), TWIST)
    weights = [row["log_weight"] for row in trace.record["evaluated"] if row["gradients"]]
    assert weights
    assert all(weight != 0.0 for weight in weights)
    _, trace, _ = ran(SequentialMonteCarlo(particles=4, strength=2.0), TILT)
    assert all(row["log_weight"] == 0.0 for row in trace.record["evaluated"])


# ---- it helps ----


def test_gradients_reach_in_one_sample_what_many_do_not():
    tilted, _, _ = ran(BestOfN(width=1), replace(TILT, strength=0.9), 10)
    many, _, _ = ran(BestOfN(), None, 60)
    assert tilted.items[0].winners[0].scores.value > many.items[0].winners[0].scores.value
