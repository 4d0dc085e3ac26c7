"""Search at sampling time: strategies over handles, one engine, one ledger.

A strategy (strategies/) decides which candidates live and never sees a tensor; protocol.py is what
it says and hears. The engine (engine/) owns tensors, model calls, budget, finishing and
checkpoints, and account/ is what it tells of a search. A problem is the model and the reward. A new
strategy is one file and one row of STRATEGIES.
"""

from collections.abc import Mapping
from typing import Any

from .account.events import Chosen, Evaluated, Event, Finished, Started, Stopped
from .account.trace import Trace
from .engine.checkpoint import Unreadable
from .engine.ledger import Budget, Ledger
from .engine.memory import moved
from .engine.search import ItemOutcome, Outcome, Search, Winner
from .engine.settings import SearchSettings
from .protocol import (
    Checkpoint,
    DecodeError,
    ModelError,
    Move,
    Node,
    Problem,
    RewardError,
    Scores,
    Spec,
    State,
    Stop,
    Strategy,
    Whole,
)
from .recombination import Mix
from .strategies.evolutionary import EvolutionarySearch
from .strategies.greedy import SVDD, BestOfN, CoDe
from .strategies.rollover import RolloverBudgetForcing
from .strategies.search_over_paths import SearchOverPaths
from .strategies.smc import SequentialMonteCarlo
from .strategies.zero_order import ZeroOrderSearch

__all__ = [
    "STRATEGIES",
    "SVDD",
    "BestOfN",
    "Budget",
    "Checkpoint",
    "Chosen",
    "CoDe",
    "DecodeError",
    "Evaluated",
    "Event",
    "EvolutionarySearch",
    "Finished",
    "ItemOutcome",
    "Ledger",
    "Mix",
    "ModelError",
    "Move",
    "Node",
    "Outcome",
    "Problem",
    "RewardError",
    "RolloverBudgetForcing",
    "Scores",
    "Search",
    "SearchOverPaths",
    "SearchSettings",
    "SequentialMonteCarlo",
    "Spec",
    "Started",
    "State",
    "Stop",
    "Stopped",
    "Strategy",
    "Trace",
    "Unreadable",
    "Whole",
    "Winner",
    "ZeroOrderSearch",
    "moved",
    "strategy_from_json",
]

STRATEGIES = {
    cls.name: cls
    for cls in (
        EvolutionarySearch,
        RolloverBudgetForcing,
        BestOfN,
        SVDD,
        CoDe,
        SequentialMonteCarlo,
        SearchOverPaths,
        ZeroOrderSearch,
    )
}


def strategy_from_json(data: Mapping[str, Any]) -> Strategy:
    """Build the strategy that to_json() described.

    Args:
        data: Settings with the key "strategy".

    Returns:
        The strategy.

    Raises:
        ValueError: Unknown strategy or setting.

    Example:
        >>> strategy_from_json({"strategy": "best_of_n", "width": 2}).name
        'best_of_n'
    """
    name = data.get("strategy")
    if name not in STRATEGIES:
        raise ValueError(f"unknown strategy {name!r}; choose one of: {', '.join(STRATEGIES)}")
    return STRATEGIES[name].from_json(data)
