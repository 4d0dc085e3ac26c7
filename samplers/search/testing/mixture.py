"""Which problem is small, exact, and counts? A Gaussian mixture's own denoiser, rewards on x.

Where it is given the gradient of its reward it may be guided.

Arithmetic is row by row in float64, so that a row does not depend on the rows beside it and every
law of a search can be asserted with exact equality. It is also the shortest whole Problem there is
to read. Nothing of the host takes part.
"""

from __future__ import annotations

import itertools
import json
import marshal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ...stepping.noise import digest, keyed_normal
from ...stepping.transition import ODE, Transition, step
from .. import Scores, State, Whole, moved

__all__ = [
    "MEANS",
    "SIGMAS",
    "STD",
    "WEIGHTS",
    "Interrupted",
    "KeyedNoise",
    "MemoryCheckpoint",
    "MixtureProblem",
    "mixture_denoised",
    "rare_mode",
    "rare_mode_gradient",
]

MEANS = torch.tensor([[2.0, 0.0, 0.0, 0.0], [-1.0, 1.5, 0.0, 0.0], [-1.0, -1.5, 1.0, 0.0]])
WEIGHTS = torch.tensor([0.60, 0.35, 0.05])
STD = 0.35
SIGMAS = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0]
_MEANS, _WEIGHTS = MEANS.double(), WEIGHTS.double()
_PURPOSES = {"start": 1, "move": 2, "mix": 3}


class Interrupted(BaseException):
    """A cancel, as the host's."""


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


def _norm(x: Tensor) -> float:
    return float(cast("Any", x).norm())


def rare_mode(item: int, x: Tensor) -> float:
    """Return minus the distance to the rarest component, shifted a little by item."""
    goal = MEANS[2].to(x) + 0.1 * item
    return -_norm(x - goal)


def rare_mode_gradient(item: int, x: Tensor) -> Tensor:
    """Differentiate rare_mode.

    Args:
        item: Batch item.
        x: A picture.

    Returns:
        The gradient, like x; 0 at the mode.

    Example:
        >>> float(rare_mode_gradient(0, MEANS[2]).abs().max())
        0.0
    """
    away = x - (MEANS[2].to(x) + 0.1 * item)
    return -away / max(_norm(away), 1e-9)


class KeyedNoise(Mapping[str, Tensor]):
    """Lazy noise of a chunk: a function of row, key and purpose."""

    def __init__(
        self,
        problem: MixtureProblem,
        seed: int,
        items: Sequence[int],
        keys: Sequence[tuple[int, ...]],
    ) -> None:
        """Keep what the noise is a function of; nothing is drawn yet."""
        self._problem, self._seed = problem, seed
        self._rows = list(zip(items, keys, strict=True))

    def __getitem__(self, purpose: str) -> Tensor:
        """Draw the rows of a purpose."""
        rows: list[Tensor] = []
        for item, key in self._rows:
            full = (self._problem.identity(item), self._seed, *key, _PURPOSES[purpose])
            self._problem.drawn.append(full)
            rows.append(keyed_normal((self._problem.dim,), *full).double())
        return torch.stack(rows)

    def __iter__(self) -> Iterator[str]:
        """The purposes."""
        return iter(_PURPOSES)

    def __len__(self) -> int:
        """How many purposes there are."""
        return len(_PURPOSES)


class MixtureProblem:
    """The problem.

    Attributes:
        rows: Rows the model has seen, by item.
        scored: Pictures scored, by item.
        calls: Rows of each model call.
        score_calls: Calls of score().
        drawn: Noise keys that were drawn.
        gradients: Gradients asked for, by item.
        fail_at: Raise `failure` at this model call (counting from 0).
        fail_scores_at: The same for calls of score().
        failure: What is raised; a cancel unless it is set.
        room: Rows that fit into memory; more raise OutOfMemoryError.
        whole_steps: Evaluations of a whole run of a stock sampler.

    Example:
        >>> problem = MixtureProblem()
        >>> state = problem.start([0], 0.5, problem.noise(7, [0], [(1,)]))
        >>> problem.predict([0], state, 0.5)["denoised"].shape, problem.rows
        (torch.Size([1, 4]), {0: 1})
    """

    dim = 4
    reward_name = "toy"
    reward_paid = False
    interrupts: tuple[type[BaseException], ...] = (Interrupted,)

    def __init__(
        self,
        reward: Callable[[int, Tensor], float] = rare_mode,
        shares_calls: bool = True,
        gradient: Callable[[int, Tensor], Tensor] | None = None,
    ) -> None:
        """Start all counters at 0.

        Args:
            reward: Scores a clean row of an item.
            shares_calls: Whether rows of several items may share a call.
            gradient: Gradient of the reward with respect to a clean row; None: it has none.
        """
        self.reward = reward
        self.gradient = gradient
        self.has_gradient = gradient is not None
        self.gradients: dict[int, int] = {}
        self.shares_calls = shares_calls
        self.parts: tuple[tuple[int, ...], ...] = ()
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
        """See Problem."""
        return digest(1234, item)

    def noise(
        self, seed: int, items: Sequence[int], keys: Sequence[tuple[int, ...]]
    ) -> Mapping[str, Tensor]:
        """See Problem."""
        return KeyedNoise(self, seed, items, keys)

    def start(self, items: Sequence[int], to: float, noise: Mapping[str, Tensor]) -> State:
        """See Problem; the latent is 0."""
        del items  # all have the same latent
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
        """See Problem; a whole sampler is Euler's."""
        if isinstance(transition, Whole):
            x, n = state["x"], self.whole_steps
            sigmas = transition.sigmas or [sigma_from * (1 - i / n) for i in range(n + 1)]
            for s, s_next in itertools.pairwise(sigmas):
                x = step(x, self.model(items, x, s), ODE.coefficients(s, s_next), None)
            return {"x": x}

        def predict(rows: list[int], x: Tensor, sigma: float) -> Tensor:
            return self.model([items[row] for row in rows], x, sigma)

        source = None if self.gradient is None else _Slope(self, items, self.gradient)
        return moved(
            state, sigma_from, to, transition, lambda: noise["move"], predict, source=source
        )

    def predict(self, items: Sequence[int], state: State, sigma: float) -> State:
        """See Problem."""
        return {**state, "denoised": self.model(items, state["x"], sigma)}

    def score(
        self, items: Sequence[int], denoised: Tensor, sigmas: Sequence[float]
    ) -> list[Scores]:
        """See Problem."""
        del sigmas  # finished or not, it is scored alike
        if self.fail_scores_at == self.score_calls:
            raise self.failure
        self.score_calls += 1
        for item in items:
            self.scored[item] = self.scored.get(item, 0) + 1
        pairs = zip(items, denoised, strict=True)
        return [Scores(self.reward(item, x), {"norm": _norm(x)}) for item, x in pairs]

    def cost(self, transition: Transition | Whole | None, to: float) -> int:
        """See Problem."""
        if isinstance(transition, Whole):
            return len(transition.sigmas) - 1 if transition.sigmas else self.whole_steps
        return int(to > 0.0) + (transition.calls(to) if transition else 0)

    def model(self, items: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """Predict rows, and count them."""
        if self.fail_at == len(self.calls):
            raise self.failure
        if len(x) > self.room:
            raise torch.cuda.OutOfMemoryError("toy")
        if not self.shares_calls and len(set(items)) != 1:
            raise AssertionError("a call mixes items")
        self.calls.append(len(x))
        for item in items:
            self.rows[item] = self.rows.get(item, 0) + 1
        return mixture_denoised(x, sigma, _MEANS, _WEIGHTS, STD)


class _Slope:
    """The gradient source of a chunk."""

    def __init__(
        self,
        problem: MixtureProblem,
        items: Sequence[int],
        gradient: Callable[[int, Tensor], Tensor],
    ) -> None:
        self._problem, self._items, self._gradient = problem, items, gradient

    def at(self, rows: Sequence[int], clean: Tensor) -> Tensor:
        """See GradientSource."""
        own = [self._items[row] for row in rows]
        for item in own:
            self._problem.gradients[item] = self._problem.gradients.get(item, 0) + 1
        return torch.stack([self._gradient(i, x) for i, x in zip(own, clean, strict=True)])

    def free(self, rows: Sequence[int]) -> None:
        """Everything may move."""

    def through(self, rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """See GradientSource; the model is called once more, and differentiated."""
        own = [self._items[row] for row in rows]
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            clean = self._problem.model(own, leaf, sigma)
        (found,) = torch.autograd.grad(clean, leaf, self.at(rows, clean.detach()))
        return found


class MemoryCheckpoint:
    """Keeps a run as a file would: JSON text, and the tensors, which the engine has copied.

    A search that is saved after each round is loaded once at most, so a save takes the bytes of
    what it is given, and the text is written when somebody reads it.

    Attributes:
        saves: How often.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.saves = 0
        self._tensors: dict[str, Tensor] = {}
        self._data = b""
        self._text: str | None = None

    @property
    def kept(self) -> tuple[dict[str, Tensor], str] | None:
        """What was saved last; None before."""
        if self._data:
            self._text, self._data = json.dumps(marshal.loads(self._data)), b""
        return None if self._text is None else (self._tensors, self._text)

    @kept.setter
    def kept(self, other: tuple[dict[str, Tensor], str]) -> None:
        (self._tensors, self._text), self._data = other, b""

    def save(self, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
        """See Checkpoint."""
        self._tensors = dict(tensors)  # copies already
        self._data = marshal.dumps(data)
        self.saves += 1

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """See Checkpoint."""
        if self.kept is None:
            return None
        tensors, text = self.kept
        return {key: value.clone() for key, value in tensors.items()}, json.loads(text)
