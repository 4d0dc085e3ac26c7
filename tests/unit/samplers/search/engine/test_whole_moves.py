"""What a strategy may ask of a sampler that is run whole."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from flowsearch.samplers.search import Budget, Move, Search, SearchSettings, Whole
from flowsearch.samplers.search.settings import Settings
from flowsearch.samplers.search.testing import MixtureProblem

SIGMAS = (1.0, 0.6, 0.3, 0.0)


@dataclass(frozen=True)
class Stepwise(Settings):
    """Steps down whatever the sampler is."""

    name: ClassVar[str] = "stepwise"
    plain: bool = False
    finish_steps: int | None = None
    score_below: float = 0.0
    target_stop: bool = True

    def check(self, sigmas, transition):
        """Accept everything."""

    def search(self, spec):
        node = None
        for step, to in enumerate(spec.sigmas):
            (node,) = yield [Move(node, to, (step,))]
        return [node]


def test_a_step_of_a_sampler_that_is_run_whole_is_refused():
    """Unrefused it was charged 18 evaluations of 21."""
    problem = MixtureProblem()
    search = Search(problem, SearchSettings(Stepwise(), SIGMAS, Whole("euler"), Budget(20)))
    with pytest.raises(RuntimeError, match=r"stepwise asked the sampler euler .*Move\(None, 0.0"):
        search.run()
    assert problem.rows.get(0, 0) == 0
