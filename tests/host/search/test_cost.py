"""What a search takes: the ledger is the network's own count, and memory is given back."""

import contextlib

import comfy.model_management
import comfy.utils
import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.search import judge
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.transition import ODE, Transition


def ledger(report, item=0):
    return report.trace.record["stopped"][item]["ledger"]


@pytest.mark.parametrize(("cfg", "each"), [(1.0, 1), (4.0, 2)])
@pytest.mark.parametrize("name", ["rbf", "best_of_n"])
def test_evaluations_and_rows_are_what_the_network_was_given(cfg, each, name):
    model = hm.scene_model()
    rows = s.count_rows(model)
    _, _, report = s.reward_search(model, cfg=cfg, strategy=s.strategy(name), evaluations=45)
    spent = ledger(report)
    assert spent["rows"] == sum(rows)
    assert spent["evaluations"] * each == sum(rows)
    assert spent["evaluations"] <= 45


@pytest.mark.parametrize("method", ["second_order", "heun", "glass"])
@pytest.mark.parametrize("name", ["best_of_n", "rbf"])
def test_calls_inside_a_step_are_counted_too(name, method):
    model = hm.scene_model()
    rows = s.count_rows(model)
    law = noise_law("constant_k", k=0.5)
    inner = FlowSampler(Transition(law, method, inner_evaluations=3))
    masked = {**hm.picture_latent(), "noise_mask": torch.ones(1, 1, hm.SIZE, hm.SIZE)}
    choice = s.strategy(name, **({"q": None} if name == "rbf" else {}))
    _, _, report = s.search(
        hm.guider(model, 0.5, -0.2, cfg=2.0), inner, masked, evaluations=70, strategy=choice
    )
    spent = ledger(report)
    assert spent["rows"] == sum(rows) == 2 * spent["evaluations"]
    assert spent["evaluations"] <= 70


def test_areas_take_more_rows_than_evaluations():
    model = hm.scene_model()
    rows = s.count_rows(model)
    area = [*hm.conditioning(1.0, area=(32, 32, 0, 0)), *hm.conditioning(-1.0)]
    _, _, report = s.reward_search(model, positive=area, cfg=2.0, evaluations=20)
    spent = ledger(report)
    assert spent["rows"] == sum(rows) > 2 * spent["evaluations"]


@pytest.mark.parametrize(("name", "each"), [("euler", 6), ("heun", 11), ("dpmpp_2m", 6)])
def test_a_stock_samplers_cost_is_measured(name, each):
    model = hm.scene_model()
    rows = s.count_rows(model)
    _, _, report = s.search(hm.guider(model, 0.5), s.sampler(name), evaluations=40)
    spent = ledger(report)
    assert spent["evaluations"] == sum(rows) == spent["rows"]
    assert spent["evaluations"] % each == 0
    assert spent["evaluations"] <= 40


def test_rows_per_call_is_how_many_the_network_sees_at_once():
    model = hm.scene_model()
    rows = s.count_rows(model)
    choice = s.strategy("rbf", rows_per_call=3, width=8)
    s.reward_search(model, strategy=choice, evaluations=60)
    assert max(rows) == 3


def test_chunks_agree():
    """Another number of rows a call changes the network's bits, not the search."""
    found = [
        s.reward_search(
            hm.scene_model(), strategy=s.strategy("rbf", rows_per_call=n), evaluations=48
        )[0]
        for n in (1, 4)
    ]
    assert (found[0]["samples"] - found[1]["samples"]).abs().max() < 1e-4


def test_the_bar_counts_evaluations_and_shows_the_best_picture(monkeypatch):
    told = []
    monkeypatch.setattr(
        comfy.utils,
        "PROGRESS_BAR_HOOK",
        lambda value, total, preview, **_: told.append((value, total, preview)),
    )
    _, _, report = s.reward_search(hm.scene_model(), evaluations=45)
    assert {total for _, total, _ in told} == {45}
    assert told[-1][0] == 45
    values = [value for value, _, _ in told]
    assert values == sorted(values)
    pictures = [preview for _, _, preview in told if preview is not None]
    better = [row for row in report.trace.record["finished"] if row["best"]]
    assert len(pictures) == len(better)
    assert all(kind == "JPEG" and image.size == (64, 64) for kind, image, _ in pictures)


class Dimmed(torch.nn.Module):
    """Network that predicts something else; put in place of the model's by an object patch."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.dtype = network.dtype

    def forward(self, x, *args, **kwargs):
        return 0.5 * self.network(x, *args, **kwargs)


def patched_model():
    """MODEL with an object patch, which an eviction from memory takes back, silently."""
    model = hm.scene_model().clone()
    model.add_object_patch("diffusion_model", Dimmed(model.model.diffusion_model))
    return model


def evict(_call):
    """What another model's loading does when memory is short."""
    comfy.model_management.free_memory(1e30, comfy.model_management.get_torch_device())


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "mutant"])
def test_scoring_may_push_the_model_out_of_memory(monkeypatch, kept):
    if not kept:
        monkeypatch.setattr(judge, "models_kept", lambda memory: contextlib.nullcontext())
    given = {"strategy": s.strategy("rbf"), "evaluations": 40}
    undisturbed, _, _ = s.reward_search(patched_model(), **given)
    evicted, _, _ = s.reward_search(patched_model(), **given, reward=s.Calling(evict))
    assert torch.equal(undisturbed["samples"], evicted["samples"]) == kept


def test_a_cheap_decoder_scores_only_what_is_unfinished():
    used = {"vae": 0, "scoring": 0}

    class Spy:
        """A VAE that counts what it decodes."""

        def __init__(self, name):
            self.name, self.vae = name, s.pixel_vae()

        def decode(self, latents):
            used[self.name] += latents.shape[0]
            return self.vae.decode(latents)

    reward = s.Brightness()
    _, image, report = s.reward_search(
        hm.scene_model(),
        vae=Spy("vae"),
        scoring_vae=Spy("scoring"),
        score_size=16,
        reward=reward,
        evaluations=45,
    )
    finished = len(report.trace.record["finished"])
    scored = ledger(report)["reward_calls"]
    assert used == {"vae": finished + 1, "scoring": scored - finished}  # + 1: the output
    small = sum(shape[0] for shape in reward.shapes if shape[1] == 16)
    assert small == scored - finished
    assert image.shape[1] == 64


def test_limits_stop_the_search():
    model = hm.scene_model()
    _, _, report = s.reward_search(model, evaluations=300, reward_calls=12)
    assert ledger(report)["reward_calls"] <= 12
    assert report.trace.record["stopped"][0]["why"] == "reward_calls"
    _, _, report = s.reward_search(
        model, evaluations=300, target={"target": "value", "value": -9.0}
    )
    assert ledger(report)["evaluations"] == s.STEPS, "the plain sample reaches it"
    assert report.trace.record["stopped"][0]["why"] == "target"


@pytest.mark.parametrize(("target", "stops"), [("highest", True), ("never", False)])
def test_highest_is_the_most_the_reward_can_give(target, stops):
    reward = s.Brightness(high=-1.0)
    _, _, report = s.reward_search(
        hm.scene_model(), reward=reward, evaluations=30, target={"target": target}
    )
    assert (ledger(report)["evaluations"] == s.STEPS) == stops


def test_a_search_finds_brighter_and_darker_pictures():
    """It moves the reward the way it is asked to."""
    model = hm.scene_model()
    descent = s.strategy("rbf")
    ends = [
        s.reward_search(model, reward=s.Brightness(sign), strategy=descent, evaluations=60)[2]
        for sign in (1.0, -1.0)
    ]
    for report in ends:
        assert report.best(0) > report.plain(0)


def test_a_partial_denoise_is_searched_too():
    """It may start below the sigmas that are searched otherwise."""
    latent = hm.picture_latent()
    _, _, report = s.reward_search(hm.scene_model(), latent, denoise=0.3, evaluations=45)
    spent = ledger(report)["phases"]
    assert spent["plain"] == s.STEPS
    assert spent["search"] > s.STEPS


def test_ode_sampler_in_search_draws_with_the_strategys_q():
    _, _, report = s.search(
        hm.guider(hm.scene_model(), 0.5), FlowSampler(ODE), strategy=s.strategy("rbf"),
        evaluations=45,
    )  # fmt: skip
    drawn = [row["transition"] for row in report.trace.record["evaluated"] if row["transition"]]
    assert {row["law"]["name"] for row in drawn} == {"ode", "fixed_q"}
