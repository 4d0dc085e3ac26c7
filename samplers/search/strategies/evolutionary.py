"""Evolutionary search: vary the best picture, exchange what differs, keep what is better.

A generation noises the best picture up to one of a few levels and takes few ODE steps down to a
low sigma, where the prediction shows the picture: a draft. Or it takes a fresh picture. Whatever
came of it, parent and child then exchange the places in which they differ, several ways at random;
these mixes cost no evaluation, only a reward call each, and the best of them, if it promises more
than both, is predicted once, which heals its seams, and is a draft too. So a child that is better
here and worse there is not lost: most improvements come from such exchanges. Of equals the newest
goes on, so that the search wanders over a plateau.

A draft is finished with the run's own steps: at the end, at the target, and whenever finishing is
less than a tenth of what was spent since the last time. From then on the finished picture's reward
is the draft's.

Which level helps, and whether varying helps at all or new noise is better (it is where wishes are
common), differs with model, prompt and how far the search has come. Each choice is an arm of a
bandit: its chance of an improvement is drawn from the Beta law of its wins and losses so far
(Thompson 1933), the highest chance for its price is taken, and half of what was learnt is forgotten
after each improvement, because the next one is harder.

Sources: noising finished pictures and going on from them is the search over paths of Ma et al. 2025
(arXiv:2501.09732); selection and variation of noised pictures is that of EvoSearch
(arXiv:2505.17618). What was measured is in docs/SEARCH.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...stepping.transition import ODE, RENOISE, Transition
from ..protocol import Move, Node, Spec, Stop, Whole
from ..recombination import Mix
from ..settings import Settings
from .descent import Moves, price, walk

__all__ = ["EvolutionarySearch"]

FRESH = 0.0  # the arm that takes a picture from new noise; the others are levels
SELDOM = 10  # evaluations of searching for each one of finishing drafts on the way
SHARES = (Mix(0.5), Mix(0.25))  # many places at once, and few
WINS, LOSSES = 1.0, 3.0  # before anything is known: one try in four helps
NOISE, VARY, MIX, HEAL, FINISH = range(5)  # what a draw is for, in its key


@dataclass(frozen=True)
class EvolutionarySearch(Settings):
    """Settings of the evolutionary search, over any sampler.

    Attributes:
        width: Children of one generation, at least 1; all of the same arm.
        levels: Number of levels to noise up to, at least 1.
        level_low: Lowest level, as a part of the run's first sigma, above draft_sigma.
        level_high: Highest level, at least level_low, below 1.
        draft_sigma: Where drafts end, as a part of the run's first sigma, above 0.
        steps: Evaluations of a draft, at least 2: at its level, at draft_sigma, evenly between.
        fresh: Whether new noise is one of the choices; if not, only where there is no picture yet.
        mixes: Exchanges tried between parent and child, at least 0; each is a reward call.
        finish_steps: ODE steps from a draft to 0; None follows the run's sigmas, 1 jumps to D.
        plain: Whether the run first takes the plain sample.
        target_stop: Whether a finished picture that reaches the target ends the run.

    Example:
        >>> EvolutionarySearch(levels=1).arms(1.0)
        [0.0, 0.75]
    """

    name: ClassVar[str] = "evolutionary"
    begins_afresh: ClassVar[bool] = False

    width: int = 1
    levels: int = 3
    level_low: float = 0.75
    level_high: float = 0.9
    draft_sigma: float = 0.3
    steps: int = 4
    fresh: bool = True
    mixes: int = 16
    finish_steps: int | None = None
    plain: bool = True
    target_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        self.require(self.width >= 1, "width must be at least 1")
        self.require(self.levels >= 1, "levels must be at least 1")
        self.require(
            0.0 < self.draft_sigma < self.level_low <= self.level_high < 1.0,
            "0 < draft_sigma < level_low <= level_high < 1 must hold, got "
            f"{self.draft_sigma}, {self.level_low} and {self.level_high}; at 1 nothing is left of "
            "the picture, which is what fresh does",
        )
        self.require(self.steps >= 2, "steps must be at least 2")
        self.require(self.mixes >= 0, "mixes must be at least 0")
        steps = self.finish_steps
        self.require(steps is None or steps >= 1, "finish_steps must be at least 1, or None")

    @property
    def score_below(self) -> float:
        """Of the plain sample, the finished picture alone is scored."""
        return 0.0

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
        found = _spread(self.level_low * first, self.level_high * first, self.levels)
        return [FRESH, *found] if self.fresh else found

    def search(self, spec: Spec) -> Moves:
        """Search one pass of one chain; return the best, to be finished if it is a draft."""
        run = _Pass(self, spec)
        try:
            while arm := run.choice():
                yield from run.generation(*arm)
        except Stop:
            pass
        return [] if run.best is None or run.best.sigma == 0.0 else [run.best]


class _Pass:
    """The state of one pass: the best picture, and how the arms did."""

    def __init__(self, settings: EvolutionarySearch, spec: Spec) -> None:
        self.settings = settings
        self.spec = spec
        # several chains are islands: only the first goes on from the plain sample
        self.best = spec.best() if spec.chain == 0 or spec.pass_ else None
        self.record = {arm: [WINS, LOSSES] for arm in settings.arms(spec.sigmas[0])}
        if FRESH in self.record:  # one more of n alike beats them all once in n + 1 times
            self.record[FRESH] = [WINS, max(LOSSES, float(len(spec.plain_scores)))]
        self.draft = settings.draft_sigma * spec.sigmas[0]
        self.shown = self.best  # the best finished picture of this pass
        self.finished: dict[int, float] = {}
        self.seams: list[float] = []
        self.count = self.spent = 0

    def score(self, node: Node | None) -> float:
        """Return a node's reward, the finished picture's where a draft was finished."""
        if node is None or node.score is None:
            return -math.inf
        known = self.spec.finished_score(node)
        return self.finished.get(node.id, node.score) if known is None else known

    # ---- which arm ----

    def choice(self) -> tuple[float, int] | None:
        """Return the arm of the next generation and its children, None if none is affordable."""
        left = self.spec.remaining()
        arms = self.record if self.best is not None else [FRESH]
        prices = {arm: self._price(arm) for arm in arms}
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
        spec = self.spec
        if arm == FRESH:
            return max(1, spec.sample_cost)
        noised = Node(-1, spec.item, 0.0, None, None)
        path = _spread(arm, self.draft, self.settings.steps)[1:]
        return max(1, spec.cost([Move(noised, arm, (), RENOISE)]) + price(spec, path, ODE))

    def _learn(self, arm: float, better: bool) -> None:
        if better:
            for record in self.record.values():
                record[:] = [WINS + (record[0] - WINS) / 2, LOSSES + (record[1] - LOSSES) / 2]
        if arm in self.record:
            self.record[arm][0 if better else 1] += 1

    # ---- one generation ----

    def generation(self, arm: float, count: int) -> Moves:
        """Draw children, exchange with the parent, keep the best."""
        parent, before = self.best, self.score(self.best)
        nodes = yield from self._fresh(count) if arm == FRESH else self._vary(arm, count)
        self.spent += count * self._price(arm)
        child = max(nodes, key=self.score)
        del nodes
        self._keep(child, "fresh" if arm == FRESH else "variation")
        if parent is not None and arm != FRESH:
            yield from self._exchange(parent, child)
        del parent, child
        self._learn(arm, self.score(self.best) > before)
        yield from self._finish_now_and_then()
        return []

    def _keep(self, node: Node, why: str) -> None:
        if node.sigma == 0.0 and self.score(node) >= self.score(self.shown):
            self.shown = node
        if self.score(node) >= self.score(self.best):
            self.best = node
            self.spec.choose([node], why)

    def _fresh(self, count: int) -> Moves:
        """Take pictures from new noise with the connected sampler."""
        spec = self.spec
        path = (0.0,) if isinstance(spec.transition, Whole) else spec.sigmas
        return (yield from walk([None] * count, path, range(count), (self.count, VARY)))

    def _vary(self, level: float, count: int) -> Moves:
        """Noise the best picture up to a level, each child with its own noise, and draft it."""
        rows, key = range(count), (self.count, NOISE)
        nodes = yield from walk([self.best] * count, [level], rows, key, RENOISE, score=False)
        path = _spread(level, self.draft, self.settings.steps)[1:]
        return (yield from walk([*nodes], path, rows, (self.count, VARY), ODE))

    def _exchange(self, parent: Node, child: Node) -> Moves:
        """Mix the better with the other; predict the best mix if it promises more than both."""
        spec, draft = self.spec, self.draft
        better, other = parent, child
        if self.score(child) >= self.score(parent):
            better, other = child, parent
        if self.settings.mixes < 1 or spec.remaining() < 1:
            return []
        nodes = yield [
            Move(better, draft, (self.count, MIX, row, 0), SHARES[row % len(SHARES)], donor=other)
            for row in range(self.settings.mixes)
        ]
        top = max(nodes, key=self.score)
        del nodes
        loss = sum(self.seams) / len(self.seams) if self.seams else 0.0
        if self.score(top) + min(0.0, loss) <= self.score(better):
            return []
        spec.choose([top], "mixed")
        mixed = self.score(top)
        (healed,) = yield from walk([top], [draft], [0], (self.count, HEAL), ODE)
        self.spent += 1
        self.seams.append(self.score(healed) - mixed)
        self._keep(healed, "healed")
        return []

    def _finish_now_and_then(self) -> Moves:
        """Finish the best draft where that is little beside what was spent since the last time."""
        spec, best = self.spec, self.best
        if best is None or best.sigma == 0.0 or best.id in self.finished:
            return []
        cost = spec.finish_cost(best.sigma)
        if spec.finished_score(best) is not None or not SELDOM * cost <= self.spent:
            return []
        if spec.remaining() < cost:
            return []
        path, key = spec.path(best.sigma), (self.count, FINISH)
        (picture,) = yield from walk([best], path, [0], key, ODE)
        self.spent = 0
        self.finished[best.id] = self.score(picture)
        if self.score(picture) >= self.score(self.shown):
            self.shown = picture
        if self.score(self.shown) > self.score(best):
            self.best = self.shown
        return []


def _spread(first: float, last: float, number: int) -> list[float]:
    """Return evenly spaced numbers, both ends included; one number is the first."""
    gaps = max(1, number - 1)
    return [first + (last - first) * i / gaps for i in range(number)]
