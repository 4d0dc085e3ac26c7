"""How fast are the rewards, what memory do they take, and what part of a search?

    python scripts/dev.py bench rewards [--quick] [--only NAME ...] [--json FILE]

Networks have their true sizes and random weights, which cost what trained ones cost: float32 on a
CPU, as the host's rules say, bfloat16 on a GPU. Each reward runs in a process of its own on
pictures of 512 x 512. The table gives pictures a second in batches of 1, 8 and 32; the ratio of
scoring eight pictures to the bare network's forward on prepared input, the two in turn; the peak of
the process's memory (of the GPU's where there is one); and the reward's share of a search of 24
evaluations on the embedded model, whose own evaluations are small: on a large model it is less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from devtools.pack import load_pack

load_pack()

SIZE = 512
BATCHES = (1, 8, 32)
LIMIT = 1.2
EVALUATIONS = 24
ROOT = Path(__file__).resolve().parents[1]
PROMPT = "three red apples and two dogs on a wooden table"

Bench = tuple[Any, Callable[[], object] | None]
"""A reward, and its bare network on eight prepared pictures, or None without a network."""


def device_and_type() -> tuple[Any, Any]:
    """Where networks run, and in which type."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), torch.bfloat16
    return torch.device("cpu"), torch.float32


def pictures(count: int, size: int = SIZE) -> Any:
    """Random pictures."""
    import torch

    return torch.rand(count, size, size, 3, generator=torch.Generator().manual_seed(0))


def local(network: Any) -> Any:
    """A holder of a network with random weights, on the device."""
    from flowsearch.rewards.holder import Local

    device, dtype = device_and_type()
    return Local(network.to(device, dtype), batch=32)


def published(name: str) -> dict[str, Any]:
    """Random tensors with the names and shapes of a published file."""
    import torch

    rows = json.loads((ROOT / "tests" / "data" / "reward_keys" / f"{name}.json").read_text())
    return {
        key: torch.arange(shape[-1])[None] if key.endswith("position_ids")
        else torch.randn(shape) * 0.02
        for key, shape in rows["tensors"].items()
    }  # fmt: skip


def preference(name: str) -> Bench:
    """PickScore, HPS or ImageReward."""
    import torch

    from flowsearch.rewards.clip_preference import LETTERBOX_224, ClipPreference, towers_from
    from flowsearch.rewards.holder import dtype_of
    from flowsearch.rewards.image_reward import PREPROCESS, ImageReward, judged_from
    from flowsearch.rewards.preprocess import CLIP_224

    _, dtype = device_and_type()
    ids = torch.tensor([[49406, *range(320, 330), 49407]])
    if name == "image_reward":
        holder = local(judged_from(published(name), dtype))
        ids = torch.tensor([[101, *range(2000, 2010), 102]])
        pixels = prepared(PREPROCESS).to(dtype_of(holder.network.vision))
        return ImageReward(holder, ids), lambda: holder.network(pixels, ids)
    holder = local(towers_from(published({"hps": "hps_v2_1"}.get(name, name)), dtype))
    pixels = prepared(LETTERBOX_224 if name == "hps" else CLIP_224).to(dtype)
    return ClipPreference(holder, ids), lambda: holder.network.picture(pixels)


def prepared(preprocess: Callable[[Any], Any]) -> Any:
    """Eight pictures, preprocessed, on the device."""
    return preprocess(pictures(8)).to(device_and_type()[0])


def plain(name: str) -> Bench:
    """Rewards without a network."""
    from flowsearch.rewards.registry import REWARDS
    from flowsearch.rewards.shape_count import ShapeCount

    if name == "shape_count":
        return ShapeCount({("red", "circle"): 3}), None
    return REWARDS[name].load()(), None


MAKERS: dict[str, Callable[[], Bench]] = {
    **{name: lambda name=name: preference(name) for name in ("pick_score", "hps", "image_reward")},
    **{name: lambda name=name: plain(name) for name in ("shape_count", "shape_fidelity")},
}


def seconds_of(run: Callable[[], object], least: int, budget: float) -> list[float]:
    """Times of runs, at least `least` and for about `budget` seconds, without the first."""
    import torch

    times: list[float] = []
    begun = time.perf_counter()
    while len(times) <= least or time.perf_counter() - begun < budget:
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
        if len(times) > 60:
            break
    return times[1:]


def ratio(reward: Any, bare: Callable[[], object], pairs: int) -> float:
    """Median over pairs of scoring eight pictures to the bare forward, in turn."""
    import torch

    images, found = pictures(8).to(device_and_type()[0]), []
    with torch.no_grad():
        for number in range(pairs + 1):
            both = [lambda: reward.score(images), bare]
            spent = [0.0, 0.0]
            for which in (0, 1) if number % 2 else (1, 0):
                spent[which] = seconds_of(both[which], 1, 0.0)[-1]
            found.append(spent[0] / spent[1])
    return statistics.median(found[1:])


class Timed:
    """A reward that adds up its seconds."""

    def __init__(self, reward: Any) -> None:
        """Wrap one."""
        self.reward, self.seconds, self.spec = reward, 0.0, reward.spec

    def score(self, images: Any) -> Any:
        """Score, and look at the clock."""
        start = time.perf_counter()
        values = self.reward.score(images)
        self.seconds += time.perf_counter() - start
        return values


def share_of_search(reward: Any) -> float:
    """Share of a search on the embedded model that the reward takes."""
    import _exact_models  # noqa: F401 - puts the host on the path
    import torch

    from flowsearch.nodes.demo import load_demo
    from flowsearch.nodes.search import RBFSearch

    model, clip, vae = load_demo()
    conds = [clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in ("one red circle", "")]
    timed = Timed(reward)
    start = time.perf_counter()
    RBFSearch.execute(
        model=model, positive=conds[0], negative=conds[1],
        latent_image={"samples": torch.zeros(1, 3, 64, 64)}, seed=1, steps=8, cfg=1.0,
        scheduler="simple", denoise=1.0, vae=vae, reward=timed, evaluations=EVALUATIONS,
        target={"target": "never"},
    )  # fmt: skip
    return timed.seconds / (time.perf_counter() - start)


def peak() -> float:
    """Peak of the process's memory or, where there is one, of the GPU's, MB."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024.0
    return float("nan")


def measure(name: str, quick: bool) -> dict[str, Any]:
    """Measure one reward in this process.

    Args:
        name: Of MAKERS.
        quick: One repetition, batches up to 8.

    Returns:
        A row.
    """
    import torch

    reward, bare = MAKERS[name]()
    row: dict[str, Any] = {"reward": name}
    with torch.no_grad():
        for batch in BATCHES:
            images = pictures(batch).to(device_and_type()[0])
            if quick and batch > 8:
                row[f"pictures/s, {batch}"] = ""
                continue
            budget = 0.0 if quick else 10.0
            times = seconds_of(lambda images=images: reward.score(images), 1, budget)
            row[f"pictures/s, {batch}"] = batch / statistics.median(times)
        row["over bare, 8"] = ratio(reward, bare, 2 if quick else 7) if bare else ""
    row["peak MB"] = peak()
    row["share of search"] = share_of_search(reward)
    return row


def main() -> None:
    """Measure every reward in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--one", choices=MAKERS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.one:
        print("ROW " + json.dumps(measure(options.one, options.quick)))
        return
    from _report import Report

    report = Report("rewards")
    for name in options.only:
        command = [sys.executable, __file__, "--one", name, *(["--quick"] * options.quick)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        rows = [line[4:] for line in done.stdout.splitlines() if line.startswith("ROW ")]
        if not rows:
            raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        row = json.loads(rows[0])
        report.rows.append(row)
        print(row, flush=True)
        if row["over bare, 8"] != "":
            value = float(row["over bare, 8"])
            text = (
                f"{name}: scoring 8 pictures takes {value:.2f} times the bare forward (at most 1.2)"
            )
            report.claim(text, value, LIMIT, value <= LIMIT)
    report.finish(options.json)


if __name__ == "__main__":
    main()
