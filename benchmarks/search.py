"""The comparison of Kim et al. 2025 (arXiv:2503.19385) on the embedded model's two checkpoints.

    python scripts/dev.py bench search [--quick] [--json FILE] [--plot FILE] [--parts FOLDER]
    python scripts/dev.py bench search --parts FOLDER --methods "RBF, published" [--checkpoint base]

`base` is an ordinary flow model: early predictions are blurs. `few_step` is distilled from it, as
few-step models such as FLUX.1-schnell are: early predictions are pictures. On each: method x
process at 500 evaluations, and Best-of-N, RBF and our default at 50 to 1000. Held-out hard prompts
(benchmarks/prompts.json); accuracy is the share of them whose best finished picture is counted
right. What is done is kept in --parts and not computed again, under the weights and the settings:
--methods runs some of the rows alone, --kept puts together what --parts holds by then, and
--earlier adds the rows of an earlier record that were not run again, each marked as such.

Processes, 10 steps each as in the paper: the linear ODE; the linear SDE with g = 3 t^2; the SDE
with g = 3 r^2 in VP time, on the paper's sigmas. Rows "published" draw by Euler-Maruyama in the
path's coordinates, as the authors' code does; the others by the exact transition of the same SDE.
The two are not the same noise: of the last transition of the VP SDE's list the fresh noise is .47
of the state's where the exact transition's is .33. Several draws of an ODE are one picture, so
methods that draw on the way are left with as many plain samples as they have chains or particles,
as in the paper; those cells come from Best-of-N.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from devtools.pack import load_pack

load_pack()

from _demo_problem import DemoProblem, load_net  # noqa: E402
from _report import Report, paired_difference  # noqa: E402
from _runs import HeldOut, Measured, Method, Parts, Result, measured, run  # noqa: E402

from flowsearch.demo.network import CHECKPOINTS  # noqa: E402
from flowsearch.demo.prompt import parse  # noqa: E402
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity  # noqa: E402
from flowsearch.samplers.paths import sigmas  # noqa: E402
from flowsearch.samplers.paths.noise_law import NoiseLaw, noise_law  # noqa: E402
from flowsearch.samplers.search import STRATEGIES, BestOfN, ZeroOrderSearch  # noqa: E402
from flowsearch.samplers.search.strategies.published import VP_SDE, published  # noqa: E402
from flowsearch.samplers.stepping.transition import ODE, Transition  # noqa: E402

PROMPTS = Path(__file__).with_name("prompts.json")
BUDGETS = (50, 100, 300, 500, 1000)
AT = 500
STEPS = 10
ODE_, LINEAR, VP, OWN = "linear ODE", "linear SDE", "VP SDE", "own"
PARTICLES = 50
FINISH = 4
BLOCK = 8
"""Prompts that share the model's calls, and that are kept together in the parts."""

SAMPLES = "Best-of-N, 10 steps"
RBF = "RBF, finished"
PUBLISHED = "RBF, published"
OURS = "default"
DEFAULT: Any = STRATEGIES["evolutionary"]()
"""Anytime: its smaller budgets are prefixes of its largest."""
NATURAL = {
    "base": ("Best-of-N, 8 steps", sigmas.uniform(8)),
    "few_step": ("Best-of-N, 4 steps", sigmas.uniform(4, shift=3.0)),
}
"""Best-of-N at the steps that a checkpoint needs, which the default takes too."""


@dataclass(frozen=True)
class Run:
    """A method on a process, at the budgets it is run at.

    Attributes:
        method: Row of the tables.
        process: Column.
        how: Settings, sigmas, transition, chains.
        budgets: Evaluations.
    """

    method: str
    process: str
    how: Method
    budgets: tuple[int, ...] = (AT,)


def linear_sde(panels: int = 64) -> NoiseLaw:
    """The law of g = 3 t^2 on the linear path: k = g^2 / 2 (1 - t) / t, by a curve."""
    points = [(t, 4.5 * t**3 * (1.0 - t)) for t in np.linspace(0.0, 1.0, panels + 1).tolist()]
    return noise_law("curve", points=points, interpolation="monotone_cubic")


Process = tuple[list[float], Transition]
PROCESSES: dict[str, Process] = {
    ODE_: (sigmas.uniform(STEPS), ODE),
    LINEAR: (sigmas.uniform(STEPS), Transition(linear_sde())),
    VP: (sigmas.rbf_reference(STEPS), Transition(noise_law("rbf_reference"))),
}
"""Drawn by the exact transition."""

# Euler-Maruyama takes g at its first sigma, 1, from the slope of the curve there
_EULER_MARUYAMA = {
    LINEAR: Transition(linear_sde(1024), "euler_maruyama", "linear"),
    VP: VP_SDE,
}
AS_PUBLISHED: dict[str, Process] = {
    name: (PROCESSES[name][0], transition) for name, transition in _EULER_MARUYAMA.items()
}
"""The same SDEs on the same sigmas, drawn as the authors' code draws."""

NOISES = {"exact": "exact", "euler_maruyama": "Euler-Maruyama"}


def on_the_way() -> dict[str, tuple[Any, int]]:
    """The methods that draw on the way, as the paper ran them: settings and chains.

    All but the published RBF are finished by ODE steps, where the paper puts out the prediction at
    the last sigma, and end when the target is reached. See AS_PUBLISHED for its noise.
    """

    def finished(method: str) -> tuple[Any, int]:
        row = published(method, FINISH)
        settings: Any = row.strategy
        return replace(settings, target_stop=True), row.chains

    rbf, chains = finished("rbf")
    rbf = replace(rbf, best_kept=True)
    return {
        RBF: (rbf, chains),
        PUBLISHED: (published("rbf").strategy, chains),
        "SVDD": finished("svdd"),
        "CoDe": finished("code"),
        "SMC": finished("smc"),
        "threshold -1": (replace(rbf, accept="threshold", threshold=-1.0), chains),
    }


def runs(checkpoint: str) -> list[Run]:
    """Everything that is run on a checkpoint."""
    line, ode = PROCESSES[ODE_]
    row = published("search_over_paths")
    paths: Any = row.strategy
    paths = replace(paths, target_stop=True)

    def samples(name: str, levels: Sequence[float]) -> Run:
        return Run(name, ODE_, Method(name, BestOfN(width=1), levels, prefix=True), BUDGETS)

    own = Method(OURS, DEFAULT, NATURAL[checkpoint][1], prefix=True)
    found = [samples(SAMPLES, line), samples(*NATURAL[checkpoint]), Run(OURS, OWN, own, BUDGETS)]
    for name, (settings, chains) in on_the_way().items():
        drawn = AS_PUBLISHED if name == PUBLISHED else PROCESSES
        for process in (VP, LINEAR):
            method = Method(f"{name} on {process}", settings, *drawn[process], chains)
            is_curve = name == RBF and process == VP
            found.append(Run(name, process, method, BUDGETS[1:] if is_curve else (AT,)))
    found.append(Run("Search over Paths", ODE_, Method("sop", paths, line, ode, row.chains)))
    found.append(Run("zero-order", ODE_, Method("zero-order", ZeroOrderSearch(), line, ode)))
    return found


class Table:
    """Runs one checkpoint's methods, from the parts where they are there.

    Args:
        checkpoint: Key of CHECKPOINTS.
        options: Command line.
        texts: Prompts.
    """

    def __init__(self, checkpoint: str, options: argparse.Namespace, texts: Sequence[str]) -> None:
        self.checkpoint, self.options = checkpoint, options
        file = CHECKPOINTS[checkpoint]
        net = load_net(file, options.device)
        self.weights = digest_of(net.state_dict())
        self.blocks = [texts[i : i + BLOCK] for i in range(0, len(texts), BLOCK)]
        self.problems = [
            DemoProblem(net, [parse(text) for text in block], options.float32)
            for block in self.blocks
        ]
        self.held_out: HeldOut = ShapeFidelity().score
        self.parts = Parts(options.parts)
        self.found: dict[tuple[str, str, int], Measured] = {}
        self.noises: dict[tuple[str, str], str] = {}

    def fill(self) -> None:
        """Run everything."""
        cap = max(b for b in BUDGETS if b <= self.options.most)
        wanted = self.options.methods
        for one in runs(self.checkpoint):
            if wanted and one.method not in wanted:
                continue
            self.noises[one.method, one.process] = noise_of(one)
            budgets = [b for b in one.budgets if b <= cap] or [cap]
            for budget in [max(budgets)] if one.how.prefix else budgets:
                kept = [self.results(one.how, budget, seed) for seed in range(self.options.seeds)]
                if not all(kept):
                    continue
                for limit in budgets if one.how.prefix else [budget]:
                    self.note(one.method, one.process, limit, measured(kept, limit))
                if one.method == SAMPLES:
                    self.without_noise(kept, min(AT, cap))

    def without_noise(self, kept: Sequence[Sequence[Result]], budget: int) -> None:
        """Enter what methods that draw on the way are on an ODE: that many plain samples."""
        for name, (_, chains) in on_the_way().items():
            count = PARTICLES if name == "SMC" else chains
            limit = min(budget, count * STEPS)
            self.note(name, ODE_, budget, measured(kept, limit))

    def note(self, method: str, process: str, budget: int, found: Measured) -> None:
        """Enter and print one cell."""
        self.found[method, process, budget] = found
        print(self.row(method, process, budget), flush=True)

    def results(self, method: Method, budget: int, seed: int) -> list[Result]:
        """One run, block by block, from the parts where they are there; none if that is wanted."""
        settings = [method.strategy.to_json(), method.transition.to_json(), method.chains]
        found: list[Result] = []
        for number, (problem, block) in enumerate(zip(self.problems, self.blocks, strict=True)):
            own = 1000 * seed + number

            def compute(problem: DemoProblem = problem, own: int = own) -> list[Result]:
                return run(problem, method, budget, own, self.options.rows, self.held_out)

            key = (self.weights, block, settings, list(method.sigmas), budget, own)
            key = (*key, self.options.float32)
            if self.options.kept and not self.parts.holds(key):
                return []
            found += self.parts.get(key, compute)
        return found

    def row(self, method: str, process: str, budget: int) -> dict[str, Any]:
        """One line of the long table."""
        found = self.found[method, process, budget]
        low, high = wilson(found.right)
        return {
            "part": self.checkpoint,
            "weights": self.weights,
            "method": method,
            "process": ", ".join(filter(None, [process, self.noises.get((method, process))])),
            "budget": budget,
            "accuracy": float(found.right.mean()),
            "95 %": f"{low:.2f} to {high:.2f}",
            "mean reward": float(found.rewards.mean()),
            "fidelity": float(np.nanmean(found.held_out)),
            "seconds": found.seconds,
            "evaluations": round(found.evaluations, 1),
            "reward calls": round(found.reward_calls, 1),
            "run": "this",
        }

    def cells(self) -> list[tuple[str, str, int]]:
        """What was found, in the order of the paper's table."""
        rows = [SAMPLES, NATURAL[self.checkpoint][0], "Search over Paths", "zero-order"]
        rows += [*on_the_way(), OURS]
        columns = [*PROCESSES, OWN]
        return sorted(self.found, key=lambda c: (rows.index(c[0]), columns.index(c[1]), c[2]))

    def matrix(self, budget: int) -> list[dict[str, Any]]:
        """Method x process at one budget: accuracy, and the mean reward in brackets."""
        lines: list[dict[str, Any]] = []
        for method in dict.fromkeys(name for name, _, b in self.cells() if b == budget):
            line: dict[str, Any] = {
                "part": f"{self.checkpoint}, {budget} evaluations",
                "method": method,
                "noise": ", ".join(
                    {self.noises[cell] for cell in self.noises if cell[0] == method} - {""}
                ),
            }
            for process in (*PROCESSES, OWN):
                cell = self.found.get((method, process, budget))
                text = f"{cell.right.mean():.2f} ({cell.rewards.mean():.2f})" if cell else ""
                line[process] = text
            lines.append(line)
        return lines


def noise_of(one: Run) -> str:
    """How what runs on an SDE draws; nothing for an ODE, and for our own settings."""
    return NOISES[one.how.transition.method] if one.process in AS_PUBLISHED else ""


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Name weights, whatever file they came from."""
    found = hashlib.sha256()
    for name, value in sorted(weights.items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def wilson(right: np.ndarray) -> tuple[float, float]:
    """95 % interval of a share (Wilson); seeds of a prompt count as prompts of their own."""
    n, p, z = right.size, float(right.mean()), 1.96
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def claims(report: Report, tables: Sequence[Table], budget: int) -> None:
    """Paired differences that the paper reports, on each checkpoint."""
    pairs = [
        ((RBF, VP), (SAMPLES, ODE_), "RBF on the VP SDE against Best-of-N"),
        (("SVDD", VP), ("SVDD", LINEAR), "SVDD on the VP SDE against the linear SDE"),
        ((RBF, VP), ("SVDD", VP), "RBF against SVDD on the VP SDE"),
        ((OURS, OWN), (RBF, VP), "our default against RBF on the VP SDE"),
    ]
    for table in tables:
        for first, second, text in pairs:
            one, other = (table.found.get((*cell, budget)) for cell in (first, second))
            if one is None or other is None:
                continue
            mean, low, high = paired_difference(one.right, other.right)
            report.claim(
                f"{table.checkpoint}, {budget} evaluations: {text}: {one.right.mean():.2f} and "
                f"{other.right.mean():.2f}, difference {mean:+.2f} (95 % interval {low:+.2f} to "
                f"{high:+.2f})",
                low,
                0.0,
                low > 0.0,
            )


def earlier_rows(path: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an earlier record, of cells that are not among the new ones."""

    def cell(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["part"], row["method"], row["process"].split(",")[0], row["budget"]

    known = {cell(row) for row in rows if "budget" in row}
    old = [row for row in json.loads(path.read_text())["rows"] if "budget" in row]
    for row in old:  # before processes named their noise, all draws were exact
        if row["process"] in AS_PUBLISHED:
            row["process"] += ", exact"
    return [row | {"run": "earlier"} for row in old if cell(row) not in known]


def plot(tables: Sequence[Table], path: Path) -> None:
    """Draw accuracy against evaluations, a panel a checkpoint."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(tables), figsize=(5.2 * len(tables), 4), sharey=True)
    for axis, table in zip(np.atleast_1d(axes), tables, strict=True):
        for name, process in dict.fromkeys(cell[:2] for cell in table.cells()):
            cells = [(b, table.found.get((name, process, b))) for b in BUDGETS]
            points = [(b, cell.right) for b, cell in cells if cell]
            if len(points) < 3:
                continue
            x, y = [b for b, _ in points], [float(right.mean()) for _, right in points]
            low, high = zip(*(wilson(right) for _, right in points), strict=True)
            style = "ko-" if name == OURS else "s--" if name == RBF else "^:"
            (line,) = axis.plot(x, y, style, label=f"{name}, {process}" if name == RBF else name)
            axis.fill_between(x, low, high, color=line.get_color(), alpha=0.08)
        axis.set(title=table.checkpoint, xlabel="evaluations", ylim=(-0.02, 1.02), xscale="log")
        axis.minorticks_off()
        axis.set_xticks(BUDGETS, [str(b) for b in BUDGETS])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    np.atleast_1d(axes)[0].set_ylabel("share of hard prompts counted right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"written to {path}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 prompts, up to 100 evaluations")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--parts", type=Path, help="folder of finished runs, reused")
    parser.add_argument("--kept", action="store_true", help="only what --parts holds")
    parser.add_argument("--earlier", type=Path, help="JSON whose rows are kept where not run")
    parser.add_argument("--prompts", type=int, default=16, help="hard prompts")
    parser.add_argument("--most", type=int, default=max(BUDGETS), help="largest budget")
    parser.add_argument("--checkpoint", choices=CHECKPOINTS, help="only this one")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seeds", type=int, default=3 if torch.cuda.is_available() else 1)
    parser.add_argument("--rows", type=int, default=32, help="rows in one call of the model")
    known = {one.method: None for checkpoint in CHECKPOINTS for one in runs(checkpoint)}
    parser.add_argument(
        "--methods", nargs="+", choices=known, metavar="METHOD", help=", ".join(known)
    )
    parser.add_argument("--float32", action="store_true", help="run the network in float32")
    options = parser.parse_args()
    if options.quick:
        options.prompts, options.most, options.seeds = 4, 100, 1
    report = Report("search")
    texts = json.loads(PROMPTS.read_text())["hard"][: options.prompts]
    names = [options.checkpoint] if options.checkpoint else list(CHECKPOINTS)
    tables = [Table(name, options, texts) for name in names]
    for table in tables:
        table.fill()
    budget = min(AT, options.most)
    report.rows = [line for table in tables for line in table.matrix(budget)]
    report.rows += [table.row(*cell) for table in tables for cell in table.cells()]
    if options.earlier:
        report.rows += earlier_rows(options.earlier, report.rows)
    claims(report, tables, budget)
    report.finish(options.json)
    if options.plot:
        plot(tables, options.plot)


if __name__ == "__main__":
    main()
