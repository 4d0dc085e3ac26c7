"""How fast are the rewards, what memory do they take, and what part of a search?

    python scripts/dev.py bench rewards [--quick] [--only NAME ...] [--json FILE]

Every reward of the registry but Judge (another machine's), Latent (arithmetic) and Combine (its
parts'), networks of their true sizes with random weights (_reward_networks.py): float32 on a CPU,
bfloat16 on a GPU, as the host's rules say. Each runs in a process of its own. The table gives
pictures of 512 x 512 a second in batches of 1, 8 and 32 (nothing where one batch would take more
than a minute); the ratio of scoring eight pictures of 512 x 512, and of 1024 x 1024, to the bare
network's forward on prepared input, all in turn; the peak of the process's memory (of the
GPU's where there is one); and the reward's share of a search of 4 evaluations on the embedded
model, whose own evaluations are small: on a large model it is less.

--quick: two pictures for eight, once, and only QUICK; it shows that all runs, not what it costs.
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
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _reward_networks import LARGE, MAKERS, SIZE, Absent, pictures

LIMIT = 1.2
EVALUATIONS = 4
BUDGET = 10.0
LONGEST = 60.0
ROUNDS = 15
QUICK = (
    "clip_score",
    "image_match:dinov2",
    "vqa_score",
    "detector_count:yolo11n",
    "detector_count:fastestdet",
    "text_in_image",
    "image_statistic:sharpness",
    "shape_count",
)


def seconds(run: Callable[[], object]) -> float:
    """Time of one run."""
    start = time.perf_counter()
    with torch.no_grad():
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def in_turn(runs: dict[str, Callable[[], object]], quick: bool) -> dict[str, list[float]]:
    """Times of several, one after the other, beginning with another one each round."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    begun, names = time.perf_counter(), list(runs)
    for number in range(1 if quick else ROUNDS):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(seconds(runs[name]))
        if time.perf_counter() - begun > BUDGET:
            break
    return found


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

    from flowsearch.nodes.sampling.demo_model import load_demo
    from flowsearch.nodes.search.reward_search import RewardSearch

    model, clip, vae = load_demo()
    conds = [clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in ("one red circle", "")]
    timed = Timed(reward)
    start = time.perf_counter()
    RewardSearch.execute(
        model=model, positive=conds[0], negative=conds[1],
        latent_image={"samples": torch.zeros(1, 3, 64, 64)}, seed=1, steps=8, cfg=1.0,
        scheduler="simple", denoise=1.0, vae=vae, reward=timed, evaluations=EVALUATIONS,
        target={"target": "never"},
    )  # fmt: skip
    return timed.seconds / (time.perf_counter() - start)


def peak() -> float:
    """Peak of the process's memory or, where there is one, of the GPU's, MB."""
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
        quick: See above.

    Returns:
        A row.
    """
    rows = 2 if quick else 8
    with torch.no_grad():
        reward, bare = MAKERS[name](rows)
    images = {size: pictures(rows, size) for size in (SIZE, LARGE)}
    for some in images.values():  # features of the prompt, filters
        seconds(lambda some=some: reward.score(some[:1]))
    runs: dict[str, Callable[[], object]] = {
        **{f"scored {size}": partial(reward.score, some) for size, some in images.items()},
        **{f"bare {size}": run for size, run in bare.items()},
    }
    times = in_turn(runs, quick)
    taken = statistics.median(times[f"scored {SIZE}"])
    one = in_turn({"one": lambda: reward.score(images[SIZE][:1])}, quick or taken > BUDGET)
    row: dict[str, Any] = {"reward": name, "pictures/s, 1": 1.0 / statistics.median(one["one"])}
    row["pictures/s, 8"] = "" if quick else 8.0 / taken
    row["pictures/s, 32"] = ""
    if not quick and taken * 4.0 < LONGEST:
        many = pictures(32)
        runs_of_32 = range(1 if taken > BUDGET / 8.0 else 3)
        row["pictures/s, 32"] = 32.0 / statistics.median(
            seconds(lambda: reward.score(many)) for _ in runs_of_32
        )
    for size in images:
        # of each round, whose members met the same machine
        alone = times.get(f"bare {size}", times.get(f"bare {SIZE}", ()))
        shares = [a / b for a, b in zip(times[f"scored {size}"], alone, strict=False)]
        row[f"over bare, {size}"] = statistics.median(shares) if shares else ""
    row["peak MB"] = peak()
    row["share of search"] = share_of_search(reward)
    return row


def claims(row: dict[str, Any]) -> list[tuple[str, float]]:
    """What a row says of the limit: a sentence and its number."""
    return [
        (
            f"{row['reward']}: scoring 8 pictures of {size} x {size} takes {ratio:.2f} times the "
            f"bare forward (at most {LIMIT})",
            float(ratio),
        )
        for size in (SIZE, LARGE)
        if (ratio := row[f"over bare, {size}"]) != ""
    ]


def main() -> None:
    """Measure every reward in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", choices=MAKERS)
    parser.add_argument("--one", choices=MAKERS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.one:
        try:
            print("ROW " + json.dumps(measure(options.one, options.quick)))
        except Absent as reason:
            print(f"ABSENT {reason}")
        return
    from _report import Report

    report = Report("rewards")
    for name in options.only or (QUICK if options.quick else MAKERS):
        command = [sys.executable, __file__, "--one", name, *(["--quick"] * options.quick)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        lines = done.stdout.splitlines()
        if absent := [line for line in lines if line.startswith("ABSENT ")]:
            print(f"{name} is left out: {absent[0][7:]}")
            continue
        rows = [line[4:] for line in lines if line.startswith("ROW ")]
        if not rows:
            raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        report.rows.append(json.loads(rows[0]))
        print(report.rows[-1], flush=True)
        for text, value in claims(report.rows[-1]):
            if not options.quick:
                report.claim(text, value, LIMIT, value <= LIMIT)
    report.finish(options.json)


if __name__ == "__main__":
    main()
