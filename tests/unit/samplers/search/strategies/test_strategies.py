"""Strategies: settings, refusals, and where RBF draws."""

import json

import pytest
import torch
from toy import SIGMAS, Scripted, Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import (
    STRATEGIES,
    BestOfN,
    Budget,
    RolloverBudgetForcing,
    Trace,
    strategy_from_json,
)
from flowsearch.samplers.stepping.transition import ODE, Transition, fixed_q

RBF = RolloverBudgetForcing


def run(strategy, evaluations, toy=None, transition=ODE, **more):
    trace = Trace()
    outcome = make_search(
        toy or Toy(), strategy, SIGMAS, transition, Budget(evaluations), on_event=trace, **more
    ).run()
    return outcome.items[0], trace


# ---- settings ----


@pytest.mark.parametrize(
    "strategy",
    [
        RBF(),
        RBF(q=None, draws=3),
        RBF.reference(),
        RBF.reference(8),
        BestOfN(width=2),
    ],
)
def test_settings_survive_json(strategy):
    assert strategy_from_json(json.loads(json.dumps(strategy.to_json()))) == strategy


def test_every_strategy_is_registered_under_its_name():
    ours = [
        "evolutionary",
        "rbf",
        "best_of_n",
        "svdd",
        "code",
        "smc",
        "search_over_paths",
        "zero_order",
    ]
    assert [*STRATEGIES][: len(ours)] == ours, "names stand in saved workflows"
    assert [cls.name for cls in STRATEGIES.values()] == [*STRATEGIES]


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match=r"rbf has no setting \['widht'\]; it has: width"):
        RBF.from_json({"widht": 3})
    with pytest.raises(ValueError, match="settings of 'rbf', not of 'best_of_n'"):
        BestOfN.from_json({"strategy": "rbf"})
    with pytest.raises(ValueError, match="unknown strategy 'beam'"):
        strategy_from_json({"strategy": "beam"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 0},
        {"pool": -1},
        {"draws": -1},
        {"passes": 0},
        {"finalists": 0},
        {"q": 1.5},
        {"pool_share": -0.1},
        {"sigma_high": 1.1},
        {"sigma_low": 0.95},
        {"score_below": 2.0},
        {"accept": "maybe"},
        {"baseline": "none"},
        {"exhausted": "explode"},
        {"finish_steps": 0},
        {"threshold": float("nan")},
        {"safe_quotas": False, "pool": 0},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="rbf: "):
        RBF(**wrong)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"candidates": -1}])
def test_values_out_of_range_are_refused_by_best_of_n(wrong):
    with pytest.raises(ValueError, match="best_of_n: "):
        BestOfN(**wrong)


# ---- what cannot help ----


def test_several_draws_of_an_ode_are_refused():
    for strategy in (RBF(q=1.0), RBF(q=None)):
        with pytest.raises(ValueError, match="several draws of an ODE are one picture"):
            run(strategy, 100)


def test_a_pool_in_front_of_forgetting_is_refused():
    k_1 = Transition(noise_law("constant_k", k=1.0))
    with pytest.raises(ValueError, match=r"from sigma 1 to 0.9 keeps nothing .* is lost"):
        run(RBF(q=None, sigma_high=1.0, score_below=1.0), 100, transition=k_1)
    with pytest.raises(ValueError, match="keeps nothing of its noise"):
        run(RBF(q=0.0), 100)
    item, _ = run(RBF(q=None), 100, transition=k_1)  # below sigma 1 the same law keeps some
    assert item.winners


def test_a_window_without_transitions_is_refused():
    with pytest.raises(ValueError, match="nothing would be searched; use more steps"):
        run(RBF(sigma_high=0.05, sigma_low=0.01), 100)


# ---- where it draws ----


def drawn(trace):
    """Return draws per transition of the first pass: {(from, to): count}."""
    counts = {}
    for row in trace.record["evaluated"]:
        if row["phase"] == "search" and row["pass_"] == 0 and row["key"][4:5] == (2,):
            place = (row["sigma_from"], row["sigma"])
            counts[place] = counts.get(place, 0) + 1
    return counts


def test_draws_stay_in_the_window():
    settings = RBF(accept="never", sigma_high=0.75, sigma_low=0.35, score_below=0.6, draws=4)
    _, trace = run(settings, 60)
    assert drawn(trace) == {(0.7, 0.6): 4, (0.6, 0.5): 4, (0.5, 0.4): 4, (0.4, 0.3): 4}
    unscored = [r for r in trace.record["evaluated"] if r["scores"] is None]
    assert all(row["sigma"] > 0.6 or row["phase"] == "finish" for row in unscored)


def test_one_pass_spends_what_it_was_given():
    for evaluations in range(40, 300, 13):
        item, trace = run(RBF(accept="never", best_kept=False), evaluations)
        first = [r for r in trace.record["evaluated"] if r["pass_"] == 0]
        assert sum(row["evaluations"] for row in first) == evaluations
        assert item.ledger.evaluations == evaluations


def test_passes_share_the_budget():
    _, trace = run(RBF(accept="never", passes=4, best_kept=False), 250)
    spent = {}
    for row in trace.record["evaluated"]:
        if row["chain"] == 0:
            spent[row["pass_"]] = spent.get(row["pass_"], 0) + row["evaluations"]
    assert [*spent.values()] == [60, 60, 60, 60]


def test_a_sigma_rounded_to_float32_is_the_sigma():
    for exact in (0.95, 0.9, 0.8, 0.7):
        rounded = float(torch.tensor(exact, dtype=torch.float32))
        lists = [[1.0, s, 0.6, 0.0] for s in (exact, rounded)]
        assert RBF().searched(lists[0]) == RBF().searched(lists[1])


def test_an_exhausted_quota_can_give_the_pass_up():
    falling = [float(-i) for i in range(400)]
    item, trace = run(RBF(draws=3, exhausted="restart", plain=False), 120, Scripted(falling))
    assert len({row["pass_"] for row in trace.record["evaluated"]}) > 5
    assert item.winners


def test_a_threshold_goes_on_at_once():
    rewards = Scripted([5.0] * 400)
    _, trace = run(RBF(draws=6, width=2, accept="threshold", threshold=4.0), 80, rewards)
    assert set(drawn(trace).values()) == {2}
    _, trace = run(
        RBF(draws=6, width=2, accept="threshold", threshold=6.0), 80, Scripted([5.0] * 400)
    )
    assert set(drawn(trace).values()) == {6}


def test_what_is_left_rolls_over_in_integers():
    # pool of 1, so the first draw always improves on nothing; then nothing does
    rewards = Scripted([0.0] * 10 + [1.0] + [0.0] * 300)
    _, trace = run(RBF(draws=5, width=2, pool=1), 90, rewards)
    assert [*drawn(trace).values()][:3] == [5, 5, 5]
    rewards = Scripted([0.0] * 10 + [0.0, 1.0, 1.0] + [0.0] * 300)
    _, trace = run(RBF(draws=5, width=2, pool=1), 90, rewards)
    assert [*drawn(trace).values()][:3] == [2, 8, 5]
    rewards = Scripted([0.0] * 10 + [0.0, 1.0, 1.0] + [0.0] * 300)
    _, trace = run(RBF(draws=5, width=2, pool=1, rollover=False), 90, rewards)
    assert [*drawn(trace).values()][:3] == [2, 5, 5]


def test_finalists_are_finished_side_by_side():
    _, trace = run(RBF(draws=4, finalists=3, best_kept=False), 60)
    ends = [
        row
        for row in trace.record["evaluated"]
        if row["phase"] == "finish" and row["pass_"] == 0 and row["sigma"] == 0.0
    ]
    assert len(ends) == 3


def test_the_best_ever_is_finished_too():
    rewards = [0.0] * 10 + [0.0, 9.0, 1.0] + [0.5] * 300
    for kept, count in ((True, 2), (False, 1)):
        _, trace = run(RBF(draws=3, pool=1, width=3, best_kept=kept), 60, Scripted(rewards))
        first = [
            row
            for row in trace.record["evaluated"]
            if row["phase"] == "finish" and row["pass_"] == 0 and row["sigma"] == 0.0
        ]
        assert len(first) == count


def test_a_small_budget_branches_from_the_plain_sample():
    _, trace = run(RBF(), 19)
    first = next(row for row in trace.record["evaluated"] if row["phase"] == "search")
    assert first["parent"] is not None
    assert first["key"][2:] == (0, 2, 2, 0)


def test_best_of_n_takes_as_many_as_it_was_told():
    item, trace = run(BestOfN(candidates=5, width=2), 500)
    assert item.ledger.evaluations == 60
    assert item.why == "done"
    values = [row["scores"]["value"] for row in trace.record["finished"]]
    assert len(values) == 6
    assert item.winners[0].scores.value == max(values)


def test_best_of_n_draws_with_the_connected_transition():
    _, ode = run(BestOfN(), 60)
    _, sde = run(BestOfN(), 60, transition=fixed_q(0.9))
    kinds = {row["transition"]["law"]["name"] for row in sde.record["evaluated"] if row["parent"]}
    assert kinds == {"fixed_q"}
    assert ode.record["finished"] != sde.record["finished"]
