"""What a search gains on an exact model: best-of-N is the maximum of N, RBF finds a rare mode."""

import math
import statistics
from functools import cache

import pytest
import torch
from toy import MEANS, SIGMAS, Noise, Toy, make_search

from flowsearch.samplers.search import (
    SVDD,
    BestOfN,
    Budget,
    CoDe,
    EvolutionarySearch,
    RolloverBudgetForcing,
    Trace,
)
from flowsearch.samplers.stepping.transition import ODE

ITEMS = range(200)
FEW = range(80)  # where a search finds the rare mode in twice as many: 6 standard errors and more


def reward(item, x):
    """Minus the distance to the rare mode, the same for every item."""
    return -float((x - MEANS[2].to(x)).norm())


def run(strategy, evaluations, toy=None, seed=0, items=ITEMS):
    trace = Trace()
    outcome = make_search(
        toy or Toy(reward), strategy, SIGMAS, ODE, Budget(evaluations), items=[*items], seed=seed,
        rows_per_call=4096, on_event=trace,
    ).run()  # fmt: skip
    return outcome, trace


def bests(outcome):
    return [one.winners[0].scores.value for one in outcome.items]


def expected_best(values, n):
    """Return the mean of the maximum of n draws, from a large sample."""
    ranked, size = sorted(values), len(values)
    return math.fsum(
        value * (((i + 1) / size) ** n - (i / size) ** n) for i, value in enumerate(ranked)
    )


@pytest.fixture(scope="module")
def singles():
    outcome, _ = run(BestOfN(), 10, items=range(3000), seed=77)
    return bests(outcome)


@pytest.mark.parametrize("n", [2, 5, 10])
def test_best_of_n_is_the_maximum_of_n_independent_pictures(singles, n):
    values = bests(run(BestOfN(width=3), 10 * n)[0])
    error = statistics.stdev(values) / math.sqrt(len(values))
    tolerance = 4.0 * math.hypot(error, statistics.stdev(singles) / math.sqrt(len(singles)) * n)
    assert statistics.fmean(values) == pytest.approx(expected_best(singles, n), abs=tolerance)


class Repeating(Toy):
    """The mutant: candidates share their noise."""

    def noise(self, seed, items, keys):
        return Noise(self, seed, items, [()] * len(keys))


def test_candidates_that_share_noise_are_seen(singles):
    values = bests(run(BestOfN(width=3), 50, Repeating(reward))[0])
    error = statistics.stdev(values) / math.sqrt(len(values))
    assert abs(statistics.fmean(values) - expected_best(singles, 5)) > 6.0 * error


SEARCHES = {
    "default": EvolutionarySearch(),
    "rbf": RolloverBudgetForcing(),
    "svdd": SVDD(),
    "code": CoDe(),
}


@cache
def found(strategy, evaluations):
    """For each item whether the rare mode was found; of longer runs fewer items say as much."""
    items = FEW if evaluations <= 100 else FEW[:40]
    return [value > -1.2 for value in bests(run(strategy, evaluations, items=items)[0])]


@pytest.mark.parametrize(
    ("settings", "evaluations"),
    [(name, count) for name in ("default", "rbf") for count in (100, 200)]
    + [("svdd", 100), ("code", 100)],
)
def test_it_finds_the_rare_mode_more_often_than_best_of_n(settings, evaluations):
    mine, theirs = (found(each, evaluations) for each in (SEARCHES[settings], BestOfN()))
    gain = [int(a) - int(b) for a, b in zip(mine, theirs, strict=True)]
    error = statistics.stdev(gain) / math.sqrt(len(gain))
    assert statistics.fmean(gain) > 3.0 * error > 0.0


def test_a_search_that_keeps_the_worst_gains_nothing(singles):
    """The mutant: rewards of the wrong sign."""
    outcome, _ = run(RolloverBudgetForcing(), 100, Toy(lambda item, x: -reward(item, x)), items=FEW)
    wrong = [-value for value in bests(outcome)]
    assert statistics.fmean(wrong) < statistics.fmean(singles)


def test_early_scores_rank_finished_pictures_better_at_lower_sigma():
    _, trace = run(RolloverBudgetForcing(draws=2, pool=1), 150, items=FEW)
    table = {row["sigma"]: row["correlation"] for row in trace.early_correlation()}
    assert table[0.9] < table[0.7] < table[0.5]
    assert table[0.5] > 0.9


def test_the_reference_improves_on_its_pool():
    """Reference mode on the published sigmas: the output's score is above the pool's best."""
    from flowsearch.samplers.paths.noise_law import noise_law
    from flowsearch.samplers.paths.sigmas import rbf_reference
    from flowsearch.samplers.stepping.transition import Transition

    trace = Trace()
    outcome = make_search(
        Toy(reward), RolloverBudgetForcing.reference(), rbf_reference(10),
        Transition(noise_law("rbf_reference"), "euler_maruyama", "vp"), Budget(200),
        items=[*range(60)], chains=2, rows_per_call=4096, on_event=trace,
    ).run()  # fmt: skip
    first = rbf_reference(10)[0]
    gains = []
    for one in outcome.items:
        pool = max(
            row["scores"]["value"]
            for row in trace.record["evaluated"]
            if row["item"] == one.item and row["sigma"] == first
        )
        gains.append(one.winners[0].scores.value - pool)
    assert statistics.fmean(gains) > 3.0 * statistics.stdev(gains) / math.sqrt(len(gains))
    assert all(torch.isfinite(one.winners[0].state["x"]).all() for one in outcome.items)
