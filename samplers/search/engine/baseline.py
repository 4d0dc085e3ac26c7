"""What does the model do without a search? The plain sample, and more of them for a target.

The plain sample of the seed comes first and is the picture that the sampler makes by itself, guided
by no gradient. Where the budget holds less than one, its sigmas are thinned to what fits: one
evaluation is one prediction at the first sigma. A target "top p percent" is measured on plain
samples of other starts (calibration.py); they are ordinary finished pictures, and may win.

A generator here yields one request at a time and is sent its nodes.
"""

import math
from collections.abc import Callable, Generator

from ..protocol import Move, Node, Request, Whole
from .calibration import LEAST, SAMPLES, top_target
from .ledger import Budget, Ledger
from .plan import Plan

__all__ = ["Baseline"]

_HEAD = (-1, 0, 3)  # chain, pass and phase of the keys of further plain samples
_WIDTH = 4  # of them side by side


class Baseline:
    """The plain samples of one item.

    Attributes:
        nodes: The plain sample's nodes, until a strategy has asked for something; empty if thinned.
        scores: Finished rewards of plain samples on the run's own sigmas, the seed's first.
        target: The reward that the budget's `top` stands for; None while nothing is known.
        notes: Topic -> sentence for the report.
    """

    def __init__(self, plan: Plan) -> None:
        """Know nothing yet.

        Args:
            plan: The run's settings.
        """
        self.nodes: list[Node] = []
        self.scores: list[float] = []
        self.target: float | None = None
        self.notes: dict[str, str] = {}
        self._plan = plan
        self._taken = 0  # evaluations of a thinned plain sample; 0: none, or it is whole
        self._calibrated = 0

    def falls_short(self, left: int) -> bool:
        """Return whether the plain sample was thinned, and a budget allows a better one."""
        return 0 < self._taken < left

    def sample(
        self, left: Callable[[], int], price: int, scores_left: Callable[[int], int]
    ) -> Generator[Request, list[Node], None]:
        """Take the plain sample of the seed to sigma 0 with the connected sampler.

        Args:
            left: The item's evaluations, now.
            price: Evaluations that it takes in full.
            scores_left: How many of so many pictures may still be scored, now.
        """
        self.nodes.clear()
        before = left()
        if isinstance(self._plan.plain, Whole):
            whole = self._plan.whole(self._plan.plain, before)
            thinned = bool(whole.sigmas)
            moves = [Move(None, 0.0, (), whole)]
            self.nodes = yield Request(-1, 0, "plain", moves, [()])
        else:
            thinned = yield from self._steps(left, scores_left)
        self._taken = max(1, before - left()) if thinned else 0
        if thinned:
            self.nodes.clear()
            self.notes["plain"] = (
                f"the budget is less than one plain sample, which takes {price} evaluations: its "
                f"steps were thinned to {self._taken}"
            )
        else:
            self.notes.pop("plain", None)
            self.scores = [score for n in self.nodes[-1:] if (score := n.score) is not None]

    def _steps(
        self, left: Callable[[], int], scores_left: Callable[[int], int]
    ) -> Generator[Request, list[Node], bool]:
        """Step down the sigmas, or down fewer of them; return whether they were thinned."""
        plan, below = self._plan, self._plan.settings.strategy.score_below
        path, how, step = plan.settings.sigmas, None, -1
        ahead, thinned = plan.plain_cost, False
        node: Node | None = None
        while path:
            if node is not None and ahead > left():
                path, how = plan.way((node.sigma, *path), left())
                ahead, thinned = left(), True
            to, key = path[0], (step,) if step >= 0 else ()
            # of few reward calls the finished picture has the last one
            score = to == 0.0 or (to <= below and scores_left(2) == 2)
            moves = [Move(node, to, key, how, score=score)]
            ahead -= sum(map(plan.price, moves))
            (node,) = yield Request(-1, 0, "plain", moves, [key])
            self.nodes.append(node)
            path, step = path[1:], step + 1
            how = how or plan.plain
        return thinned

    def calibrate(
        self, budget: Budget, ledger: Ledger, kept: int, price: int
    ) -> Generator[Request, list[Node], None]:
        """Take further plain samples until the target is known, from at most half of the budget.

        Args:
            budget: The budget in force.
            ledger: What was spent.
            kept: Evaluations that are promised to chains.
            price: Evaluations of a plain sample.
        """
        count = self._affordable(budget, ledger, kept, price)
        highest = budget.highest
        try:
            while count >= LEAST and len(self.scores) < count:
                if highest is not None and max(self.scores, default=-math.inf) >= highest:
                    break
                width = min(_WIDTH, count - len(self.scores))
                rows = range(self._calibrated, self._calibrated + width)
                self._calibrated += width
                self.scores += yield from self._side_by_side(rows)
        finally:
            self._conclude(budget)

    def _affordable(self, budget: Budget, ledger: Ledger, kept: int, price: int) -> int:
        """Return how many plain samples half of what there is would pay for, at most SAMPLES."""
        have, price = len(self.scores), max(1, price)
        count = (budget.left(ledger) - kept + have * price) // (2 * price)
        if budget.reward_calls is not None:
            count = min(count, (budget.reward_calls - ledger.reward_calls + have) // 2)
        return max(0, min(SAMPLES, count))

    def _side_by_side(self, rows: range) -> Generator[Request, list[Node], list[float]]:
        """Take whole samples of other starts; return their rewards."""
        plan = self._plan
        if isinstance(plan.plain, Whole):
            path, how = (0.0,), plan.plain
        else:
            path, how = plan.settings.sigmas, None
        nodes: list[Node] = []
        for step, to in enumerate(path):
            keys = [(*_HEAD, row, step) for row in rows]
            moves = [
                Move(node, to, key, how, score=to == 0.0)
                for node, key in zip(nodes or [None] * len(rows), keys, strict=True)
            ]
            nodes = yield Request(-1, 0, "calibrate", moves, keys)
            how = plan.plain
        return [node.score for node in nodes if node.score is not None]

    def _conclude(self, budget: Budget) -> None:
        """Turn the rewards into the target, and say how."""
        if budget.top is None:
            return
        n = len(self.scores)
        self.target = top_target(self.scores, budget.top, budget.highest)
        if n < LEAST:
            why = "the budget holds too few plain samples to measure it"
        elif self.target is None or min(self.scores) == max(self.scores):
            why = f"the rewards of {n} plain samples are all the same"
        else:
            few = "" if n >= SAMPLES else f", as many as half of the budget holds of {SAMPLES}"
            self.notes["target"] = (
                f"top {budget.top:g} % is a reward of {self.target:.4g}, measured on {n} plain "
                f"samples{few}"
            )
            return
        goal = "never" if self.target is None else f"the highest reward, {self.target:g}"
        self.notes["target"] = f"top {budget.top:g} % is not known, because {why}; target: {goal}"
