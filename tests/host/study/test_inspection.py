"""Flow Inspect in the real host: it records the very run that the sampler makes."""

import json

import comfy.latent_formats
import host_models as hm
import pytest
import torch
from comfy_extras.nodes_custom_sampler import RandomNoise
from nodes import EmptyLatentImage

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.sampling.demo_model import load_demo
from flowsearch.nodes.study.inspection import FlowInspect
from flowsearch.nodes.study.inspection_plot import MOST, shown
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.transition import Transition

SIGMAS = [1.0, 0.93, 0.81, 0.62, 0.4, 0.17, 0.0]


def look(model, sigmas=SIGMAS, latent=None, seed=3, guider=None, **inputs):
    """(plot, sheet, record) of the node."""
    out = FlowInspect.execute(
        guider=guider or hm.guider(model),
        sigmas=torch.tensor(sigmas),
        latent_image=latent or hm.empty_latent(2, 16),
        noise=RandomNoise.execute(noise_seed=seed)[0],
        **inputs,
    ).result
    return out[0], out[1], json.loads(out[2])


def test_the_readings_are_those_of_the_sampler():
    """The same run through SamplerCustomAdvanced, told by the host's own callback."""
    model, law = hm.scene_model(), noise_law("constant_k", k=0.5)
    latent = hm.empty_latent(2)
    _, _, record = look(model, latent=latent, noise_law=law)
    told = []
    noise = RandomNoise.execute(noise_seed=3)[0]
    end = hm.guider(model).sample(
        noise.generate_noise({"samples": torch.zeros(2, 3, 64, 64)}),
        torch.zeros(2, 3, 64, 64),
        FlowSampler(Transition(law)),
        torch.tensor(SIGMAS),
        callback=lambda step, d, x, total: told.append((d.clone(), x.clone())),
        disable_pbar=True,
        seed=3,
    )
    assert len(record["readings"]) == len(told) == 6

    def rms(x):
        return x.flatten(1).square().mean(1).sqrt().tolist()

    for reading, (d, x) in zip(record["readings"], told, strict=True):
        s = reading["sigma"]
        assert reading["denoised"] == pytest.approx(rms(d), rel=1e-5)
        assert reading["distance"] == pytest.approx(rms(d - end), rel=1e-4, abs=1e-6)
        assert reading["noise"] == pytest.approx(rms((x - (1 - s) * d) / s), rel=1e-5)
        assert reading["score"] == pytest.approx([n / s for n in reading["noise"]])
    assert [r["k"] for r in record["readings"]] == [None, *[pytest.approx(0.5)] * 4, None]


@pytest.mark.parametrize("kind", ["EPS", "EDM", "V_PREDICTION"])
def test_diffusion_models_are_read_in_their_own_coordinates(kind):
    class Nothing(torch.nn.Module):
        """Returns 0, which is D = 0 for none of these kinds but EPS's D = x."""

        dtype = torch.float32

        def forward(self, x, timestep, context=None, **_):
            return torch.zeros_like(x)

    model = hm.wrap(Nothing(), kind)
    sampling = model.get_model_object("model_sampling")
    top = float(sampling.sigma_max)
    plot, _, record = look(model, [top, 1.0, 0.2, 0.0])
    first = record["readings"][0]
    assert first["linear_sigma"] == pytest.approx(top / (1 + top), rel=1e-5)
    if kind == "EPS":
        assert first["noise"] == [0.0, 0.0]
    else:  # D is a small share of x, and x / sigma is the initial noise
        assert first["noise"] == pytest.approx([1.0, 1.0], abs=0.15)
    assert plot.shape[-1] == 3


def test_noise_scale_is_taken_out():
    class Zero(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x, timestep, context=None, **_):
            return x / (timestep / 1000.0).view(-1, 1, 1, 1)

    _, _, record = look(hm.wrap(Zero(), noise_scale=8.0))
    assert record["readings"][0]["noise"] == pytest.approx([1.0, 1.0], abs=0.1)


def test_a_vae_decodes_the_sheet_and_without_one_the_host_previews():
    model, clip, vae = load_demo()
    prompt = clip.encode_from_tokens_scheduled(clip.tokenize("two red circles"))
    guider = hm.guider(model, prompt)
    sigmas = torch.linspace(1, 0, 13).tolist()
    _, coarse, _ = look(model, sigmas, hm.empty_latent(1), guider=guider)
    _, fine, _ = look(model, sigmas, hm.empty_latent(1), guider=guider, vae=vae)
    assert coarse.shape == fine.shape == (1, 2 * 142, 10 * 120, 3)
    assert (coarse - fine).abs().mean() < 0.01  # pixels: the preview is the picture
    other = hm.wrap(hm.GaussianNet())
    other.model.latent_format = comfy.latent_formats.LatentFormat()  # no colours known
    _, grey, _ = look(other, latent=hm.empty_latent(1, 16, 4))
    assert (grey.amax(-1) - grey.amin(-1)).max() == 0.0


def test_videos_and_leftover_noise():
    latent = {"samples": torch.zeros(1, 3, 2, 16, 16)}
    _, sheet, record = look(hm.gaussian_model(), SIGMAS[:4], latent)
    assert len(record["readings"]) == 3
    assert record["readings"][-1]["distance"] == [0.0]
    assert sheet.shape[2] == 3 * 120


def test_an_empty_latent_of_another_model_takes_the_models_shape():
    latent = EmptyLatentImage().generate(64, 64)[0]
    assert latent["samples"].shape == (1, 4, 8, 8)
    before = dict(latent)
    _, _, record = look(hm.gaussian_model(), latent=latent)
    _, _, wanted = look(hm.gaussian_model(), latent=hm.empty_latent(1, 64))
    assert record == wanted
    assert latent == before


def test_long_lists_are_thinned_on_the_sheet_only():
    assert shown(7) == list(range(7))
    chosen = shown(100)
    assert (len(chosen), chosen[0], chosen[-1]) == (MOST, 0, 99)
    _, sheet, record = look(hm.gaussian_model(), torch.linspace(1, 0, 101).tolist())
    assert len(record["readings"]) == 100
    assert sheet.shape[1] == 4 * 142


@pytest.mark.parametrize("sigmas", [[], [1.0], [0.1, 0.5, 0.9], [1.0, 0.5, 0.5, 0.0]])
def test_sigmas_that_do_not_fall_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigmas that fall"):
        look(hm.gaussian_model(), sigmas)
