"""The analytic problem of the search tests, and one whose rewards are a list."""

from collections.abc import Sequence

from flowsearch.samplers.search import Search, SearchSettings
from flowsearch.samplers.search.protocol import Scores
from flowsearch.samplers.search.testing.mixture import (
    MEANS,
    SIGMAS,
    Interrupted,
    MemoryCheckpoint,
    rare_mode,
)
from flowsearch.samplers.search.testing.mixture import KeyedNoise as Noise
from flowsearch.samplers.search.testing.mixture import MixtureProblem as Toy

__all__ = [
    "MEANS",
    "SIGMAS",
    "Interrupted",
    "MemoryCheckpoint",
    "Noise",
    "Scripted",
    "Toy",
    "make_search",
    "rare_mode",
]


class Scripted(Toy):
    """Rewards come from a list, in the order in which pictures are scored."""

    def __init__(self, rewards: Sequence[float]) -> None:
        super().__init__()
        self.rewards = list(rewards)

    def score(self, items, denoised, sigmas):
        super().score(items, denoised, sigmas)
        return [Scores(self.rewards.pop(0)) for _ in items]


def make_search(problem, strategy, sigmas, transition, budget, **more):
    """A Search, its settings and its listeners said in one call."""
    own = {key: more.pop(key) for key in ("on_event", "checkpoint", "clock") if key in more}
    return Search(problem, SearchSettings(strategy, sigmas, transition, budget, **more), **own)
