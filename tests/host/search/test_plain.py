"""The plain sample that every search begins with is the host's own picture, to the bit."""

import host_models as hm
import nodes
import pytest
import searching as s
import torch

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.search.search_sampler import SearchSampler
from flowsearch.nodes.search.searcher import SearchInputs
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.transition import Transition


def masked(latent):
    mask = torch.zeros(1, 1, hm.SIZE, hm.SIZE)
    mask[..., 20:50, 10:40] = 1.0
    return {**latent, "noise_mask": mask}


CASES = {
    "plain": {},
    "guided": {"cfg": 4.0, "negative": -0.5},
    "partial denoise": {"latent": hm.picture_latent(), "denoise": 0.6},
    "mask": {"latent": masked(hm.picture_latent()), "cfg": 2.0},
    "mask, partial": {"latent": masked(hm.picture_latent()), "denoise": 0.5},
    "another scheduler": {"scheduler": "beta"},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_search_of_one_plain_run_is_ksamplers_euler(case):
    model = hm.scene_model()
    latent, image, report = s.reward_search(
        model, evaluations=s.STEPS, strategy=s.strategy("best_of_n"), **case
    )
    given = {"cfg": 1.0, "negative": 0.0, "scheduler": "simple", "denoise": 1.0, **case}
    host = nodes.common_ksampler(
        model,
        3,
        s.STEPS,
        given["cfg"],
        "euler",
        given["scheduler"],
        hm.conditioning(0.5),
        hm.conditioning(given["negative"]),
        given.get("latent") or hm.empty_latent(),
        given["denoise"],
    )[0]["samples"]
    assert torch.equal(latent["samples"], host)
    assert torch.equal(image, s.pixel_vae().decode(host))
    assert report.trace.record["stopped"][0]["ledger"]["evaluations"] == s.STEPS


STOCHASTIC = FlowSampler(Transition(noise_law("constant_k", k=0.5)))


@pytest.mark.parametrize(
    "inner",
    [STOCHASTIC, *map(s.sampler, ("euler", "heun", "dpmpp_2m", "euler_ancestral", "uni_pc"))],
    ids=["ours", "euler", "heun", "dpmpp_2m", "euler_ancestral", "uni_pc"],
)
@pytest.mark.parametrize(
    "start", [hm.empty_latent(), masked(hm.picture_latent())], ids=["empty", "mask"]
)
def test_the_plain_sample_is_the_connected_samplers(inner, start):
    model = hm.scene_model()
    guider = hm.guider(model, 0.7, -0.2, cfg=3.0)
    plain, _ = hm.run(guider, inner, s.SIGMAS.clone(), start, seed=9)
    best_of_1 = s.strategy("best_of_n", candidates=1)
    latent, _, report = s.search(
        guider, inner, start, seed=9, evaluations=60, strategy=best_of_1, top_k=2
    )
    rows = [torch.equal(row[None], plain) for row in latent["samples"]]
    assert rows.count(True) == 1, "the plain sample is one of the two pictures, to the bit"
    assert report.plain(0) is not None


def test_default_rbf_keeps_the_plain_sample_within_reach():
    """With a budget of one run, and RBF, the same picture comes out."""
    model = hm.scene_model()
    latent, _, _ = s.reward_search(model, evaluations=s.STEPS)
    again, _, _ = s.reward_search(model, evaluations=s.STEPS, strategy=s.strategy("best_of_n"))
    assert torch.equal(latent["samples"], again["samples"])


def test_as_a_sampler_the_last_callback_holds_the_final_picture():
    model = hm.scene_model()
    inner = SearchInputs(
        vae=s.pixel_vae(), reward=s.Brightness(), evaluations=50, target=s.NEVER
    ).search(STOCHASTIC)
    assert isinstance(inner, SearchSampler)
    latent = hm.empty_latent(2)
    output, denoised = hm.run(hm.guider(model, 0.5), inner, s.SIGMAS, latent, seed=3)
    node, _, _ = s.search(hm.guider(model, 0.5), STOCHASTIC, latent, evaluations=50)
    assert output.shape[0] == 2
    assert torch.equal(output, denoised)
    assert torch.equal(output, node["samples"])


def test_settings_of_the_caller_are_left_alone():
    """A guider can be used again after a search."""
    model = hm.scene_model()
    guider = hm.guider(model, 0.7, -0.2, cfg=3.0)
    before, _ = hm.run(guider, s.sampler(), s.SIGMAS, hm.empty_latent(), seed=9)
    s.search(guider, STOCHASTIC)
    after, _ = hm.run(guider, s.sampler(), s.SIGMAS, hm.empty_latent(), seed=9)
    assert torch.equal(before, after)
