"""How are moves computed? In as few calls as possible, each row as it would be alone.

Moves of a round are grouped by (item, from, to, transition, state keys), cut into chunks of
rows_per_call, moved, predicted and taken apart again; then everything that wants a score is scored
in one call an item. A chunk that does not fit into memory is halved and tried again; the plan is
recorded, because a network's bits may change with its batch. Scoring is halved likewise.

What goes wrong with one candidate (a reward that raises, a prediction that is not finite) is the
fault of its item: the others' moves are computed all the same. A start that guidance turns is
predicted and moved at its sigma, several times, before it is predicted at last.
"""

import math
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...stepping.guidance import GradientError
from ...stepping.transition import RENOISE, Transition
from ..protocol import DecodeError, ModelError, Problem, RewardError, Scores, State, Whole
from ..recombination import Mix, exchanged

__all__ = ["Executor", "Faults", "Job", "Result", "clean_of"]

Faults = dict[int, Exception]
"""Item -> what went wrong with it."""

_MEASURED = ("evaluations", "rows", "gradients")


@dataclass(eq=False)
class Job:
    """One move, with its parent's tensors.

    Attributes:
        item: Batch item.
        sigma_from: Parent's sigma; None for a start.
        to: Where it goes.
        at: Where a start begins: `to`, or the first sigma for Whole.
        transition: How; None for an ordinary start.
        key: Full noise key.
        state: The parent's state, one row; None for a start; the clean latents x and donor for a
            Mix.
        score: Whether to score it.
        cost: What it is charged unless the problem measured something else.
    """

    item: int
    sigma_from: float | None
    to: float
    at: float
    transition: Transition | Whole | Mix | None
    key: tuple[int, ...]
    state: State | None
    score: bool
    cost: int

    def __str__(self) -> str:
        """Name the candidate in messages."""
        return f"item {self.item}, key {self.key}, sigma {self.to:.4g}"


@dataclass(eq=False)
class Result:
    """What came of a job: one row of state, what it took, and the log weight of its draw.

    Seconds include score_seconds.
    """

    state: State
    evaluations: int
    rows: int
    call: int
    seconds: float
    score_seconds: float = 0.0
    scores: Scores | None = None
    gradients: int = 0
    log_weight: float = 0.0


class Executor:
    """Computes jobs on a problem.

    Attributes:
        rows_per_call: Rows in one call; falls when memory runs out.
        scores_per_call: Pictures scored together; 0 for all, until memory runs out.
        plan: (calls made, rows_per_call) whenever it was set.
        calls: Calls made so far.
        repeated: Item to pictures that were scored in vain, in a call that failed or to find out
            which picture of it was to blame; whoever charges them takes them out.
    """

    def __init__(self, problem: Problem, seed: int, rows_per_call: int) -> None:
        """Keep the problem.

        Args:
            problem: Model and reward.
            seed: Seed of the noise.
            rows_per_call: Rows in one call, at least 1.
        """
        self.problem = problem
        self.seed = seed
        self.rows_per_call = rows_per_call
        self.scores_per_call = 0
        self.plan = [(0, rows_per_call)]
        self.calls = 0
        self.repeated: Counter[int] = Counter()

    def run(self, jobs: Sequence[Job]) -> tuple[list[Result | None], Faults]:
        """Compute the jobs of a round.

        Args:
            jobs: The jobs, in any order.

        Returns:
            Results, aligned with the jobs, and what went wrong by item; an item with a fault may
            lack results.
        """
        groups: dict[object, list[int]] = {}
        shares = self.problem.shares_calls
        for index, job in enumerate(jobs):
            keys = None if job.state is None else frozenset(job.state)
            group = (
                None if shares else job.item,
                job.sigma_from,
                job.to,
                job.at,
                job.transition,
                keys,
            )
            groups.setdefault(group, []).append(index)
        results: list[Result | None] = [None] * len(jobs)
        faults: Faults = {}
        for indices in groups.values():
            done = 0
            while done < len(indices):
                chunk = indices[done : done + self.rows_per_call]
                if self._computed(jobs, chunk, results, faults):
                    done += len(chunk)
        self._score(jobs, results, faults)
        for fault in faults.values():
            _let_go(fault)
        return results, faults

    def _computed(
        self,
        jobs: Sequence[Job],
        chunk: Sequence[int],
        results: list[Result | None],
        faults: Faults,
    ) -> bool:
        """Compute a chunk into results, or note its fault; False: try again with fewer rows."""
        live = [index for index in chunk if jobs[index].item not in faults]
        if not live:
            return True
        try:
            rows = self._chunk([jobs[index] for index in live])
        except self.problem.interrupts:
            raise
        except Exception as fault:  # noqa: BLE001 - the engine raises it when the others are done
            if isinstance(fault, torch.cuda.OutOfMemoryError) and len(live) > 1:
                self.rows_per_call = (len(live) + 1) // 2
                self.plan.append((self.calls, self.rows_per_call))
                return False
            if isinstance(fault, GradientError) and 0 <= fault.row < len(live):
                job = jobs[live[fault.row]]
                faults[job.item] = _gradient_error(job, self.problem.reward_name, fault)
                return False  # what is left of the chunk is computed without that item
            faults.update({jobs[index].item: fault for index in live})
            return True
        for index, row in zip(live, rows, strict=True):
            name = _not_finite(row.state)
            if name:
                faults.setdefault(jobs[index].item, _model_error(jobs[index], name))
            results[index] = row
        return True

    def _chunk(self, jobs: Sequence[Job]) -> list[Result]:
        """Compute one call's worth of jobs."""
        begun = time.perf_counter()
        first, problem = jobs[0], self.problem
        items = [job.item for job in jobs]
        noise = problem.noise(self.seed, items, [job.key for job in jobs])
        if first.state is None:
            state, sigma = problem.start(items, first.at, noise), first.at
        else:
            state = _cat([job.state for job in jobs if job.state is not None])
            sigma = first.sigma_from or 0.0
            if sigma == 0.0:
                state.setdefault("denoised", state["x"])
        measured: dict[str, list[int]] = {}
        log_weights = [0.0] * len(jobs)
        mixed: Tensor | None = None
        how = first.transition
        if isinstance(how, Transition) and first.state is None:
            state, how = self._ascended(items, state, sigma, how, noise, measured), None
        if isinstance(how, Mix):
            mixed = exchanged(state["x"], state["donor"], noise["mix"], how.share, problem.parts)
            state, how = {"x": mixed, "denoised": mixed}, RENOISE
        if how is not None:
            state = problem.move(items, state, sigma, first.to, how, noise)
            _measure(state, measured)
            if "log_weight" in state:
                log_weights = [float(value) for value in state.pop("log_weight")]
        if mixed is not None:
            state = {**state, "denoised": mixed}
        elif first.to > 0.0:
            state = problem.predict(items, state, first.to)
            _measure(state, measured)
        else:
            state = {key: value for key, value in state.items() if key != "denoised"}
        costs = measured.get("evaluations", [job.cost for job in jobs])
        rows = measured.get("rows", costs)
        gradients = measured.get("gradients", [0] * len(jobs))
        call = self.calls if any(costs) else -1
        self.calls += call >= 0
        seconds = (time.perf_counter() - begun) / len(jobs)
        return [
            Result(
                row,
                costs[place],
                rows[place],
                call,
                seconds,
                gradients=gradients[place],
                log_weight=log_weights[place],
            )
            for place, row in enumerate(_rows(state, len(jobs)))
        ]

    def _ascended(
        self,
        items: Sequence[int],
        state: State,
        sigma: float,
        how: Transition,
        noise: Mapping[str, Tensor],
        measured: dict[str, list[int]],
    ) -> State:
        """Turn starts at their sigma, as often as the guidance says."""
        problem = self.problem
        for _ in range(how.guidance.ascents if how.guidance is not None else 0):
            state = problem.predict(items, state, sigma)
            _measure(state, measured)
            state = problem.move(items, state, sigma, sigma, how, noise)
            _measure(state, measured)
        return state

    def _score(self, jobs: Sequence[Job], results: Sequence[Result | None], faults: Faults) -> None:
        """Score what wants a score, in one call an item (or in all)."""
        calls: dict[int | None, list[int]] = {}
        for index, job in enumerate(jobs):
            if job.score:
                shared = None if self.problem.shares_calls else job.item
                calls.setdefault(shared, []).append(index)
        for indices in calls.values():
            while asked := [
                (jobs[index], result)
                for index in indices
                if jobs[index].item not in faults and (result := results[index]) is not None
            ]:
                before = len(faults)
                self._score_together(asked, faults)
                if len(faults) == before:
                    break

    def _score_together(self, asked: Sequence[tuple[Job, Result]], faults: Faults) -> None:
        """Score candidates, or note whose fault it is that they cannot be."""
        begun, name = time.perf_counter(), self.problem.reward_name
        jobs = [job for job, _ in asked]
        clean = [clean_of(result.state, job.to) for job, result in asked]
        try:
            scores = self._scores(jobs, clean)
        except self.problem.interrupts:
            raise
        except Exception as cause:  # noqa: BLE001 - the engine raises it when the others are done
            guilty: Sequence[Job] = jobs
            self.repeated.update(job.item for job in jobs)
            if not isinstance(cause, _Miscounted) and not self.problem.reward_paid:
                guilty, cause = self._blame(jobs, clean, cause)
            fault = _scoring_error(name, guilty, cause)
            faults.update({job.item: fault for job in guilty})
            return
        beside = sum(score.held_out_seconds for score in scores)
        seconds = (time.perf_counter() - begun - beside) / len(asked)
        for (job, result), score in zip(asked, scores, strict=True):
            result.scores, result.score_seconds = score, seconds
            result.seconds += seconds
            if not math.isfinite(score.value):
                sentence = (
                    f"the reward {name} returned {score.value} for the candidate {job}; a reward "
                    "must be a finite number"
                )
                faults.setdefault(job.item, RewardError(sentence))

    def _scores(self, jobs: Sequence[Job], clean: Sequence[Tensor]) -> list[Scores]:
        """Call the reward, for fewer pictures at once where memory runs out."""
        scores: list[Scores] = []
        while len(scores) < len(jobs):
            done = len(scores)
            end = done + (self.scores_per_call or len(jobs))
            try:
                scores += _scored(self.problem, jobs[done:end], clean[done:end])
            except torch.cuda.OutOfMemoryError:
                count = len(jobs[done:end])
                if count == 1:
                    raise
                self.scores_per_call = (count + 1) // 2
        return scores

    def _blame(
        self, jobs: Sequence[Job], clean: Sequence[Tensor], cause: Exception
    ) -> tuple[Sequence[Job], Exception]:
        """Return the first job whose score alone raises, or all of them."""
        if len(jobs) == 1:
            return jobs, cause
        for job, row in zip(jobs, clean, strict=True):
            self.repeated[job.item] += 1
            try:
                _scored(self.problem, [job], [row])
            except self.problem.interrupts:
                raise
            except Exception as alone:  # noqa: BLE001 - it is reported, with its candidate
                return [job], alone
        return jobs, cause


def _scored(problem: Problem, jobs: Sequence[Job], clean: Sequence[Tensor]) -> list[Scores]:
    items, sigmas = [job.item for job in jobs], [job.to for job in jobs]
    scores = problem.score(items, torch.cat([*clean]), sigmas)
    if len(scores) != len(jobs):
        raise _Miscounted(f"returned {len(scores)} scores for {len(jobs)} pictures")
    return scores


class _Miscounted(Exception):
    """A reward returned another number of scores than pictures."""


def _scoring_error(name: str, guilty: Sequence[Job], cause: Exception) -> Exception:
    """Return what a person is told: whose fault it is, of which candidate, and why."""
    candidate = f"for the candidate {'; '.join(map(str, guilty))}"
    if isinstance(cause, DecodeError):
        fault: Exception = DecodeError(f"{cause} {candidate}")
    elif isinstance(cause, _Miscounted):
        return RewardError(f"the reward {name} {cause}")
    elif isinstance(cause, torch.cuda.OutOfMemoryError):
        fault = torch.cuda.OutOfMemoryError(
            f"one picture is too much for the reward {name}: {cause}"
        )
    else:
        fault = RewardError(f"the reward {name} raised {type(cause).__name__}: {cause} {candidate}")
    fault.__cause__ = cause
    return fault


def _not_finite(state: State) -> str:
    """Return which part of a new state holds something that is no finite number; "" for none."""
    for name in ("x", "denoised"):
        if name in state and not bool(state[name].isfinite().all()):
            return name
    return ""


def _model_error(job: Job, name: str) -> ModelError:
    what = "prediction" if name == "denoised" else "step"
    return ModelError(
        f"the model's {what} holds numbers that are not finite (NaN or infinite) for the candidate "
        f"{job}; this is not the reward's doing: run the model in a higher precision (bf16 or fp32 "
        "instead of fp16 or fp8), lower the guidance, or check its LoRAs and patches"
    )


def _gradient_error(job: Job, name: str, cause: GradientError) -> RewardError:
    fault = RewardError(f"{cause} (the reward {name}, candidate {job})")
    fault.__cause__ = cause
    return fault


def _let_go(fault: BaseException | None) -> None:
    """Free what the frames of an exception hold, such as the activations of a network."""
    while fault is not None:
        traceback.clear_frames(fault.__traceback__)
        fault = fault.__cause__ or fault.__context__


def clean_of(state: State, sigma: float) -> Tensor:
    """Return what a state says of the clean latent: its prediction, at 0 itself."""
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
