"""How are a strategy's settings written down? As a flat dict of JSON types, checked on reading."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, TypeVar

from ..stepping.transition import Transition
from .protocol import Whole

__all__ = ["ONE_PICTURE", "Settings"]

ONE_PICTURE = (
    "several draws of an ODE are one picture: {where} the transition keeps all of its noise (q = "
    "1). Give the strategy a q of its own, such as 0.85; or take Reward Search (Advanced) and "
    "connect a Stochastic Flow Sampler to it; or, for RBF as published, RBF Search with rbf set to "
    "published"
)

_S = TypeVar("_S", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """Base of every strategy: a frozen dataclass with a name, JSON both ways.

    Attributes:
        weighs_draws: Whether it corrects for draws that a twist moved.
        begins_afresh: Whether it lives on starts of its own, which a gradient could turn.

    Example:
        >>> from flowsearch.samplers.search import BestOfN
        >>> BestOfN.from_json({"strategy": "best_of_n", "width": 2}).width
        2
    """

    name: ClassVar[str] = ""
    weighs_draws: ClassVar[bool] = False
    begins_afresh: ClassVar[bool] = True

    def draws_noise(self, sigmas: Sequence[float], transition: Transition | Whole) -> bool:
        """Return whether any step of the search draws fresh noise, which a gradient could tilt.

        Args:
            sigmas: The run's sigmas.
            transition: The connected sampler's.

        Returns:
            True; a strategy whose steps are all the sampler's own says it by those.
        """
        del sigmas, transition
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the settings and the strategy's name as JSON types."""
        return {"strategy": self.name, **asdict(self)}

    @classmethod
    def from_json(cls: type[_S], data: Mapping[str, Any]) -> _S:
        """Build the settings from what to_json() returned; what is absent takes its default.

        Args:
            data: The dict.

        Returns:
            The settings.

        Raises:
            ValueError: Another strategy's, an unknown key, or a value out of range.
        """
        values = dict(data)
        name = values.pop("strategy", cls.name)
        if name != cls.name:
            raise ValueError(f"these are settings of {name!r}, not of {cls.name!r}")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"{cls.name} has no setting {unknown}; it has: {', '.join(known)}")
        return cls(**values)

    def require(self, holds: bool, sentence: str) -> None:
        """Raise ValueError with the strategy's name and the sentence unless the condition holds."""
        if not holds:
            raise ValueError(f"{self.name}: {sentence}")
