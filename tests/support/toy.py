"""An analytic problem: the exact denoiser of a Gaussian mixture, and rewards on x.

Arithmetic is row-wise in float64, so a row's result does not depend on the rows beside it, and
every rule of the engine can be asserted with exact equality. The model counts its rows.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from flowsearch.samplers.search.engine.memory import moved
from flowsearch.samplers.search.protocol import Scores, Whole
from flowsearch.samplers.stepping.noise import digest, keyed_normal
from flowsearch.samplers.stepping.transition import ODE, step

MEANS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [-1.0, 1.5, 0.0, 0.0], [-1.0, -1.5, 1.0, 0.0]])
WEIGHTS = torch.tensor([0.60, 0.35, 0.05])
STD = 0.35
PURPOSES = {"start": 1, "move": 2, "mix": 3}


class Interrupted(BaseException):
    """The host's cancel."""


def mixture_denoised(x: Tensor, sigma: float, means: Tensor, weights: Tensor, std: float) -> Tensor:
    """Return E[x0 | x] for x = (1 - sigma) x0 + sigma eps and a mixture of isotropic Gaussians.

    Args:
        x: States, shape (B, d), float64.
        sigma: Time, 0 < sigma <= 1.
        means: Component means, shape (K, d).
        weights: Component weights, shape (K,).
        std: Standard deviation of every component.

    Returns:
        The posterior mean, shape (B, d).
    """
    alpha = 1.0 - sigma
    variance = (alpha * std) ** 2 + sigma**2
    residual = x[:, None, :] - alpha * means[None]
    log_w = weights.log() - (residual * residual).sum(-1) / (2.0 * variance)
    posterior = (log_w - log_w.amax(-1, keepdim=True)).exp()
    posterior = posterior / posterior.sum(-1, keepdim=True)
    inner = means[None] + (alpha * std**2 / variance) * residual
    return (posterior[:, :, None] * inner).sum(1)


def rare_mode(item: int, x: Tensor) -> float:
    """Return minus the distance to the rarest component, shifted a little by item."""
    goal = MEANS[2].to(x) + 0.1 * item
    return -float((x - goal).norm())


class Noise(Mapping):
    """Lazy noise of a chunk: keyed by row, key and purpose."""

    def __init__(
        self, toy: "Toy", seed: int, items: Sequence[int], keys: Sequence[tuple[int, ...]]
    ):
        self.toy, self.seed, self.items, self.keys_ = toy, seed, items, keys

    def __getitem__(self, purpose: str) -> Tensor:
        rows = []
        for item, key in zip(self.items, self.keys_, strict=True):
            full = (self.toy.identity(item), self.seed, *key, PURPOSES[purpose])
            self.toy.drawn.append(full)
            rows.append(keyed_normal((self.toy.dim,), *full).double())
        return torch.stack(rows)

    def __iter__(self):
        return iter(PURPOSES)

    def __len__(self) -> int:
        return len(PURPOSES)


class Toy:
    """The problem.

    Attributes:
        rows: Rows the model has seen, by item.
        scored: Pictures scored, by item.
        calls: Rows of each model call.
        drawn: Noise keys that were drawn.
        fail_at: Raise `failure` at this model call (counting from 0).
        fail_scores_at: The same for calls of score().
        room: Rows that fit into memory; more raise OutOfMemoryError.
    """

    dim = 4
    reward_name = "toy"
    reward_paid = False
    interrupts = (Interrupted,)

    def __init__(
        self, reward: Callable[[int, Tensor], float] = rare_mode, shares_calls: bool = True
    ) -> None:
        self.reward = reward
        self.shares_calls = shares_calls
        self.parts = ()
        self.rows: dict[int, int] = {}
        self.scored: dict[int, int] = {}
        self.calls: list[int] = []
        self.score_calls = 0
        self.drawn: list[tuple[int, ...]] = []
        self.fail_at: int | None = None
        self.fail_scores_at: int | None = None
        self.failure: BaseException = Interrupted()
        self.room = 10**9
        self.whole_steps = 6

    def identity(self, item: int) -> int:
        return digest(1234, item)

    def noise(self, seed, items, keys):
        return Noise(self, seed, items, keys)

    def start(self, items, to, noise):
        z = noise["start"]
        return {"x": to * z, "denoised": torch.zeros_like(z)}

    def move(self, items, state, fr, to, transition, noise):
        if isinstance(transition, Whole):
            x, n = state["x"], self.whole_steps
            sigmas = transition.sigmas or [fr * (1 - i / n) for i in range(n + 1)]
            for s, s_next in itertools.pairwise(sigmas):
                x = step(x, self._model(items, x, s), ODE.coefficients(s, s_next), None)
            return {"x": x}

        def predict(rows, x, sigma):
            return self._model([items[row] for row in rows], x, sigma)

        return moved(state, fr, to, transition, lambda: noise["move"], predict)

    def predict(self, items, state, sigma):
        return {**state, "denoised": self._model(items, state["x"], sigma)}

    def score(self, items, denoised, sigmas):
        if self.fail_scores_at == self.score_calls:
            raise self.failure
        self.score_calls += 1
        for item in items:
            self.scored[item] = self.scored.get(item, 0) + 1
        pairs = zip(items, denoised, strict=True)
        return [Scores(self.reward(item, x), {"norm": float(x.norm())}) for item, x in pairs]

    def cost(self, transition, to):
        if isinstance(transition, Whole):
            return len(transition.sigmas) - 1 if transition.sigmas else self.whole_steps
        return int(to > 0.0) + (transition.calls(to) if transition else 0)

    def _model(self, items: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        if self.fail_at == len(self.calls):
            raise self.failure
        if len(x) > self.room:
            raise torch.cuda.OutOfMemoryError("toy")
        if not self.shares_calls and len(set(items)) != 1:
            raise AssertionError("a call mixes items")
        self.calls.append(len(x))
        for item in items:
            self.rows[item] = self.rows.get(item, 0) + 1
        return mixture_denoised(x, sigma, MEANS.double(), WEIGHTS.double(), STD)


class MemoryCheckpoint:
    """Keeps a run as a file would: JSON text and copies of tensors.

    Attributes:
        kept: What was saved last.
        saves: How often.
    """

    def __init__(self) -> None:
        self.kept: tuple[dict[str, Tensor], str] | None = None
        self.saves = 0

    def save(self, tensors, data):
        self.kept = ({key: value.clone() for key, value in tensors.items()}, json.dumps(data))
        self.saves += 1

    def load(self):
        if self.kept is None:
            return None
        tensors, text = self.kept
        return {key: value.clone() for key, value in tensors.items()}, json.loads(text)


SIGMAS = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]


class Scripted(Toy):
    """Rewards come from a list, in the order in which pictures are scored."""

    def __init__(self, rewards: Sequence[float]) -> None:
        super().__init__()
        self.rewards = list(rewards)

    def score(self, items, denoised, sigmas):
        super().score(items, denoised, sigmas)
        return [Scores(self.rewards.pop(0)) for _ in items]
