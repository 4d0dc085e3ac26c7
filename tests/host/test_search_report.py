"""The report: a plot, JSON and CSV that hold the same run."""

import csv
import io
import json

import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.host.outcome import Report
from flowsearch.nodes.plot import ticks
from flowsearch.nodes.report import SearchReport
from flowsearch.samplers.search import Trace


@pytest.fixture(scope="module")
def run():
    """A search of two pictures with several finished ones."""
    guider = hm.guider(hm.scene_model(), 0.5)
    choice = s.strategy("rbf", passes=2, finalists=2)
    return s.search(guider, s.flow(), hm.empty_latent(2), strategy=choice, evaluations=90)


def test_the_report_is_the_run(run):
    _, image, report = run
    plot, text, table, score = SearchReport.execute(report).result
    assert score == pytest.approx(float(image[0].mean()), abs=1e-6)
    data = json.loads(text)
    lines = list(csv.DictReader(io.StringIO(table)))
    assert len(lines) == len(data["evaluated"])
    assert sum(int(line["evaluations"]) for line in lines) == sum(
        row["ledger"]["evaluations"] for row in data["stopped"]
    )
    finished = [float(line["score"]) for line in lines if float(line["sigma"]) == 0.0]
    assert max(finished) == pytest.approx(max(report.best(0), report.best(1)))
    again = Trace.from_json({key: data[key] for key in report.trace.to_json()})
    for item in (0, 1):
        assert again.reward_curve(item) == report.trace.reward_curve(item)
        assert again.spent_by_sigma(item) == report.trace.spent_by_sigma(item)
    assert plot.shape[0] == 1
    assert plot.shape[-1] == 3
    assert 0.0 <= float(plot.min()) < float(plot.max()) <= 1.0


def test_sentences_name_reward_baseline_and_cost(run):
    report = run[2]
    first = report.sentences()[0]
    assert first.startswith("item 0: reward ")
    assert "plain sample" in first
    assert f"{report.trace.record['stopped'][0]['ledger']['evaluations']} evaluations" in first


def fake(early, late):
    """A report of finished pictures whose parents scored otherwise."""
    report = Report(Trace(), "toy")
    for number, (a, b) in enumerate(zip(early, late, strict=True)):
        for sigma, score, parent in ((0.5, a, None), (0.0, b, 2 * number)):
            row = dict.fromkeys(("chain", "pass_", "sigma_from", "rows", "seconds"), 0)
            report.trace.record["evaluated"].append(
                {**row, "item": 0, "id": 2 * number + (sigma == 0.0), "parent": parent,
                 "phase": "search", "sigma": sigma, "evaluations": 1, "spent": number,
                 "scores": {"value": score}}
            )  # fmt: skip
    return report


def test_it_warns_when_early_rewards_do_not_rank_finished_pictures():
    late = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    useless = [3.0, 8.0, 1.0, 6.0, 4.0, 2.0, 7.0, 0.0, 5.0]
    assert not any("do not rank" in line for line in fake(late, late).sentences())
    assert any("do not rank" in line for line in fake(useless, late).sentences())
    assert not any("do not rank" in line for line in fake(useless[:5], late[:5]).sentences())


def test_an_empty_report_is_drawn_too():
    plot, _, table, score = SearchReport.execute(Report(Trace())).result
    assert torch.is_tensor(plot)
    assert table.count("\n") == 1
    assert score == float("-inf")


@pytest.mark.parametrize(
    ("low", "high"), [(0, 57), (1.0, 0.0), (-9.3, -2.7), (0, 3e-5), (-1e6, 1e6), (0, 1)]
)
def test_ticks_are_few_round_and_inside(low, high):
    values = ticks(low, high)
    assert 3 <= len(values) <= 8
    assert min(low, high) <= min(values)
    assert max(values) <= max(low, high) + 1e-9
