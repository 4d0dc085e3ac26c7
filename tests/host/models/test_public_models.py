"""Models as other packs and nodes change their weights or their code; docs/OTHER_PACKS.md.

Each is sampled as the host samples it, and searched, evicted and replayed like a plain one.
"""

from itertools import pairwise

import comfy.model_management
import comfy.sd
import families as f
import graphs
import host_models as hm
import pytest
import searching as s
import torch
import video_models as vm
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
from comfy_extras.nodes_torch_compile import TorchCompileModel
from foreign_pack.quantised import Operations, Quantised, QuantisedPatcher, load_quantised
from foreign_pack.swapping import swapped
from memory_modes import castable
from torch import nn

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.search.behaviour import EVALUATIONS as TRIED
from flowsearch.nodes.sampling.conversion import convert
from flowsearch.nodes.search.replay import Replay
from flowsearch.samplers.stepping.transition import ODE

SMALL = hm.empty_latent(size=16)
SIGMAS = torch.tensor([1.0, 0.62, 0.17, 0.0])
FEW = {"evaluations": 10, "sigmas": SIGMAS}
PLAIN = {"evaluations": 3, "sigmas": SIGMAS, "strategy": s.strategy("best_of_n")}


def guided(made):
    return hm.guider(made, 0.8, -0.5, cfg=3.0)


def evict(_call=0):
    comfy.model_management.free_memory(1e30, comfy.model_management.get_torch_device())


def is_sampled_searched_and_replayed(make, latent=None, guide=guided, trial=0, **given):
    """The laws of every model here; returns the samples that were found, and the report."""
    latent, few = latent or SMALL, {**FEW, "evaluations": FEW["evaluations"] + trial}
    host, ours = (
        hm.run(guide(make()), inner, SIGMAS, latent, 3)[0]
        for inner in (s.sampler(), FlowSampler(ODE))
    )
    assert torch.equal(ours, host)
    plain = s.search(guide(make()), FlowSampler(ODE), latent, **PLAIN, **given)[0]["samples"]
    assert torch.equal(plain, host)
    guider, reward = guide(make()), s.Calling(evict)
    found, _, report = s.search(guider, s.flow(), latent, reward=reward, **few, **given)
    assert reward.calls > 1
    kept = s.search(guide(make()), s.flow(), latent, **few, **given)[0]["samples"]
    assert torch.equal(found["samples"], kept), "another model's loading changes nothing"
    noise, sigmas, start, own = Replay.execute(report, 0, 1.0).result
    again = SamplerCustomAdvanced.execute(
        noise=noise, guider=guider, sampler=own, sigmas=sigmas, latent_image=start
    )[0]["samples"]
    assert (again - found["samples"]).abs().max() < 1e-4
    return found["samples"], report


# ---- GGUF ----


def quantised(lora=0.0):
    plain = castable(operations=Operations)
    patch, _ = graphs.lora(plain)
    made = load_quantised(plain)
    if lora:
        made.add_patches(patch, lora)
    return made


def test_quantised_weights_of_another_pack_are_searched_as_they_are_sampled():
    found, report = is_sampled_searched_and_replayed(quantised)
    whole = s.search(guided(castable()), s.flow(), SMALL, **FEW)[0]["samples"]
    assert 1e-6 < (found - whole).abs().max() < 0.5, "eight bits are near, and not the same"
    assert not [note for note in report.notes if "was tried" in note]


def test_a_lora_on_quantised_weights_is_there_in_every_call():
    found, _ = is_sampled_searched_and_replayed(lambda: quantised(0.8))
    bare = s.search(guided(quantised()), s.flow(), SMALL, **FEW)[0]["samples"]
    assert (found - bare).abs().max() > 1e-3


def test_nodes_of_ours_leave_a_quantised_model_in_its_own_patcher():
    made = convert(quantised(0.8), "vp")
    assert type(made) is QuantisedPatcher
    assert any(isinstance(each, Quantised) for each in made.model.parameters())


# ---- block swap ----


def test_blocks_that_come_only_for_their_call_are_there_in_every_call():
    swaps = []

    def make():
        made = castable()
        network = made.model.diffusion_model
        made, found = swapped(made, [network.block, network.attention])
        swaps.extend(found)
        return made

    found, report = is_sampled_searched_and_replayed(make, trial=TRIED)
    assert all(next(swap.brought) for swap in swaps)
    assert torch.equal(found, s.search(guided(castable()), s.flow(), SMALL, **FEW)[0]["samples"])
    assert any("remembers no earlier prediction" in note for note in report.notes)


# ---- torch.compile ----


GRAPHS = []


@torch._dynamo.register_backend(name="flowsearch_counting")
def counting(graph, _inputs, **_):
    """A backend that compiles nothing, and notes what it was given."""
    GRAPHS.append(graph)
    return graph.forward


class Small(nn.Module):
    """A network of one convolution, so that it is traced in no time."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(0.2 * torch.randn(3, 3, 3, 3, generator=generator))

    def forward(self, x, timestep, context=None, transformer_options=None, **_):
        moved = nn.functional.conv2d(x, self.weight, padding=1)
        moved = moved + context.mean(dim=(1, 2)).view(-1, 1, 1, 1)
        return moved * (0.5 + timestep.view(-1, 1, 1, 1) / 1000)


def test_a_compiled_model_is_searched_and_compiled_for_few_shapes_only():
    network, given = Small(), []

    def make():
        given.append(len(GRAPHS))
        return TorchCompileModel.execute(hm.wrap(network), "flowsearch_counting")[0]

    torch.compiler.reset()
    GRAPHS.clear()
    found, report = is_sampled_searched_and_replayed(make)
    plain = s.search(guided(hm.wrap(network)), s.flow(), SMALL, **FEW)[0]["samples"]
    assert torch.equal(found, plain)
    assert not [note for note in report.notes if "was tried" in note], "it is the host's own"
    each = [after - before for before, after in pairwise([*given, len(GRAPHS)])]
    assert 1 <= max(each) <= 3, each


# ---- float8 ----

WAN = vm.WAN


def of_float8(scaled):
    """MODEL as Load Diffusion Model makes it with float8, or of a file of that with scales."""
    state, metadata = vm.wan_state(WAN.width)
    if not scaled:
        options = {"dtype": torch.float8_e4m3fn}
        return comfy.sd.load_diffusion_model_state_dict(state, options, metadata)
    held = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    for key, weight in state.items():
        if key.startswith("blocks.") and weight.ndim == 2 and key.endswith(".weight"):
            scale = weight.abs().max() / 448
            held[key] = (weight / scale).to(torch.float8_e4m3fn)
            held[key.replace(".weight", ".scale_weight")] = scale
        else:
            held[key] = weight
    return comfy.sd.load_diffusion_model_state_dict(held, {}, metadata)


@pytest.mark.parametrize("scaled", [False, True], ids=["cast", "scaled"])
def test_weights_of_float8_are_searched_as_they_are_sampled(scaled):
    def guide(made):
        return hm.guider(made, f.conditioning(WAN), f.conditioning(WAN, 2), cfg=3.0)

    latent = vm.latent(1, frames=1)
    found, _ = is_sampled_searched_and_replayed(
        lambda: of_float8(scaled), latent, guide, vae=vm.wan_vae()
    )
    kinds = {f"{type(p).__name__} {p.dtype}" for p in of_float8(scaled).model.parameters()}
    assert any("float8" in kind or "Quantized" in kind for kind in kinds), kinds
    assert found.isfinite().all()


# ---- a device of its own ----


def test_a_model_that_a_pack_has_put_on_a_device_of_its_own_is_searched_there():
    def make():
        made = castable()
        made.load_device = torch.device("cpu", 0)  # to the host another device than "cpu"
        return made

    found, _ = is_sampled_searched_and_replayed(make)
    assert torch.equal(found, s.search(guided(castable()), s.flow(), SMALL, **FEW)[0]["samples"])
