"""The embedded model with gradients: the rewards that are climbed, and where their slope is asked.

Everything runs in float32. The gradient is that of the reward of the clamped picture, so a pixel
that is out of range is not pushed further out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from _demo_problem import DemoProblem
from smooth import Layout
from torch import Tensor

from flowsearch.demo.network import SceneNet
from flowsearch.demo.prompt import Group
from flowsearch.rewards.base import Reward
from flowsearch.rewards.gradient import gradient_of
from flowsearch.rewards.pixels.image_statistic import ImageStatistic
from flowsearch.rewards.pixels.shape_count import COLOURS, ShapeCount
from flowsearch.rewards.pixels.shape_fidelity import ShapeFidelity
from flowsearch.samplers.stepping.guidance import GradientSource
from flowsearch.samplers.stepping.integrate import integrate
from flowsearch.samplers.stepping.noise import keyed_normal
from flowsearch.samplers.stepping.transition import Transition

__all__ = [
    "OTHERS",
    "REWARDS",
    "GuidedProblem",
    "Sampled",
    "clock",
    "is_for_tuning",
    "pictures",
    "sampled",
]

PAPER, BEIGE = (0.965, 0.965, 0.965), (245 / 255, 235 / 255, 215 / 255)
"""Backgrounds that are asked for: one that scenes have, and one that none has."""

Colour = tuple[float, float, float]
MakeReward = Callable[[Sequence[Group], int], Any]
"""A prompt's groups and its number to the reward that is climbed."""


def _palette(groups: Sequence[Group], number: int, paper: Colour = PAPER) -> Reward:
    del number
    paints = dict.fromkeys(COLOURS[colour] for _, colour, _ in groups)
    return ImageStatistic("palette", palette=(paper, *paints))


def _count(groups: Sequence[Group], number: int) -> Reward:
    del number
    return ShapeCount.from_groups(groups)


REWARDS: dict[str, MakeReward] = {
    "layout": Layout.of, "palette": _palette, "beige": partial(_palette, paper=BEIGE),
    "count": _count,
}  # fmt: skip

OTHERS: dict[str, dict[str, MakeReward]] = {}
"""Further judges, by the reward that they are held out of."""


def is_for_tuning(text: str) -> bool:
    """Whether settings may be chosen on a prompt; what is claimed is of the others."""
    return hashlib.blake2b(text.encode(), digest_size=2).digest()[0] % 5 < 2


def clock() -> float:
    """Seconds: of the processor, or of the clock where a GPU does the work and has done it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def pictures(clean: Tensor) -> Tensor:
    """Clean latents (B, 3, H, W) as pictures (B, H, W, 3), 0 to 1."""
    return ((clean + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)


class _Slope:
    """The GradientSource of some rows.

    Args:
        problem: The model and the rewards.
        items: Item of each row.
    """

    def __init__(self, problem: GuidedProblem, items: Sequence[int]) -> None:
        self.problem, self.items = problem, items

    def at(self, rows: Sequence[int], clean: Tensor) -> Tensor:
        """The gradient with respect to clean latents."""
        with torch.inference_mode(False):
            return self._at(rows, clean)

    def _at(self, rows: Sequence[int], clean: Tensor) -> Tensor:
        shown, found = pictures(clean), torch.empty_like(clean)
        for number, row in enumerate(rows):
            reward = self.problem.rewards[self.items[row]]
            slope = gradient_of(reward, shown[number : number + 1]).gradient
            assert isinstance(slope, Tensor)
            found[number] = slope[0].permute(2, 0, 1) / 2
        return found * (clean.abs() <= 1.0)

    def free(self, rows: Sequence[int]) -> None:
        """Everything may move."""

    def through(self, rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """The gradient with respect to states, through the network."""
        items = [self.items[row] for row in rows]
        with torch.inference_mode(False), torch.enable_grad():
            state = x.detach().clone().requires_grad_()
            times = torch.full((len(x),), sigma, device=x.device)
            clean = self.problem.net.denoise(state, times, self.problem.contexts[items])
            (found,) = torch.autograd.grad(clean, state, self.at(rows, clean.detach()))
        return found


class GuidedProblem(DemoProblem):
    """DemoProblem with a reward that can be climbed.

    Args:
        net: The network; its weights are not to be inference tensors.
        prompts: Groups of each item.
        reward: Key of REWARDS, or what makes one.
        numbers: Number of each prompt, which its reward is made with.
    """

    has_gradient = True

    def __init__(
        self,
        net: SceneNet,
        prompts: Sequence[Sequence[Group]],
        reward: str | MakeReward,
        numbers: Sequence[int] = (),
    ) -> None:
        super().__init__(net, prompts, float32=True)
        make = REWARDS[reward] if isinstance(reward, str) else reward
        numbers = numbers or range(len(prompts))
        self.rewards: list[Any] = [
            make(groups, number) for groups, number in zip(prompts, numbers, strict=True)
        ]
        self.counts = [ShapeCount.from_groups(groups) for groups in prompts]
        self.reward_name = reward if isinstance(reward, str) else "made"
        self.others = {
            name: [other(groups, number) for groups, number in zip(prompts, numbers, strict=True)]
            for name, other in OTHERS.get(self.reward_name, {}).items()
        }

    def source(self, items: Sequence[int]) -> GradientSource:
        """What knows the gradient of the rewards of some rows."""
        return _Slope(self, items)

    def values(self, clean: Tensor) -> dict[str, list[float]]:
        """The reward and the two judges of one picture an item; count is held out of layout."""
        shown = pictures(clean)
        every = len(self.rewards)
        judges: dict[str, list[Any]] = {"reward": self.rewards, "count": self.counts}
        judges |= {"fidelity": [ShapeFidelity()] * every, **self.others}
        return {
            name: [judge.score(shown[i : i + 1]).item() for i, judge in enumerate(judged)]
            for name, judged in judges.items()
        }


@dataclass
class Sampled:
    """One picture a prompt.

    Attributes:
        clean: Shape (prompts, 3, H, W).
        evaluations: Of one prompt.
        gradients: Of one prompt.
        seconds: Of one prompt, of the processor.
    """

    clean: Tensor
    evaluations: int
    gradients: int
    seconds: float


def sampled(
    problem: GuidedProblem,
    sigmas: Sequence[float],
    transition: Transition,
    seed: int,
    rows: int = 64,
) -> Sampled:
    """Sample every prompt once, without a search.

    Args:
        problem: The model and the reward.
        sigmas: Levels.
        transition: How to step, guided or not.
        seed: Of the noise.
        rows: Rows in one call of the model.

    Returns:
        The pictures and their price.
    """
    everyone, start, found = range(len(problem.rewards)), clock(), []
    asked = _Asked(problem, [])
    for first in range(0, len(everyone), rows):
        items = [*everyone[first : first + rows]]
        asked = _Asked(problem, items)

        def noise(*key: int, items: list[int] = items) -> Tensor:
            drawn = [keyed_normal((3, 64, 64), problem.identity(i), seed, *key) for i in items]
            return torch.stack(drawn).to(problem.device)

        def fresh(step: int, noise: Callable[..., Tensor] = noise) -> Tensor:
            return noise(1, step)

        x = noise(0) * sigmas[0]
        found.append(integrate(asked.predict, x, sigmas, transition, fresh, source=asked))
    seconds = (clock() - start) / max(1, len(everyone))
    return Sampled(torch.cat(found), asked.evaluations, asked.gradients, seconds)


class _Asked(_Slope):
    """Model and slope of some items, and how often each was asked.

    Args:
        problem: The model and the rewards.
        items: Item of each row.
    """

    def __init__(self, problem: GuidedProblem, items: Sequence[int]) -> None:
        super().__init__(problem, items)
        self.evaluations = self.gradients = 0

    def predict(self, x: Tensor, sigma: float) -> Tensor:
        """Call the model."""
        self.evaluations += 1
        return self.problem.denoise(self.items, x, sigma)

    def at(self, rows: Sequence[int], clean: Tensor) -> Tensor:
        """See _Slope."""
        self.gradients += 1
        return super().at(rows, clean)

    def through(self, rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """See _Slope."""
        self.evaluations += 1  # its gradient is counted where it asks for that at the prediction
        return super().through(rows, x, sigma)
