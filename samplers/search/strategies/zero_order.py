"""Zero-order search: vary the start's noise, go on from the best.

A pivot is a start with its finished picture. Each round takes K neighbours of the pivot's noise,

    z' = q z + sqrt(1 - q^2) z_new,

down to sigma 0; the best of them becomes the pivot unless it is worse. Whether a start is good is
decided by its finished picture alone, so no early prediction is trusted. Where a round finds
nothing better, the neighbourhood may be widened, in the end to new noise: Best-of-N.

Source: Ma et al. 2025, arXiv:2501.09732, zero-order search; the widening is ours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...stepping.transition import Transition, fixed_q
from ..protocol import Move, Node, Spec, Stop, Whole
from ..settings import Settings
from .descent import Moves, best_of, score_of, walk

__all__ = ["ZeroOrderSearch"]


@dataclass(frozen=True)
class ZeroOrderSearch(Settings):
    """Settings of zero-order search.

    Attributes:
        width: Neighbours taken side by side, at least 1.
        candidates: Neighbours of a round, K, at least 1.
        q: Correlation of a neighbour's noise with the pivot's, 0 to below 1.
        widen: Factor of the part of new noise, sqrt(1 - q^2), after a round that found nothing
            better, at least 1; 1 leaves it.
        plain: Whether the run first takes the plain sample; it is then the first pivot.
        target_stop: Whether a finished picture that reaches the target ends the run.

    Example:
        >>> ZeroOrderSearch(q=0.9) == ZeroOrderSearch.from_json(ZeroOrderSearch(q=0.9).to_json())
        True
    """

    name: ClassVar[str] = "zero_order"
    begins_afresh: ClassVar[bool] = False

    width: int = 4
    candidates: int = 4
    q: float = 0.95
    widen: float = 1.0
    plain: bool = True
    target_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        self.require(self.width >= 1, "width must be at least 1")
        self.require(self.candidates >= 1, "candidates must be at least 1")
        self.require(0.0 <= self.q < 1.0, "q must be at least 0 and below 1: 1 is the pivot itself")
        self.require(1.0 <= self.widen < math.inf, "widen must be at least 1, and finite")

    @property
    def finish_steps(self) -> int | None:
        """Its pictures are finished by its own moves."""
        return None

    @property
    def score_below(self) -> float:
        """Finished pictures alone are scored."""
        return 0.0

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
                f"{self.name} varies the noise of a start, and {transition.name} can only be run "
                "whole, from noise of its own; connect a Stochastic Flow Sampler (its law ode is "
                "the same as euler), or use best_of_n"
            )
        self.require(
            sigmas[1] == 0.0 or transition.coefficients(sigmas[0], sigmas[1]).q != 0.0,
            f"the first transition, from sigma {sigmas[0]:.4g} to {sigmas[1]:.4g}, keeps nothing "
            "of its noise (q = 0), so a start that was varied is lost; choose the law ode or "
            "fixed_q, or start below sigma 1",
        )

    def search(self, spec: Spec) -> Moves:
        """Go from pivot to pivot until no picture fits the budget."""
        pivot: Node | None = None
        best: list[Node] = []
        new, number = math.sqrt(1.0 - self.q**2), 0
        plain = spec.plain()
        if plain and spec.chain == 0:
            pivot, best = plain[0], [plain[-1]]
        del plain
        try:
            while True:
                found = yield from self._round(spec, pivot, number, new)
                if not found:
                    return best
                (start, end), number = found, number + 1
                is_better = not best or score_of(end) > score_of(best[0])
                if is_better or score_of(end) == score_of(best[0]):
                    pivot, best = start, [end]
                new = math.sqrt(1.0 - self.q**2) if is_better else min(1.0, new * self.widen)
                spec.choose(best, "better" if is_better else "kept")
                del start, end, found
        except Stop:
            return best

    def _round(self, spec: Spec, pivot: Node | None, number: int, new: float) -> Moves:
        """Return the start and the end of the best neighbour; nothing where none fits.

        Where there is no pivot yet, one new start.
        """
        kept: list[Node] = []
        taken, most = 0, self.candidates if pivot is not None else 1
        near = fixed_q(math.sqrt(max(0.0, 1.0 - new * new))) if pivot is not None else None
        first, below = spec.sigmas[0], spec.sigmas[1:]
        while taken < most:
            fits = spec.remaining() // max(1, spec.sample_cost)
            rows = range(taken, taken + min(self.width, most - taken, fits))
            if not rows:
                break
            starts = yield [Move(pivot, first, (number, 0, row), near, False) for row in rows]
            ends = yield from walk([*starts], below, rows, (number, 1))
            top = best_of(ends, 1)[0]
            if not kept or score_of(top) > score_of(kept[1]):
                kept = [starts[ends.index(top)], top]
            del starts, ends, top
            taken = rows.stop
        return kept
