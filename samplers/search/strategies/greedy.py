"""Greedy searches: draw several, keep the best, at block ends.

A block is a stretch of the way down that candidates take unseen; at its end they are scored, and
the best goes on. The methods differ in the length of a block alone:

    Best-of-N   the whole way, from N starts, scored finished
    CoDe        a few steps, from one parent             Singh et al. 2025, arXiv:2502.00968
    SVDD        one step, from one parent                Li et al. 2024, arXiv:2408.08252

SVDD is taken with its temperature at 0, as in arXiv:2503.19385: the best draw, not one by weight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from ...stepping.transition import Transition
from ..protocol import Node, Spec, Stop, Whole
from ..settings import Settings
from .descent import CLOSE, Moves, Stepwise, best_of, price, walk

__all__ = ["SVDD", "BestOfN", "CoDe"]


@dataclass(frozen=True)
class BestOfN(Settings):
    """Settings of Best-of-N, over per-step transitions or any whole sampler.

    Attributes:
        width: Pictures taken side by side, at least 1.
        candidates: Pictures a chain, the plain sample not counted; 0: as many as the budget allows.
        plain: Whether the run first takes the plain sample.
        target_stop: Whether a picture that reaches the target ends the run.

    Example:
        >>> BestOfN(candidates=8).to_json()
        {'strategy': 'best_of_n', 'width': 4, 'candidates': 8, 'plain': True, 'target_stop': True}
    """

    name: ClassVar[str] = "best_of_n"

    width: int = 4
    candidates: int = 0
    plain: bool = True
    target_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        self.require(self.width >= 1, "width must be at least 1")
        self.require(self.candidates >= 0, "candidates must be at least 0 (0: by the budget)")

    @property
    def finish_steps(self) -> int | None:
        """Its pictures are finished by its own moves."""
        return None

    @property
    def score_below(self) -> float:
        """Finished pictures alone are scored."""
        return 0.0

    def check(self, sigmas: Sequence[float], transition: Transition | Whole) -> None:
        """Accept everything: the starts differ, whatever follows.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's.
        """

    def draws_noise(self, sigmas: Sequence[float], transition: Transition | Whole) -> bool:
        """Return whether the sampler does."""
        steps = pairwise(sigmas)
        return not isinstance(transition, Whole) and any(
            transition.coefficients(*ends).needs_noise for ends in steps
        )

    def search(self, spec: Spec) -> Moves:
        """Take pictures, `width` side by side, until the budget or their number is used up."""
        best: list[Node] = []
        taken = 0
        whole = isinstance(spec.transition, Whole)
        if self.candidates and spec.pass_:
            return best
        while True:
            count = min(self.width, spec.remaining() // max(1, spec.sample_cost))
            if self.candidates:
                count = min(count, self.candidates - taken)
            if count < 1:
                return best
            path = (0.0,) if whole else spec.sigmas
            try:
                nodes = yield from walk([None] * count, path, range(taken, taken + count), ())
            except Stop:
                return best
            taken += count
            best = best_of([*best, *nodes], 1)
            del nodes
            spec.choose(best, "best")


@dataclass(frozen=True)
class Blocks(Stepwise):
    """Settings of greedy search by blocks: K draws from one parent, L steps each, the best goes on.

    Attributes:
        width: Candidates taken side by side, at least 1; more draws do not take more memory.
        candidates: Draws of a block, K; fewer where the budget has no room for them. 0: the budget
            of a pass shared out over its blocks.
        block: Steps of a block, L; 0: the whole way.
        sigma_high: Draws start at or below this sigma.
        finalists: Candidates of the last block that are finished, at least 1.
    """

    width: int = 4
    candidates: int = 8
    block: int = 1
    sigma_high: float = 0.95
    finalists: int = 1

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        self.require(self.width >= 1, "width must be at least 1")
        self.require(self.candidates >= 0, "candidates must be at least 0 (0: by the budget)")
        self.require(self.block >= 0, "block must be at least 0 (0: the whole way)")
        self.require(self.finalists >= 1, "finalists must be at least 1")
        self.require(0.0 <= self.sigma_high <= 1.0, "sigma_high must be between 0 and 1")
        self.require(self.sigma_low < self.sigma_high, "sigma_low must be below sigma_high")

    def window(self, sigmas: Sequence[float]) -> list[tuple[int, int]]:
        """Return the blocks that the window holds, as pairs (first, end) of places in sigmas."""
        end = next((i for i, s in enumerate(sigmas) if s <= self.sigma_low + CLOSE), 0)
        length = self.block or len(sigmas)
        high, below = self.sigma_high + CLOSE, self.score_below + CLOSE
        first = next(
            (i for i in range(end) if sigmas[i] <= high and sigmas[min(i + length, end)] <= below),
            end,
        )
        found = [(i, min(i + length, end)) for i in range(first, end, length)]
        return [block for block in found if sigmas[block[0] + 1] > 0.0]

    def is_drawn(
        self, sigmas: Sequence[float], transition: Transition, block: tuple[int, int]
    ) -> bool:
        """Return whether two draws of a block differ."""
        return any(self.is_noisy(sigmas, transition, i) for i in range(*block))

    def blocks(self, sigmas: Sequence[float], transition: Transition) -> list[tuple[int, int]]:
        """Return the window's blocks up to the last one in which draws differ.

        Args:
            sigmas: The run's sigmas.
            transition: How candidates are drawn.

        Returns:
            Pairs (first, end) of places in sigmas; empty if there is nothing to compare.
        """
        found = self.window(sigmas)
        while found and not self.is_drawn(sigmas, transition, found[-1]):
            found.pop()
        return found

    def check(self, sigmas: Sequence[float], transition: Transition | Whole) -> None:
        """Refuse what cannot help.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's.

        Raises:
            ValueError: With the reason and the remedy.
        """
        draw = self.draw(transition)
        self.require(
            bool(self.window(sigmas)),
            f"no step of the sigmas {[round(s, 3) for s in sigmas]} starts in ({self.sigma_low}, "
            f"{self.sigma_high}] and ends above 0 with the end of its block at or below "
            f"score_below = {self.score_below}, so nothing would be searched; use more steps or a "
            "wider window",
        )
        self.refuse_odes(bool(self.blocks(sigmas, draw)))

    def search(self, spec: Spec) -> Moves:
        """Search one pass of one chain; return the last block's best, to be finished."""
        sigmas, draw = spec.sigmas, self.draw(spec.transition)
        blocks = self.blocks(sigmas, draw)
        if not blocks:  # the run may have thinned the sigmas that check() saw
            return []
        quotas = _Quotas(self, spec, blocks, draw)
        kept = yield from self._open(spec, blocks[0][0], quotas)
        for number, (i, j) in enumerate(blocks):
            count, path = quotas.take(number), sigmas[i + 1 : j + 1]
            kept = yield from self._block(kept[0], count, path, number + 1, draw)
            spec.choose(kept, "best")
        return kept

    def _open(self, spec: Spec, first: int, quotas: "_Quotas") -> Moves:
        """Come to where draws begin; the first chain's way is there already, the plain sample's."""
        plain = spec.plain()
        if plain and spec.chain == 0:
            return [plain[first]]
        way = self.way(spec.transition)
        quotas.left -= 1 + price(spec, spec.sigmas[1 : first + 1], way)
        return (yield from walk([None], spec.sigmas[: first + 1], [0], (0,), way, score=False))

    def _block(
        self, parent: Node, count: int, path: Sequence[float], number: int, draw: Transition
    ) -> Moves:
        """Take `count` candidates from the parent, `width` at a time, and keep the best."""
        kept: list[Node] = []
        for begin in range(0, count, self.width):
            rows = range(begin, min(count, begin + self.width))
            nodes = yield from walk([parent] * len(rows), path, rows, (number,), draw)
            kept = best_of([*kept, *nodes], self.finalists)
            del nodes
        return kept


class _Quotas:
    """How many draws each block gets: the budget of a pass, shared out; what is left flows on."""

    def __init__(
        self, settings: Blocks, spec: Spec, blocks: list[tuple[int, int]], draw: Transition
    ) -> None:
        sigmas, end = spec.sigmas, blocks[-1][1]
        self.most = settings.candidates
        self.left = spec.remaining() - spec.finish_cost(sigmas[end]) * settings.finalists
        self.costs = [price(spec, sigmas[i + 1 : j + 1], draw) for i, j in blocks]
        self.drawn = [settings.is_drawn(sigmas, draw, block) for block in blocks]

    def take(self, number: int) -> int:
        """Return how many candidates a block takes, at least 1: so many that the rest get as many.

        A block whose draws do not differ takes one.
        """
        several = sum(
            cost
            for cost, many in zip(self.costs[number:], self.drawn[number:], strict=True)
            if many
        )
        single = sum(self.costs[number:]) - several
        count = 1
        if self.drawn[number]:
            count = max(1, (self.left - single) // max(1, several))
            count = min(count, self.most or count)
        self.left -= count * self.costs[number]
        return count


@dataclass(frozen=True)
class SVDD(Blocks):
    """Settings of SVDD: blocks of one step. See Blocks.

    Example:
        >>> SVDD(candidates=3).window([1.0, 0.8, 0.6, 0.3, 0.0])
        [(1, 2), (2, 3)]
    """

    name: ClassVar[str] = "svdd"


@dataclass(frozen=True)
class CoDe(Blocks):
    """Settings of CoDe: blocks of two steps by default. See Blocks.

    Example:
        >>> from flowsearch.samplers.stepping.transition import fixed_q
        >>> CoDe(block=2).blocks([1.0, 0.8, 0.6, 0.5, 0.3, 0.0], fixed_q(0.85))
        [(1, 3), (3, 4)]
    """

    name: ClassVar[str] = "code"

    block: int = 2
