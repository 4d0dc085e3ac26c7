"""Reference RBF takes the published code's decisions, one by one."""

import math
import random

import pytest
from published_loop import published
from toy import Scripted, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import rbf_reference
from flowsearch.samplers.search import Budget, RolloverBudgetForcing, Trace
from flowsearch.samplers.search.strategies.rollover import _Pass
from flowsearch.samplers.stepping.transition import Transition

PUBLISHED = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")


def settings(pool, **changes):
    plain = RolloverBudgetForcing.reference().to_json()
    return RolloverBudgetForcing.from_json({**plain, "pool": pool, **changes})


def decisions(strategy, rewards, budget, steps, chains=1):
    """Return what was drawn from what: (step, parent) of every draw, by order of drawing."""
    trace = Trace()
    toy = Scripted([*rewards, *([-1e6] * 1000)])
    outcome = make_search(
        toy, strategy, rbf_reference(steps), PUBLISHED, Budget(budget), chains=chains,
        on_event=trace,
    ).run()  # fmt: skip
    rows = [row for row in trace.record["evaluated"] if row["phase"] == "search"]
    place = {sigma: i for i, sigma in enumerate(rbf_reference(steps))}
    drawn = [(place[row["sigma"]], row["parent"]) for row in rows]
    finished = [row for row in trace.record["evaluated"] if row["phase"] == "finish"]
    return drawn, [row["parent"] for row in finished], outcome.items[0]


# 5 steps, so 4 drawn transitions; 24 evaluations, pool 3: quota int((24 - 3) / 5) = 4.
POOL = [0.0, 5.0, 2.0]  # node 1 is the best, r* = 5
STEP_0 = [1.0, 4.0, 6.0]  # the third draw (node 5) is better: go on, 1 rolls over
STEP_1 = [5.9, 3.0, 2.0, 5.0, 1.0]  # quota 5; used up: back to node 6, r* stays 6
STEP_2 = [5.5, 6.0, 0.0, 5.5]  # quota 4 again; equal to r* is not better; used up: node 12
STEP_3 = [7.0, 2.0, 8.0, 8.0, 7.5]  # the rest, 24 - 1 - 15 = 8 draws; the first 8 (node 17) wins
HAND = (
    [(0, None)] * 3 + [(1, 1)] * 3 + [(2, 5)] * 5 + [(3, 6)] * 4 + [(4, 12)] * 8,
    [17],
)


def test_hand_worked_decisions():
    drawn, finished, item = decisions(
        settings(3), POOL + STEP_0 + STEP_1 + STEP_2 + STEP_3, budget=24, steps=5
    )
    assert (drawn, finished) == HAND
    assert item.ledger.evaluations == 23
    assert item.plain is None


@pytest.mark.parametrize(
    "change",
    [
        {"rollover": False},
        {"accept": "never"},
        {"accept": "threshold", "threshold": 6.0},
        {"baseline": "parent"},
        {"safe_quotas": True},
        {"best_kept": True},
        {"pool": 4},
        {"exhausted": "restart"},
    ],
)
def test_each_switch_changes_the_hand_worked_decisions(change):
    rewards = POOL + STEP_0 + STEP_1 + STEP_2 + [-9.0] * 5
    reference = decisions(settings(3), rewards, budget=24, steps=5)[:2]
    assert decisions(settings(**{"pool": 3, **change}), rewards, 24, 5)[:2] != reference


def test_equal_is_not_better(monkeypatch):
    """The mutant: a draw that equals the best goes on."""
    monkeypatch.setattr(_Pass, "_accepts", lambda self, top, parent: top.score >= self.ever)
    rewards = POOL + STEP_0 + STEP_1 + STEP_2 + STEP_3
    assert decisions(settings(3), rewards, budget=24, steps=5)[:2] != HAND


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("chains", "budget", "pool", "steps"), [(1, 60, 5, 6), (2, 120, 7, 8), (2, 500, 25, 10)]
)
def test_the_published_loop_on_random_rewards(seed, chains, budget, pool, steps):
    stream = random.Random(seed)
    share = budget // chains
    rewards = [[float(stream.randrange(30)) for _ in range(share)] for _ in range(chains)]
    expected = published(rewards, chains, budget, pool, steps)
    # rounds interleave the chains: all of a round's draws are scored together, chain by chain
    merged = [row[i] for i in range(share) for row in rewards]
    trace, toy = Trace(), Scripted([*merged, *([0.0] * 100)])
    make_search(
        toy, settings(pool), rbf_reference(steps), PUBLISHED, Budget(budget), chains=chains,
        on_event=trace,
    ).run()  # fmt: skip
    place = {sigma: i for i, sigma in enumerate(rbf_reference(steps))}
    for index, (draws, output) in enumerate(expected):
        rows = [row for row in trace.record["evaluated"] if row["chain"] == index]
        search = [row for row in rows if row["phase"] == "search"]
        number = {row["id"]: i for i, row in enumerate(search)}
        assert [(place[row["sigma"]], number.get(row["parent"])) for row in search] == draws
        finished = [number[row["parent"]] for row in rows if row["phase"] == "finish"]
        assert finished == [output]


def test_the_published_settings_spend_498_of_500():
    _, _, item = decisions(settings(25), [], budget=500, steps=10, chains=2)
    assert item.ledger.evaluations == 498


def test_a_quota_of_zero_is_refused_with_its_sentence():
    with pytest.raises(ValueError, match="= 0 draws a step; raise the budget"):
        decisions(settings(25), [], budget=68, steps=10, chains=2)


def test_the_safe_quota_runs_where_the_published_one_cannot():
    _, _, item = decisions(
        settings(25, safe_quotas=True, plain=True), [], budget=68, steps=10, chains=2
    )
    assert item.winners
    assert math.isfinite(item.winners[0].scores.value)
