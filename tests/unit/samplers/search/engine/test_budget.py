"""What a run may spend: rows, any budget from one evaluation, a target that is measured."""

import dataclasses
import itertools
import math
import random

import pytest
import scipy.stats
import torch
from toy import SIGMAS, Interrupted, MemoryCheckpoint, Scripted, Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import STRATEGIES, BestOfN, Budget, Ledger, Trace, Whole
from flowsearch.samplers.search.engine.calibration import students_t, top_target
from flowsearch.samplers.search.engine.plan import spread
from flowsearch.samplers.stepping.transition import ODE, Transition

RBF = STRATEGIES["rbf"]
GLASS = Transition(noise_law("constant_k", k=0.5), "glass", inner_evaluations=3)
NO_PLAIN = [
    dataclasses.replace(cls(), plain=False)
    for cls in STRATEGIES.values()
    if "plain" in {field.name for field in dataclasses.fields(cls)}
]


class Guided(Toy):
    """A model with rows of its own: two an evaluation at high sigma, three below .5."""

    def __init__(self, *given, each=(2, 3), **more):
        super().__init__(*given, **more)
        self.each, self.network = each, 0

    def predict(self, items, state, sigma):
        each = self.each[sigma < 0.5]
        self.network += each * len(items)
        out = super().predict(items, state, sigma)
        return {**out, "rows": torch.full((len(items),), each)}


def run(strategy, budget, toy=None, transition=ODE, **more):
    toy, trace = toy or Toy(), Trace()
    search = make_search(toy, strategy, SIGMAS, transition, budget, on_event=trace, **more)
    return search.run(), trace, toy


def phases(trace, phase):
    return [row for row in trace.record["evaluated"] if row["phase"] == phase]


# ---- rows ----


@pytest.mark.parametrize("rows", [1, 19, 24, 60, 240])
@pytest.mark.parametrize("strategy", [cls() for cls in STRATEGIES.values()] + NO_PLAIN, ids=repr)
def test_rows_are_a_budget(rows, strategy):
    outcome, _, toy = run(strategy, Budget(10_000, rows=rows), Guided(), chains=2)
    (item,) = outcome.items
    assert item.ledger.rows == toy.network
    assert item.ledger.evaluations == toy.rows[0]
    assert item.winners, "finishing fitted too"
    if strategy.plain and rows > 1:
        assert toy.network <= rows, "the plain sample measures every sigma's rows"
        assert item.why == "done" or toy.network > rows - 60, "less than a sample a chain is left"
    assert item.why in ("rows", "budget", "done")


def test_the_dearest_evaluation_seen_decides_what_rows_are_worth():
    spent = Ledger()
    for rows in (4, 1):
        spent.charge("search", 1, rows, False, 0.0)
    assert Budget(1000, rows=20).left(spent) == (20 - 5) // 4
    outcome, _, toy = run(BestOfN(width=1), Budget(10_000, rows=100), Guided(each=(1, 4)))
    assert outcome.items[0].ledger.rows_per_evaluation == 4.0
    assert outcome.items[0].why == "rows"
    assert toy.network <= 100


# ---- from one evaluation ----


@pytest.mark.parametrize("evaluations", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("strategy", [RBF(), BestOfN(), *NO_PLAIN], ids=repr)
@pytest.mark.parametrize("transition", [ODE, GLASS, Whole("euler")], ids=["ode", "glass", "whole"])
def test_any_budget_gives_a_picture(evaluations, strategy, transition):
    if transition is not ODE and strategy.name != "best_of_n":
        return  # some refuse it
    toy = Toy()
    toy.whole_steps = 10
    outcome, _, _ = run(strategy, Budget(evaluations), toy, transition)
    (item,) = outcome.items
    assert 1 <= item.ledger.evaluations == toy.rows[0] <= evaluations
    assert item.winners[0].node.sigma == 0.0
    assert item.why == "budget"
    assert any("thinned" in note for note in outcome.notes) or not strategy.plain
    if transition is ODE and strategy.plain:
        assert toy.rows[0] == evaluations, "all of it is used"


def test_one_evaluation_jumps_to_the_prediction():
    _, trace, _ = run(RBF(), Budget(1))
    rows = trace.record["evaluated"]
    assert [row["sigma"] for row in rows] == [1.0, 0.0]
    seven, trace, _ = run(RBF(), Budget(4))
    kept = [row["sigma"] for row in trace.record["evaluated"]]
    assert kept == list(spread(SIGMAS, 4)) == [1.0, 0.7, 0.5, 0.2, 0.0]
    alone, _, _ = run(BestOfN(candidates=0), Budget(4))
    x = [one.items[0].winners[0].state["x"] for one in (seven, alone)]
    assert torch.equal(*x)


def test_a_whole_budget_is_not_thinned():
    outcome, _, _ = run(RBF(), Budget(10))
    assert not any("thinned" in note for note in outcome.notes)


@pytest.mark.parametrize("n", range(1, 12))
def test_spread_keeps_the_ends(n):
    for steps in range(1, n + 1):
        kept = spread(range(n + 1), steps)
        assert (kept[0], kept[-1], len(set(kept))) == (0, n, steps + 1)
        gaps = [b - a for a, b in itertools.pairwise(kept)]
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("budget", [Budget(4), Budget(100, rows=9)], ids=["evaluations", "rows"])
def test_a_thinned_run_is_resumed(budget):
    expected, whole, _ = run(RBF(), budget, Guided())
    for call in range(expected.items[0].ledger.evaluations):
        checkpoint, toy = MemoryCheckpoint(), Guided()
        toy.fail_at = call
        with pytest.raises(Interrupted):
            run(RBF(), budget, toy, checkpoint=checkpoint)
        again, trace, toy = run(RBF(), budget, Guided(), checkpoint=checkpoint)
        assert torch.equal(
            again.items[0].winners[0].state["x"], expected.items[0].winners[0].state["x"]
        )
        sigmas = [[row["sigma"] for row in one.record["evaluated"]] for one in (trace, whole)]
        assert sigmas[0] == sigmas[1]
        assert again.items[0].ledger.rows == expected.items[0].ledger.rows > toy.network or not call


def test_a_thinned_plain_sample_is_taken_in_full_when_the_budget_allows():
    checkpoint, trace = MemoryCheckpoint(), Trace()
    run(RBF(), Budget(4), checkpoint=checkpoint)
    toy = Toy()
    search = make_search(toy, RBF(), SIGMAS, ODE, Budget(60), on_event=trace, checkpoint=checkpoint)
    outcome = search.run()
    full, _, _ = run(RBF(), Budget(60))
    assert torch.equal(outcome.items[0].plain.state["x"], full.items[0].plain.state["x"])
    assert outcome.items[0].ledger.evaluations == 4 + toy.rows[0] <= 60
    assert not any("thinned" in note for note in outcome.notes)


# ---- top p percent ----


def test_students_t_is_scipys():
    for freedom in (3, 4, 7, 15):
        for p in (0.02, 0.2, 0.5, 0.8, 0.95, 0.98):
            assert students_t(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=1e-2)


@pytest.mark.parametrize("percent", [2.0, 5.0, 20.0])
@pytest.mark.parametrize("n", [6, 16])
def test_p_percent_of_plain_samples_are_above_the_target(percent, n):
    rng, above = random.Random(n), []
    for _ in range(3000):
        target = top_target([rng.gauss(3.0, 2.0) for _ in range(n)], percent)
        above.append(1.0 - scipy.special.ndtr((target - 3.0) / 2.0))
    mean, error = sum(above) / len(above), scipy.stats.sem(above)
    assert abs(mean - percent / 100.0) < 5 * error + 0.02 * percent / 100.0


def test_targets_at_the_ends():
    assert top_target([0.0, -1.0, -0.5, -0.5], 5.0, highest=0.0) == 0.0
    assert top_target([1.0] * 16, 5.0) is None
    assert top_target([0.0] * 16, 5.0, highest=1.0) == 1.0
    assert top_target([1.0, 2.0, 3.0], 5.0) is None


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("transition", [ODE, Whole("euler")], ids=["ode", "whole"])
def test_sixteen_plain_samples_calibrate(plain, transition):
    strategy = BestOfN(plain=plain)
    outcome, trace, toy = run(strategy, Budget(1000, top=1.0), transition=transition, chains=2)
    (item,) = outcome.items
    each = toy.whole_steps if isinstance(transition, Whole) else 10
    assert item.ledger.phases.get("calibrate", 0) == (15 if plain else 16) * each
    assert item.ledger.evaluations == toy.rows[0]
    taken = [r for r in trace.record["evaluated"] if r["phase"] in ("plain", "calibrate")]
    scores = [row["scores"]["value"] for row in taken if row["sigma"] == 0.0]
    assert len(scores) == 16
    target = top_target(scores, 1.0)
    assert trace.record["stopped"][0]["target"] == target
    best = item.winners[0].scores.value
    assert best >= max(scores), "they are candidates for winner"
    assert (item.why == "target") == (best >= target)
    if item.why == "target":
        before = [r for r in trace.record["finished"] if r["scores"]["value"] >= target]
        assert before[0]["spent"] >= item.ledger.evaluations - 2 * 4 * each
    assert any("measured on 16 plain samples" in note for note in outcome.notes)


def test_calibration_draws_other_starts_as_the_sampler_does():
    """Plain samples: the connected sampler, unchanged, from independent noise."""
    _, trace, toy = run(BestOfN(), Budget(320, top=5.0), transition=GLASS)
    steps = phases(trace, "calibrate")
    assert {row["sigma_from"] for row in steps} == {None, *SIGMAS[:-1]}
    drawn = [r["transition"] for r in steps if r["sigma_from"] is not None]
    assert all(how == GLASS.to_json() for how in drawn)
    assert len(toy.drawn) == len(set(toy.drawn))


@pytest.mark.parametrize(
    ("budget", "count"),
    [
        (Budget(320, top=5.0), 16),
        (Budget(319, top=5.0), 15),
        (Budget(100, top=5.0), 5),
        (Budget(79, top=5.0), 1),
        (Budget(1000, top=5.0, rows=160), 8),
        (Budget(1000, top=5.0, reward_calls=20), 10),
    ],
)
def test_calibration_takes_at_most_half_of_the_budget(budget, count):
    outcome, trace, _ = run(BestOfN(), budget)
    done = [row for row in phases(trace, "calibrate") if row["sigma"] == 0.0]
    assert 1 + len(done) == count
    assert outcome.items[0].ledger.evaluations <= budget.evaluations
    told = "measured on" if count >= 4 else "too few plain samples"
    assert any(told in note for note in outcome.notes)


def test_the_target_stops_the_search():
    rewards = [0.0, 1.0] * 8 + [0.9] * 8 + [2.0] + [5.0] * 100
    outcome, trace, _ = run(BestOfN(width=1), Budget(1000, top=5.0), Scripted(rewards))
    target = top_target(rewards[:16], 5.0)
    assert 1.0 < target < 2.0
    assert outcome.items[0].why == "target"
    assert outcome.items[0].winners[0].scores.value == 2.0
    assert len(trace.record["finished"]) == 25


def test_the_highest_reward_needs_no_calibration():
    outcome, _, toy = run(BestOfN(), Budget(400, top=5.0, highest=1.0), Scripted([1.0] * 99))
    assert (toy.rows[0], outcome.items[0].why) == (10, "target")
    rewards = [0.0, 0.5, 0.1, 1.0, 0.2, *[0.0] * 99]
    outcome, _, toy = run(BestOfN(), Budget(400, top=5.0, highest=1.0), Scripted(rewards))
    assert (toy.rows[0], outcome.items[0].why) == (50, "target")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_calibration_ends_with_the_seconds_between_pictures():
    """One round takes two ticks here: the plain sample and one group are 21 rounds."""
    budget, checkpoint = Budget(1000, seconds=60.0, top=5.0), MemoryCheckpoint()
    given = {"checkpoint": checkpoint, "clock": Clock()}
    outcome, trace, _ = run(BestOfN(), budget, **given)
    done = [row for row in phases(trace, "calibrate") if row["sigma"] == 0.0]
    assert outcome.items[0].why == "seconds"
    assert 0 < len(done) < 15
    assert len(done) % 4 == 0
    assert len(phases(trace, "calibrate")) == 11 * len(done), "what was begun is finished"
    again, trace, toy = run(BestOfN(), budget, **given)
    assert toy.calls == []
    assert again.items[0].ledger.phases == outcome.items[0].ledger.phases


def test_strategies_are_told_the_plain_scores():
    class Asks(BestOfN):
        """Best-of-N that notes what it knows when it starts."""

        def search(self, spec):
            seen.append(spec.plain_scores)
            return super().search(spec)

    seen = []
    _, trace, _ = run(Asks(), Budget(400, top=5.0))
    rows = [r for r in trace.record["evaluated"] if r["phase"] in ("plain", "calibrate")]
    assert list(seen[0]) == [r["scores"]["value"] for r in rows if r["sigma"] == 0.0]
    assert len(seen[0]) == 16
    seen.clear()
    run(Asks(), Budget(400))
    assert len(seen[0]) == 1


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (Budget(100), Budget(400, top=5.0)),
        (Budget(100, top=5.0), Budget(400, top=5.0)),
        (Budget(400, top=20.0), Budget(400, top=1.0)),
        (Budget(100, top=5.0), Budget(400)),
        (Budget(400, rows=90), Budget(400, rows=250)),
        (Budget(4), Budget(6)),
    ],
)
@pytest.mark.parametrize("strategy", [RBF(draws=2), BestOfN()], ids=["rbf", "best_of_n"])
def test_another_target_or_limit_goes_on(first, then, strategy):
    checkpoint, toy, short, long = MemoryCheckpoint(), Toy(), Trace(), Trace()
    given = {"chains": 2, "checkpoint": checkpoint}
    before = (
        make_search(Toy(), strategy, SIGMAS, ODE, first, on_event=short, **given).run().items[0]
    )
    outcome = make_search(toy, strategy, SIGMAS, ODE, then, on_event=long, **given).run()
    after = outcome.items[0]
    assert not any("afresh" in note for note in outcome.notes)
    assert after.ledger.evaluations == before.ledger.evaluations + toy.rows.get(0, 0)
    assert after.winners[0].scores.value >= before.winners[0].scores.value
    key = [(row["id"], row["key"], row["sigma"]) for row in short.record["evaluated"]]
    assert [(row["id"], row["key"], row["sigma"]) for row in long.record["evaluated"]][
        : len(key)
    ] == key
    if then.top:
        taken = [r for r in long.record["evaluated"] if r["phase"] in ("plain", "calibrate")]
        assert sum(row["sigma"] == 0.0 for row in taken) >= 8
        scores = [row["scores"]["value"] for row in taken if row["sigma"] == 0.0]
        assert long.record["stopped"][0]["target"] == top_target(scores, then.top)
        assert after.why == "target" or after.ledger.evaluations > 380


def test_a_calibration_that_was_cut_short_is_not_gone_on_with_for_another_target():
    checkpoint, toy = MemoryCheckpoint(), Toy()
    toy.fail_at = 25
    with pytest.raises(Interrupted):
        run(BestOfN(), Budget(400, top=5.0), toy, checkpoint=checkpoint)
    outcome, trace, _ = run(BestOfN(), Budget(400), checkpoint=checkpoint)
    done = [row for row in phases(trace, "calibrate") if row["sigma"] == 0.0]
    assert len(done) == 8, "the four that were in hand, and four before them"
    assert outcome.items[0].ledger.evaluations == 400


class Adaptive(Toy):
    """A stock sampler that takes more than was foretold, by candidate."""

    def move(self, items, state, sigma_from, to, transition, noise):
        out = super().move(items, state, sigma_from, to, transition, noise)
        extra = [7 + int(8 * abs(float(x[0]))) % 5 for x in state["x"]]
        for item, count in zip(items, extra, strict=True):
            self.rows[item] += count - self.whole_steps
        return {**out, "evaluations": torch.tensor(extra)}


@pytest.mark.parametrize("call", range(2, 40, 6))
def test_what_a_sampler_was_seen_to_take_is_read_from_the_log(call):
    """Decisions by what was measured must be the same when a log is replayed."""
    given = {"transition": Whole("dpm_adaptive"), "chains": 2, "rows_per_call": 1}
    expected, _, toy = run(BestOfN(), Budget(150), Adaptive(), **given)
    assert expected.items[0].ledger.evaluations == toy.rows[0] <= 150
    assert toy.rows[0] > 150 - 2 * 11, "less than the dearest sample a chain is left"
    checkpoint, toy = MemoryCheckpoint(), Adaptive()
    toy.fail_at = call
    with pytest.raises(Interrupted):
        run(BestOfN(), Budget(150), toy, checkpoint=checkpoint, **given)
    again, _, _ = run(BestOfN(), Budget(150), Adaptive(), checkpoint=checkpoint, **given)
    assert again.notes == []
    assert again.items[0].ledger.phases == expected.items[0].ledger.phases
    assert torch.equal(
        again.items[0].winners[0].state["x"], expected.items[0].winners[0].state["x"]
    )


@pytest.mark.parametrize(
    "limits",
    [{"rows": 0}, {"top": 0.0}, {"top": 100.0}, {"top": math.nan}, {"top": 5.0, "target": 1.0}],
)
def test_limits_out_of_range_are_refused(limits):
    with pytest.raises(ValueError, match="budget"):
        Budget(5, **limits)
