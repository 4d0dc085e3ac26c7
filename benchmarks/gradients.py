"""What do gradients of a reward buy, and what do they cost, held-out judges included?

    python scripts/dev.py bench gradients [--quick] [--json FILE] [--parts FOLDER] [--sheet FILE]
    python scripts/dev.py bench gradients --tuning       the table that the defaults come from
    python scripts/dev.py bench gradients --device cuda  on a GPU; it has not been run on one yet

On the embedded model's two checkpoints and committed prompts. A hash says which of them settings
may be chosen on; what is claimed is of the others, 48 of them. Rewards: `layout` (that of `bench
smooth`), `palette` (the prompt's colours on white), `beige` (the same on a colour that the model
never draws) and `count` (Shape Count by its soft stand-in, which draws true shapes as Shape
Fidelity does). Held out of each is Shape Fidelity, and of all but the last Shape Count.
Samples are paired by prompt and noise with unguided ones of the same steps; intervals are 95 %, by
bootstrap over prompts. Seconds are those of the processor (on a GPU, of the clock), so that what
else a machine does is not counted. What is done is kept in --parts and not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devtools.pack import load_pack

load_pack()

from _gradient_cells import Bench, Cell  # noqa: E402
from _gradient_networks import NETWORK, add_networks, costs  # noqa: E402
from _gradient_sheet import draw_sheet  # noqa: E402
from _guided_problem import is_for_tuning  # noqa: E402
from _report import Report, paired_difference  # noqa: E402
from _runs import Method  # noqa: E402
from _tilted_laws import rows  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from flowsearch.samplers.paths import sigmas  # noqa: E402
from flowsearch.samplers.search import EvolutionarySearch  # noqa: E402
from flowsearch.samplers.stepping.guidance import Guidance  # noqa: E402
from flowsearch.samplers.stepping.transition import ODE  # noqa: E402

PROMPTS = Path(__file__).with_name("prompts.json")
DEFAULT = Guidance(strength=0.3, start=0.8)
PLACES = Guidance(strength=0.7, start=1.0)
"""Of rewards that say where things are, which is decided in the first steps."""
STEPS = {"base": (8, 25), "few_step": (4, 8)}
BOTH = ("fidelity", "count")
JUDGES: dict[str, tuple[str, ...]] = {"layout": BOTH, "palette": BOTH, "beige": BOTH}
JUDGES["count"] = ("fidelity",)
CHOSEN: dict[str, tuple[Guidance, dict[str, tuple[int, ...]]]] = {
    "layout": (PLACES, {"base": (8, 25), "few_step": (4, 8)}),
    "palette": (DEFAULT, {"base": (8,), "few_step": (4, 8)}),
    "beige": (DEFAULT, {"base": (8,), "few_step": (8,)}),
    "count": (DEFAULT, {"base": (8,), "few_step": (4,)}),
}
"""How each reward is climbed, and in how many steps, by checkpoint."""
HOLES = (("layout", DEFAULT, "the default"), ("palette", PLACES, "from the first step"))
"""What not to do."""
TARGETS = {25: -0.004, 8: -0.012}
NETWORK_STRENGTHS = (0.15, 0.3, 0.6)
STRENGTHS = {1.0: (0.3, 0.5, 0.7, 1.0), 0.8: (0.15, 0.3, 0.5)}
"""Strengths that are tried, by start."""


SHEET = (
    Cell("base", "layout", 8),
    Cell("base", "layout", 8, PLACES), Cell("base", "layout", 25, PLACES),
    Cell("base", "layout", 8, DEFAULT), Cell("base", "beige", 8, DEFAULT),
    Cell("base", "beige", 8, PLACES), Cell("base", "count", 8, DEFAULT),
    Cell("few_step", "layout", 4, PLACES),
)  # fmt: skip
"""Columns of the sheet."""


def signed(triple: tuple[float, float, float], digits: int = 3) -> str:
    """A difference with its interval."""
    mean, low, high = triple
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def row_of(bench: Bench, part: str, name: str, cell: Cell, plain: Cell) -> dict[str, Any]:
    """What came of a cell, beside the unguided one of the same steps and noise."""
    done = bench.cell(cell)
    row: dict[str, Any] = {
        "part": part, "checkpoint": cell.world, "reward": cell.reward, "method": name,
        "evaluations": done["evaluations"], "gradients": done["gradients"],
        "seconds a prompt": done["seconds"], "value": float(bench.array(cell, "reward").mean()),
    }  # fmt: skip
    for judge in ("fidelity", "count"):
        values = bench.array(cell, judge)
        row[judge] = float(values.mean())
        row[f"{judge} minus plain's"] = signed(
            paired_difference(values, bench.array(plain, judge)), 3 if judge == "fidelity" else 2
        )
    row["right"] = float((bench.array(cell, "count") == 0).mean())
    print(row, flush=True)
    return row


def falls(bench: Bench, cell: Cell, plain: Cell) -> list[str]:
    """Held-out judges that are lower than without guidance, the whole interval below 0."""
    return [
        judge
        for judge in JUDGES[cell.reward]
        if paired_difference(bench.array(cell, judge), bench.array(plain, judge))[2] < 0.0
    ]


def smooth(bench: Bench, report: Report) -> None:
    """Every reward on both checkpoints, guided as its kind should be, and as it should not."""
    for reward, (guidance, worlds) in CHOSEN.items():
        for world, numbers in worlds.items():
            for steps in numbers:
                plain, guided = Cell(world, reward, steps), Cell(world, reward, steps, guidance)
                for name, cell in (("plain", plain), ("guided", guided)):
                    report.rows.append(row_of(bench, "guided and plain", name, cell, plain))
                said = f"{world}, {reward}, {steps} evaluations"
                before = bench.array(plain, "reward")
                rise = paired_difference(bench.array(guided, "reward"), before)
                report.claim(
                    f"{said}: value {before.mean():.4f} to {before.mean() + rise[0]:.4f}, "
                    f"{signed(rise, 4)}",
                    rise[1], 0.0, rise[1] > 0.0,
                )  # fmt: skip
                lower = falls(bench, guided, plain)
                report.claim(
                    f"{said}: held-out judges that fall: {', '.join(lower) or 'none'}",
                    len(lower), 0.0, not lower,
                )  # fmt: skip
    for reward, guidance, name in HOLES:
        plain, cell = Cell("base", reward, 8), Cell("base", reward, 8, guidance)
        report.rows.append(row_of(bench, "what not to do", name, cell, plain))


def against_search(bench: Bench, report: Report) -> None:
    """Layout by gradients against the best search without, at 500 evaluations."""
    budget = 500 if not bench.options.quick else 60
    method = Method("default", EvolutionarySearch(), sigmas.uniform(8), prefix=True)
    count = min(bench.options.searched, len(bench.texts))
    found = bench.search("base", "layout", method, budget, count)
    report.rows.append(
        {
            "part": "layout, search without gradients",
            "method": method.name,
            "evaluations": found.evaluations,
            "reward calls": found.reward_calls,
            "seconds a prompt": found.seconds,
            "value": float(found.rewards.mean()),
            "fidelity": float(np.nanmean(found.held_out)),
        }
    )
    print(report.rows[-1], flush=True)
    for steps, target in TARGETS.items():
        cell = Cell("base", "layout", steps, PLACES)
        values, seconds = bench.array(cell, "reward"), bench.cell(cell)["seconds"]
        mean, low, high = paired_difference(values, np.zeros_like(values))
        report.claim(
            f"layout at {steps} evaluations: {mean:.4f} (95 % interval {low:.4f} to {high:.4f})",
            mean, target, mean >= target,
        )  # fmt: skip
        more = paired_difference(values[:count], found.rewards[0])
        report.claim(
            f"layout: guided at {steps} minus default search at {budget}: {signed(more, 4)}",
            more[1], 0.0, more[1] > 0.0,
        )  # fmt: skip
        share = seconds / found.seconds
        report.claim(f"layout: seconds of guided at {steps} over those of the search: {share:.3f}",
                     share, 0.2, share <= 0.2)  # fmt: skip


def few(bench: Bench, report: Report) -> None:
    """Best of a few guided samples, and how much the samples of a prompt differ."""
    seeds = range(bench.options.seeds)
    for reward in ("layout", "count"):
        spread: dict[str, NDArray[np.float64]] = {}
        for name, guidance in (("plain", None), ("guided", CHOSEN[reward][0])):
            cells = [Cell("base", reward, 8, guidance, seed) for seed in seeds]
            values = np.stack([bench.array(cell, "reward") for cell in cells])
            best = values.argmax(axis=0), np.arange(values.shape[1])
            spread[name] = _spread([bench.cell(cell)["places"] for cell in cells])
            row: dict[str, Any] = {
                "part": f"best of {len(seeds)}", "reward": reward, "method": name,
                "evaluations": 8 * len(seeds), "value": float(values[best].mean()),
                "value of one": float(values.mean()), "distance": float(spread[name].mean()),
            }  # fmt: skip
            for judge in ("fidelity", "count"):
                judged = np.stack([bench.array(cell, judge) for cell in cells])
                row[judge] = float(judged[best].mean())
                row[f"{judge} of one"] = float(judged.mean())
            report.rows.append(row)
            print(row, flush=True)
        ratio = spread["guided"] / spread["plain"]
        mean, low, high = paired_difference(ratio, np.zeros_like(ratio))
        report.claim(
            f"{reward}: distance of two guided samples of a prompt over that of two plain ones: "
            f"{mean:.2f} (95 % interval {low:.2f} to {high:.2f})",
            mean, 0.5, mean >= 0.5,
        )  # fmt: skip


def _spread(places: Sequence[Sequence[Sequence[float]]]) -> NDArray[np.float64]:
    """Mean distance of two samples of a prompt, root mean square over 16 x 16 places."""
    at = np.array(places)
    pairs = [(i, j) for i in range(len(at)) for j in range(i)]
    return np.mean([np.sqrt(np.square(at[i] - at[j]).mean(axis=1)) for i, j in pairs], axis=0)


def networks(bench: Bench, report: Report) -> None:
    """Ascent on a random network's score, at rising strengths; on a GPU also the price."""
    add_networks(bench.options.device)
    plain = Cell("base", NETWORK, 8)
    last = bench.array(plain, "reward")
    report.rows.append(row_of(bench, NETWORK, "plain", plain, plain))
    rises = True
    for strength in NETWORK_STRENGTHS:
        cell = Cell("base", NETWORK, 8, Guidance(strength=strength, start=DEFAULT.start))
        row = row_of(bench, NETWORK, f"{strength:g}", cell, plain)
        others = bench.array(cell, "other weights"), bench.array(plain, "other weights")
        report.rows.append(
            row | {"other weights minus plain's": signed(paired_difference(*others))}
        )
        now = bench.array(cell, "reward")
        rises &= paired_difference(now, last)[1] > 0.0
        last = now
    rise = paired_difference(last, bench.array(plain, "reward"))
    report.claim(
        f"{NETWORK}: score rises with every strength of {NETWORK_STRENGTHS}; at the last "
        f"{signed(rise)}",
        rise[0], 0.0, bool(rises),
    )  # fmt: skip
    if bench.options.device == "cuda":
        report.rows += costs(bench.options.device)


def tilted(bench: Bench, report: Report) -> None:
    """Exact laws tilted by a reward, with a tenth of the particles; see _tilted_laws.py."""
    table = rows(bench.options.quick)
    report.rows += [{"part": "exact tilted laws", **row} for row in table]
    for law in dict.fromkeys(row["law"] for row in table):
        of = [row for row in table if row["law"] == law]
        without = max((r for r in of if r["draws"] != "twisted"), key=lambda r: r["ESS"])
        twisted = next(r for r in of if r["draws"] == "twisted")
        allowed = without["KS"] + 0.87 / twisted["ESS"] ** 0.5
        report.claim(
            f"{law}: {twisted['particles']} twisted particles, KS {twisted['KS']:.3f} and ESS "
            f"{twisted['ESS']:.0f}; {without['particles']} without, KS {without['KS']:.3f} and ESS "
            f"{without['ESS']:.0f}",
            twisted["KS"], allowed, twisted["KS"] <= allowed,
        )  # fmt: skip


def composition(bench: Bench, report: Report) -> None:
    """Counts right at 50 evaluations or fewer with gradients, and at 125 by the default search."""
    budget = 125 if not bench.options.quick else 40
    method = Method("default", EvolutionarySearch(), sigmas.uniform(8), prefix=True)
    found = bench.search("base", "count", method, budget, len(bench.texts))
    few_evaluations = 50 if not bench.options.quick else 20
    how = Method(
        "guided", EvolutionarySearch(), sigmas.uniform(8), ODE.guided(DEFAULT), prefix=True
    )
    steered = bench.search("base", "count", how, few_evaluations, len(bench.texts))
    for part, one in (("without", found), ("with", steered)):
        report.rows.append(
            {
                "part": f"counts, search {part} gradients", "evaluations": one.evaluations,
                "reward calls": one.reward_calls, "seconds a prompt": one.seconds,
                "right": float(one.right.mean()), "fidelity": float(np.nanmean(one.held_out)),
            }
        )  # fmt: skip
    more = paired_difference(steered.right[0].astype(float), found.right[0].astype(float))
    report.claim(
        f"counts: {steered.right.mean():.2f} right by the default search with gradients at "
        f"{few_evaluations}, {found.right.mean():.2f} without at {budget}; {signed(more)}",
        more[0], 0.0, more[0] >= 0.0,
    )  # fmt: skip
    for world, steps in (("base", 8), ("few_step", 4)):
        right = (bench.array(Cell(world, "count", steps, DEFAULT), "count") == 0).astype(float)
        more = paired_difference(right, found.right[0])
        report.claim(
            f"counts: {right.mean():.2f} right of one guided sample ({world}, {steps} steps), "
            f"{found.right.mean():.2f} by the default search of base at {budget}; {signed(more)}",
            more[0], 0.0, more[0] >= 0.0,
        )  # fmt: skip


PARTS: dict[str, Callable[[Bench, Report], None]] = {
    "smooth": smooth, "composition": composition, "few": few, "networks": networks,
    "tilted": tilted, "search": against_search,
}  # fmt: skip


def tuning(bench: Bench, report: Report) -> None:
    """The strongest at which no held-out judge falls on any world, of the tuning prompts."""
    for start, strengths in STRENGTHS.items():
        for reward, strength in product(JUDGES, strengths):
            for world, numbers in STEPS.items():
                for steps in [n for n in numbers if n <= bench.options.most]:
                    guidance = Guidance(strength=strength, start=start)
                    cell, plain = Cell(world, reward, steps, guidance), Cell(world, reward, steps)
                    row = row_of(bench, f"from sigma {start:g}", f"{strength:g}", cell, plain)
                    report.rows.append(row | {"falls": ", ".join(falls(bench, cell, plain))})


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 prompts, small budgets")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", type=Path, help="folder of finished runs, reused")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--tuning", action="store_true", help="strengths, on the tuning prompts")
    parser.add_argument("--most", type=int, default=25, help="steps of --tuning at most")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--searched", type=int, default=24, help="prompts of the long search")
    parser.add_argument("--seeds", type=int, default=4, help="samples of which the best is kept")
    parser.add_argument("--sheet", type=Path, help="PNG of guided and plain pictures")
    parser.add_argument("--rows", type=int, default=64, help="rows in one call of the model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    hard: list[str] = json.loads(PROMPTS.read_text())["hard"]
    wanted = [text for text in hard if is_for_tuning(text) == options.tuning]
    texts = wanted[: 4 if options.quick else options.prompts]
    bench = Bench(options, texts, [hard.index(text) for text in texts])
    report = Report("gradients")
    if options.quick:
        options.seeds = 2
    if options.sheet:
        draw_sheet(bench, SHEET, options.sheet)
    if options.tuning:
        tuning(bench, report)
    else:
        for name in options.only:
            PARTS[name](bench, report)
    report.finish(options.json)


if __name__ == "__main__":
    main()
