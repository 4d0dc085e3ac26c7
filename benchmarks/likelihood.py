"""Does the likelihood know how many there are?

    python scripts/dev.py bench likelihood [--quick | --methods] [--json FILE] [--plot FILE]

True scenes that training never saw, each under its own prompt and under one in which one count is
off by one, with the same noises: the share of pairs in which the right prompt scores above, by the
range of log SNR, nodes and noises; and with other noises for the second prompt, as a mutant. With
--methods: bits per dimension by both methods, and how the ODE's figure depends on the width of its
difference.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from devtools.pack import load_pack

load_pack()

from _demo_problem import load_net  # noqa: E402
from _report import Report  # noqa: E402

from flowsearch.demo.prompt import MAX_COUNT, Group, encode  # noqa: E402
from flowsearch.demo.scene import MAX_TOTAL, Scene, draw, held_out, random_scene  # noqa: E402
from flowsearch.samplers.stepping.noise import keyed_normal  # noqa: E402
from flowsearch.samplers.study import likelihood  # noqa: E402

BIN = 2.0 / 255.0
LOW, COMPOSITION, HIGH = -6.0, 4.0, 14.0
STEP = 1.25
TARGET = 0.8
CHUNK = 25


def scenes(count: int, seed: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    """Draw held-out scenes, each with its prompt and one with a wrong count.

    Args:
        count: How many.
        seed: Of scenes, places and what is changed.

    Returns:
        Pictures in -1..1 on 256 levels, right and wrong contexts.
    """
    rng = np.random.default_rng(seed)
    found: list[Scene] = []
    while len(found) < count:
        scene = Scene(_recounted(random_scene(rng), int(rng.integers(1, MAX_COUNT + 1)), rng))
        if held_out(scene) and scene.total <= MAX_TOTAL:
            found.append(scene)
    pictures = np.stack([draw(scene, rng) for scene in found])
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).mul(255.0).round().div(127.5).sub(1.0)
    right = torch.stack([encode(scene.groups) for scene in found])
    return x.contiguous(), right, torch.stack([encode(_miscounted(s, rng)) for s in found])


def _recounted(scene: Scene, count: int, rng: np.random.Generator) -> tuple[Group, ...]:
    """The scene's groups with that count in one of them."""
    index = int(rng.integers(len(scene.groups)))
    return tuple(
        (count if i == index else n, colour, shape)
        for i, (n, colour, shape) in enumerate(scene.groups)
    )


def _miscounted(scene: Scene, rng: np.random.Generator) -> tuple[Group, ...]:
    """The scene's groups with one count off by one."""
    index = int(rng.integers(len(scene.groups)))
    n = scene.groups[index][0]
    wrong = n + 1 if n == 1 or (n < MAX_COUNT and rng.integers(2)) else n - 1
    return tuple((wrong if i == index else m, *kind) for i, (m, *kind) in enumerate(scene.groups))


def predictor(net: torch.nn.Module, context: Tensor, half: bool = False) -> Callable[..., Tensor]:
    """Prediction of the network under a prompt a row."""

    def predict(x: Tensor, sigma: float) -> Tensor:
        times = torch.full((len(x),), sigma)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, half):
            return net.denoise(x.to(memory_format=torch.channels_last), times, context).float()

    return predict


def noise(seed: int, rows: list[int]) -> Callable[[int, int], Tensor]:
    """Noise of each row's own, so that pairs are independent of each other."""

    def draw_noise(node: int, index: int) -> Tensor:
        return torch.stack([keyed_normal((3, 64, 64), seed, row, node, index) for row in rows])

    return draw_noise


def residuals(
    net: torch.nn.Module,
    x: Tensor,
    contexts: Tensor,
    rule: list[likelihood.Node],
    noises: int,
    seed: int = 0,
) -> Tensor:
    """E|x - D|^2 at every node, shape (nodes, pictures)."""
    parts = []
    for rows in torch.arange(len(x)).split(CHUNK):
        predict = predictor(net, contexts[rows])
        found = likelihood.forward(predict, x[rows], rule, noise(seed, rows.tolist()), noises)
        parts.append(found.residuals)
        print(f"{len(rule)} nodes, {noises} noises: {int(rows[-1]) + 1} of {len(x)}", flush=True)
    return torch.cat(parts, dim=1)


def gain(
    rule: list[likelihood.Node], right: Tensor, wrong: Tensor, low: float, high: float
) -> Tensor:
    """Nats by which the right prompt scores above, from the nodes between two log SNRs alone."""
    inside = [i for i, node in enumerate(rule) if low < node.log_snr < high]
    weights = torch.tensor([rule[i].weight * math.exp(rule[i].log_snr) for i in inside])
    return 0.5 * (weights[:, None] * (wrong - right)[inside]).sum(0)


def interval(successes: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, p = 1.959964, successes / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def pairs(report: Report, net: torch.nn.Module, count: int) -> tuple[Tensor, Tensor]:
    """Compare right with wrong prompts.

    Args:
        report: Gets rows and the claim.
        net: The network.
        count: Pairs.

    Returns:
        Log SNR of the nodes over the whole range, and gains at each, shape (nodes, pairs).
    """
    x, right, wrong = scenes(count)

    def row(name: str, low: float, high: float, nodes: int, noises: int, gains: Tensor) -> None:
        above = int((gains > 0).sum())
        least, most = interval(above, count)
        report.rows.append(
            {
                "noises of the two prompts": name,
                "log SNR": f"{low:g} to {high:g}",
                "nodes": nodes,
                "noises": noises,
                "evaluations a prompt": 2 * nodes * noises,
                "right above": above / count,
                "95 % interval": f"{least:.2f} to {most:.2f}",
                "median nats": float(gains.median()),
            }
        )
        print(report.rows[-1], flush=True)

    rule = likelihood.midpoint(round((HIGH - LOW) / STEP), LOW, HIGH)
    both = [residuals(net, x, contexts, rule, 2) for contexts in (right, wrong)]
    ends = [
        (LOW, 1.5),
        (LOW, COMPOSITION),
        (-1.0, COMPOSITION),
        (LOW, 6.5),
        (LOW, 9.0),
        (LOW, HIGH),
    ]
    for low, high in ends:
        inside = sum(low < node.log_snr < high for node in rule)
        row("the same", low, high, inside, 2, gain(rule, *both, low, high))
    for nodes, noises in ((4, 2), (16, 2)):
        own = likelihood.midpoint(nodes, LOW, COMPOSITION)
        found = [residuals(net, x, contexts, own, noises) for contexts in (right, wrong)]
        gains = gain(own, *found, LOW, COMPOSITION)
        row("the same", LOW, COMPOSITION, nodes, noises, gains)
    share = report.rows[-1]["right above"]
    report.claim(
        f"log SNR {LOW:g} to {COMPOSITION:g}, 16 nodes, 2 noises: the right prompt scores above "
        f"in {share:.2f} of {count} pairs (95 % interval {report.rows[-1]['95 % interval']})",
        share,
        TARGET,
        share >= TARGET,
    )
    lower = [node for node in rule if node.log_snr < COMPOSITION]
    other = residuals(net, x, wrong, lower, 2, seed=1)
    gains = gain(lower, both[0][: len(lower)], other, LOW, COMPOSITION)
    row("different", LOW, COMPOSITION, len(lower), 2, gains)
    weights = torch.tensor([0.5 * node.weight * math.exp(node.log_snr) for node in rule])
    return torch.tensor([node.log_snr for node in rule]), weights[:, None] * (both[1] - both[0])


def methods(net: torch.nn.Module, count: int) -> list[dict[str, object]]:
    """Bits per dimension by both methods, on the same pictures and dequantisation.

    Args:
        net: The network.
        count: Pictures.

    Returns:
        Rows.
    """
    x, context, _ = scenes(count)
    uniform = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    x, own = x + BIN * (uniform - 0.5), noise(0, list(range(count)))
    rows: list[dict[str, object]] = []

    def row(name: str, nodes: int, found: likelihood.Likelihood, width: float | str = "") -> None:
        bits = likelihood.bits_per_dimension(found.nats, x[0].numel(), BIN)
        error = found.error / x[0].numel() / math.log(2.0)
        rows.append(
            {
                "method": name,
                "nodes": nodes,
                "width": width,
                "evaluations": found.evaluations,
                "bits per dimension": f"{float(bits.mean()):.4f}",
                "mean standard error": f"{float(error.mean()):.4f}",
            }
        )
        print(rows[-1], flush=True)

    rule = {n: likelihood.midpoint(n, LOW, HIGH) for n in (16, 24, 32, 64)}
    for nodes in (16, 32, 64):
        row("forward", nodes, likelihood.forward(predictor(net, context), x, rule[nodes], own, 2))
    for half in (False, True):
        predict = predictor(net, context, half)
        name = "ode, bfloat16" if half else "ode"
        for width in (0.03, 0.1, 0.3):
            row(name, 24, likelihood.ode(predict, x, rule[24], own, 2, width=width), width)
    found = likelihood.ode(predictor(net, context), x, rule[64], own, 2)
    row("ode", 64, found, likelihood.WIDTH)
    return rows


def plot(log_snr: Tensor, gains: Tensor, path: Path) -> None:
    """Draw the gain at each node, and the share right from the lowest node up to it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    quantiles = torch.quantile(gains, torch.tensor([0.1, 0.5, 0.9], dtype=gains.dtype), dim=1)
    left.fill_between(log_snr, quantiles[0], quantiles[2], alpha=0.3, label="10 to 90 % of pairs")
    left.plot(log_snr, quantiles[1], label="median")
    left.axhline(0.0, color="grey", lw=0.8)
    left.set(xlabel="log SNR of the node", ylabel="nats for the right prompt", yscale="symlog")
    left.legend(fontsize=8)
    right.plot(log_snr + STEP / 2, (gains.cumsum(0) > 0).double().mean(1), "o-", ms=3)
    right.set(xlabel="upper end of the range", ylabel="share of pairs right", ylim=(0.4, 1.0))
    right.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"written to {path}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 pairs")
    parser.add_argument("--methods", action="store_true", help="only the bits per dimension")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report, net = Report("likelihood"), load_net()
    if options.methods:
        report.rows = methods(net, 3)
        report.finish(options.json)
        return
    log_snr, gains = pairs(report, net, 20 if options.quick else 100)
    if options.plot:
        plot(log_snr, gains, options.plot)
    report.finish(options.json)


if __name__ == "__main__":
    main()
