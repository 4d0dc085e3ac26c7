"""The demo: queue the first example workflow in a running host, watch it, write the pictures.

    python scripts/demo.py URL OUTPUT_FOLDER [--seeds N]

``dev.py demo`` starts the host and runs this. It writes the picture that Reward Search found, a
sheet (the same prompt, seed and budget: Euler, Best-of-N, RBF, Reward Search, each with its reward
and the evaluations that it used of the budget) and the curve of the report. Evaluations are those
of the searches' reports; rewards are counted again here, from the saved pictures. With --seeds
Reward Search is queued for that many other seeds instead, and how many are right is printed (the
model card has it for 20).
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import io
import json
import struct
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import numpy as np
import torch
from PIL import Image, ImageDraw

from devtools.pack import ROOT, load_pack

load_pack()

from flowsearch.rewards.pixels.shape_count import ShapeCount, parse_groups  # noqa: E402

WORKFLOW = ROOT / "example_workflows" / "api" / "01 Reward Search, start here.json"
CARD = ROOT / "demo" / "model_card.json"
SEARCH = "FlowSearchRewardSearch"
SAVE, PLOT, RECORD = "save", "plot", "record"
"""Nodes that are added to a workflow for its picture, the report's curve, and the report."""
EULER_STEPS = 20
Prompt = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What came of one workflow.

    Attributes:
        title: What ran.
        picture: The finished picture.
        reward: Counted again from it.
        used: Evaluations.
        budget: Evaluations it could have used; None where there is nothing to be searched.
    """

    title: str
    picture: Image.Image
    reward: float
    used: int
    budget: int | None

    @property
    def cost(self) -> str:
        """Evaluations, in words."""
        of = "" if self.budget is None else f" of {self.budget}"
        return f"{self.used}{of} evaluations"


def node_of(workflow: Prompt, kind: str) -> str:
    """The id of the one node of a class."""
    (found,) = (name for name, node in workflow.items() if node["class_type"] == kind)
    return found


def needed(workflow: Prompt, name: str) -> Prompt:
    """What a node is made from, without itself."""
    links = [value for value in workflow[name]["inputs"].values() if isinstance(value, list)]
    found: Prompt = {}
    for source, _ in links:
        found |= needed(workflow, source) | {source: copy.deepcopy(workflow[source])}
    return found


def wanted_of(workflow: Prompt) -> str:
    """The text that the search's reward is given, followed to the node in which it is written."""
    reward, _ = workflow[node_of(workflow, SEARCH)]["inputs"]["reward"]
    value = workflow[reward]["inputs"]["prompt"]
    while isinstance(value, list):
        inputs = workflow[value[0]]["inputs"]
        value = next(inputs[key] for key in ("value", "text", "string") if key in inputs)
    return value


def searched(workflow: Prompt, kind: str = SEARCH, **inputs: Any) -> Prompt:
    """The workflow's search, or another node in its place, with its picture and its report."""
    name = node_of(workflow, SEARCH)
    node = {"class_type": kind, "inputs": workflow[name]["inputs"] | inputs}
    report = {"class_type": "FlowSearchReport", "inputs": {"report": [name, 2]}}
    return {
        **needed(workflow, name),
        name: node,
        SAVE: {
            "class_type": "SaveImage",
            "inputs": {"images": [name, 1], "filename_prefix": "FlowSearch"},
        },
        "report": report,
        PLOT: {"class_type": "PreviewImage", "inputs": {"images": ["report", 0]}},
        RECORD: {"class_type": "PreviewAny", "inputs": {"source": ["report", 1]}},
    }


def variants(workflow: Prompt) -> dict[str, Prompt]:
    """The runs of the sheet, from the workflow of the search.

    Args:
        workflow: The first example workflow in API form.

    Returns:
        Title to workflow: Euler, and three searches with the same budget, Reward Search the last.
    """
    name = node_of(workflow, SEARCH)
    inputs = workflow[name]["inputs"]
    keep = ("model", "positive", "negative", "latent_image", "seed", "cfg", "scheduler", "denoise")
    sampled = {key: inputs[key] for key in keep}
    euler = {
        **needed(workflow, name),
        name: {
            "class_type": "KSampler",
            "inputs": sampled | {"steps": EULER_STEPS, "sampler_name": "euler"},
        },
        "decode": {
            "class_type": "VAEDecode",
            "inputs": {"samples": [name, 0], "vae": inputs["vae"]},
        },
        SAVE: {
            "class_type": "SaveImage",
            "inputs": {"images": ["decode", 0], "filename_prefix": "FlowSearch"},
        },
    }
    strategy = {"class_type": "FlowSearchStrategy", "inputs": {"strategy": "best_of_n"}}
    best_of_n = {"best_of_n": strategy, **searched(workflow, strategy=["best_of_n", 0])}
    return {
        f"Euler, {EULER_STEPS} steps": euler,
        "Best-of-N": best_of_n,
        "RBF Search": searched(workflow, "FlowSearchRBFSearch", rbf="adaptive"),
        "Reward Search": searched(workflow),
    }


class Host:
    """A running ComfyUI, over HTTP and websocket.

    Args:
        session: Of aiohttp.
        url: Where it answers.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url, self.client = session, url, uuid.uuid4().hex

    async def run(self, title: str, prompt: Prompt) -> dict[str, Any]:
        """Queue a workflow and wait for it, showing a progress bar.

        Args:
            title: Shown before the bar.
            prompt: The workflow in API form.

        Returns:
            Node id to its outputs, from the host's history.

        Raises:
            SystemExit: The host refused the workflow, or a node failed; with its message.
        """
        socket = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={self.client}"
        async with self.session.ws_connect(socket, max_msg_size=0) as events:
            body = {"prompt": prompt, "client_id": self.client}
            async with self.session.post(f"{self.url}/prompt", json=body) as answer:
                reply = await answer.json()
            if "prompt_id" not in reply:
                raise SystemExit(f"the host refused the workflow: {json.dumps(reply, indent=1)}")
            job = reply["prompt_id"]
            await self._watch(events, title, job)
        while True:  # the history is written a moment after the last message
            async with self.session.get(f"{self.url}/history/{job}") as answer:
                history = await answer.json()
            if job in history:
                return history[job]["outputs"]
            await asyncio.sleep(0.1)

    async def _watch(self, events: Any, title: str, job: str) -> None:
        """Read events until the job ends."""
        text, done, total = "", 0, 1
        async for event in events:
            if event.type == aiohttp.WSMsgType.BINARY:
                text = progress_text(event.data) or text
            elif event.type == aiohttp.WSMsgType.TEXT:
                message = json.loads(event.data)
                data = message.get("data", {})
                if data.get("prompt_id", job) != job:
                    continue
                if message["type"] == "progress":
                    done, total = data["value"], data["max"]
                elif message["type"] == "execution_error":
                    print()
                    raise SystemExit(f"{data['node_type']}: {data['exception_message']}")
                elif message["type"] == "execution_success":
                    start = "\r" if sys.stdout.isatty() else ""
                    print(f"{start}{title:34s} [{'#' * 30}] {text:40s}")
                    return
            if not sys.stdout.isatty():
                continue
            bar = "#" * round(30 * done / max(total, 1))
            print(f"\r{title:34s} [{bar:30s}] {text:40s}", end="", flush=True)

    async def picture(self, outputs: dict[str, Any], node: str) -> Image.Image:
        """Fetch the first picture that a node saved or previewed."""
        where = urlencode(outputs[node]["images"][0])
        async with self.session.get(f"{self.url}/view?{where}") as answer:
            return Image.open(io.BytesIO(await answer.read())).convert("RGB")


def progress_text(data: bytes) -> str:
    """The text of a progress-text event of the host, empty for other events (previews)."""
    if len(data) < 8 or struct.unpack(">I", data[:4])[0] != 3:
        return ""
    length = struct.unpack(">I", data[4:8])[0]
    lines = data[8 + length :].decode("utf-8", "replace").splitlines()
    return lines[0] if lines else ""


def reward_of(picture: Image.Image, wanted: str) -> float:
    """Count a picture again."""
    pixels = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)
    return ShapeCount.from_groups(parse_groups(wanted)).score(pixels[None]).item()


def used_of(outputs: dict[str, Any]) -> int:
    """Evaluations that a search's report counts."""
    record = json.loads(outputs[RECORD]["text"][0])
    return sum(row["ledger"]["evaluations"] for row in record["stopped"])


def sheet(runs: Sequence[Run], wanted: str) -> Image.Image:
    """Pictures side by side, enlarged, each with what ran, what it used, and its reward."""
    side, top = 256, 32
    page = Image.new("RGB", ((side + 8) * len(runs) + 8, top + side + 70), "white")
    pen = ImageDraw.Draw(page)
    pen.text((8, 8), wanted, fill="black", font_size=16)
    for column, run in enumerate(runs):
        left = 8 + column * (side + 8)
        page.paste(run.picture.resize((side, side), Image.Resampling.NEAREST), (left, top))
        pen.rectangle((left, top, left + side - 1, top + side - 1), outline="gray")
        for line, text in enumerate((run.title, run.cost, f"reward {run.reward:g}")):
            where = (left, top + side + 6 + 20 * line)
            pen.text(where, text, fill="black", font_size=16 if line == 0 else 14)
    return page


async def other_seeds(url: str, number: int) -> None:
    """Run the search with other seeds and print how many end at reward 0.

    Args:
        url: Where the host answers.
        number: How many seeds, from the pinned one upward.
    """
    workflow: Prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    wanted = wanted_of(workflow)
    first = workflow[node_of(workflow, SEARCH)]["inputs"]["seed"]
    found = 0
    async with aiohttp.ClientSession() as session:
        host = Host(session, url.rstrip("/"))
        for seed in range(first + 1, first + 1 + number):
            outputs = await host.run(f"seed {seed}", searched(workflow, seed=seed))
            found += reward_of(await host.picture(outputs, SAVE), wanted) == 0
    print(f"{found} of {number} other seeds found it")


async def main(url: str, folder: Path) -> None:
    """Run the demo.

    Args:
        url: Where the host answers.
        folder: Where pictures are written.
    """
    workflow: Prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    wanted = wanted_of(workflow)
    budget = workflow[node_of(workflow, SEARCH)]["inputs"]["evaluations"]
    folder.mkdir(parents=True, exist_ok=True)
    print(f"prompt: {wanted}; {budget} evaluations for each search")
    runs: list[Run] = []
    async with aiohttp.ClientSession() as session:
        host = Host(session, url.rstrip("/"))
        for title, prompt in variants(workflow).items():
            start = time.time()
            outputs = await host.run(title, prompt)
            picture = await host.picture(outputs, SAVE)
            cost = (used_of(outputs), budget) if RECORD in outputs else (EULER_STEPS, None)
            runs.append(Run(title, picture, reward_of(picture, wanted), *cost))
            seconds = time.time() - start
            print(f"{'':34s}  reward {runs[-1].reward:g}, {runs[-1].cost}, {seconds:.1f} s")
        curve = await host.picture(outputs, PLOT)
    files = [folder / name for name in ("picture.png", "sheet.png", "curve.png")]
    for file, drawn in zip(files, (runs[-1].picture, sheet(runs, wanted), curve), strict=True):
        drawn.save(file)
    print(f"written: {', '.join(map(str, files))}")
    if CARD.is_file():
        seeds = json.loads(CARD.read_text(encoding="utf-8"))["demo_seeds"]
        print(
            f"The seed is pinned; of {seeds['seeds']} other seeds, {seeds['found']} find it "
            "(demo/MODEL_CARD.md)."
        )
    if runs[-1].reward != 0:
        raise SystemExit(f"Reward Search ended at reward {runs[-1].reward:g}; 0 was expected")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=0)
    options = parser.parse_args()
    if options.seeds:
        asyncio.run(other_seeds(options.url, options.seeds))
    else:
        asyncio.run(main(options.url, options.folder))
