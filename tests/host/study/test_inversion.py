"""Inversion and variation in the real host: what comes back, and what a sampler makes of it."""

import comfy.model_management
import comfy.patcher_extension
import comfy.samplers
import host_models as hm
import numpy as np
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

from flowsearch.demo.prompt import encode, parse
from flowsearch.demo.scene import Scene, draw, held_out
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.sampling.demo_model import load_demo
from flowsearch.nodes.study.inversion import Invert, Variation
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.paths.sigmas import uniform
from flowsearch.samplers.stepping.transition import ODE, Transition
from flowsearch.samplers.study.inversion import FLOOR

KINDS = ["FLOW", "FLUX", "EPS", "V_PREDICTION", "EDM", "FLOW_COSMOS"]
SECOND = FlowSampler(Transition(noise_law("ode"), "second_order"))
EULER = comfy.samplers.sampler_object("euler")


HELD_OUT = ("six blue circles", "three blue triangles", "two red squares")


class Rough(torch.nn.Module):
    """A network that is wrong everywhere, but bounded: whatever it returns is a prediction of D."""

    dtype = torch.float32

    def forward(self, x, timestep, context=None, **_):
        return torch.tanh(1.7 * x.roll(1, -1)) + 0.2 * x.sin()


def rms(tensor):
    return float(tensor.pow(2).mean().sqrt())


def data(rows=2, size=hm.SIZE):
    """Pictures from the law that the exact models know."""
    generator = torch.Generator().manual_seed(9)
    return {"samples": hm.MEAN + hm.STD * torch.randn(rows, 3, size, size, generator=generator)}


def model_of(kind):
    return hm.gaussian_model(kind) if kind in ("FLOW", "FLUX") else hm.path_model(kind)


def sigmas_of(model, steps=50, scheduler="simple"):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, scheduler, steps)


def invert(model, latent, sigmas, mode="second_order", k=0.0, seed=3, **guidance):
    options = {"mode": mode, "k": k} if mode != "reversible" else {"mode": mode}
    options |= {"direction": "to_noise"} if mode == "reversible" else {}
    sigmas = torch.as_tensor(sigmas)
    return Invert.execute(hm.guider(model, **guidance), sigmas, latent, options, seed).args


def undo(model, latent, sigmas, **guidance):
    mode = {"mode": "reversible", "direction": "to_data"}
    return Invert.execute(hm.guider(model, **guidance), sigmas, latent, mode, 0).args


def sampled(model, noise, latent, sigmas, sampler=SECOND):
    return SamplerCustomAdvanced.execute(
        noise=noise, guider=hm.guider(model), sampler=sampler, sigmas=sigmas, latent_image=latent
    )[0]["samples"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_noise_gives_the_picture_back_to_a_sampler_on_the_same_list(kind):
    model, latent = model_of(kind), data()
    sigmas = sigmas_of(model)
    _, noise = invert(model, latent, sigmas)
    empty = hm.empty_latent(2)
    assert 0.95 < float(noise.generate_noise(empty).std()) < 1.05
    for start in (empty, latent):  # the same states, whatever the noise is mixed with
        assert rms(sampled(model, noise, start, sigmas) - latent["samples"]) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_the_latent_goes_on_without_noise_from_the_sigma_where_it_ended(kind):
    model, latent = model_of(kind), data()
    sigmas = sigmas_of(model)[10:]
    out, _ = invert(model, latent, sigmas)
    back, _ = hm.run(hm.guider(model), SECOND, sigmas, out, None)
    assert rms(back - latent["samples"]) < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_both_outputs_are_one_state(kind):
    model, latent = model_of(kind), data(size=16)
    sigmas = sigmas_of(model, 12)[3:]
    out, noise = invert(model, latent, sigmas)
    one = hm.run(hm.guider(model), EULER, sigmas, out, None)[0]
    two = sampled(model, noise, hm.empty_latent(2, 16), sigmas, EULER)
    assert (one - two).abs().max() < 1e-4


def test_inversion_is_the_stochastic_sampler_on_the_rising_list():
    model, latent = hm.scene_model(), hm.picture_latent(2)
    falling = [0.9, 0.6, 0.3, 0.1, 0.0]
    out, _ = invert(model, latent, falling, "exact", seed=4, positive=1.0)
    rising = [FLOOR, 0.1, 0.3, 0.6, 0.9]
    host, _ = hm.run(hm.guider(model, positive=1.0), EULER, rising, latent, 4)
    assert torch.equal(out["samples"], host)
    turned, _ = invert(model, latent, falling[::-1], "exact", seed=4, positive=1.0)
    assert torch.equal(turned["samples"], host)


@pytest.mark.parametrize("kind", KINDS)
def test_reversible_comes_back_to_rounding_whatever_the_model_says(kind):
    model, latent = hm.wrap(Rough(), kind), hm.picture_latent(2, size=16)
    sigmas = sigmas_of(model)
    up, noise = invert(model, latent, sigmas, "reversible")
    assert rms(up["samples"] - latent["samples"]) > 0.1
    assert noise.generate_noise(hm.empty_latent(2, 16)).isfinite().all()
    back, silent = undo(model, up, sigmas)
    assert rms(back["samples"] - latent["samples"]) <= 1e-4
    assert not silent.generate_noise(back).any()
    assert set(back) == {"samples"}


def test_reversible_obeys_a_mask():
    mask = torch.zeros(1, 1, hm.SIZE, hm.SIZE)
    mask[..., 20:50, 10:40] = 1.0
    latent = {**hm.picture_latent(), "noise_mask": mask}
    model, sigmas = hm.scene_model(), torch.linspace(1, 0, 13)
    up, _ = invert(model, latent, sigmas, "reversible")
    back = undo(model, up, sigmas)[0]["samples"]
    assert rms(back - latent["samples"]) <= 1e-4


def test_a_mask_keeps_the_rest_of_the_picture():
    mask = torch.zeros(1, 1, hm.SIZE, hm.SIZE)
    mask[..., 20:50, 10:40] = 1.0
    latent = {**data(1), "noise_mask": mask}
    model, sigmas = hm.gaussian_model(), torch.linspace(0.9, 0, 31)
    out, noise = invert(model, latent, sigmas)
    kept = mask.expand_as(latent["samples"]) == 0.0
    assert torch.equal(out["samples"][kept], latent["samples"][kept])
    assert out["noise_mask"] is mask
    for back in (
        hm.run(hm.guider(model), SECOND, sigmas, out, None)[0],
        sampled(model, noise, latent, sigmas),
    ):
        assert torch.allclose(back[kept], latent["samples"][kept], atol=1e-6)
        assert rms(back - latent["samples"]) < 0.05
    varied = Variation.execute(hm.guider(model), latent, 0.8, 1.0, 10, 1)[0]["samples"]
    assert torch.allclose(varied[kept], latent["samples"][kept], atol=1e-6)
    assert rms((varied - latent["samples"])[~kept]) > 0.2


def test_noise_refuses_another_shape_with_its_own():
    _, noise = invert(hm.gaussian_model(), data(2, 16), [0.9, 0.5, 0.0])
    with pytest.raises(ValueError, match=r"shape \(2, 3, 16, 16\)"):
        noise.generate_noise(hm.empty_latent(1, 16))


def test_noise_scale_is_the_models():
    model = hm.gaussian_model(noise_scale=8.0)
    latent, sigmas = data(), torch.linspace(1, 0, 51)
    _, noise = invert(model, latent, sigmas, "exact", k=1.0)
    assert float(noise.generate_noise(hm.empty_latent(2)).std()) == pytest.approx(1.0, rel=0.03)


def test_k_one_is_noising_and_forgets():
    model, latent = hm.scene_model(), hm.picture_latent()
    out, noise = invert(model, latent, [0.9, 0.6, 0.3, 0.0], k=1.0)
    x0 = latent["samples"]
    found = (0.1 * out["samples"] - 0.1 * x0) / 0.9
    assert float(found.std()) == pytest.approx(1.0, rel=0.03)
    assert torch.allclose(found, noise.generate_noise(latent), atol=1e-4)
    other, _ = invert(model, latent, [0.9, 0.6, 0.3, 0.0], k=1.0, seed=4)
    assert (out["samples"] - other["samples"]).std() > 1.0


def test_rows_have_noise_of_their_own_and_keep_it_alone():
    model = hm.gaussian_model()
    latent = {"samples": hm.picture_latent()["samples"].repeat(3, 1, 1, 1)}
    whole = Variation.execute(hm.guider(model), latent, 0.7, 0.5, 6, 5)[0]["samples"]
    assert (whole[0] - whole[1]).abs().max() > 0.1
    alone = {"samples": latent["samples"][:1], "batch_index": [2]}
    single = Variation.execute(hm.guider(model), alone, 0.7, 0.5, 6, 5)[0]["samples"]
    assert (whole[2] - single[0]).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [0.0, 0.5, 1.0])
def test_variations_correlate_by_the_gaussian_law(kind, k):
    model, latent, sigma = model_of(kind), data(8), 0.5
    out = Variation.execute(hm.guider(model), latent, sigma, k, 40, 1)[0]["samples"]
    found = torch.corrcoef(torch.stack([latent["samples"].flatten(), out.flatten()]))[0, 1]
    signal = ((1 - sigma) * hm.STD) ** 2
    assert float(found) == pytest.approx((signal / (signal + sigma**2)) ** k, abs=0.02)
    assert float(out.std()) == pytest.approx(hm.STD, rel=0.05)


@pytest.mark.parametrize("k", [0.5, 1.0])
def test_variation_counts_its_calls(k):
    model = hm.gaussian_model()
    Variation.execute(hm.guider(model), data(1, 8), 0.7, k, 6, 1)
    assert model.model.diffusion_model.calls == (6 if k == 1.0 else 12)


def test_the_way_back_needs_the_second_state_and_the_same_list():
    model, sigmas = hm.gaussian_model(), torch.linspace(1, 0, 9)
    up, _ = invert(model, data(1, 8), sigmas, "reversible")
    with pytest.raises(ValueError, match="second state"):
        undo(model, {"samples": up["samples"]}, sigmas)
    with pytest.raises(ValueError, match="second state"):
        undo(model, {**up, "samples": up["samples"].repeat(2, 1, 1, 1)}, sigmas)
    with pytest.raises(ValueError, match="same SIGMAS"):
        undo(model, up, torch.linspace(1, 0, 10))


def test_an_ordinary_inversion_drops_the_second_state():
    model, sigmas = hm.gaussian_model(), torch.linspace(1, 0, 9)
    up, _ = invert(model, data(1, 8), sigmas, "reversible")
    assert set(invert(model, up, sigmas)[0]) == {"samples"}


def watch(model, told, then=lambda step: None):
    """Record what the host's own callback, its bar and previewer, is told of each run."""

    def wrapper(executor, noise, latent, sampler, sigmas, mask, callback, *rest, **named):
        def both(step, x0, x, total):
            told.append((step, total))
            callback(step, x0, x, total)
            then(step)

        return executor(noise, latent, sampler, sigmas, mask, both, *rest, **named)

    model.add_wrapper(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, wrapper)
    return model


def test_every_step_reaches_the_hosts_bar_and_preview():
    told = []
    model, sigmas, latent = watch(hm.gaussian_model(), told), torch.linspace(1, 0, 7), data(1, 8)
    up, _ = invert(model, latent, sigmas, "reversible")
    for run in (
        lambda: None,
        lambda: undo(model, up, sigmas),
        lambda: invert(model, latent, sigmas),
        lambda: Variation.execute(hm.guider(model), latent, 0.7, 0.5, 3, 1),
        lambda: Variation.execute(hm.guider(model), latent, 0.7, 1.0, 6, 1),
    ):
        run()
        assert told == [(i, 6) for i in range(6)]
        told.clear()


@pytest.mark.parametrize("mode", ["second_order", "reversible"])
def test_cancel_stops_before_the_next_call(mode):
    def cancel(step):
        if step == 1:
            comfy.model_management.interrupt_current_processing(True)

    model = watch(hm.gaussian_model(), [], cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        invert(model, data(1, 8), torch.linspace(1, 0, 9), mode)
    assert model.model.diffusion_model.calls == 2


def test_inputs_stay_as_they_were():
    latent, sigmas = data(1, 8), torch.linspace(1, 0, 9)
    before = latent["samples"].clone(), sigmas.clone()
    model = hm.gaussian_model()
    up, _ = invert(model, latent, sigmas, "reversible")
    undo(model, up, sigmas)
    Variation.execute(hm.guider(model), latent, 0.7, 0.5, 3, 1)
    assert torch.equal(latent["samples"], before[0])
    assert torch.equal(sigmas, before[1])
    assert set(latent) == {"samples"}


def test_models_without_a_path_are_refused():
    model = hm.wrap(hm.GaussianNet(), "IMG_TO_IMG_FLOW")
    with pytest.raises(ValueError, match="works with flow models"):
        invert(model, data(1, 8), [1.0, 0.5, 0.0])


def test_ode_on_the_noise_is_the_hosts_euler():
    model, latent, sigmas = hm.scene_model(), hm.picture_latent(), torch.linspace(1, 0, 9)
    _, noise = invert(model, latent, sigmas)
    ours = sampled(model, noise, hm.empty_latent(), sigmas, FlowSampler(ODE))
    assert torch.equal(ours, sampled(model, noise, hm.empty_latent(), sigmas, EULER))


@pytest.fixture(scope="module")
def scenes():
    """Embedded model, a guider with one prompt a row, and pictures it was not trained on.

    Of fuller scenes than these, one in three comes back with a shape changed (the benchmark).
    """
    rng = np.random.default_rng(12)
    drawn = [Scene(parse(text)) for text in HELD_OUT]
    assert all(held_out(scene) for scene in drawn)
    pictures = [torch.from_numpy(draw(scene, rng)).permute(2, 0, 1) * 2.0 - 1.0 for scene in drawn]
    prompts = hm.conditioning(torch.stack([encode(scene.groups) for scene in drawn]))
    return hm.guider(load_demo()[0], prompts), {"samples": torch.stack(pictures)}


@pytest.mark.parametrize(("mode", "bound"), [("second_order", 0.05), ("reversible", 1e-4)])
def test_drawn_scenes_come_back_in_fifty_steps(scenes, mode, bound):
    guider, latent = scenes
    sigmas = torch.tensor(uniform(50, shift=3.0))
    settings = (
        {"mode": mode, "k": 0.0} if bound == 0.05 else {"mode": mode, "direction": "to_noise"}
    )
    up, noise = Invert.execute(guider, sigmas, latent, settings, 3).args
    found = noise.generate_noise(hm.empty_latent(3)).std(dim=(1, 2, 3))
    assert found.min() >= 0.9
    assert found.max() <= 1.1
    if mode == "reversible":
        settings["direction"] = "to_data"
        back = Invert.execute(guider, sigmas, up, settings, 0).args[0]["samples"]
    else:
        back = SamplerCustomAdvanced.execute(noise, guider, SECOND, sigmas, hm.empty_latent(3))[0]
        back = back["samples"]
    assert rms(back - latent["samples"]) <= bound
