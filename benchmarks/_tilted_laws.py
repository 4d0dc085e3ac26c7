"""How many particles does the exact tilted law take, with and without the gradient of the reward?

The model is the exact denoiser of a Gaussian or a mixture, the reward is linear or a square, so the
law p(x0) exp(lam r(x0)) is known. Sequential Monte Carlo samples it with many particles; with
draws twisted by the reward's gradient, their weights kept, with a tenth of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowsearch.samplers.paths.noise_law import noise_law
from flowsearch.samplers.search import (
    Budget,
    Scores,
    Search,
    SearchSettings,
    SequentialMonteCarlo,
    State,
    Trace,
    Whole,
    moved,
)
from flowsearch.samplers.stepping.guidance import Guidance
from flowsearch.samplers.stepping.noise import digest, keyed_normal
from flowsearch.samplers.stepping.transition import Transition

__all__ = ["LAWS", "TiltedLaw", "rows", "sampled"]

STEPS = 20
SIGMAS = tuple(1.0 - i / STEPS for i in range(STEPS + 1))
PLAIN, TWISTED = 160, 16
DIMENSIONS = 2
_PURPOSES = {"start": 1, "move": 2, "mix": 3}


@dataclass(frozen=True)
class TiltedLaw:
    """A one-dimensional mixture, tilted by exp(lam r); further coordinates are not tilted.

    Attributes:
        name: For tables.
        weights: Of the components.
        means: Of the components.
        std: Of every component.
        lam: Strength.
        goal: r(x) = -(x - goal)^2 / 2; None: r(x) = x.
    """

    name: str
    weights: tuple[float, ...]
    means: tuple[float, ...]
    std: float
    lam: float
    goal: float | None = None

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """Return E[x0 | x], each coordinate by itself."""
        alpha, variance = 1.0 - sigma, ((1.0 - sigma) * self.std) ** 2 + sigma**2
        means = torch.tensor(self.means, dtype=x.dtype).view(-1, *[1] * x.ndim)
        logs = torch.tensor(self.weights, dtype=x.dtype).log().view_as(means)
        gap = x - alpha * means
        inner = means + alpha * self.std**2 / variance * gap
        return (torch.softmax(logs - gap * gap / (2.0 * variance), 0) * inner).sum(0)

    def reward(self, x: Tensor) -> Tensor:
        """Return r of rows, by their first coordinate."""
        first = x[:, 0]
        return first if self.goal is None else -0.5 * (first - self.goal) ** 2

    def gradient(self, x: Tensor) -> Tensor:
        """Return its gradient."""
        g = torch.zeros_like(x)
        g[:, 0] = 1.0 if self.goal is None else self.goal - x[:, 0]
        return g

    def cdf(self, x: Tensor) -> Tensor:
        """Return the distribution function of the tilted law's first coordinate."""
        total, logs, parts = 0.0, [], []
        for weight, mean in zip(self.weights, self.means, strict=True):
            if self.goal is None:
                centre, spread = mean + self.lam * self.std**2, self.std
                logs.append(math.log(weight) + self.lam * mean + (self.lam * self.std) ** 2 / 2.0)
            else:
                narrowed = 1.0 + self.lam * self.std**2
                centre, spread = (
                    (mean + self.lam * self.std**2 * self.goal) / narrowed,
                    self.std / math.sqrt(narrowed),
                )
                logs.append(math.log(weight) - 0.5 * self.lam * (mean - self.goal) ** 2 / narrowed)
            parts.append(torch.special.ndtr((x.double() - centre) / spread))
        shares = torch.softmax(torch.tensor(logs, dtype=torch.float64), 0)
        for share, part in zip(shares, parts, strict=True):
            total = total + share * part
        return torch.as_tensor(total)


LAWS = (
    TiltedLaw("Gaussian, linear reward", (1.0,), (0.0,), 1.0, 3.0),
    TiltedLaw("Gaussian, square reward", (1.0,), (0.0,), 0.7, 8.0, 2.0),
    TiltedLaw("mixture, linear reward", (0.7, 0.3), (-1.0, 1.2), 0.5, 4.0),
    TiltedLaw("mixture, square reward", (0.9, 0.1), (-1.0, 1.0), 0.5, 8.0, 1.5),
)


class _Noise(Mapping[str, Tensor]):
    def __init__(self, seed: int, keys: Sequence[tuple[int, ...]]) -> None:
        self._seed, self._keys = seed, keys

    def __getitem__(self, purpose: str) -> Tensor:
        drawn = [
            keyed_normal((DIMENSIONS,), self._seed, *key, _PURPOSES[purpose]) for key in self._keys
        ]
        return torch.stack(drawn).double()

    def __iter__(self) -> Any:
        return iter(_PURPOSES)

    def __len__(self) -> int:
        return len(_PURPOSES)


class _Problem:
    """The law as a search's problem; the finished first coordinate is a part of the score."""

    shares_calls = True
    parts = ()
    reward_name = "tilted law"
    reward_paid = False
    has_gradient = True
    interrupts: tuple[type[BaseException], ...] = (KeyboardInterrupt,)

    def __init__(self, law: TiltedLaw) -> None:
        self.law = law

    def identity(self, item: int) -> int:
        return digest(7, item)

    def noise(self, seed: int, items: Any, keys: Any) -> Mapping[str, Tensor]:
        return _Noise(seed, keys)

    def start(self, items: Any, to: float, noise: Mapping[str, Tensor]) -> State:
        z = noise["start"]
        return {"x": to * z, "denoised": torch.zeros_like(z)}

    def move(
        self,
        items: Any,
        state: State,
        sigma_from: float,
        to: float,
        transition: Transition | Whole,
        noise: Mapping[str, Tensor],
    ) -> State:
        if isinstance(transition, Whole):
            raise TypeError("the law is sampled step by step")

        def predict(rows: list[int], x: Tensor, sigma: float) -> Tensor:
            return self.law.denoise(x, sigma)

        return moved(state, sigma_from, to, transition, lambda: noise["move"], predict, source=self)

    def predict(self, items: Any, state: State, sigma: float) -> State:
        return {**state, "denoised": self.law.denoise(state["x"], sigma)}

    def score(self, items: Any, denoised: Tensor, sigmas: Any) -> list[Scores]:
        values = self.law.reward(denoised).tolist()
        return [Scores(v, {"x": float(x)}) for v, x in zip(values, denoised[:, 0], strict=True)]

    def cost(self, transition: Transition | Whole | None, to: float) -> int:
        inner = transition.calls(to) if isinstance(transition, Transition) else 0
        return int(to > 0.0) + inner

    def at(self, rows: Sequence[int], clean: Tensor) -> Tensor:
        return self.law.gradient(clean)

    def free(self, rows: Sequence[int]) -> None:
        """Everything may move."""

    def through(self, rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            clean = self.law.denoise(leaf, sigma)
        return torch.autograd.grad(clean, leaf, self.law.gradient(clean.detach()))[0]


@dataclass(frozen=True)
class Sampled:
    """Finished particles of several runs.

    Attributes:
        x: Their first coordinates, one list a run.
        weights: Their normalised weights, likewise.
        log_z: Of each run.
        evaluations: Of all runs.
        gradients: Of all runs.
        seconds: Of all runs.
    """

    x: list[list[float]]
    weights: list[list[float]]
    log_z: list[float]
    evaluations: int
    gradients: int
    seconds: float

    @property
    def ess(self) -> float:
        """Effective sample size of all runs together, each weighed by its estimate of Z."""
        flat = [w for _, w in self._pairs()]
        return sum(flat) ** 2 / sum(w * w for w in flat)

    def ks(self, law: TiltedLaw) -> float:
        """Kolmogorov-Smirnov distance of all runs together from the tilted law."""
        pairs = sorted(self._pairs())
        x = torch.tensor([value for value, _ in pairs], dtype=torch.float64)
        steps = torch.tensor([0.0, *(w for _, w in pairs)], dtype=torch.float64).cumsum(0)
        steps, exact = steps / steps[-1], law.cdf(x)
        return float(torch.maximum((steps[1:] - exact).abs(), (exact - steps[:-1]).abs()).max())

    def _pairs(self) -> list[tuple[float, float]]:
        top = max(self.log_z)
        return [
            (x, w * math.exp(z - top))
            for xs, ws, z in zip(self.x, self.weights, self.log_z, strict=True)
            for x, w in zip(xs, ws, strict=True)
        ]


def sampled(
    law: TiltedLaw,
    particles: int,
    guidance: Guidance | None,
    runs: int,
    seed: int = 0,
    tempering: str = "linear",
) -> Sampled:
    """Sample the tilted law.

    Args:
        law: Which.
        particles: Of each run.
        guidance: A twist, or None for draws of the model's own.
        runs: Independent runs.
        seed: Of the first.
        tempering: See SequentialMonteCarlo.

    Returns:
        What came of it.
    """
    transition = Transition(noise_law("constant_k", k=1.0), "second_order", guidance=guidance)
    strategy = SequentialMonteCarlo(
        particles=particles,
        strength=law.lam,
        sigma_low=0.0,
        score_below=0.95,
        tempering=tempering,
        q=None,
        plain=False,
    )
    problem, begun = _Problem(law), time.perf_counter()
    found = Sampled([], [], [], 0, 0, 0.0)
    evaluations = gradients = 0
    price = 0 if guidance is None else guidance.price
    for run in range(runs):
        # SMC keeps back what finishes one particle; what is left over makes a second, small pass
        budget = Budget(particles * (STEPS + price * (STEPS - 1)) + STEPS * (1 + price))
        settings = SearchSettings(
            strategy, SIGMAS, transition, budget, seed=seed + run, rows_per_call=1024
        )
        trace = Trace()
        Search(problem, settings, trace).run()
        nodes = {row["id"]: row for row in trace.record["evaluated"] if row["pass_"] == 0}
        evaluations += sum(row["evaluations"] for row in nodes.values())
        gradients += sum(row["gradients"] for row in nodes.values())
        last = [r for r in trace.record["chosen"] if r["weights"] and r["ids"][0] in nodes][-1]
        found.x.append([nodes[i]["scores"]["parts"]["x"] for i in last["ids"]])
        found.weights.append([*last["weights"]])
        found.log_z.append(float(last["why"].split("log Z ")[1]))
    seconds = time.perf_counter() - begun
    return Sampled(found.x, found.weights, found.log_z, evaluations, gradients, seconds)


def rows(quick: bool) -> list[dict[str, Any]]:
    """Return a table: each law without the gradient, and with a tenth of the particles with it.

    Args:
        quick: Whether fewer runs are enough.

    Returns:
        Rows {law, draws, tempering, particles, runs, ESS, ESS a particle, KS, evaluations,
        gradient calls, seconds}; a KS of so many effective samples of the exact law is about
        .87 / sqrt(ESS).
    """
    table: list[dict[str, Any]] = []
    runs = 8 if quick else 60
    for law in LAWS:
        twist = Guidance("twist", strength=law.lam)
        for particles, guidance, tempering in (
            (PLAIN, None, "none"),
            (PLAIN, None, "linear"),
            (TWISTED, None, "linear"),
            (TWISTED, twist, "linear"),
        ):
            one = sampled(law, particles, guidance, runs, tempering=tempering)
            table.append(
                {
                    "law": law.name,
                    "draws": "the model's" if guidance is None else "twisted",
                    "tempering": tempering,
                    "particles": particles,
                    "runs": runs,
                    "ESS": one.ess,
                    "ESS a particle": one.ess / (particles * runs),
                    "KS": one.ks(law),
                    "evaluations": one.evaluations,
                    "gradient calls": one.gradients,
                    "seconds": one.seconds,
                }
            )
    return table
