"""What is known of a run when it is over: the FLOW_REPORT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...samplers.search import Trace

__all__ = ["Report"]

FEW = 8  # pairs, below which a correlation says nothing
RANKS = 0.3  # correlation above which early rewards are of use


@dataclass(frozen=True, eq=False)
class Report:
    """A run's trace, and what the trace does not hold.

    Attributes:
        trace: Everything that happened.
        reward: Name of the reward.
        calls: Calls of the model in this process.
        chunks: (calls made, rows per call) whenever it was set.
        notes: Sentences for a person.
    """

    trace: Trace
    reward: str = ""
    calls: int = 0
    chunks: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The best finished reward of the first item; minus infinity if there is none."""
        items = self.trace.items()
        return self.best(items[0]) if items else float("-inf")

    def best(self, item: int) -> float:
        """Return an item's best finished reward.

        Args:
            item: Batch item.

        Returns:
            The reward; minus infinity if nothing was finished.
        """
        rows = self.trace.record["finished"]
        values = [row["scores"]["value"] for row in rows if row["item"] == item]
        return max(values, default=float("-inf"))

    def plain(self, item: int) -> float | None:
        """Return the reward of an item's plain sample, the baseline.

        Args:
            item: Batch item.

        Returns:
            The reward; None if it was not taken.
        """
        rows = (row for row in self.trace.record["evaluated"] if row["item"] == item)
        ends = [row for row in rows if row["phase"] == "plain" and row["sigma"] == 0.0]
        return ends[0]["scores"]["value"] if ends and ends[0]["scores"] else None

    def sentences(self) -> list[str]:
        """Return what a person should know, the notes last."""
        lines: list[str] = []
        for row in self.trace.record["stopped"]:
            item, spent = row["item"], row["ledger"]
            plain = self.plain(item)
            before = "" if plain is None else f" (plain sample {plain:.4g})"
            lines.append(
                f"item {item}: reward {self.best(item):.4g}{before} after {spent['evaluations']} "
                f"evaluations, {spent['rows']} network rows, {spent['reward_calls']} scored, "
                f"{spent['seconds']:.1f} s; stopped by {row['why']}"
            )
        told = [
            row for row in self.trace.early_correlation() if row["n"] >= FEW and row["correlation"]
        ]
        if told and max(row["correlation"] for row in told) < RANKS:
            lines.append(
                "early rewards do not rank finished pictures here: search at lower sigmas "
                "(score_below), take more steps, or use best_of_n"
            )
        return [*lines, *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "reward": self.reward,
            "calls": self.calls,
            "chunks": [list(chunk) for chunk in self.chunks],
            "notes": self.sentences(),
            **self.trace.to_json(),
        }
