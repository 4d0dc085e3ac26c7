"""What does a strategy see of its run? Its chain, prices, what remains and what is finished."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from ...stepping.transition import Transition
from ..account.events import Chosen, Event
from ..protocol import Move, Node, Whole
from .baseline import Baseline
from .plan import Plan
from .spending import Spending
from .winner import Gallery

__all__ = ["ChainSpec", "Shared"]


@dataclass(frozen=True, eq=False)
class Shared:
    """What the chains of an item share with it and with each other.

    Attributes:
        item: Batch item.
        plan: The run's settings.
        spending: What may still be spent.
        gallery: What is finished.
        baseline: The plain samples.
        outbox: Events since the last boundary.
    """

    item: int
    plan: Plan
    spending: Spending
    gallery: Gallery
    baseline: Baseline
    outbox: list[Event] = field(default_factory=list[Event])


class ChainSpec:
    """The Spec of one chain.

    Attributes:
        item: Batch item.
        chain: Number of the chain within its item.
        chains: Number of chains.
        sigmas: The run's sigmas.
        pass_: Passes completed.
        share: What remaining() answers; frozen at the end of each round.
        has_asked: Whether the strategy has asked for anything in this pass.
    """

    def __init__(self, shared: Shared, chain: int) -> None:
        """Begin the first pass.

        Args:
            shared: What it shares with its item.
            chain: Its number.
        """
        self.item = shared.item
        self.chain = chain
        self.chains = shared.plan.settings.chains
        self.sigmas = shared.plan.settings.sigmas
        self.pass_ = 0
        self.share = 0
        self.has_asked = False
        self._shared = shared
        self._plan = shared.plan

    @property
    def transition(self) -> Transition | Whole:
        """The connected sampler's transition."""
        return self._plan.settings.transition

    @property
    def sample_cost(self) -> int:
        """Evaluations of one ordinary sample."""
        return self._shared.spending.sample_cost

    def remaining(self) -> int:
        """Return the chain's share, as frozen at the end of the last round."""
        return self.share

    def cost(self, moves: Sequence[Move]) -> int:
        """Return the evaluations of a request."""
        return sum(map(self._shared.spending.move_cost, moves))

    def path(self, sigma: float) -> tuple[float, ...]:
        """Return the sigmas that finish a node at sigma."""
        return self._plan.finish_path(sigma)

    def finish_cost(self, sigma: float) -> int:
        """Return the evaluations that finish a handle."""
        return self._plan.finish_cost(sigma)

    def finished_score(self, node: Node) -> float | None:
        """Return what finishing a node brought."""
        return self._shared.gallery.by_handle.get(node.id)

    def random(self, *key: int) -> Random:
        """Return the generator of this key."""
        return self._plan.random(self.item, self.chain, self.pass_, *key)

    def plain(self) -> list[Node]:
        """Return the plain sample's nodes before the first request."""
        first = self.pass_ == 0 and not self.has_asked
        return [*self._shared.baseline.nodes] if first else []

    def best(self) -> Node | None:
        """Return the item's best finished node."""
        return self._shared.gallery.best_node

    @property
    def plain_scores(self) -> tuple[float, ...]:
        """The finished rewards of the item's plain samples."""
        return tuple(self._shared.baseline.scores)

    def choose(
        self, nodes: Sequence[Node], why: str, weights: Sequence[float] | None = None
    ) -> None:
        """Report a decision."""
        ids = tuple(node.id for node in nodes)
        event = Chosen(self.item, self.chain, ids, why, tuple(weights) if weights else None)
        self._shared.outbox.append(event)
