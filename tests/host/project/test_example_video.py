"""The example for Wan runs in a real server, with files of Wan that are small.

Replaced is only what cannot be small: the text encoder, whose layers ComfyUI fixes by its name, by
the embedded model's, and PickScore by a number of the pixels.
"""

import json

import av
import pytest
import safetensors.torch
import video_models as vm
from examples import api_form, editor_form
from PIL import Image

from flowsearch.demo.network import FEATURES

EXAMPLE = "11 Video, best of N"
FRAMES, SIDE, CLIPS, STEPS = 9, 32, 3, 3


def node(workflow, kind):
    """The only node of a class."""
    (found,) = (body for body in workflow.values() if body["class_type"] == kind)
    return found


@pytest.fixture
def small(server):
    """The example's graph, and the files that its loaders name, small."""
    workflow = api_form(EXAMPLE)
    models = server.server.base / "models"
    state, metadata = vm.wan_state(FEATURES)
    files = {
        ("UNETLoader", "unet_name", "diffusion_models"): (state, metadata),
        ("VAELoader", "vae_name", "vae"): (vm.wan_vae_state(), None),
    }
    written = []
    for (kind, key, folder), (tensors, about) in files.items():
        path = models / folder / node(workflow, kind)["inputs"][key]
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, path, about)
        written.append(path)
    clip = next(key for key, body in workflow.items() if body["class_type"] == "CLIPLoader")
    workflow[clip] = {"class_type": "FlowSearchLoadDemo", "inputs": {"checkpoint": "base"}}
    for body in workflow.values():
        if body["class_type"] == "CLIPTextEncode":
            body["inputs"] |= {"clip": [clip, 1], "text": "two red circles"}
    reward = node(workflow, "FlowSearchPreference")
    reward["class_type"] = "FlowSearchImageStatistic"
    reward["inputs"] = {"statistic": "brightness", "direction": "higher"}
    node(workflow, "EmptyHunyuanLatentVideo")["inputs"] |= {
        "width": SIDE, "height": SIDE, "length": FRAMES,
    }  # fmt: skip
    node(workflow, "FlowSearchRewardSearch")["inputs"] |= {
        "steps": STEPS, "evaluations": CLIPS * STEPS, "target": "never",
    }  # fmt: skip
    workflow["json"] = {"class_type": "PreviewAny", "inputs": {"source": ["14", 1]}}
    yield workflow
    for path in written:
        path.unlink()


def saved(server, entry):
    return server.server.base / entry["type"] / entry["subfolder"] / entry["filename"]


def test_the_best_of_some_clips_is_saved_as_a_video(server, small):
    outputs = server.run(small)
    save = next(key for key, body in small.items() if body["class_type"] == "SaveVideo")
    with av.open(str(saved(server, outputs[save]["images"][0]))) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == FRAMES
    assert frames[0].shape == (SIDE, SIDE, 3)
    report = json.loads(outputs["json"]["text"][0])
    finished = report["finished"]
    assert report["reward"] == "image_statistic_frames"
    assert len(finished) == CLIPS
    values = [row["scores"]["value"] for row in finished]
    assert len({round(value, 6) for value in values}) == CLIPS
    best = max(finished, key=lambda row: row["scores"]["value"])["scores"]
    assert [*best["parts"]] == [f"frame {t}" for t in (0, 1, 2, 3, 5, 6, 7, 8)]
    # of what was saved: colours are halved and compressed there
    luma = [float((f / 255.0 @ [0.2126, 0.7152, 0.0722]).mean()) for f in frames]
    told = [best["parts"][f"frame {t}"] for t in (0, 8)]
    assert [luma[0], luma[8]] == pytest.approx(told, abs=0.05)
    with Image.open(saved(server, outputs["14"]["images"][0])) as plot:
        assert plot.width == 800


def test_the_editor_file_names_what_it_loads():
    document = editor_form(EXAMPLE)
    workflow = api_form(EXAMPLE)
    named = {
        model["name"]: model
        for body in document["nodes"]
        for model in body["properties"].get("models", [])
    }
    keys = {"UNETLoader": "unet_name", "CLIPLoader": "clip_name", "VAELoader": "vae_name",
            "FlowSearchPreference": "weights"}  # fmt: skip
    assert {node(workflow, kind)["inputs"][key] for kind, key in keys.items()} == {*named}
    for kind in ("UNETLoader", "CLIPLoader", "VAELoader"):
        model = named[node(workflow, kind)["inputs"][keys[kind]]]
        assert model["url"].endswith(f"/{model['directory']}/{model['name']}")
