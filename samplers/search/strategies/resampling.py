"""Which particles go on? Resampling schemes: (weights, count, random) -> indices of ancestors.

Every scheme is unbiased: the expected number of copies of particle i is count W_i, with W the
normalised weights, whatever the number of particles. They differ in the variance of that number.
Particles of weight zero are never chosen, also where rounding leaves the running sum below 1.

Source: Douc, Cappe and Moulines 2005, arXiv:cs/0507025, which names and compares the four.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random

__all__ = ["SCHEMES", "multinomial", "residual", "stratified", "systematic"]

Scheme = Callable[[Sequence[float], int, Random], list[int]]


def multinomial(weights: Sequence[float], count: int, random: Random) -> list[int]:
    """Draw each ancestor independently.

    Args:
        weights: Weights, not necessarily normalised, at least 0 and not all 0.
        count: Ancestors to draw, at least 0; any number, not only that of the weights.
        random: Source of uniform numbers.

    Returns:
        Indices of the ancestors, rising.

    Raises:
        ValueError: A weight that is negative or not finite, or nothing but zeros.
    """
    return _at(weights, count, lambda _: random.random() * count)


def stratified(weights: Sequence[float], count: int, random: Random) -> list[int]:
    """Draw one ancestor in each of `count` equal parts of the total weight, independently.

    Args:
        weights: See multinomial().
        count: See multinomial().
        random: See multinomial().

    Returns:
        Indices of the ancestors, rising.

    Raises:
        ValueError: See multinomial().
    """
    return _at(weights, count, lambda part: part + random.random())


def systematic(weights: Sequence[float], count: int, random: Random) -> list[int]:
    """Draw the ancestors with one random number: equally spaced points of the total weight.

    The number of copies is count W_i rounded down or up.

    Args:
        weights: See multinomial().
        count: See multinomial().
        random: See multinomial().

    Returns:
        Indices of the ancestors, rising.

    Raises:
        ValueError: See multinomial().
    """
    shift = random.random()
    return _at(weights, count, lambda part: part + shift)


def residual(weights: Sequence[float], count: int, random: Random) -> list[int]:
    """Take the whole part of count W_i as copies, and draw the others by what is left of them.

    Args:
        weights: See multinomial().
        count: See multinomial().
        random: See multinomial().

    Returns:
        Indices of the ancestors, rising.

    Raises:
        ValueError: See multinomial().
    """
    total = _running(weights)[-1]
    expected = [count * (weight / total) for weight in weights]
    copies = [math.floor(number) for number in expected]
    remaining = count - sum(copies)
    if remaining:
        left = [number - whole for number, whole in zip(expected, copies, strict=True)]
        for index in multinomial(left, remaining, random):
            copies[index] += 1
    return [index for index, number in enumerate(copies) for _ in range(number)]


SCHEMES: dict[str, Scheme] = {
    "systematic": systematic,
    "stratified": stratified,
    "residual": residual,
    "multinomial": multinomial,
}


def _at(weights: Sequence[float], count: int, place: Callable[[int], float]) -> list[int]:
    """Return whose part of the total weight each place lies in; places run from 0 to count.

    bisect_right finds the first running sum above a place, and a particle of weight 0 adds nothing
    to the sum, so it is passed over; a place that rounding puts at the end is the last one's that
    has weight.
    """
    running = _running(weights)
    last = bisect_right(running, math.nextafter(running[-1], 0.0))
    places = sorted(place(part) for part in range(count))
    return [min(bisect_right(running, p / count * running[-1]), last) for p in places]


def _running(weights: Sequence[float]) -> list[float]:
    """Return the running sums, having checked the weights."""
    running = [*accumulate(weights)]
    bad = any(not (math.isfinite(weight) and weight >= 0.0) for weight in weights)
    if bad or not running or not 0.0 < running[-1] < math.inf:
        raise ValueError(
            f"weights must be finite, at least 0 and not all 0, got {[*weights]}; compute them "
            "from log weights less their maximum"
        )
    return running
