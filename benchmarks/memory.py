"""Does a search of 2000 evaluations need more memory than one of 50?

    python scripts/dev.py bench memory [--quick] [--json FILE]

Reward Search on the embedded model in the real host, with trace, progress and a checkpoint every
second, each search in a process of its own; the peak of its resident memory (VmHWM of Linux) after
the search. Every strategy of the registry with its defaults, the reward never at its target.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from devtools.pack import load_pack

load_pack()

FEW, MANY, QUICK = 50, 2000, 400
LIMIT = 1.05
TEXT = "four red circles and four blue squares"


def peak_of_this_process() -> float:
    """Peak of resident memory, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024.0
    raise SystemExit("this benchmark reads VmHWM from /proc/self/status, which Linux has")


def search(name: str, evaluations: int) -> dict[str, float]:
    """Run one search in this process.

    Args:
        name: Strategy.
        evaluations: Budget.

    Returns:
        Peaks before and after, in MB, evaluations and seconds.
    """
    import _exact_models  # noqa: F401 - puts the host on the path, for the CPU
    import torch

    from flowsearch.demo.prompt import parse
    from flowsearch.nodes.host.search import search_sampler
    from flowsearch.nodes.host.search.resume import FileCheckpoint
    from flowsearch.nodes.sampling.demo_model import load_demo
    from flowsearch.nodes.search.reward_search import RewardSearch
    from flowsearch.rewards.pixels.shape_count import ShapeCount
    from flowsearch.samplers.search import STRATEGIES

    with tempfile.TemporaryDirectory() as folder:
        file = FileCheckpoint(Path(folder) / "run.safetensors", torch.device("cpu"))
        search_sampler.checkpoint_of_running_node = lambda *_: file
        model, clip, vae = load_demo()
        conds = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (TEXT, "")]
        before, begun = peak_of_this_process(), time.perf_counter()
        report: Any = RewardSearch.execute(
            model=model, positive=conds[0], negative=conds[1],
            latent_image={"samples": torch.zeros(1, 3, 64, 64)}, seed=1, steps=8, cfg=1.0,
            scheduler="simple", denoise=1.0, vae=vae,
            reward=ShapeCount.from_groups(parse(TEXT)), evaluations=evaluations,
            target={"target": "never"}, checkpoint_seconds=1.0,
            strategy=search_sampler.StrategyChoice(STRATEGIES[name](), rows_per_call=4),
        ).result[2]  # fmt: skip
    spent = report.trace.record["stopped"][0]["ledger"]["evaluations"]
    seconds = time.perf_counter() - begun
    return {
        "before": before,
        "peak": peak_of_this_process(),
        "evaluations": spent,
        "seconds": seconds,
    }


def in_a_process(name: str, evaluations: int) -> dict[str, float]:
    """Run one search in a new process."""
    command = [sys.executable, __file__, "--one", name, str(evaluations)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} evaluations, not {MANY}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(search(options.one[0], int(options.one[1]))))
        return
    from _report import Report

    from flowsearch.samplers.search import STRATEGIES

    report, many = Report("memory"), QUICK if options.quick else MANY
    for name in STRATEGIES:
        short, long = in_a_process(name, FEW), in_a_process(name, many)
        ratio = long["peak"] / short["peak"]
        report.rows.append(
            {
                "strategy": name,
                "evaluations": f"{short['evaluations']}, {long['evaluations']}",
                "loaded (MB)": short["before"],
                "peak (MB)": short["peak"],
                "peak of the long one (MB)": long["peak"],
                "ratio": f"{ratio:.4f}",
                "seconds": long["seconds"],
            }
        )
        text = f"{name}: peak memory at {many} evaluations is {ratio:.3f} of that at {FEW}"
        report.claim(text, ratio, LIMIT, ratio <= LIMIT)
    report.finish(options.json)


if __name__ == "__main__":
    main()
