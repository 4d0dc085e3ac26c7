"""A search beside everything else in the graph: its plain sample is the host's own picture, rows
of a call leave each other alone, and what depends on the step is that of the candidate's sigma."""

import graphs
import host_models as hm
import pytest
import searching as s
import torch
from comfy_extras.nodes_custom_sampler import DisableNoise, RandomNoise
from graphs import GRAPHS, Graph

from flowsearch.nodes.host.model import history
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.search.reward_search import Search
from flowsearch.samplers.stepping.transition import ODE

REMEMBERING = ("easycache", "lazycache", "apg with momentum")


def searched(g: Graph, inner, **given):
    """The Search node on a row of the table; returns (LATENT, IMAGE, FLOW_REPORT)."""
    seed = g.seed
    noise = DisableNoise.execute() if seed is None else RandomNoise.execute(noise_seed=seed)
    settings = {"evaluations": 30, "target": s.NEVER, "vae": s.pixel_vae()}
    return Search.execute(
        noise=noise[0], guider=g.guider, sampler=inner, sigmas=g.sigmas, latent_image=g.latent,
        **{**settings, "reward": s.Brightness(), **given},
    ).result[:3]  # fmt: skip


def euler(g: Graph):
    return hm.run(g.guider, s.sampler(), g.sigmas, g.latent, g.seed)[0]


@pytest.mark.parametrize("name", GRAPHS)
def test_the_plain_sample_is_the_hosts_own_picture(name):
    host, g = euler(GRAPHS[name]()), GRAPHS[name]()
    inner = s.sampler() if name in REMEMBERING else FlowSampler(ODE)
    best = s.strategy("best_of_n")
    found, _, report = searched(g, inner, evaluations=len(g.sigmas) - 1, strategy=best)
    assert torch.equal(found["samples"], host)
    assert report.plain(0) is not None


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_remembers_is_refused_where_it_would_be_another_pictures(name):
    g = GRAPHS[name]()
    with pytest.raises(ValueError, match="makes predictions of the ones before"):
        searched(g, FlowSampler(ODE))


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_remembers_begins_afresh_with_each_whole_run(name):
    """The second picture is what the host makes of its noise, not of the first one's cache."""
    g = GRAPHS[name]()
    found, _, report = searched(
        g, s.sampler(), evaluations=18, strategy=s.strategy("best_of_n"), top_k=3
    )
    assert found["samples"].shape[0] == 3
    for path, picture in zip(report.paths, found["samples"], strict=True):
        fresh = GRAPHS[name]()
        point = path.points[0]
        again = fresh.guider.sample(
            point.noise, point.latent, s.sampler(), g.sigmas, seed=path.seed, disable_pbar=True
        )
        assert torch.equal(again[0], picture)


MIXING = ("perpendicular negative", "perpendicular negative, old node", "mahiro")
WINDOWS = tuple(name for name in GRAPHS if name.startswith("context windows"))


@pytest.mark.parametrize("name", [*MIXING, *WINDOWS])
def test_where_rows_of_a_call_mix_each_candidate_has_a_call_of_its_own(name):
    g = GRAPHS[name]()
    rows = s.count_rows(g.model)
    given = {"evaluations": 14, "strategy": s.strategy("rbf", rows_per_call=4)}
    _, _, report = searched(g, s.flow(), **given)
    conds = 3 if "perp" in name else 2
    assert max(rows) <= conds
    assert any("a call of its own" in note for note in report.notes)


def test_a_batch_that_is_one_clip_is_refused():
    g = graphs.graph(graphs.windows(dim=0, context_length=2, context_overlap=1))
    g.latent = hm.empty_latent(4)
    with pytest.raises(ValueError, match="frames of one clip"):
        searched(g, FlowSampler(ODE))


CHUNKED = (
    "controlnet", "t2i-adapter", "gligen", "hook lora, keyframes", "differential diffusion", "area",
    "dual cfg",
)  # fmt: skip


@pytest.mark.parametrize("name", CHUNKED)
def test_chunks_agree(name):
    found = [
        searched(GRAPHS[name](), s.flow(), strategy=s.strategy("rbf", rows_per_call=n))[0]
        for n in (1, 4)
    ]
    assert (found[0]["samples"] - found[1]["samples"]).abs().max() < 1e-4


# ---- what depends on the step ----


def strategies():
    return [s.strategy("evolutionary"), s.strategy("rbf"), s.strategy("search_over_paths")]


def misplaced(name: str) -> int:
    """How many calls of the model had the LoRA where its schedule has none, or the other way."""
    wrong = 0
    for strategy in strategies():
        g = GRAPHS[name]()
        network = g.model.model.diffusion_model
        bare = network.weight()
        searched(g, s.flow(), evaluations=45, strategy=strategy)
        times = {t for t, _ in network.seen}
        with_it = {t for t, weight in network.seen if abs(weight - bare) > 1e-3}
        limit = float(g.model.get_model_object("model_sampling").percent_to_sigma(0.4))
        assert min(times) < limit < max(times)
        wrong += len(with_it ^ {t for t in times if t > limit})
    return wrong


def test_a_loras_schedule_is_that_of_the_sigma_wherever_a_search_goes():
    assert misplaced("hook lora, keyframes") == 0


def test_by_itself_the_host_only_ever_advances_it(monkeypatch):
    """The mutant. If this does not fail, the test above is blind."""
    monkeypatch.setattr(history.Keyframes, "place", lambda *_: None)
    assert misplaced("hook lora, keyframes") > 0


def test_a_controlnets_range_is_that_of_the_sigma_wherever_a_search_goes():
    for strategy in strategies():
        g = GRAPHS["controlnet"]()
        searched(g, s.flow(), evaluations=45, strategy=strategy)
        times = [t for t, _ in g.model.model.diffusion_model.seen]
        inside = {t for t in times if 0.2 <= t <= 0.8}
        assert set(g.control.times) == inside
        assert inside < set(times)


@pytest.mark.parametrize("sigma", [0.99, 0.9301, 0.5, 0.41, 0.1, 0.01])
def test_the_list_of_sigmas_holds_the_one_that_a_search_is_at(sigma):
    sigmas = graphs.SIGMAS.clone()
    ours = history.sigmas_with(sigmas, sigma)
    assert torch.equal(sigmas, graphs.SIGMAS), "the run's own is left alone"
    changed = (ours != sigmas).nonzero().flatten().tolist()
    assert len(changed) == 1
    assert ours[changed[0]] == torch.tensor(sigma)
    others = [abs(float(each) - sigma) for each in sigmas[1:]]
    assert changed[0] == 1 + others.index(min(others)), "another than the nearest but the first"
    assert (ours.diff() < 0).all() or sigma < 0.1, "they still fall"


def test_the_list_of_sigmas_that_holds_it_is_the_runs():
    for sigma in graphs.SIGMAS:
        assert history.sigmas_with(graphs.SIGMAS, float(sigma)) is graphs.SIGMAS
    one = graphs.SIGMAS[:1]
    assert history.sigmas_with(one, 0.3) is one
