"""Do the searches' defaults hold where the reward is smooth? Colours in the right places.

    python scripts/dev.py bench smooth [--quick] [--json FILE] [--parts FOLDER]

The reward is minus the distance between a picture and another drawing of its prompt, both averaged
over 8 x 8 places: nothing to be counted, no target to be reached, every small change is seen. The
model, the strategies and their settings are those of `bench count`; nothing was tuned on this.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from devtools.pack import load_pack

load_pack()

from _demo_problem import DemoProblem, load_net  # noqa: E402
from _report import Report, paired_difference  # noqa: E402
from _runs import Method, Parts, Result, measured, run  # noqa: E402
from count import PROMPTS, baselines, others  # noqa: E402

from flowsearch.demo.prompt import Group, parse  # noqa: E402
from flowsearch.demo.scene import Scene, draw  # noqa: E402
from flowsearch.rewards.base import RewardSpec  # noqa: E402

BUDGETS = (100, 300)
METHODS = ("default", "Best-of-N, 8 steps", "RBF", "SVDD", "RBF reference, our sigmas")


@dataclass(frozen=True)
class Layout:
    """Minus the distance to a drawing, place by place.

    Args:
        wanted: Mean colours of the drawing's places, shape (3, 8, 8).
    """

    wanted: torch.Tensor

    @classmethod
    def of(cls, groups: Sequence[Group], seed: int) -> Layout:
        """The reward that wants one drawing of a scene."""
        picture = torch.from_numpy(draw(Scene(tuple(groups)), np.random.default_rng(seed)))
        return cls(torch.nn.functional.avg_pool2d(picture.permute(2, 0, 1)[None], 8)[0])

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            "layout", "how near the colours of 8 x 8 places are to a drawing's", -1.0, 0.0,
            has_gradient=True,
        )  # fmt: skip

    def score(self, images: torch.Tensor) -> torch.Tensor:
        """Score pictures (B, H, W, 3), 0 to 1."""
        places = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2), 8)
        return -(places - self.wanted).square().mean(dim=(1, 2, 3)).sqrt()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="6 prompts, up to 100 evaluations")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--parts", type=Path, help="folder of finished runs, reused")
    parser.add_argument("--prompts", type=int, default=24)
    options = parser.parse_args()
    budgets = BUDGETS[:1] if options.quick else BUDGETS
    count = 6 if options.quick else options.prompts
    texts = json.loads(PROMPTS.read_text())["hard"][:count]
    groups = [parse(text) for text in texts]
    problem = DemoProblem(load_net(), groups)
    problem.rewards = [Layout.of(one, seed) for seed, one in enumerate(groups)]
    problem.reward_name = "layout"
    parts, report = Parts(options.parts), Report("smooth")
    known = {method.name: method for method in (*baselines(), *others())}
    found: dict[tuple[str, int], np.ndarray] = {}
    for name in METHODS:
        method = known[name]
        for budget in [max(budgets)] if method.prefix else budgets:
            settings = method.strategy.to_json()

            def compute(m: Method = method, b: int = budget) -> list[Result]:
                return run(problem, m, b, 0, 64)

            kept = [parts.get(("layout", texts, name, settings, budget), compute)]
            for limit in budgets if method.prefix else [budget]:
                one = measured(kept, limit)
                found[name, limit] = one.rewards
                report.rows.append(
                    {
                        "method": name,
                        "evaluations": limit,
                        "mean reward": float(one.rewards.mean()),
                        "reward calls": one.reward_calls,
                        "seconds a prompt": one.seconds,
                    }
                )
                print(report.rows[-1], flush=True)
    for budget in budgets:
        for name in METHODS[1:]:
            mean, low, high = paired_difference(found["default", budget], found[name, budget])
            report.claim(
                f"{budget} evaluations: default minus {name}: {mean:+.4f} (95 % interval "
                f"{low:+.4f} to {high:+.4f})",
                low, 0.0, low > 0.0,
            )  # fmt: skip
    report.finish(options.json)


if __name__ == "__main__":
    main()
