"""Held-out rewards in the host: any number, never used, never fatal; their fall is told."""

from dataclasses import replace

import comfy.model_management
import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.host.search.held_out import HeldOut
from flowsearch.nodes.host.search.views import Decoders, Rows
from flowsearch.nodes.search.report import SearchReport
from flowsearch.rewards.base import RewardSpec


class Second(s.Brightness):
    """A reward of pictures by a function, with a name."""

    def __init__(self, function, name="second"):
        super().__init__()
        self.spec = RewardSpec(name, "a test's", -1.0, 1.0)
        self.function = function

    def score(self, images):
        super().score(images)
        return self.function(images)


def darkness(images):
    return 1.0 - images.mean(dim=(1, 2, 3))


def rude(images):
    """Writes into what it is given and uses up the global random state."""
    torch.randn(1000)
    images.zero_()
    return images.mean(dim=(1, 2, 3))


def broken(images):
    raise RuntimeError("no such weights")


def sometimes(images):
    values = images.mean(dim=(1, 2, 3))
    values[0] = float("nan")
    return values


def run(held_out=None, evaluations=60, choice="rbf", **given):
    model = hm.scene_model()
    inner = s.sampler("euler") if choice == "best_of_n" else s.flow()
    return s.search(
        hm.guider(model, 0.5), inner, strategy=s.strategy(choice), evaluations=evaluations,
        held_out=held_out, **given,
    )  # fmt: skip


@pytest.mark.parametrize("choice", ["evolutionary", "rbf", "best_of_n"])
def test_a_search_is_bit_identical_with_and_without(choice):
    without, _, plain_report = run(choice=choice)
    functions = (rude, darkness, broken, sometimes)
    rewards = {f"reward{i}": Second(f, f.__name__) for i, f in enumerate(functions)}
    latent, _, report = run(rewards, choice=choice)
    assert torch.equal(latent["samples"], without["samples"])
    for kind in ("evaluated", "finished"):
        keys = [[row["id"] for row in r.trace.record[kind]] for r in (report, plain_report)]
        assert keys[0] == keys[1]
    assert report.trace.held_out() == ["rude", "darkness", "broken", "sometimes"]
    dark = [row["scores"]["held_out"]["darkness"] for row in report.trace.record["finished"]]
    assert max(dark) < 1.0, "it was shown a picture that another one had blackened"


def test_the_random_state_is_left_alone():
    before = torch.get_rng_state()
    latents = torch.rand(1, 3, 8, 8, generator=torch.Generator())
    HeldOut([Second(rude)]).score(Rows(latents, [], Decoders(s.pixel_vae())))
    assert torch.equal(torch.get_rng_state(), before)


def test_only_finished_pictures_are_scored_and_none_is_left_out():
    second = Second(darkness)
    _, image, report = run({"reward0": second}, choice="rbf")
    finished = report.trace.record["finished"]
    assert sum(shape[0] for shape in second.shapes) == len(finished)
    scored = [row for row in report.trace.record["evaluated"] if row["scores"]]
    assert all(("second" in row["scores"]["held_out"]) == (row["sigma"] == 0.0) for row in scored)
    best = max(finished, key=lambda row: row["scores"]["value"])
    assert best["scores"]["held_out"]["second"] == pytest.approx(1.0 - float(image.mean()))


def test_one_that_fails_is_named_and_ends_nothing():
    _, _, report = run({"reward0": Second(broken, "broken"), "reward1": Second(darkness)})
    count = len(report.trace.record["finished"])
    lines = "\n".join(report.sentences())
    assert f"broken gave no value for {count} of {count} finished" in lines
    assert "RuntimeError: no such weights" in lines
    assert "held-out reward second gave no value" not in lines


@pytest.mark.parametrize(("paid", "asked"), [(False, [3, 1, 1, 1]), (True, [3])])
def test_one_that_costs_money_is_not_asked_again_where_it_fails(paid, asked):
    reward = Second(broken)
    reward.spec = replace(reward.spec, paid=paid)
    rows = Rows(torch.rand(3, 3, 8, 8, generator=torch.Generator()), [], Decoders(s.pixel_vae()))
    found, _ = HeldOut([reward]).score(rows)
    assert [each["second"] for each in found] == ["RuntimeError: no such weights"] * 3
    assert [shape[0] for shape in reward.shapes] == asked


def test_a_value_that_is_not_finite_is_named():
    _, _, report = run({"reward0": Second(sometimes)})
    assert any("it returned nan" in line for line in report.sentences())


def test_a_cancel_inside_one_passes():
    def cancelled(images):
        raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run({"reward0": Second(cancelled)})


def test_equal_names_are_numbered():
    _, _, report = run({"reward0": Second(darkness), "reward1": Second(darkness)})
    assert report.trace.held_out() == ["second", "second 2"]


def test_a_reward_won_at_the_cost_of_another_is_told():
    _, _, report = run({"reward0": Second(darkness)}, evaluations=160, choice="best_of_n")
    (warning,) = [line for line in report.warnings() if line.startswith("over-optimised")]
    assert "second fell from" in warning
    assert warning in report.to_json()["warnings"]
    assert report.to_json()["held_out"]["second"]["correlation"] == pytest.approx(-1.0)


def test_agreement_is_not_told():
    _, _, report = run(
        {"reward0": Second(lambda images: images.mean(dim=(1, 2, 3)))}, evaluations=160
    )
    assert not any(line.startswith("over-optimised") for line in report.warnings())


def test_noise_is_rarely_told():
    """A number that has nothing to do with the reward: few alarms, whatever the last picture's."""

    def last_bits(images):
        return (images.mean(dim=(1, 2, 3)) * 1e5) % 1.0

    alarms = 0
    for seed in range(12):
        _, _, report = run({"reward0": Second(last_bits)}, evaluations=90, seed=seed)
        alarms += any(line.startswith("over-optimised") for line in report.warnings())
    assert alarms <= 2


def test_a_search_without_any_says_nothing_of_them():
    _, _, report = run({})
    assert not any("held-out" in line for line in report.sentences())
    assert report.to_json()["held_out"] == {}
    assert SearchReport.execute(report).result[2].splitlines()[0].endswith("score")
