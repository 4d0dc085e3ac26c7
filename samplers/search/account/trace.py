"""What happened in a run? The events as JSON, and tables made from them.

The record is a list of plain dicts per kind of event; tables are derived from it and from nothing
else, so a trace read back from JSON gives the same tables.
"""

from collections.abc import Mapping
from typing import Any

from .events import KINDS, Event, Started
from .evidence import correlation

__all__ = ["SCHEMA", "Trace", "value_of"]

SCHEMA = 1
Row = dict[str, Any]


class Trace:
    """Collects events: call it with each, or pass it as on_event.

    Attributes:
        record: kind -> rows, in order: started, evaluated, chosen, finished, stopped.

    Example:
        >>> from flowsearch.samplers.search import BestOfN, Budget, Search, SearchSettings
        >>> from flowsearch.samplers.search.testing import MixtureProblem
        >>> from flowsearch.samplers.stepping.transition import ODE
        >>> settings = SearchSettings(BestOfN(), (1.0, 0.5, 0.0), ODE, Budget(9))
        >>> trace = Trace()
        >>> for event in Search(MixtureProblem(), settings):
        ...     trace(event)
        >>> first = trace.spent_by_sigma(0)[0]
        >>> first["sigma"], first["phase"], first["evaluations"], first["gradients"]
        (1.0, 'plain', 1, 0)
    """

    def __init__(self) -> None:
        """Start empty."""
        self.record: dict[str, list[Row]] = {kind: [] for kind in KINDS}

    def __call__(self, event: Event) -> None:
        """Take note of an event.

        Args:
            event: The event. A Started empties the record: a run tells everything from there on.
        """
        if isinstance(event, Started):
            self.record = {kind: [] for kind in KINDS}
        self.record[event.kind].append(event.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return {"schema": 1, "started": [...], ...} of JSON types."""
        return {"schema": SCHEMA, **self.record}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Trace":
        """Build a trace from what to_json() returned.

        Args:
            data: The dict.

        Returns:
            The trace.

        Raises:
            ValueError: Another schema.
        """
        if data.get("schema") != SCHEMA:
            raise ValueError(
                f"this trace has schema {data.get('schema')!r}; this version reads {SCHEMA}"
            )
        trace = cls()
        trace.record = {kind: [dict(row) for row in data[kind]] for kind in KINDS}
        return trace

    # ---- tables ----

    def items(self) -> list[int]:
        """Return the batch items, in order of appearance."""
        return list(dict.fromkeys(row["item"] for row in self.record["evaluated"]))

    def reward_curve(self, item: int) -> list[Row]:
        """Return reward against evaluations.

        Args:
            item: Batch item.

        Returns:
            Rows {evaluations, seen, finished}: the best prediction scored so far and the best
            finished picture so far (None before the first), one row whenever either rises.
        """
        curve: list[Row] = []
        predicted: float | None = None
        finished: float | None = None
        for row in self._evaluated(item):
            if row["scores"] is None:
                continue
            value, before = row["scores"]["value"], (predicted, finished)
            predicted = value if predicted is None else max(predicted, value)
            if row["sigma"] == 0.0:
                finished = value if finished is None else max(finished, value)
            if (predicted, finished) != before:
                curve.append({"evaluations": row["spent"], "seen": predicted, "finished": finished})
        return curve

    def spent_by_sigma(self, item: int) -> list[Row]:
        """Return where on the schedule evaluations were spent.

        Args:
            item: Batch item.

        Returns:
            Rows {sigma, phase, evaluations, rows, candidates, gradients} by falling sigma.
        """
        table: dict[tuple[float, str], Row] = {}
        for row in self._evaluated(item):
            place = (row["sigma"], row["phase"])
            blank = {"sigma": row["sigma"], "phase": row["phase"]}
            none = dict.fromkeys(("evaluations", "rows", "candidates", "gradients"), 0)
            line = table.setdefault(place, {**blank, **none})
            line["evaluations"] += row["evaluations"]
            line["rows"] += row["rows"]
            line["candidates"] += 1
            line["gradients"] += row.get("gradients", 0)  # older traces have none
        return sorted(table.values(), key=lambda line: (-line["sigma"], line["phase"]))

    def early_correlation(self, item: int | None = None) -> list[Row]:
        """Return how well early rewards rank finished pictures.

        For each finished picture its ancestors' scores are paired with its own; an ancestor counts
        once for each of its finished descendants.

        Args:
            item: Batch item; None pools all items, each around its own means.

        Returns:
            Rows {sigma, n, correlation} by falling sigma; correlation is None where it is undefined
            (fewer than 3 pairs, or no spread).
        """
        pairs: dict[float, dict[int, list[tuple[float, float]]]] = {}
        rows: dict[int, dict[int, Row]] = {}
        for row in self.record["evaluated"]:
            if item is None or row["item"] == item:
                rows.setdefault(row["item"], {})[row["id"]] = row
        for one, nodes in rows.items():
            for row in nodes.values():
                if row["sigma"] == 0.0 and row["scores"] is not None:
                    for early in _ancestors(nodes, row):
                        place = pairs.setdefault(early["sigma"], {}).setdefault(one, [])
                        place.append((early["scores"]["value"], row["scores"]["value"]))
        return [
            {
                "sigma": sigma,
                "n": sum(map(len, groups.values())),
                "correlation": correlation([*groups.values()]),
            }
            for sigma, groups in sorted(pairs.items(), reverse=True)
        ]

    def held_out(self) -> list[str]:
        """Return the names of the held-out rewards, in order of appearance."""
        rows = (row["scores"] for row in self.record["finished"])
        return list(dict.fromkeys(name for scores in rows for name in scores.get("held_out", ())))

    def held_out_curve(self, item: int, name: str) -> list[Row]:
        """Return a held-out reward of the best finished picture so far.

        Args:
            item: Batch item.
            name: The held-out reward.

        Returns:
            Rows {evaluations, value}, one whenever another picture is the best; value is None
            where that picture has none.
        """
        return [
            {"evaluations": row["spent"], "value": value_of(row["scores"], name)}
            for row in self.record["finished"]
            if row["item"] == item and row["best"]
        ]

    def unselected(self, item: int) -> list[Row]:
        """Return the finished pictures from new noise that nothing was chosen on the way to.

        Args:
            item: Batch item.

        Returns:
            Rows of the record: the plain samples, and those of searches that finish unseen.
        """
        nodes = {row["id"]: row for row in self._evaluated(item)}
        found: list[Row] = []
        for row in nodes.values():
            if row["sigma"] > 0.0 or row["scores"] is None:
                continue
            line: list[Row] = []
            current = row["parent"]
            while current is not None:
                line.append(nodes[current])
                current = nodes[current]["parent"]
            has_choice = any(
                r["scores"] or r["sigma"] == 0.0 or r["donor"] is not None for r in line
            )
            if row["phase"] in ("plain", "calibrate") or not has_choice:
                found.append(row)
        return found

    def family(self, item: int, node: int) -> list[Row]:
        """Return a node's ancestors and itself, the start first.

        Args:
            item: Batch item.
            node: id of the node.

        Returns:
            Rows of the record.
        """
        nodes = {row["id"]: row for row in self._evaluated(item)}
        line: list[Row] = []
        current: int | None = node
        while current is not None:
            line.append(nodes[current])
            current = nodes[current]["parent"]
        return line[::-1]

    def _evaluated(self, item: int) -> list[Row]:
        return [row for row in self.record["evaluated"] if row["item"] == item]


def value_of(scores: Mapping[str, Any] | None, name: str) -> float | None:
    """Return a held-out reward of a row's scores.

    Args:
        scores: The scores as JSON types.
        name: The held-out reward.

    Returns:
        The number; None if there is none, or only a reason.

    Example:
        >>> value_of({"held_out": {"beauty": 0.5, "likeness": "no face"}}, "beauty")
        0.5
    """
    value = (scores or {}).get("held_out", {}).get(name)
    return float(value) if isinstance(value, int | float) else None


def _ancestors(nodes: Mapping[int, Row], row: Row) -> list[Row]:
    """Return a finished row's scored, unfinished ancestors, up to the last time it was finished."""
    found: list[Row] = []
    parent = row["parent"]
    while parent is not None and nodes[parent]["sigma"] > 0.0:
        if nodes[parent]["scores"] is not None:
            found.append(nodes[parent])
        parent = nodes[parent]["parent"]
    return found
