"""The sampling nodes as a user has them: queued on a real server, on the embedded model."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

PROMPT = "three red circles"


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def workflow(sampler: dict, law: dict | None = None, conversion: str | None = None) -> dict:
    """Load, prompt, sample, decode, save; `sampler` is the node behind the SAMPLER socket."""
    graph = {
        "demo": node("FlowSearchLoadDemo"),
        "positive": node("CLIPTextEncode", clip=["demo", 1], text=PROMPT),
        "negative": node("CLIPTextEncode", clip=["demo", 1], text=""),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "noise": node("RandomNoise", noise_seed=7),
        "guider": node(
            "CFGGuider",
            model=["demo", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            cfg=2.0,
        ),
        "sigmas": node(
            "FlowSearchSigmas",
            interpolant="host",
            steps=6,
            shift=1.0,
            start=1.0,
            end=0.0,
            scheduler="simple",
            model=["demo", 0],
        ),
        "sampler": sampler,
        "sample": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["sampler", 0],
            sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["demo", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="sampling"),
    }
    if law is not None:
        graph["law"] = node("FlowSearchNoiseLaw", taper_start=0.0, taper_stop=0.0, **law)
        graph["sampler"]["inputs"]["noise_law"] = ["law", 0]
    if conversion is not None:
        graph["converted"] = node(
            "FlowSearchInterpolantConversion", model=["demo", 0], interpolant=conversion
        )
        for name in ("guider", "sigmas"):
            graph[name]["inputs"]["model"] = ["converted", 0]
    return graph


def picture(server, graph: dict) -> torch.Tensor:
    saved = server.run(graph)["save"]["images"][0]
    path = Path(server.server.base) / "output" / saved["subfolder"] / saved["filename"]
    with Image.open(path) as image:
        return pil_to_tensor(image.convert("RGB")).int()


def ours():
    return node("FlowSearchStochasticSampler", transition="exact", interpolant="linear")


def test_ode_saves_the_picture_that_euler_saves(server):
    euler = picture(server, workflow(node("KSamplerSelect", sampler_name="euler")))
    assert torch.equal(picture(server, workflow(ours(), {"law": "ode"})), euler)
    noisy = picture(server, workflow(ours(), {"law": "constant_k", "law.k": 1.0}))
    assert (noisy - euler).abs().max() > 20


def test_conversion_runs_with_a_stock_sampler(server):
    out = picture(server, workflow(node("KSamplerSelect", sampler_name="ddpm"), conversion="vp"))
    assert out.float().std() > 5


def test_our_sampler_on_a_converted_model_gives_nearly_the_flow_models_picture(server):
    """Nearly: a converted list begins at .9999, and pixels are rounded."""
    native = picture(server, workflow(ours(), {"law": "ode"}))
    converted = picture(server, workflow(ours(), {"law": "ode"}, conversion="ve"))
    assert (converted - native).abs().float().mean() < 1.0


def test_settings_without_meaning_fail_with_the_sentence(server):
    odd = node("FlowSearchStochasticSampler", transition="exact", interpolant="vp")
    entry = server.wait(server.queue(workflow(odd)))
    assert entry["status"]["status_str"] == "error"
    assert "the same on every interpolant" in str(entry["status"]["messages"])


@pytest.mark.parametrize(("law", "number"), [("curve", "k_at_50"), ("fixed_q", "q")])
def test_other_laws_arrive_with_their_widgets(server, law, number):
    widgets = {f"law.k_at_{p}": 0.2 for p in (0, 25, 50, 75, 100)} if law == "curve" else {}
    out = picture(server, workflow(ours(), {"law": law, **widgets, f"law.{number}": 0.5}))
    assert out.shape == (3, 64, 64)


DRAWN = {"points": [[0, 0], [0.5, 1], [1, 0.5]], "interpolation": "monotone_cubic"}


def with_curve(curve):
    return workflow(ours(), {"law": "drawn_curve", "law.strength": 1.0, "law.curve": curve})


def test_drawn_curves_arrive_over_a_wire_as_from_the_editor(server):
    if "CurveEditor" not in server.object_info():
        pytest.skip("this host has no Curve Editor")
    wired = with_curve(["curve", 0]) | {"curve": node("CurveEditor", curve=DRAWN)}
    assert torch.equal(picture(server, wired), picture(server, with_curve(DRAWN)))


def test_drawn_curves_arrive_from_the_editor(server):
    graph = with_curve(DRAWN)
    straight = picture(server, graph)
    graph["sigmas"]["inputs"] |= {
        "interpolant": "curve",
        "interpolant.alpha": {"points": [[0, 1], [1, 0]], "interpolation": "linear"},
        "interpolant.sigma": {"points": [[0, 0], [0.3, 0.9], [1, 1]], "interpolation": "linear"},
    }
    assert (picture(server, graph) - straight).abs().max() > 20


def test_curves_that_are_no_path_fail_with_the_sentence(server):
    graph = workflow(ours(), {"law": "ode"})
    graph["sigmas"]["inputs"] |= {
        "interpolant": "curve",
        "interpolant.alpha": {"points": [[0, 1], [1, 0.5]], "interpolation": "linear"},
        "interpolant.sigma": {"points": [[0, 0], [1, 1]], "interpolation": "linear"},
    }
    entry = server.wait(server.queue(graph))
    assert "drag its last point to (1, 0)" in str(entry["status"]["messages"])
