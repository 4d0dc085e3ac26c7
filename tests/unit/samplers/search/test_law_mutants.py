"""Mutants: every law of strategies and problems is broken by one made for it."""

import random
from dataclasses import dataclass, replace

import pytest
import torch

from flowsearch.samplers.search import BestOfN, Budget, Move, Scores, Stop
from flowsearch.samplers.search.testing import MixtureProblem, ProblemLaws, StrategyLaws
from flowsearch.samplers.search.testing.mixture import rare_mode_gradient
from flowsearch.samplers.stepping.guidance import Guidance
from flowsearch.samplers.stepping.transition import ODE


@dataclass(frozen=True)
class Best(BestOfN):
    """Keeps every law; the others break one each."""

    candidates: int = 3


@dataclass(frozen=True)
class Unnamed(Best):
    def to_json(self):
        return {"candidates": self.candidates}


@dataclass(frozen=True)
class Forgetful(Best):
    def to_json(self):
        return {"strategy": self.name, "width": 7}


@dataclass(frozen=True)
class Curt(Best):
    def check(self, sigmas, transition):
        raise ValueError("no")


@dataclass(frozen=True)
class Spendthrift(Best):
    """Takes for granted what a budget of one evaluation does not hold."""

    def search(self, spec):
        spec.plain()[-2]
        return (yield from super().search(spec))


@dataclass(frozen=True)
class Dicing(Best):
    """Decides by a generator of the process."""

    def search(self, spec):
        random.random()
        return (yield from super().search(spec))


RUNS = []


@dataclass(frozen=True)
class Remembering(Best):
    """Decides by what ran before."""

    def search(self, spec):
        RUNS.append(spec)
        return (yield from replace(self, candidates=1 + len(RUNS) % 3).search_as(spec))

    def search_as(self, spec):
        return (yield from Best.search(self, spec))


@dataclass(frozen=True)
class Spread(Best):
    """Divides by the spread of its scores."""

    def search(self, spec):
        nodes = yield from super().search(spec)
        low, high = min(n.score for n in nodes), max(n.score for n in nodes)
        return sorted(nodes, key=lambda n: (high - n.score) / (high - low))


@dataclass(frozen=True)
class Tensors(Best):
    def search(self, spec):
        scores = torch.zeros(3)
        nodes = yield from super().search(spec)
        return nodes if float(scores.sum()) < 1.0 else []


@dataclass(frozen=True)
class Stubborn(Best):
    """Asks again when it is told to stop."""

    def search(self, spec):
        number = 0
        while True:
            number += 1
            try:
                yield [Move(None, spec.sigmas[0], (number,), score=False)]
            except Stop:
                yield [Move(None, spec.sigmas[0], (-number,), score=False)]


@dataclass(frozen=True)
class Secretive(Best):
    """Refuses what it cannot use without saying why."""

    def check(self, sigmas, transition):
        if transition.guidance is not None:
            raise ValueError("no")


STRATEGIES = {
    "test_its_settings_are_json_both_ways": [Unnamed(), Forgetful()],
    "test_what_cannot_help_is_refused_in_words": [Curt()],
    "test_any_budget_gives_a_picture_and_is_not_exceeded": [Spendthrift()],
    "test_it_repeats": [Dicing(), Remembering()],
    "test_what_is_computed_together_changes_nothing": [Remembering()],
    "test_ties_and_huge_values_are_rewards_too": [Spread()],
    "test_it_sees_no_tensor": [Tensors()],
    "test_it_ends_when_it_is_told_to": [Stubborn()],
    "test_it_goes_on_where_it_was_interrupted": [Remembering()],
    "test_more_budget_goes_on": [Remembering()],
    "test_gradients_are_counted_and_a_guided_run_goes_on": [Remembering(), Secretive()],
}
OF_THE_ENGINE = {  # no strategy can break them; tests of the engine have mutants of it
    "test_a_limit_of_reward_calls_is_kept",
    "test_a_score_that_is_no_number_ends_it_in_words",
}


def laws(cls):
    return {name for name in vars(cls) if name.startswith("test_")}


def arguments(law, has):
    code = law.__func__.__code__
    return {key: has[key] for key in code.co_varnames[1 : code.co_argcount]}


def obey_strategy(name, strategy):
    law = getattr(StrategyLaws(), name)
    make = StrategyLaws.search.__wrapped__
    search = make(StrategyLaws(), strategy, ODE, Budget(40), 1)
    guidance = Guidance("mean_shift", 0.5, look_ahead=1)
    has = {"strategy": strategy, "search": search, "budget": Budget(40)}
    law(**arguments(law, {**has, "transition": ODE, "guidance": guidance}))


def test_every_law_of_strategies_has_a_mutant():
    assert laws(StrategyLaws) == {*STRATEGIES} | OF_THE_ENGINE


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_that_breaks_a_law_is_seen(name):
    for mutant in STRATEGIES[name]:
        RUNS.clear()
        with pytest.raises((AssertionError, RuntimeError, IndexError, ZeroDivisionError)):
            obey_strategy(name, mutant)


class Nameless(MixtureProblem):
    reward_name = ""


class Grasping(MixtureProblem):
    interrupts = (Exception,)


class Shared(MixtureProblem):
    def identity(self, item):
        return 7


class Cheap(MixtureProblem):
    def cost(self, transition, to):
        return 1


class Loud(MixtureProblem):
    """Noise of the wrong size."""

    def noise(self, seed, items, keys):
        found = super().noise(seed, items, keys)
        return {purpose: 2.0 * found[purpose] for purpose in ("start", "move")}


class Ordered(MixtureProblem):
    """Noise that depends on the place in the batch."""

    def noise(self, seed, items, keys):
        return super().noise(seed, items, [(*key, place) for place, key in enumerate(keys)])


class Constant(MixtureProblem):
    def noise(self, seed, items, keys):
        return super().noise(seed, items, [(1,)] * len(keys))


class Normalised(MixtureProblem):
    """Predictions depend on the batch."""

    def predict(self, items, state, sigma):
        found = super().predict(items, state, sigma)
        return {**found, "denoised": found["denoised"] - found["denoised"].mean(0)}


class Ranking(MixtureProblem):
    """Scores depend on the batch."""

    def score(self, items, denoised, sigmas):
        scores = super().score(items, denoised, sigmas)
        return [Scores(one.value / len(scores)) for one in scores]


class Writing(MixtureProblem):
    def score(self, items, denoised, sigmas):
        return super().score(items, denoised.mul_(0.5), sigmas)


class Moving(MixtureProblem):
    def predict(self, items, state, sigma):
        return super().predict(items, {**state, "x": 0.9 * state["x"]}, sigma)


class Wasteful(MixtureProblem):
    """Draws noise that nothing needs."""

    def move(self, items, state, sigma_from, to, transition, noise):
        noise["move"]
        return super().move(items, state, sigma_from, to, transition, noise)


class Short(MixtureProblem):
    """Never quite arrives."""

    def move(self, items, state, sigma_from, to, transition, noise):
        return super().move(items, state, sigma_from, max(to, 0.05), transition, noise)


class Endless(MixtureProblem):
    def score(self, items, denoised, sigmas):
        return [Scores(float("inf")) for _ in items]


class Missing(MixtureProblem):
    def score(self, items, denoised, sigmas):
        return super().score(items, denoised, sigmas)[:1]


class Uncounted(MixtureProblem):
    """Does not say what gradients it asked for."""

    def __init__(self):
        super().__init__(gradient=rare_mode_gradient)

    def move(self, *given):
        return {key: t for key, t in super().move(*given).items() if key != "gradients"}


class Deaf(Uncounted):
    """Takes the guidance away."""

    def move(self, items, state, sigma_from, to, transition, noise):
        moved = MixtureProblem.move(
            self, items, state, sigma_from, to, transition.guided(None), noise
        )
        asked = torch.ones(len(items), dtype=torch.int64)
        return {**moved, "gradients": asked} if transition.guidance else moved


class Together(MixtureProblem):
    """The gradient of a row depends on the rows beside it."""

    def __init__(self):
        super().__init__(gradient=self.summed)
        self.total = 0.0

    def summed(self, item, x):
        self.total = self.total + rare_mode_gradient(item, x)
        return self.total


PROBLEMS = {
    "test_a_guided_step_is_each_rows_own": [Uncounted, Deaf, Together],
    "test_it_says_what_the_engine_asks": [Nameless, Grasping],
    "test_every_item_has_a_key_of_its_own": [Shared],
    "test_a_draw_costs_its_prediction_and_inner_calls": [Cheap],
    "test_noise_is_a_function_of_item_key_and_purpose": [Ordered, Constant, Shared],
    "test_noise_is_standard_normal": [Loud],
    "test_a_row_is_itself_whatever_is_beside_it": [Normalised, Ranking, Ordered],
    "test_what_it_is_given_is_left_alone": [Writing, Moving],
    "test_a_step_to_0_without_noise_is_the_prediction": [Wasteful, Short],
    "test_every_row_has_a_finite_score": [Endless, Missing],
    "test_a_search_of_it_keeps_its_budget_and_chunks_decide_nothing": [Ordered],
}


def test_every_law_of_problems_has_a_mutant():
    assert laws(ProblemLaws) == {*PROBLEMS}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_that_breaks_a_law_is_seen(name):
    for mutant in PROBLEMS[name]:
        problem, every = mutant(), ProblemLaws()
        law = getattr(every, name)
        has = {"problem": problem}
        if "started" in law.__func__.__code__.co_varnames:
            has["started"] = ProblemLaws.started.__wrapped__(every, problem)
        with pytest.raises(AssertionError, match=r"\w"):
            law(**arguments(law, has))
