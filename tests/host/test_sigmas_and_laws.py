"""The nodes Sigmas and NoiseLaw: the host's lists untouched, ours in the model's coordinates."""

import comfy.samplers
import host_models as hm
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler

from flowsearch.nodes.conversion import convert
from flowsearch.nodes.sampling import NoiseLaw, Sigmas, StochasticSampler
from flowsearch.samplers.noise_law import NOISE_LAWS, noise_law
from flowsearch.samplers.sigmas import in_interpolant, rbf_reference
from flowsearch.samplers.transition import METHODS


def sigmas(interpolant="host", steps=10, shift=1.0, start=1.0, end=0.0, scheduler="simple", **more):
    return Sigmas.execute(interpolant, steps, shift, start, end, scheduler, **more)[0]


def law(name, taper=(0.0, 0.0), **numbers):
    return NoiseLaw.execute({"law": name, **numbers}, *taper)[0]


@pytest.mark.parametrize("scheduler", comfy.samplers.SCHEDULER_NAMES)
@pytest.mark.parametrize("kind", ["FLOW", "FLUX"])
def test_host_lists_are_the_hosts_to_the_bit(scheduler, kind):
    model = hm.gaussian_model(kind, shift=2.5)
    host = BasicScheduler.execute(model=model, scheduler=scheduler, steps=9, denoise=1.0)[0]
    assert torch.equal(sigmas(steps=9, scheduler=scheduler, model=model), host)


def test_host_lists_are_the_hosts_on_a_converted_model():
    model = convert(hm.gaussian_model(shift=2.0), "vp")
    host = BasicScheduler.execute(model=model, scheduler="sgm_uniform", steps=9, denoise=1.0)[0]
    ours = sigmas(steps=9, scheduler="sgm_uniform", model=model)
    assert torch.allclose(ours, host, rtol=1e-6, atol=0)


@pytest.mark.parametrize("interpolant", ["linear", "vp", "trigonometric", "ve"])
def test_ours_are_linear_for_a_flow_model_and_rho_for_a_converted_one(interpolant):
    linear = sigmas(interpolant)
    assert torch.equal(linear, torch.tensor(in_interpolant(interpolant, 10)))
    model = convert(hm.gaussian_model(noise_scale=2.0), "ve")
    t = linear.double().clamp(max=1 - 1e-4)
    assert torch.allclose(sigmas(interpolant, model=model).double(), 2 * t / (1 - t), rtol=1e-3)


@pytest.mark.parametrize("interpolant", ["host", "linear", "vp", "trigonometric", "ve"])
@pytest.mark.parametrize("model", [None, "plain", "shifted"])
def test_start_and_end_are_met_and_the_list_falls(interpolant, model):
    shifts = {"plain": 1.0, "shifted": 3.0}
    extra = {"model": hm.gaussian_model(shift=shifts[model])} if model else {}
    out = sigmas(interpolant, steps=7, shift=2.0, start=0.7, end=0.2, **extra)
    assert len(out) == 8
    assert float(out[0]) == pytest.approx(0.7)
    assert float(out[-1]) == pytest.approx(0.2)
    assert (out.diff() < 0).all()


def test_shift_moves_steps_towards_noise():
    assert (sigmas(shift=3.0)[1:-1] > sigmas()[1:-1]).all()
    once = sigmas(model=hm.gaussian_model(shift=3.0))
    assert torch.allclose(sigmas(shift=3.0), once, atol=1e-6)


def test_rbf_reference_is_the_papers_list():
    assert torch.equal(sigmas("rbf_reference"), torch.tensor(rbf_reference(10)))
    cut = sigmas("rbf_reference", start=0.9)
    assert float(cut[0]) == pytest.approx(0.9)
    assert float(cut[-1]) == 0.0


def test_sigmas_of_another_kind_of_model_are_refused():
    with pytest.raises(ValueError, match="not as a flow model"):
        sigmas(model=hm.wrap(hm.GaussianNet(), "EPS"))


def test_end_above_start_is_refused():
    for interpolant in ("linear", "host"):
        with pytest.raises(ValueError, match="end"):
            sigmas(interpolant, start=0.2, end=0.5)


@pytest.mark.parametrize("name", NOISE_LAWS)
def test_every_law_has_a_row_of_widgets_that_builds_it(name):
    combo = NoiseLaw.define_schema().inputs[0]
    option = next(o for o in combo.options if o.key == name)
    defaults = {widget.id: widget.default for widget in option.inputs}
    built = law(name, **defaults)
    assert built.name == name
    assert 0.0 <= built.q(0.8, 0.6) <= 1.0
    if not NOISE_LAWS[name].takes_points:
        assert built == noise_law(name)


def test_curve_has_its_strengths_where_the_widgets_say():
    numbers = {"k_at_0": 0.0, "k_at_25": 0.5, "k_at_50": 1.0, "k_at_75": 0.8, "k_at_100": 0.0}
    curve = law("curve", **numbers)
    assert [curve.k(s) for s in (0.25, 0.5, 0.75, 1.0)] == [0.5, 1.0, 0.8, 0.0]


def test_taper_ends_the_noise():
    tapered = law("constant_k", (0.2, 0.12), k=1.0)
    assert tapered.k(0.12) == 0.0
    assert tapered.k(0.2) == 1.0
    with pytest.raises(ValueError, match="taper"):
        law("fixed_q", (0.2, 0.12), q=0.5)
    with pytest.raises(ValueError, match="stop < start"):
        law("constant_k", (0.1, 0.2), k=1.0)


def test_sampler_node_defaults_to_a_quarter_and_takes_every_method():
    for method in METHODS:
        built = StochasticSampler.execute(transition=method)[0]
        assert built.transition.law == noise_law("constant_k", k=0.25)
        assert built.transition.method == method
    with pytest.raises(ValueError, match="same on every interpolant"):
        StochasticSampler.execute(transition="exact", interpolant="vp")


@pytest.mark.parametrize("node", [Sigmas, NoiseLaw, StochasticSampler])
def test_every_widget_says_what_it_does(node):
    schema = node.define_schema()
    for widget in schema.inputs:
        assert widget.tooltip
        for option in getattr(widget, "options", None) or []:
            for inner in getattr(option, "inputs", []):
                assert "ange" in inner.tooltip
    assert schema.search_aliases
    assert schema.category == "FlowSearch/sampling"
