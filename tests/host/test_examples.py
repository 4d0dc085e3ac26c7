"""The example workflows run in a real server; the first finds what it was asked for."""

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


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_runs(server, file):
    outputs = server.run(json.loads(file.read_text(encoding="utf-8")))
    assert any("images" in output for output in outputs.values())


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
