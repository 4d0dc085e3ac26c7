"""Gate: who passes, and what is not run when a side is empty, in a server's workflow too."""

import json
from types import SimpleNamespace

import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from examples import api_form
from PIL import Image

from flowsearch.nodes.rewards.gate import Gate
from flowsearch.rewards.frames import FrameReward


class Corner:
    """The red of the first pixel."""

    spec = SimpleNamespace(name="corner")

    def score(self, images):
        return images[:, 0, 0, 0].clone()


def pictures(*values):
    images = torch.full((len(values), 8, 8, 3), 0.5)
    images[:, 0, 0, 0] = torch.tensor(values)
    return images


def run(images, value=None, n=None, reward=None):
    keep = {"keep": "threshold", "value": value} if n is None else {"keep": "top", "n": n}
    return Gate.execute(images, reward or Corner(), keep)


def reds(images):
    """What is in an output; None where it is blocked, silently."""
    if isinstance(images, ExecutionBlocker):
        assert images.message is None
        return None
    return [round(float(v), 4) for v in images[:, 0, 0, 0]]


@pytest.mark.parametrize(
    ("how", "accepted", "rejected", "indices"),
    [
        ({"value": 0.7}, [0.7, 0.9, 0.7], [0.1], [0, 2, 3]),
        ({"value": 0.71}, [0.9], [0.7, 0.1, 0.7], [2]),
        ({"value": 2.0}, None, [0.7, 0.1, 0.9, 0.7], None),
        ({"value": -1.0}, [0.7, 0.1, 0.9, 0.7], None, [0, 1, 2, 3]),
        ({"n": 1}, [0.9], [0.7, 0.1, 0.7], [2]),
        ({"n": 2}, [0.7, 0.9], [0.1, 0.7], [0, 2]),
        ({"n": 9}, [0.7, 0.1, 0.9, 0.7], None, [0, 1, 2, 3]),
    ],
)
def test_who_passes(how, accepted, rejected, indices):
    images = pictures(0.7, 0.1, 0.9, 0.7)
    good, bad, places, scores = run(images, **how).result
    assert (reds(good), reds(bad)) == (accepted, rejected)
    assert (None if isinstance(places, ExecutionBlocker) else places) == indices
    assert scores == images[:, 0, 0, 0].tolist()


def test_the_node_and_the_history_tell():
    text, table = run(pictures(0.2, 0.4), value=0.3).ui["text"]
    assert "corner of 2 pictures, 1 kept" in text
    assert [row["kept"] for row in json.loads(table)["pictures"]] == [False, True]
    assert "none reaches 0.5" in run(pictures(0.2, 0.4), value=0.5).ui["text"][0]


@pytest.mark.parametrize(("value", "passes"), [(0.1, True), (0.2, False)])
def test_a_clip_passes_or_fails_whole(value, passes):
    frames = pictures(0.1, 0.9, 0.5)
    worst = FrameReward(Corner(), aggregate="min", count=3)
    good, bad, places, scores = run(frames, value=value, reward=worst).result
    inside, other = (good, bad) if passes else (bad, good)
    assert torch.equal(inside, frames)
    assert isinstance(other, ExecutionBlocker)
    assert passes == (places == [0])
    assert scores == [pytest.approx(0.1)]


def test_nothing_to_gate_is_refused():
    with pytest.raises(ValueError, match="no pictures"):
        run(torch.zeros(0, 8, 8, 3), value=0.0)


def graph(value):
    """Two pictures of one colour; each side is upscaled and shown, and so is each accepted one by
    its place."""

    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    twice = {"upscale_method": "nearest-exact", "scale_by": 2.0}
    return {
        "1": node("EmptyImage", width=16, height=16, batch_size=2, color=0x808080),
        "2": node("FlowSearchImageStatistic", statistic="brightness", direction="higher"),
        "3": node(
            "FlowSearchGate",
            images=["1", 0],
            reward=["2", 0],
            **{"keep": "threshold", "keep.value": value},
        ),
        "4": node("ImageScaleBy", image=["3", 0], **twice),
        "5": node("PreviewImage", images=["4", 0]),
        "6": node("ImageScaleBy", image=["3", 1], **twice),
        "7": node("PreviewImage", images=["6", 0]),
        "8": node("ImageFromBatch", image=["1", 0], batch_index=["3", 2], length=1),
        "9": node("PreviewImage", images=["8", 0]),
    }


@pytest.mark.parametrize(("value", "ran"), [(-1e6, {"5", "9"}), (1e6, {"7"})])
def test_what_hangs_on_an_empty_side_is_not_run_and_all_else_is(server, value, ran):
    outputs = server.run(graph(value))
    shown = {node for node, output in outputs.items() if "images" in output}
    assert shown - {"3"} == ran  # the gate shows what it accepts
    for node in ran:
        assert len(outputs[node]["images"]) == 2


def test_the_example_upscales_and_saves_only_the_good_ones(server):
    """Pictures of the demo model by one seed: some with at most one shape wrong, some not."""
    workflow = api_form("03 Gate")
    (gate,) = (k for k, node in workflow.items() if node["class_type"] == "FlowSearchGate")
    outputs = server.run(workflow)
    rows = json.loads(outputs[gate]["text"][1])["pictures"]
    good = [row for row in rows if row["kept"]]
    assert [row["value"] >= -1.0 for row in rows] == [row["kept"] for row in rows]
    assert 0 < len(good) < len(rows)
    (kept,) = (k for k, node in workflow.items() if node["class_type"] == "SaveImage")
    (other,) = (k for k, node in workflow.items() if node["class_type"] == "PreviewImage")
    assert len(outputs[kept]["images"]) == len(good)
    assert len(outputs[other]["images"]) == len(rows) - len(good)
    scale = next(n for n in workflow.values() if n["class_type"] == "ImageScaleBy")
    path = server.server.base / "output" / outputs[kept]["images"][0]["filename"]
    with Image.open(path) as saved:
        assert saved.width == 64 * scale["inputs"]["scale_by"]
