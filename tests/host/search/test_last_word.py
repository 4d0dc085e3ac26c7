"""What stays of a search on its node, in the history and in the saved picture."""

import json
import re

import host_models as hm
import pytest
import searching as s
import torch
from PIL import Image

from flowsearch.nodes.host.page.card import WIDTH, draw_card
from flowsearch.nodes.host.search import search_sampler
from flowsearch.nodes.host.search.resume import FileCheckpoint


def words(**given):
    """All outputs of a search, and what its node says and holds."""
    out = s.reward_node(hm.scene_model(), **given)
    text, data = out.ui["text"]
    return out, text.split("\n"), json.loads(data)


def test_a_node_ends_with_what_was_found_and_spent():
    out, lines, data = words(held_out={"reward0": s.Brightness(-1.0)})
    report = out.result[2]
    spent = report.trace.record["stopped"][0]["ledger"]["evaluations"]
    first = (
        f"score {report.score:.4g}, plain score {report.plain(0):.4g}; {spent} of 40 evaluations"
    )
    assert lines[0].startswith(first)
    assert lines[0].endswith(" s; the budget is used up")
    assert lines[1].startswith("held out, decided nothing: brightness -")
    (row,) = data["pictures"]
    assert row["score"] == out.result[3][0] == report.score
    assert (row["plain"], row["evaluations"]) == (report.plain(0), spent)
    assert data["evaluations"] == 40
    assert data["version"] == "0.1.0"
    assert len(out.ui["images"]) == 1


def test_warnings_are_on_the_search_node():
    _, lines, _ = words(evaluations=1)
    assert any("the budget is less than one plain sample" in line for line in lines)


def test_every_picture_has_its_score():
    """A row of the batch, and each of its runners-up."""
    given = {"latent": hm.empty_latent(2), "top_k": 3, "evaluations": 60}
    out, lines, data = words(strategy=s.strategy("best_of_n"), **given)
    latent, image, report, scores = out.result
    assert len(scores) == len(image) == len(latent["samples"]) == len(data["pictures"]) == 6
    assert scores == pytest.approx(image.mean(dim=(1, 2, 3)).tolist(), abs=1e-6)
    assert [row["item"] for row in data["pictures"]] == [0, 0, 0, 1, 1, 1]
    assert lines[0].startswith("2 pictures, 120 of 120 evaluations, ")
    assert lines[2].startswith(f"picture 2: score {report.best(1):.4g}, plain score ")


def test_fewer_than_top_k_is_said():
    out, lines, _ = words(top_k=9, evaluations=s.STEPS, strategy=s.strategy("best_of_n"))
    assert len(out.result[3]) == len(out.result[1]) == 1
    assert "top_k asks for 9 pictures; 1 different ones were finished" in lines


def test_an_answer_from_a_checkpoint_says_so_and_shows_its_picture(tmp_path, monkeypatch):
    file = FileCheckpoint(tmp_path / "run.safetensors", torch.device("cpu"))
    monkeypatch.setattr(search_sampler, "checkpoint_of_running_node", lambda *_: file)
    first, said, _ = words()
    assert not any("checkpoint" in line for line in said)
    again, lines, data = words()
    assert torch.equal(first.result[1], again.result[1])
    assert re.match(
        r"this comes from the checkpoint of an earlier run.* nothing was comp", lines[1]
    )
    assert data["from_checkpoint"]
    assert len(again.ui["images"]) == 1
    _, lines, _ = words(evaluations=60)
    assert lines[1].startswith("went on from the checkpoint of an earlier run")


def test_a_card_holds_pictures_and_words():
    tall = draw_card(["score 1", "warning: " + "word " * 40], [torch.rand(64, 64, 3)])
    assert tall.width == WIDTH
    assert tall.height > WIDTH + 100
    many = draw_card(["score"], [*torch.rand(9, 40, 60, 3)], list("123456789"))
    assert many.width == WIDTH
    assert draw_card(["x" * 4000, ""]).width == WIDTH


NODE, TEXT = "6", "three red circles and two blue squares"


def link(node, output=0):
    return [str(node), output]


def workflow(seed):
    """A search whose picture is saved."""
    search = {
        "model": link(1), "positive": link(2), "negative": link(2), "latent_image": link(4),
        "vae": link(1, 2), "reward": link(5), "seed": seed, "steps": 4, "cfg": 1.0,
        "scheduler": "simple", "denoise": 1.0, "evaluations": 12, "target": "never",
    }  # fmt: skip
    size = {"width": 64, "height": 64, "batch_size": 1}
    rows = {
        "1": ("FlowSearchLoadDemo", {}),
        "2": ("CLIPTextEncode", {"clip": link(1, 1), "text": TEXT}),
        "4": ("EmptyLatentImage", size),
        "5": ("FlowSearchShapeCount", {"prompt": TEXT}),
        NODE: ("FlowSearchRewardSearch", search),
        "8": ("SaveImage", {"images": link(6, 1), "filename_prefix": "found"}),
    }
    return {key: {"class_type": kind, "inputs": given} for key, (kind, given) in rows.items()}


def saved(server, prompt, info=None):
    """Run a workflow; its outputs, and the metadata of the picture that it saves."""
    body = {"prompt": prompt, **({"extra_data": {"extra_pnginfo": info}} if info else {})}
    entry = server.wait(server.post("/prompt", body)["prompt_id"])
    outputs = entry["outputs"]
    with Image.open(server.server.base / "output" / outputs["8"]["images"][0]["filename"]) as file:
        return outputs, {key: json.loads(text) for key, text in file.text.items()}


def test_the_score_goes_with_the_picture(server):
    info = {"workflow": {"nodes": []}}
    prompt = workflow(31)
    prompt[NODE]["_meta"] = {"title": "mine"}
    outputs, texts = saved(server, prompt, info)
    found = json.loads(outputs[NODE]["text"][1])
    assert texts["workflow"] == info["workflow"]
    assert texts["prompt"][NODE]["_meta"] == {"title": "mine", "flowsearch": found}
    assert texts["flowsearch"] == {NODE: found}
    assert found["reward"] == "shape_count"
    assert (server.server.base / "temp" / outputs[NODE]["images"][0]["filename"]).is_file()
    # the search is cached, and only the saving node runs
    prompt["8"]["inputs"]["filename_prefix"] = "again"
    again, texts = saved(server, prompt, info)
    assert again["8"]["images"][0]["filename"].startswith("again")
    assert again[NODE] == outputs[NODE]
    assert texts["prompt"][NODE]["_meta"]["flowsearch"] == found
    # another search keeps nothing of it, and a client that sends no workflow has it too
    prompt[NODE]["inputs"]["seed"] = 32
    _, texts = saved(server, prompt)
    assert "flowsearch" not in texts
    other = texts["prompt"][NODE]["_meta"]["flowsearch"]
    assert (other["seed"], found["seed"]) == (32, 31)


def test_two_searches_are_told_apart(server):
    prompt = workflow(33)
    prompt["60"] = {**prompt[NODE], "inputs": {**prompt[NODE]["inputs"], "seed": 34}}
    prompt["80"] = {"class_type": "PreviewImage", "inputs": {"images": link(60, 1)}}
    prompt["8"]["inputs"]["images"] = link(61)
    prompt["61"] = {
        "class_type": "ImageBatch",
        "inputs": {"image1": link(6, 1), "image2": link(60, 1)},
    }
    _, texts = saved(server, prompt, {"workflow": {}})
    assert {node: row["seed"] for node, row in texts["flowsearch"].items()} == {NODE: 33, "60": 34}
