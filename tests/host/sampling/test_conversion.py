"""Interpolant conversion: stock schedulers and samplers on a converted flow model."""

import itertools

import comfy.model_sampling
import comfy.samplers
import comfy.utils
import host_models as hm
import pytest
import torch

from flowsearch.nodes.host.model.converted_sampling import SCHEDULES, ConvertedSampling
from flowsearch.nodes.sampling.conversion import InterpolantConversion, convert
from flowsearch.samplers.paths.interpolant import TRIGONOMETRIC, VP, r_from_sigma

EULER = comfy.samplers.sampler_object("euler")
T = torch.tensor([0.99, 0.9, 0.75, 0.5, 0.25, 0.1, 0.0])


def sampling_of(model):
    return model.get_model_object("model_sampling")


def stock(model, scheduler, steps=10):
    return comfy.samplers.calculate_sigmas(sampling_of(model), scheduler, steps)


def euler(model, t, latent, **guidance):
    """Euler on a list of linear times, in the model's own coordinates."""
    sampling = sampling_of(model)
    sigmas = sampling.s_from_t(t.double()).float() if isinstance(sampling, ConvertedSampling) else t
    return hm.run(hm.guider(model, **guidance), EULER, sigmas, latent, 4)[0]


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["FLOW", "FLUX"])
@pytest.mark.parametrize("target", SCHEDULES)
@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_every_stock_schedule_is_finite_and_falls_to_zero(scheduler, target, kind, shift):
    for steps in (2, 20):
        sigmas = stock(convert(hm.gaussian_model(kind, shift=shift), target), scheduler, steps)
        assert torch.isfinite(sigmas).all()
        assert (sigmas.diff() < 0).all()
        assert float(sigmas[-1]) == 0.0
        assert float(sigmas[0]) < 1.01e4


@pytest.mark.parametrize("target", SCHEDULES)
def test_euler_on_a_converted_model_is_euler_on_the_flow_model(target):
    mask = torch.zeros(1, 1, hm.SIZE, hm.SIZE)
    mask[..., 20:50, 10:40] = 1.0
    model = hm.scene_model()
    guided = {"positive": 1.0, "negative": -0.5, "cfg": 3.0}
    cases = [
        (T, hm.empty_latent(2), guided),
        (T[2:], hm.picture_latent(), {}),
        (T, {**hm.picture_latent(2), "noise_mask": mask}, {}),
    ]
    for t, latent, options in cases:
        native = euler(model, t, latent, **options)
        assert native.std() > 0.1
        assert (euler(convert(model, target), t, latent, **options) - native).abs().max() < 1e-4


def test_euler_from_pure_noise_differs_by_the_cut_at_9999():
    model = hm.scene_model()
    converted = convert(model, "ve")
    for scheduler in ("simple", "sgm_uniform", "normal", "beta"):
        a, b = stock(model, scheduler, 20), stock(converted, scheduler, 20)
        assert (sampling_of(converted).t_from_s(b) - a).abs().max() < 1.1e-4
        native = hm.run(hm.guider(model), EULER, a, hm.empty_latent())[0]
        ours = hm.run(hm.guider(converted), EULER, b, hm.empty_latent())[0]
        assert (native - ours).abs().max() < 5e-4


@pytest.mark.parametrize(("target", "path"), [("vp", VP), ("trigonometric", TRIGONOMETRIC)])
@pytest.mark.parametrize("scheduler", ["simple", "normal", "sgm_uniform"])
def test_uniform_schedules_are_uniform_in_the_targets_time(target, path, scheduler):
    model = convert(hm.gaussian_model(), target)
    t = sampling_of(model).t_from_s(stock(model, scheduler, 20).double())[:-1]
    steps = r_from_sigma(path, t).diff()
    assert torch.allclose(steps, steps.mean(), rtol=2e-3)


def test_shift_multiplies_the_noise_to_signal_ratio():
    plain = stock(convert(hm.gaussian_model(), "vp"), "simple")
    shifted = stock(convert(hm.gaussian_model(shift=3.0), "vp"), "simple")
    assert torch.allclose(shifted, 3.0 * plain, rtol=1e-3)
    flux = stock(convert(hm.gaussian_model("FLUX", shift=1.15), "vp"), "ddim_uniform")
    assert torch.isfinite(flux).all()


def test_network_is_called_at_the_models_own_timestep():
    for kind, settings in (("FLOW", {}), ("FLOW", {"multiplier": 1.0}), ("FLUX", {"shift": 1.15})):
        model = hm.gaussian_model(kind, **settings)
        euler(convert(model, "vp"), T, hm.empty_latent(size=8))
        assert model.model.diffusion_model.times == pytest.approx(T[:-1].tolist(), abs=1e-6)


@pytest.mark.parametrize("target", SCHEDULES)
def test_percentages_are_in_sampler_coordinates(target):
    sampling = sampling_of(convert(hm.gaussian_model(), target))
    values = [sampling.percent_to_sigma(p / 10) for p in range(11)]
    assert values[0] >= float(sampling.sigma_max)
    assert values[-1] == 0.0
    assert all(a > b for a, b in itertools.pairwise(values))


def test_prompt_ranges_apply_where_they_do_without_conversion():
    model = hm.gaussian_model()
    early = hm.conditioning(1.0, start_percent=0.0, end_percent=0.4)
    late = hm.conditioning(-1.0, start_percent=0.4, end_percent=1.0)
    native = euler(model, T, hm.empty_latent(size=8), positive=early + late)
    ours = euler(convert(model, "ve"), T, hm.empty_latent(size=8), positive=early + late)
    assert (native - ours).abs().max() < 1e-4
    assert (native - euler(model, T, hm.empty_latent(size=8), positive=1.0)).abs().max() > 0.1


def test_noise_scale_is_kept():
    model = hm.gaussian_model(noise_scale=8.0)
    native = euler(model, T, hm.empty_latent())
    assert (euler(convert(model, "vp"), T, hm.empty_latent()) - native).abs().max() < 1e-4
    scaled = sampling_of(convert(model, "ve"))
    noised = scaled.noise_scaling(
        torch.tensor(4.0), torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    )
    assert noised.unique().tolist() == [4.0]
    assert float(scaled.t_from_s(torch.tensor(4.0))) == pytest.approx(1 / 3)


def test_model_that_keeps_unmasked_places_clean_is_converted_too():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1.0
    latent = {**hm.picture_latent(size=16), "noise_mask": mask}

    class Neighbours(hm.GaussianNet):  # what lies in the kept places matters for the others
        def forward(self, x, timestep, context=None, **kwargs):
            return super().forward(x + 0.3 * x.roll(1, 3), timestep, context)

    model = hm.wrap(Neighbours(), base=hm.CleanInpaint)
    native = euler(model, T, latent)
    assert (euler(convert(model, "ve"), T, latent) - native).abs().max() < 1e-4
    again = convert(convert(model, "ve"), "vp")
    assert (euler(again, T, latent) - native).abs().max() < 1e-4
    unpatched = convert(model, "ve")
    unpatched.object_patches.pop("scale_latent_inpaint")
    assert (euler(unpatched, T, latent) - native).abs().max() > 1e-2


def test_buffers_that_the_host_restores_by_path_do_not_leak():
    model = hm.gaussian_model()
    sampling = sampling_of(convert(model, "vp"))
    assert [name for name, _ in sampling.named_buffers()] == []
    assert [name for name, _ in sampling.named_modules()] == [""]
    before = sampling.sigmas.clone()
    model.model.model_sampling = sampling
    comfy.utils.set_attr_buffer(model.model, "model_sampling.sigmas", torch.ones(3))
    assert torch.equal(sampling.sigmas, before)

    class Mutant(ConvertedSampling):
        register_buffer = torch.nn.Module.register_buffer

    model.model.model_sampling = Mutant(sampling.base, "vp")
    with pytest.raises(KeyError):
        comfy.utils.set_attr_buffer(model.model, "model_sampling.sigmas", torch.ones(3))


def test_converted_coordinates_take_neither_flow_nor_eps_branches():
    sampling = sampling_of(convert(hm.gaussian_model(), "vp"))
    assert not isinstance(sampling, (comfy.model_sampling.CONST, comfy.model_sampling.EPS))


def test_the_model_itself_is_not_touched():
    model = hm.scene_model()
    before = euler(model, T, hm.empty_latent())
    converted = InterpolantConversion.execute(model, "vp")[0]
    euler(converted, T, hm.empty_latent())
    assert torch.equal(euler(model, T, hm.empty_latent()), before)
    assert isinstance(sampling_of(model), comfy.model_sampling.CONST)


def test_only_flow_models_and_known_targets_are_converted():
    with pytest.raises(ValueError, match="not as a flow model"):
        convert(hm.wrap(hm.GaussianNet(), "EPS"), "vp")
    with pytest.raises(ValueError, match="choose one of: vp, ve, trigonometric"):
        convert(hm.gaussian_model(), "linear")


@pytest.mark.filterwarnings(
    "ignore:Should have t:UserWarning", "ignore:To copy:UserWarning"
)  # host
@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
def test_every_stock_sampler_finishes_near_the_data(name):
    model = convert(hm.gaussian_model(), "vp")
    sampler = comfy.samplers.sampler_object(name)
    latent, guider = hm.empty_latent(size=32), hm.guider(model, 0.0, 0.0, 1.0)
    out, _ = hm.run(guider, sampler, stock(model, "simple", 20), latent)
    assert float(out.mean()) == pytest.approx(hm.MEAN, abs=0.05)
    # lcm renoises wholly; dpm_adaptive has a loose tolerance and ends above 0; 20 steps of
    # strong noise narrow the spread of the ancestral ones
    loss = 0.4 if name in ("lcm", "dpm_adaptive") else 0.25
    assert float(out.std()) == pytest.approx(hm.STD, rel=loss)
