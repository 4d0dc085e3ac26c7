"""How accurate is a sampler for its number of model calls, and what does it cost beside the model?

    python scripts/dev.py bench integrators [--quick] [--json FILE] [--plot FILE]

Everything runs inside the real host, through its guider and its own samplers.

gaussian    W2 to the data over N(.5, S^2), S = .1, .3, 1, 2, without Monte Carlo: the exact
            denoiser is affine, so a batch whose rows differ by one source of noise each carries the
            whole law of the result.
mixture     W1 to a mixture of three Gaussians, 65,536 samples (floor about .004).
network     rms distance of the ODE's pictures to 400 Euler steps, on the embedded model.
imperfect   W1 on the mixture for a denoiser with a known error, by noise law, 50 steps.
time        a step of ours against one of the host's euler on the embedded model, paired, and the
            milliseconds of a step beyond the network on a latent of 1 x 16 x 128 x 128.

Strengths: k = eta for the dpmpp, euler_ancestral and seeds samplers, tau = sqrt(k) for sa_solver,
and rho^(1 + k) as er_sde's noise scaler.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from devtools.pack import load_pack

load_pack()

from _exact_models import ExactNet, GaussianNet, MixtureNet, sample, wrap  # noqa: E402
from _report import Report  # noqa: E402

# isort: split
import comfy.samplers  # noqa: E402
from comfy_extras.nodes_custom_sampler import BasicGuider  # noqa: E402

from flowsearch.demo.prompt import encode, parse  # noqa: E402
from flowsearch.nodes.host.model.field import Field  # noqa: E402
from flowsearch.nodes.host.model.flow_sampler import FlowSampler  # noqa: E402
from flowsearch.nodes.sampling.demo_model import load_demo  # noqa: E402
from flowsearch.samplers.paths.noise_law import NoiseLaw, noise_law  # noqa: E402
from flowsearch.samplers.paths.sigmas import uniform  # noqa: E402
from flowsearch.samplers.stepping.transition import Transition  # noqa: E402

PROMPTS = Path(__file__).with_name("prompts.json")
MEAN, STDS = 0.5, (0.1, 0.3, 1.0, 2.0)
MIXTURE = ([0.3, 0.5, 0.2], [-1.5, 0.5, 2.0], [0.2, 0.3, 0.1])
GRIDS = {"uniform": 1.0, "shift 3": 3.0}
STRENGTHS = (0.25, 0.5, 1.0)
FACTOR = {"uniform": 1.3, "shift 3": 1.0}
Make = Callable[[float], comfy.samplers.Sampler]


@dataclass(frozen=True)
class Contender:
    """A sampler at a strength.

    Attributes:
        make: Builds the SAMPLER from k; further keywords go to the host's sampler function.
        stochastic: Whether it takes a k above 0.
        calls: Model calls a step.
        ours: Whether it is this project's.
    """

    make: Callable[..., comfy.samplers.Sampler]
    stochastic: bool = True
    calls: int = 1
    ours: bool = False


class BasisSampler(FlowSampler):
    """Our sampler, with the noise that the exact propagation asks for."""

    def noise(self, field: Field, step: int) -> Tensor:
        """Noise in one row only."""
        return unit_noise(field.noise, step)


def unit_noise(like: Tensor, step: int) -> Tensor:
    """Noise of 1 in the row that stands for this draw, 0 elsewhere."""
    out = torch.zeros_like(like)
    out[2 + step] = 1.0
    return out


def stock(name: str, **options: Any) -> Callable[..., comfy.samplers.Sampler]:
    """A sampler of the host whose options may be functions of k."""

    def make(k: float, **more: Any) -> comfy.samplers.Sampler:
        values = {key: value(k) if callable(value) else value for key, value in options.items()}
        return comfy.samplers.ksampler(name, {**values, **more})

    return make


def ours(method: str, **settings: Any) -> Callable[..., comfy.samplers.Sampler]:
    """Our sampler; constant k."""

    def make(k: float, kind: type = FlowSampler, **_: Any) -> comfy.samplers.Sampler:
        law = noise_law("constant_k", k=k) if k else noise_law("ode")
        return kind(Transition(law, method, **settings))

    return make


def eta(k: float) -> float:
    """The dpmpp samplers' strength."""
    return k


CONTENDERS = {
    "euler": Contender(stock("euler"), stochastic=False),
    "dpmpp_2m": Contender(stock("dpmpp_2m"), stochastic=False),
    "res_multistep": Contender(stock("res_multistep"), stochastic=False),
    "euler_ancestral": Contender(stock("euler_ancestral", eta=eta)),
    "dpmpp_2m_sde": Contender(stock("dpmpp_2m_sde", eta=eta)),
    "dpmpp_2m_sde_heun": Contender(stock("dpmpp_2m_sde", eta=eta, solver_type="heun")),
    "dpmpp_3m_sde": Contender(stock("dpmpp_3m_sde", eta=eta)),
    "er_sde": Contender(stock("er_sde", noise_scaler=lambda k: lambda rho: rho ** (1.0 + k))),
    "sa_solver": Contender(stock("sa_solver", tau_func=lambda k: lambda _: math.sqrt(k))),
    "seeds_2": Contender(stock("seeds_2", eta=eta), calls=2),
    "ours, exact": Contender(ours("exact"), ours=True),
    "ours, second_order": Contender(ours("second_order"), ours=True),
    "ours, second_order, extrapolated": Contender(
        ours("second_order", last="extrapolated"), ours=True
    ),
    "ours, heun": Contender(ours("heun"), calls=2, ours=True),
}
BEST = "ours, second_order, extrapolated"


class BasisNoise:
    """NOISE for the exact propagation: row 1 differs from row 0 by 1."""

    seed = 0

    def generate_noise(self, latent: dict[str, Tensor]) -> Tensor:
        """The initial noise."""
        out = torch.zeros_like(latent["samples"])
        out[1] = 1.0
        return out


def gaussian_w2(contender: Contender, k: float, steps: int, shift: float) -> float:
    """W2 of a run's law to the data, by exact propagation through the host."""
    model = wrap(GaussianNet([MEAN] * 4, STDS))
    rows = 2 + 3 * steps  # two-stage samplers draw twice a step
    latent = torch.zeros(rows, 4, 1, 1)
    drawn = iter(range(3 * steps))

    def noise_sampler(*_: object) -> Tensor:
        return unit_noise(latent, next(drawn))

    more = {"kind": BasisSampler} if contender.ours else {}
    if contender.stochastic and not contender.ours:
        more = {"noise_sampler": noise_sampler}
    out = run(model, contender.make(k, **more), grid(steps, shift), latent, BasisNoise())
    out = out.double().view(rows, 4)
    means, spreads = out[0], (out[1:] - out[0]).norm(dim=0)
    target = torch.tensor(STDS, dtype=torch.float64)
    return float(((means - MEAN) ** 2 + (spreads - target) ** 2).sum().sqrt())


def grid(steps: int, shift: float) -> Tensor:
    """Sigmas of a grid."""
    return torch.tensor(uniform(steps, shift), dtype=torch.float32)


def run(model: Any, sampler: Any, sigmas: Tensor, latent: Tensor, noise: Any) -> Tensor:
    """Sample with the host's guider."""
    guider = BasicGuider.execute(model=model, conditioning=[[torch.zeros(1, 1, 1), {}]])[0]
    return guider.sample(
        noise.generate_noise({"samples": latent}),
        latent,
        sampler,
        sigmas,
        disable_pbar=True,
        seed=1,
    )


class Imperfect(ExactNet):
    """A denoiser with a known error.

    Args:
        right: The exact one.
        error: error(x, sigma), added to D.
    """

    def __init__(self, right: ExactNet, error: Callable[[Tensor, float], Tensor]) -> None:
        super().__init__(right.channels)
        self.right, self.error = right, error

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """D and its error."""
        return self.right.denoise(x, alpha, sigma) + self.error(x, float(sigma.flatten()[0]))

    def cdf(self, x: Tensor) -> Tensor:
        """Of the data."""
        return self.right.cdf(x)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Of the data."""
        return self.right.draw(count, generator)


ERRORS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "none": lambda x, s: torch.zeros_like(x),
    "early bias, sigma > .8": lambda x, s: torch.full_like(x, 0.3 * (s > 0.8)),
    "middle wiggle, .4 to .7": lambda x, s: 0.2 * torch.sin(4.0 * x) * (0.4 < s < 0.7),
    "late bias, sigma < .15": lambda x, s: torch.full_like(x, 0.03 * (s < 0.15)),
    "late wiggle, sigma < .15": lambda x, s: 0.1 * torch.sin(12.0 * x) * (s < 0.15),
}


def wasserstein(net: ExactNet, samples: Tensor) -> float:
    """W1 of samples to the data, against its quantiles."""
    edges = torch.linspace(-4.0, 4.0, 400_001, dtype=torch.float64)
    levels = (torch.arange(samples.numel(), dtype=torch.float64) + 0.5) / samples.numel()
    places = torch.searchsorted(net.cdf(edges[None])[0], levels).clamp(max=len(edges) - 1)
    return float((samples.flatten().sort().values - edges[places]).abs().mean())


def mixture_w1(sampler: Any, sigmas: Tensor, count: int, net: ExactNet | None = None) -> float:
    """W1 of a run to the mixture."""
    net = net or MixtureNet(*MIXTURE, channels=4)
    return wasserstein(net, sample(wrap(net), sampler, sigmas, 4, count, seed=3))


LAWS: dict[str, NoiseLaw] = {
    "ode": noise_law("ode"),
    "k = .25": noise_law("constant_k", k=0.25),
    "k = 1": noise_law("constant_k", k=1.0),
    "default: k = 1, none below .12": noise_law("constant_k", k=1.0, taper=(0.2, 0.12)),
    "k = 2": noise_law("constant_k", k=2.0),
}


def gaussian_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """W2 by grid, strength, sampler and steps."""
    counts = (5, 10, 20) if options.quick else (5, 10, 20, 40, 80)
    rows = []
    for name, shift in GRIDS.items():
        for k in (0.0, *STRENGTHS):
            for sampler, contender in CONTENDERS.items():
                if contender.stochastic == (k == 0.0) and not contender.ours:
                    continue
                found = {n: gaussian_w2(contender, k, n, shift) for n in counts}
                rows.append(
                    {"part": "gaussian W2", "grid": name, "k": k, "sampler": sampler,
                     "calls": contender.calls}
                    | {f"{n} steps": value for n, value in found.items()}
                    | {"order": math.log2(found[counts[-2]] / found[counts[-1]])}
                )  # fmt: skip
    return rows


def mixture_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """W1 by grid, strength, sampler and steps."""
    counts = (5, 10, 20) if options.quick else (5, 10, 20, 40)
    size = 4_096 if options.quick else 16_384
    rows = []
    for name, shift in GRIDS.items():
        for k in (0.0, 0.5) if options.quick else (0.0, 0.5, 1.0):
            for sampler, contender in CONTENDERS.items():
                if contender.stochastic == (k == 0.0) and not contender.ours:
                    continue
                found = {n: mixture_w1(contender.make(k), grid(n, shift), size) for n in counts}
                rows.append(
                    {"part": "mixture W1", "grid": name, "k": k, "sampler": sampler,
                     "calls": contender.calls}
                    | {f"{n} steps": value for n, value in found.items()}
                    | {"order": math.log2(found[10] / found[20])}
                )  # fmt: skip
    return rows


def imperfect_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """W1 by noise law and injected error."""
    size = 8_192 if options.quick else 32_768
    rows = []
    for law_name, law in LAWS.items():
        sampler = FlowSampler(Transition(law, "second_order"))
        row: dict[str, Any] = {"part": "imperfect W1", "law": law_name}
        for error_name, error in ERRORS.items():
            net = Imperfect(MixtureNet(*MIXTURE, channels=4), error)
            row[error_name] = mixture_w1(sampler, grid(50, 1.0), size, net)
        rows.append(row)
    return rows


def demo_run(model: Any, sampler: Any, steps: int, pictures: int, seed: int = 5) -> Tensor:
    """Pictures of the embedded model, one prompt each row."""
    texts = json.loads(PROMPTS.read_text())["easy"][:1]
    conditioning = [[encode(parse(texts[0]))[None], {}]]
    guider = BasicGuider.execute(model=model, conditioning=conditioning)[0]
    latent = torch.zeros(pictures, 3, 64, 64)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
    return guider.sample(noise, latent, sampler, grid(steps, 1.0), disable_pbar=True, seed=seed)


def network_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Distance of the ODE's pictures to a fine solution, on the embedded model."""
    model, _, _ = load_demo()
    pictures = 2 if options.quick else 8
    counts = (5, 10, 20) if options.quick else (5, 10, 20, 40)
    right = demo_run(model, comfy.samplers.sampler_object("euler"), 400, pictures)
    rows = []
    for name, contender in CONTENDERS.items():
        if contender.stochastic and not contender.ours:
            continue
        row: dict[str, Any] = {"part": "network rms", "sampler": name, "calls": contender.calls}
        for steps in counts:
            found = demo_run(model, contender.make(0.0), steps, pictures)
            row[f"{steps} steps"] = float((found - right).pow(2).mean().sqrt())
        rows.append(row)
    return rows


class Stopwatch(torch.nn.Module):
    """A network that does nothing, and knows how long it took."""

    def __init__(self) -> None:
        super().__init__()
        self.dtype, self.unit, self.noise_scale, self.channels = torch.float32, 1.0, 1.0, 16
        self.inside = 0.0

    def forward(self, x: Tensor, timestep: Tensor, **_: object) -> Tensor:
        """Half the state."""
        begun = time.perf_counter()
        out = 0.5 * x
        self.inside += time.perf_counter() - begun
        return out


def overhead(make: Make, k: float, steps: int = 50, repeats: int = 5) -> float:
    """Milliseconds of a step beyond the network, the least of some runs."""
    net: Any = Stopwatch()
    model = wrap(net)
    best = math.inf
    for _ in range(repeats):
        latent = torch.zeros(1, 16, 128, 128)
        net.inside, begun = 0.0, time.perf_counter()
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0))
        guider = BasicGuider.execute(model=model, conditioning=[[torch.zeros(1, 1, 1), {}]])[0]
        guider.sample(noise, latent, make(k), grid(steps, 1.0), disable_pbar=True, seed=1)
        best = min(best, (time.perf_counter() - begun - net.inside) / steps)
    return 1e3 * best


def paired_ratio(sampler: Any, steps: int, pairs: int) -> tuple[float, float, float]:
    """Time of our steps over euler's on the embedded model: median of pairs, 95 % bootstrap."""
    model, _, _ = load_demo()
    euler = comfy.samplers.sampler_object("euler")
    ratios = []
    for pair in range(pairs + 2):
        order = [("ours", sampler), ("euler", euler)]
        took = {}
        for name, one in order if pair % 2 else order[::-1]:
            begun = time.perf_counter()
            demo_run(model, one, steps, 1)
            took[name] = time.perf_counter() - begun
        if pair >= 2:
            ratios.append(took["ours"] / took["euler"])
    values = np.array(ratios)
    rng = np.random.default_rng(0)
    draws = np.median(values[rng.integers(0, pairs, size=(10_000, pairs))], axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def time_rows(options: argparse.Namespace, report: Report) -> list[dict[str, Any]]:
    """Cost of a step."""
    steps, pairs = 10, 10 if options.quick else 40
    rows = []
    for name, contender in CONTENDERS.items():
        k = 0.5 if contender.stochastic else 0.0
        row: dict[str, Any] = {"part": "time", "sampler": name, "calls": contender.calls, "k": k}
        row["ms a step beyond the network"] = overhead(contender.make, k)
        rows.append(row)
    for law_name in ("ode", "default: k = 1, none below .12"):
        sampler = FlowSampler(Transition(LAWS[law_name], "second_order"))
        middle, low, high = paired_ratio(sampler, steps, pairs)
        report.claim(
            f"a step of ours (second_order, law {law_name}) takes {middle:.3f} times as long as "
            f"one of euler on the embedded model, median of {pairs} pairs of {steps} steps (95 % "
            f"interval {low:.3f} to {high:.3f}); wanted: at most 1.02",
            middle,
            1.02,
            middle <= 1.02,
        )
    return rows


def accuracy_claims(report: Report, rows: Sequence[dict[str, Any]]) -> None:
    """Our error against the host's best one-call SDE sampler at equal strength."""
    for name, factor in FACTOR.items():
        for k in STRENGTHS:
            here = [r for r in rows if r["grid"] == name and r["k"] == k]
            mine = next(r for r in here if r["sampler"] == BEST)
            rivals = [r for r in here if not CONTENDERS[r["sampler"]].ours and r["calls"] == 1]
            for steps in ("10 steps", "20 steps"):
                best = min(rivals, key=lambda r: r[steps])
                ratio = best[steps] / mine[steps]
                report.claim(
                    f"{name}, k = {k:g}, {steps}: W2 {mine[steps]:.4f} against {best[steps]:.4f} "
                    f"of {best['sampler']}, {ratio:.2f} times below; wanted: {factor:g}",
                    ratio,
                    factor,
                    ratio >= factor,
                )


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw W2 against model calls at k = .5, a panel a grid."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    for axis, name in zip(axes, GRIDS, strict=True):
        for row in rows:
            if row["grid"] != name or row["k"] != 0.5:
                continue
            counts = [int(key.split()[0]) for key in row if key.endswith(" steps")]
            x = [n * row["calls"] for n in counts]
            y = [row[f"{n} steps"] for n in counts]
            mine = CONTENDERS[row["sampler"]].ours
            axis.loglog(x, y, "o-" if mine else "^:", label=row["sampler"], lw=2 if mine else 1)
        axis.set(title=f"{name}, k = .5", xlabel="model calls")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("W2 to the data")
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"written to {path}")


PARTS = ("gaussian", "mixture", "network", "imperfect", "time")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer steps and samples")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    report = Report("integrators")
    wanted = (options.only,) if options.only else PARTS
    tables: dict[str, list[dict[str, Any]]] = {}
    with torch.no_grad():
        if "gaussian" in wanted:
            tables["gaussian"] = gaussian_rows(options)
            accuracy_claims(report, tables["gaussian"])
        if "mixture" in wanted:
            tables["mixture"] = mixture_rows(options)
        if "network" in wanted:
            tables["network"] = network_rows(options)
        if "imperfect" in wanted:
            tables["imperfect"] = imperfect_rows(options)
        if "time" in wanted:
            tables["time"] = time_rows(options, report)
    report.rows = [row for rows in tables.values() for row in rows]
    report.finish(options.json)
    if options.plot and "gaussian" in tables:
        plot(tables["gaussian"], options.plot)


if __name__ == "__main__":
    main()
