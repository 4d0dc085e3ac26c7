"""The machine around a workflow: several devices, little memory, previews, cancel.

--lowvram and --novram exclude --cpu, without which the host does not start where there is no
accelerator. What they do to a model is asked for here by itself: weights that are left out of it,
and cast and patched in each call. Dynamic memory needs a GPU's driver; memory_modes.py says what of
it is here.
"""

import shutil

import comfy.latent_formats
import comfy.model_management
import comfy.samplers
import comfy.utils
import folder_paths
import graphs
import host_models as hm
import pytest
import searching as s
import torch
from comfy.cli_args import LatentPreviewMethod, args
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from graphs import Graph, controlled, hint, hooked, model, rows
from memory_modes import Dynamic, Novram, castable
from real_weights import real

from flowsearch.nodes.host.model import conditioning
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.sampling.conversion import convert
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.method import METHODS
from flowsearch.samplers.stepping.transition import ODE, Transition

SECOND = torch.device("cpu", 0)  # to the host another device than "cpu"
PLAIN = {"evaluations": s.STEPS, "strategy": s.strategy("best_of_n")}


def split(made):
    """A MODEL behind MultiGPU CFG Split; the node itself finds no second device here."""
    multigpu = pytest.importorskip("comfy.multigpu", reason="this host splits over no devices")
    made.cached_patcher_init = (model, ())
    made = made.clone()
    second = made.deepclone_multigpu(new_load_device=SECOND)
    second.is_multigpu_base_clone = True
    made.set_additional_models("multigpu", [second])
    made.match_multigpu_clones()
    multigpu.GPUOptionsGroup().register(made)
    return made


def workflow(which: list[int], patch=lambda made: made) -> Graph:
    """Two rows or one of them, with opposite hints, prompts with a scheduled LoRA, and a mask."""
    made, both = patch(model()), hint(1.0, -1.0)
    positive = hooked(made, rows(*(v for i, v in enumerate((2.0, -2.0)) if i in which)),
                      (1.0, 0.0), (0.0, 0.4))  # fmt: skip
    positive, negative, net = controlled(positive, rows(-0.5), both[which])
    latent = {**hm.empty_latent(len(which)), "batch_index": which}
    return Graph(made, hm.guider(made, positive, negative, cfg=3.0), latent, control=net)


def run(g: Graph, inner):
    return hm.run(g.guider, inner, g.sigmas, g.latent, 3)[0]


def test_guidance_split_over_devices_is_the_hosts_euler():
    host, ours = (run(workflow([0, 1], split), inner) for inner in (s.sampler(), FlowSampler(ODE)))
    assert torch.equal(ours, host)
    assert (host - run(workflow([0, 1]), s.sampler())).abs().max() < 1e-4


@pytest.mark.parametrize("mutant", [False, True], ids=["sliced", "mutant"])
def test_a_row_searched_over_devices_has_its_own_hint(monkeypatch, mutant):
    if mutant:  # the other device's ControlNet keeps all rows
        whole = conditioning._slice_control

        def forgetful(control, row, controls):
            ours = whole(control, row, controls)
            if ours is not None:
                ours.multigpu_clones = control.multigpu_clones
            return ours

        monkeypatch.setattr(conditioning, "_slice_control", forgetful)
    together = s.search(workflow([0, 1], split).guider, FlowSampler(ODE),
                        workflow([0, 1]).latent, **PLAIN)[0]["samples"]  # fmt: skip
    for row in (0, 1):
        alone = run(workflow([row], split), s.sampler())
        equal = bool((together[row] - alone[0]).abs().max() < 1e-4)
        assert equal == (not mutant or row == 0)


def test_a_search_over_devices_finds_what_one_device_finds():
    found = []
    for patch in (split, lambda made: made):
        g = workflow([1], patch)
        found.append(s.search(g.guider, s.flow(), g.latent, strategy=s.strategy("evolutionary")))
    assert (found[0][0]["samples"] - found[1][0]["samples"]).abs().max() < 1e-4
    rows_of = [r.trace.record["stopped"][0]["ledger"]["rows"] for _, _, r in found]
    assert rows_of[0] == rows_of[1] > 0, "rows on either device are counted"


# ---- memory ----


def patched(patcher):
    made = castable(patcher)
    made.add_patches(graphs.lora(made)[0], 0.8)
    return made


def test_weights_that_are_not_loaded_give_the_hosts_euler():
    whole = run(machine(patched(ModelPatcher)), s.sampler())
    host = run(machine(patched(Novram)), s.sampler())
    made = patched(Novram)
    assert torch.equal(run(machine(made), FlowSampler(ODE)), host)
    assert (host - whole).abs().max() < 1e-4
    bare = run(machine(castable(Novram)), s.sampler())
    assert (host - bare).abs().max() > 1e-3, "the LoRA is there"
    assert made.model.model_lowvram


def test_a_search_in_little_memory_finds_what_it_finds_in_much():
    found = []
    for kind in (ModelPatcher, Novram):
        comfy.model_management.unload_all_models()
        given = {"strategy": s.strategy("evolutionary"), "reward": s.Calling(evict)}
        found.append(s.search(machine(patched(kind)).guider, s.flow(), **given)[0]["samples"])
    assert (found[0] - found[1]).abs().max() < 1e-4


def converted(patcher) -> Graph:
    """A model in other coordinates, by an object patch, which an unloading takes back."""
    made = machine(convert(castable(patcher), "vp"))
    sampling = made.model.get_model_object("model_sampling")
    made.sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 6)
    return made


def test_with_dynamic_memory_sampler_and_search_are_what_they_are_without():
    made = converted(Dynamic)
    assert isinstance(made.model, Dynamic)
    ours = run(made, FlowSampler(ODE))
    assert made.model in comfy.model_management.loaded_models()
    assert torch.equal(ours, run(converted(Dynamic), s.sampler()))
    found = []
    for kind, reward in ((ModelPatcher, s.Brightness()), (Dynamic, s.Calling(evict))):
        g = converted(kind)
        given = {"strategy": s.strategy("evolutionary"), "reward": reward, "sigmas": g.sigmas}
        found.append(s.search(g.guider, s.flow(), **given)[0]["samples"])
    assert torch.equal(found[0], found[1])


def machine(made) -> Graph:
    return Graph(made, hm.guider(made, 0.8, -0.5, cfg=3.0))


def evict(_call):
    """What another model's loading does when memory is short."""
    comfy.model_management.free_memory(1e30, comfy.model_management.get_torch_device())


# ---- previews ----


@pytest.mark.parametrize("method", METHODS)
def test_every_method_shows_each_step_on_the_node_and_hands_on_its_last_prediction(
    monkeypatch, method
):
    monkeypatch.setattr(args, "preview_method", LatentPreviewMethod.Latent2RGB)
    told = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK",
        lambda value, total, preview, **_: told.append((value, total, preview)),
    )  # fmt: skip
    given = {"interpolant": "vp"} if method == "euler_maruyama" else {}
    law = noise_law("constant_k", k=0.5)
    inner = FlowSampler(Transition(law, method, **given))
    g = graphs.graph(sigmas=s.SIGMAS[1:].clone(), latent=hm.picture_latent())
    _, last = hm.run(g.guider, inner, g.sigmas, g.latent, 3)
    steps = len(g.sigmas) - 1
    assert [value for value, _, _ in told] == [*range(1, steps + 1)]
    assert {total for _, total, _ in told} == {steps}
    pictures = [preview[1] for _, _, preview in told]
    assert all(picture.size == (hm.SIZE, hm.SIZE) for picture in pictures)
    shown = torch.frombuffer(bytearray(pictures[-1].tobytes()), dtype=torch.uint8)
    shown = shown.view(hm.SIZE, hm.SIZE, 3).float() / 127.5 - 1
    expected = last[0].movedim(0, -1).clamp(-1, 1)
    assert (shown - expected).abs().mean() < 0.05


def shown(monkeypatch, method, inner, search=False):
    """Latents on FLUX.2's format, and what was shown on the way."""
    monkeypatch.setattr(args, "preview_method", method)
    told = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **_: told.append(preview)
    )
    made = hm.gaussian_model("FLUX", mean=0.0, std=1.0)
    made.model.latent_format = comfy.latent_formats.Flux2()
    guider, latent = hm.guider(made, 0.3), hm.empty_latent(size=4, channels=128)
    if search:
        found = s.search(guider, inner, latent)[0]["samples"]
    else:
        found = hm.run(guider, inner, s.SIGMAS, latent)[0]
    return found, [each[1] for each in told if each is not None]


SIZES = {"none": None, "auto": (8, 8), "latent2rgb": (8, 8), "taesd": (64, 64)}


@pytest.mark.parametrize("method", LatentPreviewMethod, ids=lambda method: method.value)
def test_the_hosts_preview_method_is_the_samplers_and_a_search_shows_its_best(
    monkeypatch, tmp_path, method
):
    if method is LatentPreviewMethod.TAESD:
        if comfy.latent_formats.Flux2().taesd_decoder_name != "taef2_decoder":
            pytest.skip("this host has no small decoder for FLUX.2")
        shutil.copy(real("taef2_decoder.pth"), tmp_path)
        paths = ([str(tmp_path)], folder_paths.folder_names_and_paths["vae_approx"][1])
        monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_approx", paths)
    off = LatentPreviewMethod.NoPreviews
    for search in (False, True):
        silent, before = shown(monkeypatch, off, s.flow(), search)
        found, pictures = shown(monkeypatch, method, s.flow(), search)
        assert torch.equal(found, silent)
        if search:
            assert [each.tobytes() for each in pictures] == [each.tobytes() for each in before]
            assert len(pictures) > 1
        else:
            wanted = [] if method is off else [SIZES[method.value]] * s.STEPS
            assert [each.size for each in pictures] == wanted
            assert before == []
            assert len({each.tobytes() for each in pictures}) == len(wanted)


# ---- cancel ----


def press(*_):
    comfy.model_management.interrupt_current_processing(True)


class Pressing:
    """The pixel VAE, with a person who presses cancel while it decodes."""

    def __init__(self):
        self.vae, self.calls = s.pixel_vae(), 0

    def decode(self, latents):
        self.calls += 1
        if self.calls == 3:
            press()
        return self.vae.decode(latents)


@pytest.mark.parametrize("place", ["model", "decode", "reward"])
@pytest.mark.parametrize("name", ["evolutionary", "rbf", "best_of_n"])
def test_a_cancel_is_obeyed_at_once_wherever_it_comes(name, place):
    made = hm.scene_model()
    calls, scored = (
        s.count_rows(made),
        s.Calling(lambda n: n == 3 and place == "reward" and press()),
    )
    vae = Pressing() if place == "decode" else s.pixel_vae()
    if place == "model":
        made.model.diffusion_model.register_forward_pre_hook(
            lambda *_: press() if len(calls) == 9 else None
        )
    with pytest.raises(InterruptProcessingException):
        s.search(
            hm.guider(made, 0.8), s.flow(), evaluations=200, reward=scored, vae=vae,
            strategy=s.strategy(name),
        )  # fmt: skip
    if place == "model":
        assert len(calls) == 9
    if place == "decode":
        assert (vae.calls, scored.calls) == (3, 2)
    if place == "reward":
        assert scored.calls == 3
    assert not comfy.model_management.processing_interrupted(), "the next node may run"
