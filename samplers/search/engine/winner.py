"""What came out of a search? The finished pictures of an item, each of them once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ..account.lineage import Lineage
from ..protocol import Node, Scores, State

__all__ = ["NEARLY", "Gallery", "Winner", "alike"]

NEARLY = 0.05


@dataclass(frozen=True, eq=False)
class Winner:
    """A finished picture.

    Attributes:
        node: Its handle.
        scores: Its rewards, as it will be seen.
        state: Its tensors at sigma 0; x has one row.
        lineage: Where it came from.
    """

    node: Node
    scores: Scores
    state: State
    lineage: Lineage = field(default_factory=Lineage)


def alike(a: Tensor, b: Tensor) -> bool:
    """Return whether two latents are nearly the same picture, whatever their scale.

        rms(a - b) <= NEARLY sqrt((var a + var b) / 2)

    Independent pictures are at 1.4; two drawings of one that a person cannot tell apart far below.

    Args:
        a: Finished latents, one row.
        b: Others, the same shape.

    Returns:
        Whether they count once.
    """
    a, b = a.double(), b.double()
    spread = (a.var(correction=0) + b.var(correction=0)) / 2.0
    return bool((a - b).square().mean() <= NEARLY**2 * spread)


class Gallery:
    """The finished pictures of one item.

    Attributes:
        winners: The best of them, best first, at most top_k, no two nearly the same.
        plain: The plain sample's.
        best_node: The best finished node so far, of equals the newest, so that a search that goes
            on from it wanders over a plateau. (The first of equals is what comes out.)
        by_handle: id of a handle to the reward of the picture that came of finishing it.
    """

    def __init__(self, top_k: int) -> None:
        """Begin empty.

        Args:
            top_k: Winners to keep.
        """
        self.winners: list[Winner] = []
        self.plain: Winner | None = None
        self.best_node: Node | None = None
        self.by_handle: dict[int, float] = {}
        self._top_k = top_k

    def like(self, winner: Winner) -> tuple[int, ...]:
        """Return the ids of the winners that are nearly the same picture; one needs no others."""
        if self._top_k == 1:
            return ()
        state = winner.state["x"]
        return tuple(one.node.id for one in self.winners if alike(one.state["x"], state))

    def enter(self, winner: Winner, like: Sequence[int], handle: int | None, plain: bool) -> bool:
        """Enter a finished picture.

        Args:
            winner: The picture.
            like: ids of the winners that are nearly the same one.
            handle: id of the handle that was finished, None if none was.
            plain: Whether it is the plain sample's.

        Returns:
            Whether it is the best so far.
        """
        value = winner.scores.value
        if not self.winners or value >= self.winners[0].scores.value:
            self.best_node = winner.node
        if plain:
            self.plain = winner
        if handle is not None:
            self.by_handle[handle] = value
        same = [one for one in self.winners if one.node.id in like]
        if all(value > one.scores.value for one in same):
            ranked = [*(one for one in self.winners if one not in same), winner]
            ranked.sort(key=lambda one: (-one.scores.value, one.node.id))
            self.winners = ranked[: self._top_k]
        return self.winners[0] is winner
