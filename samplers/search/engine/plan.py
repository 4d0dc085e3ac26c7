"""What is fixed for a whole run: strategy, sigmas, transition, seed, and the price of things."""

import hashlib
import itertools
import math
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

from ...stepping.transition import ODE, Transition
from ..protocol import Move, Problem, Strategy, Whole
from ..recombination import Mix

__all__ = ["Plan", "spread", "thin"]

SCHEMA = 2


class Plan:
    """The settings of a run and what follows from them; immutable after construction.

    Attributes:
        problem: Model and reward.
        strategy: Settings of the search.
        sigmas: N + 1 falling sigmas, the last one 0.
        transition: The connected sampler's.
        seed: Seed of everything random.
        items: Batch items.
        chains: Chains an item.
        top_k: Finished pictures kept an item.
        identities: Each item's key.
    """

    def __init__(
        self,
        problem: Problem,
        strategy: Strategy,
        sigmas: Sequence[float],
        transition: Transition | Whole,
        seed: int,
        items: Sequence[int],
        chains: int,
        top_k: int,
    ) -> None:
        """Check and keep the settings; ValueError for what cannot be searched, or cannot help."""
        self.problem = problem
        self.strategy = strategy
        self.sigmas = _checked(sigmas)
        self.transition = transition
        self.seed = seed
        self.items = tuple(items)
        self.chains = chains
        self.top_k = top_k
        if not self.items or len(set(self.items)) != len(self.items):
            raise ValueError(f"items must be different batch rows, at least one; got {items}")
        if chains < 1 or top_k < 1:
            raise ValueError(f"chains and top_k must be at least 1; got {chains} and {top_k}")
        strategy.check(self.sigmas, transition)
        self._paths: dict[float, tuple[float, ...]] = {}
        self._json: dict[Transition | Whole | Mix, dict[str, Any]] = {}
        self.identities = {item: problem.identity(item) for item in self.items}

    @property
    def sample_cost(self) -> int:
        """Evaluations of one ordinary sample, start to 0; what a Whole costs may be remeasured."""
        if isinstance(self.transition, Whole):
            return self.problem.cost(self.transition, 0.0)
        inner = sum(self.cost(self.transition, sigma) for sigma in self.sigmas[1:])
        return self.cost(None, self.sigmas[0]) + inner

    def cost(self, transition: Transition | Whole | None, to: float) -> int:
        """Return the evaluations of one draw (None: a start) that arrives at `to`."""
        return self.problem.cost(transition, to)

    def move_cost(self, move: Move) -> int:
        """Return the evaluations of a move; its transition defaults to the sampler's."""
        transition = move.transition or self.transition
        if isinstance(transition, Mix):
            return 0
        if move.parent is None and not isinstance(transition, Whole):
            return self.cost(None, move.to)
        return self.cost(transition, move.to)

    def way(self, sigmas: Sequence[float], left: int) -> tuple[tuple[float, ...], Transition]:
        """Return how a plain sample goes on when only so many evaluations are left.

        Args:
            sigmas: Where it is, and what was to follow, ending with 0.
            left: Evaluations that its steps may take.

        Returns:
            The sigmas that follow, as many as fit, and the transition: the sampler's own, or a jump
            to the prediction where not even one of its steps fits.

        Raises:
            TypeError: A sampler that is run whole.
        """
        if isinstance(self.transition, Whole):
            raise TypeError(f"{self.transition.name} takes no steps of its own; see whole()")
        fits, over = 0, len(sigmas)
        while over - fits > 1:
            steps = (fits + over) // 2
            price = sum(self.cost(self.transition, to) for to in spread(sigmas, steps)[1:])
            fits, over = (steps, over) if price <= left else (fits, steps)
        return (spread(sigmas, fits)[1:], self.transition) if fits else ((0.0,), ODE)

    def whole(self, sampler: Whole, left: int) -> Whole:
        """Return a whole run of the sampler that fits, on fewer sigmas if need be, at least two.

        Args:
            sampler: The connected sampler.
            left: Evaluations that it may take.

        Returns:
            The sampler on the run's own sigmas, or on thinned ones.
        """
        fits, over = 0, len(self.sigmas)
        if self.cost(sampler, 0.0) <= left:
            return sampler
        while over - fits > 1:
            steps = (fits + over) // 2
            fewer = Whole(sampler.name, spread(self.sigmas, steps))
            fits, over = (steps, over) if self.cost(fewer, 0.0) <= left else (fits, steps)
        return Whole(sampler.name, spread(self.sigmas, max(1, fits)))

    def finish_path(self, sigma: float) -> tuple[float, ...]:
        """Return the sigmas by which a handle at sigma is finished, ending with 0."""
        if sigma <= 0.0:
            return ()
        if sigma not in self._paths:
            steps = self.strategy.finish_steps
            if steps is None:
                path = [s for s in self.sigmas if 0.0 < s < sigma]
            else:
                path = [sigma * (steps - i) / steps for i in range(1, steps)]
            self._paths[sigma] = (*path, 0.0)
        return self._paths[sigma]

    def finish_cost(self, sigma: float) -> int:
        """Return the ODE evaluations that finish a handle at sigma."""
        return max(0, len(self.finish_path(sigma)) - 1)

    def transition_json(self, transition: Transition | Whole | Mix) -> dict[str, Any]:
        """Return the transition's JSON, the same dict for the same transition."""
        if transition not in self._json:
            self._json[transition] = transition.to_json()
        return self._json[transition]

    def random(self, item: int, *key: int) -> Random:
        """Return a generator that is a pure function of seed, item and key."""
        parts = (self.seed, self.identities[item], *key)
        data = b"".join(struct.pack("<Q", part % 2**64) for part in parts)
        return Random(hashlib.blake2b(data, digest_size=16).digest())

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint must match."""
        return {
            "schema": SCHEMA,
            "strategy": self.strategy.to_json(),
            "sigmas": list(self.sigmas),
            "transition": self.transition_json(self.transition),
            "seed": self.seed,
            "items": [[item, self.identities[item]] for item in self.items],
            "reward": self.problem.reward_name,
            "chains": self.chains,
            "top_k": self.top_k,
        }


def spread(sigmas: Sequence[float], steps: int) -> tuple[float, ...]:
    """Return steps + 1 sigmas of a list: its first, its last, and what lies evenly between.

    Evenly by index, which is how schedulers shorten a list: it keeps the schedule's own density.

    Args:
        sigmas: Falling sigmas.
        steps: Steps to keep, at least 1.

    Returns:
        The sigmas kept.
    """
    last = len(sigmas) - 1
    return tuple(sigmas[(2 * i * last + steps) // (2 * steps)] for i in range(steps + 1))


def thin(path: Sequence[float], evaluations: int) -> tuple[float, ...]:
    """Return a path to 0 with at most this many inner sigmas, evenly picked.

    Args:
        path: Falling sigmas, the last one 0.
        evaluations: Inner sigmas to keep.

    Returns:
        The thinned path, ending with 0.
    """
    inner = path[:-1]
    keep = max(0, min(evaluations, len(inner)))
    picked = [inner[((2 * i + 1) * len(inner)) // (2 * keep)] for i in range(keep)]
    return (*picked, 0.0)


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
