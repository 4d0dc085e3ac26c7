"""Do a strategy and a problem keep the laws of all? Tests to inherit, for this pack and for others.

    import pytest
    from flowsearch.samplers.search.testing import StrategyLaws

    class TestMySearch(StrategyLaws):
        @pytest.fixture
        def strategy(self):
            return MySearch()

strategy_laws.py and problem_laws.py hold the laws, each a test that says what is broken.
mixture.py is the exact small problem that strategies are tried on. Nothing of the pack imports this
package. docs/STRATEGIES.md says how another pack finds it.
"""

from .mixture import MixtureProblem
from .problem_laws import ProblemLaws
from .strategy_laws import StrategyLaws

__all__ = ["MixtureProblem", "ProblemLaws", "StrategyLaws"]
