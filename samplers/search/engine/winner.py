"""What came out of a search: a finished picture, and which two of them are nearly the same."""

from dataclasses import dataclass, field

from torch import Tensor

from ..account.lineage import Lineage
from ..protocol import Node, Scores, State

__all__ = ["NEARLY", "Winner", "alike"]

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
