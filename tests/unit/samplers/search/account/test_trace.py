"""The trace is the events, in JSON, and its tables follow from it."""

import itertools
import json

import pytest
from toy import SIGMAS, Toy, make_search

from flowsearch.samplers.search import (
    Budget,
    EvolutionarySearch,
    RolloverBudgetForcing,
    Scores,
    Trace,
)
from flowsearch.samplers.search.account.events import (
    KINDS,
    Chosen,
    Evaluated,
    Finished,
    Started,
    Stopped,
)
from flowsearch.samplers.stepping.transition import ODE


@pytest.fixture(scope="module")
def run():
    search = make_search(
        Toy(), RolloverBudgetForcing(draws=3), SIGMAS, ODE, Budget(150), items=(0, 1), top_k=3
    )
    events, trace = [*search], Trace()
    for event in events:
        trace(event)
    outcome = search.outcome()
    return trace, events, outcome


def test_the_trace_survives_json(run):
    trace, _, _ = run
    again = Trace.from_json(json.loads(json.dumps(trace.to_json())))
    for item in (0, 1):
        assert again.reward_curve(item) == trace.reward_curve(item)
        assert again.spent_by_sigma(item) == trace.spent_by_sigma(item)
    assert again.early_correlation() == trace.early_correlation()
    assert again.items() == [0, 1]


def test_another_schema_is_refused():
    with pytest.raises(ValueError, match="schema 99; this version reads 1"):
        Trace.from_json({"schema": 99})


def test_events_come_in_order(run):
    _, events, outcome = run
    assert isinstance(events[0], Started)
    assert {type(event) for event in events} == {Started, Evaluated, Chosen, Finished, Stopped}
    for item in (0, 1):
        mine = [e for e in events if not isinstance(e, Started) and e.item == item]
        assert isinstance(mine[-1], Stopped)
        assert mine[-1].ledger["evaluations"] == outcome.items[item].ledger.evaluations
        assert [*mine[-1].winners] == [w.node.id for w in outcome.items[item].winners]
        seen = set()
        for event in mine:
            if isinstance(event, Evaluated):
                assert event.parent is None or event.parent in seen
                seen.add(event.id)
            if isinstance(event, Finished):
                assert event.id in seen
            if isinstance(event, Chosen):
                assert set(event.ids) <= seen


def test_the_curve_rises_to_the_winner(run):
    trace, _, outcome = run
    for item in (0, 1):
        curve = trace.reward_curve(item)
        finished = [row["finished"] for row in curve if row["finished"] is not None]
        assert finished == sorted(finished)
        assert finished[-1] == outcome.items[item].winners[0].scores.value
        assert all(row["finished"] is None or row["seen"] >= row["finished"] for row in curve)


def test_the_family_leads_from_a_start_to_the_winner(run):
    trace, _, outcome = run
    line = trace.family(0, outcome.items[0].winners[0].node.id)
    assert line[0]["parent"] is None
    assert line[-1]["sigma"] == 0.0
    assert all(b["parent"] == a["id"] for a, b in itertools.pairwise(line))


def evaluated(number, parent, sigma, value):
    scores = None if value is None else Scores(value)
    return Evaluated(
        0, 0, 0, "search", number, parent, None, sigma, (0, number), None, int(sigma > 0), 1, 0,
        number, 0.0, scores,
    )  # fmt: skip


def test_the_correlation_pairs_early_scores_with_finished_descendants():
    trace = Trace()
    early = [1.0, 2.0, 3.0, 4.0]
    late = [2.0, 1.0, 4.0, 3.0]
    for i, (a, b) in enumerate(zip(early, late, strict=True)):
        trace(evaluated(3 * i, None, 0.8, a))
        trace(evaluated(3 * i + 1, 3 * i, 0.4, None))
        trace(evaluated(3 * i + 2, 3 * i + 1, 0.0, b))
    (row,) = trace.early_correlation(0)
    assert (row["sigma"], row["n"]) == (0.8, 4)
    assert row["correlation"] == pytest.approx(0.6)


def test_the_correlation_is_none_where_it_is_undefined():
    trace = Trace()
    for i in range(4):
        trace(evaluated(2 * i, None, 0.5, 1.0))
        trace(evaluated(2 * i + 1, 2 * i, 0.0, float(i)))
    assert trace.early_correlation(0) == [{"sigma": 0.5, "n": 4, "correlation": None}]


def test_ancestors_before_an_earlier_finish_do_not_count():
    trace = Trace()
    trace(evaluated(0, None, 0.7, 1.0))
    trace(evaluated(1, 0, 0.0, 1.0))
    trace(evaluated(2, 1, 0.5, 2.0))
    trace(evaluated(3, 2, 0.0, 2.0))
    assert {row["sigma"]: row["n"] for row in trace.early_correlation(0)} == {0.7: 1, 0.5: 1}


def test_events_go_to_json_and_back(run):
    """They can be sent to a page or a worker: small, and nothing but JSON."""
    _, events, _ = run
    for event in events:
        data = json.loads(json.dumps(event.to_json()))
        again = KINDS[event.kind].from_json(data)
        assert again == event
        assert type(again) is type(event)
        assert isinstance(event, Started) or len(json.dumps(data)) < 1500
    with pytest.raises(TypeError, match="cost"):
        Started.from_json({**events[0].to_json(), "cost": 3})


def test_thumbnails_are_shown_and_not_kept():
    trace = Trace()
    trace(Finished(0, 5, Scores(1.0, note="two dogs", thumbnail=object()), None, 10, True))
    json.dumps(trace.to_json())
    assert trace.record["finished"][0]["scores"] == {
        "value": 1.0, "parts": {}, "note": "two dogs", "held_out": {}, "held_out_seconds": 0.0,
    }  # fmt: skip


def test_unselected_pictures_are_those_from_new_noise_that_nothing_chose():
    trace = Trace()
    make_search(
        Toy(), EvolutionarySearch(), SIGMAS, ODE, Budget(200), seed=2, on_event=trace
    ).run()  # fmt: skip
    rows = {row["id"]: row for row in trace.record["evaluated"]}
    found = {row["id"] for row in trace.unselected(0)}
    for row in trace.record["evaluated"]:
        if row["sigma"] == 0.0:
            line, current = [], row
            while current["parent"] is not None:
                current = rows[current["parent"]]
                line.append(current)
            fresh = not any(r["sigma"] == 0.0 or r["donor"] is not None for r in line)
            assert (row["id"] in found) == fresh
    assert 1 < len(found) < len(trace.record["finished"])
