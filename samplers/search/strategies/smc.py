"""Sequential Monte Carlo, or Feynman-Kac steering: particles with weights, resampled on the way.

The particles are samples of the model; together with their weights they are samples of the model's
law tilted by the reward, in proportion to

    p(x0) exp(lam r(x0)).

Each time the particles are scored, their weights are multiplied by a potential G. With r_j the
scores of a particle's predictions so far, and lam_j the strength by then (see tempering),

    difference   log G_j = lam_j r_j - (log G_1 + ... + log G_{j-1})
    max          log G_j = lam_j max(r_1, ..., r_j)
    sum          log G_j = lam_j (r_1 + ... + r_j)

and of the finished picture, for all three, log G = lam r(x0) - (the sum of all log G so far). So
the product of the potentials along a path is exp(lam r(x0)) exactly, whatever the predictions said:
they decide where the particles go, not what they stand for. Predictions above score_below do not
enter.

Draws that a twist shifted (guidance by the reward's gradient, stepping/guidance.py) carry the log
of the model's density over the one they were drawn from. Weights are multiplied by that ratio, too,
so the law that is sampled stays the same, and far fewer particles are enough.

Weights are kept as logarithms, and normalised. The running sum of log sum_i W_i G_i is log Z; Z is
an unbiased estimate of E[exp(lam r(x0))] under the model, whether and when particles are resampled,
and whatever tempering chose.

Source: Singhal et al. 2025, arXiv:2501.06848 (potentials); Del Moral, Doucet and Jasra 2006
(adaptive resampling and tempering); Wu et al. 2023, arXiv:2306.17775 (twisted draws). Published
code drops the weights where it does not resample; this keeps them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import ClassVar

from ...stepping.transition import Transition
from ..protocol import Node, Spec, Whole
from .descent import CLOSE, Moves, Stepwise, affordable, best_of, score_of, walk
from .resampling import SCHEMES

__all__ = ["POTENTIALS", "RESAMPLE", "TEMPERING", "Population", "SequentialMonteCarlo"]

POTENTIALS = ("difference", "max", "sum")
RESAMPLE = ("adaptive", "always", "never")
TEMPERING = ("adaptive", "linear", "none")
_HALVINGS = 50
_MOST = 1e6


@dataclass(frozen=True)
class SequentialMonteCarlo(Stepwise):
    """Settings of SMC.

    Attributes:
        particles: Particles of a pass, at least 1; fewer where the budget has no room for them.
            More budget gives more passes, not more memory.
        strength: lam, the weight of the reward, at least 0: how many times likelier a picture is
            that is better by 1 is exp(lam).
        potential: One of POTENTIALS.
        resample: "adaptive": where the effective sample size is below ess_threshold; or "always",
            or "never".
        ess_threshold: Part of the particles, 0 to 1.
        scheme: Key of resampling.SCHEMES.
        tempering: lam_j. "none": lam; "linear": lam j / n at the j-th of n times; "adaptive": as
            much as leaves the effective sample size at ess_threshold, never less than before.

    Example:
        >>> SequentialMonteCarlo(particles=8).to_json()["potential"]
        'difference'
    """

    name: ClassVar[str] = "smc"
    weighs_draws: ClassVar[bool] = True

    particles: int = 8
    strength: float = 10.0
    potential: str = "difference"
    resample: str = "adaptive"
    ess_threshold: float = 0.5
    scheme: str = "systematic"
    tempering: str = "adaptive"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        self.require(self.particles >= 1, "particles must be at least 1")
        self.require(0.0 <= self.strength <= _MOST, f"strength must be between 0 and {_MOST:g}")
        self.require(0.0 <= self.ess_threshold <= 1.0, "ess_threshold must be between 0 and 1")
        for key, known in (
            ("potential", POTENTIALS),
            ("resample", RESAMPLE),
            ("scheme", tuple(SCHEMES)),
            ("tempering", TEMPERING),
        ):
            self.require(getattr(self, key) in known, f"{key} must be one of {', '.join(known)}")
        self.require(
            self.tempering != "adaptive" or self.ess_threshold < 1.0,
            "adaptive tempering keeps the effective sample size at ess_threshold, and at 1 no "
            "particle would count for more than another; lower ess_threshold, or choose another "
            "tempering",
        )

    def levels(self, sigmas: Sequence[float], transition: Transition) -> list[int]:
        """Return where particles are weighed: where scores mean something, and copies can part.

        Args:
            sigmas: The run's sigmas.
            transition: How particles move.

        Returns:
            Places in sigmas, the finished end not included.
        """
        noisy = [i for i in range(len(sigmas) - 1) if self.is_noisy(sigmas, transition, i)]
        low, below = self.sigma_low + CLOSE, self.score_below + CLOSE
        return [
            i
            for i in range(noisy[-1] + 1 if noisy else 0)
            if low < sigmas[i] <= below and not self.forgets(sigmas, transition, i)
        ]

    def check(self, sigmas: Sequence[float], transition: Transition | Whole) -> None:
        """Refuse what cannot help.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's.

        Raises:
            ValueError: With the reason and the remedy.
        """
        draw = self.draw(transition)
        steps = range(len(sigmas) - 1)
        self.refuse_odes(any(self.is_noisy(sigmas, draw, i) for i in steps) or sigmas[1] == 0.0)
        inside = [s for s in sigmas[:-1] if self.sigma_low + CLOSE < s <= self.score_below + CLOSE]
        self.require(
            bool(inside),
            f"none of the sigmas {[round(s, 3) for s in sigmas]} lies in ({self.sigma_low}, "
            f"{self.score_below}], so no particle would be weighed before it is finished; use more "
            "steps or a wider window, or best_of_n",
        )
        self.require(
            bool(self.levels(sigmas, draw)),
            "where particles are weighed, copies of a particle never part again: below, the "
            "transition keeps all of its noise (q = 1), or at sigma 1 none of it (q = 0), so a "
            "choice there is lost; choose a q between 0 and 1, or another law",
        )

    def search(self, spec: Spec) -> Moves:
        """Take the particles of one pass to sigma 0; return them, best finished first."""
        sigmas, draw = spec.sigmas, self.draw(spec.transition)
        levels, way = self.levels(sigmas, draw), self.way(spec.transition)
        count = affordable(spec, sigmas, self.particles, draw, [sigmas[i] for i in levels])
        if count < 2:  # one particle alone has nothing to be weighed against
            count, levels = affordable(spec, sigmas, 1, draw), []
        if not count:
            return []
        rows, population = range(count), Population(self, count)
        places = [*levels, len(sigmas) - 1]
        starts: list[Node | None] = [None] * count
        drawn = [0.0] * count
        nodes = yield from walk(starts, sigmas[: places[0] + 1], rows, (0,), way, weights=drawn)
        for number, (place, to) in enumerate(pairwise(places), start=1):
            times = (number, len(places))
            parents: list[Node | None] = self._decide(spec, population, nodes, times, drawn)
            del nodes
            path = sigmas[place + 1 : to + 1]
            drawn = [0.0] * count
            nodes = yield from walk(
                parents, path[:1], rows, (number, 0), draw, to == place + 1, drawn
            )
            if to > place + 1:
                parents = [*nodes]
                del nodes
                nodes = yield from walk(parents, path[1:], rows, (number, 1), way, weights=drawn)
        self._decide(spec, population, nodes, (len(places), len(places)), drawn)
        return best_of(nodes, count)

    def _decide(
        self,
        spec: Spec,
        population: "Population",
        nodes: list[Node],
        time: tuple[int, int],
        drawn: Sequence[float],
    ) -> list[Node | None]:
        """Weigh the particles for the j-th of n times; return the ancestors of the next ones."""
        number, times = time
        population.weigh([score_of(node) for node in nodes], number / times, drawn)
        ess, count = population.ess(), len(nodes)
        spec.choose(
            nodes,
            f"weighed: lam {population.lam:.4g}, ESS {ess:.2f} of {count}, "
            f"log Z {population.log_z:.9g}",
            population.weights(),
        )
        is_short = self.resample == "adaptive" and ess < self.ess_threshold * count
        if number == times or not (is_short or self.resample == "always"):
            return [*nodes]
        chosen = [nodes[ancestor] for ancestor in population.resample(spec.random(number))]
        spec.choose(chosen, "resampled")
        return [*chosen]


class Population:
    """The particles' weights: what SMC computes beside drawing. It knows no node and no tensor.

    Attributes:
        log_w: Normalised log weights.
        log_g: Log of the product of the potentials along each particle's path.
        log_z: Log of the estimate of the normalising constant so far.
        lam: Strength so far.
    """

    def __init__(self, settings: SequentialMonteCarlo, count: int) -> None:
        """Start with equal weights.

        Args:
            settings: Potential, tempering and scheme.
            count: Particles, at least 1.
        """
        self.settings = settings
        self.count = count
        self.log_w = [-math.log(count)] * count
        self.log_g = [0.0] * count
        self.log_z = 0.0
        self.lam = 0.0
        self._statistic = [-math.inf if settings.potential == "max" else 0.0] * count

    def weigh(
        self, scores: Sequence[float], progress: float, drawn: Sequence[float] | None = None
    ) -> None:
        """Multiply the weights by the potentials of new scores.

        Args:
            scores: One score a particle.
            progress: Part of the times at which particles are weighed, this one included; at 1 they
                are finished.
            drawn: Log weights of the particles' draws since the last time; None for none.
        """
        if drawn is not None:
            self.log_w = [w + own for w, own in zip(self.log_w, drawn, strict=True)]
        lam = self.settings.strength
        if progress >= 1.0:
            self.lam = lam
            self._enter([lam * r - g for r, g in zip(scores, self.log_g, strict=True)])
            return
        fold = _FOLD[self.settings.potential]
        self._statistic = [fold(s, r) for s, r in zip(self._statistic, scores, strict=True)]
        self.lam = self._tempered(progress)
        self._enter(self._potentials(self.lam))

    def weights(self) -> list[float]:
        """Return the normalised weights."""
        return [math.exp(w) for w in self.log_w]

    def ess(self) -> float:
        """Return the effective sample size, 1 / sum of W^2: from 1 to the number of particles."""
        return math.exp(-_log_sum([2.0 * w for w in self.log_w]))

    def resample(self, random: Random) -> list[int]:
        """Draw ancestors by weight; their descendants have equal weights.

        Args:
            random: Source of uniform numbers.

        Returns:
            Index of each particle's ancestor.
        """
        ancestors = SCHEMES[self.settings.scheme](self.weights(), self.count, random)
        self.log_w = [-math.log(self.count)] * self.count
        self.log_g = [self.log_g[a] for a in ancestors]
        self._statistic = [self._statistic[a] for a in ancestors]
        return ancestors

    def _potentials(self, lam: float) -> list[float]:
        """Return the log potentials of the latest scores at a strength."""
        if self.settings.potential == "difference":
            return [lam * s - g for s, g in zip(self._statistic, self.log_g, strict=True)]
        return [lam * s for s in self._statistic]

    def _enter(self, log_potentials: Sequence[float]) -> None:
        joint = [w + g for w, g in zip(self.log_w, log_potentials, strict=True)]
        total = _log_sum(joint)
        self.log_z += total
        self.log_w = [w - total for w in joint]
        self.log_g = [g + new for g, new in zip(self.log_g, log_potentials, strict=True)]

    def _tempered(self, progress: float) -> float:
        """Return the strength for the latest scores."""
        most = self.settings.strength
        if self.settings.tempering == "none":
            return most
        if self.settings.tempering == "linear":
            return most * progress
        low, high = self.lam, most
        if self._holds_at(high) or not self._holds_at(low):
            return high if self._holds_at(high) else low
        for _ in range(_HALVINGS):  # the first strength at which the sample size is too small
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self._holds_at(middle) else (low, middle)
        return high

    def _holds_at(self, lam: float) -> bool:
        """Return whether the effective sample size would be large enough at a strength."""
        joint = [w + g for w, g in zip(self.log_w, self._potentials(lam), strict=True)]
        log_ess = 2.0 * _log_sum(joint) - _log_sum([2.0 * w for w in joint])
        return log_ess >= math.log(max(self.settings.ess_threshold * self.count, 1e-300))


_FOLD: dict[str, Callable[[float, float], float]] = {
    "difference": lambda _, new: new,
    "max": max,
    "sum": lambda before, new: before + new,
}


def _log_sum(logs: Sequence[float]) -> float:
    """Return log(sum(exp(x)))."""
    top = max(logs)
    return top + math.log(math.fsum(math.exp(x - top) for x in logs))
