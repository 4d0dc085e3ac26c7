"""Searches of many prompts that share the model's calls, kept on disk: what benchmarks share."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _demo_problem import DemoProblem
from numpy.typing import NDArray
from torch import Tensor

from flowsearch.samplers.search import Budget, Scores, Search, SearchSettings, Trace
from flowsearch.samplers.stepping.transition import ODE, Transition

__all__ = ["Measured", "Method", "Parts", "Result", "measured", "run"]

HeldOut = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """What to run.

    Attributes:
        name: As printed.
        strategy: Settings of the search.
        sigmas: Levels.
        transition: Of the sampler.
        chains: Independent chains.
        prefix: Whether smaller budgets are prefixes of the largest.
        budgets: Evaluations it is run at; none: those of the command line.
    """

    name: str
    strategy: Any
    sigmas: Sequence[float]
    transition: Transition = ODE
    chains: int = 1
    prefix: bool = False
    budgets: tuple[int, ...] = ()


@dataclass
class Result:
    """What came of one prompt.

    Attributes:
        curve: [evaluations, reward, held-out reward or None], a line whenever the best finished
            picture gets better.
        evaluations: Spent.
        reward_calls: Pictures scored.
        seconds: The prompt's share of the time, the held-out reward's not counted.
    """

    curve: list[list[Any]]
    evaluations: int
    reward_calls: int
    seconds: float

    def at(self, budget: int) -> tuple[float, float]:
        """Best finished reward after that many evaluations, and its held-out reward.

        Args:
            budget: Evaluations.

        Returns:
            The two; -inf and nan if nothing was finished, nan if there is no held-out reward.
        """
        reached = [line for line in self.curve if line[0] <= budget]
        if not reached:
            return -math.inf, math.nan
        _, reward, held_out = reached[-1]
        return reward, math.nan if held_out is None else held_out

    def share(self, budget: int) -> float:
        """Part of the run that a smaller budget would have been, for methods that are prefixes."""
        return min(1.0, budget / max(1, self.evaluations))


class _Watched:
    """A problem whose finished pictures, where they are a prompt's best so far, are also scored by
    a reward that the search does not see."""

    def __init__(self, problem: DemoProblem, held_out: HeldOut | None) -> None:
        self.problem, self.held_out = problem, held_out
        self.best: dict[int, float] = {}
        self.seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.problem, name)

    def score(
        self, items: Sequence[int], denoised: Tensor, sigmas: Sequence[float]
    ) -> list[Scores]:
        scores = self.problem.score(items, denoised, sigmas)
        if self.held_out is None:
            return scores
        start = time.time()
        for row, (item, sigma) in enumerate(zip(items, sigmas, strict=True)):
            value = scores[row].value
            if sigma == 0.0 and value > self.best.get(item, -math.inf):
                self.best[item] = value
                image = ((denoised[row : row + 1] + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
                beside = {"held_out": self.held_out(image.cpu()).item()}
                scores[row] = Scores(value, held_out=beside)
        self.seconds += time.time() - start
        return scores


def run(
    problem: DemoProblem,
    method: Method,
    budget: int,
    seed: int,
    rows: int,
    held_out: HeldOut | None = None,
) -> list[Result]:
    """Search every prompt with one method at one budget, to the first picture that is right.

    Args:
        problem: The model and the prompts.
        method: What to run.
        budget: Evaluations a prompt.
        seed: Of the run.
        rows: Rows in one call of the model.
        held_out: Scores pictures (B, H, W, 3) in 0..1; reported, never used.

    Returns:
        A result a prompt.
    """
    start = time.time()
    trace, items = Trace(), tuple(range(len(problem.rewards)))
    watched: Any = _Watched(problem, held_out)
    settings = SearchSettings(
        method.strategy,
        tuple(method.sigmas),
        method.transition,
        Budget(budget, target=0.0),
        items=items,
        seed=seed,
        rows_per_call=rows,
        chains=method.chains,
    )
    outcome = Search(watched, settings, on_event=trace).run()
    seconds = (time.time() - start - watched.seconds) / len(items)
    results: list[Result] = []
    for item in outcome.items:
        curve: list[list[Any]] = []
        for row in trace.record["finished"]:
            value = row["scores"]["value"]
            if row["item"] == item.item and (not curve or value > curve[-1][1]):
                curve.append([row["spent"], value, row["scores"]["held_out"].get("held_out")])
        ledger = item.ledger
        results.append(Result(curve, ledger.evaluations, ledger.reward_calls, seconds))
    return results


class Parts:
    """Results on disk, one file a run, so that an interrupted benchmark goes on.

    Args:
        folder: Where they are kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def file(self, key: Sequence[object]) -> Path | None:
        """Where what belongs to the key is kept, or will be; None if nothing is."""
        name = hashlib.sha256(json.dumps(key, default=str).encode()).hexdigest()[:20]
        return None if self.folder is None else self.folder / f"{name}.json"

    def holds(self, key: Sequence[object]) -> bool:
        """Whether there is something under the key."""
        file = self.file(key)
        return file is not None and file.is_file()

    def get(self, key: Sequence[object], compute: Callable[[], list[Result]]) -> list[Result]:
        """Return what is kept under the key, or compute and keep it."""
        file = self.file(key)
        if file is None:
            return compute()
        if not file.is_file():
            partial = file.with_suffix(f".{os.getpid()}")
            results = [asdict(result) for result in compute()]
            partial.write_text(json.dumps({"key": [str(k) for k in key], "results": results}))
            partial.replace(file)
        return [Result(**line) for line in json.loads(file.read_text())["results"]]


@dataclass(frozen=True)
class Measured:
    """A method at a budget, over seeds and prompts.

    Attributes:
        rewards: Best finished rewards, (seeds, prompts).
        held_out: Held-out rewards of the same pictures; nan where there is none.
        evaluations: Spent, mean a prompt.
        reward_calls: Pictures scored, mean a prompt.
        seconds: Mean a prompt.
    """

    rewards: NDArray[np.float64]
    held_out: NDArray[np.float64]
    evaluations: float
    reward_calls: float
    seconds: float

    @property
    def right(self) -> NDArray[np.float64]:
        """Which pictures are right, 1 or 0."""
        return (self.rewards == 0).astype(float)


def measured(kept: Sequence[Sequence[Result]], limit: int) -> Measured:
    """Gather the results of several seeds.

    Args:
        kept: Results by seed and prompt.
        limit: Evaluations; below those of the run for methods that are prefixes.

    Returns:
        What came of them.
    """
    pairs = np.array([[result.at(limit) for result in one] for one in kept])
    flat = [(result, result.share(limit)) for one in kept for result in one]
    return Measured(
        pairs[..., 0],
        pairs[..., 1],
        float(np.mean([result.evaluations * share for result, share in flat])),
        float(np.mean([result.reward_calls * share for result, share in flat])),
        float(np.mean([result.seconds * share for result, share in flat])),
    )
