"""Rows of a batch with opposite prompts, hints, masks and latents: each is searched as if alone.

The host itself is asked for the picture of a row alone. Without slicing, rows would get what is
the first one's; each row of the table is also run so, and must then differ.
"""

from collections.abc import Callable

import comfy.model_base
import graphs
import host_models as hm
import pytest
import searching as s
import torch
from comfy_extras.nodes_custom_sampler import DualCFGGuider, RandomNoise
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_perpneg import PerpNegGuider
from graphs import (
    Graph,
    Scene,
    adapted,
    concat,
    controlled,
    first,
    halves,
    hint,
    hooked,
    model,
    rows,
)

from flowsearch.nodes.host.model import batch_row
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.search.reward_search import Search
from flowsearch.samplers.stepping.transition import ODE

PROMPTS = (2.0, -2.0)


def prompts(which: list[int], sign: float = 1.0) -> list:
    return rows(*(sign * PROMPTS[row] for row in which))


def latent(which: list[int], **more) -> dict:
    return {"samples": hm.picture_latent(2)["samples"][which], "batch_index": which, **more}


def empty(which: list[int]) -> dict:
    return {**hm.empty_latent(len(which)), "batch_index": which}


def _guided(node, *extra) -> Callable[[list[int]], Graph]:
    def make(which):
        made = model()
        conds = (prompts(which), prompts(which, 0.3), prompts(which, -1.0))
        return Graph(made, first(node.execute(made, *conds, *extra)), empty(which))

    return make


def _dual_model(which: list[int]) -> Graph:
    made = model()
    node = hm.host_node("DualModelGuider")
    guider = node.execute(made, rows(0.8), 3.0, model(seed=1), prompts(which))
    return Graph(made, first(guider), empty(which))


def _hints(which: list[int]) -> Graph:
    made, both = model(), hint(1.0, -1.0)
    positive, negative, net = controlled(
        rows(0.8), rows(-0.5), both[which], both[which].flip(1), ranges=((0.0, 0.6), (0.3, 1.0))
    )
    return Graph(made, hm.guider(made, positive, negative, cfg=3.0), empty(which), control=net)


def _adapters(which: list[int]) -> Graph:
    made = model()
    pair = adapted(rows(0.8), rows(-0.5), hint(1.0, -1.0)[which])
    return Graph(made, hm.guider(made, *pair, cfg=3.0), empty(which))


class Pooling(comfy.model_base.BaseModel):
    """A model that is given the pooled text beside the words, as SD3, SDXL and Flux are."""

    def encode_adm(self, **kwargs):
        return kwargs["pooled_output"]


def _pooled(which: list[int]) -> Graph:
    made = hm.wrap(Scene(), base=Pooling)
    pooled = torch.tensor([[0.8, -0.4, 0.2], [-0.8, 0.4, 0.6]])[which]
    pair = [hm.conditioning(v, pooled_output=p) for v, p in ((0.8, pooled), (-0.5, -pooled))]
    return Graph(made, hm.guider(made, *pair, cfg=3.0), empty(which))


def _hooked(which: list[int]) -> Graph:
    made = model()
    positive = hooked(made, prompts(which), (1.0, 0.0), (0.0, 0.4))
    return Graph(made, hm.guider(made, positive, -0.5, cfg=3.0), empty(which))


def _areas(which: list[int]) -> Graph:
    made = model()
    part = prompts(which)
    part[0][1]["area"] = (32, 40, 16, 8)
    return Graph(made, hm.guider(made, [*part, *rows(0.1)], -0.5, cfg=3.0), empty(which))


def _masked(which: list[int]) -> Graph:
    made = model()
    part = graphs.nodes.ConditioningSetMask().append(rows(2.0), halves()[which], "default", 1.0)[0]
    return Graph(made, hm.guider(made, [*part, *rows(-1.0)], -0.5, cfg=3.0), empty(which))


def _inpaint(which: list[int]) -> Graph:
    made, samples = graphs.inpaint_model(), latent([0, 1])["samples"][which]
    pair = [concat(rows(v), samples, halves()[which]) for v in (0.8, -0.5)]
    return Graph(made, hm.guider(made, *pair, cfg=3.0), empty(which))


def _noise_masks(which: list[int]) -> Graph:
    g = graphs.graph()
    g.latent = latent(which, noise_mask=halves()[which])
    return g


def _differential(which: list[int]) -> Graph:
    ramp = torch.linspace(0, 1, hm.SIZE).expand(hm.SIZE, hm.SIZE)
    masks = torch.stack([ramp, 1 - ramp])
    g = graphs.graph(lambda m: first(DifferentialDiffusion.execute(m)))
    g.latent = latent(which, noise_mask=masks[which])
    return g


ROWS: dict[str, Callable[[list[int]], Graph]] = {
    "dual cfg": _guided(DualCFGGuider, 3.0, 1.5, "regular"),
    "dual cfg, nested": _guided(DualCFGGuider, 3.0, 1.5, "nested"),
    "perpendicular negative": _guided(PerpNegGuider, 3.0, 1.0),
    "dual model": _dual_model,
    "hints of two controlnets": _hints,
    "hints of a t2i-adapter": _adapters,
    "pooled text": _pooled,
    "prompts of a hook lora": _hooked,
    "prompts of an area": _areas,
    "masks of a prompt": _masked,
    "pictures of an inpainting model": _inpaint,
    "noise masks": _noise_masks,
    "differential diffusion": _differential,
}


def searched(g: Graph, inner, **given):
    noise = RandomNoise.execute(noise_seed=3)[0]
    settings = {"evaluations": 24, "target": s.NEVER, "vae": s.pixel_vae()}
    found = Search.execute(
        noise=noise, guider=g.guider, sampler=inner, sigmas=g.sigmas, latent_image=g.latent,
        reward=s.Brightness(), **{**settings, **given},
    ).result[0]  # fmt: skip
    return found["samples"]


@pytest.mark.parametrize("name", ROWS)
def test_the_plain_sample_of_a_row_is_what_the_host_makes_of_it_alone(name):
    plain = {"evaluations": len(graphs.SIGMAS) - 1, "strategy": s.strategy("best_of_n")}
    together = searched(ROWS[name]([0, 1]), FlowSampler(ODE), **plain)
    for row in (0, 1):
        g = ROWS[name]([row])
        host = hm.run(g.guider, s.sampler(), g.sigmas, g.latent, 3)[0]
        assert torch.equal(together[row], host[0])


SEARCHED = [
    "hints of two controlnets",
    "hints of a t2i-adapter",
    "pooled text",
    "masks of a prompt",
    "pictures of an inpainting model",
]


@pytest.mark.parametrize("name", SEARCHED)
def test_candidates_of_a_row_are_its_own(name):
    together = searched(ROWS[name]([0, 1]), s.flow())
    alone = searched(ROWS[name]([1]), s.flow())
    assert (together[1] - alone[0]).abs().max() < 1e-4


@pytest.mark.parametrize(
    "name", [n for n in ROWS if n not in ("noise masks", "differential diffusion")]
)
def test_without_slicing_a_row_would_be_the_firsts(monkeypatch, name):
    """The mutant. If this does not fail, the tests above are blind."""
    monkeypatch.setattr(batch_row, "guider_of_row", lambda guider, row: guider)
    plain = {"evaluations": len(graphs.SIGMAS) - 1, "strategy": s.strategy("best_of_n")}
    together = searched(ROWS[name]([0, 1]), FlowSampler(ODE), **plain)
    g = ROWS[name]([1])
    host = hm.run(g.guider, s.sampler(), g.sigmas, g.latent, 3)[0]
    assert (together[1] - host[0]).abs().max() > 1e-2
