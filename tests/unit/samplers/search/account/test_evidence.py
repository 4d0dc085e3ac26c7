"""Held-out rewards decide nothing, and are told to fall only where they fall."""

import json
import random

import pytest
import torch
from toy import SIGMAS, MemoryCheckpoint, Toy, make_search

from flowsearch.samplers.search import (
    BestOfN,
    Budget,
    EvolutionarySearch,
    RolloverBudgetForcing,
    Scores,
    Trace,
)
from flowsearch.samplers.search.account.evidence import (
    Steered,
    correlation,
    held_out_trend,
    ranks,
    steered_change,
)
from flowsearch.samplers.search.testing.mixture import rare_mode_gradient
from flowsearch.samplers.stepping.guidance import Guidance
from flowsearch.samplers.stepping.transition import ODE, fixed_q


class WithHeldOut(Toy):
    """The toy with a second reward: any function of x, or a reason."""

    def __init__(self, second, gradient=None):
        super().__init__(gradient=gradient)
        self.second = second

    def score(self, items, denoised, sigmas):
        rows = zip(super().score(items, denoised, sigmas), denoised, sigmas, strict=True)
        return [
            Scores(s.value, s.parts, {"second": self.second(x)}, 0.25) if sigma == 0.0 else s
            for s, x, sigma in rows
        ]


def run(problem, strategy=None, evaluations=200, checkpoint=None):
    trace = Trace()
    search = make_search(
        problem, strategy or RolloverBudgetForcing(), SIGMAS, ODE, Budget(evaluations), seed=4,
        on_event=trace, checkpoint=checkpoint,
    )  # fmt: skip
    return trace, search.run()


STRATEGIES = [EvolutionarySearch(), RolloverBudgetForcing(), BestOfN()]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=["default", "descent", "best_of_n"])
@pytest.mark.parametrize("second", [lambda x: -float(x.sum()), lambda x: "it has none"])
def test_a_search_is_the_same_with_and_without(strategy, second):
    plain_trace, plain = run(Toy(), strategy)
    trace, held = run(WithHeldOut(second), strategy)
    assert torch.equal(plain.items[0].winners[0].state["x"], held.items[0].winners[0].state["x"])
    drop = ("scores", "seconds", "score_seconds")
    for kind in ("evaluated", "chosen", "finished"):
        mine, theirs = (
            [{k: v for k, v in row.items() if k not in drop} for row in t.record[kind]]
            for t in (trace, plain_trace)
        )
        assert mine == theirs
    assert trace.held_out() == ["second"]
    assert plain_trace.held_out() == []


def test_what_held_out_rewards_take_is_not_charged():
    trace, outcome = run(WithHeldOut(lambda x: 0.0))
    finished = len(trace.record["finished"])
    # a quarter of a second a picture was claimed that never passed
    assert outcome.items[0].ledger.seconds < 5.0 - 0.25 * finished


def test_they_survive_a_checkpoint():
    kept = MemoryCheckpoint()
    trace, _ = run(WithHeldOut(lambda x: float(x[0])), checkpoint=kept)
    again, _ = run(WithHeldOut(lambda x: 1.0 / 0.0), checkpoint=kept)
    assert again.held_out_curve(0, "second") == trace.held_out_curve(0, "second")
    assert json.loads(json.dumps(again.to_json()))["finished"] == trace.to_json()["finished"]


def test_the_curve_is_of_the_best_by_the_searched_reward():
    trace, outcome = run(WithHeldOut(lambda x: float(x[1])))
    curve = trace.held_out_curve(0, "second")
    assert curve[-1]["value"] == outcome.items[0].winners[0].scores.held_out["second"]
    assert len(curve) == sum(row["best"] for row in trace.record["finished"])


def test_ranks_share_ties():
    assert ranks([3.0, 1.0, 3.0, 2.0]) == [2.5, 0.0, 2.5, 1.0]


def test_correlation_is_around_each_groups_own_means():
    up, far = [(0.0, 0.0), (1.0, 1.0)], [(100.0, -50.0), (101.0, -49.0)]
    assert correlation([up, [], far]) == pytest.approx(1.0)
    assert correlation([[*up, *far]]) == pytest.approx(-1.0, abs=0.01)
    assert correlation([[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]]) is None


def finished(number, value, held_out, parent=None, item=0):
    scores = {"value": value, "held_out": {"second": held_out}}
    return {"item": item, "id": number, "parent": parent, "sigma": 0.0, "scores": scores}


def noise(seed, number=24):
    rng = random.Random(seed)
    return [finished(i, rng.gauss(0, 1), rng.gauss(0, 1)) for i in range(number)]


def test_the_trend_tells_falling_from_rising_and_from_noise():
    falling = [finished(i, float(i % 7), -float(i % 7) + 0.1 * (i % 3)) for i in range(20)]
    rising = [finished(i, float(i % 7), float(i % 7)) for i in range(20)]
    assert held_out_trend(falling, "second").p == 0.001
    assert held_out_trend(rising, "second").p > 0.99
    alarms = sum(held_out_trend(noise(seed), "second").p < 0.05 for seed in range(100))
    assert alarms <= 12, "expected 5, two and a half standard errors above are 10"


def test_a_family_is_no_evidence_by_its_number():
    """Offspring resemble their ancestor: those of a good and of a poor one are not 20 cases."""
    alarms = 0
    for seed in range(60):
        rng = random.Random(seed)
        rows = [finished(0, 0.0, 1.0), finished(1, 1.0, -1.0)]
        for i in range(2, 22):
            value, held_out = ((0.0, 1.0), (1.0, -1.0))[i % 2]
            pair = value + rng.gauss(0, 0.3), held_out + rng.gauss(0, 0.3)
            rows.append(finished(i, *pair, parent=i % 2))
        alarms += held_out_trend(rows, "second").p < 0.05
    assert alarms <= 9
    falling = [finished(0, 0.0, 1.0)]
    falling += [finished(i, 0.1 * i, 1.0 - 0.1 * i, parent=0) for i in range(1, 12)]
    assert held_out_trend(falling, "second").p < 0.01


def test_pictures_without_a_value_do_not_count():
    rows = noise(1)
    rows += [finished(100 + i, 1.0, "it broke") for i in range(5)]
    assert held_out_trend(rows, "second").n == 24
    rows += [finished(200, 2.0, 1.0, parent=100)]  # its change is not known
    assert held_out_trend(rows, "second").n == 24
    assert held_out_trend(rows, "another").correlation is None
    assert held_out_trend([], "second").p == 1.0


# ---- the first few pictures of a gradient ----


def steered(second, evaluations, guidance):
    trace = Trace()
    make_search(
        WithHeldOut(second, rare_mode_gradient), BestOfN(width=1), SIGMAS,
        fixed_q(0.5).guided(guidance), Budget(evaluations), seed=4, on_event=trace,
    ).run()  # fmt: skip
    return steered_change(trace.record["evaluated"], "second")


def test_two_steered_pictures_are_enough_for_a_hint():
    guidance = Guidance(strength=0.9, fade=0.0)
    found = steered(
        lambda x: -float(x[2]), 30, guidance
    )  # the rare mode has a high third coordinate
    assert found.n == found.fell == 2
    assert found.is_a_hint
    assert found.reward[1] > found.reward[0]
    said = found.sentence("toy", "second")
    for number in (*found.reward, *found.held_out):
        assert f"{number:.4g}" in said
    assert not steered(lambda x: float(x[2]), 30, guidance).is_a_hint
    assert steered(lambda x: -float(x[2]), 20, guidance).n == 1
    assert not steered(lambda x: -float(x[2]), 20, guidance).is_a_hint


def test_without_gradients_there_is_no_hint():
    trace, _ = run(WithHeldOut(lambda x: float(x[0])), BestOfN())
    found = steered_change(trace.record["evaluated"], "second")
    assert found == Steered(0, 0, (0.0, 0.0), (0.0, 0.0), 1.0)
    assert not found.is_a_hint


def test_a_hint_is_a_sign_test_over_the_first_of_each_family():
    def row(number, parent, value, second, phase="search", gradients=1, sigma=0.0):
        scores = {"value": value, "held_out": {"second": second}}
        return {
            "item": 0, "id": number, "parent": parent, "sigma": sigma, "phase": phase,
            "scores": scores, "gradients": gradients,
        }  # fmt: skip

    rows = [row(0, None, 0.0, 1.0, "plain", 0)]
    rows += [row(n, None, 1.0, 0.5) for n in range(1, 5)]
    rows += [row(n, None, 1.0, 1.5) for n in range(5, 7)]
    rows += [row(7, 1, 2.0, 0.1), row(8, None, -1.0, 0.1), row(9, None, 2.0, 0.1, "search", 0)]
    found = steered_change(rows, "second")
    assert (found.n, found.fell) == (6, 4)
    assert found.p == pytest.approx((15 + 6 + 1) / 64)
    assert not found.is_a_hint
    assert steered_change(rows[:5], "second").is_a_hint
    assert found.reward == (0.0, 1.0)
    assert found.held_out == pytest.approx((1.0, 5.0 / 6.0))
