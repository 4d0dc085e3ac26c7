"""What does a run's own data say about its rewards? Do early ones rank, do held-out ones fall?

Both are rank statistics over finished pictures. Pictures of one family resemble each other, so a
picture that grew out of an earlier finished one enters with its change from that one, and only the
others with their values; each kind is compared within its own batch item.

A gradient finds a reward's holes in a picture or two, long before ranks say anything. So pictures
that it steered are compared with the plain sample of their item, which nothing steered: a sign test
over few, meant as a hint.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from random import Random
from typing import Any

__all__ = ["Steered", "Trend", "correlation", "held_out_trend", "ranks", "steered_change"]

Row = dict[str, Any]
Pairs = list[tuple[float, float]]

SHUFFLES = 999
HINT = 0.25  # a share of accidents that is worth a hint: two of two, three of three, four of five


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


@dataclass(frozen=True)
class Steered:
    """How pictures steered by a gradient differ from the plain samples of their items.

    Attributes:
        n: Steered finished pictures that have both rewards and are better than their plain sample,
            the first of each family.
        fell: Of them, those whose held-out reward is lower than the plain sample's.
        reward: Mean reward of their plain samples, and their own.
        held_out: Mean held-out reward of their plain samples, and their own.
        p: Chance that as many fall where nothing pulls either way.

    Example:
        >>> Steered(3, 3, (-0.2, -0.01), (0.9, 0.8), 0.125).is_a_hint
        True
    """

    n: int
    fell: int
    reward: tuple[float, float]
    held_out: tuple[float, float]
    p: float

    @property
    def is_a_hint(self) -> bool:
        """Whether it is worth telling: at least two pictures, and hardly any that did not fall."""
        return self.n >= 2 and self.p <= HINT and self.held_out[1] < self.held_out[0]

    def sentence(self, reward: str, name: str) -> str:
        """Return what a person is told.

        Args:
            reward: The reward that is searched for.
            name: The held-out one.

        Returns:
            One sentence with both numbers.
        """
        (before, after), (was, now) = self.reward, self.held_out
        return (
            f"the gradient may have found a hole in {reward}: over {self.n} steered pictures it "
            f"rose from {before:.4g} (plain samples) to {after:.4g}, while {name}, which is held "
            f"out, fell from {was:.4g} to {now:.4g}, in {self.fell} of {self.n}; lower the "
            "strength, or combine the two rewards"
        )


def steered_change(evaluated: Sequence[Row], name: str) -> Steered:
    """Compare pictures that a gradient steered with the plain samples of their items.

    Args:
        evaluated: Rows of a trace.
        name: The held-out reward.

    Returns:
        The comparison; of nothing where no picture was steered, or none is better than plain.
    """
    items: dict[int, dict[int, Row]] = {}
    for row in evaluated:
        items.setdefault(row["item"], {})[row["id"]] = row
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for nodes in items.values():
        ends = [_pair(row, name) for row in nodes.values() if row["phase"] == "plain"]
        plain = next((pair for pair in reversed(ends) if pair is not None), None)
        if plain is None:
            continue
        for row in nodes.values():
            own = _pair(row, name)
            before = _finished_ancestor(nodes, row)
            is_first = before is None or not _is_steered(nodes, before)  # of its family
            if own is not None and own[0] > plain[0] and is_first and _is_steered(nodes, row):
                pairs.append((plain, own))
    if not pairs:
        return Steered(0, 0, (0.0, 0.0), (0.0, 0.0), 1.0)
    n, fell = len(pairs), sum(own[1] < plain[1] for plain, own in pairs)
    p = sum(math.comb(n, k) for k in range(fell, n + 1)) / 2.0**n
    means = [[math.fsum(pair[k][j] for pair in pairs) / n for k in (0, 1)] for j in (0, 1)]
    return Steered(n, fell, (means[0][0], means[0][1]), (means[1][0], means[1][1]), p)


def _is_steered(nodes: Mapping[int, Row], row: Row) -> bool:
    """Whether a gradient took part on the way to a picture, since its start."""
    current: int | None = row["id"]
    while current is not None:
        if nodes[current].get("gradients"):
            return True
        current = nodes[current]["parent"]
    return False


def correlation(groups: Sequence[Pairs]) -> float | None:
    """Return the correlation of pairs, each group around its own means.

    Args:
        groups: Lists of pairs.

    Returns:
        -1 to 1; None where it is undefined (fewer than 3 pairs, or no spread).
    """
    centred = [_centred(pairs) for pairs in groups if pairs]
    spread = _spread(centred)
    if sum(len(xs) for xs, _ in centred) < 3 or spread <= 0.0:
        return None
    return sum(math.fsum(map(mul, xs, ys)) for xs, ys in centred) / spread


def _centred(pairs: Pairs) -> tuple[list[float], list[float]]:
    """The first and the second numbers of pairs, around their means."""
    mean_x, mean_y = (math.fsum(pair[i] for pair in pairs) / len(pairs) for i in (0, 1))
    return [x - mean_x for x, _ in pairs], [y - mean_y for _, y in pairs]


def _spread(centred: Sequence[tuple[list[float], list[float]]]) -> float:
    """What a sum of products is divided by to be a correlation; order does not change it."""
    xx, yy = (sum(math.fsum(v * v for v in group[i]) for group in centred) for i in (0, 1))
    return math.sqrt(xx * yy)


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
    centred = [_centred(pairs) for pairs in groups if pairs]
    spread = _spread(centred)
    random, low = Random(0), 1
    for _ in range(SHUFFLES):
        products = 0.0
        for xs, ys in centred:
            others = ys.copy()
            random.shuffle(others)
            products += math.fsum(map(mul, xs, others))
        low += products / spread <= found + 1e-12
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
