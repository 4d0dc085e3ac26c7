"""What holds of every problem, the model and the reward of a search?

Rows are independent, noise is a function of integers, and what it says it costs is what it costs.
The engine relies on each: it computes rows together as memory allows, and again after an interrupt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ...stepping.guidance import Guidance
from ...stepping.transition import ODE, Transition, fixed_q
from .. import (
    BestOfN,
    Budget,
    Problem,
    RolloverBudgetForcing,
    Scores,
    Search,
    SearchSettings,
    State,
)
from .mixture import SIGMAS

__all__ = ["ProblemLaws"]

_KEYS = ((0, 0, 0, 1), (0, 0, 0, 2), (0, 1, 0, 1))


class ProblemLaws:
    """Tests of one problem. A subclass gives it by a fixture; the laws are the methods.

    Attributes:
        sigmas: Of the runs.
        items: Batch items it has, at least one.
        tolerance: Relative and absolute difference that counts as none: a network rounds otherwise
            in another batch.
    """

    sigmas: Sequence[float] = SIGMAS
    items: Sequence[int] = (0, 1)
    tolerance = 1e-5

    @pytest.fixture
    def problem(self) -> Problem:
        """Override: return the problem."""
        raise NotImplementedError("override the fixture problem: return the problem to be tested")

    @pytest.fixture
    def started(self, problem: Problem) -> State:
        """Return three starts of the first item, predicted."""
        return self.starts(problem, _KEYS)

    # ---- what it says of itself ----

    def test_it_says_what_the_engine_asks(self, problem: Problem) -> None:
        """A reward's name, whether it is paid and calls are shared, and what a cancel is."""
        assert isinstance(problem.reward_name, str), "reward_name is no text"
        assert problem.reward_name, "reward_name is empty"
        for name in ("reward_paid", "shares_calls"):
            assert isinstance(getattr(problem, name), bool), f"{name} is neither yes nor no"
        assert isinstance(problem.interrupts, tuple), "interrupts is no tuple of exceptions"
        for kind in problem.interrupts:
            assert issubclass(kind, BaseException), f"{kind} is no exception"
        assert not any(issubclass(ValueError, kind) for kind in problem.interrupts), (
            "a failure would be taken for a cancel: interrupts holds a class of every error"
        )
        assert all(isinstance(part, tuple) for part in problem.parts), "parts are no shapes"

    def test_every_item_has_a_key_of_its_own(self, problem: Problem) -> None:
        """64 bits, the same whenever asked."""
        found = [problem.identity(item) for item in self.items]
        assert found == [problem.identity(item) for item in self.items], "keys change"
        assert len({*found}) == len(found), f"items share a key: {found}"
        assert all(0 <= key < 2**64 for key in found), f"keys are not of 64 bits: {found}"

    def test_a_draw_costs_its_prediction_and_inner_calls(self, problem: Problem) -> None:
        """A start or a step that arrives above 0 is predicted; one that arrives at 0 is not."""
        for to in (self.sigmas[1], 0.0):
            assert problem.cost(None, to) == int(to > 0.0), f"a start at {to}"
            expected = int(to > 0.0) + ODE.calls(to)
            assert problem.cost(ODE, to) == expected, f"a step to {to} is {expected}"

    # ---- noise ----

    def test_noise_is_a_function_of_item_key_and_purpose(self, problem: Problem) -> None:
        """The same bits whenever and beside whatever they are drawn; others for anything else."""
        item, last = self.items[0], self.items[-1]
        for purpose in ("start", "move"):
            together = problem.noise(5, [item] * 3, _KEYS)[purpose]
            for key, row in zip(_KEYS, together, strict=True):
                alone = problem.noise(5, [item], [key])[purpose]
                assert torch.equal(alone[0], row), f"{purpose} {key} depends on its batch"
            assert _differ(*together), f"two keys have the same noise for {purpose}"
        starts, moves = (problem.noise(5, [item], _KEYS[:1])[p][0] for p in ("start", "move"))
        assert _differ(starts, moves), "start and move share their noise"
        if last != item:
            other = problem.noise(5, [last], _KEYS[:1])["move"][0]
            assert _differ(moves, other), "two items share their noise"

    def test_noise_is_standard_normal(self, problem: Problem) -> None:
        """Mean 0 and variance 1, to five standard errors of a thousand numbers or more."""
        count = 1 + 1000 // problem.noise(5, [self.items[0]], _KEYS[:1])["move"].numel()
        keys = [(0, 0, 7, row) for row in range(count)]
        drawn = problem.noise(5, [self.items[0]] * count, keys)["move"].double()
        n = drawn.numel()
        assert abs(float(drawn.mean())) < 5.0 / n**0.5, f"mean {float(drawn.mean())}"
        assert abs(float(drawn.var()) - 1.0) < 5.0 * (2.0 / n) ** 0.5, f"var {float(drawn.var())}"

    # ---- rows ----

    def test_a_row_is_itself_whatever_is_beside_it(self, problem: Problem, started: State) -> None:
        """Starts, predictions, steps with and without noise, and scores, alone as together."""
        alone = [self.starts(problem, [key]) for key in _KEYS]
        self.check(started, alone, "a start or its prediction")
        item, (sigma_from, to) = self.items[0], self.step
        for transition in (ODE, fixed_q(0.7)):
            moved = self.moved(problem, started, _KEYS, transition)
            rows = [
                self.moved(problem, _row(started, place), [key], transition)
                for place, key in enumerate(_KEYS)
            ]
            self.check(moved, rows, f"a step from {sigma_from} to {to}")
        clean = started["denoised"]
        together = [one.value for one in problem.score([item] * 3, clean, [sigma_from] * 3)]
        single = [problem.score([item], row[None], [sigma_from])[0].value for row in clean]
        assert self.same(torch.tensor(together), torch.tensor(single)), "scores depend on the batch"

    def test_a_guided_step_is_each_rows_own(self, problem: Problem, started: State) -> None:
        """Where its reward has a gradient: counted, and no business of the rows beside it."""
        if not getattr(problem, "has_gradient", False):
            return
        before = {key: value.clone() for key, value in started.items()}
        for guidance in (Guidance("noise_tilt"), Guidance("mean_shift", 0.3)):
            transition = fixed_q(0.7).guided(guidance)
            moved = self.moved(problem, started, _KEYS, transition)
            rows = [
                self.moved(problem, _row(started, place), [key], transition)
                for place, key in enumerate(_KEYS)
            ]
            self.check(moved, rows, f"a step guided by {guidance.method}")
            asked = moved.get("gradients")
            assert asked is not None, f"{guidance.method}: it does not say what gradients it asked"
            counts = [int(number) for number in asked]
            assert counts == [1] * 3, f"{guidance.method}: {counts} gradients of three rows"
            free = self.moved(problem, started, _KEYS, fixed_q(0.7))
            assert not self.same(moved["x"], free["x"]), f"{guidance.method} changes nothing"
        for key, value in before.items():
            assert torch.equal(started[key], value), f"a guided step wrote into {key}"

    def test_what_it_is_given_is_left_alone(self, problem: Problem, started: State) -> None:
        """States and clean latents are read, never written; a prediction keeps the rest."""
        before = {key: value.clone() for key, value in started.items()}
        predicted = problem.predict([self.items[0]] * 3, dict(started), self.step[0])
        self.moved(problem, started, _KEYS, fixed_q(0.7))
        problem.score([self.items[0]] * 3, started["denoised"], [0.0] * 3)
        for key, value in before.items():
            assert torch.equal(started[key], value), f"it wrote into {key}"
        assert torch.equal(predicted["x"], before["x"]), "a prediction moved x"
        assert predicted["denoised"].shape == before["x"].shape, "denoised is not like x"

    def test_a_step_to_0_without_noise_is_the_prediction(
        self, problem: Problem, started: State
    ) -> None:
        """And asks for none: noise is drawn when it is looked up."""
        items = [self.items[0]] * 3
        moved = problem.move(items, dict(started), self.step[0], 0.0, ODE, _NoNoise())
        assert self.same(moved["x"], started["denoised"]), "an ODE step to 0 is not the prediction"

    def test_every_row_has_a_finite_score(self, problem: Problem, started: State) -> None:
        """One Scores a row, finished or not, with a value that is a number."""
        for sigma in (self.step[0], 0.0):
            scores = problem.score([self.items[0]] * 3, started["denoised"], [sigma] * 3)
            assert len(scores) == 3, f"{len(scores)} scores of 3 rows"
            for one in scores:
                assert isinstance(one, Scores), f"a score is a {type(one).__name__}"
                assert abs(float(one.value)) < float("inf"), f"a score is {one.value}"
                assert isinstance(one.note, str), "a note is no text"

    # ---- a search of it ----

    def test_a_search_of_it_keeps_its_budget_and_chunks_decide_nothing(
        self, problem: Problem
    ) -> None:
        """Searches of it end in the same pictures, however many rows a call has."""
        for strategy in (BestOfN(candidates=2), RolloverBudgetForcing(draws=2, passes=1)):
            budget = Budget(3 * len(self.sigmas))
            settings = SearchSettings(
                strategy, tuple(self.sigmas), ODE, budget, items=tuple(self.items[:1])
            )
            ends = [
                Search(problem, replace(settings, rows_per_call=rows)).run().items[0]
                for rows in (1, 4)
            ]
            for end in ends:
                assert end.winners, f"{strategy.name} ends without a picture"
                assert end.ledger.evaluations <= budget.evaluations, "it costs more than it says"
            pictures = [end.winners[0].state["x"] for end in ends]
            assert self.same(*pictures), f"{strategy.name} ends otherwise with more rows a call"

    # ---- what the laws share ----

    @property
    def step(self) -> tuple[float, float]:
        """The step in the middle: at the first sigma every prediction is the same mean."""
        middle = (len(self.sigmas) - 1) // 2
        return self.sigmas[middle], self.sigmas[middle + 1]

    def starts(self, problem: Problem, keys: Sequence[tuple[int, ...]]) -> State:
        """Return starts of the first item in the middle of the run, predicted, one a key."""
        items, at = [self.items[0]] * len(keys), self.step[0]
        state = problem.start(items, at, problem.noise(5, items, keys))
        return _counted(problem.predict(items, state, at))

    def moved(
        self,
        problem: Problem,
        state: State,
        keys: Sequence[tuple[int, ...]],
        transition: Transition,
    ) -> State:
        """Return states of the first item after one step from there."""
        items, (sigma_from, to) = [self.items[0]] * len(keys), self.step
        noise = problem.noise(5, items, keys)
        return _counted(problem.move(items, dict(state), sigma_from, to, transition, noise))

    def check(self, together: State, alone: Sequence[State], what: str) -> None:
        """Refuse rows that differ from the same ones alone."""
        for key, value in together.items():
            single = torch.cat([state[key] for state in alone])
            assert self.same(value, single), f"{what} depends on its batch: {key} differs"

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Return whether two tensors are the same but for rounding."""
        a, b = a.double(), b.double()
        return torch.allclose(a, b, rtol=self.tolerance, atol=self.tolerance, equal_nan=True)


class _NoNoise(Mapping[str, Tensor]):
    """Noise that nobody may look up."""

    def __getitem__(self, purpose: str) -> Tensor:
        raise AssertionError(f"it draws noise for {purpose} where none is needed")

    def __iter__(self) -> Iterator[str]:
        return iter(("start", "move", "mix"))

    def __len__(self) -> int:
        return 3


def _row(state: State, place: int) -> State:
    return {key: value[place : place + 1] for key, value in state.items()}


def _counted(state: State) -> State:
    """The state without what was measured, which the engine takes out."""
    return {key: value for key, value in state.items() if key not in ("evaluations", "rows")}


def _differ(*rows: Tensor) -> bool:
    return all(not torch.equal(a, b) for i, a in enumerate(rows) for b in rows[:i])
