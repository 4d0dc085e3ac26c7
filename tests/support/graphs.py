"""What else stands in a workflow: guiders, ControlNets, LoRAs, masks, areas, patches; one row each.

A row is a function that returns a Graph, made afresh with the host's own nodes. Which laws hold for
which rows is said in tests/host/graphs/test_graph_sampler.py and test_graph_search.py.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.controlnet
import comfy.gligen
import comfy.hooks
import comfy.model_patcher
import comfy.samplers
import host_models as hm
import nodes
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from comfy_extras import nodes_hooks as hooks_nodes
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_cfg import CFGZeroStar
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from comfy_extras.nodes_custom_sampler import DualCFGGuider
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_mahiro import Mahiro
from comfy_extras.nodes_model_advanced import (
    ModelSamplingAuraFlow,
    ModelSamplingFlux,
    ModelSamplingSD3,
    RescaleCFG,
)
from comfy_extras.nodes_perpneg import PerpNeg, PerpNegGuider
from torch import Tensor, nn

from flowsearch.demo.network import FEATURES

SIGMAS = torch.tensor([1.0, 0.93, 0.81, 0.62, 0.4, 0.17, 0.0])
CPU = torch.device("cpu")


class Control(nn.Module):
    """A ControlNet's network: the hint at the state's size, scaled by the time it is asked at."""

    dtype = torch.float32

    def __init__(self):
        super().__init__()
        self.times = []

    def forward(self, x, hint, timesteps, context, **_):
        self.times.append(round(float(timesteps[0]) / 1000, 6))
        pooled = nn.functional.interpolate(hint, x.shape[-2:], mode="area")
        return {"output": [pooled * (0.5 + timesteps.view(-1, 1, 1, 1) / 1000)]}


class Adapter(nn.Module):
    """A T2I-Adapter's network: it is asked with the hint alone."""

    unshuffle_amount = 8

    def forward(self, hint):
        return {"output": [hint - hint.mean(dim=(2, 3), keepdim=True)]}


class Scene(nn.Module):
    """The embedded model's network with the inputs that bigger ones have: control, concat, the
    pooled text, and patches of its attention.

    Attributes:
        seen: (time, the first weight's sum) of every call, for laws about patches and times.
    """

    def __init__(self, seed: int = 0):
        super().__init__()
        self.net = hm.scene_model(seed).model.diffusion_model
        self.dtype = torch.float32
        self.seen = []

    def forward(
        self, x, timestep, context=None, control=None, transformer_options=None, y=None, **_
    ):
        options = transformer_options or {}
        wrapped = WrapperExecutor.new_class_executor(
            self.velocity, self, get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        )
        velocity = wrapped.execute(x, timestep, context, control, options)
        if y is not None:
            velocity = velocity + y.view(*y.shape, 1, 1)
        for patch in options.get("patches", {}).get("middle_patch", ()):
            velocity = velocity + patched_attention(patch, velocity)
        return velocity

    def weight(self) -> float:
        """Sum of the first weights that lora() patches."""
        weights = next(p for p in self.net.parameters() if p.ndim == 4)
        return float(weights.double().sum())

    def velocity(self, x, timestep, context, control, transformer_options):
        """What the host's networks put behind the wrappers of caches."""
        self.seen.append((round(float(timestep[0]) / 1000, 6), self.weight()))
        velocity = self.net(x[:, :3], timestep, context)
        if control is not None:
            velocity = velocity + sum(control["output"])
        return velocity + x[:, 3:].mean(dim=1, keepdim=True) if x.shape[1] > 3 else velocity


def patched_attention(patch: Callable, values: Tensor) -> Tensor:
    """What a patch of attention (GLIGEN) adds to a picture's 8 x 8 places."""
    small = nn.functional.interpolate(values, (8, 8), mode="area")
    tokens = small.flatten(2).mT
    added = patch(tokens, {"transformer_index": 0}) - tokens
    return nn.functional.interpolate(added.mT.unflatten(2, (8, 8)), values.shape[-2:])


def model(seed: int = 0, **settings):
    """MODEL of a Scene."""
    return hm.wrap(Scene(seed), **settings)


@dataclass
class Graph:
    """What a sampler is connected to.

    Attributes:
        model: MODEL.
        guider: GUIDER of it.
        latent: LATENT.
        sigmas: SIGMAS.
        control: The ControlNet's network, where there is one.
        seed: Noise seed; None for disabled noise.
    """

    model: Any
    guider: Any
    latent: dict = field(default_factory=hm.empty_latent)
    sigmas: Tensor = field(default_factory=SIGMAS.clone)
    control: Control | None = None
    seed: int | None = 3


def graph(patch: Callable = lambda m: m, latent=None, **rest) -> Graph:
    """A Graph with the host's CFG Guider on a patched MODEL."""
    made = patch(model())
    given = {"positive": 0.8, "negative": -0.5, "cfg": 3.0, **rest}
    sigmas, seed = given.pop("sigmas", SIGMAS.clone()), given.pop("seed", 3)
    guider = hm.guider(made, **given)
    return Graph(made, guider, latent or hm.empty_latent(), sigmas, seed=seed)


def first(output):
    """The first output of a node of the host, of either kind."""
    return output[0]


def rows(*values: float) -> list:
    """CONDITIONING with one row a value."""
    return hm.conditioning(torch.stack([torch.full((3, FEATURES), float(v)) for v in values]))


# ---- guiders ----


def _guided(node, *args, **kwargs) -> Graph:
    made = model()
    return Graph(made, first(node.execute(made, *args, **kwargs)))


def _dual_model() -> Graph:
    made = model()
    node = hm.host_node("DualModelGuider")
    return Graph(made, first(node.execute(made, rows(0.8), 3.0, model(seed=1), rows(-0.5))))


# ---- ControlNets ----


def hint(*values: float, size: int = hm.SIZE) -> Tensor:
    """IMAGE with one row a value: a gradient from the top whose strength is the value."""
    ramp = torch.linspace(0, 1, size).view(1, size, 1, 1).expand(1, size, size, 3)
    return torch.cat([ramp * value for value in values])


def controlled(positive, negative, *pictures: Tensor, ranges=((0.2, 0.8),)):
    """Both CONDITIONINGs with a chain of ControlNets, and their network."""
    net = Control()
    for picture, (start, end) in zip(pictures, ranges, strict=True):
        given = comfy.controlnet.ControlNet(net, load_device=CPU)
        positive, negative = nodes.ControlNetApplyAdvanced().apply_controlnet(
            positive, negative, given, picture, 0.7, start, end
        )
    return positive, negative, net


def _controlnet(*pictures: Tensor, **ranges) -> Graph:
    made = model()
    positive, negative, net = controlled(rows(0.8), rows(-0.5), *pictures, **ranges)
    return Graph(made, hm.guider(made, positive, negative, cfg=3.0), control=net)


def adapted(positive, negative, picture: Tensor, start: float = 0.2, end: float = 0.8):
    """Both CONDITIONINGs with a T2I-Adapter."""
    given = comfy.controlnet.T2IAdapter(Adapter(), 3, 1, "nearest-exact", device=CPU)
    return nodes.ControlNetApplyAdvanced().apply_controlnet(
        positive, negative, given, picture, 0.7, start, end
    )


def _adapter() -> Graph:
    made = model()
    return Graph(made, hm.guider(made, *adapted(rows(0.8), rows(-0.5), hint(1.0)), cfg=3.0))


def _gligen() -> Graph:
    made, key = model(), 16
    with torch.random.fork_rng():
        torch.manual_seed(4)
        layer = comfy.gligen.GatedSelfAttentionDense(3, key, 1, 8)
        net = comfy.gligen.Gligen([layer], comfy.gligen.PositionNet(key, key), key)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.5)
        words = torch.randn(2, 1, key)
    patcher = comfy.model_patcher.CoreModelPatcher(net.eval().requires_grad_(False), CPU, CPU)
    boxes = [(words[0], 24, 24, 8, 8), (words[1], 16, 32, 40, 24)]  # rows, columns, from where
    text, options = rows(0.8)[0]
    positive = [[text, {**options, "gligen": ("position", patcher, boxes)}]]
    return Graph(made, hm.guider(made, positive, -0.5, cfg=3.0))


# ---- LoRAs ----


def lora(made) -> tuple[dict, dict]:
    """A patch of the first weights in two forms: for a MODEL, and a LoRA file of rank 1."""
    state = made.model.state_dict()
    keys = [k for k in state if k.endswith(".weight") and state[k].ndim == 4][:3]
    patch = {k: ("diff", (torch.full_like(state[k], 0.02),)) for k in keys}
    return patch, dict.fromkeys(keys)


def _lora(made):
    made = made.clone()
    made.add_patches(lora(made)[0], 0.8)
    return made


def hooked(made, conditioning: list, *frames: tuple[float, float], amount: float = 0.8) -> list:
    """CONDITIONING with a hook LoRA and keyframes (strength, start_percent)."""
    group = comfy.hooks.create_hook_lora({}, amount, amount)
    group.hooks[0].weights, group.hooks[0].need_weight_init = lora(made)[0], False
    keyframes = None
    for strength, start in frames:
        (keyframes,) = hooks_nodes.CreateHookKeyframe().create_hook_keyframe(
            strength, start, keyframes
        )
    if keyframes is not None:
        (group,) = hooks_nodes.SetHookKeyframes().set_hook_keyframes(group, keyframes)
    return comfy.hooks.set_hooks_for_conditioning(conditioning, group)


def _hook_lora(*frames: tuple[float, float], **rest) -> Graph:
    made = model()
    positive = hooked(made, rows(0.8), *frames)
    given = {"sigmas": SIGMAS.clone(), "latent": hm.empty_latent(), **rest}
    return Graph(made, hm.guider(made, positive, -0.5, cfg=3.0), **given)


# ---- masks and areas ----


def halves() -> Tensor:
    """Masks of two rows: the upper half, and the lower half."""
    masks = torch.zeros(2, hm.SIZE, hm.SIZE)
    masks[0, : hm.SIZE // 2] = 1.0
    masks[1, hm.SIZE // 2 :] = 1.0
    return masks


def gradual(latent: dict) -> dict:
    """A LATENT with a noise mask that rises from left to right."""
    ramp = torch.linspace(0, 1, hm.SIZE).expand(1, hm.SIZE, hm.SIZE)
    return {**latent, "noise_mask": ramp.clone()}


def _masked_cond(value: float, mask: Tensor, where: str = "default") -> list:
    return nodes.ConditioningSetMask().append(rows(value), mask, where, 1.0)[0]


def _area() -> Graph:
    part = nodes.ConditioningSetArea().append(rows(2.0), 256, 320, 128, 64, 0.8)[0]
    return graph(positive=[*part, *rows(-0.5)])


def _default_cond() -> Graph:
    part = _masked_cond(2.0, halves()[:1])
    both = hooks_nodes.ConditioningSetDefaultAndCombine().set_default_and_combine(part, rows(0.1))
    return graph(positive=both[0])


def _ranges() -> Graph:
    early = nodes.ConditioningSetTimestepRange().set_range(rows(2.0), 0.0, 0.4)[0]
    late = nodes.ConditioningSetTimestepRange().set_range(rows(-1.0), 0.4, 1.0)[0]
    return graph(positive=[*early, *late])


def inpaint_model(made=None):
    """A MODEL that is given the mask and the masked picture, as inpainting models are."""
    made = made or model()
    made.model.concat_keys = ("mask", "masked_image")
    return made


def concat(conditioning: list, latent: Tensor, mask: Tensor) -> list:
    """CONDITIONING with what InpaintModelConditioning adds."""
    return [[c, {**d, "concat_latent_image": latent, "concat_mask": mask}] for c, d in conditioning]


def _inpaint() -> Graph:
    made, latent = inpaint_model(), hm.picture_latent()
    pair = [concat(rows(v), latent["samples"], halves()[:1]) for v in (0.8, -0.5)]
    return Graph(
        made, hm.guider(made, *pair, cfg=3.0), {**latent, "noise_mask": halves()[:1]}
    )  # fmt: skip


# ---- patches ----


def windows(schedule: str = "standard_static", **rest) -> Callable:
    """A node that samples in overlapping windows of the height."""

    def patch(made):
        given = {
            "context_length": 32, "context_overlap": 8, "context_stride": 2, "closed_loop": False,
            "fuse_method": "pyramid", "dim": 2, "freenoise": False, "cond_retain_index_list": "",
            "split_conds_to_windows": False, "latent_retain_index_list": "",
            "causal_window_fix": False, **rest,
        }  # fmt: skip
        known = inspect.signature(ContextWindowsManualNode.execute).parameters  # older: fewer
        given = {name: value for name, value in given.items() if name in known}
        return first(ContextWindowsManualNode.execute(made, context_schedule=schedule, **given))

    return patch


def shifted(patch: Callable) -> Graph:
    """A shift node, and the schedule it makes."""
    g = graph(patch)
    sampling = g.model.get_model_object("model_sampling")
    g.sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", 6)
    return g


def flux_shift() -> Graph:
    """Flux's shift counts time from 0 to 1, not to 1000."""
    made = ModelSamplingFlux().patch(hm.gaussian_model(), 1.15, 0.5, 1024, 768)[0]
    made.model.diffusion_model.unit = 1.0
    return Graph(made, hm.guider(made, 0.8, -0.5, cfg=3.0))


def second_stage(latent: dict | None = None) -> Graph:
    """KSampler (Advanced), from step 2 on: the first one left its noise in the latent."""
    made, latent = model(), latent or hm.empty_latent()
    left = hm.run(
        hm.guider(made, 0.8, -0.5, cfg=3.0), comfy.samplers.sampler_object("euler"),
        SIGMAS[:3], latent, 3,
    )[0]  # fmt: skip
    given = hm.guider(made, 0.8, -0.5, cfg=3.0)
    return Graph(made, given, {**latent, "samples": left}, SIGMAS[2:].clone(), seed=None)


GRAPHS: dict[str, Callable[[], Graph]] = {
    "basic guider": lambda: graph(negative=None),
    "guidance 1": lambda: graph(cfg=1.0),
    "guidance 3, negative": graph,
    "guidance below 1": lambda: graph(cfg=0.5),
    "dual cfg": lambda: _guided(
        DualCFGGuider, rows(0.8), rows(0.3), rows(-0.5), 3.0, 1.5, "regular"
    ),
    "dual cfg, nested": lambda: _guided(
        DualCFGGuider, rows(0.8), rows(0.3), rows(-0.5), 3.0, 1.5, "nested"
    ),
    "dual model": _dual_model,
    "perpendicular negative": lambda: _guided(
        PerpNegGuider, rows(0.8), rows(-0.5), rows(0.0), 3.0, 1.0
    ),
    "perpendicular negative, old node": lambda: graph(
        lambda m: first(PerpNeg.execute(m, rows(0.0), 1.0))
    ),
    "cfg override": lambda: graph(
        lambda m: first(hm.host_node("CFGOverride").execute(m, 1.0, 0.2, 0.6))
    ),
    "rescale cfg": lambda: graph(lambda m: RescaleCFG().patch(m, 0.7)[0]),
    "cfg zero": lambda: graph(lambda m: first(CFGZeroStar.execute(m))),
    "apg": lambda: graph(lambda m: first(APG.execute(m, 1.0, 5.0, 0.0))),
    "apg with momentum": lambda: graph(lambda m: first(APG.execute(m, 1.0, 5.0, -0.5))),
    "mahiro": lambda: graph(lambda m: first(Mahiro.execute(m))),
    "controlnet": lambda: _controlnet(hint(1.0)),
    "two controlnets": lambda: _controlnet(hint(1.0), hint(-1.0), ranges=((0.0, 0.5), (0.3, 1.0))),
    "t2i-adapter": _adapter,
    "gligen": _gligen,
    "lora": lambda: graph(_lora),
    "hook lora": _hook_lora,
    "hook lora, keyframes": lambda: _hook_lora((1.0, 0.0), (0.0, 0.4)),
    "hook lora, partial denoise": lambda: _hook_lora(
        (1.0, 0.0), (0.3, 0.2), (0.0, 0.7), sigmas=SIGMAS[2:].clone(), latent=hm.picture_latent()
    ),
    "noise mask": lambda: graph(latent=gradual(hm.picture_latent())),
    "differential diffusion": lambda: graph(
        lambda m: first(DifferentialDiffusion.execute(m)), latent=gradual(hm.picture_latent())
    ),
    "differential diffusion, half": lambda: graph(
        lambda m: first(DifferentialDiffusion.execute(m, 0.5)),
        latent=gradual(hm.picture_latent()),
        sigmas=SIGMAS[1:].clone(),
    ),
    "inpainting model": _inpaint,
    "partial denoise": lambda: graph(latent=hm.picture_latent(), sigmas=SIGMAS[3:].clone()),
    "second stage": second_stage,
    "second stage, noise mask": lambda: second_stage(gradual(hm.picture_latent())),
    "area": _area,
    "conditioning mask": lambda: graph(
        positive=[*_masked_cond(2.0, halves()[:1]), *_masked_cond(-2.0, halves()[1:])]
    ),
    "conditioning mask, set to bounds": lambda: graph(
        positive=[*_masked_cond(2.0, halves()[:1], "mask bounds"), *rows(-0.5)]
    ),
    "default conditioning": _default_cond,
    "timestep ranges": _ranges,
    "shift before": lambda: shifted(lambda m: ModelSamplingSD3().patch(m, 3.0)[0]),
    "shift twice": lambda: shifted(
        lambda m: ModelSamplingSD3().patch(ModelSamplingSD3().patch(m, 9.0)[0], 3.0)[0]
    ),
    "auraflow's shift": lambda: shifted(
        lambda m: ModelSamplingAuraFlow().patch(m, 1.73, 1000.0)[0]
    ),
    "flux's shift": flux_shift,
    "context windows, static": lambda: graph(windows()),
    "context windows, uniform": lambda: graph(windows("standard_uniform")),
    "context windows, looped": lambda: graph(windows("looped_uniform", closed_loop=True)),
    "context windows, batched": lambda: graph(windows("batched")),
    "context windows, freenoise": lambda: graph(windows(freenoise=True)),
    "easycache": lambda: graph(lambda m: first(EasyCacheNode.execute(m, 1.0, 0.1, 0.95, False))),
    "lazycache": lambda: graph(lambda m: first(LazyCacheNode.execute(m, 1.0, 0.1, 0.95, False))),
}
