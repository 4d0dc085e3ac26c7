"""The demo: queue the first example workflow in a running host, watch it, write the pictures.

    python scripts/demo.py URL OUTPUT_FOLDER [--seeds N]

``dev.py demo`` starts the host and runs this. It writes the picture that the search found, a sheet
(the same prompt and seed: Euler, Best-of-N, RBF, each with its reward) and the curve of the report.
The rewards on the sheet are counted again here, from the saved pictures. With --seeds the search is
queued for that many other seeds instead, and how many are right is printed (the model card has it
for 20).
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
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import numpy as np
import torch
from PIL import Image, ImageDraw

from devtools.pack import ROOT, load_pack

load_pack()

from flowsearch.rewards.shape_count import ShapeCount, parse_groups  # noqa: E402

WORKFLOW = ROOT / "example_workflows" / "api" / "01_search_counted_shapes.json"
CARD = ROOT / "demo" / "model_card.json"
SEARCH, SAVE, PLOT, REWARD = "6", "7", "9", "5"
EULER_STEPS = 20
Prompt = dict[str, Any]


def variants(search: Prompt) -> dict[str, Prompt]:
    """The three runs of the sheet, from the workflow of the search.

    Args:
        search: The first example workflow in API form.

    Returns:
        Title to workflow: Euler, Best-of-N at the search's evaluations, the search itself.
    """
    inputs = search[SEARCH]["inputs"]
    euler, best_of_n = copy.deepcopy(search), copy.deepcopy(search)
    keep = ("model", "positive", "negative", "latent_image", "seed", "cfg", "scheduler", "denoise")
    euler[SEARCH] = {
        "class_type": "KSampler",
        "inputs": {key: inputs[key] for key in keep}
        | {"steps": EULER_STEPS, "sampler_name": "euler"},
    }
    euler["10"] = {
        "class_type": "VAEDecode",
        "inputs": {"samples": [SEARCH, 0], "vae": inputs["vae"]},
    }
    euler[SAVE]["inputs"]["images"] = ["10", 0]
    for node in ("8", PLOT):
        del euler[node]
    best_of_n["10"] = {"class_type": "FlowSearchStrategy", "inputs": {"strategy": "best_of_n"}}
    best_of_n[SEARCH]["inputs"] |= {"strategy": ["10", 0]}
    return {
        f"Euler, {EULER_STEPS} steps": euler,
        f"Best-of-N, {inputs['evaluations']} evaluations": best_of_n,
        f"RBF, {inputs['evaluations']} evaluations": search,
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


def sheet(pictures: dict[str, Image.Image], rewards: dict[str, float], wanted: str) -> Image.Image:
    """Pictures side by side, enlarged, each with its title and reward."""
    side, head = 256, 44
    page = Image.new(
        "RGB", (side * len(pictures) + 8 * (len(pictures) + 1), side + head + 34), "white"
    )
    pen = ImageDraw.Draw(page)
    pen.text((8, 8), wanted, fill="black", font_size=16)
    for column, (title, picture) in enumerate(pictures.items()):
        left = 8 + column * (side + 8)
        big = picture.resize((side, side), Image.Resampling.NEAREST)
        page.paste(big, (left, 32))
        pen.rectangle((left, 32, left + side - 1, 32 + side - 1), outline="gray")
        pen.text((left, side + 38), title, fill="black", font_size=14)
        pen.text((left, side + 56), f"reward {rewards[title]:g}", fill="black", font_size=14)
    return page


async def other_seeds(url: str, number: int) -> None:
    """Run the search with other seeds and print how many end at reward 0.

    Args:
        url: Where the host answers.
        number: How many seeds, from the pinned one upward.
    """
    search: Prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    wanted, first = search[REWARD]["inputs"]["prompt"], search[SEARCH]["inputs"]["seed"]
    found = 0
    async with aiohttp.ClientSession() as session:
        host = Host(session, url.rstrip("/"))
        for seed in range(first + 1, first + 1 + number):
            search[SEARCH]["inputs"]["seed"] = seed
            outputs = await host.run(f"seed {seed}", search)
            found += reward_of(await host.picture(outputs, SAVE), wanted) == 0
    print(f"{found} of {number} other seeds found it")


async def main(url: str, folder: Path) -> None:
    """Run the demo.

    Args:
        url: Where the host answers.
        folder: Where pictures are written.
    """
    search: Prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    wanted = search[REWARD]["inputs"]["prompt"]
    folder.mkdir(parents=True, exist_ok=True)
    print(f"prompt: {wanted}")
    pictures: dict[str, Image.Image] = {}
    async with aiohttp.ClientSession() as session:
        host = Host(session, url.rstrip("/"))
        for title, prompt in variants(search).items():
            start = time.time()
            outputs = await host.run(title, prompt)
            pictures[title] = await host.picture(outputs, SAVE)
            found = reward_of(pictures[title], wanted)
            print(f"{'':34s}  reward {found:g}, {time.time() - start:.1f} s")
        curve = await host.picture(outputs, PLOT)
    rewards = {title: reward_of(picture, wanted) for title, picture in pictures.items()}
    pictures[title].save(folder / "picture.png")
    sheet(pictures, rewards, wanted).save(folder / "sheet.png")
    curve.save(folder / "curve.png")
    print(f"written: {folder / 'picture.png'}, {folder / 'sheet.png'}, {folder / 'curve.png'}")
    if CARD.is_file():
        seeds = json.loads(CARD.read_text(encoding="utf-8"))["demo_seeds"]
        print(
            f"The seed is pinned; of {seeds['seeds']} other seeds, {seeds['found']} find it "
            "(demo/MODEL_CARD.md)."
        )
    if rewards[title] != 0:
        raise SystemExit(f"the search ended at reward {rewards[title]:g}; 0 was expected")


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
