"""Does the model give one state one prediction, whatever it was asked before and beside it?

A search goes from picture to picture, with unrelated candidates in one call. Patches of other packs
may take their predictions from earlier calls (momentum, sliding guidance, caches of blocks) or from
the other rows. What the host's own do is known by name (history.py); of others it is tried out, and
only where there are any:

    A, A again;  B, near A;  C, far from both;  B again;  D, where A is;  A again;  B at a sigma
    between, after A and after C;  a state alone and beside another
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....samplers.search.protocol import ModelError
from ....samplers.stepping.noise import keyed_normal
from ..model.patches import name_of
from .problem import HostProblem

__all__ = ["Behaviour", "behaviour_of", "need_whole"]

SAME = 0.01  # difference of two predictions, in standard deviations of one, that a device may make
ALONE = 0.05  # the same of a row alone and in a batch, which low precision changes more
PURPOSE = 7  # of the probe's own noise


@dataclass(frozen=True)
class Behaviour:
    """What was found.

    Attributes:
        remembers: Who gives a state another prediction after other calls; "" for nobody.
        mixes: Who gives it another one beside other rows; "" for nobody.
        note: A sentence for the report; "" where nothing was tried.
    """

    remembers: str = ""
    mixes: str = ""
    note: str = ""


def behaviour_of(problem: HostProblem) -> Behaviour:
    """Try out what code of other packs does, if any takes part.

    Args:
        problem: Of the run; what the code keeps from call to call is as it was afterwards.

    Returns:
        What was found.
    """
    codes = problem.foreign_code
    sigmas = problem.own_sigmas()[:-1]
    if not codes or not sigmas:
        return Behaviour()
    names = ", ".join(dict.fromkeys(map(name_of, codes)))
    moved = _moved(problem, sigmas)
    if moved > SAME:
        told = (
            f"{names} makes predictions of earlier ones (one state's differ by {moved:.2g} of "
            "their spread), so every picture is run whole, by best_of_n"
        )
        return Behaviour(names, "", told)
    if _mixed(problem, sigmas[0]) > ALONE:
        return Behaviour("", names, "")
    return Behaviour(note=f"{names} was tried with twelve predictions and remembers none")


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


def need_whole(remembers: str, strategy: str) -> str:
    """Say why a strategy that decides on the way cannot be used.

    Args:
        remembers: Who does.
        strategy: The strategy's name.

    Returns:
        A sentence.
    """
    return (
        f"{remembers} takes part in the model's predictions and gives one state another one "
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
