"""Does the search find pictures whose counts are right, and at what cost?

    python scripts/dev.py bench count [--quick] [--json FILE] [--plot FILE] [--parts FOLDER]

Committed prompts (benchmarks/prompts.json), held out from the embedded model's training: `hard`,
where a single sample is right a few times in a hundred, and `easy`. Every method gets the same
evaluations, stops at the first right picture, and ends finished at sigma 0. Methods that do not
plan with the budget are run once, at the largest; what they had found by then is what a smaller
one finds. The default and its baseline, Best-of-N at several step counts, are run on --full
prompts, the other strategies with their default settings and 10 steps on the first --prompts of
them. Many prompts share the model's calls. What is done is kept in --parts and not computed again.
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
from numpy.typing import NDArray

from devtools.pack import load_pack

load_pack()

from _demo_problem import DemoProblem, load_net  # noqa: E402
from _report import Report, paired_difference  # noqa: E402
from _runs import Method, Parts, Result, measured, run  # noqa: E402

from flowsearch.demo.network import CHECKPOINTS  # noqa: E402
from flowsearch.demo.prompt import parse  # noqa: E402
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity  # noqa: E402
from flowsearch.samplers.paths import sigmas  # noqa: E402
from flowsearch.samplers.paths.noise_law import noise_law  # noqa: E402
from flowsearch.samplers.search import (  # noqa: E402
    SVDD,
    BestOfN,
    CoDe,
    EvolutionarySearch,
    RolloverBudgetForcing,
    SearchOverPaths,
    SequentialMonteCarlo,
    ZeroOrderSearch,
)
from flowsearch.samplers.stepping.transition import Transition, fixed_q  # noqa: E402

PROMPTS = Path(__file__).with_name("prompts.json")
BUDGETS = (50, 100, 125, 300, 500)
COMPARED = (50, 100, 300, 500)
BEST_OF_N_STEPS = (8, 12)  # 5 and 20 were below both, of 100 prompts, when last run
STEPS = 8
OURS = "default"


def baselines() -> list[Method]:
    """What the default is measured against, and the default."""
    return [
        Method(OURS, EvolutionarySearch(), sigmas.uniform(STEPS), prefix=True),
        *(
            Method(f"Best-of-N, {n} steps", BestOfN(width=1), sigmas.uniform(n), prefix=True)
            for n in BEST_OF_N_STEPS
        ),
    ]


def others() -> list[Method]:
    """The other strategies, and the published RBF's decisions, finished by 8 steps.

    On the paper's sigmas they draw as published, by Euler-Maruyama; on ours by a fixed q.
    """
    reference = RolloverBudgetForcing.reference(finish_steps=8)
    paper = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")
    line = sigmas.uniform(10)
    threshold = RolloverBudgetForcing(accept="threshold", threshold=-1.0)
    return [
        Method("RBF reference, paper's sigmas", reference, sigmas.rbf_reference(10), paper, 2),
        Method("RBF reference, our sigmas", reference, line, fixed_q(0.85), 2),
        Method("RBF", RolloverBudgetForcing(), line),
        Method("threshold -1", threshold, line),
        Method("SVDD", SVDD(), line),
        Method("CoDe", CoDe(), line),
        Method("SMC", SequentialMonteCarlo(), line),
        Method("Search over Paths", SearchOverPaths(), line),
        Method("zero-order", ZeroOrderSearch(), line, prefix=True),
    ]


def collect(
    options: argparse.Namespace, methods: Sequence[Method], texts: Sequence[str], name: str
) -> list[dict[str, Any]]:
    """Run methods on prompts.

    Args:
        options: Command line.
        methods: What to run.
        texts: Prompts.
        name: Of their set.

    Returns:
        Rows; rewards and held-out rewards of every seed and prompt under "found".
    """
    problem = DemoProblem(
        load_net(device=options.device), [parse(text) for text in texts], options.float32
    )
    parts, fidelity = Parts(options.parts), ShapeFidelity().score
    weights = hashlib.sha256(CHECKPOINTS["base"].read_bytes()).hexdigest()[:12]
    rows: list[dict[str, Any]] = []
    for method in [m for m in methods if options.only in m.name]:
        wanted = list(method.budgets or options.budgets)
        for budget in [max(wanted)] if method.prefix else [b for b in wanted if b != 125]:
            kept: list[list[Result]] = []
            for seed in range(options.seeds):
                settings = method.strategy.to_json()
                key = (weights, texts, method.name, settings, budget, seed, options.float32)

                def compute(m: Method = method, b: int = budget, s: int = seed) -> list[Result]:
                    return run(problem, m, b, s, options.rows, fidelity)

                try:
                    kept.append(parts.get(key, compute))
                except ValueError as reason:  # the published quota is 0 draws at 50
                    print(f"{method.name} at {budget}: {reason}")
            for limit in (wanted if method.prefix else [budget]) if kept else []:
                found = measured(kept, limit)
                mean, low, high = share_of(found.right)
                rows.append(
                    {
                        "prompts": f"{name} ({len(texts)})",
                        "method": method.name,
                        "evaluations": limit,
                        "right": mean,
                        "low": low,
                        "high": high,
                        "mean reward": float(found.rewards.mean()),
                        "fidelity": float(np.nanmean(found.held_out)),
                        "spent": found.evaluations,
                        "reward calls": found.reward_calls,
                        "seconds a prompt": found.seconds,
                        "found": found,
                    }
                )
                print({k: v for k, v in rows[-1].items() if k != "found"}, flush=True)
    return rows


def share_of(right: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return a share with its 95 % interval over prompts."""
    return paired_difference(right, np.zeros_like(right))


def claims(report: Report, rows: Sequence[dict[str, Any]]) -> None:
    """Compare the default with everything else on the hard prompts."""
    table = {
        (r["method"], r["evaluations"]): r["found"] for r in rows if r["prompts"].startswith("hard")
    }
    base = max(
        (key for key in table if key[1] == 500 and key[0] != OURS and "Best" in key[0]),
        key=lambda key: table[key].right.mean(),
    )

    def against(other: tuple[str, int], budget: int, name: str) -> tuple[float, float, float]:
        ours, theirs = getattr(table[OURS, budget], name), getattr(table[other], name)
        return paired_difference(ours[:, : theirs.shape[1]], theirs)

    mean, low, high = against(base, 125, "right")
    report.claim(
        f"hard prompts: default at 125 evaluations minus {base[0]} at 500 "
        f"({table[base].right.mean():.2f}): {mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f})",
        mean, 0.0, mean >= 0.0,
    )  # fmt: skip
    better = 0
    for budget in COMPARED:
        rivals = [key for key in table if key[1] == budget and key[0] != OURS]
        lows = {key: against(key, budget, "right") for key in rivals}
        worst = min(lows, key=lambda key: lows[key][1])
        mean, low, high = lows[worst]
        better += low > 0.0
        report.claim(
            f"hard prompts, {budget} evaluations: default minus {worst[0]}, the nearest of "
            f"{len(lows)}: {mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f})",
            low, -0.05, low > -0.05,
        )  # fmt: skip
    report.claim("budgets at which the default is better than every other", better, 2, better >= 2)
    mean, low, high = against(base, 500, "held_out")
    report.claim(
        f"hard prompts: fidelity, held out, of the default's pictures at 500 minus {base[0]}'s: "
        f"{mean:+.4f} (95 % interval {low:+.4f} to {high:+.4f})",
        high, 0.0, high >= 0.0,
    )  # fmt: skip


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
            style = "o-" if method == OURS else "^:" if "Best" in method else "s--"
            colour = "black" if method == OURS else None
            x, y = [r["evaluations"] for r in here], [r["right"] for r in here]
            axis.plot(x, y, style, label=method, color=colour)
        axis.set(title=f"{name} prompts", xlabel="evaluations", ylim=(-0.02, 1.02), xscale="log")
        axis.minorticks_off()
        axis.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("share of prompts counted right")
    lines = {line.get_label(): line for axis in np.atleast_1d(axes) for line in axis.get_lines()}
    figure.tight_layout()
    figure.legend(lines.values(), lines.keys(), loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=90, bbox_inches="tight")
    print(f"written to {path}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="16 prompts, up to 125 evaluations")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--parts", type=Path, help="folder of finished runs, reused")
    parser.add_argument("--full", type=int, default=100, help="hard prompts of the default")
    parser.add_argument("--prompts", type=int, default=24, help="hard prompts of the others")
    parser.add_argument("--only", default="", help="methods whose name holds this; no claims")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seeds", type=int, default=3 if torch.cuda.is_available() else 1)
    parser.add_argument("--rows", type=int, default=64, help="rows in one call of the model")
    parser.add_argument("--float32", action="store_true", help="run the network in float32")
    options = parser.parse_args()
    report = Report("count")
    prompts: dict[str, list[str]] = json.loads(PROMPTS.read_text())
    options.budgets = BUDGETS
    if options.quick:
        options.seeds, options.budgets, options.full, options.prompts = 1, BUDGETS[:3], 16, 8
    hard, easy = prompts["hard"][: options.full], prompts["easy"][: options.prompts]
    rows = collect(options, baselines(), hard, "hard")
    rows += collect(options, baselines()[:3], easy, "easy")
    rows += collect(options, others(), hard[: options.prompts], "hard")
    if not options.only and not options.quick:
        claims(report, rows)
    report.rows = [{k: v for k, v in row.items() if k != "found"} for row in rows]
    report.finish(options.json)
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
