"""Models that are no flows: SD1.5, SDXL (eps and v), EDM, Cosmos, in their own coordinates.

All of them stand in x = x0 + sigma eps for the host's samplers.
"""

import comfy.samplers
import host_models as hm
import pytest
import searching as s
import torch
from fields import gaussian
from propagation import propagate

from flowsearch.nodes.host.model.field import coordinates_of
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.sampling.conversion import convert
from flowsearch.nodes.sampling.sampler import Sigmas
from flowsearch.samplers.paths.interpolant import LINEAR, VE, sigma_from_r
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.transition import METHODS, ODE, Transition

KINDS = ["EPS", "V_PREDICTION", "V_PREDICTION_EDM", "EDM", "FLOW_COSMOS"]
EULER = comfy.samplers.sampler_object("euler")


def sigmas_of(model, steps=12, scheduler="karras"):
    sampling = model.get_model_object("model_sampling")
    return comfy.samplers.calculate_sigmas(sampling, scheduler, steps)


def masked(latent):
    mask = torch.zeros(1, 1, hm.SIZE, hm.SIZE)
    mask[..., 20:50, 10:40] = 1.0
    return {**latent, "noise_mask": mask}


CASES = {
    "plain": (hm.empty_latent(2), 0),
    "partial denoise": (hm.picture_latent(), 5),
    "mask": (masked(hm.picture_latent(2)), 0),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_ode_is_the_hosts_euler_to_the_bit(kind, case):
    latent, skip = CASES[case]
    model = hm.path_model(kind)
    sigmas = sigmas_of(model)[skip:]
    guided = {"positive": 1.0, "negative": -0.5, "cfg": 3.0}
    ours = hm.run(hm.guider(model, **guided), FlowSampler(ODE), sigmas, latent)[0]
    host = hm.run(hm.guider(model, **guided), EULER, sigmas, latent)[0]
    assert host.std() > 0.01
    assert (ours - host).abs().max() == 0.0


LAWS = {
    "ode": noise_law("ode"),
    "k": noise_law("constant_k", k=0.5),
    "tapered": noise_law("constant_k", k=1.0, taper=(0.2, 0.12)),
}


def exact(transition, sigmas, first_std):
    """Mean and std of the result, by exact propagation on the linear path."""
    linear = [sigma_from_r(VE, v) for v in sigmas.tolist()]
    scale = 1.0 / (1.0 + float(sigmas[0]))
    return propagate(transition, linear, gaussian(hm.MEAN, hm.STD), 0.0, first_std * scale)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", ["exact", "second_order", "heun", "glass"])
@pytest.mark.parametrize("kind", ["EPS", "V_PREDICTION", "EDM", "FLOW_COSMOS"])
def test_spread_is_that_of_exact_propagation(kind, method, law):
    model = hm.path_model(kind)
    sigmas = sigmas_of(model, 8)
    transition = Transition(LAWS[law], method)
    out, _ = hm.run(hm.guider(model), FlowSampler(transition), sigmas, hm.empty_latent(4))
    first = float(sigmas[0])
    if kind != "FLOW_COSMOS":  # the host makes up for the picture that is missing at its start
        first = (1.0 + first**2) ** 0.5
    mean, std = exact(transition, sigmas, first)
    bound = 5 / (2 * out.numel()) ** 0.5 + 2e-4  # and timesteps are rounded to the table
    assert float(out.std()) == pytest.approx(std, rel=bound)
    assert float(out.mean()) == pytest.approx(mean, abs=5 * std / out.numel() ** 0.5 + 2e-4)


@pytest.mark.parametrize("family", ["SD15", "SDXL"])
def test_the_hosts_own_unets_are_sampled(family):
    model = hm.tiny_unet(family)
    latent = hm.empty_latent(2, size=16, channels=4)
    pooled = {"pooled_output": torch.zeros(1, 1280)}
    guider = hm.guider(model, hm.conditioning(1.0, **pooled), hm.conditioning(0.0, **pooled), 2.0)
    sigmas = sigmas_of(model, 6, "normal")
    ours = hm.run(guider, FlowSampler(ODE), sigmas, latent)[0]
    host = hm.run(guider, EULER, sigmas, latent)[0]
    assert torch.equal(ours, host)
    drawn = hm.run(guider, FlowSampler(Transition(LAWS["k"], "second_order")), sigmas, latent)[0]
    assert torch.isfinite(drawn).all()
    assert (drawn - host).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("interpolant", ["host", "linear", "vp", "trigonometric", "ve"])
def test_flow_sigmas_are_the_models_own(kind, interpolant):
    model = hm.path_model(kind)
    sampling = model.get_model_object("model_sampling")
    chosen = {"interpolant": interpolant}
    sigmas = Sigmas.execute(chosen, 10, 1.0, 1.0, 0.0, "karras", model)[0]
    assert len(sigmas) == 11
    assert float(sigmas[-1]) == 0.0
    assert (sigmas.diff() < 0).all()
    assert float(sigmas[0]) <= float(sampling.sigma_max) * (1 + 1e-5)
    if interpolant == "host":
        assert torch.allclose(sigmas, sigmas_of(model, 10), rtol=1e-4)


@pytest.mark.parametrize("method", ["exact", "second_order"])
@pytest.mark.parametrize("kind", ["EPS", "EDM"])
def test_a_search_works_in_the_models_coordinates(kind, method):
    model = hm.path_model(kind)
    sigmas = sigmas_of(model, 8)
    inner = FlowSampler(Transition(LAWS["k"], method))
    guider = hm.guider(model, 0.5)
    plain, _ = hm.run(guider, inner, sigmas, hm.empty_latent(), seed=9)
    best_of_1 = s.strategy("best_of_n", candidates=1)
    latent, _, _ = s.search(
        guider, inner, seed=9, sigmas=sigmas, evaluations=40, strategy=best_of_1, top_k=2
    )
    assert any(torch.equal(row[None], plain) for row in latent["samples"])
    found, _, report = s.search(guider, inner, seed=9, sigmas=sigmas, evaluations=60)
    assert report.best(0) >= report.plain(0)
    assert torch.isfinite(found["samples"]).all()


def test_a_converted_flow_model_gives_the_pictures_of_the_flow_model():
    flow = hm.gaussian_model()
    converted = convert(flow, "vp")
    t = torch.tensor([0.99, 0.8, 0.5, 0.2, 0.0])
    own = converted.get_model_object("model_sampling").s_from_t(t.double()).float()
    sampler = FlowSampler(Transition(LAWS["k"], "second_order"))
    native = hm.run(hm.guider(flow), sampler, t, hm.empty_latent())[0]
    ours = hm.run(hm.guider(converted), sampler, own, hm.empty_latent())[0]
    assert (native - ours).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["IMG_TO_IMG", "IMG_TO_IMG_FLOW", "V_PREDICTION_DDPM"])
def test_what_is_no_mixture_of_picture_and_noise_is_refused_by_name(kind):
    model = hm.wrap(hm.GaussianNet(), kind)
    with pytest.raises(ValueError, match=rf"{kind}.*SD1\.5, SDXL, EDM and Cosmos"):
        hm.run(hm.guider(model), FlowSampler(ODE), [0.9, 0.5, 0.0], hm.empty_latent(size=8))


def test_coordinates_are_read_from_the_model():
    assert coordinates_of(hm.gaussian_model().get_model_object("model_sampling")) is LINEAR
    for kind in KINDS:
        assert coordinates_of(hm.path_model(kind).get_model_object("model_sampling")) is VE


def test_every_method_is_tried_here():
    assert set(METHODS) == {"exact", "second_order", "heun", "glass", "euler_maruyama"}
