"""Combine Rewards, Score Images and Latent Reward in a real server, on the embedded model."""

import json

import numpy as np
import torch
from examples import api_form, text_of
from PIL import Image

from flowsearch.rewards.pixels.shape_count import ShapeCount, parse_groups
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity

SCORE_IMAGES, COMBINE = "10 Reward Score Images", "10 Reward Combine"
PREVIEW = "9"  # of the pictures that Score Images keeps


def picture(server, saved):
    path = server.server.base / saved["type"] / saved["subfolder"] / saved["filename"]
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255.0)


def test_the_combined_example_gets_the_counts_right_and_then_the_shapes_better(server):
    """Beside the same search for counts alone, which stops at the first right picture."""
    workflow = api_form(COMBINE)
    outputs = server.run(workflow)
    prompt = next(n for n in workflow.values() if n["class_type"] == "FlowSearchShapeCount")
    counted = ShapeCount.from_groups(parse_groups(text_of(workflow, prompt)))
    saves = [i for i, n in workflow.items() if n["class_type"] == "SaveImage"]
    found = picture(server, outputs[saves[0]]["images"][0])[None]
    alone = api_form("03 Held-out")
    saved = next(i for i, n in alone.items() if n["class_type"] == "SaveImage")
    other = picture(server, server.run(alone)[saved]["images"][0])[None]
    assert counted.score(found).item() == counted.score(other).item() == 0.0
    assert ShapeFidelity().score(found).item() > ShapeFidelity().score(other).item()


def test_the_scoring_example_keeps_the_best_and_the_history_has_every_score(server):
    workflow = api_form(SCORE_IMAGES)
    (node,) = (i for i, n in workflow.items() if n["class_type"] == "FlowSearchScoreImages")
    outputs = server.run(workflow)
    text, table = outputs[node]["text"]
    pictures = json.loads(table)["pictures"]
    values = [row["value"] for row in pictures]
    kept = [row["value"] for row in pictures if row["kept"]]
    assert (len(values), len(kept)) == (16, 4)
    assert min(kept) >= sorted(values)[-4] > sorted(values)[0]
    assert "16 pictures, 4 kept" in text
    assert len(outputs[PREVIEW]["images"]) == 4


def test_a_threshold_that_none_passes_ends_well_and_runs_nothing_after_it(server):
    workflow = api_form(SCORE_IMAGES)
    (node,) = (i for i, n in workflow.items() if n["class_type"] == "FlowSearchScoreImages")
    workflow[node]["inputs"] |= {"threshold": "at_least", "threshold.value": 1.0}
    outputs = server.run(workflow)
    assert "none reaches 1" in outputs[node]["text"][0]
    assert PREVIEW not in outputs


def test_a_sum_is_calibrated_by_pictures_of_the_workflow(server):
    """Nested widgets, a socket of two types and inputs that grow, through the real server."""
    workflow = api_form(SCORE_IMAGES)
    inputs = {
        "rewards.reward0": ["5", 0],
        "rewards.reward1": ["21", 0],
        "rule": "weighted_sum",
        "rule.weights": "2, 1",
        "rule.normalisation": "calibration",
        "calibration": ["7", 0],
    }
    workflow["20"] = {"class_type": "FlowSearchCombineRewards", "inputs": inputs}
    workflow["21"] = {"class_type": "FlowSearchShapeFidelity", "inputs": {}}
    workflow["8"]["inputs"]["reward"] = ["20", 0]
    table = json.loads(server.run(workflow)["8"]["text"][1])
    pictures = table["pictures"]
    assert abs(sum(row["value"] for row in pictures)) < 1e-3, "the mean is not at zero"
    assert {*pictures[0]["parts"]} == {"shape_count", "shape_fidelity"}

    inputs["calibration"] = ["6", 0]  # a LATENT fits the socket, and not the reward
    entry = server.wait(server.queue(workflow))
    assert "needs (batch, height, width" in json.dumps(entry["status"])
    del inputs["rewards.reward0"]
    assert server.complaints(workflow)


def test_a_search_of_latents_needs_no_vae_in_the_server(server):
    workflow = api_form(COMBINE)
    search = next(n for n in workflow.values() if n["class_type"] == "FlowSearchRewardSearch")
    given = search["inputs"]
    workflow |= {
        "31": {"class_type": "RandomNoise", "inputs": {"noise_seed": 4}},
        "32": {"class_type": "BasicGuider", "inputs": {"model": given["model"],
                                                       "conditioning": given["positive"]}},
        "33": {"class_type": "FlowSearchSigmas", "inputs": {
            "interpolant": "host", "steps": 8, "shift": 1.0, "start": 1.0, "end": 0.0,
            "scheduler": "simple"}},
        "34": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "30": {"class_type": "FlowSearchLatentReward", "inputs": {"statistic": "std"}},
        "35": {"class_type": "FlowSearchSearch", "inputs": {
            "noise": ["31", 0], "guider": ["32", 0], "sampler": ["34", 0], "sigmas": ["33", 0],
            "latent_image": given["latent_image"], "reward": ["30", 0], "evaluations": 24,
            "target": "never"}},
        "36": {"class_type": "VAEDecode", "inputs": {"samples": ["35", 0], "vae": ["1", 2]}},
        "37": {"class_type": "PreviewImage", "inputs": {"images": ["36", 0]}},
    }  # fmt: skip
    words = workflow["2"]["inputs"]["text"][0]  # the node that holds the prompt
    keep = (words, "1", "2", "4", "30", "31", "32", "33", "34", "35", "36", "37")
    workflow = {name: workflow[name] for name in keep}
    assert server.run(workflow)["37"]["images"]
    # the page is told why; the image output is of no use to anyone
    workflow["37"]["inputs"]["images"] = ["35", 1]
    assert "37" not in server.run({k: v for k, v in workflow.items() if k != "36"})
