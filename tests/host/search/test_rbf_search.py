"""RBF Search runs Rollover Budget Forcing: the pack's own, or the published code's decisions."""

import random
from itertools import pairwise

import host_models as hm
import pytest
import searching as s
import torch
from published_loop import published

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.sampling.sampler import NoiseLaw, Sigmas, StochasticSampler
from flowsearch.nodes.search.rbf_search import RBFSearch
from flowsearch.rewards.base import RewardSpec
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import rbf_reference
from flowsearch.samplers.stepping.transition import Transition

# arXiv:2503.19385's schedule and g = 3 s^2, worked out in VP time: std of the noise over sigma'
FRACTIONS = [0.212, 0.366, 0.463, 0.528, 0.566, 0.579, 0.564, 0.524, 0.473]


class Scripted:
    """Rewards in the order in which pictures are scored; what is left gets the lowest."""

    def __init__(self, values):
        self.spec = RewardSpec("scripted", "numbers from a list", -1e3, 1e3)
        self.values = [*values]

    def score(self, images):
        return torch.tensor([self.values.pop(0) if self.values else -1e3 for _ in images])


def rbf_search(mode, **given):
    """RBF Search with small numbers; returns (LATENT, IMAGE, FLOW_REPORT)."""
    settings = {"rbf": mode, **given.pop("settings", {})}
    defaults = {
        "seed": 3, "steps": s.STEPS, "cfg": 1.0, "scheduler": "simple", "denoise": 1.0,
        "evaluations": 40, "target": s.NEVER, "vae": s.pixel_vae(), "reward": s.Brightness(),
        "model": hm.scene_model(), "positive": hm.conditioning(0.5),
        "negative": hm.conditioning(0.0), "latent_image": hm.empty_latent(),
    }  # fmt: skip
    return RBFSearch.execute(rbf=settings, **{**defaults, **given}).result[:3]


def rows(report, *phases):
    return [row for row in report.trace.record["evaluated"] if row["phase"] in phases]


def settings_of(report):
    return report.trace.record["started"][0]["settings"]


def test_adaptive_is_reward_search_with_the_strategy_rbf():
    ours, _, report = rbf_search("adaptive", settings={"q": 0.7, "pool": 3})
    theirs, _, other = s.reward_search(
        hm.scene_model(), strategy=s.strategy("rbf", rows_per_call=0, q=0.7, pool=3)
    )
    assert torch.equal(ours["samples"], theirs["samples"])
    assert settings_of(report) == settings_of(other)
    assert settings_of(report)["strategy"]["strategy"] == "rbf"


@pytest.mark.parametrize("seed", range(3))
def test_published_takes_the_published_codes_decisions(seed):
    stream = random.Random(seed)
    budget, pool, steps = 120, 25, 6
    rewards = [[float(stream.randrange(30)) for _ in range(budget // 2)] for _ in range(2)]
    merged = [row[i] for i in range(budget // 2) for row in rewards]
    _, _, report = rbf_search(
        "published", evaluations=budget, reward=Scripted(merged), settings={"steps": steps}
    )
    place = {round(sigma, 5): i for i, sigma in enumerate(rbf_reference(steps))}
    for index, (draws, output) in enumerate(published(rewards, 2, budget, pool, steps)):
        search = [row for row in rows(report, "search") if row["chain"] == index]
        number = {row["id"]: i for i, row in enumerate(search)}
        found = [(place[round(row["sigma"], 5)], number.get(row["parent"])) for row in search]
        assert found == draws
        finished = [row for row in rows(report, "finish") if row["chain"] == index]
        assert [number[row["parent"]] for row in finished] == [output]
    assert rows(report, "plain") == []


def test_published_draws_with_the_published_noise():
    _, _, report = rbf_search("published", evaluations=90, steps=3, scheduler="karras")
    drawn = [row["transition"] for row in rows(report, "search") if row["parent"] is not None]
    assert all(each == drawn[0] for each in drawn)
    transition, levels = Transition.from_json(drawn[0]), rbf_reference(10)
    found = [transition.coefficients(*pair).weight_z for pair in pairwise(levels[:-1])]
    assert found == pytest.approx(FRACTIONS, abs=6e-4)
    assert settings_of(report)["sigmas"] == pytest.approx(levels, abs=1e-6)


def spelled_out(strategy, law="rbf_reference", levels="rbf_reference", chains=1, **given):
    """The same by Reward Search (Advanced) and the nodes of its parts."""
    (noise_law,) = NoiseLaw.execute({"law": law}, 0.0, 0.0)
    (sampler,) = StochasticSampler.execute("euler_maruyama", "vp", noise_law=noise_law)
    (sigmas,) = Sigmas.execute({"interpolant": levels}, 10, 1.0, 1.0, 0.0, "simple")
    choice = s.strategy(strategy, chains, **given.pop("settings", {}))
    guider = hm.guider(hm.scene_model(), 0.5)
    return s.search(guider, sampler, sigmas=sigmas, strategy=choice, **given)


@pytest.mark.parametrize(
    ("strategy", "given"),
    [("published", {"settings": {"method": "rbf"}}), ("rbf_reference", {"chains": 2})],
)
def test_published_is_what_its_parts_make_bit_for_bit(strategy, given):
    ours, _, report = rbf_search("published", evaluations=90)
    theirs, _, other = spelled_out(strategy, evaluations=90, **given)
    assert torch.equal(ours["samples"], theirs["samples"])
    assert settings_of(report) == settings_of(other)
    assert not [note for note in [*report.notes, *other.notes] if "as published" in note]


def test_what_published_does_not_use_is_told():
    _, _, report = rbf_search(
        "published", evaluations=90, steps=7, scheduler="karras",
        target={"target": "value", "value": -5.0},
    )  # fmt: skip
    (note,) = [note for note in report.sentences() if "not used" in note]
    for word in ("10 noise levels", "steps 7", "scheduler karras", "target value"):
        assert word in note
    assert report.trace.record["stopped"][0]["why"] != "target"
    _, _, calm = rbf_search("published", evaluations=90)
    assert not [note for note in calm.notes if "target" in note]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: rbf_search("published", denoise=0.5), "denoise is 0.5, .* set rbf to adaptive"),
        (lambda: rbf_search("published", evaluations=60), "raise the budget to 35 evaluations"),
        (
            lambda: s.reward_search(hm.scene_model(), strategy=s.strategy("rbf_reference", 2)),
            "several draws of an ODE .* RBF Search with rbf set to published",
        ),
    ],
)
def test_what_cannot_run_says_what_to_do(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


@pytest.mark.parametrize("method", ["smc", "code", "svdd", "rbf"])
def test_reward_search_names_the_way_to_a_published_method(method):
    choice = s.strategy("published", method=method)
    with pytest.raises(ValueError, match=r"connect a Stochastic Flow Sampler .* RBF as published"):
        s.reward_search(hm.scene_model(), strategy=choice, evaluations=500)


def test_a_run_that_is_not_as_published_says_in_what():
    exact = FlowSampler(Transition(noise_law("rbf_reference")))
    guider, choice = hm.guider(hm.scene_model(), 0.5), s.strategy("rbf_reference", 1)
    below_1 = torch.linspace(0.99, 0.0, 11)
    _, _, report = s.search(guider, exact, strategy=choice, sigmas=below_1, evaluations=90)
    (note,) = [note for note in report.notes if "not rbf as published" in note]
    for word in ("draws by exact", "euler_maruyama on vp", "other noise levels", "chains 1"):
        assert word in note
    _, _, stock = s.search(
        guider, s.sampler("euler"), strategy=s.strategy("published", method="best_of_n"),
        sigmas=torch.linspace(1.0, 0.0, 11),
    )  # fmt: skip
    assert stock.notes == []


@pytest.mark.parametrize("kind", ["FLOW", "EPS"])
def test_published_runs_in_the_models_own_coordinates(kind):
    _, _, report = rbf_search("published", model=hm.gaussian_model(kind), evaluations=90)
    spent = report.trace.record["stopped"][0]["ledger"]
    assert 80 <= spent["evaluations"] <= 90
    assert settings_of(report)["chains"] == 2
