"""Are stock samplers that are wrong on flow models right after Interpolant Conversion?

    python scripts/dev.py bench conversion [--quick] [--json FILE]

A MODEL of the real host whose velocity is known exactly, data of independent pixels: Gaussian, and
a mixture of three. Each stock sampler runs on the flow model and on its conversions, with the same
scheduler and seed (0); the samples' mean, spread and W1 distance to the data are compared with the
truth. "exact draws" is what W1 is at that number of samples without any sampler. euler_ancestral
has a formula of its own for flow models, and is the reference.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from devtools.pack import load_pack

load_pack()

from _exact_models import ExactNet, GaussianNet, MixtureNet, sample, wrap  # noqa: E402
from _report import Report  # noqa: E402

# isort: split
import comfy.samplers  # noqa: E402

from flowsearch.nodes.host.model.converted_sampling import SCHEDULES  # noqa: E402
from flowsearch.nodes.sampling.conversion import convert  # noqa: E402

REFERENCE = "euler_ancestral"
CHURN = {"s_churn": 10.0}
SAMPLERS: dict[str, tuple[str, dict[str, float]]] = {
    REFERENCE: (REFERENCE, {}),
    "ddpm": ("ddpm", {}),
    "res_multistep_ancestral": ("res_multistep_ancestral", {}),
    "res_multistep_ancestral_cfg_pp": ("res_multistep_ancestral_cfg_pp", {}),
    "euler, s_churn 10": ("euler", CHURN),
    "heun, s_churn 10": ("heun", CHURN),
    "dpmpp_2s_ancestral_cfg_pp": ("dpmpp_2s_ancestral_cfg_pp", {}),
}
SCHEDULED = ("euler", REFERENCE, "heun", "dpmpp_2m")
MODELS = ("flow", *SCHEDULES)
DATA: dict[str, ExactNet] = {
    "Gaussian": GaussianNet([0.3], [0.5]),
    "mixture": MixtureNet([0.3, 0.5, 0.2], [-1.5, 0.5, 2.0], [0.2, 0.3, 0.1], channels=1),
}
Row = dict[str, Any]


def quantiles(net: ExactNet, count: int) -> Tensor:
    """Quantiles of the data at (i + 1/2) / count, by inverting its distribution function."""
    grid = torch.linspace(-6.0, 6.0, 400_001, dtype=torch.float64)
    levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return grid[torch.searchsorted(net.cdf(grid[None])[0], levels).clamp(max=len(grid) - 1)]


def measure(values: Tensor, truth: Tensor) -> Row:
    """Compare samples with the data.

    Args:
        values: Samples, shape (n,).
        truth: The data's n quantiles.

    Returns:
        Mean and spread with standard errors, and W1.
    """
    count, std = len(values), float(values.std())
    fourth = float((values - values.mean()).pow(4).mean())
    return {
        "mean": round(float(values.mean()), 4),
        "se mean": round(std / math.sqrt(count), 4),
        "std": round(std, 4),
        "se std": round(math.sqrt(max(fourth - std**4, 0.0) / count) / (2 * std + 1e-12), 4),
        "W1": round(float((values.sort().values - truth).abs().mean()), 4),
    }


def run(
    data: str, model: str, name: str, scheduler: str, steps: int, count: int, truth: Tensor
) -> Row:
    """Sample once and measure.

    Args:
        data: Key of DATA.
        model: flow, or a target of the conversion.
        name: Key of SAMPLERS, or a stock sampler's name.
        scheduler: The host's.
        steps: Number of steps.
        count: Samples.
        truth: The data's quantiles.

    Returns:
        A row of the table.
    """
    patcher = wrap(DATA[data])
    if model != "flow":
        patcher = convert(patcher, model)
    sampling = patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
    stock, options = SAMPLERS.get(name, (name, {}))
    start = time.time()
    values = sample(patcher, comfy.samplers.ksampler(stock, options), sigmas, 1, count, seed=0)[0]
    row = {"data": data, "sampler": name, "scheduler": scheduler, "model": model, "steps": steps}
    row |= measure(values, truth) | {"seconds": round(time.time() - start, 1)}
    print(row, flush=True)
    return row


def claims(report: Report, steps: int) -> None:
    """Compare every sampler with the reference on the same model, by W1 on Gaussian data."""
    found = {
        (r["sampler"], r["model"]): r["W1"]
        for r in report.rows
        if r["data"] == "Gaussian" and r["scheduler"] == "simple" and r["steps"] == steps
    }
    for name in SAMPLERS:
        if name == REFERENCE:
            continue
        before = found[name, "flow"] / found[REFERENCE, "flow"]
        report.claim(
            f"{name}, {steps} steps: W1 on the flow model is {before:.1f} times {REFERENCE}'s "
            "(above 3: wrong)",
            before,
            3.0,
            before > 3.0,
        )
        after = max(found[name, target] / found[REFERENCE, target] for target in SCHEDULES)
        report.claim(
            f"{name}, {steps} steps: W1 after conversion is at most {after:.2f} times "
            f"{REFERENCE}'s (at most 1.25: right)",
            after,
            1.25,
            after <= 1.25,
        )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Gaussian data, 16384 samples")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    count = 1 << 14 if options.quick else 1 << 16
    report = Report("conversion")
    for data, net in DATA.items():
        if options.quick and data != "Gaussian":
            continue
        truth = quantiles(net, count)
        drawn = net.draw(count, torch.Generator().manual_seed(0))[0]
        row = {"data": data, "sampler": "exact draws", "scheduler": "", "model": "", "steps": ""}
        report.rows.append(row | measure(drawn, truth) | {"seconds": 0.0})
        for name in SAMPLERS:
            for steps in (20, 100):
                for model in MODELS:
                    report.rows.append(run(data, model, name, "simple", steps, count, truth))
        if data == "Gaussian":
            for scheduler in comfy.samplers.SCHEDULER_NAMES:
                for name in SCHEDULED:
                    for model in MODELS:
                        if (name, scheduler) != (REFERENCE, "simple"):
                            report.rows.append(run(data, model, name, scheduler, 20, count, truth))
    claims(report, 100)
    report.finish(options.json)


if __name__ == "__main__":
    main()
