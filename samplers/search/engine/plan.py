"""What follows from the settings of a run: the price of things, paths to 0, keyed randomness."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from ...stepping.guidance import Guidance
from ...stepping.transition import ODE, Transition
from ..protocol import Move, Problem, Whole
from ..recombination import Mix
from .settings import SearchSettings

__all__ = ["Plan", "spread", "thin"]

SCHEMA = 2


class Plan:
    """A problem, the settings of a run, and what follows from both; immutable.

    Guidance comes with the connected sampler's transition, and is put on every step of the search
    here; the plain samples are taken without, for they are what the model does by itself.

    Attributes:
        problem: Model and reward.
        settings: Settings of the run.
        identities: Each item's key.
        guidance: How a reward's gradient steers the search; None for not at all.
        plain: The connected sampler's transition without it.
    """

    def __init__(self, problem: Problem, settings: SearchSettings) -> None:
        """Keep both.

        Args:
            problem: Model and reward.
            settings: Settings of the run.

        Raises:
            ValueError: The transition is guided, and the problem has no gradient.
        """
        own = settings.transition
        self.guidance: Guidance | None = None if isinstance(own, Whole) else own.guidance
        self.plain: Transition | Whole = own if isinstance(own, Whole) else own.guided(None)
        if self.guidance is not None and not getattr(problem, "has_gradient", False):
            raise ValueError(
                f"the sampler is guided ({self.guidance.method}) by the gradient of a reward, and "
                f"this search of {problem.reward_name} has none; connect a reward with a gradient "
                "to the guidance, or take a sampler without guidance"
            )
        self.problem = problem
        self.settings = settings
        self._paths: dict[float, tuple[float, ...]] = {}
        self._json: dict[Transition | Whole | Mix, dict[str, Any]] = {}
        self.identities = {item: problem.identity(item) for item in settings.items}

    @property
    def sample_cost(self) -> int:
        """Evaluations of one sample of the search, start to 0; of a Whole it is remeasured."""
        return self._path_cost(self.settings.transition, self.guidance)

    @property
    def plain_cost(self) -> int:
        """Evaluations of one plain sample."""
        return self._path_cost(self.plain, None)

    def _path_cost(self, transition: Transition | Whole, guidance: Guidance | None) -> int:
        if isinstance(transition, Whole):
            return self.problem.cost(transition, 0.0)
        start = self.cost(None, self.settings.sigmas[0]) + self._ascent_cost(guidance)
        return start + sum(self.cost(transition, sigma) for sigma in self.settings.sigmas[1:])

    def _ascent_cost(self, guidance: Guidance | None) -> int:
        """Return what turning a start takes beyond the start."""
        if guidance is None or not guidance.ascends:
            return 0
        return guidance.ascents * (1 + guidance.price)

    def guided(self, move: Move) -> Move:
        """Return a move of the search as it is computed: its transition named, and guided.

        Args:
            move: As a strategy asks for it; its transition defaults to the sampler's.

        Returns:
            The move. A start has a transition only where guidance turns it.
        """
        how, guidance = move.transition, self.guidance
        if isinstance(how, Mix):
            return move
        if move.parent is None and not isinstance(how or self.settings.transition, Whole):
            turns = guidance is not None and guidance.ascends and move.to > 0.0
            return replace(move, transition=ODE.guided(guidance) if turns else None)
        how = how or self.settings.transition
        if not isinstance(how, Whole):
            how = how.guided(None if guidance is None or guidance.ascends else guidance)
        return replace(move, transition=how)

    def cost(self, transition: Transition | Whole | None, to: float) -> int:
        """Return the evaluations of one draw (None: a start) that arrives at `to`."""
        return self.problem.cost(transition, to)

    def move_cost(self, move: Move) -> int:
        """Return the evaluations of a move of the search."""
        return self.price(self.guided(move))

    def price(self, move: Move) -> int:
        """Return the evaluations of a move as it is computed."""
        transition = move.transition
        if isinstance(transition, Mix):
            return 0
        if move.parent is None and not isinstance(transition, Whole):
            turned = None if transition is None else transition.guidance
            return self.cost(None, move.to) + self._ascent_cost(turned)
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
        own = self.plain
        if isinstance(own, Whole):
            raise TypeError(f"{own.name} takes no steps of its own; see whole()")
        fits, over = 0, len(sigmas)
        while over - fits > 1:
            steps = (fits + over) // 2
            price = sum(self.cost(own, to) for to in spread(sigmas, steps)[1:])
            fits, over = (steps, over) if price <= left else (fits, steps)
        return (spread(sigmas, fits)[1:], own) if fits else ((0.0,), ODE)

    def whole(self, sampler: Whole, left: int) -> Whole:
        """Return a whole run of the sampler that fits, on fewer sigmas if need be, at least two.

        Args:
            sampler: The connected sampler.
            left: Evaluations that it may take.

        Returns:
            The sampler on the run's own sigmas, or on thinned ones.
        """
        fits, over = 0, len(self.settings.sigmas)
        if self.cost(sampler, 0.0) <= left:
            return sampler
        while over - fits > 1:
            steps = (fits + over) // 2
            fewer = Whole(sampler.name, spread(self.settings.sigmas, steps))
            fits, over = (steps, over) if self.cost(fewer, 0.0) <= left else (fits, steps)
        return Whole(sampler.name, spread(self.settings.sigmas, max(1, fits)))

    def finish_path(self, sigma: float) -> tuple[float, ...]:
        """Return the sigmas by which a handle at sigma is finished, ending with 0."""
        if sigma <= 0.0:
            return ()
        if sigma not in self._paths:
            steps = self.settings.strategy.finish_steps
            if steps is None:
                path = [s for s in self.settings.sigmas if 0.0 < s < sigma]
            else:
                path = [sigma * (steps - i) / steps for i in range(1, steps)]
            self._paths[sigma] = (*path, 0.0)
        return self._paths[sigma]

    def finish_cost(self, sigma: float) -> int:
        """Return the evaluations that finish a handle at sigma."""
        return max(0, len(self.finish_path(sigma)) - 1) * self.finish_step

    @property
    def finish_step(self) -> int:
        """Evaluations of one step of a finishing; of the last one, to 0, none."""
        steered = None if self.guidance is None or self.guidance.ascends else self.guidance
        return 1 + ODE.guided(steered).calls(0.5)

    def transition_json(self, transition: Transition | Whole | Mix) -> dict[str, Any]:
        """Return the transition's JSON, the same dict for the same transition."""
        if transition not in self._json:
            self._json[transition] = transition.to_json()
        return self._json[transition]

    def random(self, item: int, *key: int) -> Random:
        """Return a generator that is a pure function of seed, item and key."""
        parts = (self.settings.seed, self.identities[item], *key)
        data = b"".join(struct.pack("<Q", part % 2**64) for part in parts)
        return Random(hashlib.blake2b(data, digest_size=16).digest())

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint must match."""
        return {
            "schema": SCHEMA,
            "strategy": self.settings.strategy.to_json(),
            "sigmas": list(self.settings.sigmas),
            "transition": self.transition_json(self.settings.transition),
            "seed": self.settings.seed,
            "items": [[item, self.identities[item]] for item in self.settings.items],
            "reward": self.problem.reward_name,
            "chains": self.settings.chains,
            "top_k": self.settings.top_k,
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
