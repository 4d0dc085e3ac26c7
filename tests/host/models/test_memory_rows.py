"""How many candidates does a call hold? As many as fit into the memory that the host says is free.

What is free is the host's own word for it, which the tests set; all that comes of it is the host's
and ours.
"""

import comfy.conds
import comfy.model_base
import comfy.model_management
import graphs
import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.host.model import measure
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.samplers.stepping.transition import ODE

SHAPE = (1, 3, hm.SIZE, hm.SIZE)
WIDE = 6  # candidates of a round


def say_free(monkeypatch, size: float) -> None:
    """Have the host say that so many bytes are free, on any device."""

    def free(_device=None, torch_free_too=False):
        return (size, size) if torch_free_too else size

    monkeypatch.setattr(comfy.model_management, "get_free_memory", free)


def need(model, references: int = 0) -> float:
    """Bytes that the host wants to be free for one candidate with guidance."""
    sizes = {"ref_latents": [[1, 3, references]] * 2} if references else {}
    return 1.5 * model.model.memory_required([2, *SHAPE[1:]], cond_shapes=sizes)


def searched(model, rows_per_call: int, name: str = "best_of_n", cfg: float = 3.0, **given):
    """A search; returns its latents, its scores, its report, and the rows of every call."""
    settings = {"width": WIDE} if name == "best_of_n" else {}
    choice = s.strategy(name, rows_per_call=rows_per_call, **settings)
    rows = s.count_rows(model)
    given = {"evaluations": (WIDE + 1) * s.STEPS, "strategy": choice, "cfg": cfg, **given}
    latent, _, report = s.reward_search(model, **given)
    scores = [row["scores"]["value"] for row in report.trace.record["evaluated"] if row["scores"]]
    return latent["samples"], scores, report, rows


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("fit", [1, 2, 4, 5])
def test_a_call_holds_as_many_candidates_as_fit(monkeypatch, fit, cfg):
    model = hm.scene_model()
    say_free(monkeypatch, 1000 * need(model))  # the machine itself may have little
    fixed = searched(hm.scene_model(), fit, cfg=cfg)
    say_free(monkeypatch, (fit + 0.5) * need(model))
    asked = searched(model, 0, cfg=cfg)
    each = 1 if cfg == 1.0 else 2
    assert max(asked[3]) == fit * each
    assert asked[2].chunks == fixed[2].chunks == [(0, fit)]
    assert torch.equal(asked[0], fixed[0])
    assert asked[1] == fixed[1]
    assert asked[3] == fixed[3]


@pytest.mark.parametrize("name", ["rbf", "smc"])
def test_no_call_is_larger_than_what_is_free(monkeypatch, name):
    model, fit = hm.scene_model(), 3
    say_free(monkeypatch, 1000 * need(model))
    fixed = searched(hm.scene_model(), fit, name)
    free = (fit + 0.5) * need(model)
    say_free(monkeypatch, free)
    asked = searched(model, 0, name)
    assert asked[2].chunks == [(0, fit)]
    assert torch.equal(asked[0], fixed[0])
    assert asked[1] == fixed[1]
    assert {1.5 * model.model.memory_required([n, *SHAPE[1:]]) < free for n in asked[3]} == {True}


def test_where_nothing_fits_candidates_and_conditionings_come_one_by_one(monkeypatch):
    model = hm.scene_model()
    say_free(monkeypatch, 0.3 * need(model))
    assert {*searched(model, 0)[3]} == {1}


def test_where_all_fits_a_call_is_still_no_larger_than_is_useful(monkeypatch):
    model = hm.gaussian_model()
    say_free(monkeypatch, 1000 * need(model))
    choice = s.strategy("best_of_n", rows_per_call=0, width=48)
    rows = searched(model, 0, strategy=choice, evaluations=50 * s.STEPS)[3]
    assert max(rows) == 2 * measure.MOST_ROWS


class Edited(comfy.model_base.BaseModel):
    """A model that reads reference pictures beside its own, as Flux Kontext and Qwen-Image do."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.memory_usage_factor_conds = ("ref_latents",)

    def extra_conds(self, **kwargs):
        given = comfy.conds.CONDList(kwargs["reference_latents"])
        return {**super().extra_conds(**kwargs), "ref_latents": given}


class Reading(graphs.Scene):
    """Its network, which tells how many rows and reference pixels it was given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, timestep, context=None, ref_latents=None, **rest):
        self.calls.append((x.shape[0], [[*ref.shape] for ref in ref_latents]))
        velocity = super().forward(x, timestep, context, **rest)
        return velocity + ref_latents[0].mean(dim=(2, 3), keepdim=True)


def test_reference_pictures_of_the_prompts_count(monkeypatch):
    """Two of the picture's size: a call holds a third of the candidates."""
    model, fit = hm.wrap(Reading(), base=Edited), 2
    reference = hm.picture_latent()["samples"]
    prompts = [hm.conditioning(v, reference_latents=[reference] * 2) for v in (0.8, -0.5)]
    free = (fit + 0.5) * need(model, references=2 * hm.SIZE**2)
    assert free > 3 * fit * need(model)
    say_free(monkeypatch, free)
    asked = searched(model, 0, positive=prompts[0], negative=prompts[1])
    assert asked[2].chunks == [(0, fit)]
    calls = model.model.diffusion_model.calls
    assert max(rows for rows, _ in calls) == 2 * fit
    for rows, references in calls:
        assert {shape[0] for shape in references} == {rows}
        pixels = sum(shape[0] * shape[2] * shape[3] for shape in references)
        sizes = {"ref_latents": [[1, 3, pixels]]}
        assert 1.5 * model.model.memory_required([rows, *SHAPE[1:]], cond_shapes=sizes) < free


@pytest.mark.parametrize("name", ["dual cfg", "area", "perpendicular negative"])
def test_more_conditionings_than_two_are_spread_over_calls(monkeypatch, name):
    g = graphs.GRAPHS[name]()
    free = 2.5 * need(g.model)
    say_free(monkeypatch, free)
    rows = s.count_rows(g.model)
    inner, choice = FlowSampler(ODE), s.strategy("best_of_n", rows_per_call=0, width=WIDE)
    s.search(g.guider, inner, g.latent, evaluations=WIDE * s.STEPS, strategy=choice)
    assert {1.5 * g.model.model.memory_required([n, *SHAPE[1:]]) < free for n in rows} == {True}


@pytest.mark.parametrize("fit", [1, 4])
def test_after_a_score_the_model_comes_back_with_room_for_its_widest_call(monkeypatch, fit):
    """What a decoder or a reward would keep of that memory would halve the next call."""
    asked, load = [], comfy.model_management.load_models_gpu

    def told(models, memory_required=0, **rest):
        if model.model in [each.model for each in models]:
            asked.append(memory_required)
        return load(models, memory_required=memory_required, **rest)

    model = hm.scene_model()
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", told)
    rows = searched(model, fit)[3]
    needed = model.model.memory_required([max(rows), *SHAPE[1:]])
    assert max(rows) == 2 * fit
    assert asked[-1] == pytest.approx(needed, rel=1e-6)


# ---- memory runs out all the same ----


def out_of_memory() -> Exception:
    return torch.cuda.OutOfMemoryError("CUDA out of memory")


def accelerator_error() -> Exception:
    return torch.AcceleratorError("CUDA error: out of memory")


class Room:
    """Has a network raise when a call is larger than there is room for."""

    def __init__(self, model, rows: int, error=out_of_memory):
        self.rows, self.error, self.refused = rows, error, []
        model.model.diffusion_model.register_forward_pre_hook(self)

    def __call__(self, _network, args):
        if args[0].shape[0] > self.rows:
            self.refused.append(args[0].shape[0])
            raise self.error()


@pytest.mark.parametrize("name", ["best_of_n", "smc", "rbf"])
def test_a_call_that_is_too_large_is_halved_and_the_search_goes_on(monkeypatch, name):
    model = hm.scene_model()
    say_free(monkeypatch, 100 * need(model))
    room = Room(model, 2)
    found, scores, report, rows = searched(model, 0, name)
    assert max(rows) == 2
    assert report.chunks[-1][1] == 1
    sizes = [count for _, count in report.chunks]
    assert sizes[1:] == [(refused // 2 + 1) // 2 for refused in room.refused], "halved, each once"
    expected = searched(hm.scene_model(), 1, name)
    assert scores == expected[1]
    assert torch.equal(found, expected[0])


def test_every_word_of_an_accelerator_for_full_memory_is_understood(monkeypatch):
    if not hasattr(torch, "AcceleratorError"):
        pytest.skip("this torch has no such error")
    model = hm.scene_model()
    say_free(monkeypatch, 100 * need(model))
    Room(model, 2, accelerator_error)
    assert searched(model, 0)[2].chunks[-1][1] == 1


def test_one_candidate_that_is_too_large_is_the_end():
    model = hm.scene_model()
    Room(model, 0)
    with pytest.raises(torch.cuda.OutOfMemoryError, match="CUDA out of memory"):
        searched(model, 0)
