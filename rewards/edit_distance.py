"""Where in a longer text does a text come nearest, and how far is it from there?

Levenshtein's distance: the least number of insertions, deletions and substitutions of single
characters that turn one string into the other (Levenshtein 1966, Soviet Physics Doklady 10(8)).
The nearest substring is found in the same table with a free start and a free end (Sellers 1980,
J. Algorithms 1(4)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    # a cell is (distance, start): the smaller start is the longer substring
    above = [(0, j) for j in range(len(text) + 1)]
    for i, x in enumerate(wanted, start=1):
        row = [(i, 0)]
        for j, y in enumerate(text, start=1):
            skip, more, same = above[j], row[j - 1], above[j - 1]
            row.append(
                min((skip[0] + 1, skip[1]), (more[0] + 1, more[1]), (same[0] + (x != y), same[1]))
            )
        above = row
    ends = range(len(above))
    end = min(ends, key=lambda j: (above[j][0], above[j][1] - j, j))
    return Found(above[end][0], above[end][1], end)


def match(wanted: Sequence[str], text: str) -> tuple[list[int], int]:
    """Give each wanted string a place of its own in a text.

    Greedy: the string with the least distance for its length takes its place first, and what it
    took is gone for the others. Exact for one string; for several it may miss the best sharing.

    Args:
        wanted: Strings, none of them empty.
        text: Where they should be, in any order.

    Returns:
        Their distances, in the order of `wanted`, and how many characters of the text are left.
    """
    rest = [text]
    distances = [len(string) for string in wanted]
    open_ = list(range(len(wanted)))
    while open_:
        places = [(nearest(wanted[i], part), i, p) for i in open_ for p, part in enumerate(rest)]
        found, i, p = min(
            places, key=lambda place: (place[0].distance / len(wanted[place[1]]), place[1:])
        )
        distances[i] = found.distance
        if found.distance < len(wanted[i]):  # else nothing of it is there, and it takes nothing
            rest[p : p + 1] = [rest[p][: found.start], rest[p][found.end :]]
        open_.remove(i)
    return distances, sum(map(len, rest))
