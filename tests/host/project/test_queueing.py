"""Many searches at once: none is lost, none mixed up, whoever queues, cancels or restarts.

`dev.py soak` queues more of them.
"""

import json
import logging
import os
import shutil
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import encoders
import pytest
from client import Client
from PIL import Image

from devtools.server import running_host

SEARCHES = int(os.environ.get("FLOWSEARCH_SEARCHES", "8"))
WARM, THEN = (20, SEARCHES - 20) if SEARCHES > 20 else (10, 20)
TEXT = "three red circles and two blue squares"
SAME = ("id", "parent", "sigma", "key", "scores", "evaluations", "rows", "phase")


def link(node: int, output: int = 0) -> list:
    return [str(node), output]


def workflow(seed: int, **given) -> dict:
    """A small search with its picture and its report."""
    search = {
        "model": link(1), "positive": link(2), "negative": link(2), "latent_image": link(4),
        "vae": link(1, 2), "reward": link(5), "seed": seed, "steps": 4, "cfg": 1.0,
        "scheduler": "simple", "denoise": 1.0, "evaluations": 16, "target": "never",
        "checkpoint_seconds": 0.0, **given,
    }  # fmt: skip
    return {
        "1": {"class_type": "FlowSearchLoadDemo", "inputs": {}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": link(1, 1), "text": TEXT}},
        "4": {"class_type": "EmptyLatentImage",
              "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "FlowSearchShapeCount", "inputs": {"prompt": TEXT}},
        "6": {"class_type": "FlowSearchRewardSearch", "inputs": search},
        "7": {"class_type": "FlowSearchReport", "inputs": {"report": link(6, 2)}},
        "8": {"class_type": "PreviewImage", "inputs": {"images": link(6, 1)}},
        "10": {"class_type": "PreviewAny", "inputs": {"source": link(7, 1)}},
    }  # fmt: skip


def found(client: Client, entry: dict) -> tuple:
    """The scores of everything a search tried, and its picture, from a history entry."""
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    outputs = entry["outputs"]
    saved = outputs["8"]["images"][0]
    picture = client.server.base / saved["type"] / saved["subfolder"] / saved["filename"]
    report = json.loads(outputs["10"]["text"][0])
    tried = [{key: row[key] for key in SAME} for row in report["evaluated"]]
    with Image.open(picture) as image:
        return image.tobytes(), json.dumps(tried), report["calls"]


def queued(client: Client, who: str, prompts: list[dict]) -> list[str]:
    """Queue workflows in a row under a client's name; returns their ids."""
    ids = [str(uuid.uuid4()) for _ in prompts]
    for name, prompt in zip(ids, prompts, strict=True):
        body = {"prompt": prompt, "client_id": who, "prompt_id": name}
        assert client.post("/prompt", body)["prompt_id"] == name
    return ids


def started(client: Client, prompt_id: str) -> None:
    """Wait until a workflow runs."""
    end = time.monotonic() + 120.0
    while not [each for each in client.get("/queue")["queue_running"] if each[1] == prompt_id]:
        assert time.monotonic() < end, "it never ran"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone(server) -> dict[int, tuple]:
    """What a few searches find when each is queued by itself."""
    seeds = (0, 1, SEARCHES // 2, SEARCHES - 1)
    return {seed: found(server, server.wait(server.queue(workflow(seed)))) for seed in seeds}


def test_two_clients_queue_at_once_and_each_gets_its_own(server, alone):
    halves = {"one": range(0, SEARCHES, 2), "other": range(1, SEARCHES, 2)}

    def queue(who: str) -> list[str]:
        return queued(server, who, [workflow(seed) for seed in halves[who]])

    with ThreadPoolExecutor() as pool:
        ids = dict(zip(halves, pool.map(queue, halves), strict=True))
    results: dict[int, tuple] = {}
    for who, seeds in halves.items():
        for seed, name in zip(seeds, ids[who], strict=True):
            entry = server.wait(name, 60.0 + 5.0 * SEARCHES)
            assert entry["prompt"][2]["6"]["inputs"]["seed"] == seed
            assert entry["prompt"][3]["client_id"] == who
            results[seed] = found(server, entry)
    assert len(results) == SEARCHES
    assert len({picture for picture, _, _ in results.values()}) == SEARCHES, "two found the same"
    assert {seed: results[seed] for seed in alone} == alone
    assert {*ids["one"], *ids["other"]} <= {*server.get("/history")}


def test_one_is_cancelled_by_its_id_and_no_other(server, alone):
    long = workflow(0, evaluations=100_000)
    running, waiting, *others = queued(server, "me", [long, long, workflow(0), workflow(1)])
    started(server, running)
    server.post("/interrupt", {"prompt_id": others[0]})  # does not run: nothing happens
    server.post("/queue", {"delete": [waiting]})
    time.sleep(0.3)
    assert not server.get(f"/history/{running}"), "another's cancel ended it"
    server.post("/interrupt", {"prompt_id": running})
    kinds = [kind for kind, _ in server.wait(running)["status"]["messages"]]
    assert kinds[-1] == "execution_interrupted"
    for seed, name in enumerate(others):
        assert found(server, server.wait(name)) == alone[seed]
    assert not server.get(f"/history/{waiting}")


def test_after_a_restart_all_are_queued_again_and_end_as_they_would(comfyui, tmp_path, alone):
    """The running search goes on from its checkpoint; the waiting ones are their own."""
    first = workflow(77, evaluations=160)
    slow = workflow(77, evaluations=160, checkpoint_seconds=0.05)
    with running_host(Path(sys.executable), comfyui, base=tmp_path) as running:
        client = Client(running)
        uncut = found(client, client.wait(client.queue(first)))
        folder = tmp_path / "user" / "__flowsearch" / "checkpoints"
        queued(client, "me", [slow, workflow(0), workflow(1)])
        end = time.monotonic() + 60.0
        while not [*folder.glob("6-*.safetensors")]:
            assert time.monotonic() < end, "no checkpoint was written"
            time.sleep(0.02)
        running.process.kill()
        running.process.wait()
    with running_host(Path(sys.executable), comfyui, base=tmp_path) as running:
        client = Client(running)
        ids = queued(client, "me", [slow, workflow(0), workflow(1)])
        went_on, *others = (found(client, client.wait(name)) for name in ids)
    assert went_on[:2] == uncut[:2]
    assert went_on[2] < uncut[2], "what was done is not done again"
    assert others == [alone[0], alone[1]]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which Linux has")
def test_memory_stays_where_it_is(server):
    """Resident memory after many searches of one server, against that after the first few.

    Each search has a seed and a prompt of its own, and a reward with a network.
    """

    def resident(pid: int) -> float:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    place = server.server.base / "models" / "flowsearch_rewards" / "tiny-clip"
    shutil.copytree(encoders.folder("clip"), place)
    after = {}
    for number in range(WARM + THEN):
        prompt = workflow(number, evaluations=8)
        del prompt["7"], prompt["10"]  # the history keeps every text it is shown
        text = f"{1 + number % 2} red circles, {number}"
        prompt["11"] = {
            "class_type": "FlowSearchLoadEncoder",
            "inputs": {"weights": place.name},
        }
        prompt["5"] = {"class_type": "FlowSearchClipScore",
                       "inputs": {"encoder": link(11), "prompt": text}}  # fmt: skip
        server.run(prompt)
        after[number + 1] = resident(server.server.process.pid)
    marks = sorted({*range(WARM, WARM + THEN, 40), WARM + THEN})
    curve = {count: round(after[count], 1) for count in marks}
    logging.getLogger(__name__).info("MB after searches: %s", curve)
    shutil.rmtree(place)
    assert curve[WARM + THEN] <= 1.02 * curve[WARM], curve
