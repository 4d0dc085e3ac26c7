"""Flow Likelihood in the real host: closed forms on every kind of model, and what it refuses."""

import math

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.samplers
import host_models as hm
import numpy as np
import pytest
import torch
from comfy_extras.nodes_custom_sampler import DualCFGGuider
from comfy_extras.nodes_perpneg import PerpNegGuider

from flowsearch.demo.scene import Scene, draw
from flowsearch.nodes.host.model.estimation import colours
from flowsearch.nodes.sampling.demo_model import load_demo
from flowsearch.nodes.study.likelihood import FlowLikelihood
from flowsearch.samplers.paths.interpolant import VE, sigma_from_r

SIZE = 16
FAST = {"method": "forward", "nodes": 24, "noises": 2, "seed": 3}


def ask(guider, latent, **settings):
    """(bits, errors, text, map) of the node."""
    return FlowLikelihood.execute(guider=guider, latent_image=latent, **{**FAST, **settings}).result


def closed_form(latents, mean=hm.MEAN, std=hm.STD):
    """Bits per dimension of independent N(mean, std^2), as a density, a row."""
    nats = 0.5 * ((latents - mean) / std) ** 2 + math.log(std * math.sqrt(2 * math.pi))
    return (nats.flatten(1).double().mean(1) / math.log(2)).tolist()


class DiffusionNet(torch.nn.Module):
    """Exact prediction for Gaussian latents, as EPS, V_PREDICTION and EDM models return theirs."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.dtype, self.sampling = kind, torch.float32, None

    def forward(self, x, timestep, context=None, **_):
        sigma = self.sampling.sigma(timestep).double().view(-1, *[1] * (x.ndim - 1))
        data = float(self.sampling.sigma_data)
        norm = (sigma**2 + data**2) ** 0.5
        y = x.double() * norm
        linear = sigma_from_r(VE, sigma)
        denoised = hm.GaussianNet().denoise(y * (1 - linear), linear)
        if self.kind == "EPS":
            out = (y - denoised) / sigma
        else:
            sign = 1.0 if self.kind == "EDM" else -1.0
            out = sign * (denoised - y * data**2 / norm**2) * norm / (sigma * data)
        return out.to(x.dtype)


def diffusion_model(kind):
    network = DiffusionNet(kind)
    model = hm.wrap(network, kind)
    network.sampling = model.model.model_sampling
    return model


def vae_latents(model):
    """Make the model one on latents of SD1.5, which the host scales by 0.18215."""
    model.model.latent_format = comfy.latent_formats.SD15()
    generator = torch.Generator().manual_seed(8)
    shape = (2, 4, SIZE, SIZE)
    return {"samples": (hm.MEAN + hm.STD * torch.randn(shape, generator=generator)) / 0.18215}


@pytest.mark.parametrize("kind", ["FLOW", "FLUX", "EPS", "V_PREDICTION", "EDM"])
@pytest.mark.parametrize("method", ["forward", "ode"])
def test_latents_of_a_vae_have_their_closed_form(kind, method):
    model = hm.gaussian_model(kind) if kind.startswith("FL") else diffusion_model(kind)
    latent = vae_latents(model)
    bits, errors, text, image = ask(hm.guider(model), latent, method=method, nodes=48)
    truth = closed_form(latent["samples"] * 0.18215)
    for value, error, exact in zip(bits, errors, truth, strict=True):
        assert value == pytest.approx(exact, abs=3 * error + 0.01)
    assert image.shape == (2, 8 * SIZE, 8 * SIZE, 3)
    assert "bits per latent dimension" in text
    assert "dequantised" not in text
    assert ("the model ends there" in text) == (kind in {"EPS", "V_PREDICTION", "EDM"})


@pytest.mark.parametrize("method", ["forward", "ode"])
def test_pixels_are_dequantised_and_counted_in_levels(method):
    latent = hm.picture_latent(2, SIZE)
    bits, errors, text, image = ask(
        hm.guider(hm.gaussian_model()), latent, method=method, nodes=48, noises=4
    )
    exact = [value + math.log2(127.5) for value in closed_form(latent["samples"])]
    for value, error, wanted in zip(bits, errors, exact, strict=True):
        assert value == pytest.approx(wanted, abs=3 * error + 0.01)
    assert image.shape == (2, SIZE, SIZE, 3)
    evaluations = {"forward": 48 * 8, "ode": 48 * 10}[method]
    for part in ("2/255", "6.994", f"{evaluations} evaluations", "seed 3", "nats"):
        assert part in text


def test_noise_scale_of_the_model_is_obeyed():
    model = hm.wrap(ScaledNet(8.0), noise_scale=8.0)
    latent = hm.picture_latent(1, SIZE)
    bits, errors, *_ = ask(hm.guider(model), latent, nodes=48, noises=4)
    exact = closed_form(latent["samples"])[0] + math.log2(127.5)
    assert bits[0] == pytest.approx(exact, abs=3 * errors[0] + 0.01)


class ScaledNet(hm.GaussianNet):
    """GaussianNet on a path whose noise is n times as strong."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def denoise(self, x, t, shift=0.0):
        c = (1 - t) + t * self.n
        return super().denoise(x / c, t * self.n / c, shift)


def test_a_row_is_itself_in_any_batch_and_the_seed_decides():
    guider, latent = hm.guider(hm.gaussian_model()), hm.picture_latent(3, SIZE)
    whole, *_ = ask(guider, latent)
    alone, *_ = ask(guider, {"samples": latent["samples"][2:]})
    again, *_ = ask(guider, latent)
    other, *_ = ask(guider, latent, seed=4)
    assert whole == again
    assert alone[0] == pytest.approx(whole[2], abs=1e-6)
    assert abs(other[2] - whole[2]) > 1e-5


def test_the_right_mean_scores_above_and_a_surprise_is_bright():
    latent = hm.picture_latent(1, SIZE)
    model = hm.gaussian_model(mean=0.5, std=0.3)
    right, *_ = ask(hm.guider(model, 0.0), latent)
    wrong, *_ = ask(hm.guider(model, 0.4), latent)
    assert right[0] < wrong[0]
    odd = latent["samples"].clamp(0.3, 0.7)
    odd[..., 4:6, 9:11] = -1.0
    _, _, _, image = ask(hm.guider(model), {"samples": odd})
    light = image[0].sum(-1)
    assert light[4:6, 9:11].min() > light.flatten().sort().values[-8]


def dual(model, first, second, nested=False):
    conds = [hm.conditioning(v) for v in (0.0, 0.5, 1.0)]
    style = "nested" if nested else "regular"
    return DualCFGGuider.execute(model, *conds, first, second, style)[0]


def with_function(model):
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"])
    return model


class OwnGuider(comfy.samplers.CFGGuider):
    """A guider of some other pack."""


class Guider_Basic(comfy.samplers.CFGGuider):
    """One that has the name of the host's."""


GUIDED = {
    "cfg": (lambda m: hm.guider(m, 0.0, 1.0, 4.0), "cfg is 4"),
    "cfg below 1": (lambda m: hm.guider(m, 0.0, 1.0, 0.5), "cfg is 0.5"),
    "dual": (lambda m: dual(m, 1.0, 2.0), "cfg2 is 2"),
    "perp neg": (
        lambda m: PerpNegGuider.execute(m, *[hm.conditioning(0.0)] * 3, 1.0, 0.0)[0],
        "Guider_PerpNeg cannot be known",
    ),
    "of another pack": (OwnGuider, "OwnGuider cannot be known"),
    "of the same name": (Guider_Basic, "Guider_Basic cannot be known"),
    "patched": (lambda m: hm.guider(with_function(m)), "sampler_post_cfg_function"),
    "override": (
        lambda m: hm.guider(hm.host_node("CFGOverride").execute(m, 3.0, 0.0, 1.0)[0]),
        "CFG Override",
    ),
}


@pytest.mark.parametrize(("make", "words"), GUIDED.values(), ids=GUIDED)
def test_guidance_is_refused_with_the_reason(make, words):
    model = hm.gaussian_model()
    guided = make(model)
    with pytest.raises(ValueError, match=words) as caught:
        ask(guided, hm.picture_latent(1, SIZE))
    assert "mean of no density" in str(caught.value)
    assert model.model.diffusion_model.calls == 0


@pytest.mark.parametrize("nested", [False, True])
def test_guiders_at_1_are_the_positive_prompt_alone(nested):
    latent, model = hm.picture_latent(1, SIZE), hm.gaussian_model()
    plain, *_ = ask(hm.guider(model), latent)
    for guider in (hm.guider(model, 0.0, 1.0, 1.0), dual(model, 1.0, 1.0, nested)):
        found, *_ = ask(guider, latent)
        assert found[0] == pytest.approx(plain[0], abs=1e-5)


class Distilled(comfy.model_base.BaseModel):
    """A model that takes its guidance as an input, as Flux dev does: 3.5 unless told."""

    def extra_conds(self, **kwargs):
        guidance = torch.tensor([float(kwargs.get("guidance", 3.5))])
        return {**super().extra_conds(**kwargs), "guidance": comfy.conds.CONDRegular(guidance)}


class Embedding(hm.GaussianNet):
    guidance_embed = True


def test_distilled_guidance_is_refused():
    model = hm.wrap(Embedding(), base=Distilled)
    with pytest.raises(ValueError, match=r"runs at guidance 3\.5.*FluxGuidance node with 1"):
        ask(hm.guider(model), hm.picture_latent(1, SIZE))
    ask(hm.guider(model, hm.conditioning(0.0, guidance=1.0)), hm.picture_latent(1, SIZE))
    indifferent = hm.wrap(hm.GaussianNet(), base=Distilled)  # takes none, as Flux schnell
    ask(hm.guider(indifferent), hm.picture_latent(1, SIZE))


def test_masks_and_empty_ranges_are_refused():
    guider, latent = hm.guider(hm.gaussian_model()), hm.picture_latent(1, SIZE)
    with pytest.raises(ValueError, match="likelihood is that of the whole picture"):
        ask(guider, {**latent, "noise_mask": torch.ones(1, 1, SIZE, SIZE)})
    with pytest.raises(ValueError, match="log_snr_low must be below"):
        ask(guider, latent, log_snr_low=4.0, log_snr_high=4.0)
    with pytest.raises(ValueError, match="none of this model's"):
        ask(hm.guider(diffusion_model("EPS")), latent, log_snr_low=10.0, log_snr_high=14.0)


def test_a_model_that_says_nan_is_named():
    broken = hm.gaussian_model(mean=math.nan)
    with pytest.raises(ValueError, match="predictions are not finite"):
        ask(hm.guider(broken), hm.picture_latent(1, SIZE))


def test_cancel_stops_before_the_next_prediction():
    model = hm.gaussian_model()
    network = model.model.diffusion_model

    def cancel(apply, args):
        if network.calls == 4:
            comfy.model_management.interrupt_current_processing(True)
        return apply(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        ask(hm.guider(model), hm.picture_latent(1, SIZE))
    assert network.calls == 5


def test_videos_give_a_map_a_frame():
    latent = {"samples": hm.picture_latent(1, SIZE)["samples"][:, :, None].repeat(1, 1, 3, 1, 1)}
    bits, _, text, image = ask(hm.guider(hm.gaussian_model()), latent)
    assert len(bits) == 1
    assert image.shape == (3, SIZE, SIZE, 3)
    assert "3 x 3 x 16 x 16" in text


def test_inputs_stay_as_they_were():
    latent = hm.picture_latent(1, SIZE)
    before = latent["samples"].clone()
    ask(hm.guider(hm.gaussian_model()), latent)
    assert torch.equal(latent["samples"], before)


def test_colours_rise_and_clip():
    image = colours(torch.tensor([[[-1.0, 0.0, 0.5, 1.0, 9.0]]]), (0.0, 1.0), 2)
    assert image.shape == (1, 2, 10, 3)
    row = image[0, 0, ::2]
    assert torch.equal(row[0], row[1])
    assert torch.equal(row[3], row[4])
    assert (row.sum(-1).diff() >= 0).all()


def test_the_demo_model_knows_its_own_pictures():
    """Bits per dimension of a flat picture, which it never saw, lie far above those of a scene."""
    model, clip, _ = load_demo()
    scene = Scene(((2, "red", "circle"), (1, "blue", "square")))
    picture = torch.from_numpy(draw(scene, np.random.default_rng(0))).permute(2, 0, 1) * 2 - 1
    noise = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    prompt = clip.encode_from_tokens_scheduled(clip.tokenize("two red circles and one blue square"))
    bits, errors, *_ = ask(
        hm.guider(model, prompt), {"samples": torch.stack([picture, noise])}, nodes=8
    )
    assert bits[0] < 4.0 < 7.5 < bits[1]
    assert max(errors) < 0.1
