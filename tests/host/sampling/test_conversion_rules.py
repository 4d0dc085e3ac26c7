"""Interpolant conversion beside the host's other nodes and machinery.

Where a law says "as without conversion", Euler on the same times shows it: it is the same in both
coordinates (test_conversion.py).
"""

import asyncio
import copy
import itertools
import json
import logging
import uuid

import aiohttp
import comfy.controlnet
import comfy.hooks
import comfy.samplers
import host_models as hm
import pytest
import searching
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_advanced import (
    ModelSamplingAuraFlow,
    ModelSamplingFlux,
    ModelSamplingSD3,
)
from memory_modes import Dynamic

from flowsearch.nodes.host.model.converted_sampling import SCHEDULES, ConvertedSampling
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.sampling.conversion import convert
from flowsearch.samplers.stepping.transition import ODE

EULER = comfy.samplers.sampler_object("euler")
T = torch.tensor([0.99, 0.9, 0.75, 0.5, 0.25, 0.1, 0.0])
CPU = torch.device("cpu")
TEXT_EVENT = (3).to_bytes(4, "big")  # of the host's socket: text shown on a node


def noise_scale_node():
    return hm.host_node("ModelNoiseScale", "nodes_model_advanced")()


def sampling_of(model):
    return model.get_model_object("model_sampling")


def euler(model, t, latent, sampler=EULER, **guidance):
    """Euler on a list of linear times, in the model's own coordinates."""
    sampling = sampling_of(model)
    sigmas = sampling.s_from_t(t.double()).float() if isinstance(sampling, ConvertedSampling) else t
    return hm.run(hm.guider(model, **guidance), sampler, sigmas, latent, 4)[0]


def simple(model, steps=10):
    return comfy.samplers.calculate_sigmas(sampling_of(model), "simple", steps)


SHIFTS = {
    "none": (1000.0, lambda model: model),
    "sd3": (1000.0, lambda model: ModelSamplingSD3().patch(model, 3.0)[0]),
    "auraflow": (1.0, lambda model: ModelSamplingAuraFlow().patch_aura(model, 1.73)[0]),
    "flux": (1.0, lambda model: ModelSamplingFlux().patch(model, 1.15, 0.5, 1024, 768)[0]),
    "sd3 twice": (
        1000.0,
        lambda model: ModelSamplingSD3().patch(ModelSamplingSD3().patch(model, 9.0)[0], 3.0)[0],
    ),
    "noise scale": (1000.0, lambda model: noise_scale_node().patch(model, 8.0)[0]),
    "noise scale and sd3": (
        1000.0,
        lambda model: ModelSamplingSD3().patch(noise_scale_node().patch(model, 8.0)[0], 3.0)[0],
    ),
}


@pytest.mark.parametrize("name", SHIFTS)
def test_a_shift_node_before_stays_in_force(name):
    unit, shift = SHIFTS[name]
    model = shift(hm.gaussian_model())
    model.model.diffusion_model.unit = unit
    ve = convert(model, "ve")
    t = sampling_of(ve).t_from_s(simple(ve).double()).float()
    assert torch.allclose(t[1:], simple(model)[1:], atol=1e-6)
    assert float(t[0]) == pytest.approx(0.9999, abs=1e-6)
    for target in SCHEDULES:
        model.model.diffusion_model.times.clear()
        ours = euler(convert(model, target), T, hm.empty_latent(size=8))
        times = model.model.diffusion_model.times
        assert times == pytest.approx(T[:-1].tolist(), abs=1e-6)
        assert (ours - euler(model, T, hm.empty_latent(size=8))).abs().max() < 1e-4


def test_a_shift_node_after_stops_stock_samplers_and_warns_ours(caplog):
    converted = convert(hm.gaussian_model(), "vp")
    (replaced,) = ModelSamplingSD3().patch(converted, 3.0)
    with pytest.raises(ValueError, match="place it before Interpolant Conversion"):
        euler(replaced, T, hm.empty_latent(size=8))
    (plain,) = ModelSamplingSD3().patch(hm.gaussian_model(), 3.0)
    with caplog.at_level(logging.WARNING, logger="flowsearch"):
        expected = euler(plain, T, hm.empty_latent(size=8), FlowSampler(ODE))
        assert caplog.messages == []
        ours = euler(replaced, T, hm.empty_latent(size=8), FlowSampler(ODE))
        searching.search(hm.guider(replaced), FlowSampler(ODE), evaluations=6)
    assert torch.equal(ours, expected)
    assert len(caplog.messages) == 2
    assert all("replaced the conversion" in text for text in caplog.messages)
    with pytest.raises(ValueError, match="place it before Interpolant Conversion"):
        searching.search(hm.guider(replaced), EULER, evaluations=6)
    keeps_clean = convert(hm.wrap(hm.GaussianNet(), base=hm.CleanInpaint), "vp")
    (half,) = ModelSamplingSD3().patch(keeps_clean, 3.0)  # its scale_latent_inpaint stays
    with pytest.raises(ValueError, match="place it before Interpolant Conversion"):
        euler(half, T, hm.empty_latent(size=8), FlowSampler(ODE))


def link(node: int, output: int = 0) -> list:
    return [str(node), output]


async def told(server, prompt: dict) -> tuple[list[bytes], dict]:
    """Run a workflow; returns the texts shown on nodes, and the last message."""
    name, texts = uuid.uuid4().hex, []
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.ws_connect(f"/ws?clientId={name}") as socket,
    ):
        await session.post("/prompt", json={"prompt": prompt, "client_id": name})
        while True:
            message = await socket.receive(timeout=120)
            if message.type == aiohttp.WSMsgType.BINARY:
                if message.data[:4] == TEXT_EVENT:
                    texts.append(message.data[8:])
                continue
            last = json.loads(message.data)
            if last["type"] in ("execution_error", "execution_success"):
                return texts, last


def test_the_warning_is_shown_on_the_node_and_the_error_too(server):
    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    prompt = {
        "1": node("FlowSearchLoadDemo"),
        "2": node("CLIPTextEncode", clip=link(1, 1), text=""),
        "3": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "4": node("FlowSearchInterpolantConversion", model=link(1), interpolant="vp"),
        "5": node("ModelSamplingSD3", model=link(4), shift=3.0),
        "6": node("FlowSearchStochasticSampler", transition="exact", interpolant="linear"),
        "7": node("BasicScheduler", model=link(5), scheduler="simple", steps=2, denoise=1.0),
        "8": node(
            "SamplerCustom",
            **{"model": link(5), "add_noise": True, "noise_seed": 1, "cfg": 1.0},
            **{"positive": link(2), "negative": link(2), "sampler": link(6)},
            **{"sigmas": link(7), "latent_image": link(3)},
        ),
        "9": node("SaveLatent", samples=link(8), filename_prefix="latents/replaced"),
        "10": node("KSamplerSelect", sampler_name="euler"),
    }
    texts, last = asyncio.run(told(server, prompt))
    assert last["type"] == "execution_success"
    assert [text for text in texts if text.startswith(b"8") and b"replaced the conv" in text]
    prompt["8"]["inputs"]["sampler"] = link(10)
    texts, last = asyncio.run(told(server, prompt))
    assert last["type"] == "execution_error"
    assert "place it before Interpolant Conversion" in last["data"]["exception_message"]


def test_converting_again_after_other_nodes_makes_it_right():
    def others(model):
        return noise_scale_node().patch(ModelSamplingSD3().patch(model, 3.0)[0], 8.0)[0]

    model = hm.wrap(hm.GaussianNet(), base=hm.CleanInpaint)
    again, direct = convert(others(convert(model, "vp")), "ve"), convert(others(model), "ve")
    assert torch.equal(simple(again), simple(direct))
    sampling, kept = sampling_of(again), torch.ones(1, 3, 16, 16)
    inpaint = again.get_model_object("scale_latent_inpaint")
    state = inpaint(sigma=torch.tensor([4.0]), latent_image=kept, noise=kept, x=kept)
    assert torch.allclose(sampling.calculate_input(torch.tensor([4.0]), state), kept)


def test_a_noise_scale_node_after_says_what_to_do():
    with pytest.raises(ValueError, match="place it before Interpolant Conversion"):
        noise_scale_node().patch(convert(hm.gaussian_model(), "vp"), 8.0)


class Control(torch.nn.Module):
    """A ControlNet whose output depends on everything it is given."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.times = []

    def forward(self, x, hint, timesteps, context, **_):
        self.times.append(float(timesteps[0]) / 1000)
        pooled = torch.nn.functional.avg_pool2d(hint, 8)
        return {"output": [pooled * (x + timesteps.view(-1, 1, 1, 1) / 1000)]}


class Controlled(hm.GaussianNet):
    def forward(self, x, timestep, context=None, control=None, **kwargs):
        velocity = super().forward(x, timestep, context)
        return velocity if control is None else velocity + control["output"][0]


def test_a_controlnet_sees_the_networks_coordinates_in_its_range():
    model, control = hm.wrap(Controlled()), Control()
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))

    def guidance():
        net = comfy.controlnet.ControlNet(control, load_device=CPU)
        net.set_cond_hint(hint, 0.7, (0.2, 0.8))
        return hm.conditioning(0.0, control=net)

    latent = hm.empty_latent(size=8)
    native = euler(model, T, latent, positive=guidance())
    assert control.times == pytest.approx([0.75, 0.5, 0.25])
    assert (native - euler(model, T, latent)).abs().max() > 0.1
    control.times.clear()
    ours = euler(convert(model, "ve"), T, latent, positive=guidance())
    assert control.times == pytest.approx([0.75, 0.5, 0.25])
    assert (ours - native).abs().max() < 1e-4
    # a percentage is a share of the target's time: VP spends .2 of it above t = .99
    control.times.clear()
    euler(convert(model, "vp"), T, latent, positive=guidance())
    low, high = (sampling_of(convert(model, "vp")).percent_to_sigma(p) for p in (0.8, 0.2))
    inside = [float(t) for t in T[:-1] if low <= t / (1 - t) <= high]
    assert control.times == pytest.approx(inside)


def test_a_hooks_keyframes_change_where_they_do_without_conversion():
    model = hm.scene_model()
    key = next(key for key in model.model.state_dict() if key.endswith("weight"))
    weight = model.model.state_dict()[key]

    def guidance():
        hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
        hook = hooks.hooks[0]
        hook.weights = {key: ("diff", (torch.ones_like(weight) * 0.05,))}
        hook.need_weight_init = False
        frames = comfy.hooks.HookKeyframeGroup()
        frames.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.0))
        frames.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.4))
        hooks.set_keyframes_on_hooks(frames)
        return comfy.hooks.set_hooks_for_conditioning(hm.conditioning(0.0), hooks)

    native = euler(model, T, hm.empty_latent(), positive=guidance())
    ours = euler(convert(model, "ve"), T, hm.empty_latent(), positive=guidance())
    assert (native - euler(model, T, hm.empty_latent())).abs().max() > 1e-3
    assert (ours - native).abs().max() < 1e-4


def test_nodes_with_percentages_belong_after_the_conversion():
    model, latent = hm.gaussian_model(), hm.empty_latent(size=8)
    guided = {"positive": 1.0, "negative": -0.5, "cfg": 3.0}

    def override(patched):
        return hm.host_node("CFGOverride").execute(patched, 1.0, 0.2, 0.6)[0]

    native = euler(override(model), T, latent, **guided)
    after = euler(override(convert(model, "ve")), T, latent, **guided)
    before = euler(convert(override(model), "ve"), T, latent, **guided)
    assert (after - native).abs().max() < 1e-4
    assert (before - native).abs().max() > 0.1


@pytest.mark.parametrize("node", [EasyCacheNode, LazyCacheNode])
def test_a_caches_percentages_are_right_on_the_first_run_too(node):
    """The host translates them before it has put the patches of a model in place."""
    latent = hm.empty_latent(1, 16)
    for order in (1, -1):
        steps = [
            lambda model: convert(model, "ve"),
            lambda model: node.execute(model, 0.2, 0.2, 0.8, False)[0],
        ][::order]
        model = steps[1](steps[0](hm.gaussian_model()))
        found = []

        def look(executor, guider, sigmas, extra_args, *rest, found=found):
            cache = extra_args["model_options"]["transformer_options"]["easycache"]
            found.append((cache.start_t, cache.end_t))
            return executor(guider, sigmas, extra_args, *rest)

        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "look", look)
        for _ in range(2):
            euler(model, T, latent)
        assert found == [(pytest.approx(4.0, rel=1e-5), pytest.approx(0.25, rel=1e-5))] * 2


def test_a_half_finished_picture_can_be_handed_over_both_ways():
    model = hm.gaussian_model(noise_scale=2.0)
    converted, latent = convert(model, "vp"), hm.empty_latent(size=8)
    whole = euler(model, T, latent)
    for first, second in itertools.permutations([model, converted]):
        half = {"samples": euler(first, T[:4], latent)}
        sigmas = T[3:] if second is model else sampling_of(converted).s_from_t(T[3:])
        out, _ = hm.run(hm.guider(second), EULER, sigmas, half, None)
        assert (out - whole).abs().max() < 1e-4


def test_the_patch_works_on_any_device_and_for_several_models():
    """The host gives one patch object to the clones on other GPUs."""
    meta = torch.device("meta")
    for kind, target in itertools.product(("FLOW", "FLUX"), SCHEDULES):
        sampling = sampling_of(convert(hm.gaussian_model(kind), target))
        sampling.to(meta)
        assert sampling.sigmas.device == CPU
        sigma, x = torch.empty(2, device=meta), torch.empty(2, 3, 4, 4, device=meta)
        for value in (
            sampling.calculate_input(sigma, x),
            sampling.calculate_denoised(sigma, x, x),
            sampling.noise_scaling(sigma[0], x, x),
            sampling.timestep(sigma),
            sampling.sigma(sigma),
        ):
            assert value.device == meta
    first, other = convert(hm.gaussian_model(), "vp"), hm.gaussian_model(std=2.0)
    if not hasattr(first, "match_multigpu_clones"):
        pytest.skip("this host computes on one device only")
    other.is_multigpu_base_clone = True
    first.set_additional_models("multigpu", [other])
    first.match_multigpu_clones()
    (clone,) = first.get_additional_models_with_key("multigpu")
    assert clone.model is other.model
    assert sampling_of(clone) is sampling_of(first)
    ours = euler(clone, T, hm.empty_latent(size=8))
    assert (ours - euler(other, T, hm.empty_latent(size=8))).abs().max() < 1e-4
    copied = copy.deepcopy(sampling_of(first))
    assert torch.equal(copied.sigmas, sampling_of(first).sigmas)


def test_dynamic_memory_does_not_mix_up_schedules():
    """Core issue 16490: the host restores buffers by path, whichever patch is in place."""
    plain = Dynamic(hm.gaussian_model(shift=3.0).model, CPU, CPU)
    assert plain.is_dynamic()
    patchers = {
        "plain": plain,
        "vp": convert(plain, "vp"),
        "ve": convert(plain, "ve"),
        "shifted": convert(ModelSamplingSD3().patch(plain, 9.0)[0], "vp"),
    }
    expected = {name: sampling_of(p).sigmas.clone() for name, p in patchers.items()}
    for name in [*itertools.chain(*itertools.permutations(patchers, 2))]:
        patchers[name].partially_load(CPU)
        current = patchers[name].model.model_sampling
        assert current is sampling_of(patchers[name])
        assert torch.equal(current.sigmas, expected[name]), name


def test_the_scale_of_packed_audio_is_handed_on_where_there_is_one():
    model = hm.gaussian_model()
    assert not hasattr(sampling_of(convert(model, "vp")), "audio_scale")
    newer = copy.copy(sampling_of(model))  # ModelSamplingAV of newer hosts has this attribute
    newer.audio_scale = 4.0
    model.add_object_patch("model_sampling", newer)
    assert sampling_of(convert(model, "vp")).audio_scale == 4.0


def test_a_meanflow_model_is_refused():
    model = hm.gaussian_model()
    model.model.diffusion_model.time_r_in = torch.nn.Identity()
    with pytest.raises(ValueError, match="MeanFlow"):
        convert(model, "vp")
