"""What is the integral of a smooth function, to nearly all digits, without scipy?

Composite Gauss-Legendre with 16 nodes on panels at most one unit long.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

__all__ = ["gauss_legendre", "integrate_panels"]

NODES = 16


@lru_cache(maxsize=4)
def gauss_legendre(count: int) -> tuple[tuple[float, float], ...]:
    """Return the nodes and weights that integrate polynomials of degree 2 count - 1 on [-1, 1].

    The nodes are the roots of the Legendre polynomial, by Newton's method.

    Args:
        count: Number of nodes, at least 1.

    Returns:
        Pairs (node, weight) by falling node.
    """
    rule: list[tuple[float, float]] = []
    for i in range(count):
        x = math.cos(math.pi * (i + 0.75) / (count + 0.5))
        slope = 1.0
        for _ in range(100):
            below, value = 1.0, x
            for n in range(2, count + 1):
                below, value = value, ((2 * n - 1) * x * value - (n - 1) * below) / n
            slope = count * (x * value - below) / (x * x - 1.0)
            change = value / slope
            x -= change
            if abs(change) < 1e-15:
                break
        rule.append((x, 2.0 / ((1.0 - x * x) * slope * slope)))
    return tuple(rule)


def integrate_panels(f: Callable[[float], float], ends: Sequence[float]) -> float:
    """Integrate f from ends[0] to ends[-1]; f is smooth between neighbouring ends.

    Args:
        f: The integrand.
        ends: Rising numbers: the limits, and between them wherever f has a kink.

    Returns:
        The integral.
    """
    total = 0.0
    for low, high in pairwise(ends):
        panels = max(1, math.ceil(high - low))
        half = 0.5 * (high - low) / panels
        for p in range(panels):
            middle = low + (2 * p + 1) * half
            total += half * sum(w * f(middle + half * x) for x, w in gauss_legendre(NODES))
    return total
