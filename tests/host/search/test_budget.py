"""Budgets in the host: rows, a few evaluations, a target in percent, and what a person is told."""

import logging
import re
from dataclasses import replace

import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.page import progress
from flowsearch.nodes.host.page.progress import Forecast, Progress
from flowsearch.nodes.host.search import forms, search_sampler
from flowsearch.nodes.search.report_plot import PHASES
from flowsearch.samplers.search import Budget
from flowsearch.samplers.search.account.events import Evaluated, Finished, Stopped
from flowsearch.samplers.search.engine.calibration import top_target
from flowsearch.samplers.search.protocol import Scores
from flowsearch.samplers.stepping.transition import ODE


def ledger(report, item=0):
    return report.trace.record["stopped"][item]["ledger"]


@pytest.mark.parametrize(("cfg", "each"), [(1.0, 1), (4.0, 2)])
@pytest.mark.parametrize("limit", [1, 5, 31, 64])
@pytest.mark.parametrize("name", ["rbf", "best_of_n"])
def test_rows_are_a_budget(cfg, each, limit, name):
    model = hm.scene_model()
    rows = s.count_rows(model)
    given = {"cfg": cfg, "strategy": s.strategy(name), "evaluations": 500, "rows": limit}
    report = s.reward_search(model, **given)[2]
    assert ledger(report)["rows"] == sum(rows) == each * ledger(report)["evaluations"]
    assert sum(rows) <= max(limit, each)
    assert sum(rows) > limit - each * 2 * s.STEPS


def test_areas_are_rows_too():
    model = hm.scene_model()
    rows = s.count_rows(model)
    area = [*hm.conditioning(1.0, area=(32, 32, 0, 0)), *hm.conditioning(-1.0)]
    report = s.reward_search(model, positive=area, cfg=2.0, evaluations=500, rows=70)[2]
    assert ledger(report)["rows"] == sum(rows) <= 70
    assert ledger(report)["rows_per_evaluation"] > 2.0


@pytest.mark.parametrize("evaluations", [1, 2, 5])
@pytest.mark.parametrize("inner", ["euler", "heun", "dpmpp_2m", "uni_pc", "ours", "glass"])
def test_any_budget_gives_a_picture(evaluations, inner):
    model = hm.scene_model()
    rows = s.count_rows(model)
    made = {
        "ours": FlowSampler(ODE),
        "glass": s.flow(),
    }.get(inner) or s.sampler(inner)
    latent, image, report = s.search(hm.guider(model, 0.5), made, evaluations=evaluations)
    assert sum(rows) == ledger(report)["evaluations"] <= max(evaluations, inner == "uni_pc")
    assert latent["samples"].isfinite().all()
    assert image.shape == (1, 64, 64, 3)
    assert any("thinned" in sentence for sentence in report.sentences())


@pytest.mark.parametrize(
    ("name", "each"), [("heun", 11), ("dpm_2", 11), ("dpmpp_2s_ancestral", 11)]
)
def test_what_a_stock_sampler_takes_is_known_before_it_runs(name, each):
    """Its first run is then not begun with less; the count is the one it takes."""
    for evaluations in (each - 1, each, 3 * each):
        model = hm.scene_model()
        rows = s.count_rows(model)
        report = s.search(hm.guider(model, 0.5), s.sampler(name), evaluations=evaluations)[2]
        assert sum(rows) == ledger(report)["evaluations"] <= evaluations
        if evaluations >= each:
            assert sum(rows) == evaluations // each * each


def test_one_evaluation_is_the_prediction_at_the_first_sigma():
    model = hm.scene_model()
    latent = s.search(hm.guider(model, 0.5), FlowSampler(ODE), evaluations=1)[0]
    jump, _ = hm.run(
        hm.guider(model, 0.5), s.sampler(), s.SIGMAS[[0, -1]], hm.empty_latent(), seed=3
    )
    assert (latent["samples"] - jump).abs().max() < 1e-5


@pytest.mark.parametrize("inner", ["ours", "heun"])
def test_top_percent_is_measured_on_plain_samples(inner):
    made = FlowSampler(ODE) if inner == "ours" else s.sampler(inner)
    model = hm.scene_model()
    rows = s.count_rows(model)
    target = {"target": "top", "percent": 2.0}
    given = {"evaluations": 600, "target": target, "strategy": s.strategy("best_of_n")}
    report = s.search(hm.guider(model, 0.5), made, **given)[2]
    spent = ledger(report)
    taken = [r for r in report.trace.record["evaluated"] if r["phase"] in ("plain", "calibrate")]
    scores = [row["scores"]["value"] for row in taken if row["sigma"] == 0.0]
    assert len(scores) == 16
    assert spent["phases"]["calibrate"] == 15 * spent["phases"]["plain"]
    assert spent["evaluations"] == sum(rows)
    assert set(spent["phases"]) <= set(PHASES), "the plot shows where every evaluation went"
    assert sum(spent["phases"].values()) == spent["evaluations"]
    goal = report.trace.record["stopped"][0]["target"]
    assert goal == pytest.approx(top_target(scores, 2.0))
    why = report.trace.record["stopped"][0]["why"]
    assert (why == "target") == (report.best(0) >= goal)
    assert any("top 2 %" in sentence for sentence in report.sentences())


# ---- what a person is told ----


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def evaluated(spent, seconds, score_seconds=0.0, item=0, rows=1):
    scores = Scores(0.0) if score_seconds else None
    return Evaluated(
        item, 0, 0, "search", spent, None, None, 0.5, (spent,), None, 1, rows, spent, spent,
        seconds + score_seconds, scores, score_seconds=score_seconds,
    )  # fmt: skip


def test_the_forecast_is_reckoned_from_second_calls():
    """The first of its kind loads things."""
    forecast = Forecast(Budget(100), 1)
    forecast.add(evaluated(1, 60.0))
    assert not forecast.known
    for spent in range(2, 11):
        forecast.add(evaluated(spent, 0.5, 30.0 if spent == 2 else 0.25 if spent % 2 == 0 else 0.0))
    assert forecast.known
    assert forecast.each("evaluations") == pytest.approx(0.5)
    assert forecast.each("scores") == pytest.approx(0.25)
    assert forecast.left() == pytest.approx(90 * 0.5 + 90 * 0.5 * 0.25)
    forecast.add(Stopped(0, "target", ()))
    assert forecast.left() == 0.0


def test_the_forecast_knows_rows_and_seconds():
    rows, seconds = Forecast(Budget(1000, rows=100), 1), Forecast(Budget(1000, seconds=9.0), 1)
    for spent in range(1, 11):
        rows.add(evaluated(spent, 1.0, rows=2))
        seconds.add(evaluated(spent, 0.5))
    assert rows.left() == pytest.approx(40.0)
    assert seconds.left() == pytest.approx(4.0)


def test_how_long_it_takes_is_logged_once_and_again_when_it_changes_a_lot(caplog):
    clock = Clock()
    show = Progress(Budget(1000), 1, lambda: "7 MB", clock)

    def logged():
        return [text for text in caplog.messages if "s an evaluation" in text]

    with caplog.at_level(logging.INFO, "flowsearch"):
        for spent in range(1, 500):
            clock.now += 1.0
            show(evaluated(spent, 1.0, 1e-9))
        assert len(logged()) == 1
        assert logged()[0].startswith("search: about 17 min left (1 s an evaluation")
        assert "memory: 7 MB" in logged()[0]
        for spent in range(500, 800):
            clock.now += 9.0
            show(evaluated(spent, 9.0, 1e-9))
    assert 2 <= len(logged()) <= 4


def test_the_node_says_evaluations_first_and_an_estimate(monkeypatch):
    told, clock = [], Clock()
    monkeypatch.setattr(progress, "say", told.append)
    show = Progress(Budget(200), 2, clock=clock)
    assert told == ["0 of 400 evaluations; waiting for the first, which also loads things"]
    clock.now += 60.0
    show(evaluated(1, 60.0))
    assert told[-1] == "1 of 400 evaluations", "nothing is known of the others yet"
    for spent in range(2, 101):
        clock.now += 0.01
        show(evaluated(spent, 0.1))
    assert len(told) == 3, "not more often than a person reads"
    show(Finished(0, 3, Scores(0.5), None, 100, True))
    assert told[-1] == "100 of 400 evaluations; best score 0.5; about 30 s left"
    show(replace(evaluated(101, 0.1, 1e-9), phase="plain", sigma=0.0))
    show(Finished(1, 9, Scores(0.25), None, 1, True))
    assert "; best score 0.5, 0.25; plain score 0; about" in told[-1]


def test_of_a_calls_pictures_only_the_best_is_kept():
    together = torch.rand(8, 16, 16, 3)
    show = Progress(Budget(10), 1)
    show(Finished(0, 3, Scores(0.5, thumbnail=together[3]), None, 4, True))
    kept = show.best[0]
    assert torch.equal(kept, together[3])
    assert kept.untyped_storage().nbytes() == kept.numel() * 4, "it keeps all eight"


def test_a_run_says_how_long_it_takes_and_what_memory_it_needs(monkeypatch, caplog):
    told = []
    for module in (progress, search_sampler, forms):
        monkeypatch.setattr(module, "say", told.append)
    with caplog.at_level(logging.INFO, "flowsearch"):
        s.reward_search(hm.scene_model(), evaluations=60)
    lines = [text for text in caplog.messages if "s an evaluation" in text]
    assert len(lines) == 1
    assert re.search(r"memory: \d.* for a call of \d+ candidates, \d.* free", lines[0])
    assert told[0].startswith("preparing the model")
    assert told[1].startswith("0 of 60 evaluations")
    assert any(" s left" in text for text in told)
    last = r"score -?[\d.]+, plain score -?[\d.]+; \d+ of 60 evaluations, [\d.e-]+ s; the budget"
    assert re.match(last, told[-1])
