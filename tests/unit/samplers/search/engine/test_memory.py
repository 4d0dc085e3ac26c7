"""Tensors live while a strategy can still use them, and no longer."""

import gc
from dataclasses import dataclass

import pytest
import torch
from toy import SIGMAS, Toy, make_search

from flowsearch.samplers.search import (
    STRATEGIES,
    SVDD,
    BestOfN,
    Budget,
    CoDe,
    EvolutionarySearch,
    RolloverBudgetForcing,
    SearchOverPaths,
    SequentialMonteCarlo,
    ZeroOrderSearch,
)
from flowsearch.samplers.search.protocol import Move
from flowsearch.samplers.stepping.transition import ODE, fixed_q

RBF = RolloverBudgetForcing


SHORT = [1.0, 0.85, 0.7, 0.0]


class Counting(Toy):
    """Counts the rows that are alive whenever the model is called."""

    dim = 7  # a width no other tensor has

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0

    def model(self, items, x, sigma):
        alive = sum(
            len(value)
            for value in gc.get_objects()
            if type(value) is torch.Tensor and value.ndim == 2 and value.shape[1] == self.dim
        )
        self.peak = max(self.peak, alive)
        for item in items:
            self.rows[item] = self.rows.get(item, 0) + 1
        self.calls.append(len(x))
        return x * (1.0 - sigma)

    def score(self, items, denoised, sigmas):
        return super().score(items, denoised[:, :4], sigmas)


def peak(strategy, evaluations, chains=1, top=None, sigmas=SIGMAS):
    toy = Counting()
    budget = Budget(evaluations, top=top)
    search = make_search(toy, strategy, sigmas, ODE, budget, chains=chains, rows_per_call=4)
    gc.freeze()  # what was there before is not looked at again
    try:
        search.run()
    finally:
        gc.unfreeze()
    return toy.peak


@pytest.mark.parametrize(
    ("strategy", "chains"),
    [
        (BestOfN(), 2),
        (EvolutionarySearch(), 2),
        (EvolutionarySearch(width=3), 1),
        (RBF(), 2),
        (RBF(draws=4, finalists=3), 1),
        (RBF(passes=3, pool=12), 2),
        (RBF(accept="never"), 2),
        (SVDD(candidates=0), 1),
        (SVDD(), 2),
        (CoDe(candidates=0, block=3), 2),
        (SearchOverPaths(candidates=4), 2),
        (ZeroOrderSearch(candidates=8), 2),
    ],
)
def test_live_tensors_do_not_grow_with_the_budget(strategy, chains):
    small = peak(strategy, 200, chains=chains)
    room = 2 * (strategy.width + 2 * len(SIGMAS)) * chains  # a candidate more on its way, each
    assert peak(strategy, 350, chains=chains) <= small + room
    # x and denoised of: the request and its parent, the pool's or step's best, the best ever, the
    # finalists, the plain sample and the winner, and what one call makes on the way; each with its
    # path from the last start or upward move; and the mixes
    path, mixes = 2 * len(SIGMAS), 6 * getattr(strategy, "mixes", 0)
    live = (2 + path) * (2 * strategy.width + 6) + mixes
    assert small <= chains * live + 24


@pytest.mark.parametrize("particles", [4, 8])
def test_more_budget_gives_more_passes_of_the_same_particles(particles):
    settings = SequentialMonteCarlo(particles=particles)
    small = peak(settings, 20 * particles)
    assert peak(settings, 120 * particles) <= small + 8 * particles
    # x and denoised of all particles and of their parents, which are moved in calls of 4, and paths
    assert small <= (2 + 2 * len(SIGMAS)) * (2 * particles + 6) + 24


@pytest.mark.parametrize("strategy", [cls() for cls in STRATEGIES.values()], ids=list(STRATEGIES))
def test_eight_hundred_evaluations_hold_what_fifty_hold(strategy):
    """On sigmas so few that fifty evaluations are a pass of every strategy; but for a candidate.

    What that is of a process, benchmarks/memory.py says.
    """
    few, many = (peak(strategy, evaluations, sigmas=SHORT) for evaluations in (50, 800))
    assert many <= few + 2 * len(SHORT)


def test_calibrating_holds_four_samples_at_once():
    """Fifty evaluations are too few for it; a hundred calibrate on one group of four."""
    few = peak(BestOfN(), 100, top=5.0)
    assert peak(BestOfN(), 2000, top=5.0) <= few + 2 * len(SIGMAS)


@dataclass(frozen=True)
class Pinning:
    """The mutant: it keeps every node it was ever sent."""

    name = "pinning"
    plain = False
    finish_steps = None
    score_below = 0.0
    target_stop = True
    pins: bool = True

    def check(self, sigmas, transition):
        pass

    def to_json(self):
        return {"strategy": self.name}

    def search(self, spec):
        kept = []
        for number in range(200):
            if spec.remaining() < 12:
                break
            nodes = yield [Move(None, 1.0, (number, row), score=False) for row in range(2)]
            if self.pins:
                kept.append(nodes)
            del nodes
        return []


def test_a_frame_pins_its_locals_and_nothing_else():
    loose, pinned = peak(Pinning(pins=False), 300), peak(Pinning(), 300)
    assert loose < 60
    assert pinned > 400


@dataclass(frozen=True)
class Helped(Pinning):
    """A helper that consumes its list lets go of it; `yield from helper(nodes)` alone does not."""

    consumes: bool = True

    def search(self, spec):
        nodes = yield [Move(None, 1.0, (0, row), score=False) for row in range(20)]
        count = len(nodes)
        yield from self.descend(nodes if self.consumes else [*nodes])
        assert len(nodes) == (0 if self.consumes else count)
        return []

    def descend(self, nodes):
        for step in range(8):
            moves = [
                # never down, so that a child's path does not hold its parent
                Move(node, 1.0, (1 + step, row), fixed_q(0.5), score=False)
                for row, node in enumerate(nodes)
            ]
            nodes.clear()
            nodes = yield moves
            del moves


def test_a_helper_that_consumes_its_list_lets_go():
    assert peak(Helped(), 400) + 30 < peak(Helped(consumes=False), 400)
