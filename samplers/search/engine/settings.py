"""What is a run set to? One object for nodes, engine and checkpoint, checked when it is made."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...stepping.guidance import GUIDANCE_METHODS
from ...stepping.transition import Transition
from ..protocol import Strategy, Whole
from .ledger import Budget

__all__ = ["SearchSettings"]


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a run.

    Attributes:
        strategy: Settings of the strategy.
        sigmas: N + 1 falling sigmas, the last one 0.
        transition: The connected sampler's transition, or Whole for a stock sampler.
        budget: What may be spent.
        items: Batch rows, each searched by itself.
        seed: Seed of everything random.
        rows_per_call: Rows in one call of the model; halved when memory runs out.
        chains: Independent chains an item.
        top_k: Finished pictures kept an item.
        checkpoint_seconds: Time between two checkpoints.

    Raises:
        ValueError: Settings that cannot run or cannot help, with the reason.
    """

    strategy: Strategy
    sigmas: tuple[float, ...]
    transition: Transition | Whole
    budget: Budget
    items: tuple[int, ...] = (0,)
    seed: int = 0
    rows_per_call: int = 16
    chains: int = 1
    top_k: int = 1
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot be searched, or cannot help."""
        object.__setattr__(self, "sigmas", _checked(self.sigmas))
        object.__setattr__(self, "items", tuple(self.items))
        if not self.items or len(set(self.items)) != len(self.items):
            raise ValueError(f"items must be different batch rows, at least one; got {self.items}")
        if self.chains < 1 or self.top_k < 1:
            raise ValueError(
                f"chains and top_k must be at least 1; got {self.chains} and {self.top_k}"
            )
        if self.rows_per_call < 1:
            raise ValueError(f"rows_per_call must be at least 1, got {self.rows_per_call}")
        self.strategy.check(self.sigmas, self.transition)
        if isinstance(self.transition, Transition) and self.transition.guidance is not None:
            _check_guidance(self.strategy, self.sigmas, self.transition)


def _check_guidance(strategy: Strategy, sigmas: Sequence[float], transition: Transition) -> None:
    """Refuse guidance that would change nothing, or whose weights would be dropped.

    A strategy that does not say otherwise (settings.Settings does) draws noise, begins afresh, and
    does not weigh its draws.
    """
    guidance = transition.guidance
    if guidance is None or guidance.shifts:
        return
    row = GUIDANCE_METHODS[guidance.method]
    if guidance.ascends:
        if not getattr(strategy, "begins_afresh", True):
            raise ValueError(
                f"{guidance.method} turns starts, and {strategy.name} varies a picture that it "
                "has; take the strategy best_of_n, or the guidance method noise_tilt"
            )
        return
    draws = getattr(strategy, "draws_noise", None)
    if draws is not None and not draws(sigmas, transition):
        raise ValueError(
            f"{guidance.method} tilts the noise that a step draws, and with this sampler (the law "
            f"{transition.law.name}) no step of {strategy.name} draws any; choose a sampler with "
            "noise, such as the law constant_k, or the guidance method mean_shift or start_noise"
        )
    if row.raw and not getattr(strategy, "weighs_draws", False):
        raise ValueError(
            f"{guidance.method} shifts draws and keeps the weight that makes up for it, which "
            f"{strategy.name} does not use; take the strategy smc, or the guidance method "
            "noise_tilt"
        )


def _checked(sigmas: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(sigma) for sigma in sigmas)
    falls = all(b < a for a, b in itertools.pairwise(values))
    if len(values) < 2 or not falls or not all(map(math.isfinite, values)):
        raise ValueError(f"a search needs at least two falling sigmas, got {list(values)}")
    if values[-1] != 0.0:
        raise ValueError(
            f"a search needs sigmas that end at 0, because pictures are compared finished; these "
            f"end at {values[-1]}"
        )
    if values[0] > 1.0:
        raise ValueError(f"sigmas of a flow model lie in [0, 1]; these start at {values[0]}")
    return values
