"""Rollover Budget Forcing: draw until one is better, go on with it, carry over what is left.

A chain starts from the best of a pool. At each searched transition it draws up to its quota of
candidates, `width` at a time, and scores their predictions. It goes on with the first that passes
the accept test, and what is left of the quota rolls over to the next transition; if none passes, it
goes on with the best of this transition.

Source: Kim et al. 2025, arXiv:2503.19385, algorithm 2. reference() follows the published code,
which differs from the algorithm: a pool of 25, integer quotas over N transitions although N - 1 are
drawn, no step to sigma 0, the rest of the budget spent on the last drawn transition, one evaluation
left over. The threshold test is that of arXiv:2512.08985 with a constant threshold.

The defaults mend the published search's faults: a pool sized to the budget, quotas over the drawn
transitions, a scoring window below the sigmas where predictions say nothing, finishing that is paid
for. What was measured is in docs/SEARCH.md.
"""

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...stepping.transition import ODE, Transition, fixed_q
from ..protocol import Move, Node, Spec, Stop, Whole
from ..settings import ONE_PICTURE, Settings

__all__ = ["ACCEPT", "BASELINE", "EXHAUSTED", "RolloverBudgetForcing"]

ACCEPT = ("improve", "threshold", "never")
BASELINE = ("ever", "parent")
EXHAUSTED = ("advance", "restart")
_CLOSE = 1e-6  # a sigma of .8 from the host is .8 in float32


@dataclass(frozen=True)
class RolloverBudgetForcing(Settings):
    """Settings of RBF and threshold search.

    Attributes:
        width: Candidates drawn and scored together, at least 1.
        pool: Starts to choose from; 0 sizes the pool by pool_share.
        pool_share: Part of a pass's spare evaluations that goes into the pool, 0 to 1.
        draws: Quota of a searched transition; 0 shares the budget out.
        passes: Passes that share the budget when draws is 0, at least 1.
        q: Correlation of the noise that a draw keeps, 0 to 1; None: the connected sampler's.
        sigma_high: Draws start at or below this sigma.
        sigma_low: Draws start above this sigma.
        score_below: Predictions above this sigma are not scored, so nothing is drawn for them.
        accept: "improve": a draw above the baseline goes on at once; "threshold": one that reaches
            the threshold does; "never": each quota is used up.
        baseline: "ever": the best score of the chain in this pass; "parent": the node drawn from.
        threshold: Reward for accept = "threshold".
        rollover: Whether what is left of a quota goes to the next transition.
        exhausted: "advance" goes on with the transition's best; "restart" gives the pass up.
        finalists: Candidates of the last searched transition that are finished, at least 1.
        best_kept: Whether an earlier candidate with a higher score is finished too.
        safe_quotas: Share over the drawn transitions, never 0, finishing paid for; False: the
            published formula, the rest spent on the last drawn transition.
        finish_steps: ODE steps from a winner to 0; None follows the sigmas, 1 jumps to D.
        plain: Whether the run first takes the plain sample.
        target_stop: Whether a finished picture that reaches the target ends the run.

    Example:
        >>> RolloverBudgetForcing().searched([1.0, 0.8, 0.6, 0.3, 0.0])
        [1, 2]
    """

    name: ClassVar[str] = "rbf"

    width: int = 4
    pool: int = 0
    pool_share: float = 0.1
    draws: int = 0
    passes: int = 1
    q: float | None = 0.85
    sigma_high: float = 0.95
    sigma_low: float = 0.4
    score_below: float = 0.9
    accept: str = "improve"
    baseline: str = "ever"
    threshold: float = 0.0
    rollover: bool = True
    exhausted: str = "advance"
    finalists: int = 1
    best_kept: bool = True
    safe_quotas: bool = True
    finish_steps: int | None = None
    plain: bool = True
    target_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for key in ("width", "passes", "finalists"):
            self.require(getattr(self, key) >= 1, f"{key} must be at least 1")
        for key in ("pool", "draws"):
            self.require(getattr(self, key) >= 0, f"{key} must be at least 0")
        for key in ("pool_share", "sigma_high", "sigma_low", "score_below"):
            self.require(0.0 <= getattr(self, key) <= 1.0, f"{key} must be between 0 and 1")
        self.require(self.q is None or 0.0 <= self.q <= 1.0, "q must be between 0 and 1, or None")
        for key, known in (
            ("accept", ACCEPT),
            ("baseline", BASELINE),
            ("exhausted", EXHAUSTED),
        ):
            self.require(getattr(self, key) in known, f"{key} must be one of {', '.join(known)}")
        steps = self.finish_steps
        self.require(steps is None or steps >= 1, "finish_steps must be at least 1, or None")
        self.require(self.sigma_low < self.sigma_high, "sigma_low must be below sigma_high")
        self.require(math.isfinite(self.threshold), "threshold must be a finite number")
        self.require(self.safe_quotas or self.pool > 0, "the published quotas need a pool")

    @classmethod
    def reference(cls, finish_steps: int | None = 1) -> "RolloverBudgetForcing":
        """Return the settings that follow the published code.

        Meant for 2 chains, 500 evaluations, the rbf_reference sigmas, and Euler-Maruyama with the
        rbf_reference law on the VP interpolant.

        Args:
            finish_steps: 1 outputs the prediction, as the code does; more finish by the ODE.

        Returns:
            The settings.
        """
        return cls(
            width=1,
            pool=25,
            draws=0,
            q=None,
            sigma_high=1.0,
            sigma_low=0.0,
            score_below=1.0,
            best_kept=False,
            safe_quotas=False,
            finish_steps=finish_steps,
            plain=False,
            target_stop=False,
        )

    # ---- which transitions are searched ----

    def draw(self, transition: Transition | Whole) -> Transition:
        """Return how candidates are drawn."""
        if isinstance(transition, Whole):
            raise ValueError(
                f"rbf decides at every step, and {transition.name} can only be run whole; connect "
                "a Stochastic Flow Sampler, or use best_of_n"
            )
        return transition if self.q is None else fixed_q(self.q)

    def is_searched(self, sigmas: Sequence[float], index: int) -> bool:
        """Return whether the transition from sigmas[index] is drawn several times."""
        sigma_from, to = sigmas[index], sigmas[index + 1]
        high, below = self.sigma_high + _CLOSE, self.score_below + _CLOSE
        return self.sigma_low + _CLOSE < sigma_from <= high and 0.0 < to <= below

    def searched(self, sigmas: Sequence[float]) -> list[int]:
        """Return the searched transitions' indices."""
        return [i for i in range(len(sigmas) - 1) if self.is_searched(sigmas, i)]

    def level(self, sigmas: Sequence[float]) -> int:
        """Return the index of the sigma at which a pool is compared."""
        first = self.searched(sigmas)[0]
        return first if sigmas[first] <= self.score_below else first + 1

    def check(self, sigmas: Sequence[float], transition: Transition | Whole) -> None:
        """Refuse what cannot help.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's.

        Raises:
            ValueError: With the reason and the remedy.
        """
        draw, searched = self.draw(transition), self.searched(sigmas)
        self.require(
            bool(searched),
            f"no transition of the sigmas {[round(s, 3) for s in sigmas]} starts in "
            f"({self.sigma_low}, {self.sigma_high}] and ends at or below score_below = "
            f"{self.score_below}, so nothing would be searched; use more steps or a wider window",
        )
        for i in searched:
            q = draw.coefficients(sigmas[i], sigmas[i + 1]).q
            where = f"from sigma {sigmas[i]:.4g} to {sigmas[i + 1]:.4g}"
            self.require(
                q != 1.0 or self.draws == 1,
                ONE_PICTURE.format(where=where),
            )
            self.require(
                q != 0.0,
                f"the transition {where} keeps nothing of its noise (q = 0), so a pool or a choice "
                "in front of it is lost; lower sigma_high, or choose a q above 0",
            )

    # ---- the search ----

    def search(self, spec: Spec) -> Generator[list[Move], list[Node], list[Node]]:
        """Search one pass of one chain; return the handles to finish, best first."""
        run = _Pass(self, spec)
        try:
            yield from run.open()
            while (node := run.node) is not None and not run.over:
                if self.is_searched(spec.sigmas, run.index):
                    yield from run.draw_many(node)
                else:
                    yield from run.draw_once(node)
                run.over = run.over or run.index == run.end
        except Stop:
            pass
        return run.winners()


class _Pass:
    """The state of one pass: the chain's node, what rolled over, the best ever."""

    def __init__(self, settings: RolloverBudgetForcing, spec: Spec) -> None:
        self.settings = settings
        self.spec = spec
        self.searched = settings.searched(spec.sigmas)
        self.end = self.searched[-1] + 1
        self.transition = settings.draw(spec.transition)
        self.node: Node | None = None
        self.index = 0
        self.carry = 0
        self.quota = 0
        self.ever = -math.inf
        self.step_best: list[Node] = []
        self.best: Node | None = None
        self.allowance = self._allowance()
        self.over = False

    def _allowance(self) -> int:
        """Return the evaluations of this pass: its part of the rest, at least one picture's."""
        share, left = self.spec.remaining(), self.settings.passes - self.spec.pass_
        return max(share // left, min(share, self._way(0, 1))) if left > 1 else share

    def _way(self, index: int, price: int) -> int:
        """Return the evaluations of one candidate: its start at index, the steps, the finishing."""
        steps = self.settings.finish_steps
        finish = len(self.spec.sigmas) - 2 - self.end if steps is None else steps - 1
        return price + self.end - index + finish

    # ---- start ----

    def open(self) -> Generator[list[Move], list[Node], None]:
        """Bring a pool to the first searched sigma and take the best of it."""
        settings = self.settings
        self.index = settings.level(self.spec.sigmas)
        price = self.index + 1
        spare = self.allowance - self._way(self.index, price)
        count = self._pool_size(spare, price)
        if settings.safe_quotas:
            count = max(1, min(count, 1 + spare // price))
            if spare < 0:
                self._continue_plain(spare + self.searched[0] + 1)
                return
            spare -= (count - 1) * price
            if count == 1:
                self.index = self.searched[0]
        yield from self._pool(count)
        self._share_out(spare, count)

    def _continue_plain(self, spare: int) -> None:
        """Where the budget has no room for another start, branch from the plain sample."""
        plain, self.index = self.spec.plain(), self.searched[0]
        if spare >= 0 and plain and not isinstance(self.spec.transition, Whole):
            self._go_on(plain[self.index], "plain")
            self._share_out(spare, 0)

    def _pool_size(self, spare: int, price: int) -> int:
        settings = self.settings
        if settings.pool:
            return settings.pool
        if settings.draws:
            spare = min(spare, settings.draws * len(self.searched))
        return 1 + max(0, int(settings.pool_share * spare / price))

    def _share_out(self, spare: int, count: int) -> None:
        """Set the quota of a searched transition, and what is left of the division."""
        settings = self.settings
        open_ = sum(i >= self.index for i in self.searched)
        if settings.draws:
            self.quota = settings.draws
        elif settings.safe_quotas:
            self.quota, self.carry = 1 + spare // open_, spare % open_
        else:
            self.quota = (self.allowance - count) // (len(self.spec.sigmas) - 1)
            settings.require(
                self.quota > 0,
                f"the published quota is int(({self.allowance} - {count}) / steps) = 0 draws a "
                f"step; raise the budget to {len(self.spec.sigmas) - 1 + count} evaluations for "
                "each chain, lower the pool, or use rbf (RBF Search: adaptive), which fits any",
            )

    def _pool(self, count: int) -> Generator[list[Move], list[Node], None]:
        """Draw the pool, `width` at a time, and keep the best."""
        width = self.settings.width
        kept: Node | None = None
        for begin in range(0, count, width):
            nodes = yield from self._starts(range(begin, min(count, begin + width)))
            kept = _first_best([*([kept] if kept else []), *nodes])
            del nodes
        self._go_on(kept, "pool")

    def _starts(self, rows: range) -> Generator[list[Move], list[Node], list[Node]]:
        sigmas, below = self.spec.sigmas, self.settings.score_below
        nodes = yield [Move(None, sigmas[0], (0, row), None, sigmas[0] <= below) for row in rows]
        for step in range(self.index):
            to = sigmas[step + 1]
            nodes = yield [
                Move(node, to, (step + 1, 0, row), ODE, to <= below)
                for node, row in zip(nodes, rows, strict=True)
            ]
        return nodes

    # ---- steps ----

    def draw_once(self, parent: Node) -> Generator[list[Move], list[Node], None]:
        """Take one ODE step at a transition that is not searched."""
        to = self.spec.sigmas[self.index + 1]
        score = to <= self.settings.score_below
        (self.node,) = yield [Move(parent, to, (self.index + 1, 1), ODE, score)]
        self.index += 1

    def draw_many(self, parent: Node) -> Generator[list[Move], list[Node], None]:
        """Draw up to the quota; go on with the first that passes, or with the best."""
        settings, spec = self.settings, self.spec
        last = self.index == self.searched[-1]
        to_the_end = last and not settings.safe_quotas
        quota, used, accepted = self.quota + self.carry, 0, False
        self.step_best = []
        while (used < quota or to_the_end) and not accepted:
            width = settings.width if to_the_end else min(settings.width, quota - used)
            if not settings.safe_quotas:
                width = min(width, spec.remaining() - 1)
                if width < 1:
                    self.over = True
                    return
            to, key = spec.sigmas[self.index + 1], self.index + 1
            nodes = yield [
                Move(parent, to, (key, 2, used + row), self.transition) for row in range(width)
            ]
            used += width
            top = _first_best(nodes)
            self._keep(nodes)
            del nodes
            accepted = self._accepts(top, parent) and not to_the_end
            self.ever = max(self.ever, _score(top))
        self.carry = quota - used if accepted and settings.rollover else 0
        if not accepted and settings.exhausted == "restart" and settings.accept != "never":
            self.node, self.best, self.step_best = None, None, []
            return
        self._advance(accepted, last)

    def _accepts(self, top: Node, parent: Node) -> bool:
        settings = self.settings
        if settings.accept == "threshold":
            return _score(top) >= settings.threshold
        if settings.accept == "never":
            return False
        baseline = self.ever if settings.baseline == "ever" else _score(parent)
        return _score(top) > baseline

    def _keep(self, nodes: Sequence[Node]) -> None:
        """Keep the transition's best, and the best of the pass; the first of equals."""
        ranked = sorted([*self.step_best, *nodes], key=lambda node: -_score(node))
        self.step_best = ranked[: self.settings.finalists]
        if self.settings.best_kept and (
            self.best is None or _score(ranked[0]) >= _score(self.best)
        ):
            self.best = ranked[0]

    def _advance(self, accepted: bool, last: bool) -> None:
        node = self.step_best[0]
        if not last:
            self.step_best = []
        self._go_on(node, "accepted" if accepted else "exhausted")
        self.index += 1

    def _go_on(self, node: Node | None, why: str) -> None:
        self.node = node
        if node is not None:
            self.ever = max(self.ever, _score(node))
            self.spec.choose([node], why)

    # ---- end ----

    def winners(self) -> list[Node]:
        """Return the handles to finish: the last transition's best, the chain, the best ever."""
        found = [*self.step_best]
        if not found and self.node is not None:
            found = [self.node]
        if self.best is not None and (not found or _score(self.best) > _score(found[0])):
            found.append(self.best)
        unique = {node.id: node for node in found}
        return [*unique.values()]


def _score(node: Node) -> float:
    return -math.inf if node.score is None else node.score


def _first_best(nodes: Sequence[Node]) -> Node:
    return max(nodes, key=_score)
