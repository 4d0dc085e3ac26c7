"""Beside other packs: what each does, by a small stand-in (support/foreign_pack), and our answer.

docs/OTHER_PACKS.md has the table; its last column names these tests.
"""

import re
from pathlib import Path
from types import FunctionType

import comfy
import comfy.model_management
import folder_paths
import graphs
import host_models as hm
import pytest
import searching as s
import torch
from comfy.samplers import CFGGuider
from foreign_pack import remembering as pack
from foreign_pack.controls import KeyframedControl
from foreign_pack.guiders import ScheduledGuider
from foreign_pack.regional import sample_in_pieces
from foreign_pack.samplers import lying_sampler, sampler_of_global_noise
from graphs import Graph

from flowsearch.nodes.host.model import conditioning, patches
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.page import progress, remarks
from flowsearch.nodes.host.search.search_sampler import SearchSampler
from flowsearch.nodes.rewards.shapes import ShapeCountReward
from flowsearch.nodes.sampling.demo_model import load_demo
from flowsearch.nodes.search.replay import Replay
from flowsearch.samplers.stepping.transition import ODE


def test_every_socket_filled_with_the_same_vae_is_a_search_without_it():
    """use-everywhere: audio_vae and scoring_vae are the model's own VAE of pictures."""
    vae = s.pixel_vae()
    found = s.reward_search(hm.scene_model(), vae=vae, scoring_vae=vae, audio_vae=vae)
    alone = s.reward_search(hm.scene_model(), vae=vae)
    assert torch.equal(found[0]["samples"], alone[0]["samples"])
    assert [n for n in found[2].notes if "audio_vae decodes pictures and is not used" in n]
    assert not [n for n in alone[2].notes if "audio_vae" in n]


def test_a_held_out_reward_that_is_the_reward_is_named():
    reward = s.Brightness()
    given = {"reward0": reward, "reward1": s.Brightness(-1.0)}
    report = s.reward_search(hm.scene_model(), reward=reward, held_out=given)[2]
    told = [n for n in report.notes if "is the reward that was searched for" in n]
    assert len(told) == 1
    assert "held-out reward brightness is" in told[0]


def test_searches_go_on_after_the_host_reports_a_leaked_model():
    """Its list then holds a model whose patcher is gone: loaded_models() has None for it."""
    listed = comfy.model_management.current_loaded_models
    leaked = hm.gaussian_model()
    comfy.model_management.load_models_gpu([leaked])
    (entry,) = [each for each in listed if each.model is leaked]
    kept = leaked.model
    del leaked
    entry.currently_used = True
    try:
        assert None in comfy.model_management.loaded_models(only_currently_used=True)
        found = s.reward_search(hm.scene_model(), evaluations=8)
        assert found[2].score > float("-inf")
    finally:
        listed.remove(entry)
        del kept


# ---- ControlNets that are more than the host's ----


def keyframed(which):
    """Two ControlNets with keyframes, each with a hint a row, of a batch."""
    made, net, both = graphs.model(), graphs.Control(), graphs.hint(1.0, -1.0)
    pair = graphs.rows(0.8), graphs.rows(-0.5)
    for picture, span in ((both, (0.0, 1.0)), (both.flip(1), (0.2, 0.9))):
        control = KeyframedControl(net, load_device=graphs.CPU)
        pair = graphs.nodes.ControlNetApplyAdvanced().apply_controlnet(
            *pair, control, picture[which], 0.7, *span
        )
    latent = {**hm.empty_latent(len(which)), "batch_index": which}
    return Graph(made, hm.guider(made, *pair, cfg=3.0), latent)


def searched(g, inner, **given):
    return s.search(g.guider, inner, g.latent, sigmas=g.sigmas, **given)


def test_a_foreign_controlnet_has_each_rows_own_hint_and_keyframes():
    plain = {"evaluations": len(graphs.SIGMAS) - 1, "strategy": s.strategy("best_of_n")}
    together = searched(keyframed([0, 1]), FlowSampler(ODE), **plain)[0]["samples"]
    for row in (0, 1):
        g = keyframed([row])
        host = hm.run(g.guider, s.sampler(), g.sigmas, g.latent, 3)[0]
        assert torch.equal(together[row], host[0])


def test_a_mere_copy_of_it_would_have_the_firsts(monkeypatch):
    """The mutant."""
    monkeypatch.setattr(conditioning, "copied", conditioning.copy.copy)
    plain = {"evaluations": len(graphs.SIGMAS) - 1, "strategy": s.strategy("best_of_n")}
    together = searched(keyframed([0, 1]), FlowSampler(ODE), **plain)[0]["samples"]
    g = keyframed([1])
    host = hm.run(g.guider, s.sampler(), g.sigmas, g.latent, 3)[0]
    assert (together[1] - host[0]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["evolutionary", "rbf", "best_of_n"])
def test_what_it_remembers_is_put_where_the_sigma_is_so_the_winner_is_replayed(name):
    g = keyframed([0])
    found = searched(g, FlowSampler(ODE), evaluations=60, strategy=s.strategy(name))
    assert replayed(found[2], g.guider, found[0]["samples"]) < 1e-4


def replayed(report, guider, samples, sigma=1.0):
    """How far the winner is from its replay from a sigma on."""
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    noise, sigmas, latent, own = Replay.execute(report, 0, sigma).result
    out = SamplerCustomAdvanced.execute(
        noise=noise, guider=guider, sampler=own, sigmas=sigmas, latent_image=latent
    )
    return float((out[0]["samples"][0] - samples[0]).abs().max())


# ---- guiders ----


def test_a_guider_may_hold_tensors_and_whatever_else():
    """Inspire's scheduled guiders keep their sigmas and a list of strengths."""
    g = graphs.graph()
    expected = searched(g, s.flow())[0]["samples"]
    g = graphs.graph()
    g.guider.schedule = torch.linspace(1.0, 0.0, 5)
    g.guider.table = [torch.zeros(2), torch.zeros(3)]
    g.guider.by_name = {"a": torch.ones(4), "b": None}
    g.guider.own = g.guider.predict_noise
    assert torch.equal(searched(g, s.flow())[0]["samples"], expected)


def scheduled():
    """A Graph with a guider that falls from 6 to 1."""
    g = graphs.graph()
    conds = graphs.rows(0.8), graphs.rows(-0.5)
    g.guider = ScheduledGuider(g.model, g.sigmas, 6.0, 1.0)
    g.guider.set_conds(*conds)
    return g


def test_a_guider_that_does_not_run_its_sampler_is_named():
    class Elsewhere(CFGGuider):
        def sample(self, noise, latent_image, *_, **__):
            return latent_image

    guider = Elsewhere(hm.scene_model())
    with pytest.raises(ValueError, match=r"guider \(Elsewhere\) returned latents without running"):
        s.search(guider, s.flow())


class Pieces(CFGGuider):
    """Samples the upper half, then the lower one."""

    def sample(self, noise, latent_image, sampler, sigmas, denoise_mask=None, **given):
        for place in (slice(None, 8), slice(8, None)):
            mask = torch.zeros_like(latent_image[:, :1])
            mask[..., place, :] = 1.0
            found = super().sample(noise, latent_image, sampler, sigmas, denoise_mask=mask, **given)
            latent_image = found
        return latent_image


def test_a_guider_that_samples_in_pieces_says_whose_scores_come_out():
    guider = hm.guider(hm.scene_model(), 0.5)
    guider.__class__ = Pieces
    found = s.search_node(guider, s.flow(), evaluations=40, strategy=s.strategy("rbf"))
    _, _, report, scores = found.result
    assert len(scores) == 2
    assert scores[0] == report.best(0)
    assert any("ran the search 2 times, on pieces" in note for note in report.notes)


def test_a_guider_that_counts_steps_at_sigmas_it_does_not_know_is_run_whole():
    g, steps = scheduled(), len(graphs.SIGMAS) - 1
    host = hm.run(scheduled().guider, s.sampler(), g.sigmas, g.latent, 3)[0]
    assert torch.equal(searched(g, FlowSampler(ODE), evaluations=steps)[0]["samples"], host)
    latent, _, report = searched(g, s.flow(), evaluations=4 * steps)
    assert any("ScheduledGuider of guiders makes predictions" in n for n in report.notes)
    assert replayed(report, g.guider, latent["samples"]) < 1e-4


# ---- samplers that draw from torch's global generator ----


def test_what_draws_from_the_global_generator_is_the_hosts_run_and_is_replayed():
    g, inner = graphs.graph(), sampler_of_global_noise()
    host = hm.run(g.guider, inner, g.sigmas, g.latent, 3)[0]
    steps = len(g.sigmas) - 1
    plain = searched(g, inner, evaluations=steps)[0]["samples"]
    assert torch.equal(plain, host)
    found = searched(g, inner, evaluations=6 * steps, reward=s.Brightness(-1.0))
    assert not torch.equal(found[0]["samples"], host)
    torch.manual_seed(99)
    torch.randn(7)
    assert replayed(found[2], g.guider, found[0]["samples"]) < 1e-5


def test_a_search_leaves_the_global_generator_alone():
    g = graphs.graph()
    states = []  # the host's Random Noise seeds it; the search must add nothing to that
    for evaluations in (6, 24):
        searched(g, sampler_of_global_noise(), evaluations=evaluations)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_a_rows_global_noise_is_its_own_whatever_batch_it_stands_in():
    inner, latent = sampler_of_global_noise(), hm.empty_latent(2)
    g = graphs.graph()
    both = s.search(g.guider, inner, latent, sigmas=g.sigmas, evaluations=18)[0]["samples"]
    second = {**hm.empty_latent(1), "batch_index": [1]}
    alone = s.search(g.guider, inner, second, sigmas=g.sigmas, evaluations=18)[0]["samples"]
    assert (both[1] - alone[0]).abs().max() < 1e-5


# ---- wrappers of a SAMPLER ----

OURS = {"ode": FlowSampler(ODE), "stochastic": s.flow()}


@pytest.mark.parametrize("name", OURS)
def test_a_wrapper_that_changes_nothing_changes_nothing_of_ours(name):
    g = graphs.graph()
    wrapped = hm.run(g.guider, lying_sampler(OURS[name], 0.0), g.sigmas, g.latent, 3)[0]
    bare = hm.run(g.guider, OURS[name], g.sigmas, g.latent, 3)[0]
    assert torch.equal(wrapped, bare)


@pytest.mark.parametrize("mask", [False, True])
def test_a_wrapped_sampler_of_ours_is_the_hosts_wrapped_alike(mask):
    g = graphs.GRAPHS["noise mask"]() if mask else graphs.graph()
    ours, host, bare = (
        hm.run(g.guider, inner, g.sigmas, g.latent, 3)[0]
        for inner in (lying_sampler(FlowSampler(ODE)), lying_sampler(s.sampler()), s.sampler())
    )
    assert torch.equal(ours, host)
    assert not torch.equal(ours, bare)


@pytest.mark.parametrize("name", OURS)
def test_a_wrapped_sampler_of_ours_is_searched_whole(name):
    g, inner = graphs.graph(), lying_sampler(OURS[name])
    steps = len(g.sigmas) - 1
    plain = searched(g, inner, evaluations=steps)[0]["samples"]
    assert torch.equal(plain, hm.run(g.guider, inner, g.sigmas, g.latent, 3)[0])
    found = searched(g, inner, evaluations=4 * steps)
    assert replayed(found[2], g.guider, found[0]["samples"]) < 1e-5


def test_a_wrapped_search_is_refused_with_the_order_that_works():
    g = graphs.graph()
    search = SearchSampler(s.flow(), s.judge(), s.budget(40))
    with pytest.raises(ValueError, match="between the sampler and the search"):
        hm.run(g.guider, lying_sampler(search), g.sigmas, g.latent, 3)


# ---- patches that remember, or mix rows ----

REMEMBERING = {
    f.__name__: f for f in (pack.momentum, pack.sliding, pack.cached, pack.timed, pack.random)
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_patch_that_remembers_is_found_named_and_run_whole(name):
    g = graphs.graph(REMEMBERING[name])
    host = hm.run(graphs.graph(REMEMBERING[name]).guider, s.sampler(), g.sigmas, g.latent, 3)[0]
    steps = len(g.sigmas) - 1
    plain = searched(g, FlowSampler(ODE), evaluations=steps)[0]["samples"]
    assert torch.equal(plain, host), "the plain sample is the host's, whatever was tried before"
    latent, _, report = searched(g, s.flow(), evaluations=4 * steps)
    told = [n for n in report.notes if "makes predictions of earlier ones" in n]
    assert len(told) == 1
    assert "of remembering makes" in told[0]
    assert replayed(report, g.guider, latent["samples"]) < 1e-4
    fresh = graphs.graph(REMEMBERING[name])
    again = searched(fresh, s.flow(), evaluations=4 * steps)[0]["samples"]
    assert torch.equal(again, latent["samples"])


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_strategy_that_decides_on_the_way_is_refused_with_it(name):
    g = graphs.graph(REMEMBERING[name])
    with pytest.raises(ValueError, match="choose best_of_n in Search Strategy"):
        searched(g, s.flow(), strategy=s.strategy("smc"))


def test_a_patch_that_mixes_rows_is_called_row_by_row():
    found = {}
    for rows in (1, 4):
        g = graphs.graph(pack.mixing)
        given = {"strategy": s.strategy("rbf", rows_per_call=rows), "evaluations": 40}
        latent, _, report = searched(g, s.flow(), **given)
        found[rows] = latent["samples"]
        assert any("has a call of its own" in note for note in report.notes)
    assert torch.equal(found[1], found[4])


def test_a_patch_without_memory_is_searched_as_ever():
    g = graphs.graph(pack.harmless)
    report = searched(g, s.flow(), strategy=s.strategy("rbf"))[2]
    assert any("remembers no earlier prediction" in note for note in report.notes)
    assert {row["phase"] for row in report.trace.record["evaluated"]} > {"plain"}


def test_what_is_tried_is_counted_and_off_the_limits():
    g = graphs.graph(pack.harmless)
    rows = s.count_rows(g.model)
    report = searched(g, s.flow(), strategy=s.strategy("rbf"), evaluations=40)[2]
    (note,) = [n for n in report.notes if "off the limits" in n]
    tried, network = (int(word) for word in re.findall(r"(\d+) (?:evaluations|network)", note))
    ledger = report.trace.record["stopped"][0]["ledger"]
    assert ledger["rows"] + network == sum(rows), "every row that reached the network is said"
    assert 0 < tried <= 13
    assert 40 - tried >= ledger["evaluations"] > 40 - 13 - 7


def test_limits_without_room_for_it_mean_whole_pictures():
    g, steps = graphs.graph(pack.harmless), len(graphs.SIGMAS) - 1
    rows = s.count_rows(g.model)
    report = searched(g, FlowSampler(ODE), evaluations=steps + 11)[2]
    assert any("was not tried" in n and "evaluations at least 19" in n for n in report.notes)
    assert sum(rows) == report.trace.record["stopped"][0]["ledger"]["rows"]
    assert {row["sigma"] for row in report.trace.record["evaluated"]} == {0.0}
    with pytest.raises(ValueError, match=r"at least 19.*smc needs to know: raise the limits"):
        searched(g, s.flow(), evaluations=steps, strategy=s.strategy("smc"))


def guide(args):
    return args["denoised"]


def test_a_pack_below_a_folder_called_torch_is_another_packs():
    file = "/home/a/torch/custom_nodes/ComfyUI-x/a.py"
    theirs = FunctionType(guide.__code__.replace(co_filename=file), {})
    (found,) = patches.foreign_code(hm.guider(hm.scene_model()), {"sampler_cfg": theirs})
    assert patches.name_of(found) == "guide of ComfyUI-x"


HOST = Path(str(comfy.__path__[0])).parent
OWNERS = {
    "a pack": ("/x/custom_nodes/a-pack/a.py", True),
    "the host's api": (str(HOST / "comfy_api/latest/a.py"), False),
    "the host's server": (str(HOST / "app/a.py"), False),
    "a pack of the host's": (str(HOST / "custom_nodes/b-pack/a.py"), True),
    "a library": ("/x/lib/python3.12/site-packages/sageattention/core.py", False),
    "a library in the host's folder": (str(HOST / "venv/site-packages/a/core.py"), False),
    "a module": ("/x/lib/python3.12/dist-packages/a.py", False),
}


@pytest.mark.parametrize("owner", OWNERS)
def test_whose_code_it_is(monkeypatch, owner):
    file, foreign = OWNERS[owner]
    known = folder_paths.folder_names_and_paths
    monkeypatch.setitem(known, "custom_nodes", ([str(HOST / "custom_nodes")], set()))
    function = FunctionType(guide.__code__.replace(co_filename=file), {})
    found = patches.foreign_code(hm.guider(hm.scene_model()), {"sampler_cfg": function})
    assert bool(found) == foreign


def test_a_library_that_can_remember_is_tried_and_named_as_what_it_is():
    function = FunctionType(
        guide.__code__.replace(co_filename="/x/site-packages/cache_of/a.py"), {}
    )
    function.calls = 3
    (found,) = patches.foreign_code(hm.guider(hm.scene_model()), {"sampler_cfg": function})
    assert patches.name_of(found) == "guide of cache_of"


def test_what_code_keeps_is_put_back_wherever_it_keeps_it():
    keeper = pack.Keeper()
    kept = patches.Memory([keeper])
    then = keeper.told()
    keeper(1)
    keeper(2)
    assert keeper.told() != then
    kept.restore()
    assert keeper.told() == then


def test_nothing_is_tried_where_only_the_hosts_own_code_takes_part():
    g = graphs.GRAPHS["cfg zero"]()
    rows = s.count_rows(g.model)
    report = searched(g, s.flow(), evaluations=20)[2]
    assert sum(rows) == report.trace.record["stopped"][0]["ledger"]["rows"]


# ---- regional samplers ----


def half_noised():
    """A latent with its noise in it, as a regional sampler has it, and the sigmas that are left."""
    guider = hm.guider(hm.scene_model(), 0.5)
    first, _ = hm.run(guider, s.sampler(), s.SIGMAS[:3], hm.empty_latent(), seed=3)
    return guider, first, s.SIGMAS[2:]


def test_a_search_that_cannot_run_says_so_on_its_node_whoever_swallows_the_error(monkeypatch):
    said = []
    monkeypatch.setattr(progress, "say", said.append)
    guider, latent, sigmas = half_noised()
    search = SearchSampler(FlowSampler(ODE), s.judge(), s.budget(40), s.strategy("best_of_n"))
    assert not sample_in_pieces(guider, search, sigmas, latent).any()
    ends = [text for text in said if "the initial noise is disabled" in text]
    assert len(ends) == 2
    assert said[-1] == ends[-1], "nothing is said after it"
    assert "Stochastic Flow Sampler" in ends[0]


@pytest.mark.parametrize("name", ["svdd", "evolutionary", "rbf"])
def test_a_region_is_searched_from_the_latent_as_given(name):
    guider, latent, sigmas = half_noised()
    search = SearchSampler(s.flow(), s.judge(), s.budget(40), s.strategy(name))
    found = sample_in_pieces(guider, search, sigmas, latent)
    assert found.isfinite().all()
    assert all(half.std() > 0.01 for half in found.split(found.shape[-2] // 2, dim=-2))


# ---- prompts as prompt packs write them ----


def test_the_syntax_of_a_prompt_is_taken_out_with_a_word(monkeypatch):
    said = []
    monkeypatch.setattr(remarks, "say", said.append)
    marked = ShapeCountReward.execute("(three red circles:1.3) and <lora:x:0.5> two blue squares")[
        0
    ]
    plain = ShapeCountReward.execute("three red circles and two blue squares")[0]
    images = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(marked.score(images), plain.score(images))
    (line,) = said
    assert "weights" in line or "a LoRA" in line
    assert "it scores: three red circles and two blue squares" in line


# ---- the rest ----


@pytest.mark.parametrize("name", ["evolutionary", "rbf"])
def test_a_patch_by_the_number_of_the_step_is_replayed_from_any_point(name):
    g = graphs.graph(pack.by_step)
    latent, _, report = searched(g, FlowSampler(ODE), evaluations=60, strategy=s.strategy(name))
    for point in report.paths[0].points:
        assert replayed(report, g.guider, latent["samples"], point.sigma) < 1e-4


@pytest.mark.parametrize("inner", [s.flow(), s.sampler()])
def test_another_text_encoders_conditioning_is_named(inner):
    wrong = hm.conditioning(torch.zeros(1, 3, 768))
    with pytest.raises(
        (ValueError, RuntimeError), match=r"768 numbers a token, and the model takes"
    ):
        s.search(hm.guider(hm.scene_model(), wrong), inner)


def test_the_demos_tokens_are_pairs_with_weights_as_prompt_packs_read_them():
    _, clip, _ = load_demo()
    text = "three red circles and two blue squares"
    for ids in (False, True):
        ((tokens,),) = clip.tokenize(text, return_word_ids=ids).values()
        assert [weight for _, weight, *_ in tokens] == [1.0, 1.0]
    plain = clip.encode_from_tokens(clip.tokenize(text))
    heavy = {"scene": [[(group, 2.0) for group, _ in clip.tokenize(text)["scene"][0]]]}
    assert torch.equal(clip.encode_from_tokens(heavy), 2.0 * plain)
