"""Search over Paths goes up and down again; zero-order search varies a start."""

import json

import pytest
import torch
from toy import SIGMAS, Scripted, Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import (
    Budget,
    SearchOverPaths,
    Trace,
    Whole,
    ZeroOrderSearch,
    strategy_from_json,
)
from flowsearch.samplers.search.strategies.search_over_paths import NOISE
from flowsearch.samplers.stepping.transition import ODE, Transition, step

SOP = SearchOverPaths
ZERO = ZeroOrderSearch


def run(strategy, evaluations, toy=None, transition=ODE, sigmas=SIGMAS, **more):
    trace = Trace()
    outcome = make_search(
        toy or Toy(), strategy, sigmas, transition, Budget(evaluations), on_event=trace, **more
    ).run()
    return outcome.items[0], trace


def searched(trace):
    return [row for row in trace.record["evaluated"] if row["phase"] == "search"]


# ---- search over paths ----


def test_the_way_up_is_the_forward_process_and_ignores_the_prediction():
    x, z = torch.randn(2, 5, dtype=torch.float64)
    for sigma_from, to in ((0.12, 0.9), (0.4, 0.45), (0.03, 1.0), (0.0, 0.8)):
        ratio = (1.0 - to) / (1.0 - sigma_from)
        wanted = ratio * x + (to**2 - (ratio * sigma_from) ** 2) ** 0.5 * z
        for denoised in (torch.zeros_like(x), torch.full_like(x, 7.0)):
            clean = x if sigma_from == 0.0 else denoised  # at 0 the state is its own prediction
            found = step(x, clean, NOISE.coefficients(sigma_from, to), z)
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_the_published_rounds():
    rounds = SOP().rounds(1.0)
    ups, lows = [round(up, 9) for up, _ in rounds], [round(low, 9) for _, low in rounds]
    assert (ups, lows) == ([0.9, 0.87, 0.84, 0.81], [0.09, 0.06, 0.03, 0.0])


def test_paths_go_up_from_the_best_and_come_down():
    settings = SOP(starts=3, keep=1, candidates=2, plain=False, leg=3, up=0.5, down=0.56, width=2)
    first, second, third = [1.0, 5.0, 2.0], [0.0, 3.0], [4.0, 1.0]
    rewards = [*first, *second, *third, *[0.0] * 100]
    _, trace = run(settings, 200, Scripted(rewards))
    rows = searched(trace)
    ends = [row for row in rows if row["scores"]]
    ups = [
        row for row in rows if row["sigma_from"] is not None and row["sigma_from"] < row["sigma"]
    ]
    parents = [row["parent"] for row in ups[:4]]
    assert [round(row["sigma"], 9) for row in ends[:7]] == [0.12] * 3 + [0.06] * 2 + [0.0] * 2
    assert parents == [ends[1]["id"]] * 2 + [ends[4]["id"]] * 2
    assert [round(row["sigma"], 9) for row in ups[:4]] == [0.62, 0.62, 0.56, 0.56]
    assert all(row["transition"] == NOISE.to_json() for row in ups)
    of_a_leg = [row for row in rows if row["pass_"] == 0]
    assert sum(row["evaluations"] for row in of_a_leg) == 3 * 3 + 2 * 3 + 2 * 3


def test_each_kept_path_has_its_turn_before_any_has_its_second():
    settings = SOP(starts=2, keep=2, candidates=2, plain=False, leg=3, up=0.5, down=0.62, width=1)
    _, trace = run(settings, 60)
    rows = [row for row in searched(trace) if row["pass_"] == 0]
    ups = [
        row for row in rows if row["sigma_from"] is not None and row["sigma_from"] < row["sigma"]
    ]
    ends = [row for row in rows if row["scores"] and row["sigma"] > 0.0]
    best = sorted(ends, key=lambda row: -row["scores"]["value"])
    assert [row["parent"] for row in ups] == [best[0]["id"], best[1]["id"]] * 2


def test_fewer_paths_start_where_the_budget_has_no_whole_pass():
    for evaluations in range(35, 240, 10):
        _, trace = run(SOP(), evaluations)
        rows = [row for row in searched(trace) if row["pass_"] == 0]
        starts = sum(row["parent"] is None for row in rows)
        assert starts == max(1, min(4, 4 * (evaluations - 10) // 204))
        ups = [row for row in rows if row["sigma_from"] == pytest.approx(0.12)]
        assert ups


@pytest.mark.parametrize("evaluations", [21, 25, 29])
def test_paths_for_which_no_round_fits_are_finished(evaluations):
    item, trace = run(SOP(), evaluations)
    assert item.ledger.phases == {"plain": 10, "search": 10, "finish": 1}
    assert len(trace.record["finished"]) == 2


def test_refusals_of_search_over_paths():
    with pytest.raises(ValueError, match="its law ode is the same as euler"):
        run(SOP(), 100, transition=Whole("euler"))
    with pytest.raises(ValueError, match=r"sigma_first = 0.12, and the sigmas start at 0.1; lower"):
        run(SOP(), 100, sigmas=[0.1, 0.05, 0.0])
    for wrong in (
        {"width": 0}, {"starts": 0}, {"keep": 0}, {"candidates": 0}, {"sigma_first": 0.0},
        {"sigma_first": 1.0}, {"up": 0.0}, {"down": 0.78}, {"down": 3.0}, {"leg": -1},
        {"finish_steps": 0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="search_over_paths: "):
            SOP(**wrong)


# ---- zero-order search ----


def rounds(trace):
    """Return each neighbour as (pivot, start, finished score), in order."""
    rows = {row["id"]: row for row in trace.record["evaluated"]}
    found = []
    for row in searched(trace):
        if row["sigma"] == 0.0:
            start = row
            while start["sigma"] != 1.0:
                start = rows[start["parent"]]
            found.append((start["parent"], start["id"], row["scores"]["value"]))
    return found


@pytest.mark.parametrize("width", [1, 3, 8])
def test_the_best_neighbour_becomes_the_pivot_unless_it_is_worse(width):
    rewards = [5.0] + [1.0, 7.0, 2.0] + [0.0, 3.0, 6.0] + [7.0, 1.0, 7.0] + [9.0] * 3
    item, trace = run(ZERO(candidates=3, width=width), 130, Scripted(rewards))
    plain = next(row["id"] for row in trace.record["evaluated"])
    found = rounds(trace)
    assert [value for *_, value in found] == rewards[1:]
    pivots = [pivot for pivot, *_ in found]
    second = found[1][1]
    equal = found[6][1]  # as good as the pivot: the search wanders over a plateau
    assert pivots == [plain] * 3 + [second] * 3 + [second] * 3 + [equal] * 3
    assert item.winners[0].scores.value == 9.0


def kept(trace):
    """Return q of each neighbour's start."""
    rows = {row["id"]: row for row in trace.record["evaluated"]}
    laws = [rows[start]["transition"]["law"] for _, start, _ in rounds(trace)]
    return [law["parameters"]["q"] for law in laws]


def test_the_neighbourhood_widens_while_nothing_is_better():
    rewards = [5.0] + [1.0] * 2 + [1.0] * 2 + [6.0, 1.0] + [1.0] * 40
    _, trace = run(ZERO(candidates=2, q=0.8, widen=1.5), 230, Scripted(rewards))
    new = [round((1.0 - q * q) ** 0.5, 9) for q in kept(trace)]
    assert new[:12] == [0.6, 0.6, 0.9, 0.9, 1.0, 1.0, 0.6, 0.6, 0.9, 0.9, 1.0, 1.0]
    _, trace = run(ZERO(candidates=2, q=0.8), 230, Scripted(rewards))
    assert set(kept(trace)) == {0.8}


def test_other_chains_begin_with_a_pivot_of_their_own():
    _, trace = run(ZERO(), 100, chains=2)
    starts = [row for row in searched(trace) if row["parent"] is None]
    assert {row["chain"] for row in starts} == {1}
    _, trace = run(ZERO(plain=False), 100)
    assert sum(row["parent"] is None for row in searched(trace)) == 1


def test_refusals_of_zero_order_search():
    with pytest.raises(ValueError, match=r"euler can only be run whole, from noise of its own"):
        run(ZERO(), 100, transition=Whole("euler"))
    k_1 = Transition(noise_law("constant_k", k=1.0))
    with pytest.raises(ValueError, match=r"from sigma 1 to 0.9, keeps nothing of its noise"):
        run(ZERO(), 100, transition=k_1)
    item, _ = run(ZERO(), 100, transition=k_1, sigmas=[0.9, 0.6, 0.3, 0.0])
    assert item.winners
    for wrong in ({"width": 0}, {"candidates": 0}, {"q": 1.0}, {"q": -0.1}, {"widen": 0.5}):
        with pytest.raises(ValueError, match="zero_order: "):
            ZERO(**wrong)


@pytest.mark.parametrize("strategy", [SOP(leg=10), ZERO(widen=2.0)])
def test_settings_survive_json(strategy):
    assert strategy_from_json(json.loads(json.dumps(strategy.to_json()))) == strategy
