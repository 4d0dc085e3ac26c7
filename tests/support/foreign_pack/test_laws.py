"""That pack's own tests, as docs/REWARDS.md and docs/STRATEGIES.md say."""

from dataclasses import dataclass

import pytest

from flowsearch.rewards.testing import RewardLaws
from flowsearch.samplers.search import BestOfN
from flowsearch.samplers.search.testing import MixtureProblem, ProblemLaws, StrategyLaws
from foreign_pack.brightness import Brightness, Contrast


class TestBrightness(RewardLaws):
    @pytest.fixture
    def reward(self):
        return Brightness()

    @pytest.fixture
    def other(self):
        return None  # it has no prompt


class TestContrast(RewardLaws):
    @pytest.fixture
    def reward(self):
        return Contrast()

    @pytest.fixture
    def other(self):
        return None


@dataclass(frozen=True)
class FewOfMany(BestOfN):
    """A strategy of theirs: three pictures, and no more."""

    name = "few_of_many"
    candidates: int = 3


class TestFewOfMany(StrategyLaws):
    @pytest.fixture
    def strategy(self):
        return FewOfMany()


class Shifted(MixtureProblem):
    """A problem of theirs: the same mixture, another reward."""

    reward_name = "shifted"

    def __init__(self):
        super().__init__(lambda item, x: float(x[0]) - item)


class TestShifted(ProblemLaws):
    @pytest.fixture
    def problem(self):
        return Shifted()
