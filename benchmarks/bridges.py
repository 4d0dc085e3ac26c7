"""What do bridges between two densities do, with fields that are learnt?

    python scripts/dev.py bench bridges [--quick] [--json FILE] [--plot FILE]

Examples of arXiv:2303.08797, small, on one core, without the host. `checkerboard`: a normal source
becomes a checkerboard, drift and noise learnt by the objectives of samplers/study/objectives.py,
a network a gamma, sampled with eps = c gamma for several c (c = 0: the ODE); `off` is the share
of samples outside the squares, `distance` the total variation of 16 x 16 cells. `mixture`: five
modes in 128 dimensions; `kl` is the divergence of two coordinates by a kernel estimate. `errors`: a
velocity with an error .1 sin(k x), the divergence of the ODE and of the SDE, and the bound.
`gaussian`: the interpolant between two normal distributions for which the drift's energy is least,
against the Schroedinger bridge in closed form. `alternating`: the bridge between two mixtures in
the plane by fits in turn downward and upward; E|x0 - x1|^2 against Sinkhorn's on draws.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from devtools.pack import load_pack

load_pack()

from _report import Report  # noqa: E402

from flowsearch.samplers.paths.diffusion import Diffusion  # noqa: E402
from flowsearch.samplers.paths.noise_law import noise_law  # noqa: E402
from flowsearch.samplers.paths.two_sided import TwoSided, two_sided  # noqa: E402
from flowsearch.samplers.stepping.integrate import integrate  # noqa: E402
from flowsearch.samplers.stepping.transition import Transition  # noqa: E402
from flowsearch.samplers.stepping.two_ends import Pair, TwoEnds  # noqa: E402
from flowsearch.samplers.study.bridge_likelihood import log_density  # noqa: E402
from flowsearch.samplers.study.mixture_bridge import (  # noqa: E402
    Mixture,
    schroedinger_covariance,
)
from flowsearch.samplers.study.objectives import loss  # noqa: E402

Draws = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
CELLS = 16


class Net(nn.Module):
    """A small network of (x, t) with outputs of the shape of x, one a field.

    Args:
        dimension: Of the states.
        width: Of the hidden layers.
        fields: How many are predicted.
        waves: Frequencies of x, in units of pi, whose sines and cosines it is given too.
    """

    def __init__(
        self, dimension: int, width: int, fields: int, waves: tuple[float, ...] = ()
    ) -> None:
        super().__init__()
        self.fields, self.waves = fields, waves
        self.layers = nn.Sequential(
            nn.Linear(dimension * (1 + 2 * len(waves)) + 5, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, fields * dimension),
        )

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        """Return the fields at states (B, d) and times (B,)."""
        turn = 2.0 * math.pi * t
        of_t = torch.stack([t, t.sin(), t.cos(), turn.sin(), turn.cos()], 1)
        of_x = [f(math.pi * wave * x) for wave in self.waves for f in (torch.sin, torch.cos)]
        return self.layers(torch.cat([x, of_t, *of_x], 1)).chunk(self.fields, 1)


class Once:
    """A network that is not asked twice at the same states: its objectives share an evaluation.

    Args:
        net: The network.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self.seen: list[tuple[Tensor, tuple[Tensor, ...]]] = []

    def field(self, index: int) -> Callable[[Tensor, Tensor], Tensor]:
        """One of its outputs as a network."""

        def of(x: Tensor, t: Tensor) -> Tensor:
            for known, fields in self.seen:
                if torch.equal(known, x):
                    return fields[index]
            self.seen.append((x, self.net(x, t)))
            return self.seen[-1][1][index]

        return of


def fit(
    path: TwoSided,
    names: tuple[str, ...],
    draws: Draws,
    dimension: int,
    width: int,
    steps: int,
    batch: int = 1000,
    waves: tuple[float, ...] = (),
) -> Net:
    """Train a network on the objectives of the named fields, times uniform.

    Args:
        path: The path.
        names: Keys of OBJECTIVES.
        draws: draws(count, generator) returns pairs (x0, x1).
        dimension: Of the states.
        width: Of the network.
        steps: Of Adam, its rate falling to 0.
        batch: Pairs a step, each with both signs of the noise.
        waves: Of the network.

    Returns:
        The network.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = Net(dimension, width, len(names), waves)
    adam = torch.optim.Adam(net.parameters(), 2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        x0, x1 = draws(batch, generator)
        z = torch.randn(x0.shape, generator=generator)
        t = torch.rand(batch, generator=generator)
        once = Once(net)
        losses = [
            loss(name, once.field(index), path, t, x0, x1, z).mean()
            for index, name in enumerate(names)
        ]
        adam.zero_grad()
        torch.stack(losses).sum().backward()
        adam.step()
        rate.step()
    return net.eval()


def ends_of(net: Net, path: TwoSided) -> Callable[[Tensor, float], tuple[Tensor, Tensor]]:
    """Make D and S of the drift and the noise of a network, for linear ends.

    D = x - gamma eta - t v,    S = x - gamma eta + (1 - t) v
    """

    def ends(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            fields = net(x, torch.full((len(x),), t))
        middle = x - path.gamma(t) * fields[1] if path.is_noisy else x
        return middle - t * fields[0], middle + (1.0 - t) * fields[0]

    return ends


def times(steps: int) -> list[float]:
    """Return falling times that are denser near both ends."""
    return [0.5 + 0.5 * math.cos(math.pi * i / steps) for i in range(steps)] + [0.0]


def sampled(net: Net, path: TwoSided, x: Tensor, strength: float, steps: int) -> Tensor:
    """Carry draws of the source to the target with eps = strength gamma."""
    generator = torch.Generator().manual_seed(1)
    diffusion = Diffusion("gamma", strength) if strength else Diffusion()
    pair = Pair(ends_of(net, path))
    return integrate(
        pair.target,
        x,
        times(steps),
        TwoEnds(path, diffusion, second_order=True),
        lambda _: torch.randn(x.shape, generator=generator),
        other_end=pair.source,
    )


def board(count: int, generator: torch.Generator) -> Tensor:
    """Draw from the black squares of a 4 x 4 board on [-2, 2]^2."""
    square = torch.randint(8, (count,), generator=generator)
    row, column = square // 2, 2 * (square % 2)
    place = torch.rand(count, 2, generator=generator)
    return place + torch.stack([column + row % 2, row], 1) - 2.0


def board_row(sample: Tensor) -> dict[str, float]:
    """Measure samples against the board."""
    inside = (sample.abs() < 2.0).all(1)
    at = (sample + 2.0).floor()
    black = inside & ((at.sum(1) % 2) == 0)
    cell = ((sample[inside] + 2.0) * (CELLS / 4.0)).floor().long()
    counts = torch.bincount(cell[:, 0] * CELLS + cell[:, 1], minlength=CELLS**2)
    corner = torch.arange(CELLS) * 4 // CELLS
    is_black = ((corner[:, None] + corner[None, :]) % 2 == 0).flatten()
    right = is_black / is_black.sum()
    gap = (counts / len(sample) - right).abs().sum() + (~inside).double().mean()
    return {"off": float((~black).double().mean()), "distance": 0.5 * float(gap)}


def checkerboard(report: Report, quick: bool) -> dict[str, Tensor]:
    """Learn and sample the board; return samples to draw."""
    pictures: dict[str, Tensor] = {}

    def draws(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return board(count, generator), torch.randn(count, 2, generator=generator)

    count = 5_000 if quick else 8_000
    start = torch.randn(count, 2, generator=torch.Generator().manual_seed(5))
    found: dict[tuple[str, float], dict[str, float]] = {}
    for gamma in ("brownian", "sin_squared", "quadratic", "none"):
        path = two_sided("linear", gamma)
        names = ("drift", "noise") if path.is_noisy else ("drift",)
        net = fit(path, names, draws, 2, 128, 300 if quick else 1500, waves=(0.5, 1.0))
        for strength in STRENGTHS if path.is_noisy else (0.0,):
            sample = sampled(net, path, start, strength, 60 if quick else 100)
            found[gamma, strength] = board_row(sample)
            line = {"part": "checkerboard", "gamma": gamma, "c": strength}
            report.rows.append(line | found[gamma, strength])
            print(report.rows[-1], flush=True)
            if strength in (0.0, 2.0):
                pictures[f"{gamma}, c = {strength:g}"] = sample[:4000]
    for gamma in ("brownian", "sin_squared", "quadratic"):
        ode = found[gamma, 0.0]["distance"]
        best = min(STRENGTHS[1:], key=lambda c, gamma=gamma: found[gamma, c]["distance"])
        least = found[gamma, best]["distance"]
        report.claim(
            f"checkerboard, {gamma}: the SDE at c = {best:g} is nearer than the ODE, "
            f"{least:.3f} against {ode:.3f}",
            least,
            ode,
            least < ode,
        )
    noisy, still = found["brownian", 0.0]["distance"], found["none", 0.0]["distance"]
    report.claim(
        f"checkerboard, ODE: the Brownian gamma is nearer than none, {noisy:.3f} against "
        f"{still:.3f}",
        noisy,
        still,
        noisy < still,
    )
    return pictures


def mixture(report: Report, quick: bool) -> None:
    """Five modes in 128 dimensions, two coordinates of them measured."""
    dimension, modes = 128, 5
    generator = torch.Generator().manual_seed(2)
    means = 7.5 / math.sqrt(modes) * torch.randn(modes, dimension, generator=generator)
    target = Mixture(torch.full((modes,), 1.0 / modes), means, torch.ones_like(means))

    def draws(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x1 = torch.randn(count, dimension, generator=generator)
        return target.draw(count, generator)[0], x1

    path = two_sided("linear", "brownian")
    net = fit(path, ("drift", "noise"), draws, dimension, 256, 200 if quick else 1500, 500)
    count = 2_000 if quick else 6_000
    start = torch.randn(count, dimension, generator=generator)
    plane = Mixture(target.weights, means[:, :2].contiguous(), torch.ones(modes, 2))
    truth = plane.draw(4_000, generator)[0]
    width = count ** (-1.0 / 6.0)  # Scott's rule for a component's own spread
    values: dict[float, float] = {}
    for strength in STRENGTHS:
        sample = sampled(net, path, start, strength, 60 if quick else 100)[:, :2]
        gaps = torch.cdist(truth, sample).square() / (2.0 * width**2)
        estimate = torch.logsumexp(-gaps, 1) - math.log(2.0 * math.pi * width**2 * count)
        values[strength] = float((plane.log_density(truth) - estimate).mean())
        spread = float(sample.std())
        report.rows.append(
            {"part": "mixture", "c": strength, "kl": values[strength], "std": spread}
        )
        print(report.rows[-1], flush=True)
    best = min(values, key=lambda c: values[c])
    report.claim(
        f"mixture in 128 dimensions: the divergence is least at c = {best:g}, not at 0: "
        f"{values[best]:.3f} against {values[0.0]:.3f}",
        values[best],
        values[0.0],
        best > 0.0,
    )


def errors(report: Report) -> None:
    """A velocity whose error is small in the mean square, on N(0, 1) that stays."""
    size, eps, wide = 0.1, 1.0, torch.float64
    grid = torch.linspace(-5.0, 5.0, 1501, dtype=wide).unsqueeze(-1)
    spacing, steps = 10.0 / 1500, 100

    def normal(x: Tensor) -> Tensor:
        return -0.5 * (x.square().sum(-1) + math.log(2.0 * math.pi))

    log_p = normal(grid)
    bound = 0.25 * 0.5 * size**2 / eps
    rows: list[tuple[float, float]] = []
    for waves in (2.0, 10.0, 50.0):

        def wave(x: Tensor, _t: float, waves: float = waves) -> Tensor:
            return size * torch.sin(waves * x)

        ode = log_density(
            wave,
            lambda x, t: -x,
            normal,
            grid,
            [i / 300 for i in range(301)],
            lambda t: 0.0,
            lambda i: grid,
            1,
        )
        drift = -wave(grid, 0.0) - eps * grid
        gap = grid.T - (grid + drift / steps)
        kernel = torch.exp(-gap.square() * steps / (4.0 * eps))
        kernel *= spacing / math.sqrt(4.0 * math.pi * eps / steps)
        p = log_p.exp()
        for _ in range(steps):
            p = p @ kernel
        kl = [
            float((log_p.exp() * (log_p - other)).sum() * spacing) for other in (ode.nats, p.log())
        ]
        rows.append((kl[0], kl[1]))
        report.rows.append(
            {"part": "errors", "k": waves, "kl of the ODE": kl[0], "kl of the SDE": kl[1],
             "bound of the SDE": bound}
        )  # fmt: skip
    worst = max(kl for _, kl in rows)
    report.claim(
        f"the SDE's divergence {worst:.2g} is within its bound {bound:.2g} for every k",
        worst,
        bound,
        worst <= bound,
    )
    most = max(kl for kl, _ in rows)
    report.claim(
        f"the ODE's, for the same error, reaches {most:.2g}", most, 100.0 * bound, most > bound
    )


def least_energy(v: float, w: float, eps: float, steps: int = 400) -> tuple[float, float]:
    """Optimise the interpolant between N(0, v) and N(0, w); return the gap to the bridge, as V(t).

    alpha, beta and gamma^2 are their linear Brownian values times exp of a sine series. With the
    best drift for each interpolant, which is affine, the energy is int (V' / 2 - eps)^2 / V dt.

    Args:
        v: Variance of the target.
        w: Variance of the source.
        eps: Diffusion.
        steps: Of LBFGS.

    Returns:
        Largest relative gap of the variance V(t), before and after.
    """
    t = torch.linspace(0.0, 1.0, 201, dtype=torch.float64)
    waves = torch.sin(math.pi * torch.arange(1, 7, dtype=torch.float64)[:, None] * t)
    weights = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)

    def variance() -> Tensor:
        a, b, g = torch.exp(weights @ waves)
        return ((1.0 - t) * a) ** 2 * v + (t * b) ** 2 * w + 2.0 * eps * t * (1.0 - t) * g

    optimiser = torch.optim.LBFGS([weights], max_iter=steps, line_search_fn="strong_wolfe")

    def energy() -> Tensor:
        optimiser.zero_grad()
        values = variance()
        speed = (values[1:] - values[:-1]) * 200.0  # d/dt, the way being towards the target
        middle = 0.5 * (values[1:] + values[:-1])
        out = ((0.5 * speed + eps) ** 2 / middle).mean()
        out.backward()
        return out

    covariance = schroedinger_covariance(v, w, eps)
    right = (1 - t) ** 2 * v + t**2 * w + 2 * t * (1 - t) * (covariance + eps)
    before = float((variance() / right - 1.0).abs().max().detach())
    optimiser.step(energy)
    return before, float((variance() / right - 1.0).abs().max().detach())


def gaussian(report: Report) -> None:
    """Schroedinger bridges of Gaussian pairs by optimising over the interpolant."""
    worst = 0.0
    for v, w, eps in ((1.0, 1.0, 0.1), (0.25, 4.0, 0.5), (4.0, 0.25, 0.1), (1.0, 2.0, 2.0)):
        before, after = least_energy(v, w, eps)
        worst = max(worst, after)
        report.rows.append(
            {"part": "gaussian", "v": v, "w": w, "eps": eps, "gap before": before, "gap": after}
        )
    report.claim(
        f"Gaussian pairs: the variance of the best interpolant is the Schroedinger bridge's to "
        f"{worst:.1g} at every t",
        worst,
        1e-2,
        worst <= 1e-2,
    )


def sinkhorn(x0: Tensor, x1: Tensor, variance: float, rounds: int = 500) -> float:
    """Return E|x0 - x1|^2 of the entropic plan between two sets of draws."""
    cost = torch.cdist(x0, x1).square()
    logs = -cost / (2.0 * variance)
    f, g = torch.zeros(len(x0)), torch.zeros(len(x1))
    for _ in range(rounds):
        f = math.log(1.0 / len(x0)) - torch.logsumexp(logs + g, 1)
        g = math.log(1.0 / len(x1)) - torch.logsumexp(logs + f[:, None], 0)
    return float(((logs + f[:, None] + g).exp() * cost).sum())


def alternating(report: Report, quick: bool) -> None:
    """Fit the bridge of pairs, make new ones by it from the true density, in turn down and up.

    The first pairs are those of the reference, x1 = x0 + scale z, so that every fit is one half of
    a round of Sinkhorn's (de Bortoli et al. 2021, arXiv:2106.01357).
    """
    scale, count = 1.0, 4_000 if quick else 8_000
    target = Mixture(
        torch.full((2,), 0.5), torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), torch.full((2, 2), 0.2)
    )
    source = Mixture(
        torch.full((2,), 0.5), torch.tensor([[0.5, -2.0], [-0.5, 2.0]]), torch.full((2, 2), 0.2)
    )
    generator = torch.Generator().manual_seed(3)
    x0 = target.draw(count, generator)[0]
    x1 = x0 + scale * torch.randn(x0.shape, generator=generator)
    apart = float((x0 - source.draw(count, generator)[0]).square().sum(1).mean())
    right = sinkhorn(target.draw(1500, generator)[0], source.draw(1500, generator)[0], scale**2)
    path = two_sided("linear", "brownian", scale)
    bridge = Transition(noise_law("ode"), "bridge", noise_scale=scale)
    rounds = 2 if quick else 6
    values: list[float] = []
    for turn in range(rounds):
        down = turn % 2 == 0
        # upward is downward with the two ends in each other's place
        ends = (x0, x1) if down else (x1, x0)

        def draws(
            size: int, generator: torch.Generator, ends: tuple[Tensor, Tensor] = ends
        ) -> tuple[Tensor, Tensor]:
            pick = torch.randint(count, (size,), generator=generator)
            return ends[0][pick], ends[1][pick]

        net = fit(path, ("x0",), draws, 2, 128, 200 if quick else 800)

        def model(x: Tensor, t: float, net: Net = net) -> Tensor:
            with torch.no_grad():
                return net(x, torch.full((len(x),), t))[0]

        start = (source if down else target).draw(count, generator)[0]
        end = integrate(
            model,
            start,
            times(100),
            bridge,
            lambda _: torch.randn(count, 2, generator=generator),
        )
        x0, x1 = (end, start) if down else (start, end)
        values.append(float((x0 - x1).square().sum(1).mean()))
        report.rows.append(
            {"part": "alternating", "fits": turn + 1, "way": "down" if down else "up",
             "E|x0 - x1|^2": values[-1], "Sinkhorn": right, "independent": apart}
        )  # fmt: skip
        print(report.rows[-1], flush=True)
    gap = abs(values[-1] / right - 1.0)
    report.claim(
        f"mixtures in the plane: after {rounds} fits E|x0 - x1|^2 is {values[-1]:.3f}, Sinkhorn's "
        f"{right:.3f}, independent {apart:.3f}",
        gap,
        0.05,
        gap <= 0.05,
    )


def plot(pictures: dict[str, Tensor], rows: list[dict[str, Any]], path: Path) -> None:
    """Draw samples of the board, and what eps does."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 5, figsize=(16, 6.6))
    flat = list(axes.flatten())
    for axis, (name, sample) in zip(flat, pictures.items(), strict=False):
        axis.scatter(sample[:, 0], sample[:, 1], s=0.6)
        axis.set(title=name, xlim=(-2.5, 2.5), ylim=(-2.5, 2.5), aspect="equal")
    left, right = flat[-2:]
    for gamma in ("brownian", "sin_squared", "quadratic"):
        here = [r for r in rows if r["part"] == "checkerboard" and r["gamma"] == gamma]
        left.plot([r["c"] for r in here], [r["distance"] for r in here], "o-", label=gamma)
    left.set(title="checkerboard", xlabel="c (eps = c gamma)", ylabel="distance")
    left.legend(fontsize=8)
    here = [r for r in rows if r["part"] == "mixture"]
    right.plot([r["c"] for r in here], [r["kl"] for r in here], "o-")
    right.set(title="mixture, 128 dimensions", xlabel="c (eps = c gamma)", ylabel="kl")
    for axis in (left, right):
        axis.grid(alpha=0.3)
    flat[-3].axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    print(f"written to {path}")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short training, fewer samples")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = Report("bridges")
    gaussian(report)
    errors(report)
    alternating(report, options.quick)
    mixture(report, options.quick)
    pictures = checkerboard(report, options.quick)
    if options.plot:
        plot(pictures, report.rows, options.plot)
    report.finish(options.json)


if __name__ == "__main__":
    main()
