"""Evolutionary search: vary the best finished picture, exchange what differs, keep what is better.

A generation noises the best picture up to one of a few levels and finishes it again in few ODE
steps, or takes a fresh picture. Whatever came of it, parent and child then exchange the places in
which they differ, several ways at random; these mixes cost no evaluation, only a reward call each,
and the best of them, if it promises more than both, is noised a little and finished, which heals
its seams. So a child that is better here and worse there is not lost: half of a search's
improvements come from such exchanges. Of equals the newest goes on, so that the search wanders over
a plateau.

Which level helps, and whether wandering helps at all or new noise is better (it is where wishes are
common), differs with model and prompt. Each choice is an arm of a bandit: its chance of an
improvement is drawn from the Beta law of its wins and losses so far (Thompson 1933), the highest
chance for its price is taken, and half of what was learnt is forgotten after each improvement,
because the next one is harder.

Sources: noising finished pictures and going on from them is the search over paths of Ma et al. 2025
(arXiv:2501.09732); selection and variation of noised pictures is that of EvoSearch
(arXiv:2505.17618). What was measured is in docs/SEARCH.md.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..transition import ODE, RENOISE, Transition
from .protocol import Move, Node, Spec, Stop, Whole
from .recombination import Mix
from .settings import Settings

__all__ = ["EvolutionarySearch"]

Moves = Generator[list[Move], list[Node], list[Node]]

FRESH = 0.0  # the arm that takes a picture from new noise; the others are levels
WINS, LOSSES = 1.0, 3.0  # before anything is known: one try in four helps
VARY, MIXES, HEAL = range(3)  # the last but two of a key: what a draw is for


@dataclass(frozen=True)
class EvolutionarySearch(Settings):
    """Settings of the evolutionary search, over any sampler.

    Attributes:
        width: Children of one generation, at least 1; all of the same arm.
        levels: Number of levels to noise up to, at least 1.
        level_low: Lowest level, as a part of the run's first sigma, above 0.
        level_high: Highest level, at least level_low, below 1.
        fresh: Whether new noise is one of the choices; if not, only where there is no picture yet.
        mixes: Exchanges tried between parent and child, at least 0; each is a reward call.
        mix_share: Part of the places taken from the other, above 0 and below 1.
        mix_sigma: Where a mix is put before it is finished, above 0 and below 1; with three steps
            its seams are predicted at two thirds of that.
        finish_steps: ODE steps from a level to 0; None follows the run's sigmas.
        plain: Whether the run first takes the plain sample.
        target_stop: Whether a finished picture that reaches the target ends the run.
    """

    name: ClassVar[str] = "evolutionary"
    score_below: ClassVar[float] = 0.0

    width: int = 1
    levels: int = 3
    level_low: float = 0.7
    level_high: float = 0.9
    fresh: bool = True
    mixes: int = 8
    mix_share: float = 0.5
    mix_sigma: float = 0.45
    finish_steps: int | None = 3
    plain: bool = True
    target_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        self.require(self.width >= 1, "width must be at least 1")
        self.require(self.levels >= 1, "levels must be at least 1")
        self.require(
            0.0 < self.level_low <= self.level_high < 1.0,
            f"0 < level_low <= level_high < 1 must hold, got {self.level_low} and "
            f"{self.level_high}; at 1 nothing is left of the picture, which is what fresh does",
        )
        self.require(self.mixes >= 0, "mixes must be at least 0")
        for key in ("mix_share", "mix_sigma"):
            self.require(0.0 < getattr(self, key) < 1.0, f"{key} must be above 0 and below 1")
        steps = self.finish_steps
        self.require(steps is None or steps >= 1, "finish_steps must be at least 1, or None")

    def check(self, sigmas: Sequence[float], transition: Transition | Whole) -> None:
        """Accept everything: variations take their own steps, whatever the sampler.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's.
        """

    def arms(self, first: float) -> list[float]:
        """Return what a generation chooses from: the levels of a run, and FRESH.

        Args:
            first: The run's first sigma.

        Returns:
            Rising sigmas, FRESH before them if it is a choice.
        """
        gaps = max(1, self.levels - 1)
        low, high = self.level_low * first, self.level_high * first
        found = [low + (high - low) * i / gaps for i in range(self.levels)]
        return [FRESH, *found] if self.fresh else found

    def search(self, spec: Spec) -> Moves:
        """Search one pass of one chain; nothing it returns is left to be finished."""
        run = _Pass(self, spec)
        try:
            while arm := run.choice():
                yield from run.generation(*arm)
        except Stop:
            pass
        return []


class _Pass:
    """The state of one pass: the best picture, and how the arms did."""

    def __init__(self, settings: EvolutionarySearch, spec: Spec) -> None:
        self.settings = settings
        self.spec = spec
        # several chains are islands: only the first goes on from the plain sample
        self.best = spec.best() if spec.chain == 0 or spec.pass_ else None
        self.record = {arm: [WINS, LOSSES] for arm in settings.arms(spec.sigmas[0])}
        self.seams: list[float] = []
        self.count = 0

    # ---- which arm ----

    def choice(self) -> tuple[float, int] | None:
        """Return the arm of the next generation and its children, None if none is affordable."""
        left = self.spec.remaining()
        prices = {arm: self._price(arm) for arm in self.record}
        if self.best is None:
            prices = {FRESH: self._price(FRESH)}
        prices = {arm: price for arm, price in prices.items() if price <= left}
        if not prices:
            return None
        self.count += 1
        random = self.spec.random(self.count)
        chance = {
            arm: random.betavariate(*self.record.get(arm, (WINS, LOSSES))) / price
            for arm, price in prices.items()
        }
        arm = max(chance, key=chance.__getitem__)
        return arm, min(self.settings.width, left // prices[arm])

    def _price(self, arm: float) -> int:
        return max(1, self.spec.sample_cost if arm == FRESH else len(self.spec.path(arm)))

    def _learn(self, arm: float, better: bool) -> None:
        if better:
            for record in self.record.values():
                record[:] = [WINS + (record[0] - WINS) / 2, LOSSES + (record[1] - LOSSES) / 2]
        if arm in self.record:
            self.record[arm][0 if better else 1] += 1

    # ---- one generation ----

    def generation(self, arm: float, count: int) -> Moves:
        """Draw children, exchange with the parent, keep the best."""
        parent = self.best
        nodes = yield from self._fresh(count) if arm == FRESH else self._vary(arm, count)
        child = max(nodes, key=_score)
        del nodes
        self._keep(child, "fresh" if arm == FRESH else "variation")
        if parent is not None and arm != FRESH:
            yield from self._exchange(parent, child)
        self._learn(arm, parent is None or _score(self.best) > _score(parent))
        return []

    def _keep(self, node: Node, why: str) -> None:
        if _score(node) >= _score(self.best):
            self.best = node
            self.spec.choose([node], why)

    def _fresh(self, count: int) -> Moves:
        """Take pictures from new noise with the connected sampler."""
        spec, sigmas = self.spec, self.spec.sigmas
        if isinstance(spec.transition, Whole):
            return (yield [Move(None, 0.0, (self.count, VARY, row, 0)) for row in range(count)])
        keys = [(self.count, VARY, row) for row in range(count)]
        nodes = yield [Move(None, sigmas[0], (*key, 0), score=False) for key in keys]
        for step, to in enumerate(sigmas[1:], start=1):
            nodes = yield [
                Move(node, to, (*key, step), score=to == 0.0)
                for node, key in zip(nodes, keys, strict=True)
            ]
        return nodes

    def _vary(self, level: float, count: int) -> Moves:
        """Noise the best picture up to a level, each child with its own noise, and finish it."""
        keys = [(self.count, VARY, row) for row in range(count)]
        nodes = yield [Move(self.best, level, (*key, 0), RENOISE, score=False) for key in keys]
        return (yield from self._finish(nodes, keys))

    def _finish(self, nodes: list[Node], keys: list[tuple[int, ...]]) -> Moves:
        """Take nodes of one sigma to 0 side by side; their list is emptied."""
        current = [*nodes]
        nodes.clear()
        for step, to in enumerate(self.spec.path(current[0].sigma), start=1):
            current = yield [
                Move(node, to, (*key, step), ODE, score=to == 0.0)
                for node, key in zip(current, keys, strict=True)
            ]
        return current

    def _exchange(self, parent: Node, child: Node) -> Moves:
        """Mix the better with the other; finish the best mix if it promises more than both."""
        settings, spec = self.settings, self.spec
        better, other = (child, parent) if _score(child) >= _score(parent) else (parent, child)
        sigma = settings.mix_sigma * spec.sigmas[0]
        price = len(spec.path(sigma)) - 1
        if settings.mixes < 1 or spec.remaining() < price:
            return []
        how = Mix(settings.mix_share)
        nodes = yield [
            Move(better, sigma, (self.count, MIXES, row, 0), how, donor=other)
            for row in range(settings.mixes)
        ]
        top = max(nodes, key=_score)
        del nodes
        loss = sum(self.seams) / len(self.seams) if self.seams else 0.0
        if _score(top) + min(0.0, loss) <= _score(better):
            return []
        spec.choose([top], "mixed")
        mixed = _score(top)
        key = (self.count, HEAL, 0)
        (healed,) = yield from self._finish([top], [key])
        self.seams.append(_score(healed) - mixed)
        self._keep(healed, "healed")
        return []


def _score(node: Node | None) -> float:
    return -float("inf") if node is None or node.score is None else node.score
