"""Where in a longer text does a text come nearest, and how far is it from there?

Levenshtein's distance: the least number of insertions, deletions and substitutions of single
characters that turn one string into the other (Levenshtein 1966, Soviet Physics Doklady 10(8)).
The nearest substring is found in the same table with a free start and a free end (Sellers 1980,
J. Algorithms 1(4)).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Found", "match", "nearest"]


@dataclass(frozen=True)
class Found:
    """A wanted string's place in a text.

    Attributes:
        distance: Edit distance of the wanted string from text[start:end].
        start: First character.
        end: One after the last.
    """

    distance: int
    start: int
    end: int


def nearest(wanted: str, text: str) -> Found:
    """Find the substring that comes nearest.

    Args:
        wanted: What is looked for.
        text: Where.

    Returns:
        A substring of least distance; of several the longest, then the first.
    """
    # a cell is distance * unit + start, so that the smaller one is nearer, then longer
    codes, unit = _codes(text), len(text) + 1
    steps = np.arange(len(text) + 1, dtype=np.int64) * unit
    above = np.arange(len(text) + 1, dtype=np.int64)
    for i, x in enumerate(_codes(wanted), start=1):
        row = above + unit
        row[0] = i * unit
        np.minimum(row[1:], above[:-1] + (codes != x) * unit, out=row[1:])
        # what comes from the left costs a unit a step: a running minimum once that is taken off
        above = np.minimum.accumulate(row - steps) + steps
    distance, start = above // unit, above % unit
    least = np.flatnonzero(distance == distance.min())
    end = int(least[np.argmin(start[least] - least)])
    return Found(int(distance[end]), int(start[end]), end)


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def match(
    wanted: Sequence[str], text: str, checkpoint: Callable[[], object] = lambda: None
) -> tuple[list[int], int]:
    """Give each wanted string a place of its own in a text.

    Greedy: the string with the least distance for its length takes its place first, and what it
    took is gone for the others. Exact for one string; for several it may miss the best sharing.

    Args:
        wanted: Strings, none of them empty.
        text: Where they should be, in any order.
        checkpoint: Called many times a second; it may raise, which ends it.

    Returns:
        Their distances, in the order of `wanted`, and how many characters of the text are left.
    """
    rest = [text]
    distances = [len(string) for string in wanted]
    open_ = list(range(len(wanted)))
    known: dict[tuple[str, str], Found] = {}

    def found(string: str, part: str) -> Found:
        if (string, part) not in known:
            checkpoint()
            known[string, part] = nearest(string, part)
        return known[string, part]

    while open_:
        places = [(found(wanted[i], part), i, p) for i in open_ for p, part in enumerate(rest)]
        best, i, p = min(
            places, key=lambda place: (place[0].distance / len(wanted[place[1]]), place[1:])
        )
        distances[i] = best.distance
        if best.distance < len(wanted[i]):  # else nothing of it is there, and it takes nothing
            rest[p : p + 1] = [rest[p][: best.start], rest[p][best.end :]]
        open_.remove(i)
    return distances, sum(map(len, rest))
