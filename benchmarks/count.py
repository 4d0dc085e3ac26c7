"""Does the search find pictures whose counts are right, and at what cost?

    python scripts/dev.py bench count [--quick] [--json FILE] [--plot FILE] [--parts FOLDER]

Committed prompts (benchmarks/prompts.json), held out from the embedded model's training: `hard`,
where a single sample is right a few times in a hundred, and `easy`. Every method gets the same
evaluations and ends finished at sigma 0. Best-of-N takes its samples one by one, so that its
smaller budgets are prefixes of its largest; RBF shares its budget out and is run at each. Many
prompts share the model's calls. What is done is kept in --parts and not computed again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devtools.pack import load_pack

load_pack()

from _demo_problem import DemoProblem, load_net  # noqa: E402
from _report import Report, paired_difference  # noqa: E402
from _runs import Method, Parts, Result, measured, run  # noqa: E402

from flowsearch.demo.network import CHECKPOINTS  # noqa: E402
from flowsearch.demo.prompt import parse  # noqa: E402
from flowsearch.samplers import sigmas  # noqa: E402
from flowsearch.samplers.noise_law import noise_law  # noqa: E402
from flowsearch.samplers.search import (  # noqa: E402
    BestOfN,
    RolloverBudgetForcing,
)
from flowsearch.samplers.transition import Transition, fixed_q  # noqa: E402

PROMPTS = Path(__file__).with_name("prompts.json")
BUDGETS = (100, 200, 500)
BEST_OF_N_STEPS = (5, 8, 12, 20)
DEFAULT_STEPS = 20


def methods() -> list[Method]:
    """The methods of the table."""
    reference = RolloverBudgetForcing.reference(finish_steps=8)
    paper = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")
    one_by_one = BestOfN(width=1)
    return [
        Method("Euler, 20 steps", one_by_one, sigmas.uniform(20), budgets=(20,)),
        *(
            Method(f"Best-of-N, {n} steps", one_by_one, sigmas.uniform(n), prefix=True)
            for n in BEST_OF_N_STEPS
        ),
        Method("RBF reference, paper's sigmas", reference, sigmas.rbf_reference(10), paper, 2),
        Method("RBF reference, our sigmas", reference, sigmas.uniform(10), fixed_q(0.85), 2),
        Method("RBF default", RolloverBudgetForcing(), sigmas.uniform(DEFAULT_STEPS)),
    ]


def collect(
    options: argparse.Namespace, texts: Sequence[str], name: str, budgets: Sequence[int]
) -> list[dict[str, Any]]:
    """Run all methods on one set of prompts.

    Args:
        options: Command line.
        texts: Prompts.
        name: Of the set.
        budgets: Evaluations.

    Returns:
        Rows with the rewards of every seed and prompt under "rewards".
    """
    problem = DemoProblem(
        load_net(device=options.device), [parse(text) for text in texts], options.float32
    )
    parts = Parts(options.parts)
    weights = hashlib.sha256(CHECKPOINTS["base"].read_bytes()).hexdigest()[:12]
    rows: list[dict[str, Any]] = []
    for method in [m for m in methods() if options.only in m.name]:
        wanted = list(method.budgets or budgets)
        for budget in [max(wanted)] if method.prefix else wanted:
            kept: list[list[Result]] = []
            for seed in range(options.seeds):
                key = (weights, texts, method.name, budget, seed, options.float32, "measured")

                def compute(m: Method = method, b: int = budget, s: int = seed) -> list[Result]:
                    return run(problem, m, b, s, options.rows)

                kept.append(parts.get(key, compute))
            for limit in wanted if method.prefix else [budget]:
                found = measured(kept, limit)
                rows.append(
                    {
                        "prompts": name,
                        "method": method.name,
                        "evaluations": limit,
                        "accuracy": float(found.right.mean()),
                        "mean reward": float(found.rewards.mean()),
                        "seconds a prompt": found.seconds,
                        "rewards": found.rewards,
                    }
                )
                print({k: v for k, v in rows[-1].items() if k != "rewards"}, flush=True)
    return rows


def claims(report: Report, rows: Sequence[dict[str, Any]], budgets: Sequence[int]) -> None:
    """Compare the default with the best Best-of-N, on the hard prompts."""
    for budget in budgets:
        here = [r for r in rows if r["prompts"] == "hard" and r["evaluations"] == budget]
        best = max(
            (r for r in here if r["method"].startswith("Best-of-N")), key=lambda r: r["accuracy"]
        )
        ours = next(r for r in here if r["method"] == "RBF default")
        mean, low, high = paired_difference(
            (ours["rewards"] == 0).astype(float), (best["rewards"] == 0).astype(float)
        )
        report.claim(
            f"hard prompts, {budget} evaluations: RBF default {ours['accuracy']:.2f} against "
            f"{best['method']} {best['accuracy']:.2f}, difference {mean:+.3f} "
            f"(95 % interval {low:+.3f} to {high:+.3f})",
            low,
            0.0,
            low > 0,
        )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against evaluations, a panel a set of prompts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = list(dict.fromkeys(row["prompts"] for row in rows))
    figure, axes = pyplot.subplots(1, len(sets), figsize=(5.2 * len(sets), 4), sharey=True)
    for axis, name in zip(np.atleast_1d(axes), sets, strict=True):
        for method in dict.fromkeys(row["method"] for row in rows):
            here = [r for r in rows if r["prompts"] == name and r["method"] == method]
            style = "o-" if method == "RBF default" else "s--" if "RBF" in method else "^:"
            colour = "black" if method == "RBF default" else None
            x, y = [r["evaluations"] for r in here], [r["accuracy"] for r in here]
            axis.plot(x, y, style, label=method, color=colour)
        axis.set(title=f"{name} prompts", xlabel="evaluations", ylim=(-0.02, 1.02), xscale="log")
        axis.minorticks_off()
        axis.set_xticks([20, *BUDGETS], [str(b) for b in (20, *BUDGETS)])
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("share of prompts counted right")
    np.atleast_1d(axes)[-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"written to {path}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="24 prompts, up to 200 evaluations")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--parts", type=Path, help="folder of finished runs, reused")
    parser.add_argument("--only", default="", help="methods whose name holds this; no claims")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seeds", type=int, default=3 if torch.cuda.is_available() else 1)
    parser.add_argument("--rows", type=int, default=64, help="rows in one call of the model")
    parser.add_argument("--float32", action="store_true", help="run the network in float32")
    options = parser.parse_args()
    report = Report("count")
    prompts: dict[str, list[str]] = json.loads(PROMPTS.read_text())
    budgets = BUDGETS
    if options.quick:
        options.seeds = 1
        budgets = BUDGETS[:2]
        prompts = {"hard": prompts["hard"][:16], "easy": prompts["easy"][:8]}
    rows = [
        row for name, texts in prompts.items() for row in collect(options, texts, name, budgets)
    ]
    if not options.only:
        claims(report, rows, [b for b in budgets if b >= 200])
    report.rows = [{k: v for k, v in row.items() if k != "rewards"} for row in rows]
    report.finish(options.json)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
