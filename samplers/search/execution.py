"""How are moves computed? In as few calls as possible, each row as it would be alone.

Moves of a round are grouped by (item, from, to, transition, state keys), cut into chunks of
rows_per_call, moved, predicted and taken apart again; then everything that wants a score is scored
in one call an item. A chunk that does not fit into memory is halved and tried again; the plan is
recorded, because a network's bits may change with its batch.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..transition import Transition
from .protocol import Problem, RewardError, Scores, State, Whole

__all__ = ["Executor", "Job", "Result"]

_MEASURED = ("evaluations", "rows")


@dataclass(eq=False)
class Job:
    """One move, with its parent's tensors.

    Attributes:
        item: Batch item.
        fr: Parent's sigma; None for a start.
        to: Where it goes.
        at: Where a start begins: `to`, or the first sigma for Whole.
        transition: How; None for an ordinary start.
        key: Full noise key.
        state: The parent's state, one row; None for a start.
        score: Whether to score it.
        cost: What it is charged unless the problem measured something else.
    """

    item: int
    fr: float | None
    to: float
    at: float
    transition: Transition | Whole | None
    key: tuple[int, ...]
    state: State | None
    score: bool
    cost: int

    def __str__(self) -> str:
        """Name the candidate in messages."""
        return f"item {self.item}, key {self.key}, sigma {self.to:.4g}"


@dataclass(eq=False)
class Result:
    """What came of a job: one row of state, and what it took."""

    state: State
    evaluations: int
    rows: int
    call: int
    seconds: float
    scores: Scores | None = None


class Executor:
    """Computes jobs on a problem.

    Attributes:
        rows_per_call: Rows in one call; falls when memory runs out.
        plan: (calls made, rows_per_call) whenever it was set.
        calls: Calls made so far.
    """

    def __init__(self, problem: Problem, seed: int, rows_per_call: int) -> None:
        """Keep the problem.

        Args:
            problem: Model and reward.
            seed: Seed of the noise.
            rows_per_call: Rows in one call, at least 1.

        Raises:
            ValueError: rows_per_call below 1.
        """
        if rows_per_call < 1:
            raise ValueError(f"rows_per_call must be at least 1, got {rows_per_call}")
        self.problem = problem
        self.seed = seed
        self.rows_per_call = rows_per_call
        self.plan = [(0, rows_per_call)]
        self.calls = 0

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Compute the jobs of a round.

        Args:
            jobs: The jobs, in any order.

        Returns:
            Results, aligned with the jobs.

        Raises:
            RewardError: A reward raised or was not finite.
        """
        groups: dict[object, list[int]] = {}
        shares = self.problem.shares_calls
        for index, job in enumerate(jobs):
            keys = None if job.state is None else frozenset(job.state)
            group = (None if shares else job.item, job.fr, job.to, job.at, job.transition, keys)
            groups.setdefault(group, []).append(index)
        results: dict[int, Result] = {}
        for indices in groups.values():
            rows = self._group([jobs[index] for index in indices])
            results.update(zip(indices, rows, strict=True))
        ordered = [results[index] for index in range(len(jobs))]
        self._score(jobs, ordered)
        return ordered

    def _group(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Compute jobs that differ only in their rows, chunk by chunk."""
        done = 0
        while done < len(jobs):
            chunk = jobs[done : done + self.rows_per_call]
            try:
                rows = self._chunk(chunk)
            except torch.cuda.OutOfMemoryError:
                if len(chunk) == 1:
                    raise
                self.rows_per_call = (len(chunk) + 1) // 2
                self.plan.append((self.calls, self.rows_per_call))
                continue
            done += len(chunk)
            yield from rows

    def _chunk(self, jobs: Sequence[Job]) -> list[Result]:
        """Compute one call's worth of jobs."""
        begun = time.perf_counter()
        first, problem = jobs[0], self.problem
        items = [job.item for job in jobs]
        noise = problem.noise(self.seed, items, [job.key for job in jobs])
        if first.state is None:
            state, fr = problem.start(items, first.at, noise), first.at
        else:
            state, fr = _cat([job.state for job in jobs if job.state is not None]), first.fr or 0.0
            if fr == 0.0:
                state.setdefault("denoised", state["x"])
        measured: dict[str, list[int]] = {}
        if first.transition is not None:
            state = problem.move(items, state, fr, first.to, first.transition, noise)
            _measure(state, measured)
        if first.to > 0.0:
            state = problem.predict(items, state, first.to)
            _measure(state, measured)
        else:
            state = {key: value for key, value in state.items() if key != "denoised"}
        costs = measured.get("evaluations", [job.cost for job in jobs])
        rows = measured.get("rows", costs)
        call = self.calls if any(costs) else -1
        self.calls += call >= 0
        seconds = (time.perf_counter() - begun) / len(jobs)
        return [
            Result(row, cost, network, call, seconds)
            for row, cost, network in zip(_rows(state, len(jobs)), costs, rows, strict=True)
        ]

    def _score(self, jobs: Sequence[Job], results: Sequence[Result]) -> None:
        """Score what wants a score, in one call an item (or in all)."""
        calls: dict[int | None, list[int]] = {}
        for index, job in enumerate(jobs):
            if job.score:
                shared = None if self.problem.shares_calls else job.item
                calls.setdefault(shared, []).append(index)
        for indices in calls.values():
            begun = time.perf_counter()
            asked = [jobs[index] for index in indices]
            clean = [_clean(results[index].state, jobs[index].to) for index in indices]
            scores = self._ask(asked, clean)
            beside = sum(score.held_out_seconds for score in scores)
            seconds = (time.perf_counter() - begun - beside) / len(indices)
            for index, score in zip(indices, scores, strict=True):
                if not math.isfinite(score.value):
                    raise RewardError(
                        f"the reward {self.problem.reward_name} returned {score.value} for the "
                        f"candidate {jobs[index]}; a reward must be a finite number"
                    )
                results[index].scores = score
                results[index].seconds += seconds

    def _ask(self, jobs: Sequence[Job], clean: Sequence[Tensor]) -> list[Scores]:
        """Call the reward; if it raises, find the candidate that it raises for."""
        problem = self.problem
        try:
            scores = _scored(problem, jobs, clean)
        except (*problem.interrupts, torch.cuda.OutOfMemoryError):
            raise
        except Exception as cause:
            guilty, cause = self._blame(jobs, clean, cause)
            raise RewardError(
                f"the reward {problem.reward_name} raised {type(cause).__name__}: {cause} for the "
                f"candidate {'; '.join(map(str, guilty))}"
            ) from cause
        if len(scores) != len(jobs):
            raise RewardError(
                f"the reward {problem.reward_name} returned {len(scores)} scores for "
                f"{len(jobs)} pictures"
            )
        return scores

    def _blame(
        self, jobs: Sequence[Job], clean: Sequence[Tensor], cause: Exception
    ) -> tuple[Sequence[Job], Exception]:
        """Return the first job whose score alone raises, or all of them."""
        for job, row in zip(jobs, clean, strict=True):
            try:
                _scored(self.problem, [job], [row])
            except (*self.problem.interrupts, torch.cuda.OutOfMemoryError):
                raise
            except Exception as alone:  # noqa: BLE001 - it is reported, with its candidate
                return [job], alone
        return jobs, cause


def _scored(problem: Problem, jobs: Sequence[Job], clean: Sequence[Tensor]) -> list[Scores]:
    return problem.score([job.item for job in jobs], torch.cat([*clean]), [job.to for job in jobs])


def _clean(state: State, sigma: float) -> Tensor:
    return state["denoised"] if sigma > 0.0 else state["x"]


def _cat(states: Sequence[State]) -> State:
    if len(states) == 1:
        return dict(states[0])
    return {key: torch.cat([state[key] for state in states]) for key in states[0]}


def _rows(state: State, count: int) -> list[State]:
    """Take a state apart; each row owns its memory, or one survivor would keep them all."""
    for key, value in state.items():
        if value.shape[0] != count:
            raise ValueError(f"state {key!r} has {value.shape[0]} rows, {count} were asked for")
    if count == 1:
        return [state]
    return [{key: value[i : i + 1].clone() for key, value in state.items()} for i in range(count)]


def _measure(state: State, totals: dict[str, list[int]]) -> None:
    """Take the measured costs out of a state and add them up."""
    for key in _MEASURED:
        if key in state:
            values = [int(value) for value in state.pop(key)]
            before = totals.get(key, [0] * len(values))
            totals[key] = [a + b for a, b in zip(before, values, strict=True)]
