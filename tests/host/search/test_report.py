"""The report: a plot, JSON and CSV that hold the same run."""

import csv
import io
import json

import host_models as hm
import numpy as np
import pytest
import searching as s
import torch

from flowsearch.nodes.host.page.plot import ticks
from flowsearch.nodes.host.search.outcome import Report
from flowsearch.nodes.search.report import SearchReport
from flowsearch.nodes.search.report_plot import RED, draw_report
from flowsearch.samplers.search import Trace


@pytest.fixture(scope="module")
def run():
    """A search of two pictures with several finished ones."""
    guider = hm.guider(hm.scene_model(), 0.5)
    choice = s.strategy("rbf", passes=2, finalists=2)
    return s.search(guider, s.flow(), hm.empty_latent(2), strategy=choice, evaluations=90)


def test_the_report_is_the_run(run):
    _, image, report = run
    plot, text, table, score, _ = SearchReport.execute(report).result
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
    plot, _, table, score, family = SearchReport.execute(Report(Trace())).result
    assert torch.is_tensor(plot)
    assert table.count("\n") == 1
    assert score == float("-inf")
    assert family.shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 57), (1.0, 0.0), (-9.3, -2.7), (0, 3e-5), (-1e6, 1e6), (0, 1)]
)
def test_ticks_are_few_round_and_inside(low, high):
    values = ticks(low, high)
    assert 3 <= len(values) <= 8
    assert min(low, high) <= min(values)
    assert max(values) <= max(low, high) + 1e-9


@pytest.fixture(scope="module")
def held_out_run():
    """A search with two held-out rewards, one of which fails."""

    class Broken(s.Brightness):
        def score(self, images):
            raise RuntimeError("gone")

    guider = hm.guider(hm.scene_model(), 0.5)
    rewards = {"reward0": s.Brightness(sign=-1.0), "reward1": Broken()}
    choice = s.strategy("rbf", draws=2, pool=1)
    return s.search(guider, s.flow(), strategy=choice, evaluations=120, held_out=rewards)


def test_held_out_rewards_are_the_last_columns(held_out_run):
    report = held_out_run[2]
    _, text, table, *_ = SearchReport.execute(report).result
    lines = list(csv.DictReader(io.StringIO(table)))
    for line, row in zip(lines, json.loads(text)["evaluated"], strict=True):
        finished = row["sigma"] == 0.0
        assert (line["held_out brightness"] != "") == finished
        assert line["held_out brightness 2"] == ""
        if finished:
            assert float(line["held_out brightness"]) == pytest.approx(-float(line["score"]))


def test_the_family_is_what_the_reward_saw_of_the_best_pictures_ancestors(held_out_run):
    _, image, report = held_out_run
    family = SearchReport.execute(report).result[4]
    number = max(report.trace.record["finished"], key=lambda row: row["scores"]["value"])["id"]
    line = [row for row in report.trace.family(0, number) if row["scores"]]
    assert len(family) == len(line) > 1
    for picture, row in zip(family, line, strict=True):
        assert float(picture.mean()) == pytest.approx(row["scores"]["value"], abs=1e-3)
    assert float((family[-1] - image[0]).abs().max()) <= 0.5 / 255.0 + 1e-6


def test_warnings_curves_and_families_are_drawn():
    given = {"strategy": s.strategy("best_of_n"), "held_out": {"reward0": s.Brightness(sign=-1.0)}}
    report = s.reward_search(hm.scene_model(), evaluations=120, **given)[2]
    calm = s.reward_search(hm.scene_model(), strategy=s.strategy("best_of_n"), evaluations=60)[2]
    assert not calm.warnings()
    assert any(line.startswith("over-optimised") for line in report.warnings())
    plot = SearchReport.execute(report).result[0]
    quiet = SearchReport.execute(calm).result[0]
    red = torch.tensor(RED) / 255.0

    def count(picture):
        return int(((picture[0] - red).abs().amax(-1) < 0.01).sum())

    assert count(plot) > 200
    brief = np.asarray(draw_report(report, brief=True))
    assert brief.shape[0] < plot.shape[1] / 2
    assert count(torch.from_numpy(brief / 255.0)[None]) > 200, "the warnings are on the node"
    assert count(quiet) == 0
    assert plot.shape[1] > quiet.shape[1] - 200  # a panel more


def test_a_batch_has_a_family_each(run):
    report = run[2]
    family = SearchReport.execute(report).result[4]
    assert len(family) == sum(len(frames) for frames in report.families.values())
    assert set(report.families) == {0, 1}


def compared(sigma_rows):
    """A report of candidates at several sigmas: {sigma: (early scores, late scores)}."""
    whole = Report(Trace(), "toy")
    for place, (sigma, (early, late)) in enumerate(sigma_rows.items()):
        for row in fake(early, late).trace.record["evaluated"]:
            moved = {**row, "item": place}
            moved["sigma"] = sigma if row["sigma"] else 0.0
            whole.trace.record["evaluated"].append(moved)
    return whole


def test_what_counts_is_where_most_candidates_were_compared():
    late = [float(i) for i in range(9)]
    useless = [3.0, 8.0, 1.0, 6.0, 4.0, 2.0, 7.0, 0.0, 5.0]
    longer = [*late, *(x + 9 for x in late)]
    mostly_good = compared({0.9: (useless, late), 0.5: (longer, longer)})
    mostly_bad = compared({0.9: ([*useless, *useless], [*late, *late]), 0.5: (late, late)})
    assert not any("do not rank" in line for line in mostly_good.warnings())
    (line,) = (line for line in mostly_bad.warnings() if "do not rank" in line)
    assert "18 candidates were scored at sigma 0.9," in line


def test_a_correlation_of_exactly_zero_is_one():
    early = [1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    late = [1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0]
    report = fake(early, late)
    assert report.trace.early_correlation()[0]["correlation"] == 0.0
    assert any("do not rank" in line for line in report.warnings())


def test_the_report_says_how_rare_the_target_is():
    """Best-of-N's pictures are all from new noise: of them it can be told."""

    def said(value):
        model = hm.scene_model()
        target = {"target": "value", "value": value}
        given = {"strategy": s.strategy("best_of_n", target_stop=False), "evaluations": 60}
        _, _, report = s.reward_search(model, target=target, **given)
        return " ".join(report.sentences())

    assert "none of" in said(1e6)
    assert "is not rare here" in said(-1e6)


def test_it_hints_when_the_first_steered_pictures_lose_a_held_out_reward():
    report = Report(Trace(), "toy")
    rows = [("plain", 0, 1.0, 0.9), ("search", 3, 5.0, 0.7), ("search", 3, 6.0, 0.6)]
    for number, (phase, gradients, value, judged) in enumerate(rows):
        scores = {"value": value, "held_out": {"judge": judged}}
        report.trace.record["evaluated"].append(
            {"item": 0, "id": number, "parent": None, "sigma": 0.0, "phase": phase,
             "scores": scores, "gradients": gradients}
        )  # fmt: skip
        report.trace.record["finished"].append(
            {"item": 0, "id": number, "scores": scores, "of": None, "spent": number, "best": True}
        )
        said = [line for line in report.warnings() if "hole in toy" in line]
        assert bool(said) == (number == 2)
    assert "from 1 (plain samples) to 5.5" in said[0]
    assert "judge, which is held out, fell from 0.9 to 0.65, in 2 of 2" in said[0]
