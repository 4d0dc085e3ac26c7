"""The nodes Sigmas and NoiseLaw: the host's lists untouched, ours in the model's coordinates."""

import comfy.samplers
import host_models as hm
import pytest
import torch
from comfy_extras.nodes_custom_sampler import BasicScheduler

from flowsearch.nodes.host.versions import CURVE_KINDS, HOST_CURVES
from flowsearch.nodes.sampling.conversion import convert
from flowsearch.nodes.sampling.curve import read_curve
from flowsearch.nodes.sampling.sampler import NoiseLaw, Sigmas, StochasticSampler
from flowsearch.samplers.paths.drawn_path import interpolant_from_curves
from flowsearch.samplers.paths.noise_law import NOISE_LAWS, noise_law
from flowsearch.samplers.paths.sigmas import in_interpolant, rbf_reference
from flowsearch.samplers.stepping.transition import METHODS


def sigmas(interpolant="host", steps=10, shift=1.0, start=1.0, end=0.0, scheduler="simple", **more):
    choice = interpolant if isinstance(interpolant, dict) else {"interpolant": interpolant}
    return Sigmas.execute(choice, steps, shift, start, end, scheduler, **more)[0]


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


def test_sigmas_of_a_model_without_noise_are_refused():
    with pytest.raises(ValueError, match="IMG_TO_IMG_FLOW, whose states are no mixture"):
        sigmas(model=hm.wrap(hm.GaussianNet(), "IMG_TO_IMG_FLOW"))


def test_an_unknown_interpolant_is_refused():
    """The host does not check the choices of a combo that has inputs of its own."""
    with pytest.raises(ValueError, match="unknown interpolant 'vpp'; choose one of: host, linear"):
        sigmas("vpp")


def test_end_above_start_is_refused():
    for interpolant in ("linear", "host"):
        with pytest.raises(ValueError, match="end"):
            sigmas(interpolant, start=0.2, end=0.5)


def defaults_of(node, choice):
    """What the editor sends for a choice of the node's first widget if nothing else is touched."""
    option = next(o for o in node.define_schema().inputs[0].options if o.key == choice)
    described = {widget.id: widget.as_dict() for widget in option.inputs}
    return {name: widget["default"] for name, widget in described.items()}


@pytest.mark.parametrize("name", NOISE_LAWS)
def test_every_law_has_a_row_of_widgets_that_builds_it(name):
    built = law(name, **defaults_of(NoiseLaw, name))
    assert built.name == name
    assert 0.0 <= built.q(0.8, 0.6) <= 1.0
    if not NOISE_LAWS[name].takes_points:
        assert built == noise_law(name)


def test_curve_has_its_strengths_where_the_widgets_say():
    numbers = {"k_at_0": 0.0, "k_at_25": 0.5, "k_at_50": 1.0, "k_at_75": 0.8, "k_at_100": 0.0}
    curve = law("curve", **numbers)
    assert [curve.k(s) for s in (0.25, 0.5, 0.75, 1.0)] == [0.5, 1.0, 0.8, 0.0]


CURVES = [
    [(0.0, 0.3), (0.2, 0.0), (0.35, 0.9), (0.4, 0.95), (0.9, 0.2)],
    [(0.3, 0.0), (0.31, 1.0), (0.7, 1.0), (1.0, 0.0)],
    [(0.5, 0.5)],
]


with_host_curves = pytest.mark.skipif(not HOST_CURVES, reason="this host has no class of curves")


@with_host_curves
@pytest.mark.parametrize("kind", CURVE_KINDS)
@pytest.mark.parametrize("points", CURVES)
def test_drawn_law_is_the_hosts_curve_times_strength(points, kind):
    hosts = kind(points)
    sent = {"points": [list(p) for p in points], "interpolation": CURVE_KINDS[kind]}
    drawn = law("drawn_curve", curve=sent, strength=0.7)
    for sigma in torch.linspace(0.001, 1.0, 400, dtype=torch.float64).tolist():
        assert drawn.k(sigma) == pytest.approx(0.7 * hosts.interp(sigma), rel=1e-12, abs=1e-15)
    assert law("drawn_curve", curve=hosts, strength=0.7) == drawn
    sent["interpolation"] = "linear"
    straight = law("drawn_curve", curve=sent, strength=0.7)
    assert (straight == drawn) == (CURVE_KINDS[kind] == "linear")


def test_bare_points_are_smooth_as_in_the_host():
    points = [[0, 0], [0.3, 0.8], [1, 1]]
    smooth = {"points": points, "interpolation": "monotone_cubic"}
    assert read_curve(points) == read_curve(smooth)
    for curve in HOST_CURVES:
        assert read_curve(points) == read_curve(curve.from_raw(points))


def test_the_drawn_laws_default_is_a_full_law_that_ends_above_the_data():
    drawn = law("drawn_curve", **defaults_of(NoiseLaw, "drawn_curve"))
    assert [drawn.k(s) for s in (1.0, 0.2, 0.12, 0.05)] == [0.25, 0.25, 0.0, 0.0]
    assert drawn.q(0.12, 0.0) == 1.0


def test_drawn_interpolant_starts_as_the_linear_one():
    drawn = sigmas({"interpolant": "curve", **defaults_of(Sigmas, "curve")}, shift=3.0)
    assert torch.equal(drawn, sigmas("linear", shift=3.0))


def test_drawn_interpolant_is_that_of_its_curves_and_converts_like_the_others():
    drawn = {
        "interpolant": "curve",
        "alpha": {"points": [[0, 1], [0.5, 0.9], [1, 0]], "interpolation": "linear"},
        "sigma": [[0, 0], [0.3, 0.5], [1, 1]],
    }
    path = interpolant_from_curves(read_curve(drawn["alpha"]), read_curve(drawn["sigma"]))
    expected = torch.tensor(in_interpolant(path, 10))
    assert torch.equal(sigmas(drawn), expected)
    model = convert(hm.gaussian_model(noise_scale=2.0), "ve")
    t = expected.double().clamp(max=1 - 1e-4)
    assert torch.allclose(sigmas(drawn, model=model).double(), 2 * t / (1 - t), rtol=1e-3)


def test_curves_without_meaning_are_refused():
    with pytest.raises(ValueError, match="at r = 0, the clean data, and must be 1"):
        sigmas({"interpolant": "curve", "alpha": [[0, 0.5], [1, 0]], "sigma": [[0, 0], [1, 1]]})
    with pytest.raises(ValueError, match="move or delete"):
        law("drawn_curve", curve=[[0.5, 0], [0.5, 1]], strength=1.0)


@with_host_curves
def test_a_curve_of_an_unknown_kind_is_refused():
    class Analytic(HOST_CURVES[0]):
        points = ()

        def interp(self, x):
            return x

    with pytest.raises(ValueError, match="kind Analytic is not known"):
        read_curve(Analytic())


def test_taper_ends_the_noise():
    tapered = law("constant_k", (0.2, 0.12), k=1.0)
    assert tapered.k(0.12) == 0.0
    assert tapered.k(0.2) == 1.0
    with pytest.raises(ValueError, match="taper"):
        law("fixed_q", (0.2, 0.12), q=0.5)
    with pytest.raises(ValueError, match="stop < start"):
        law("constant_k", (0.1, 0.2), k=1.0)


def test_sampler_node_defaults_to_noise_that_ends_early_and_takes_every_method():
    for method in METHODS:
        built = StochasticSampler.execute(transition=method)[0]
        assert built.transition.law == noise_law("constant_k", k=1.0, taper=(0.2, 0.12))
        assert built.transition.method == method
    built = StochasticSampler.execute("second_order", last="extrapolated")[0]
    assert built.transition.last == "extrapolated"
    built = StochasticSampler.execute("glass", inner_evaluations=7)[0]
    assert built.transition.inner_evaluations == 7
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
