"""Does the model give one state one prediction, whatever it was asked before and beside it?

A search goes from picture to picture, with unrelated candidates in one call. Patches of other packs
may take their predictions from earlier calls (momentum, sliding guidance, caches of blocks) or from
the other rows. What the host's own do is known by name (history.py); of others it is tried out, and
only where there are any:

    A, A again;  B, near A;  C, far from both;  B again;  D, where A is;  A again;  B at a sigma
    between, after A and after C;  a state alone and beside another

These are evaluations like others: they are taken off the limits of the run. Where those leave no
room for them, nothing is tried and every picture is run whole, which is right whatever code does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ....samplers.search import Budget
from ....samplers.search.protocol import ModelError
from ....samplers.stepping.noise import keyed_normal
from ..model.patches import name_of
from .problem import HostProblem

__all__ = ["Behaviour", "behaviour_of", "need_whole"]

SAME = 0.01  # difference of two predictions, in standard deviations of one, that a device may make
EVALUATIONS = 13  # of all that
ALONE = 0.05  # the same of a row alone and in a batch, which low precision changes more
PURPOSE = 7  # of the probe's own noise


@dataclass(frozen=True)
class Behaviour:
    """What was found.

    Attributes:
        remembers: Who gives a state another prediction after other calls; "" for nobody.
        mixes: Who gives it another one beside other rows; "" for nobody.
        note: A sentence for the report; "" where nothing was tried.
        untried: Why nothing was tried, where it had to be; a sentence's beginning.
    """

    remembers: str = ""
    mixes: str = ""
    note: str = ""
    untried: str = ""


def behaviour_of(problem: HostProblem, budget: Budget, plain: int) -> tuple[Behaviour, Budget]:
    """Try out what code of other packs does, if any takes part.

    Args:
        problem: Of the run; what the code keeps from call to call is as it was afterwards.
        budget: Limits of the run.
        plain: Evaluations of one picture.

    Returns:
        What was found, and what it left of the budget.
    """
    codes = problem.foreign_code
    sigmas = problem.own_sigmas()[:-1]
    if not codes or not sigmas:
        return Behaviour(), budget
    names = ", ".join(dict.fromkeys(map(name_of, codes)))
    items = len(problem.latent)
    least = plain + -(-EVALUATIONS // items)
    if min(budget.evaluations, (budget.rows or 2 * least) // 2) < least:
        why = (
            f"whether {names} makes predictions of earlier ones was not tried, for that takes "
            f"{EVALUATIONS} evaluations and the limits leave no room for them beside one picture "
            f"(evaluations at least {least})"
        )
        return Behaviour(note=f"{why}; so every picture is run whole", untried=why), budget
    begun = time.perf_counter()
    found = _tried(problem, names, sigmas)
    evaluations, rows = problem.tried
    left = replace(
        budget,
        evaluations=budget.evaluations - -(-evaluations // items),
        rows=budget.rows and max(1, budget.rows - -(-rows // items)),
        seconds=budget.seconds and max(1e-3, budget.seconds - (time.perf_counter() - begun)),
    )
    spent = f"{evaluations} evaluations ({rows} network rows) to find that out, off the limits"
    return replace(found, note=f"{found.note}; {spent}"), left


def _tried(problem: HostProblem, names: str, sigmas: Sequence[float]) -> Behaviour:
    """Try it out."""
    moved = _moved(problem, sigmas)
    if moved > SAME:
        told = (
            f"{names} makes predictions of earlier ones (one state's differ by {moved:.2g} of "
            "their spread), so every picture is run whole, by best_of_n"
        )
        return Behaviour(names, "", told)
    if _mixed(problem, sigmas[0]) > ALONE:
        return Behaviour("", names, f"{names} mixes the rows of a call")
    return Behaviour(note=f"{names} remembers no earlier prediction")


def _moved(problem: HostProblem, sigmas: Sequence[float]) -> float:
    """How far predictions of one state are apart after other calls; infinite where one fails."""
    first = len(sigmas) // 3
    near, far = min(first + 1, len(sigmas) - 1), len(sigmas) - 1
    between = 0.5 * (sigmas[first] + sigmas[near])  # a sigma that is none of the run's
    a = problem.start_at(sigmas[first], _noise(problem, 0))
    c = problem.start_at(sigmas[far], _noise(problem, 1))
    d = problem.start_at(sigmas[first], _noise(problem, 4))
    with problem.memory_kept():
        one = problem.predicted(a, sigmas[first])
        b = one + (a - one) * (sigmas[near] / sigmas[first])
        try:
            again = problem.predicted(a, sigmas[first])
            after = problem.predicted(b, sigmas[near])
            problem.predicted(c, sigmas[far])
            later = problem.predicted(b, sigmas[near])
            # caches that look at the time alone hand on what was there at the same sigma
            problem.predicted(d, sigmas[first])
            last = problem.predicted(a, sigmas[first])
            off = problem.predicted(b, between)
            with problem.memory_kept():
                problem.predicted(c, sigmas[far])
                other = problem.predicted(b, between)
        except problem.interrupts:
            raise
        except ModelError:
            return float("inf")
    return max(_apart(*pair) for pair in ((one, again), (after, later), (one, last), (off, other)))


def _mixed(problem: HostProblem, sigma: float) -> float:
    """How far a row's prediction is from its own in a batch; infinite where a batch fails."""
    a, beside = (problem.start_at(sigma, _noise(problem, number)) for number in (2, 3))
    with problem.memory_kept():
        alone = problem.predicted(a, sigma)
    with problem.memory_kept():
        try:
            return _apart(alone, problem.predicted(torch.cat([a, beside]), sigma)[:1])
        except problem.interrupts:
            raise
        except (ModelError, ValueError):
            return float("inf")


def need_whole(found: Behaviour, strategy: str) -> str:
    """Say why a strategy that decides on the way cannot be used.

    Args:
        found: Code that remembers, or was not tried.
        strategy: The strategy's name.

    Returns:
        A sentence.
    """
    if found.untried:
        return (
            f"{found.untried}, and {strategy} needs to know: raise the limits, connect the model "
            "from before that node, or choose best_of_n in Search Strategy, which runs each "
            "picture whole"
        )
    return (
        f"{found.remembers} takes part in the model's predictions and gives one state another one "
        f"after other calls, and {strategy} goes from picture to picture, so they would be another "
        "picture's. Connect the model from before that node, or choose best_of_n in Search "
        "Strategy, which runs each picture whole"
    )


def _noise(problem: HostProblem, number: int) -> Tensor:
    shape = problem.latent.shape[1:]
    drawn = keyed_normal(shape, *problem.row_key(0), number, PURPOSE)
    return drawn.unsqueeze(0).to(problem.latent)


def _apart(a: Tensor, b: Tensor) -> float:
    spread = float(a.float().std()) or 1.0
    return float((a - b).float().abs().max()) / spread
