"""A search through the real server: outputs in the history, cancel, and going on."""

import asyncio
import json
import re
import uuid

import aiohttp
from PIL import Image

NODE = "6"
TEXT = "three red circles and two blue squares"


def link(node: int, output: int = 0) -> list:
    return [str(node), output]


def workflow(**given) -> dict:
    """Reward Search on the embedded model, with its report."""
    search = {
        "model": link(1),
        "positive": link(2),
        "negative": link(3),
        "latent_image": link(4),
        "vae": link(1, 2),
        "reward": link(5),
        "seed": 11,
        "steps": 8,
        "cfg": 1.0,
        "scheduler": "simple",
        "denoise": 1.0,
        "evaluations": 48,
        "target": "never",
        **given,
    }
    return {
        "1": {"class_type": "FlowSearchLoadDemo", "inputs": {}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": link(1, 1), "text": TEXT}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": link(1, 1), "text": ""}},
        "4": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1},
        },
        "5": {"class_type": "FlowSearchShapeCount", "inputs": {"prompt": TEXT}},
        NODE: {"class_type": "FlowSearchRewardSearch", "inputs": search},
        "7": {"class_type": "FlowSearchReport", "inputs": {"report": link(6, 2)}},
        "8": {
            "class_type": "SaveImage",
            "inputs": {"images": link(6, 1), "filename_prefix": "found"},
        },
        "9": {"class_type": "PreviewImage", "inputs": {"images": link(7)}},
        "10": {"class_type": "PreviewAny", "inputs": {"source": link(7, 1)}},
    }


def report_of(outputs: dict) -> dict:
    return json.loads(outputs["10"]["text"][0])


async def cancelled(server, prompt: dict, after: int) -> list[dict]:
    """Queue a workflow, cancel it after some evaluations; returns all messages until its end."""
    name, seen = uuid.uuid4().hex, []
    async with (
        aiohttp.ClientSession(server.url) as session,
        session.ws_connect(f"/ws?clientId={name}") as socket,
    ):
        await session.post("/prompt", json={"prompt": prompt, "client_id": name})
        pressed = False
        while True:
            message = await socket.receive(timeout=120)
            if message.type != aiohttp.WSMsgType.TEXT:
                continue
            seen.append(json.loads(message.data))
            kind, data = seen[-1]["type"], seen[-1]["data"]
            if kind == "progress" and data["node"] == NODE and data["value"] >= after:
                if not pressed:
                    await session.post("/interrupt", json={})
                pressed = True
            if kind in ("execution_interrupted", "execution_error", "execution_success"):
                return seen


def of_kind(seen: list[dict], kind: str) -> list[dict]:
    return [message["data"] for message in seen if message["type"] == kind]


def test_a_search_runs_and_its_outputs_are_in_the_history(server):
    outputs = server.run(workflow())
    saved = server.server.base / "output" / outputs["8"]["images"][0]["filename"]
    with Image.open(saved) as picture:
        assert picture.size == (64, 64)
    assert outputs["9"]["images"], "the plot"
    report = report_of(outputs)
    assert report["reward"] == "shape_count"
    assert report["stopped"][0]["ledger"]["evaluations"] <= 48
    assert report["notes"][0].startswith("item 0: reward ")


def test_strategy_and_forms_through_the_server(server):
    """Nested widgets may be left out; a Search Sampler runs in the host's own node."""
    prompt = workflow(strategy=link(11), top_k=2)
    prompt["11"] = {
        "class_type": "FlowSearchStrategy",
        "inputs": {"strategy": "best_of_n", "strategy.width": 2, "chains": 1, "rows_per_call": 0},
    }
    outputs = server.run(prompt)
    assert len(outputs["8"]["images"]) == 2
    assert report_of(outputs)["started"][0]["settings"]["strategy"]["width"] == 2
    sampler = {
        "1": prompt["1"],
        "2": prompt["2"],
        "4": prompt["4"],
        "5": prompt["5"],
        "20": {"class_type": "BasicGuider", "inputs": {"model": link(1), "conditioning": link(2)}},
        "21": {"class_type": "RandomNoise", "inputs": {"noise_seed": 4}},
        "22": {
            "class_type": "FlowSearchStochasticSampler",
            "inputs": {"transition": "exact", "interpolant": "linear"},
        },
        "23": {
            "class_type": "FlowSearchSearchSampler",
            "inputs": {
                "sampler": link(22),
                "vae": link(1, 2),
                "reward": link(5),
                "evaluations": 30,
                "target": "value",
                "target.value": -1.0,
            },
        },
        "24": {
            "class_type": "BasicScheduler",
            "inputs": {"model": link(1), "scheduler": "simple", "steps": 8, "denoise": 1.0},
        },
        "25": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": link(21),
                "guider": link(20),
                "sampler": link(23),
                "sigmas": link(24),
                "latent_image": link(4),
            },
        },
        "26": {"class_type": "VAEDecode", "inputs": {"samples": link(25), "vae": link(1, 2)}},
        "27": {"class_type": "PreviewImage", "inputs": {"images": link(26)}},
    }
    assert server.run(sampler)["27"]["images"]


def test_cancel_leaves_a_picture_and_queueing_again_goes_on(server):
    given = {"evaluations": 96, "seed": 12}
    seen = asyncio.run(cancelled(server, workflow(**given), after=40))
    assert of_kind(seen, "execution_interrupted")
    assert {data["max"] for data in of_kind(seen, "progress") if data["node"] == NODE} == {96}
    shown = [data for data in of_kind(seen, "executed") if data["node"] == NODE]
    base, output = server.server.base, shown[-1]["output"]
    (card,), (text, files) = output["images"], output["text"]
    assert (base / "temp" / card["filename"]).is_file()
    (name,) = json.loads(files)["files"]
    assert re.match(r"cancelled; after \d+ of 96 evaluations; best score ", text)
    assert f"temp folder: {name}\nqueue the same again to go on from there" in text
    assert (base / "temp" / name).is_file()
    assert [*(base / "user" / "__flowsearch" / "checkpoints").glob(f"{NODE}-*.safetensors")]
    went_on = report_of(server.run(workflow(**given)))
    # another top_k: nothing is cached or kept for it, and the same candidates are drawn
    uncut = report_of(server.run(workflow(**given, top_k=2)))
    assert went_on["calls"] < uncut["calls"], "what was done is not done again"
    same = ("id", "parent", "sigma", "key", "scores", "evaluations")
    first, second = (
        [{key: row[key] for key in same} for row in run["evaluated"]] for run in (went_on, uncut)
    )
    assert first == second


def test_another_budget_or_target_goes_on_where_it_was(server):
    """Each of these is queued after the one before, and draws nothing twice."""
    given = {"seed": 13, "steps": 4, "strategy": link(11), "cfg": 2.0}
    limits = [
        {"evaluations": 20},
        {"evaluations": 45},
        {"evaluations": 200, "rows": 120, "reward_calls": 60},
        {"evaluations": 90, "target": "value", "target.value": 5.0},
        {"evaluations": 135, "target": "top", "target.percent": 0.2, "checkpoint_seconds": 5.0},
    ]
    before = []
    for limit in limits:
        prompt = workflow(**given, **limit)
        prompt["11"] = {
            "class_type": "FlowSearchStrategy",
            "inputs": {"strategy": "best_of_n", "strategy.width": 2},
        }
        prompt["5"]["inputs"]["prompt"] = "six green circles and six yellow squares"  # never right
        report = report_of(server.run(prompt))
        drawn = [(row["id"], row["key"], row["phase"]) for row in report["evaluated"]]
        (stopped,) = report["stopped"]
        assert drawn[: len(before)] == before
        assert len(drawn) > len(before)
        assert sum(row["rows"] for row in report["evaluated"]) == stopped["ledger"]["rows"]
        assert stopped["ledger"]["rows"] <= limit.get("rows", 1e9)
        assert stopped["ledger"]["evaluations"] <= limit["evaluations"]
        assert not any("afresh" in note for note in report["notes"])
        assert any("continued" in note for note in report["notes"]) == bool(before)
        before = drawn
    assert "calibrate" in {phase for _, _, phase in before}
    assert any("top 0.2 % is a reward of" in note for note in report["notes"])


def test_a_few_evaluations_give_a_picture_and_say_so(server):
    report = report_of(server.run(workflow(evaluations=2, seed=14)))
    assert report["stopped"][0]["ledger"]["evaluations"] == 2
    assert any("thinned to 2" in note for note in report["notes"])


def test_a_refusal_reaches_the_user_as_a_sentence(server):
    entry = server.wait(server.queue(workflow(denoise=0.0)))
    (error,) = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    assert "raise denoise or the steps" in error["exception_message"]


def test_latents_that_do_not_fit_are_refused_before_anything_is_computed(server):
    """The host's default latent on the embedded model, in a search and in the host's own node."""
    prompt = workflow()
    prompt["4"]["inputs"] |= {"width": 512, "height": 512}
    stock = {key: prompt[key] for key in ("1", "2", "3", "4")}
    inputs = prompt[NODE]["inputs"]
    names = ("model", "positive", "negative", "latent_image", "seed", "steps", "cfg", "scheduler")
    given = {name: inputs[name] for name in (*names, "denoise")}
    stock["20"] = {"class_type": "KSampler", "inputs": {**given, "sampler_name": "euler"}}
    stock["21"] = {"class_type": "VAEDecode", "inputs": {"samples": link(20), "vae": link(1, 2)}}
    stock["22"] = {"class_type": "PreviewImage", "inputs": {"images": link(21)}}
    for graph in (prompt, stock):
        entry = server.wait(server.queue(graph))
        (error,) = (data for kind, data in entry["status"]["messages"] if kind == "execution_error")
        assert (
            "makes pictures of 64 x 64 and was given latents of 512 x 512"
            in (error["exception_message"])
        )
        assert "Connect the latent of Load Demo Model" in error["exception_message"]
    prompt["4"]["inputs"] |= {"width": 64, "height": 64}
    prompt[NODE]["inputs"]["latent_image"] = link(1, 3)
    assert server.run(prompt)["8"]["images"], "its own latent fits"
