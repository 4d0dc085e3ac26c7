"""What is known of a run when it is over: the FLOW_REPORT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ....samplers.search import Trace
from ....samplers.search.account.evidence import held_out_trend, steered_change
from ....samplers.search.account.lineage import Frame
from ....samplers.search.account.trace import value_of
from .path import WinnerPath

__all__ = ["Report"]

FEW = 8  # pictures, below which a correlation says nothing
RANKS = 0.3  # correlation above which early rewards are of use
ACCIDENT = 0.05  # share of random pairings that fall as much, above which a fall is no evidence


@dataclass(frozen=True, eq=False)
class Report:
    """A run's trace, and what the trace does not hold.

    Attributes:
        trace: Everything that happened.
        reward: Name of the reward.
        calls: Calls of the model in this process.
        chunks: (calls made, rows per call) whenever it was set.
        notes: Sentences for a person.
        paths: How each row of the output came about; None where that was not kept.
        families: What the reward saw on the way to each item's best picture.
        seconds: What this run took.
        before: Seconds of the earlier runs that it went on from; 0 for none.
        top_k: Pictures that were asked for, an item.
    """

    trace: Trace
    reward: str = ""
    calls: int = 0
    chunks: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    paths: list[WinnerPath | None] = field(default_factory=list)
    families: dict[int, Sequence[Frame]] = field(default_factory=dict)
    seconds: float = 0.0
    before: float = 0.0
    top_k: int = 1

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
        scores = self.plain_scores(item)
        return scores["value"] if scores else None

    def winners(self) -> list[tuple[int, dict[str, Any]]]:
        """Return item and scores of each picture that came out, in its order."""
        found = {(row["item"], row["id"]): row["scores"] for row in self.trace.record["finished"]}
        return [
            (row["item"], found[row["item"], node])
            for row in self.trace.record["stopped"]
            for node in row["winners"]
        ]

    @property
    def scores(self) -> list[float]:
        """The reward of each picture that came out, in its order."""
        return [scores["value"] for _, scores in self.winners()]

    def spent(self, what: str) -> int:
        """Return what all items together took of something.

        Args:
            what: Name of a number of the ledger.

        Returns:
            The sum.
        """
        return sum(row["ledger"].get(what, 0) for row in self.trace.record["stopped"])

    def warnings(self) -> list[str]:
        """Return what a person should not overlook: rewards that mislead."""
        return [*(self._falling() or self._steered()), *self._unranked()]

    def sentences(self) -> list[str]:
        """Return what a person should know: results, warnings, held-out rewards, notes."""
        lines: list[str] = []
        for row in self.trace.record["stopped"]:
            item, spent = row["item"], row["ledger"]
            plain = self.plain(item)
            before = "" if plain is None else f" (plain sample {plain:.4g})"
            asked = f"{spent['gradient_calls']} gradients, " if spent.get("gradient_calls") else ""
            lines.append(
                f"item {item}: reward {self.best(item):.4g}{before} after {spent['evaluations']} "
                f"evaluations, {spent['rows']} network rows, {spent['reward_calls']} scored, "
                f"{asked}{spent['seconds']:.1f} s; stopped by {row['why']}"
            )
        return [*lines, *self._regime(), *self.warnings(), *self._held_out(), *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        trends = {
            name: vars(held_out_trend(self.trace.record["evaluated"], name))
            for name in self.trace.held_out()
        }
        return {
            "reward": self.reward,
            "calls": self.calls,
            "chunks": [list(chunk) for chunk in self.chunks],
            "notes": self.sentences(),
            "warnings": self.warnings(),
            "held_out": trends,
            **self.trace.to_json(),
        }

    def plain_scores(self, item: int) -> dict[str, Any] | None:
        """Return all scores of an item's plain sample.

        Args:
            item: Batch item.

        Returns:
            Scores as JSON types; None if it was not taken.
        """
        rows = (row for row in self.trace.record["evaluated"] if row["item"] == item)
        ends = [row for row in rows if row["phase"] == "plain" and row["sigma"] == 0.0]
        # a thinned one comes first where a search began with less than one plain sample
        return ends[-1]["scores"] if ends else None

    def _baseline(self, item: int) -> dict[str, Any] | None:
        finished = (row for row in self.trace.record["finished"] if row["item"] == item)
        first = next(finished, None)
        return self.plain_scores(item) or (first["scores"] if first else None)

    def _best_scores(self, item: int) -> dict[str, Any] | None:
        rows = [row for row in self.trace.record["finished"] if row["item"] == item and row["best"]]
        return rows[-1]["scores"] if rows else None

    def _regime(self) -> list[str]:
        """How rare the target is among pictures from new noise, and what follows."""
        lines: list[str] = []
        for row in self.trace.record["stopped"]:
            pictures = self.trace.unselected(row["item"])
            target, n = row.get("target"), len(pictures)
            if target is None or n < FEW // 2:
                continue
            reached = sum(picture["scores"]["value"] >= target for picture in pictures)
            if reached:
                said = (
                    f"{reached} of {n} pictures from new noise reach the target, so it is not "
                    "rare here, and best_of_n with few steps does as well"
                )
            else:
                said = (
                    f"none of {n} pictures from new noise reaches the target, so fewer than one in "
                    f"{max(1, n // 3)} do (95 % sure); varying the best helps more"
                )
            lines.append(f"item {row['item']}: {said}")
        return lines

    def _falling(self) -> list[str]:
        """Held-out rewards that fall where the reward rises.

        In some item the best picture has a higher reward and a lower held-out one than the plain
        sample (or the first finished picture), and over all finished pictures the two go against
        each other by more than accident.
        """
        lines: list[str] = []
        for name in self.trace.held_out():
            fell = [item for item in self.trace.items() if self._fell(item, name)]
            trend = held_out_trend(self.trace.record["evaluated"], name) if fell else None
            if trend is None or trend.n < FEW or trend.p >= ACCIDENT:
                continue
            best, plain = (
                ", ".join(f"{value_of(scores(item), name):.4g}" for item in fell)
                for scores in (self._best_scores, self._baseline)
            )
            lines.append(
                f"over-optimised: {name} fell from {plain} to {best} while {self.reward} rose, and "
                f"over {trend.n} finished pictures the two go against each other (rank "
                f"correlation {trend.correlation:.2f}, p {trend.p:.3g}); stop at a lower target, "
                "spend fewer evaluations, or combine the two rewards"
            )
        return lines

    def _steered(self) -> list[str]:
        """Held-out rewards that the first steered pictures lost; few say nothing by ranks yet."""
        found = {
            name: steered_change(self.trace.record["evaluated"], name)
            for name in self.trace.held_out()
        }
        return [one.sentence(self.reward, name) for name, one in found.items() if one.is_a_hint]

    def _fell(self, item: int, name: str) -> bool:
        best, plain = self._best_scores(item), self._baseline(item)
        if best is None or plain is None:
            return False
        after, before = value_of(best, name), value_of(plain, name)
        if after is None or before is None:
            return False
        return best["value"] > plain["value"] and after < before

    def _unranked(self) -> list[str]:
        """Early rewards that do not rank finished pictures where most candidates were compared."""
        told = {
            row["sigma"]: row["correlation"]
            for row in self.trace.early_correlation()
            if row["n"] >= FEW and row["correlation"] is not None
        }
        compared = dict.fromkeys(told, 0)
        for row in self.trace.record["evaluated"]:
            if row["sigma"] in told and row["scores"] is not None:
                compared[row["sigma"]] += 1
        useless = [sigma for sigma in told if told[sigma] < RANKS]
        number = sum(compared[sigma] for sigma in useless)
        if 2 * number <= sum(compared.values()):
            return []
        return [
            f"early rewards do not rank finished pictures here: {number} candidates were scored at "
            f"sigma {', '.join(f'{sigma:.3g}' for sigma in useless)}, where the correlation with "
            f"the finished reward is below {RANKS:g}; search at lower sigmas (score_below), take "
            "more steps, or use best_of_n"
        ]

    def _held_out(self) -> list[str]:
        """What held-out rewards took, and which gave no value."""
        rows = [row["scores"] for row in self.trace.record["finished"]]
        names = self.trace.held_out()
        if not names:
            return []
        seconds = sum(row.get("held_out_seconds", 0.0) for row in rows)
        asked = sum(len(row["held_out"]) for row in rows)
        lines = [
            f"held-out rewards ({', '.join(names)}) were asked for {asked} scores and took "
            f"{seconds:.1f} s beside the above; they decided nothing"
        ]
        for name in names:
            reasons = [v for row in rows if isinstance(v := row["held_out"].get(name), str)]
            if reasons:
                lines.append(
                    f"held-out reward {name} gave no value for {len(reasons)} of {len(rows)} "
                    f"finished pictures: {reasons[0]}"
                )
        return lines
