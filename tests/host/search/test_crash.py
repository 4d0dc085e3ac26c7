"""A server that is killed loses nothing: the same workflow goes on to the same bits.

The kills are at seeded moments of one run, so each resumes what the one before left; every second
one waits for a checkpoint to be half written. `dev.py soak` asks for more of them.
"""

import asyncio
import json
import logging
import os
import random
import sys
import time
import uuid
from pathlib import Path

import aiohttp
from client import Client
from safetensors.torch import load_file

from devtools.server import running_host

KILLS = int(os.environ.get("FLOWSEARCH_KILLS", "3"))
EVALUATIONS = 240
NODE = "6"
TEXT = "three red circles and two blue squares"
SAME = ("id", "parent", "sigma", "key", "scores", "evaluations", "rows", "phase")


def link(node: int, output: int = 0) -> list:
    return [str(node), output]


def workflow(checkpoint_seconds: float) -> dict:
    """Reward Search on two rows, with its latents and its report."""
    search = {
        "model": link(1),
        "positive": link(2),
        "negative": link(2),
        "latent_image": link(4),
        "vae": link(1, 2),
        "reward": link(5),
        "seed": 31,
        "steps": 8,
        "cfg": 1.0,
        "scheduler": "simple",
        "denoise": 1.0,
        "evaluations": EVALUATIONS // 2,
        "target": "top",
        "target.percent": 0.1,
        "top_k": 2,
        "checkpoint_seconds": checkpoint_seconds,
    }
    return {
        "1": {"class_type": "FlowSearchLoadDemo", "inputs": {}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": link(1, 1), "text": TEXT}},
        "4": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 2},
        },
        "5": {"class_type": "FlowSearchShapeCount", "inputs": {"prompt": TEXT}},
        NODE: {"class_type": "FlowSearchRewardSearch", "inputs": search},
        "7": {"class_type": "FlowSearchReport", "inputs": {"report": link(6, 2)}},
        "8": {
            "class_type": "SaveLatent",
            "inputs": {"samples": link(6), "filename_prefix": "crash"},
        },
        "10": {"class_type": "PreviewAny", "inputs": {"source": link(7, 1)}},
    }


def outcome(client: Client, prompt: dict) -> tuple:
    """Run to the end; returns the latents, what was tried, and the report."""
    outputs = client.run(prompt)
    saved = outputs["8"]["latents"][0]
    file = client.server.base / "output" / saved["subfolder"] / saved["filename"]
    report = json.loads(outputs["10"]["text"][0])
    tried = sorted(
        ([row["item"], *(row[key] for key in SAME)] for row in report["evaluated"]),
        key=lambda row: row[:2],
    )
    return load_file(file)["latent_tensor"], tried, report


def half_written(folder: Path) -> list[str]:
    """Files of a checkpoint that is being written: ours, and the one safetensors writes first."""
    there = os.listdir(folder) if folder.is_dir() else []
    return [name for name in there if not name.endswith(".safetensors")]


def wait_for_a_save(folder: Path) -> bool:
    """Wait until a file appears that was not there; False where none did."""
    before, end = {*half_written(folder)}, time.monotonic() + 3.0
    while time.monotonic() < end:
        if {*half_written(folder)} - before:
            return True
    return False


async def killed(
    client: Client, prompt: dict, after: int, delay: float, saving: Path | None
) -> bool:
    """Queue a workflow and kill -9 the server after some evaluations; True: in a save."""
    name = uuid.uuid4().hex
    async with (
        aiohttp.ClientSession(client.url) as session,
        session.ws_connect(f"/ws?clientId={name}") as socket,
    ):
        await session.post("/prompt", json={"prompt": prompt, "client_id": name})
        while True:
            message = await socket.receive(timeout=120)
            if message.type != aiohttp.WSMsgType.TEXT:
                continue
            kind, data = (json.loads(message.data)[key] for key in ("type", "data"))
            assert kind not in ("execution_error", "execution_success"), data
            if kind == "progress" and data["node"] == NODE and data["value"] >= after:
                time.sleep(delay)
                inside = saving is not None and wait_for_a_save(saving)
                client.server.process.kill()
                client.server.process.wait()
                return inside


def test_a_killed_server_goes_on_to_the_same_bits(comfyui, tmp_path):
    rng = random.Random(20261121)
    moments = sorted(rng.randrange(1, EVALUATIONS - 8) for _ in range(KILLS))
    expected, inside = None, 0
    for number, moment in enumerate([*moments, None]):
        with running_host(sys.executable, comfyui, base=tmp_path) as running:
            client = Client(running)
            folder = tmp_path / "user" / "__flowsearch" / "checkpoints"
            if number == 0:
                expected = outcome(client, workflow(checkpoint_seconds=0.0))
                assert not folder.exists()
            if moment is not None:
                prompt = workflow(checkpoint_seconds=0.1)
                saving = folder if number % 2 else None
                inside += asyncio.run(killed(client, prompt, moment, rng.random() * 0.1, saving))
                continue
            assert [*folder.glob(f"{NODE}-*.safetensors")]
            left = len(half_written(folder))
            latents, tried, report = outcome(client, workflow(checkpoint_seconds=0.1))
    logging.getLogger(__name__).info(
        "%d kills, %d in a save, %d files half written", KILLS, inside, left
    )
    assert inside or KILLS < 2, "no kill met a save"
    assert left <= KILLS
    assert latents.equal(expected[0])
    assert tried == expected[1]
    assert report["calls"] < expected[2]["calls"], "what was done is not done again"
    assert not any("afresh" in note for note in report["notes"])
    assert sum(row["ledger"]["evaluations"] for row in report["stopped"]) <= EVALUATIONS
