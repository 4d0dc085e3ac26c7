"""SVDD and CoDe: K draws from one parent, L steps unseen, the best goes on."""

import json

import pytest
from toy import SIGMAS, Scripted, Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import (
    SVDD,
    BestOfN,
    Budget,
    CoDe,
    SequentialMonteCarlo,
    Trace,
    Whole,
    strategy_from_json,
)
from flowsearch.samplers.stepping.transition import ODE, Transition, fixed_q


def run(strategy, evaluations, toy=None, transition=ODE, sigmas=SIGMAS, **more):
    trace = Trace()
    outcome = make_search(
        toy or Toy(), strategy, sigmas, transition, Budget(evaluations), on_event=trace, **more
    ).run()
    return outcome.items[0], trace


def searched(trace, pass_=0):
    """Return the search's rows of a pass."""
    rows = trace.record["evaluated"]
    return [row for row in rows if row["phase"] == "search" and row["pass_"] == pass_]


def draws(trace):
    """Return {(from, to): (candidates, how many of them scored)} of the first pass."""
    table = {}
    for row in searched(trace):
        place = (row["sigma_from"], row["sigma"])
        count, scored = table.get(place, (0, 0))
        table[place] = (count + 1, scored + (row["scores"] is not None))
    return table


def test_svdd_draws_at_every_step_and_scores_every_draw():
    _, trace = run(SVDD(candidates=5, sigma_low=0.45), 60)
    steps = [(0.9, 0.8), (0.8, 0.7), (0.7, 0.6), (0.6, 0.5), (0.5, 0.4)]
    assert draws(trace) == dict.fromkeys(steps, (5, 5))


def test_code_scores_at_the_end_of_a_block():
    _, trace = run(CoDe(candidates=4, sigma_low=0.25), 80)
    steps = [(0.9, 0.8), (0.8, 0.7), (0.7, 0.6), (0.6, 0.5), (0.5, 0.4), (0.4, 0.3), (0.3, 0.2)]
    assert draws(trace) == {step: (4, 4 * (step[1] in (0.7, 0.5, 0.3, 0.2))) for step in steps}


def test_a_block_of_the_whole_way_scores_finished_pictures():
    item, trace = run(CoDe(candidates=4, block=0, sigma_low=0.0), 50)
    scored = [row["sigma"] for row in searched(trace) if row["scores"]]
    assert scored == [0.0] * 4
    assert item.ledger.phases == {"plain": 10, "search": 32}


@pytest.mark.parametrize("width", [1, 2, 16])
def test_the_best_draw_goes_on_and_the_first_of_equals(width):
    plain = [0.0] * 10
    rewards = [*plain, 1.0, 7.0, 3.0, 7.0, 2.0, 0.0, 9.0, 9.0]
    strategy = SVDD(candidates=4, sigma_low=0.75, width=width)
    _, trace = run(strategy, 30, Scripted([*rewards, *[0.0] * 100]))
    rows = searched(trace)
    first, second = rows[:4], rows[4:]
    assert {row["parent"] for row in second} == {first[1]["id"]}
    finish = next(row for row in trace.record["evaluated"] if row["phase"] == "finish")
    assert finish["parent"] == second[2]["id"]


def test_the_first_chain_begins_with_the_plain_sample_and_the_others_with_new_noise():
    item, trace = run(SVDD(candidates=2), 70, chains=2)
    plain = [row for row in trace.record["evaluated"] if row["phase"] == "plain"]
    first = [row for row in searched(trace) if row["chain"] == 0]
    other = [row for row in searched(trace) if row["chain"] == 1]
    assert first[0]["parent"] == plain[1]["id"]
    assert other[0]["parent"] is None
    assert {row["parent"] is None for row in searched(trace, 1)} == {True, False}
    assert item.winners


def test_finalists_are_finished():
    _, trace = run(SVDD(candidates=6, finalists=3), 52)
    ends = [row for row in trace.record["finished"] if row["of"] is not None]
    assert len({row["of"] for row in ends}) == len(ends) == 3


@pytest.mark.parametrize("strategy", [SVDD(candidates=0), SVDD(candidates=0, finalists=3)])
def test_a_shared_out_budget_is_spent_to_the_last_evaluation(strategy):
    for evaluations in range(40, 200, 7):
        item, trace = run(strategy, evaluations)
        assert item.ledger.evaluations == evaluations
        assert {row["pass_"] for row in trace.record["evaluated"]} == {0}
        counts = [count for count, _ in draws(trace).values()]
        assert max(counts) - min(counts) <= 1


def test_draws_that_the_budget_has_no_room_for_are_not_made():
    item, trace = run(SVDD(candidates=50, sigma_low=0.45), 43)
    assert item.ledger.phases == {"plain": 10, "search": 30, "finish": 3}
    assert set(draws(trace).values()) == {(6, 6)}


def test_more_budget_is_more_passes():
    _, trace = run(SVDD(candidates=3), 300)
    passes = {row["pass_"] for row in trace.record["evaluated"]}
    assert len(passes) > 10


# ---- transitions ----


def test_the_connected_transition_draws_where_q_is_none():
    glass = Transition(noise_law("fixed_q", q=0.6), "glass", inner_evaluations=3)
    for connected in (fixed_q(0.7), glass):
        _, trace = run(SVDD(q=None, candidates=3), 200, transition=connected)
        assert {json.dumps(row["transition"]) for row in searched(trace)} == {
            json.dumps(connected.to_json())
        }
    assert {row["evaluations"] for row in searched(trace)} == {3}


def test_where_a_law_adds_no_noise_one_draw_is_made():
    law = Transition(noise_law("constant_k", k=0.5, taper=(0.65, 0.55)))
    strategy = SVDD(q=None, candidates=3, sigma_low=0.0)
    _, trace = run(strategy, 60, transition=law)
    table = draws(trace)
    assert table[0.8, 0.7] == (3, 3)
    assert min(table) == (0.6, 0.5) or min(table) == (0.7, 0.6)
    later = Transition(noise_law("curve", points=[(0.3, 0.5), (0.69, 0.5), (0.7, 0.0), (1.0, 0.0)]))
    _, trace = run(strategy, 60, transition=later)
    table = draws(trace)
    assert [table[step][0] for step in ((0.9, 0.8), (0.8, 0.7), (0.6, 0.5))] == [1, 1, 3]


# ---- refusals ----


@pytest.mark.parametrize("strategy", [SVDD(q=1.0), SVDD(q=None), CoDe(q=None), CoDe(q=1.0)])
def test_several_draws_of_an_ode_are_refused(strategy):
    with pytest.raises(ValueError, match="several draws of an ODE are one picture"):
        run(strategy, 100)


@pytest.mark.parametrize("strategy", [SVDD(), CoDe()])
def test_a_sampler_that_runs_whole_is_refused(strategy):
    with pytest.raises(ValueError, match=r"decides between steps, and dpmpp can only be run whole"):
        run(strategy, 100, transition=Whole("dpmpp"))


@pytest.mark.parametrize(
    "strategy",
    [SVDD(sigma_high=0.25, sigma_low=0.21), CoDe(sigma_high=0.05, sigma_low=0)],
)
def test_a_window_without_steps_is_refused(strategy):
    with pytest.raises(ValueError, match="nothing would be searched; use more steps"):
        run(strategy, 100)


@pytest.mark.parametrize("strategy", [SVDD(), SVDD(plain=False), CoDe(), SequentialMonteCarlo()])
def test_sigmas_that_were_thinned_after_the_check_give_a_picture(strategy, monkeypatch):
    monkeypatch.setattr(type(strategy), "check", lambda self, sigmas, transition: None)
    for sigmas in ([1.0, 0.5, 0.0], [1.0, 0.0]):
        for evaluations in range(len(sigmas) - 1, 8):
            item, _ = run(strategy, evaluations, sigmas=sigmas)
            assert item.winners
            assert item.ledger.evaluations <= evaluations


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0}, {"candidates": -1}, {"block": -1}, {"finalists": 0}, {"q": 1.5},
        {"sigma_high": 1.1}, {"sigma_low": 0.95}, {"sigma_low": -0.1}, {"score_below": 2.0},
        {"finish_steps": 0},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(wrong):
    for kind in (SVDD, CoDe):
        with pytest.raises(ValueError, match=rf"{kind.name}: "):
            kind(**wrong)


@pytest.mark.parametrize("strategy", [SVDD(q=None, block=3), CoDe(candidates=0), BestOfN(width=2)])
def test_settings_survive_json(strategy):
    assert strategy_from_json(json.loads(json.dumps(strategy.to_json()))) == strategy
