"""Search over Paths: bring several paths nearly down, go back up from the best, come down again.

`starts` paths come down to sigma_first and are compared by their predictions there. Each round
noises the best `keep` up by `up`, `candidates` times each, brings them down by `down`, a little
lower than they were, and keeps the best; the round that arrives at 0 is the last one. Late
predictions are what is compared, so no early one is trusted.

The way up is the forward process given x itself,

    x' = (alpha'/alpha) x + sqrt(sigma'^2 - (alpha'/alpha)^2 sigma^2) z,

which is the transition that keeps the correlation q = rho/rho' of the noise: D cancels.

Source: Ma et al. 2025, arXiv:2501.09732, search over paths; the published comparison's settings are
those of arXiv:2503.19385.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...paths.noise_law import noise_law
from ...stepping.transition import Transition
from ..protocol import Move, Node, Spec, Whole
from ..settings import Settings
from .descent import CLOSE, Moves, affordable, best_of, price, walk

__all__ = ["NOISE", "SearchOverPaths"]

NOISE = Transition(noise_law("constant_k", k=1.0))
"""Upward: the forward process from x, which does not use D."""


@dataclass(frozen=True)
class SearchOverPaths(Settings):
    """Settings of Search over Paths.

    Attributes:
        width: Paths taken side by side, at least 1.
        starts: Paths that come down first, at least 1.
        keep: Paths that are kept after each round, N, at least 1.
        candidates: Tries from each kept path, K, at least 1.
        sigma_first: Where the first paths are compared, above 0, below 1.
        up: How much sigma rises in a round, above 0.
        down: How much it falls again; above `up`, or no round would be the last.
        leg: Evaluations of one way down, evenly spaced; 0: the run's own sigmas.
        finish_steps: ODE steps from a path to 0 where the budget ends early; None follows the
            sigmas, 1 jumps to D.
        plain: Whether the run first takes the plain sample.
        target_stop: Whether a finished picture that reaches the target ends the run.

    Example:
        >>> [tuple(round(s, 2) for s in levels) for levels in SearchOverPaths().rounds(1.0)][:2]
        [(0.9, 0.09), (0.87, 0.06)]
    """

    name: ClassVar[str] = "search_over_paths"

    width: int = 4
    starts: int = 4
    keep: int = 2
    candidates: int = 2
    sigma_first: float = 0.12
    up: float = 0.78
    down: float = 0.81
    leg: int = 0
    finish_steps: int | None = None
    plain: bool = True
    target_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for key in ("width", "starts", "keep", "candidates"):
            self.require(getattr(self, key) >= 1, f"{key} must be at least 1")
        self.require(0.0 < self.sigma_first < 1.0, "sigma_first must be above 0 and below 1")
        self.require(0.0 < self.up <= 1.0, "up must be above 0, at most 1")
        self.require(self.down <= 2.0, "down must be at most 2")
        self.require(
            self.down - self.up >= 0.001,
            "down must be above up, by .001 at least, or the rounds would not end",
        )
        self.require(self.leg >= 0, "leg must be at least 0 (0: the run's own sigmas)")
        steps = self.finish_steps
        self.require(steps is None or steps >= 1, "finish_steps must be at least 1, or None")

    @property
    def score_below(self) -> float:
        """Predictions above this sigma are not scored."""
        return self.sigma_first

    def check(self, sigmas: Sequence[float], transition: Transition | Whole) -> None:
        """Refuse what cannot help.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's.

        Raises:
            ValueError: With the reason and the remedy.
        """
        if isinstance(transition, Whole):
            raise ValueError(
                f"{self.name} goes back up from paths that are not finished, and {transition.name} "
                "can only be run whole; connect a Stochastic Flow Sampler (its law ode is the same "
                "as euler), or use best_of_n"
            )
        self.require(
            self.sigma_first < sigmas[0],
            f"paths are first compared at sigma_first = {self.sigma_first}, and the sigmas start "
            f"at {sigmas[0]:.4g}; lower sigma_first, or start higher",
        )

    def rounds(self, first: float) -> list[tuple[float, float]]:
        """Return where each round goes up to, and down to; the last one down to 0.

        Args:
            first: The run's first sigma, above which nothing goes.

        Returns:
            Pairs of sigmas.
        """
        found: list[tuple[float, float]] = []
        at = self.sigma_first
        while at > 0.0:
            up = min(first, at + self.up)
            at = up - self.down if up - self.down > CLOSE else 0.0
            found.append((up, at))
        return found

    def way_down(self, sigmas: Sequence[float], high: float, low: float) -> tuple[float, ...]:
        """Return the sigmas of one way down, both ends included.

        Args:
            sigmas: The run's sigmas.
            high: Where it begins.
            low: Where it ends.

        Returns:
            Falling sigmas.
        """
        if not self.leg:
            between = [s for s in sigmas if low + CLOSE < s < high - CLOSE]
        else:
            steps = max(1, self.leg - (low > 0.0))
            between = [high + (low - high) * i / steps for i in range(1, steps)]
        return (high, *between, low)

    def search(self, spec: Spec) -> Moves:
        """Search one pass of one chain; return the kept paths, best first."""
        path = self.way_down(spec.sigmas, spec.sigmas[0], self.sigma_first)
        kept = yield from self._round(spec, [None] * self._starts(spec), path, 0)
        for number, (up, low) in enumerate(self.rounds(spec.sigmas[0]), start=1):
            parents: list[Node | None] = [*kept] * self.candidates
            del kept
            path = self.way_down(spec.sigmas, up, low)
            kept = yield from self._round(spec, parents, path, number)
            parents.clear()
        return kept

    def _starts(self, spec: Spec) -> int:
        """Return how many paths come down first: fewer where the budget has no whole pass."""
        sigmas = spec.sigmas
        legs = [(sigmas[0], self.sigma_first), *self.rounds(sigmas[0])]
        first, *later = (1 + price(spec, self.way_down(sigmas, *leg)[1:]) for leg in legs)
        whole = first * self.starts + sum(later) * self.keep * self.candidates
        return max(1, min(self.starts, self.starts * spec.remaining() // max(1, whole)))

    def _round(
        self, spec: Spec, parents: list[Node | None], path: Sequence[float], number: int
    ) -> Moves:
        """Bring each parent up to the path's first sigma (None: a start) and down; keep the best.

        Parents come best first, and each has its turn before any has its second one. Where the
        budget has room for none of them, they are kept as they are.
        """
        kept: list[Node] = []
        done = 0
        while done < len(parents):
            most = min(self.width, len(parents) - done)
            rows = range(done, done + affordable(spec, path, most))
            if not rows:
                break
            group = [parents[row] for row in rows]
            moves = [
                Move(node, path[0], (number, 0, row), None if node is None else NOISE, False)
                for node, row in zip(group, rows, strict=True)
            ]
            nodes = yield moves
            del moves, group
            nodes = yield from walk([*nodes], path[1:], rows, (number, 1))
            kept = best_of([*kept, *nodes], self.keep)
            del nodes
            done = rows.stop
        if not kept:
            kept = [*{node.id: node for node in parents if node is not None}.values()]
        spec.choose(kept, "best")
        return kept
