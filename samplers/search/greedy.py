"""Greedy searches: draw several, keep the best, at block ends.

Best-of-N is one block that is the whole run: N pictures from N starts, scored finished. (SVDD and
CoDe are the same with shorter blocks, scored on predictions.)
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..transition import Transition
from .protocol import Move, Node, Spec, Stop, Whole
from .settings import Settings

__all__ = ["BestOfN"]


@dataclass(frozen=True)
class BestOfN(Settings):
    """Settings of Best-of-N, over per-step transitions or any whole sampler.

    Attributes:
        width: Pictures taken side by side, at least 1.
        candidates: Pictures a chain, the plain sample not counted; 0: as many as the budget allows.
        plain: Whether the run first takes the plain sample.
        target_stop: Whether a picture that reaches the target ends the run.
    """

    name: ClassVar[str] = "best_of_n"
    finish_steps: ClassVar[int | None] = None
    score_below: ClassVar[float] = 0.0

    width: int = 4
    candidates: int = 0
    plain: bool = True
    target_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        self.require(self.width >= 1, "width must be at least 1")
        self.require(self.candidates >= 0, "candidates must be at least 0 (0: by the budget)")

    def check(self, sigmas: Sequence[float], transition: Transition | Whole) -> None:
        """Accept everything: the starts differ, whatever follows.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's.
        """

    def search(self, spec: Spec) -> Generator[list[Move], list[Node], list[Node]]:
        """Take pictures, `width` side by side, until the budget or their number is used up."""
        best: list[Node] = []
        taken = 0
        if self.candidates and spec.pass_:
            return best
        while True:
            count = min(self.width, spec.remaining() // max(1, spec.sample_cost))
            if self.candidates:
                count = min(count, self.candidates - taken)
            if count < 1:
                return best
            try:
                nodes = yield from _samples(spec, range(taken, taken + count))
            except Stop:
                return best
            taken += count
            best = sorted([*best, *nodes], key=lambda node: -(node.score or 0.0))[:1]
            del nodes
            spec.choose(best, "best")


def _samples(spec: Spec, rows: range) -> Generator[list[Move], list[Node], list[Node]]:
    """Take whole samples side by side with the connected sampler, scored finished."""
    if isinstance(spec.transition, Whole):
        return (yield [Move(None, 0.0, (row,)) for row in rows])
    sigmas = spec.sigmas
    nodes = yield [Move(None, sigmas[0], (row, 0), score=False) for row in rows]
    for step, to in enumerate(sigmas[1:], start=1):
        nodes = yield [
            Move(node, to, (row, step), score=to == 0.0)
            for node, row in zip(nodes, rows, strict=True)
        ]
    return nodes
