"""The evolutionary search: what a generation is, what it costs, and what it learns."""

import math

import pytest
import torch
from toy import SIGMAS, Scripted, Toy, make_search

from flowsearch.samplers.search import Budget, EvolutionarySearch, Trace, Whole
from flowsearch.samplers.stepping.transition import ODE


def run(strategy, budget, toy=None, transition=ODE, sigmas=SIGMAS, **more):
    toy, trace = toy or Toy(), Trace()
    budget = budget if isinstance(budget, Budget) else Budget(budget)
    outcome = make_search(
        toy, strategy, sigmas, transition, budget, seed=3, on_event=trace, **more
    ).run()
    return outcome.items[0], trace, toy


def searched(trace):
    return [row for row in trace.record["evaluated"] if row["phase"] == "search"]


def test_a_mix_costs_a_reward_call_and_no_evaluation():
    item, trace, toy = run(EvolutionarySearch(fresh=False), 60)
    mixes = [row for row in searched(trace) if row["donor"] is not None]
    assert len(mixes) >= 16
    assert all((row["evaluations"], row["rows"], row["call"]) == (0, 0, -1) for row in mixes)
    assert all(row["scores"] is not None for row in mixes)
    assert item.ledger.evaluations == toy.rows[0]
    assert item.ledger.reward_calls == toy.scored[0]


def test_a_mix_is_never_a_winner_and_never_held():
    high = Scripted([0.0] + [-1.0] * 1 + [5.0] * 400)  # mixes promise more than all else

    item, trace, _ = run(EvolutionarySearch(fresh=False, finish_steps=1), 30, high)
    mixes = {row["id"] for row in searched(trace) if row["donor"] is not None}
    finished = {row["id"]: row for row in trace.record["evaluated"] if row["sigma"] == 0.0}
    assert mixes
    assert not mixes & {row["parent"] for row in finished.values()}
    assert all(winner.node.id not in mixes for winner in item.winners)


def test_a_mix_that_reaches_the_target_is_predicted_before_it_comes_out():
    """Also where the run has no sigma below the drafts', so that finishing is a jump."""
    promising = Scripted([-1.0] * 2 + [5.0] * 400)
    budget = Budget(60, target=4.0)
    strategy = EvolutionarySearch(fresh=False)
    item, trace, _ = run(strategy, budget, promising, sigmas=[1.0, 0.6, 0.0])
    rows = {row["id"]: row for row in trace.record["evaluated"]}
    mixes = {row["id"] for row in rows.values() if row["donor"] is not None}
    assert mixes
    assert rows[item.winners[0].node.id]["parent"] not in mixes


def test_a_variation_starts_from_the_best_and_ends_at_the_draft_sigma():
    strategy = EvolutionarySearch(
        fresh=False, mixes=0, levels=1, level_low=0.8, draft_sigma=0.4, steps=3
    )
    item, trace, _ = run(strategy, 60)
    ups = [row for row in searched(trace) if row["sigma"] == 0.8]
    assert ups[0]["parent"] == item.plain.node.id
    rows = {row["id"]: row for row in trace.record["evaluated"]}
    for up in ups:
        (middle,) = (row for row in searched(trace) if row["parent"] == up["id"])
        (down,) = (row for row in searched(trace) if row["parent"] == middle["id"])
        assert [middle["sigma"], down["sigma"]] == pytest.approx([0.6, 0.4])
        assert [row["evaluations"] for row in (up, middle, down)] == [1, 1, 1]
        assert [row["scores"] is not None for row in (up, middle, down)] == [False, False, True]
        assert rows[up["parent"]]["sigma"] in (0.0, pytest.approx(0.4))


def test_of_equals_the_newest_goes_on_and_the_first_comes_out():
    strategy = EvolutionarySearch(fresh=False, mixes=0, finish_steps=1)
    item, trace, _ = run(strategy, 60, Scripted([0.0] * 400))
    ups = [row["parent"] for row in searched(trace) if row["sigma"] > 0.7]
    assert len(set(ups)) == len(ups) > 5
    assert item.winners[0].node.id == item.plain.node.id


def test_a_finished_drafts_reward_is_the_pictures():
    """A draft that promised 9 and came out at -9 is not gone on from for ever."""

    class Lying(Toy):
        def score(self, items, denoised, sigmas):
            found = super().score(items, denoised, sigmas)
            values = [9.0 if sigma > 0.0 else -9.0 for sigma in sigmas]
            return [type(one)(value) for one, value in zip(found, values, strict=True)]

    _, trace, _ = run(EvolutionarySearch(fresh=False, mixes=0), 200, Lying())
    ups = [row["parent"] for row in searched(trace) if row["sigma"] > 0.7]
    assert max(ups.count(parent) for parent in ups) < 20  # the finishing told
    assert any(row["phase"] == "search" and row["sigma"] == 0.0 for row in searched(trace))


def test_drafts_are_finished_on_the_way_for_a_tenth_of_the_evaluations():
    item, trace, _ = run(EvolutionarySearch(fresh=False), 400)
    ends = [row for row in searched(trace) if row["sigma"] == 0.0]
    spent = sum(row["evaluations"] for row in searched(trace) if 0.0 < row["sigma"] < 0.299)
    assert len(ends) >= 3
    assert spent <= 0.1 * item.ledger.evaluations


def test_the_arm_that_helps_is_taken_more_often():
    """Only variations at the lowest level are any better: the bandit finds out."""

    class Picky(Toy):
        best = 0.0

        def move(self, items, state, sigma_from, to, transition, noise):
            self.level = to if to > 0.7 else self.level if to > 0.0 else 0.0
            return super().move(items, state, sigma_from, to, transition, noise)

        level = 0.0

        def score(self, items, denoised, sigmas):
            found = super().score(items, denoised, sigmas)
            helped = self.level == pytest.approx(0.75) and sigmas[0] > 0.0
            self.best += 1.0 if helped else 0.0
            value = self.best if helped else -1.0
            return [type(one)(value) for one in found]

    strategy = EvolutionarySearch(mixes=0, fresh=False, finish_steps=1)
    _, trace, _ = run(strategy, 400, Picky())
    levels = [round(row["sigma"], 3) for row in searched(trace) if row["sigma"] > 0.7]
    low = levels.count(0.75)
    assert low > 2 * max(levels.count(0.825), levels.count(0.9))


def test_a_partial_denoise_has_levels_below_its_start():
    sigmas = [s * 0.5 for s in SIGMAS]
    _, trace, _ = run(EvolutionarySearch(fresh=False), 40, sigmas=sigmas)
    assert max(row["sigma"] for row in searched(trace)) <= 0.45 + 1e-9


def test_any_sampler_can_be_searched():
    item, trace, _ = run(EvolutionarySearch(), 60, transition=Whole("dpmpp_2m"))
    assert any(row["transition"] == {"whole": "dpmpp_2m"} for row in trace.record["evaluated"])
    assert any(row["sigma"] > 0.7 for row in searched(trace))
    assert math.isfinite(item.winners[0].scores.value)


def test_chains_are_islands():
    _, trace, _ = run(EvolutionarySearch(), 150, chains=3)
    rows = {row["id"]: row for row in trace.record["evaluated"]}
    first = [row for row in searched(trace) if row["pass_"] == 0]
    assert {row["chain"] for row in first} == {0, 1, 2}
    for row in first:
        parent = rows.get(row["parent"])
        assert parent is None or parent["chain"] in (row["chain"], -1)
        assert parent is None or parent["chain"] >= 0 or row["chain"] == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"levels": 0},
        {"level_low": 0.2},
        {"level_low": 0.95},
        {"level_high": 1.0},
        {"draft_sigma": 0.0},
        {"steps": 1},
        {"mixes": -1},
        {"finish_steps": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"^evolutionary: .*(at least|must hold)"):
        EvolutionarySearch(**wrong)


def test_the_same_seed_gives_the_same_picture():
    one, _, _ = run(EvolutionarySearch(), 90)
    two, _, _ = run(EvolutionarySearch(), 90, rows_per_call=1)
    assert torch.equal(one.winners[0].state["x"], two.winners[0].state["x"])
