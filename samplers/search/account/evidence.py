"""What does a run's own data say about its rewards? Do early ones rank, do held-out ones fall?

Both are rank statistics over finished pictures. Pictures of one family resemble each other, so a
picture that grew out of an earlier finished one enters with its change from that one, and only the
others with their values; each kind is compared within its own batch item.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

__all__ = ["Trend", "correlation", "held_out_trend", "ranks"]

Row = dict[str, Any]
Pairs = list[tuple[float, float]]

SHUFFLES = 999


@dataclass(frozen=True)
class Trend:
    """How a held-out reward moves with the one that is searched for.

    Attributes:
        n: Finished pictures that have both.
        correlation: Of their ranks; None where it is undefined.
        p: Share of random pairings whose correlation is as low; 1 where it is undefined.
    """

    n: int
    correlation: float | None
    p: float


def correlation(groups: Sequence[Pairs]) -> float | None:
    """Return the correlation of pairs, each group around its own means.

    Args:
        groups: Lists of pairs.

    Returns:
        -1 to 1; None where it is undefined (fewer than 3 pairs, or no spread).
    """
    xx = yy = xy = 0.0
    n = 0
    for pairs in filter(None, groups):
        mean_x = math.fsum(x for x, _ in pairs) / len(pairs)
        mean_y = math.fsum(y for _, y in pairs) / len(pairs)
        xx += math.fsum((x - mean_x) ** 2 for x, _ in pairs)
        yy += math.fsum((y - mean_y) ** 2 for _, y in pairs)
        xy += math.fsum((x - mean_x) * (y - mean_y) for x, y in pairs)
        n += len(pairs)
    if n < 3 or xx <= 0.0 or yy <= 0.0:
        return None
    return xy / math.sqrt(xx * yy)


def ranks(values: Sequence[float]) -> list[float]:
    """Return the values' ranks from 0, equal values sharing theirs.

    Args:
        values: Finite numbers.

    Returns:
        As many ranks.
    """
    order = sorted(values)
    first = {value: order.index(value) for value in set(order)}
    count = {value: order.count(value) for value in first}
    return [first[value] + (count[value] - 1) / 2.0 for value in values]


def held_out_trend(evaluated: Sequence[Row], name: str) -> Trend:
    """Test whether a held-out reward falls where the reward rises, over finished pictures.

        correlation of the ranks, and the share p of SHUFFLES random pairings (fixed seed, within
        groups) whose correlation is as low: small where it is no accident.

    Args:
        evaluated: Rows of a trace.
        name: The held-out reward.

    Returns:
        The trend.
    """
    groups = [_ranked(pairs) for pairs in _groups(evaluated, name)]
    n = sum(map(len, groups))
    found = correlation(groups)
    if found is None:
        return Trend(n, None, 1.0)
    random, low = Random(0), 1
    for _ in range(SHUFFLES):
        mixed: list[Pairs] = []
        for pairs in groups:
            others = [y for _, y in pairs]
            random.shuffle(others)
            mixed.append([(x, y) for (x, _), y in zip(pairs, others, strict=True)])
        low += (correlation(mixed) or 0.0) <= found + 1e-12
    return Trend(n, found, low / (SHUFFLES + 1))


def _ranked(pairs: Pairs) -> Pairs:
    return list(zip(ranks([x for x, _ in pairs]), ranks([y for _, y in pairs]), strict=True))


def _groups(evaluated: Sequence[Row], name: str) -> list[Pairs]:
    """(reward, held-out) of finished pictures: values of the first, changes of their offspring."""
    items: dict[int, dict[int, Row]] = {}
    for row in evaluated:
        items.setdefault(row["item"], {})[row["id"]] = row
    groups: list[Pairs] = []
    for nodes in items.values():
        values: Pairs = []
        changes: Pairs = []
        for row in nodes.values():
            own = _pair(row, name)
            if own is None:
                continue
            before = _finished_ancestor(nodes, row)
            start = None if before is None else _pair(before, name)
            if start is not None:
                changes.append((own[0] - start[0], own[1] - start[1]))
            elif before is None:
                values.append(own)
        groups += [values, changes]
    return groups


def _pair(row: Row, name: str) -> tuple[float, float] | None:
    """A finished row's reward and held-out reward, if it has both."""
    scores = row["scores"]
    if row["sigma"] > 0.0 or scores is None:
        return None
    value = scores.get("held_out", {}).get(name)
    return (scores["value"], float(value)) if isinstance(value, int | float) else None


def _finished_ancestor(nodes: Mapping[int, Row], row: Row) -> Row | None:
    parent = row["parent"]
    while parent is not None:
        if nodes[parent]["sigma"] == 0.0:
            return nodes[parent]
        parent = nodes[parent]["parent"]
    return None
