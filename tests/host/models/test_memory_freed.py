"""The page's "unload models" and "free model and node cache", between searches and during one.

The server's own POST /free. A node of the foreign pack tells what the host's memory manager holds.
"""

import json
import shutil
import time
from pathlib import Path

import encoders
import pytest
from client import Client
from comfyui_version import __version__ as HOST
from foreign_pack import ForeignLoaded
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from devtools.pins import DEFAULT_HOST

WIDE = 100_000  # of the reward's network: most of its weights, all of which it reads
MEGABYTES = 2 * 2 * WIDE * encoders.SMALL["hidden_size"] * 4 / 2**20
SAME = ("id", "parent", "sigma", "key", "scores", "evaluations", "rows", "phase")
NETWORK = "CLIPModel"  # the reward's


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def link(name: int, output: int = 0) -> list:
    return [str(name), output]


LOOK = {
    "20": node(ForeignLoaded.__name__),
    "21": node("PreviewAny", source=link(20)),
}


def workflow(seed: int, evaluations: int = 8) -> dict:
    """A search by a reward with a network, which tells at its end what is loaded."""
    made = {
        "1": node("FlowSearchLoadDemo"),
        "2": node("CLIPTextEncode", clip=link(1, 1), text="three red circles"),
        "4": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "5": node("FlowSearchLoadEncoder", weights="clip"),
        "6": node("FlowSearchClipScore", encoder=link(5), prompt="three red circles"),
        "7": node(
            "FlowSearchRewardSearch", model=link(1), positive=link(2), negative=link(2),
            latent_image=link(4), vae=link(1, 2), reward=link(6), seed=seed, steps=4, cfg=1.0,
            scheduler="simple", denoise=1.0, evaluations=evaluations, target="never",
            checkpoint_seconds=0.0,
        ),
        "8": node("PreviewImage", images=link(7, 1)),
        "9": node("FlowSearchReport", report=link(7, 2)),
        "10": node("PreviewAny", source=link(9, 1)),
        **{name: dict(each) for name, each in LOOK.items()},
    }  # fmt: skip
    made["20"] = node(ForeignLoaded.__name__, after=link(7, 1))
    return made


@pytest.fixture(scope="module")
def client(server):
    """The server, with a reward's network of some size and nothing loaded."""
    place = server.server.base / "models" / "flowsearch_rewards" / "clip"
    shutil.copytree(encoders.folder("clip"), place)
    config = CLIPConfig.from_pretrained(place)
    config.vision_config.intermediate_size = WIDE
    encoders.scattered(CLIPModel(config)).save_pretrained(place)
    assert emptied(server, unload_models=True, free_memory=True)
    yield server
    shutil.rmtree(place)


def found(client: Client, outputs: dict) -> tuple:
    """What a search found: its picture, and all it tried."""
    saved = outputs["8"]["images"][0]
    path = client.server.base / saved["type"] / saved["subfolder"] / saved["filename"]
    tried = json.loads(outputs["10"]["text"][0])["evaluated"]
    with Image.open(path) as picture:
        return picture.tobytes(), [{key: row[key] for key in SAME} for row in tried]


def resident(client: Client) -> float:
    """Resident memory of the server, MB."""
    lines = Path(f"/proc/{client.server.process.pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def loaded(client: Client) -> list[str]:
    """What the host's memory manager holds now."""
    return client.run(LOOK)["21"]["text"][0].split()


def emptied(client: Client, **what: bool) -> bool:
    """Whether nothing is loaded after POST /free.

    The host obeys when it is idle; a workflow that comes before it has noticed is run first.
    """
    client.post("/free", what)
    return not (loaded(client) and loaded(client))


def test_unload_models_frees_rewards_and_the_next_search_is_the_same(client):
    first = client.run(workflow(1))
    assert NETWORK in first["21"]["text"][0].split()
    if HOST == DEFAULT_HOST:  # older ones forget a workflow when another comes
        assert NETWORK in loaded(client)
    assert emptied(client, unload_models=True)
    again = client.run(workflow(2))  # with the reward that the host kept
    assert emptied(client, unload_models=True, free_memory=True)
    assert found(client, client.run(workflow(1))) == found(client, first)
    assert found(client, client.run(workflow(2))) == found(client, again)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which Linux has")
def test_free_memory_gives_the_weights_back(client):
    client.run(workflow(3))
    before = resident(client)
    client.post("/free", {"unload_models": True, "free_memory": True})
    end = time.monotonic() + 30.0
    while before - resident(client) < 0.9 * MEGABYTES:
        assert time.monotonic() < end, f"of {before:.0f} MB {resident(client):.0f} are left"
        time.sleep(0.1)


def test_free_during_a_search_waits_for_its_end_and_changes_nothing(client):
    alone = client.run(workflow(4, 16))
    assert emptied(client, unload_models=True, free_memory=True)
    name = client.queue(workflow(4, 16))
    while not client.get("/queue")["queue_running"]:
        time.sleep(0.01)
    client.post("/free", {"unload_models": True, "free_memory": True})
    entry = client.wait(name)
    assert entry["status"]["status_str"] == "success"
    assert found(client, entry["outputs"]) == found(client, alone)
    assert NETWORK in entry["outputs"]["21"]["text"][0].split()
    assert loaded(client) == []
