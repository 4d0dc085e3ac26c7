"""The stochastic sampler in the real host: its Euler to the bit, rows that forget their batch."""

import itertools

import comfy.model_management
import comfy.nested_tensor
import comfy.patcher_extension
import comfy.samplers
import host_models as hm
import pytest
import torch

from flowsearch.nodes.host.model.field import batch_keys, batch_normal
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.sampling.sampler import StochasticSampler
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.stepping.transition import ODE

SIGMAS = [1.0, 0.93, 0.81, 0.62, 0.4, 0.17, 0.0]
EULER = comfy.samplers.sampler_object("euler")


def sampler(law="ode", **parameters):
    return StochasticSampler.execute(transition="exact", noise_law=noise_law(law, **parameters))[0]


def both(model, sigmas, latent, seed=3, **guidance):
    """Our ODE and the host's Euler: (output, denoised_output) of each."""
    ours = hm.run(hm.guider(model, **guidance), FlowSampler(ODE), sigmas, latent, seed)
    host = hm.run(hm.guider(model, **guidance), EULER, sigmas, latent, seed)
    return ours, host


def masked(latent):
    mask = torch.zeros(1, 1, hm.SIZE, hm.SIZE)
    mask[..., 20:50, 10:40] = 1.0
    mask[..., :10, :] = 0.5
    return {**latent, "noise_mask": mask}


CASES = {
    "plain": {},
    "guidance and negative": {"positive": 1.0, "negative": -0.5, "cfg": 4.0},
    "batch": {"latent": hm.empty_latent(3), "positive": 1.0, "negative": 0.3, "cfg": 2.0},
    "mask": {"latent": masked(hm.picture_latent(2))},
    "partial denoise": {"latent": hm.picture_latent(), "sigmas": SIGMAS[3:]},
    "hand-over": {"latent": hm.picture_latent(), "sigmas": SIGMAS[:4]},
    "mask, partial, guided": {
        "latent": masked(hm.picture_latent()),
        "sigmas": SIGMAS[2:],
        "positive": 1.0,
        "negative": 0.0,
        "cfg": 3.0,
    },
    "unsampling": {"latent": hm.picture_latent(), "sigmas": [1e-4, 0.2, 0.5, 0.99], "seed": None},
    "one step": {"sigmas": [1.0, 0.0]},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_ode_is_the_hosts_euler_to_the_bit(case):
    options = {"latent": hm.empty_latent(), "sigmas": SIGMAS, **case}
    latent, sigmas = options.pop("latent"), options.pop("sigmas")
    ours, host = both(hm.scene_model(), sigmas, latent, **options)
    assert torch.isfinite(host[0]).all()
    assert (ours[0] - host[0]).abs().max() == 0.0
    assert (ours[1] - host[1]).abs().max() == 0.0


@pytest.mark.parametrize("kind", ["FLOW", "FLUX"])
@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
def test_ode_is_the_hosts_euler_on_every_stock_schedule(kind, scheduler):
    model = hm.gaussian_model(kind, shift=1.3)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, 7)
    ours, host = both(model, sigmas, hm.empty_latent(2, size=8))
    assert (ours[0] - host[0]).abs().max() == 0.0


def test_noise_scale_reaches_the_initial_and_the_step_noise():
    # q = 0 throws the initial noise away, so the state at .5 is .5 D + .5 s z
    model = hm.gaussian_model(noise_scale=8.0)
    out, denoised = hm.run(
        hm.guider(model), sampler("fixed_q", q=0.0), [0.9, 0.5], hm.picture_latent(), seed=1
    )
    fresh = (out * 0.5 - 0.5 * denoised) / 0.5
    assert float(fresh.std()) == pytest.approx(8.0, rel=0.03)
    ours, host = both(model, SIGMAS, hm.empty_latent())
    assert torch.equal(ours[0], host[0])


def test_batch_item_is_the_item_alone():
    model = hm.scene_model()
    whole, _ = hm.run(
        hm.guider(model, 1.0, 0.0, 2.0), sampler("constant_k"), SIGMAS, hm.empty_latent(3), 11
    )
    for index in (0, 2):
        alone = {**hm.empty_latent(), "batch_index": [index]}
        single, _ = hm.run(
            hm.guider(model, 1.0, 0.0, 2.0), sampler("constant_k"), SIGMAS, alone, 11
        )
        assert (whole[index] - single[0]).abs().max() <= 1e-5
    assert (whole[0] - whole[2]).abs().max() > 0.1


def test_step_noise_of_a_batch_item_is_bit_identical_alone():
    # prediction 0 for every state makes the result nothing but noise, in which rows cannot mix
    class Zero(torch.nn.Module):
        dtype = torch.float32

        def forward(self, x, timestep, context=None, **_):
            return x / (timestep / 1000.0).view(-1, 1, 1, 1)

    model, law = hm.wrap(Zero()), sampler("fixed_q", q=0.3)
    whole, _ = hm.run(hm.guider(model), law, SIGMAS[:-1], hm.empty_latent(3), 11)
    alone = {**hm.empty_latent(), "batch_index": [2]}
    single, _ = hm.run(hm.guider(model), law, SIGMAS[:-1], alone, 11)
    assert torch.equal(whole[2], single[0])


def test_keys_follow_the_row_and_separate_what_differs():
    noise = torch.randn(3, 1, 4, 4)
    latent = torch.rand(3, 1, 4, 4)
    keys = batch_keys(noise, latent, 7)
    assert batch_keys(noise[2:], latent[2:], 7) == keys[2:]
    assert len(set(keys)) == 3
    silent = torch.zeros_like(noise)
    assert batch_keys(silent, latent, 7) != batch_keys(silent, latent, 8)
    copies = batch_keys(silent, latent[:1].repeat(3, 1, 1, 1), 7)
    assert len(set(copies)) == 3
    first, second = (batch_normal(keys, noise, step, 1) for step in (0, 1))
    assert (first - second).abs().max() > 0.1


def test_step_noise_is_not_the_initial_noise():
    latent = hm.empty_latent()["samples"]
    initial = torch.randn(latent.shape, generator=torch.manual_seed(0))
    z = batch_normal(batch_keys(initial, latent, 0), latent, 0, 1)
    together = torch.corrcoef(torch.stack([initial.flatten(), z.flatten()]))
    assert abs(float(together[0, 1])) < 5 / initial.numel() ** 0.5


def test_disabled_noise_still_draws_step_noise_per_row():
    latent = {"samples": hm.picture_latent()["samples"].repeat(2, 1, 1, 1)}
    out, _ = hm.run(
        hm.guider(hm.gaussian_model()), sampler("constant_k", k=1.0), [0.6, 0.3, 0.0], latent, None
    )
    assert (out[0] - out[1]).abs().max() > 0.1


def test_too_few_sigmas_leave_the_latent_alone():
    latent = hm.picture_latent()
    for sigmas in ([], [1.0], [0.0]):
        out, _ = hm.run(hm.guider(hm.gaussian_model()), sampler("constant_k"), sigmas, latent)
        assert torch.equal(out, latent["samples"])


def test_ending_at_pure_noise_is_refused_because_the_hand_over_is_infinite():
    with pytest.raises(ValueError, match=r"end at 0\.9999 or below"):
        hm.run(
            hm.guider(hm.gaussian_model()), FlowSampler(ODE), [0.1, 0.5, 1.0], hm.picture_latent()
        )


def test_stages_hand_over_as_one_run():
    model, latent = hm.scene_model(), hm.empty_latent()
    whole, _ = hm.run(hm.guider(model), FlowSampler(ODE), SIGMAS, latent)
    first, _ = hm.run(hm.guider(model), FlowSampler(ODE), SIGMAS[:4], latent)
    second, _ = hm.run(hm.guider(model), FlowSampler(ODE), SIGMAS[3:], {"samples": first}, None)
    assert (whole - second).abs().max() < 1e-5


def test_callback_contract_of_the_host():
    told = []
    guider = hm.guider(hm.gaussian_model())
    noise, latent = torch.randn(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    guider.sample(
        noise,
        latent,
        sampler("constant_k"),
        torch.tensor(SIGMAS),
        callback=lambda step, x0, x, total: told.append((step, x0, x, total)),
        disable_pbar=True,
        seed=1,
    )
    assert [t[0] for t in told] == list(range(6))
    assert {t[3] for t in told} == {6}
    assert torch.equal(told[0][2], noise)
    assert told[-1][1].std() < told[0][2].std()


def test_cancel_stops_before_the_next_call():
    model = hm.gaussian_model()
    network = model.model.diffusion_model

    def cancel(step, *_):
        if step == 1:
            comfy.model_management.interrupt_current_processing(True)

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        hm.guider(model).sample(
            torch.randn(1, 3, 8, 8),
            torch.zeros(1, 3, 8, 8),
            sampler("constant_k"),
            torch.tensor(SIGMAS),
            callback=cancel,
            disable_pbar=True,
            seed=1,
        )
    assert network.calls == 2


def test_inputs_stay_as_they_were():
    latent = masked(hm.picture_latent())
    before = {key: value.clone() for key, value in latent.items()}
    hm.run(hm.guider(hm.gaussian_model()), sampler("constant_k"), SIGMAS, latent)
    assert all(torch.equal(before[key], latent[key]) for key in latent)


def test_each_run_has_model_options_of_its_own():
    """Patches that append to the options they are given must not pile up over inner runs."""
    lengths = []

    def append(args):
        found = args["model_options"].setdefault("sampler_post_cfg_function", [])
        found.append(lambda post: post["denoised"])
        lengths.append(len(found))
        return args["conds_out"]

    def twice(executor, *args, **kwargs):
        executor(*args, **kwargs)
        return executor(*args, **kwargs)

    model = hm.gaussian_model()
    model.set_model_sampler_pre_cfg_function(append)
    model.add_wrapper(comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE, twice)
    hm.run(hm.guider(model), sampler("constant_k"), SIGMAS, hm.empty_latent(size=8))
    assert lengths == [1, 2, 3, 4, 5, 6] * 2


def test_one_sigma_reaches_the_network_in_each_call():
    model = hm.gaussian_model()
    hm.run(hm.guider(model), sampler("constant_k"), SIGMAS, hm.empty_latent(2, size=8))
    assert model.model.diffusion_model.times == pytest.approx(SIGMAS[:-1])


def test_packed_audio_and_video_are_sampled_as_one_row():
    parts = [torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 4, 4)]
    latent = {"samples": comfy.nested_tensor.NestedTensor(parts)}

    class Pair(hm.GaussianNet):
        def forward(self, x, timestep, context=None, **kwargs):
            return [super(Pair, self).forward(part, timestep) for part in x]

    model = hm.wrap(Pair(), base=hm.PackedModel)
    out, _ = hm.run(hm.guider(model), sampler("constant_k"), SIGMAS, latent)
    assert [tuple(part.shape) for part in out.unbind()] == [(1, 3, 8, 8), (1, 3, 4, 4)]
    ours, host = both(model, SIGMAS, latent)
    for mine, theirs in zip(ours[0].unbind(), host[0].unbind(), strict=True):
        assert torch.equal(mine, theirs)


def propagated_std(law, sigmas, fresh):
    """Exact spread of the result for Gaussian data: every step is affine in the state."""
    variance = sigmas[0] ** 2 + (1 - sigmas[0]) ** 2 * hm.STD**2
    for s, s_next in itertools.pairwise(sigmas):
        slope = (1 - s) * hm.STD**2 / (s**2 + (1 - s) ** 2 * hm.STD**2)  # of D in x
        q = law.q(s, s_next)
        of_x = (1 - s_next) * slope + s_next * q * (1 - (1 - s) * slope) / s
        variance = of_x**2 * variance + (s_next * fresh(q)) ** 2
    return variance**0.5


@pytest.mark.parametrize("name", ["ode", "constant_k", "sit_sigma", "flow_grpo", "fixed_q"])
def test_spread_is_that_of_exact_propagation(name):
    law, sigmas = noise_law(name), torch.linspace(1, 0, 16).tolist()
    latent = hm.empty_latent(8)
    out, _ = hm.run(hm.guider(hm.gaussian_model()), sampler(name), sigmas, latent)
    bound = 5 / (2 * out.numel()) ** 0.5
    right = propagated_std(law, sigmas, lambda q: (1 - q * q) ** 0.5)
    assert float(out.std()) == pytest.approx(right, rel=bound)
    assert float(out.mean()) == pytest.approx(hm.MEAN, abs=5 * right / out.numel() ** 0.5)
    if name != "ode":  # the mutant that forgets the square root is found out
        wrong = propagated_std(law, sigmas, lambda q: 1 - q)
        assert abs(float(out.std()) / wrong - 1) > bound


def test_euler_maruyama_needs_a_start_below_one():
    vp = StochasticSampler.execute(transition="euler_maruyama", interpolant="vp")[0]
    with pytest.raises(ValueError, match="start below 1"):
        hm.run(hm.guider(hm.gaussian_model()), vp, SIGMAS, hm.empty_latent(size=8))
