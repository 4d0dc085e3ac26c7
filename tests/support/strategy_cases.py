"""Strategies for the laws that all of them obey: with their defaults, or as the rows here say."""

from dataclasses import dataclass, field
from typing import Any

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

RBF = RolloverBudgetForcing


@dataclass(frozen=True)
class Case:
    """A strategy, and with what its interrupted and continued runs are made."""

    strategy: Any
    chains: int = 1
    budget: Budget = field(default_factory=lambda: Budget(40))


CASES = {
    "best_of_n": Case(BestOfN(width=2)),
    "best_of_5": Case(BestOfN(candidates=5, plain=False)),
    "evolutionary": Case(EvolutionarySearch()),
    "evolutionary_wide": Case(
        EvolutionarySearch(
            width=3, levels=1, steps=3, mixes=3, fresh=False, plain=False, finish_steps=2
        ),
        chains=2,
        budget=Budget(70, target=-0.3),
    ),
    "rbf": Case(RBF()),
    "rbf_many_passes": Case(RBF(draws=3, finalists=2), 2, Budget(150, top=10.0)),
    "rbf_never": Case(RBF(draws=4, accept="never"), 2, Budget(70, target=-0.35)),
    "rbf_threshold": Case(
        RBF(draws=6, accept="threshold", threshold=-1.0, exhausted="restart"),
        2,
        Budget(120, rows=45),
    ),
    "rbf_pool": Case(
        RBF(pool=7, width=3, passes=2, plain=False, finish_steps=5),
        budget=Budget(40, reward_calls=25),
    ),
    "svdd": Case(SVDD(candidates=3, finalists=2), 2, Budget(50)),
    "svdd_shared_out": Case(SVDD(candidates=0, finalists=3, finish_steps=2)),
    "code": Case(CoDe(candidates=0, width=2, sigma_low=0.0), budget=Budget(40, target=-0.2)),
    "code_to_the_end": Case(CoDe(block=3, candidates=0, sigma_low=0.0, plain=False)),
    "the_whole_way": Case(CoDe(block=0, candidates=0)),
    "smc": Case(SequentialMonteCarlo(particles=3, strength=3.0)),
    "smc_max": Case(
        SequentialMonteCarlo(particles=2, potential="max", resample="always", plain=False),
        2,
        Budget(54),
    ),
    "search_over_paths": Case(SearchOverPaths(starts=2, up=0.5, down=0.56), budget=Budget(60)),
    "search_over_paths_legs": Case(SearchOverPaths(leg=4, starts=3, keep=3, finish_steps=1)),
    "zero_order": Case(ZeroOrderSearch(candidates=3, width=2, widen=1.5), 2, Budget(60)),
    "zero_order_wider": Case(ZeroOrderSearch(candidates=2, widen=1.7, plain=False)),
}
_WITH_ROWS = {type(case.strategy) for case in CASES.values()}
CASES |= {name: Case(cls()) for name, cls in STRATEGIES.items() if cls not in _WITH_ROWS}
