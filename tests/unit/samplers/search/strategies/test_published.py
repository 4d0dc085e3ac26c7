"""The published settings of each method run, spend their budget, and decide as described."""

import importlib
import json
from collections import Counter
from pathlib import Path

import pytest
from toy import Toy, make_search

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import rbf_reference, uniform
from flowsearch.samplers.search import Budget, Trace, strategy_from_json
from flowsearch.samplers.search.strategies.published import PUBLISHED, departures, published
from flowsearch.samplers.stepping.guidance import Guidance
from flowsearch.samplers.stepping.transition import ODE, Transition

VP_SDE = (rbf_reference(10), Transition(noise_law("rbf_reference"), "euler_maruyama", "vp"))
LINEAR_ODE = (uniform(10), ODE)
SPENT = {
    "best_of_n": 500, "search_over_paths": 500, "smc": 500, "code": 500, "svdd": 500, "rbf": 498,
}  # fmt: skip


def run(name, finish_steps=1):
    """Return the item and its trace."""
    row, trace, toy = published(name, finish_steps), Trace(), Toy()
    sigmas, transition = VP_SDE if row.stochastic else LINEAR_ODE
    outcome = make_search(
        toy, row.strategy, sigmas, transition, Budget(row.evaluations), chains=row.chains,
        rows_per_call=64, on_event=trace,
    ).run()  # fmt: skip
    assert len(sigmas) == row.steps + 1
    assert toy.rows == {0: outcome.items[0].ledger.evaluations}
    return outcome.items[0], trace


def test_every_method_of_the_comparison_is_there():
    assert set(PUBLISHED) == set(SPENT)


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_runs_within_its_budget(name):
    item, trace = run(name)
    assert item.ledger.evaluations == SPENT[name]
    assert item.plain is None
    assert {row["phase"] for row in trace.record["evaluated"]} <= {"search", "finish"}
    # what comes out is a prediction, or came down by itself: no step of finishing costs anything
    assert item.ledger.phases.get("finish", 0) == 0


@pytest.mark.parametrize(("name", "blocks"), [("svdd", 9), ("code", 5)])
def test_25_candidates_in_two_chains(name, blocks):
    _, trace = run(name)
    first = [row for row in trace.record["evaluated"] if row["pass_"] == 0]
    rows = [row for row in first if row["parent"] is not None]
    moved = Counter((row["chain"], row["sigma"]) for row in rows if row["phase"] == "search")
    steps = VP_SDE[0][1:-1]
    assert {moved[chain, sigma] for chain in (0, 1) for sigma in steps} == {25}
    scored = {row["sigma"] for row in rows if row["scores"] and row["phase"] == "search"}
    assert len(scored) == blocks


def test_50_particles_are_resampled_at_practically_every_step():
    _, trace = run("smc")
    starts = [row for row in trace.record["evaluated"] if row["parent"] is None]
    assert len(starts) == 50
    weighed = [row for row in trace.record["chosen"] if row["weights"]]
    resampled = [row for row in trace.record["chosen"] if row["why"] == "resampled"]
    assert (len(weighed), len(resampled)) == (10, 9)


def test_paths_go_up_by_78_and_down_by_81_hundredths():
    _, trace = run("search_over_paths")
    rows = trace.record["evaluated"]
    ends = [round(row["sigma"], 6) for row in rows if row["scores"] and row["chain"] == 0]
    assert Counter(ends) == {0.12: 5, 0.09: 5, 0.06: 5, 0.03: 5, 0.0: 5}
    ups = {round(row["sigma"] - row["sigma_from"], 6) for row in rows if row["sigma_from"]} - {0.0}
    assert max(ups) == 0.78


@pytest.mark.parametrize("name", ["code", "svdd", "rbf"])
def test_it_can_be_finished_by_the_ode(name):
    item, _ = run(name, finish_steps=6)
    assert item.ledger.phases["finish"] >= 5
    assert item.ledger.evaluations <= 500


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_survive_json(name):
    settings = published(name).strategy
    assert strategy_from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="nothing published as 'beam'; choose one of: best_of_n"):
        published("beam")


def test_the_benchmark_draws_with_the_noise_that_its_rows_name(monkeypatch):
    """Of the last transition's result the published code draws .47 anew, the exact one .33."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[5] / "benchmarks"))
    bench = importlib.import_module("search")
    for checkpoint in ("base", "few_step"):
        rows = {(one.method, one.process): one for one in bench.runs(checkpoint)}

        def fresh(name, process, step, rows=rows):
            how = rows[name, process].how
            return how.transition.coefficients(*how.sigmas[step : step + 2]).weight_z

        noises = {name: bench.noise_of(rows[name, bench.VP]) for name in bench.on_the_way()}
        assert noises.pop("RBF, published") == "Euler-Maruyama"
        assert set(noises.values()) == {"exact"}
        assert fresh("RBF, published", bench.VP, 8) == pytest.approx(0.473, abs=5e-4)
        assert {round(fresh(name, bench.VP, 8), 3) for name in noises} == {0.335}
        # g = 3 t^2 over a step of .1, from pure noise and down to sigma .1
        first, last = 3 * 0.1**0.5 / 0.9, 3 * 0.2**2 * 0.1**0.5 / 0.1
        assert fresh("RBF, published", bench.LINEAR, 0) == pytest.approx(first, rel=2e-3)
        assert fresh("RBF, published", bench.LINEAR, 8) == pytest.approx(last, rel=2e-3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_guidance_is_told_apart_from_how_it_draws(name):
    row = published(name)
    sigmas, transition = VP_SDE if row.stochastic else LINEAR_ODE
    assert departures(row, sigmas, transition, row.chains) == ""
    guided = transition.guided(Guidance("mean_shift"))
    assert departures(row, sigmas, guided, row.chains) == (
        f"not {name} as published: guided by mean_shift"
    )
    other = Transition(noise_law("constant_k")).guided(Guidance())
    found = departures(row, sigmas, other, row.chains)
    assert "draws by " in found
    assert found.endswith("; guided by noise_tilt")
