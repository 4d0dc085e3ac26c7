"""Every strategy of ours, and the toy problem, obey the laws that other packs inherit too."""

import os

import pytest
from strategy_cases import CASES

from flowsearch.samplers.search.testing import MixtureProblem, ProblemLaws, StrategyLaws
from flowsearch.samplers.search.testing.mixture import rare_mode_gradient


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]


class TestStrategy(StrategyLaws):
    interrupts = 10**6 if "FLOWSEARCH_SOAK" in os.environ else 3

    @pytest.fixture
    def strategy(self, case):
        return case.strategy

    @pytest.fixture
    def budget(self, case):
        return case.budget

    @pytest.fixture
    def chains(self, case):
        return case.chains


class TestMixtureProblem(ProblemLaws):
    tolerance = 1e-12

    @pytest.fixture(params=[True, False])
    def problem(self, request):
        return MixtureProblem(shares_calls=request.param, gradient=rare_mode_gradient)
