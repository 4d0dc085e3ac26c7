"""What can the embedded model do? The figures of demo/MODEL_CARD.md.

    python scripts/dev.py bench demo_model [--checkpoint few_step] [--json FILE] [--sheet FILE]

Share of single samples (Euler, guidance 1) whose counts are all right, by kind of prompt; and how
well the reward of an early prediction ranks the finished pictures. Prompts are held out.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from devtools.pack import load_pack

load_pack()

from _demo_problem import DemoProblem, load_net  # noqa: E402
from _report import Report  # noqa: E402

from flowsearch.demo.network import CHECKPOINTS  # noqa: E402
from flowsearch.demo.prompt import parse  # noqa: E402
from flowsearch.samplers.paths.sigmas import uniform  # noqa: E402
from flowsearch.samplers.stepping.noise import keyed_normal  # noqa: E402
from flowsearch.samplers.stepping.transition import ODE, step  # noqa: E402

PROMPTS = Path(__file__).with_name("prompts.json")
LEVELS = {
    "base": {"8": uniform(8), "20": uniform(20)},
    "few_step": {
        "1": uniform(1),
        "2, shift 3": uniform(2, shift=3.0),
        "4, shift 3": uniform(4, shift=3.0),
        "20": uniform(20),
    },
}
SHEETS = {"base": ("20",), "few_step": ("1", "4, shift 3")}
WATCHED = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.3)


def sample(
    problem: DemoProblem, each: int, levels: list[float]
) -> tuple[torch.Tensor, np.ndarray, dict[float, np.ndarray]]:
    """Take Euler samples.

    Args:
        problem: The model and its prompts.
        each: Samples a prompt.
        levels: Sigmas of the Euler steps.

    Returns:
        Pictures of the first sample of each prompt; rewards (prompts, each); rewards of the
        predictions at the watched sigmas, the same shape.
    """
    prompts = len(problem.rewards)
    finished = np.zeros((prompts, each))
    early = {
        s: np.zeros((prompts, each)) for s in WATCHED if any(abs(s - u) < 1e-6 for u in levels)
    }
    pictures: list[torch.Tensor] = []
    for index in range(prompts):
        items = [index] * each
        x = torch.stack([keyed_normal((3, 64, 64), 77, index, n) for n in range(each)])
        for sigma, after in pairwise(levels):
            denoised = problem.predict(items, {"x": x}, sigma)["denoised"]
            for watched, scores in early.items():
                if abs(watched - sigma) < 1e-6:
                    scores[index] = [s.value for s in problem.score(items, denoised, [sigma])]
            x = step(x, denoised, ODE.coefficients(sigma, after), None)
        finished[index] = [s.value for s in problem.score(items, x, [0.0] * each)]
        pictures.append(((x[:4] + 1) / 2).clamp(0, 1))
    return torch.stack(pictures), finished, early


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", choices=LEVELS, default="base")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="write a sheet of samples (PNG)")
    parser.add_argument("--each", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=24, help="of each set")
    options = parser.parse_args()
    report = Report("demo_model")
    sets: dict[str, list[str]] = json.loads(PROMPTS.read_text())
    sheet: list[torch.Tensor] = []
    for name, texts in sets.items():
        groups = [parse(text) for text in texts[: options.prompts]]
        problem = DemoProblem(load_net(CHECKPOINTS[options.checkpoint]), groups)
        for steps, levels in LEVELS[options.checkpoint].items():
            pictures, rewards, early = sample(problem, options.each, levels)
            row: dict[str, object] = {
                "prompts": name,
                "steps": steps,
                "right": float((rewards == 0).mean()),
                "mean reward": float(rewards.mean()),
            }
            for sigma in WATCHED:
                kept = early.get(sigma)
                ranks = (
                    [
                        float(np.corrcoef(e, r)[0, 1])
                        for e, r in zip(kept, rewards, strict=True)
                        if e.std() > 0 and r.std() > 0
                    ]
                    if kept is not None
                    else []
                )
                row[f"r({sigma})"] = float(np.mean(ranks)) if ranks else ""
            report.rows.append(row)
            print(row, flush=True)
            if steps in SHEETS[options.checkpoint]:
                sheet += [torch.cat(list(four), dim=2) for four in pictures[:8]]
    if options.sheet:
        from PIL import Image

        count = len(sheet) // len(sets) // len(SHEETS[options.checkpoint])
        columns = [torch.cat(sheet[i : i + count], dim=1) for i in range(0, len(sheet), count)]
        page = torch.cat(columns, dim=2)
        pixels = (page.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels).resize((page.shape[2] * 2, page.shape[1] * 2), 0).save(
            options.sheet
        )
        print(f"written to {options.sheet}")
    report.finish(options.json)


if __name__ == "__main__":
    main()
