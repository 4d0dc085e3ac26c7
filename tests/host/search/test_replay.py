"""From any point of its path the winner comes out again: by euler where its steps were ODE."""

import host_models as hm
import pytest
import searching as s
import torch

from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.search.replay import PathSampler, Replay, path_of
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.transition import ODE, Transition

CLOSE = 1e-5


def masked(latent):
    mask = torch.zeros(1, 1, hm.SIZE, hm.SIZE)
    mask[..., 20:50, 10:40] = 1.0
    return {**latent, "noise_mask": mask}


def transition(method, k=0.5):
    return FlowSampler(Transition(noise_law("constant_k", k=k), method=method))


def replayed(report, guider, index=0, sigma=1.0, sampler=None):
    noise, sigmas, latent, own = Replay.execute(report, index, sigma).result
    from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

    out = SamplerCustomAdvanced.execute(
        noise=noise, guider=guider, sampler=sampler or own, sigmas=sigmas, latent_image=latent
    )
    return out[0]["samples"], sigmas


def all_points(report, index=0):
    return [point.sigma for point in path_of(report, index).points]


def assert_replays(report, guider, winners):
    """Every row of the output, from every point of its path."""
    size = float(winners.abs().max())
    for index, winner in enumerate(winners):
        path = path_of(report, index)
        for first, sigma in enumerate(all_points(report, index)):
            found, sigmas = replayed(report, guider, index, sigma)
            assert len(sigmas) == len(path.points) - first + 1
            assert float((found[0] - winner).abs().max()) < CLOSE * size
            if path.steps and all(step.transition == ODE for step in path.steps[first:]):
                found, _ = replayed(report, guider, index, sigma, s.sampler("euler"))
                assert float((found[0] - winner).abs().max()) < CLOSE * size


STRATEGIES = ["evolutionary", "rbf", "best_of_n"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_reward_search_by_ode_finishing_is_replayed_by_euler(name):
    model = hm.scene_model()
    latent, _, report = s.reward_search(
        model, strategy=s.strategy(name), evaluations=70, top_k=3, cfg=3.0, negative=-0.4
    )
    guider = hm.guider(model, 0.5, -0.4, cfg=3.0)
    assert_replays(report, guider, latent["samples"])
    path = path_of(report, 0)
    assert path.steps
    found, _ = replayed(report, guider, sigma=path.points[-1].sigma, sampler=s.sampler("euler"))
    assert torch.allclose(found, latent["samples"][:1], atol=CLOSE)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("method", ["exact", "second_order", "heun", "glass"])
def test_stochastic_steps_are_replayed_by_their_keys(name, method):
    model = hm.scene_model()
    guider = hm.guider(model, 0.5)
    latent, _, report = s.search(
        guider, transition(method), strategy=s.strategy(name), evaluations=90, top_k=2
    )
    assert_replays(report, guider, latent["samples"])


def test_euler_does_not_replay_stochastic_steps():
    """Else the test above would hold for a sampler that ignores the keys."""
    guider = hm.guider(hm.scene_model(), 0.5)
    latent, _, report = s.search(guider, s.flow(), strategy=s.strategy("best_of_n"))
    found, _ = replayed(report, guider, sampler=s.sampler("euler"))
    assert float((found - latent["samples"]).abs().max()) > 1e-2


@pytest.mark.parametrize("inner", ["euler", "euler_ancestral", "dpmpp_2m", "uni_pc"])
def test_a_stock_samplers_run_is_repeated(inner):
    guider = hm.guider(hm.scene_model(), 0.5)
    latent, _, report = s.search(guider, s.sampler(inner), evaluations=60, top_k=3)
    for index in range(3):
        found, _ = replayed(report, guider, index)
        assert torch.allclose(found[0], latent["samples"][index], atol=CLOSE)


@pytest.mark.parametrize(
    ("name", "denoise"), [("evolutionary", 1.0), ("rbf", 1.0), (None, 0.6), ("best_of_n", 0.6)]
)
def test_masks_and_partial_denoise(name, denoise):
    model = hm.scene_model()
    start = masked(hm.picture_latent())
    choice = name and s.strategy(name)
    latent, _, report = s.reward_search(
        model, start, strategy=choice, evaluations=70, denoise=denoise
    )
    assert_replays(report, hm.guider(model, 0.5), latent["samples"])


def test_each_row_of_a_batch_is_replayed():
    guider = hm.guider(hm.scene_model(), 0.5)
    start = {**hm.empty_latent(2), "batch_index": [3, 7]}
    latent, _, report = s.search(guider, s.flow(), start, strategy=s.strategy("rbf"), top_k=2)
    assert latent["samples"].shape[0] == len(report.paths)
    assert_replays(report, guider, latent["samples"])


MODELS = {
    "noise_scale": lambda: hm.gaussian_model(noise_scale=0.7),
    "FLUX": lambda: hm.gaussian_model("FLUX"),
    "EPS": lambda: hm.path_model("EPS"),
    "EDM": lambda: hm.path_model("EDM", sigma_max=80.0, sigma_min=0.002),
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_models_coordinates(model, name):
    model = model()
    latent, _, report = s.reward_search(model, strategy=s.strategy(name), evaluations=60)
    assert_replays(report, hm.guider(model, 0.5), latent["samples"])


def test_the_latent_is_the_prediction_and_another_size_is_noised_afresh():
    model = hm.scene_model()
    _, _, report = s.reward_search(model, strategy=s.strategy("rbf"))
    noise, sigmas, latent, sampler = Replay.execute(report, 0, 0.5).result
    point = path_of(report, 0).points[path_of(report, 0).place(0.5)]
    assert point.sigma <= 0.5 + 1e-6
    assert float(sigmas[0]) == pytest.approx(point.own_sigma)
    assert torch.equal(latent["samples"], point.latent)
    large = {"samples": torch.nn.functional.interpolate(latent["samples"], scale_factor=2.0)}
    drawn = noise.generate_noise(large)
    assert drawn.shape == large["samples"].shape
    assert float(drawn.std()) == pytest.approx(1.0, abs=0.05)
    assert isinstance(sampler, PathSampler)


def test_a_longer_schedule_goes_on_by_ode_steps():
    model = hm.scene_model()
    guider = hm.guider(model, 0.5)
    _, _, report = s.reward_search(model, strategy=s.strategy("rbf"))
    noise, sigmas, latent, sampler = Replay.execute(report, 0, 1.0).result
    between = [float(x) for x in sigmas[:-1]]
    longer = torch.tensor([*between, between[-1] / 2, between[-1] / 4, 0.0])
    found = hm.SamplerCustomAdvanced.execute(
        noise=noise, guider=guider, sampler=sampler, sigmas=longer, latent_image=latent
    )[0]["samples"]
    assert bool(torch.isfinite(found).all())


def test_what_is_not_there_is_refused():
    _, _, report = s.reward_search(hm.scene_model())
    with pytest.raises(ValueError, match="index is 1, but the search put out 1"):
        Replay.execute(report, 1, 1.0)
    report.paths[0] = None
    with pytest.raises(ValueError, match="not known"):
        Replay.execute(report, 0, 1.0)
