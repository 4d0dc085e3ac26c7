"""The embedded model as a search problem without the host: many prompts share the model's calls.

One item is one prompt. The network runs in bfloat16 where the machine is fast at it (--float32 of
the benchmarks turns that off); states and decisions are float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsearch.demo.network import CHECKPOINTS, SceneNet
from flowsearch.demo.prompt import Group, encode
from flowsearch.demo.weights import read_weights
from flowsearch.rewards.pixels.shape_count import ShapeCount
from flowsearch.samplers.search import Scores, State, Whole
from flowsearch.samplers.search.engine.memory import moved
from flowsearch.samplers.stepping.guidance import GradientSource
from flowsearch.samplers.stepping.noise import digest, keyed_normal
from flowsearch.samplers.stepping.transition import Transition

__all__ = ["DemoProblem", "load_net"]

PURPOSES = {"start": 1, "move": 2, "mix": 3}


def load_net(path: Path = CHECKPOINTS["base"], device: str = "cpu") -> SceneNet:
    """The embedded network with its weights, ready to be called.

    Args:
        path: Weights.
        device: Where it runs.

    Returns:
        The network.
    """
    net = SceneNet()
    net.load_state_dict(read_weights(path))
    return net.eval().to(device, memory_format=torch.channels_last)


class _Noise(Mapping[str, Tensor]):
    """Noise of a chunk, drawn when it is looked up."""

    def __init__(self, problem: DemoProblem, seed: int, items: Any, keys: Any) -> None:
        self.problem, self.seed, self.items, self.all_keys = problem, seed, items, keys

    def __getitem__(self, purpose: str) -> Tensor:
        rows = [
            keyed_normal((3, 64, 64), self.problem.identity(i), self.seed, *key, PURPOSES[purpose])
            for i, key in zip(self.items, self.all_keys, strict=True)
        ]
        return torch.stack(rows).to(self.problem.device)

    def __iter__(self) -> Any:
        return iter(PURPOSES)

    def __len__(self) -> int:
        return len(PURPOSES)


class DemoProblem:
    """Implements the search package's Problem for a list of prompts.

    Args:
        net: The network.
        prompts: Groups of each item.
        float32: Whether to run the network in float32.
    """

    shares_calls = True
    parts = ()
    reward_name = "shape_count"
    reward_paid = False
    interrupts: tuple[type[BaseException], ...] = (KeyboardInterrupt,)

    def __init__(
        self, net: SceneNet, prompts: Sequence[Sequence[Group]], float32: bool = False
    ) -> None:
        self.net = net
        self.device = next(net.parameters()).device
        self.contexts = torch.stack([encode(groups) for groups in prompts]).to(self.device)
        self.rewards = [ShapeCount.from_groups(groups) for groups in prompts]
        self.float32 = float32

    def identity(self, item: int) -> int:
        """Key of the item's own noise."""
        return digest(20_250_319, item)

    def noise(self, seed: int, items: Any, keys: Any) -> Mapping[str, Tensor]:
        """Noise by purpose."""
        return _Noise(self, seed, items, keys)

    def start(self, items: Sequence[int], to: float, noise: Mapping[str, Tensor]) -> State:
        """Pure noise at `to`; the latent is empty."""
        z = noise["start"]
        return {"x": to * z, "denoised": torch.zeros_like(z)}

    def move(
        self,
        items: Sequence[int],
        state: State,
        sigma_from: float,
        to: float,
        transition: Transition | Whole,
        noise: Mapping[str, Tensor],
    ) -> State:
        """One transition."""
        if isinstance(transition, Whole):
            raise TypeError("the benchmarks search per step")

        def predict(rows: list[int], x: Tensor, sigma: float) -> Tensor:
            return self.denoise([items[row] for row in rows], x, sigma)

        source = self.source(items)
        return moved(
            state, sigma_from, to, transition, lambda: noise["move"], predict, source=source
        )

    def source(self, items: Sequence[int]) -> GradientSource | None:
        """What knows the gradient of the rewards of some rows; nothing here."""
        del items
        return None

    def predict(self, items: Sequence[int], state: State, sigma: float) -> State:
        """One call of the network."""
        return {**state, "denoised": self.denoise(items, state["x"], sigma)}

    def denoise(self, items: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """Predict states, each row under its item's prompt."""
        x = x.to(memory_format=torch.channels_last)
        times = torch.full((len(x),), sigma, device=self.device)
        enabled = not self.float32
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled):
            denoised = self.net.denoise(x, times, self.contexts[list(items)]).float()
        return denoised.contiguous().clone()

    def score(
        self, items: Sequence[int], denoised: Tensor, sigmas: Sequence[float]
    ) -> list[Scores]:
        """Count the shapes."""
        images = ((denoised + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1)
        return [
            Scores(self.rewards[item].score(images[row : row + 1]).item())
            for row, item in enumerate(items)
        ]

    def cost(self, transition: Transition | Whole | None, to: float) -> int:
        """One evaluation wherever a prediction follows, and those inside a step."""
        inner = transition.calls(to) if isinstance(transition, Transition) else 0
        return int(to > 0.0) + inner
