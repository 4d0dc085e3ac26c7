"""Which settings did the published comparison use? One row a method, as data.

All of them were run with 500 evaluations and 10 steps, without guidance, on a few-step model, and
scored one-step predictions (arXiv:2503.19385, appendix D; what its code does where the two differ).
The budget, the sigmas and the sampler are not the strategy's: they are named here for whoever sets
up the run. Our engine differs in two ways that help every method: identical draws are not computed
again, and what that saves is spent on a further pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...paths.noise_law import noise_law
from ...paths.sigmas import rbf_reference, uniform
from ...stepping.transition import ODE, Transition
from ..protocol import Strategy, Whole
from .greedy import SVDD, BestOfN, CoDe
from .rollover import RolloverBudgetForcing
from .search_over_paths import SearchOverPaths
from .smc import SequentialMonteCarlo

__all__ = ["PUBLISHED", "VP_SDE", "Published", "departures", "published"]

EVALUATIONS = 500
STEPS = 10
_CLOSE = 1e-5  # the host holds sigmas in float32
VP_SDE = Transition(noise_law("rbf_reference"), "euler_maruyama", "vp")
_AS_PUBLISHED: dict[str, Any] = {"plain": False, "target_stop": False}
_ON_THE_WAY: dict[str, Any] = {**_AS_PUBLISHED, "q": None, "sigma_low": 0.0, "score_below": 1.0}


@dataclass(frozen=True)
class Published:
    """A method as it was run.

    Attributes:
        strategy: Its settings.
        chains: Independent searches of one picture (the paper's N where K is given).
        evaluations: Its budget.
        steps: Steps of one sample.
        stochastic: Whether the connected sampler must be one that adds noise (linear or VP SDE);
            otherwise the ODE.
        name: Key of PUBLISHED.
    """

    strategy: Strategy
    chains: int = 1
    evaluations: int = EVALUATIONS
    steps: int = STEPS
    stochastic: bool = True
    name: str = ""

    @property
    def transition(self) -> Transition:
        """The sampler that it was run with."""
        return VP_SDE if self.stochastic else ODE

    def levels(self, steps: int) -> list[float]:
        """Return the sigmas that it was run on, for a number of steps."""
        return rbf_reference(steps) if self.stochastic else uniform(steps)


def published(method: str, finish_steps: int | None = 1) -> Published:
    """Return a method as it was run.

    Args:
        method: Key of PUBLISHED.
        finish_steps: 1 outputs the prediction, as the code does; more finish by the ODE. Without
            effect on methods whose pictures come down by themselves.

    Returns:
        The settings.

    Raises:
        ValueError: Unknown method.
    """
    if method not in PUBLISHED:
        raise ValueError(f"nothing published as {method!r}; choose one of: {', '.join(PUBLISHED)}")
    return replace(_rows(finish_steps)[method], name=method)


def departures(
    row: Published, sigmas: Sequence[float], transition: Transition | Whole, chains: int
) -> str:
    """Say in what a run is not the published one, besides its budget and its model.

    Args:
        row: The method as it was run.
        sigmas: The run's.
        transition: Of the run's sampler.
        chains: The run's.

    Returns:
        A sentence; empty if it draws, descends and branches as published, without guidance.
    """
    found: list[str] = []
    euler = isinstance(transition, Whole) and transition.name == "euler" and not row.stochastic
    guidance = None if isinstance(transition, Whole) else transition.guidance
    plain = transition if isinstance(transition, Whole) else transition.guided(None)
    if plain != row.transition and not euler:
        found.append(
            f"draws by {_noise_in_words(plain)} (published: {_noise_in_words(row.transition)})"
        )
    if guidance is not None:
        found.append(f"guided by {guidance.method}")
    levels = row.levels(len(sigmas) - 1)
    if any(abs(s - level) > _CLOSE for s, level in zip(sigmas, levels, strict=True)):
        name = "rbf_reference" if row.stochastic else "linear"
        found.append(f"other noise levels than Flow Sigmas {name}")
    if chains != row.chains:
        found.append(f"chains {chains} (published: {row.chains})")
    return f"not {row.name} as published: {'; '.join(found)}" if found else ""


def _noise_in_words(transition: Transition | Whole) -> str:
    if isinstance(transition, Whole):
        return transition.name
    on = f" on {transition.interpolant}" if transition.method == "euler_maruyama" else ""
    return f"{transition.method}{on}, noise law {transition.law.name}"


def _rows(finish_steps: int | None) -> dict[str, Published]:
    finish: dict[str, Any] = {"finish_steps": finish_steps}
    greedy: dict[str, Any] = {**_ON_THE_WAY, **finish, "candidates": 25, "sigma_high": 1.0}
    return {
        "best_of_n": Published(BestOfN(candidates=50, **_AS_PUBLISHED), stochastic=False),
        "search_over_paths": Published(
            SearchOverPaths(starts=5, keep=1, candidates=5, leg=STEPS, **_AS_PUBLISHED, **finish),
            chains=2,
            stochastic=False,
        ),
        "smc": Published(
            SequentialMonteCarlo(
                particles=50,
                strength=10.0,
                potential="difference",
                ess_threshold=1.0,
                scheme="multinomial",
                tempering="none",
                **_ON_THE_WAY,
                **finish,
            )
        ),
        "code": Published(CoDe(block=2, **greedy), chains=2),
        "svdd": Published(SVDD(**greedy), chains=2),
        "rbf": Published(RolloverBudgetForcing.reference(finish_steps), chains=2),
    }


PUBLISHED = tuple(_rows(1))
