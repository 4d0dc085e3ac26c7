"""The example workflows run in a real server; the first finds what it was asked for.

Those for large models are validated by the server and not run, for their weights are not here.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowsearch.rewards.shape_count import ShapeCount, parse_groups

EXAMPLES = sorted(
    (Path(__file__).resolve().parents[2] / "example_workflows" / "api").glob("*.json")
)


LOADERS = {  # nodes that name a file of weights, and the inputs that do
    ("CheckpointLoaderSimple", "ckpt_name"),
    ("CLIPLoader", "clip_name"),
    ("DualCLIPLoader", "clip_name1"),
    ("DualCLIPLoader", "clip_name2"),
    ("TripleCLIPLoader", "clip_name1"),
    ("TripleCLIPLoader", "clip_name2"),
    ("TripleCLIPLoader", "clip_name3"),
    ("UNETLoader", "unet_name"),
    ("VAELoader", "vae_name"),
}


def weights(workflow):
    """Inputs of a workflow that name a file of weights."""
    inputs = {(node["class_type"], key) for node in workflow.values() for key in node["inputs"]}
    return inputs & LOADERS


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs_or_lacks_nothing_but_its_weights(server, file):
    workflow = json.loads(file.read_text(encoding="utf-8"))
    if named := weights(workflow):
        assert server.complaints(workflow) == dict.fromkeys(named, "value_not_in_list")
        return
    outputs = server.run(workflow)
    assert any("images" in output for output in outputs.values())


def test_a_mistake_beside_missing_weights_is_seen(server):
    file = next(file for file in EXAMPLES if file.name.startswith("05_") and "sd35" in file.name)
    workflow = json.loads(file.read_text(encoding="utf-8"))
    sampler = next(node for node in workflow.values() if node["class_type"] == "KSampler")
    sampler["inputs"]["scheduler"] = "no such scheduler"
    found = server.complaints(workflow)
    assert found.pop(("KSampler", "scheduler")) == "value_not_in_list"
    assert set(found) == weights(workflow)


def test_the_first_example_finds_three_red_circles_and_two_blue_squares(server):
    file = next(file for file in EXAMPLES if file.name.startswith("01_"))
    workflow = json.loads(file.read_text(encoding="utf-8"))
    # another seed than the pinned one, so that nothing is answered from the cache
    workflow["6"]["inputs"]["seed"] += 1
    saved = server.run(workflow)["7"]["images"][0]
    path = server.server.base / "output" / saved["subfolder"] / saved["filename"]
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255.0
    wanted = parse_groups(workflow["5"]["inputs"]["prompt"])
    assert wanted == ((3, "red", "circle"), (2, "blue", "square"))
    assert ShapeCount.from_groups(wanted).score(torch.from_numpy(pixels)[None]).item() == 0.0
