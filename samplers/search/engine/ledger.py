"""What may a run spend, and what has it spent? One ledger an item."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Budget", "Ledger"]


@dataclass(frozen=True)
class Budget:
    """Limits of a run. Evaluations, rows and reward calls are per item, seconds are the run's.

    Attributes:
        evaluations: Predictions of one latent, at least 1.
        seconds: Wall time after which no new search request is made; finishing still is.
        reward_calls: Pictures scored, at least 1; None for no limit.
        target: Reward at which an item is done; None for never.
        rows: Rows that reach the network, at least 1; None for no limit. What an evaluation takes
            is measured, so the first one of all is always made.
        top: Instead of a target: the share of plain samples, in percent, that would be at least
            as good (calibration.py); None for no such target.
        highest: The most the reward can give; a target from `top` is not above it. None: no limit.

    Raises:
        ValueError: A limit out of range.

    Example:
        >>> Budget(100, rows=150).left(Ledger(evaluations=20, rows=40, rows_per_evaluation=2.0))
        55
    """

    evaluations: int
    seconds: float | None = None
    reward_calls: int | None = None
    target: float | None = None
    rows: int | None = None
    top: float | None = None
    highest: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that leave nothing to do."""
        if self.evaluations < 1:
            raise ValueError(f"a budget needs at least 1 evaluation, got {self.evaluations}")
        if self.seconds is not None and not self.seconds > 0.0:
            raise ValueError(f"a budget's seconds must be above 0, got {self.seconds}")
        if self.reward_calls is not None and self.reward_calls < 1:
            raise ValueError(f"a budget needs at least 1 reward call, got {self.reward_calls}")
        if self.target is not None and math.isnan(self.target):
            raise ValueError("a budget's target must be a number, got nan")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"a budget needs at least 1 network row, got {self.rows}")
        if self.top is not None and not 0.0 < self.top < 100.0:
            raise ValueError(f"a budget's top must be between 0 and 100 percent, got {self.top}")
        if self.top is not None and self.target is not None:
            raise ValueError("a budget has a target or a top, not both")

    def left(self, ledger: "Ledger") -> int:
        """Return the evaluations that are left; rows are converted at the dearest rate measured.

        Args:
            ledger: What was spent.

        Returns:
            Evaluations, at least 0; a pure function of budget and ledger.
        """
        return max(0, min(self.evaluations - ledger.evaluations, self._by_rows(ledger)))

    def short_of(self, ledger: "Ledger") -> str:
        """Return which of the two limits leaves less: "budget" or "rows".

        Args:
            ledger: What was spent.

        Returns:
            The word for reports.
        """
        by_evaluations = self.evaluations - ledger.evaluations
        return "rows" if self._by_rows(ledger) < by_evaluations else "budget"

    def _by_rows(self, ledger: "Ledger") -> int:
        if self.rows is None:
            return self.evaluations - ledger.evaluations
        rate = ledger.rows_per_evaluation or 1.0
        return math.floor((self.rows - ledger.rows) / rate + 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return the limits as JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Budget":
        """Build a budget from what to_json() returned.

        Args:
            data: The dict.

        Returns:
            The budget.
        """
        return cls(**data)


@dataclass
class Ledger:
    """What an item has spent.

    Attributes:
        evaluations: Predictions of one latent.
        rows: Rows that reached the network (2 an evaluation with guidance).
        reward_calls: Pictures scored.
        seconds: Time in calls for this item; its share of shared calls.
        phases: Evaluations by phase: plain, calibrate, search, finish, target.
        rows_per_evaluation: The most that a candidate took, 0 before the first.
        gradient_calls: Gradients of the reward, one a row each time.

    Example:
        >>> ledger = Ledger()
        >>> ledger.charge("search", evaluations=1, rows=2, scored=True, seconds=0.1)
        >>> ledger.reward_calls
        1
    """

    evaluations: int = 0
    rows: int = 0
    reward_calls: int = 0
    seconds: float = 0.0
    phases: dict[str, int] = field(default_factory=dict[str, int])
    rows_per_evaluation: float = 0.0
    gradient_calls: int = 0

    def charge(
        self,
        phase: str,
        evaluations: int,
        rows: int,
        scored: bool,
        seconds: float,
        gradients: int = 0,
    ) -> None:
        """Enter one candidate.

        Args:
            phase: What it was for.
            evaluations: What it cost.
            rows: Rows that reached the network.
            scored: Whether a reward was computed.
            seconds: Its share of the time.
            gradients: Gradients that it asked for.
        """
        self.evaluations += evaluations
        self.gradient_calls += gradients
        self.rows += rows
        self.reward_calls += scored
        self.seconds += seconds
        self.phases[phase] = self.phases.get(phase, 0) + evaluations
        if evaluations:
            self.rows_per_evaluation = max(self.rows_per_evaluation, rows / evaluations)

    def to_json(self) -> dict[str, Any]:
        """Return the entries as JSON types."""
        return asdict(self)
