"""Does a reward keep the laws of all rewards? Tests to inherit, for this pack and for others.

    import pytest
    from flowsearch.rewards.testing import RewardLaws

    class TestRedness(RewardLaws):
        @pytest.fixture
        def reward(self):
            return Redness()

        @pytest.fixture
        def other(self):
            return None  # it has no prompt

laws.py and gradient_laws.py hold the laws, each a test that says what is broken. Nothing of the
pack imports this package, and beside its sibling for searches no other imports pytest.
docs/REWARDS.md says how another pack finds it.
"""

from .gradient_laws import GradientLaws, doubled
from .laws import MOST_NOTE, MOST_PARTS, RewardLaws
from .rows import EXAMPLES, clips, pictures, sounds

__all__ = [
    "EXAMPLES",
    "MOST_NOTE",
    "MOST_PARTS",
    "GradientLaws",
    "RewardLaws",
    "clips",
    "doubled",
    "pictures",
    "sounds",
]
