"""How do candidates come down together? What searches that decide on the way down share.

walk() takes candidates along a path of sigmas. Stepwise holds the settings that say by which
transition they are drawn, and where their predictions mean something.
"""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass

from ...stepping.transition import ODE, Transition, fixed_q
from ..protocol import Move, Node, Spec, Whole
from ..settings import ONE_PICTURE, Settings

__all__ = ["CLOSE", "Moves", "Stepwise", "affordable", "best_of", "price", "score_of", "walk"]

CLOSE = 1e-6  # a sigma of .8 from the host is .8 in float32

Moves = Generator[list[Move], list[Node], list[Node]]


def walk(
    parents: list[Node | None],
    path: Sequence[float],
    rows: Sequence[int],
    key: tuple[int, ...],
    transition: Transition | Whole | None = None,
    score: bool = True,
    weights: list[float] | None = None,
) -> Moves:
    """Take candidates side by side along a path, one from each parent.

    Args:
        parents: Where each comes from, None for a start at the path's first sigma. The list is
            emptied, so that the tensors of what is left behind can go.
        path: Sigmas to visit.
        rows: Each candidate's own number.
        key: What makes the noise of this walk its own.
        transition: How; None is the connected sampler's.
        score: Whether to score the candidates at the end of the path.
        weights: One number a candidate, to which the log weights of its draws are added.

    Returns:
        The candidates at the path's last sigma.
    """
    nodes: list[Node] = []
    for step, to in enumerate(path):
        scored = score and step == len(path) - 1
        moves = [
            Move(node, to, (*key, row, step), transition if node is not None else None, scored)
            for node, row in zip(nodes or parents, rows, strict=True)
        ]
        parents.clear()
        nodes = []
        nodes = yield moves
        del moves
        if weights is not None:
            weights[:] = [w + node.log_weight for w, node in zip(weights, nodes, strict=True)]
    return nodes


def price(spec: Spec, path: Sequence[float], transition: Transition | None = None) -> int:
    """Return the evaluations that one candidate takes along a path, its start not counted.

    Args:
        spec: The run.
        path: Sigmas to visit.
        transition: How; None is the connected sampler's.

    Returns:
        The evaluations.
    """
    anywhere = Node(-1, spec.item, 1.0, None, None)
    return spec.cost([Move(anywhere, to, (), transition) for to in path])


def affordable(
    spec: Spec,
    path: Sequence[float],
    most: int,
    transition: Transition | None = None,
    scored: Collection[float] = (),
) -> int:
    """Return how many candidates can be taken side by side along a path, and one of them finished.

    Args:
        spec: The run.
        path: Sigmas to visit, each at the price of a step; the first one of a start or of a step
            up, which is one evaluation.
        most: How many are wanted.
        transition: How; None is the connected sampler's.
        scored: Sigmas of the path, above 0, at which they are scored: the run keeps what finishes
            the best of the last one.

    Returns:
        The number, at least 0.
    """
    left, spent, count, kept = spec.remaining(), 0, most, 0
    for step, to in enumerate(path):
        spent += price(spec, [to], transition) if step else int(to > 0.0)
        finish = spec.finish_cost(to)
        kept = finish if to in scored else kept
        count = min(count, (left - max(finish, kept)) // max(1, spent))
    return max(0, count)


def score_of(node: Node) -> float:
    """Return a node's score; minus infinity if it has none."""
    return float("-inf") if node.score is None else node.score


def best_of(nodes: Sequence[Node], count: int) -> list[Node]:
    """Return the best few nodes, best first; of equals the earlier ones."""
    return sorted(nodes, key=lambda node: -score_of(node))[:count]


@dataclass(frozen=True)
class Stepwise(Settings):
    """Base of searches that decide on the way down.

    Attributes:
        q: Correlation of the noise that a draw keeps, 0 to 1; None: the connected sampler's.
        sigma_low: Draws start above this sigma.
        score_below: Predictions above this sigma are not scored, so nothing is decided by them.
        finish_steps: ODE steps from a winner to 0; None follows the sigmas, 1 jumps to D.
        plain: Whether the run first takes the plain sample.
        target_stop: Whether a finished picture that reaches the target ends the run.
    """

    q: float | None = 0.85
    sigma_low: float = 0.4
    score_below: float = 0.9
    finish_steps: int | None = None
    plain: bool = True
    target_stop: bool = True

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for key in ("sigma_low", "score_below"):
            self.require(0.0 <= getattr(self, key) <= 1.0, f"{key} must be between 0 and 1")
        self.require(self.sigma_low < self.score_below, "sigma_low must be below score_below")
        self.require(self.q is None or 0.0 <= self.q <= 1.0, "q must be between 0 and 1, or None")
        steps = self.finish_steps
        self.require(steps is None or steps >= 1, "finish_steps must be at least 1, or None")

    def draw(self, transition: Transition | Whole) -> Transition:
        """Return how candidates are drawn where several are compared.

        Args:
            transition: The connected sampler's.

        Returns:
            The transition.

        Raises:
            ValueError: A sampler that can only be run whole.
        """
        if isinstance(transition, Whole):
            raise ValueError(
                f"{self.name} decides between steps, and {transition.name} can only be run whole; "
                "connect a Stochastic Flow Sampler, or use best_of_n"
            )
        return transition if self.q is None else fixed_q(self.q)

    def way(self, transition: Transition | Whole) -> Transition:
        """Return how candidates come down where nothing is compared."""
        return self.draw(transition) if self.q is None else ODE

    def is_noisy(self, sigmas: Sequence[float], transition: Transition, index: int) -> bool:
        """Return whether two draws of the transition from sigmas[index] differ."""
        sigma_from, to = sigmas[index], sigmas[index + 1]
        return to > 0.0 and transition.coefficients(sigma_from, to).q != 1.0

    def forgets(self, sigmas: Sequence[float], transition: Transition, index: int) -> bool:
        """Return whether a choice at sigmas[index] is lost by the transition from there.

        At sigma 1 every prediction is the same mean, so only the noise can tell candidates apart.
        """
        sigma_from, to = sigmas[index], sigmas[index + 1]
        return (
            sigma_from >= 1.0 - CLOSE
            and to > 0.0
            and transition.coefficients(sigma_from, to).q == 0.0
        )

    def refuse_odes(self, holds: bool) -> None:
        """Raise unless there is noise to choose from."""
        self.require(holds, ONE_PICTURE.format(where="where this search compares draws,"))
