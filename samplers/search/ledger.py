"""What may a run spend, and what has it spent? One ledger an item."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Budget", "Ledger"]


@dataclass(frozen=True)
class Budget:
    """Limits of a run. Evaluations and reward calls are per item, seconds are the run's.

    Attributes:
        evaluations: Predictions of one latent, at least 1.
        seconds: Wall time after which no new search request is made; finishing still is.
        reward_calls: Pictures scored, at least 1; None for no limit.
        target: Reward at which an item is done; None for never.

    Raises:
        ValueError: A limit out of range.
    """

    evaluations: int
    seconds: float | None = None
    reward_calls: int | None = None
    target: float | None = None

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
        phases: Evaluations by phase: plain, search, finish, target.
    """

    evaluations: int = 0
    rows: int = 0
    reward_calls: int = 0
    seconds: float = 0.0
    phases: dict[str, int] = field(default_factory=dict[str, int])

    def charge(self, phase: str, evaluations: int, rows: int, scored: bool, seconds: float) -> None:
        """Enter one candidate.

        Args:
            phase: What it was for.
            evaluations: What it cost.
            rows: Rows that reached the network.
            scored: Whether a reward was computed.
            seconds: Its share of the time.
        """
        self.evaluations += evaluations
        self.rows += rows
        self.reward_calls += scored
        self.seconds += seconds
        self.phases[phase] = self.phases.get(phase, 0) + evaluations

    def to_json(self) -> dict[str, Any]:
        """Return the entries as JSON types."""
        return asdict(self)
