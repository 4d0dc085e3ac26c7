"""A reward's gradient through the host: decoders, networks, masks; guided runs and searches."""

import threading

import comfy.latent_formats
import comfy.model_management
import comfy.sd
import comfy.taesd.taesd
import comfy.utils
import families as f
import graphs
import host_models as hm
import pytest
import searching as s
import torch
import video_models as vm
from foreign_pack import remembering
from foreign_pack.quantised import Operations, load_quantised
from memory_modes import castable
from real_weights import real
from torch import nn

from flowsearch.nodes.host.model import flow_sampler
from flowsearch.nodes.host.model.differentiation import differentiated, twin
from flowsearch.nodes.host.model.field import FunctionSampler
from flowsearch.nodes.host.model.flow_sampler import FlowSampler
from flowsearch.nodes.host.search import gradients as g
from flowsearch.nodes.host.search import search_sampler
from flowsearch.nodes.host.search.gradients import RewardGuidance
from flowsearch.nodes.host.search.resume import FileCheckpoint
from flowsearch.nodes.host.search.views import Decoders
from flowsearch.nodes.sampling.demo_model import load_demo
from flowsearch.nodes.sampling.guidance import GradientGuidance
from flowsearch.nodes.sampling.sampler import StochasticSampler
from flowsearch.nodes.search.rbf_search import RBFSearch
from flowsearch.nodes.search.replay import Replay
from flowsearch.nodes.search.report import csv_of
from flowsearch.rewards.base import RewardSpec
from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search.protocol import DecodeError, RewardError
from flowsearch.samplers.stepping.guidance import Guidance
from flowsearch.samplers.stepping.transition import ODE, Transition

SIGMAS = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
TEN = torch.linspace(1.0, 0.0, 11)
LAW = noise_law("constant_k", k=1.0)
SHIFT = Guidance("mean_shift", 0.3)
HIGH = torch.tensor([1.0, 0.94, 0.83, 0.62, 0.0])  # 4 steps, shift 5
DRAWS_NONE = ((0.0, 0.0), (1.0, 0.0))


class Warm:
    """How far pictures are from a colour that grows to the right; negative, squared."""

    spec = RewardSpec("warm", "nearness to a slope of red", -3.0, 0.0, has_gradient=True)

    def __init__(self, function=lambda call: None):
        self.calls, self.function = 0, function

    def score(self, images):
        self.calls += 1
        self.function(self.calls)
        slope = torch.linspace(0.2, 0.8, images.shape[-2]).to(images)
        return -(images[..., 0] - slope).square().flatten(1).mean(1)


def pixels():
    return Decoders(s.pixel_vae())


def guidance(how=SHIFT, reward=None, decoders=None):
    return RewardGuidance(how, reward or Warm(), decoders or pixels())


def sampler(how=SHIFT, law=LAW, **given):
    made = guidance(how, **given)
    return FlowSampler(Transition(law).guided(how), made)


def sampled(inner, latent=None, model=None, sigmas=SIGMAS, seed=3):
    model = model or hm.scene_model()
    with torch.inference_mode():
        return hm.run(
            hm.guider(model, 0.5), inner, sigmas, latent or hm.empty_latent(size=16), seed
        )[0]


def scored(samples):
    return Warm().score(s.pixel_vae().decode(samples))


def asked(guider, latent, question, sigmas=SIGMAS):
    """Ask something of a run's field, as the host runs nodes."""
    found = []

    def body(field):
        found.append(question(field))
        return field.noise

    with torch.inference_mode():
        hm.run(guider, FunctionSampler(body), sigmas, latent)
    return found[0]


# ---- through decoders ----


def slope_is_right(vae, form, shape, reward=None, step=1e-3, rel=0.05):
    """The gradient of a source is the slope of the reward of what the host decodes."""
    model, reward = hm.gaussian_model(), reward or Warm()
    model.model.latent_format = form
    generator = torch.Generator().manual_seed(4)
    clean, way = (0.5 * torch.randn(1, *shape, generator=generator) for _ in range(2))

    def question(field):
        chosen = guidance(reward=reward, decoders=Decoders.of(vae))
        source = chosen.source(field.guider, field.followed, shape, None)
        out = field.guider.inner_model.process_latent_out

        def value(at):
            made = vae.decode(out(at)).clamp(0.0, 1.0)
            return float(reward.score(made.flatten(0, -4)).double().mean())

        measured = (value(clean + step * way) - value(clean - step * way)) / (2 * step)
        return float((source.at([0], clean) * way).sum()), measured

    slope, measured = asked(hm.guider(model, 0.0), {"samples": torch.zeros(1, *shape)}, question)
    assert slope == pytest.approx(measured, rel=rel)
    assert abs(measured) > 1e-7


def taesd(channels=4):
    """A small decoder of the host's own class with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = comfy.taesd.taesd.TAESD(latent_channels=channels)
        for parameter in network.taesd_decoder.parameters():
            wide = parameter.ndim > 1
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if wide else 0.05)
    return comfy.sd.VAE(sd=network.state_dict())


def test_through_the_pixels_of_the_demo_model():
    slope_is_right(s.pixel_vae(), comfy.latent_formats.ChromaRadiance(), (3, 8, 8))


def test_through_a_small_decoder_and_a_scaled_latent():
    with torch.inference_mode():
        vae = taesd()
    assert next(vae.first_stage_model.parameters()).is_inference()
    slope_is_right(vae, comfy.latent_formats.SD15(), (4, 4, 4), step=1e-4)


def test_through_taef2_as_published():
    state = comfy.utils.load_torch_file(str(real("taef2_decoder.pth")))
    state = {f"taesd_decoder.{key}": value for key, value in state.items()}
    vae = comfy.sd.VAE(sd=state, metadata={"tae_latent_channels": 128})
    slope_is_right(vae, comfy.latent_formats.Flux2(), (128, 4, 4), rel=0.1)


def test_through_the_video_decoder_of_wan_frame_by_frame():
    slope_is_right(vm.wan_vae(), comfy.latent_formats.Wan21(), (16, 1, 4, 4), rel=0.1)


class Cut(nn.Module):
    """A decoder that cuts its own graph, as some of the host's do."""

    @torch.no_grad()
    def decode(self, latents):
        return 1.0 * latents


def test_a_decoder_without_a_way_back_and_one_too_large_say_so(monkeypatch):
    vae = s.pixel_vae()
    vae.first_stage_model.decode = Cut().decode
    with pytest.raises(DecodeError, match="without a way back"):
        sampled(sampler(decoders=Decoders(vae)))
    large = s.pixel_vae()
    large.memory_used_decode = lambda shape, dtype: 1e15
    with pytest.raises(DecodeError, match=r"needs about 18\d+\.\d GB .* small decoder"):
        sampled(sampler(decoders=Decoders(large)))


def test_the_forecast_of_memory_is_above_what_is_taken():
    vae, latents = taesd(), torch.zeros(1, 4, 16, 16)
    with (
        torch.profiler.profile(profile_memory=True, acc_events=True) as profile,
        differentiated(vae.first_stage_model),
    ):
        leaf = latents.clone().requires_grad_()
        torch.autograd.grad(g._Followed(vae).decode(leaf).sum(), leaf)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert 2**20 < peak < g.forecast(vae, tuple(latents.shape))


# ---- through networks ----

FAMILIES = ("Flux", "SD 3, 3.5", "Wan 2.1, 2.2 14B")


def through(guider, latent, step=2e-3):
    """Slope of a sum over predictions through the network, and as measured."""

    def question(field):
        x, sigma = 0.5 * field.start(), float(field.sigmas[2])
        way, weights = (
            torch.randn(x.shape, generator=torch.Generator().manual_seed(i)) for i in (2, 1)
        )
        with differentiated(field.guider.inner_model.diffusion_model):
            leaf = twin(x).detach().requires_grad_()
            made = field.followed([0], leaf, sigma)
            (slope,) = torch.autograd.grad(made, leaf, weights)
        there, back = (field.predict(x + sign * step * way, sigma) for sign in (1, -1))
        measured = ((there - back).double() * weights).sum() / (2 * step)
        return float((slope.double() * way).sum()), float(measured)

    return asked(guider, latent, question)


@pytest.mark.parametrize("name", FAMILIES)
def test_through_the_networks_of_the_host(name):
    family = f.BY_NAME[name]
    with torch.inference_mode():
        guider = hm.guider(f.model(name), f.conditioning(family), f.conditioning(family, 2), 2.0)
        slope, measured = through(guider, f.latent(family, 1, empty=False))
    assert slope == pytest.approx(measured, rel=0.01)


def test_through_quantised_weights_with_a_lora_of_another_pack():
    plain = castable(operations=Operations)
    model = load_quantised(plain)
    model.add_patches(graphs.lora(plain)[0], 0.8)
    slope, measured = through(hm.guider(model, 0.8, -0.5, cfg=3.0), hm.empty_latent(size=16))
    assert slope == pytest.approx(measured, rel=0.02)


def test_what_is_written_over_and_run_again_is_what_it_was():
    """Blocks of Flux write into their inputs; the plain way of autograd agrees to the bit."""
    family = f.BY_NAME["Flux"]
    guider = hm.guider(f.model("Flux"), f.conditioning(family))

    def question(field):
        x, network = 0.5 * field.start(), field.guider.inner_model.diffusion_model
        slopes = []
        for networks in ((), (network,)):
            with differentiated(*networks):
                leaf = twin(x).detach().requires_grad_()
                slopes.append(torch.autograd.grad(field.followed([0], leaf, 0.5).sum(), leaf)[0])
        assert not [part for part in network.modules() if "forward" in vars(part)]
        return slopes

    kept, again = asked(guider, f.latent(family, 1, empty=False), question)
    assert (kept - again).abs().max() <= 1e-5 * kept.abs().max()


def test_threads_take_turns_and_leave_the_network_and_the_host_as_they_were():
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 2)))
    before = getattr(comfy.model_management, "in_training", None)
    inside, leave, faults = [threading.Event(), threading.Event()], threading.Event(), []

    def differentiate(number):
        try:
            with differentiated(network):
                inside[number].set()
                leave.wait(20.0)
        except KeyError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=differentiate, args=(number,)) for number in (0, 1)]
    threads[0].start()
    assert inside[0].wait(20.0)
    threads[1].start()
    at_once = inside[1].wait(0.3)
    leave.set()
    for thread in threads:
        thread.join(20.0)
    assert not at_once
    assert not faults
    assert inside[1].is_set()
    assert getattr(comfy.model_management, "in_training", None) == before
    assert "forward" not in vars(network[0])


# ---- runs ----


def test_strength_0_is_no_guidance_and_leaves_every_bit():
    made = GradientGuidance.execute(
        reward=Warm(), method={"method": "mean_shift", "strength": 0.0, "trust": 0.5},
        through="prediction", start=1.0, stop=0.0, vae=s.pixel_vae(),
    )[0]  # fmt: skip
    ours, plain = (
        StochasticSampler.execute("second_order", guidance=how)[0] for how in (made, None)
    )
    assert torch.equal(sampled(ours), sampled(plain))


@pytest.mark.parametrize(
    "how", [Guidance(strength=0.7), SHIFT, Guidance("mean_shift", 0.3, "network")]
)
def test_a_guided_run_scores_higher_in_every_row(how):
    latent = hm.empty_latent(2, size=16)
    plain = scored(sampled(FlowSampler(Transition(LAW)), latent))
    assert (scored(sampled(sampler(how), latent)) > plain).all()


def test_the_demo_model_is_guided_better_than_it_samples():
    with torch.inference_mode():
        model, _, vae = load_demo()
    values = [
        float(Warm().score(vae.decode(sampled(inner, hm.empty_latent(), model, TEN))))
        for inner in (FlowSampler(Transition(LAW)), sampler(Guidance(strength=0.5)))
    ]
    assert values[1] > 0.6 * values[0]


def test_what_a_mask_keeps_is_kept_and_not_pushed():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1.0
    latent = {**hm.picture_latent(size=16), "noise_mask": mask}
    found = sampled(sampler(), latent)
    assert torch.equal(found[..., 8:], latent["samples"][..., 8:])
    assert not torch.equal(found, sampled(FlowSampler(Transition(LAW)), latent))


def test_the_gradient_is_0_in_what_a_mask_keeps():
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8] = 1.0

    def question(field):
        found = guidance().source(field.guider, field.followed, (3, 16, 16), field.mask)
        return found.at([0], torch.zeros(1, 3, 16, 16))

    latent = {**hm.picture_latent(size=16), "noise_mask": mask}
    found = asked(hm.guider(hm.scene_model(), 0.5), latent, question)
    assert not found[..., 8:].any()
    assert found[:, 0, :, :8].all()


def test_a_soft_mask_counts_once_through_the_network():
    mask = torch.full((1, 1, 16, 16), 0.5)
    mask[..., 8:] = 0.25

    def question(field):
        source = guidance(Guidance("mean_shift", 0.3, "network")).source(
            field.guider, field.followed, (3, 16, 16), field.mask, alone=False
        )
        x, sigma = 0.5 * field.start(), float(field.sigmas[2])
        way = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
        slope = float((source.through([0], x, sigma).double() * way).sum())
        there, back = (
            Warm().score(s.pixel_vae().decode(field.predict(x + sign * 0.01 * way, sigma)))
            for sign in (1, -1)
        )
        return slope, float((there.double() - back.double()).sum() / 0.02)

    latent = {**hm.picture_latent(size=16), "noise_mask": mask}
    slope, measured = asked(hm.guider(hm.scene_model(), 0.5), latent, question)
    assert slope == pytest.approx(measured, rel=0.05)


def test_partial_denoise_is_guided_from_where_it_starts():
    latent = hm.picture_latent(size=16)
    plain, ours = (
        scored(sampled(inner, latent, sigmas=SIGMAS[2:]))
        for inner in (FlowSampler(ODE), sampler(law=ODE.law))
    )
    assert ours > plain


def test_noise_tilt_without_noise_is_refused():
    with pytest.raises(ValueError, match="the law ode draws none"):
        StochasticSampler.execute("exact", noise_law=ODE.law, guidance=guidance(Guidance()))


@pytest.mark.parametrize(
    ("how", "law", "sigmas", "said"),
    [
        (Guidance(), noise_law("constant_k", k=0.0), SIGMAS, "connect a noise law that draws"),
        (Guidance(), noise_law("curve", points=DRAWS_NONE), SIGMAS, "choose mean_shift"),
        (Guidance("twist", 2.0), LAW, SIGMAS, "a search with strategy smc"),
        (Guidance(start=0.8), LAW, HIGH, r"start 0.8.*sigma 1, 0.94, 0.83, 0.62; set start to 1"),
        (Guidance("mean_shift", start=0.5), LAW, HIGH, "set start to 1 in"),
        (Guidance("start_noise", start=0.8), LAW, SIGMAS, "set start to 1"),
        (SHIFT, LAW, torch.tensor([1.0, 0.0]), "take more steps"),
    ],
)
def test_guidance_that_would_do_nothing_in_a_run_is_refused(how, law, sigmas, said):
    reward = Warm()
    with pytest.raises(ValueError, match=said):
        sampled(sampler(how, law, reward=reward), sigmas=sigmas)
    assert reward.calls == 0


@pytest.mark.parametrize("sigmas", [SIGMAS[1:], SIGMAS[:2]], ids=["second", "first"])
def test_a_stage_outside_the_window_of_a_shared_guidance_runs_and_says_so(monkeypatch, sigmas):
    said = []
    monkeypatch.setattr(flow_sampler, "say", said.append)
    outside = Guidance("mean_shift", 0.3, start=0.95, stop=0.9)
    found = sampled(sampler(outside, ODE.law), sigmas=sigmas)
    assert torch.equal(found, sampled(FlowSampler(ODE), sigmas=sigmas))
    assert "set start to 1" in said[0]
    assert len(said) == 1


def test_a_reward_without_gradient_is_refused_at_the_node():
    with pytest.raises(ValueError, match=r"brightness has no gradient: .*Layout Reward"):
        GradientGuidance.execute(
            reward=s.Brightness(), method={"method": "noise_tilt", "strength": 0.5},
            through="prediction", start=1.0, stop=0.0,
        )  # fmt: skip


def test_a_cancel_in_a_gradient_is_obeyed():
    def cancel(call):
        comfy.model_management.interrupt_current_processing(call == 2)

    reward = Warm(cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sampled(sampler(reward=reward))
    assert reward.calls == 2


def test_a_gradient_that_is_not_finite_is_the_rewards_fault():
    class Broken(Warm):
        def score(self, images):
            return (images.mean(dim=(1, 2, 3)) * 0.0).sqrt()

    with pytest.raises(RewardError, match="warm"):
        sampled(sampler(reward=Broken()))


# ---- searches ----


def searched(how=SHIFT, law=LAW, name="best_of_n", steered_by=None, **given):
    latent, _, report = s.search(
        hm.guider(hm.scene_model(), 0.5), sampler(how, law, reward=steered_by or Warm()),
        hm.empty_latent(size=16),
        strategy=s.strategy(name),
        **{"evaluations": 20, "reward": Warm(), "sigmas": SIGMAS, **given},
    )  # fmt: skip
    return latent["samples"], report


def test_a_guided_search_counts_what_it_asks_for():
    _, report = searched()
    rows = report.trace.record["evaluated"]
    ledger = report.trace.record["stopped"][0]["ledger"]
    plain = [row for row in rows if row["phase"] == "plain"]
    assert sum(row["gradients"] for row in rows) == ledger["gradient_calls"] > 0
    assert sum(row["evaluations"] for row in rows) == ledger["evaluations"] <= 20
    assert not any(row["gradients"] for row in plain), "the plain sample is the model's alone"
    assert report.best(0) > report.plain(0)
    assert f"{ledger['gradient_calls']} gradients" in report.sentences()[0]
    assert csv_of(report).splitlines()[0].split(",")[11] == "gradients"
    assert "chosen by warm" in report.notes[0], "another object than what steers"


def test_what_steers_is_named_only_where_it_is_another_reward():
    warm = Warm()
    _, report = searched(reward=warm, steered_by=warm)
    assert not any("steered" in note for note in report.notes)


@pytest.mark.parametrize(
    ("evaluations", "name", "sigmas", "said"),
    [
        (20, "best_of_n", HIGH, "set start to 1 in Gradient Guidance"),
        (4, "best_of_n", SIGMAS, "room for the plain sample alone"),
    ],
)
def test_a_guided_search_without_a_gradient_says_why(evaluations, name, sigmas, said):
    low = Guidance("mean_shift", 0.3, start=0.6)
    _, report = searched(low, name=name, evaluations=evaluations, sigmas=sigmas)
    assert report.trace.record["stopped"][0]["ledger"]["gradient_calls"] == 0
    assert said in report.notes[-1]
    assert not any("are steered" in note for note in report.notes)


def test_the_published_rbf_whose_levels_are_above_the_window_says_which_start_helps():
    for start in (0.8, 1.0):
        report = RBFSearch.execute(
            rbf={"rbf": "published", "steps": 5}, seed=3, steps=5, cfg=1.0, scheduler="simple",
            denoise=1.0, evaluations=90, target=s.NEVER, vae=s.pixel_vae(), reward=Warm(),
            model=hm.scene_model(), positive=hm.conditioning(0.5), negative=hm.conditioning(0.0),
            latent_image=hm.empty_latent(size=16), guidance=guidance(Guidance(start=start)),
        ).result[2]  # fmt: skip
        helps = any("set start to 1 in Gradient Guidance" in note for note in report.notes)
        assert helps == (start < 1.0)


@pytest.mark.parametrize("evaluations", [30, 8])
def test_pictures_that_are_run_whole_are_not_guided_and_the_report_says_so(evaluations):
    def found(inner):
        model = remembering.sliding(hm.scene_model())
        latent, _, report = s.search(
            hm.guider(model, 0.5), inner, hm.empty_latent(size=16),
            sigmas=SIGMAS, evaluations=evaluations,
        )  # fmt: skip
        return latent["samples"], report

    steers = Warm()
    plain, told = found(FlowSampler(Transition(LAW)))
    ours, report = found(sampler(reward=steers, decoders=Decoders()))
    assert torch.equal(ours, plain)
    assert steers.calls == 0
    assert report.scores == told.scores
    assert [note for note in report.notes if "guidance" in note] == [search_sampler.UNGUIDED]
    assert not any("steered" in note for note in report.notes)
    assert not any("guidance" in note for note in told.notes)


def test_a_guided_search_that_was_cancelled_goes_on_where_it_was(tmp_path, monkeypatch):
    def cancel(call):
        if call == 9:
            raise comfy.model_management.InterruptProcessingException

    whole, report = searched()
    file = FileCheckpoint(tmp_path / "a.safetensors", torch.device("cpu"))
    monkeypatch.setattr(search_sampler, "checkpoint_of_running_node", lambda *_: file)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        searched(steered_by=Warm(cancel))
    steers = Warm()
    latent, again = searched(steered_by=steers)
    ledgers = [one.trace.record["stopped"][0]["ledger"] for one in (report, again)]
    assert torch.equal(latent, whole)
    assert ledgers[0]["gradient_calls"] == ledgers[1]["gradient_calls"]
    assert 0 < steers.calls < ledgers[0]["gradient_calls"], "some gradients were in the file"


def test_through_the_network_costs_an_evaluation_each_time():
    _, report = searched(Guidance("mean_shift", 0.3, "network"), evaluations=14)
    ledger = report.trace.record["stopped"][0]["ledger"]
    rows = [row for row in report.trace.record["evaluated"] if row["gradients"]]
    assert all(row["evaluations"] == 1 + row["gradients"] for row in rows if row["sigma"] > 0.0)
    assert rows
    assert ledger["rows"] >= ledger["evaluations"]


@pytest.mark.parametrize("name", ["evolutionary", "rbf", "smc"])
def test_strategies_are_guided_and_their_winner_comes_out_again(name):
    found, report = searched(name=name, evaluations=24)
    assert report.trace.record["stopped"][0]["ledger"]["gradient_calls"] > 0
    noise, sigmas, start, own = Replay.execute(report, 0, 1.0).result
    again = hm.SamplerCustomAdvanced.execute(
        noise=noise, guider=hm.guider(hm.scene_model(), 0.5), sampler=own, sigmas=sigmas,
        latent_image=start,
    )[0]["samples"]  # fmt: skip
    assert (again - found).abs().max() < 1e-3
