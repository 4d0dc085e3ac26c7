"""The example workflows run in a real server; the first finds what it was asked for.

Those for large models are validated by the server and not run, for their weights are not here.
"""

import numpy as np
import pytest
import torch
from examples import FOLDER, api_form, editor_form, named_weights, read, text_of
from PIL import Image

from flowsearch.rewards.pixels.shape_count import ShapeCount, count_shapes, parse_groups
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity

FORMS = sorted((FOLDER / "api").glob("*.json"))


# numbers that only say how long a workflow takes
ENOUGH = {"steps": 6, "evaluations": 24, "nodes": 4, "noises": 1, "amount": 2, "batch_size": 2}


def shortened(workflow):
    """The same workflow with less to compute."""

    def fewer(inputs):
        small = {
            k: min(v, ENOUGH[k]) for k, v in inputs.items() if k in ENOUGH and isinstance(v, int)
        }
        return {**inputs, **small}

    return {key: {**node, "inputs": fewer(node["inputs"])} for key, node in workflow.items()}


@pytest.mark.parametrize("file", FORMS, ids=lambda file: file.stem)
def test_an_example_runs_or_lacks_nothing_but_its_weights(server, file):
    """It is accepted as it is, and runs with fewer steps; some run whole below."""
    workflow = read(file)
    if named := named_weights(workflow):
        assert server.complaints(workflow) == named
        return
    runs, accepted = server.queue(shortened(workflow)), server.queue(workflow)
    server.post("/queue", {"delete": [accepted]})
    server.post("/interrupt", {"prompt_id": accepted})
    entry = server.wait(runs)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    assert any("images" in output for output in entry["outputs"].values())


def test_a_mistake_beside_missing_weights_is_seen(server):
    workflow = api_form("05 Interpolant Conversion, SD3.5")
    sampler = next(node for node in workflow.values() if node["class_type"] == "KSampler")
    sampler["inputs"]["scheduler"] = "no such scheduler"
    found = server.complaints(workflow)
    assert found.pop(("KSampler", "scheduler")) == "value_not_in_list"
    assert found == named_weights(workflow)


def test_the_first_example_finds_three_red_circles_and_two_blue_squares(server):
    workflow = api_form("01 ")
    # another seed than the pinned one, so that nothing is answered from the cache
    workflow["6"]["inputs"]["seed"] += 1
    saved = server.run(workflow)["7"]["images"][0]
    path = server.server.base / "output" / saved["subfolder"] / saved["filename"]
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255.0
    wanted = parse_groups(text_of(workflow, workflow["5"]))
    assert wanted == ((3, "red", "circle"), (2, "blue", "square"))
    assert ShapeCount.from_groups(wanted).score(torch.from_numpy(pixels)[None]).item() == 0.0


def picture(server, saved):
    path = server.server.base / saved["type"] / saved["subfolder"] / saved["filename"]
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255.0)


def node_titled(name, title):
    """A node's id, by its title in the editor, or that of the save or preview node."""
    nodes = editor_form(name)["nodes"]
    (found,) = (n for n in nodes if n.get("title") == title and n["type"].endswith("Image"))
    return str(found["id"])


def test_an_upscale_with_a_search_is_better_than_without(server):
    workflow = api_form("03 Search inside")
    outputs = server.run(workflow)
    plain, found = (
        picture(server, outputs[node_titled("03 Search inside", title)]["images"][0])[None]
        for title in ("Without a search", "With a search")
    )
    wanted = next(n for n in workflow.values() if n["class_type"] == "FlowSearchShapeCount")
    reward = ShapeCount.from_groups(parse_groups(text_of(workflow, wanted)))
    assert plain.shape == found.shape == (1, 96, 96, 3)
    assert reward.score(plain).item() < reward.score(found).item() == 0.0
    assert ShapeFidelity().score(found).item() > ShapeFidelity().score(plain).item()


def test_what_the_model_is_asked_for_is_taken_out_again_by_a_reward(server):
    workflow = api_form("03 Concept erasure")
    for node in ("6", "10"):
        workflow[node]["inputs"]["seed"] += 1
    outputs = server.run(workflow)
    plain, found = (
        picture(server, outputs[node_titled("03 Concept erasure", title)]["images"][0])[None]
        for title in ("Without the search", "With the search")
    )
    assert count_shapes(plain[0].numpy())["blue", "square"] > 0
    assert count_shapes(found[0].numpy()) == {("red", "circle"): 2}
    wanted = parse_groups(workflow["5"]["inputs"]["prompt"])
    assert wanted == ((2, "red", "circle"), (0, "blue", "square"))
    assert ShapeCount.from_groups(wanted).score(found).item() == 0.0


def test_the_replayed_winner_is_the_winner_and_another_prompt_keeps_its_places(server):
    workflow = api_form("03 Replay")
    outputs = server.run(workflow)
    winner, again, other = (
        picture(server, outputs[node_titled("03 Replay", title)]["images"][0])
        for title in ("The winner", "The winner again", "From there with another prompt")
    )
    assert float((winner - again).abs().max()) <= 1.0 / 255.0
    assert float((winner - other).abs().max()) > 0.5
    inked = [(each.min(dim=-1).values < 0.6).float() for each in (winner, other)]
    shared = float((inked[0] * inked[1]).sum() / inked[0].sum())
    assert shared > 0.6, "the shapes stand elsewhere"


def test_the_held_out_example_reports_beside_the_count(server):
    workflow = api_form("03 Held-out")
    outputs = server.run(workflow)
    family = outputs[node_titled("03 Held-out", "Family of the winner")]["images"]
    assert len(family) > 3
    assert picture(server, family[-1]).shape == (64, 64, 3)


def test_the_papers_pipeline_in_one_node_and_spelled_out_ends_in_the_same_picture(server):
    found = []
    for name in ("02 RBF Search, as published.", "02 RBF Search, as published, spelled"):
        workflow = api_form(name)
        (search,) = (key for key, node in workflow.items() if "evaluations" in node["inputs"])
        workflow[search]["inputs"]["evaluations"] = 100
        workflow["saved"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [search, 1], "filename_prefix": "pipeline"},
        }
        found.append(picture(server, server.run(workflow)["saved"]["images"][0]))
    assert torch.equal(*found)
    assert float(found[0].std()) > 0.1, "there is nothing in the picture"
