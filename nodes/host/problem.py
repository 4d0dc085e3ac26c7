"""The host's model as a search problem: starts, moves, predictions, each candidate as it is alone.

A search sees linear coordinates, x = (1 - sigma) x0 + sigma eps, which are the host's own for a
flow model, with noise in the host's scale. All rows of a call belong to one batch item and are
predicted with that item's conditioning, mask and latent. Scoring is judge.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.samplers import CFGGuider, Sampler
from torch import Tensor

from ...samplers.noise import digest, keyed_normal
from ...samplers.search.protocol import Scores, State, Whole
from ...samplers.transition import Transition, step
from ..field import batch_keys, require_flow
from ..flow_sampler import STEP
from .conditioning import guider_of_row, row_of
from .judge import Judge
from .measure import CallCounter, RowCounter, translated_oom

__all__ = ["HostProblem"]

START = 0  # purpose of a draw, the last integer of its key: the initial noise of a fresh start
INNER = 2  # and the seed of a stock sampler's own noise
_PURPOSES = {"start": START, "move": STEP}


class HostProblem:
    """A guider inside its sample(), a batch, and a judge.

    Attributes:
        judge: Decodes and scores.
        latent: Clean latents of the batch in the model's space, zeros for none.
    """

    shares_calls = False
    interrupts = (comfy.model_management.InterruptProcessingException,)

    def __init__(
        self,
        guider: CFGGuider,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        noise: Tensor,
        latent: Tensor,
        mask: Tensor | None,
        judge: Judge,
        inner: Sampler | None = None,
    ) -> None:
        """Keep what the host gave its sampler.

        Args:
            guider: The guider; its model must be a flow model.
            sigmas: The run's sigmas, as the host gave them.
            extra_args: model_options and seed. Not modified.
            noise: Initial noise, one row an item, all zero where the host disabled it.
            latent: Clean latents in the model's space, like noise.
            mask: 1 where to sample, 0 where to keep the latent; like noise, or None.
            judge: Decodes and scores.
            inner: The stock SAMPLER that a Whole move runs; None where there is none.
        """
        self._model_sampling = guider.inner_model.model_sampling
        require_flow(self._model_sampling)
        self._guider = guider
        self._sigmas = sigmas
        self._extra_args = extra_args
        self._noise = noise
        self.latent = latent
        self._mask = mask
        self.judge = judge
        self._inner: Any = inner
        self._noise_scale = float(getattr(self._model_sampling, "noise_scale", 1.0))
        self._keys = batch_keys(noise, latent, extra_args.get("seed"))
        self._whole_cost = len(sigmas) - 1
        self._counter = RowCounter()
        self._items: dict[int, tuple[CFGGuider, dict[str, Any], Tensor | None]] = {}

    def masks(self) -> list[Tensor]:
        """The mask, if there is one."""
        return [] if self._mask is None else [self._mask]

    @property
    def reward_name(self) -> str:
        """Name of the reward."""
        return self.judge.reward.spec.name

    def identity(self, item: int) -> int:
        """64-bit key of a batch row's own noise."""
        return digest(*self._keys[item])

    def noise(
        self, seed: int, items: Sequence[int], keys: Sequence[tuple[int, ...]]
    ) -> Mapping[str, Tensor]:
        """Noise rows by purpose; the plain sample's are the ones that FlowSampler would draw."""
        del seed  # the host's is in the rows' keys already
        return LazyNoise(self, items, keys)

    def draw(self, item: int, key: tuple[int, ...], purpose: int) -> Tensor:
        """Draw one row of standard normal noise, or take the item's own for its plain start.

        Args:
            item: Batch row.
            key: The engine's full key.
            purpose: What it is for.

        Returns:
            One row with its batch axis.

        Raises:
            ValueError: A fresh start where the host disabled initial noise.
        """
        if purpose == START and not key:
            return self._noise[item : item + 1]
        if purpose == START and not bool(self._noise[item].any()):
            raise ValueError(
                "the initial noise is disabled, so the search cannot draw other starts; connect "
                "Random Noise, or choose a strategy without a pool of starts"
            )
        drawn = keyed_normal(self._noise.shape[1:], *self._keys[item], *key, purpose)
        return drawn.unsqueeze(0).to(self._noise)

    def inner_seed(self, item: int, key: tuple[int, ...]) -> int:
        """Seed of a stock sampler's own noise; the host's for the plain sample."""
        seed = self._extra_args.get("seed") or 0
        return digest(*self._keys[item], *key, INNER) >> 1 if key else seed

    def start(self, items: Sequence[int], to: float, noise: Mapping[str, Tensor]) -> State:
        """States at a sigma by the host's own rule for mixing latent and noise."""
        z = noise["start"]
        latent = self.latent[items[0]].expand_as(z)
        sigma = torch.tensor(to, dtype=torch.float32, device=z.device)
        state = {"x": self._model_sampling.noise_scaling(sigma, z, latent), "denoised": latent}
        if self._mask is not None:
            state["mask_noise"] = z  # what the host mixes into the kept region for this start
        return state

    def move(
        self,
        items: Sequence[int],
        state: State,
        fr: float,
        to: float,
        transition: Transition | Whole,
        noise: Mapping[str, Tensor],
    ) -> State:
        """One step of (T), or a whole run of the stock sampler."""
        if isinstance(transition, Whole):
            return self._run_inner(items, noise)
        row = transition.coefficients(fr, to)
        z = noise["move"] * self._noise_scale if row.needs_noise else None
        return {**state, "x": step(state["x"], state["denoised"], row, z)}

    def predict(self, items: Sequence[int], state: State, sigma: float) -> State:
        """Predictions under the item's own conditioning; adds the rows that reached the network."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        x = state["x"]
        guider, options, mask = self._item(items[0])
        model: Any = comfy.samplers.KSamplerX0Inpaint(guider, self._sigmas)
        model.latent_image = self.latent[items[0]].expand_as(x)
        # a finished picture that is noised again has forgotten its start: the item's own will do
        model.noise = state.get("mask_noise", self._noise[items[0]].expand_as(x))
        mask = None if mask is None else mask.expand_as(x)
        per_row = x.new_full((x.shape[0],), sigma)
        with self._counter as counted, translated_oom():
            seed = self._extra_args.get("seed")
            denoised = model(x, per_row, mask, model_options=options, seed=seed)
        rows = torch.full((x.shape[0],), counted.rows // x.shape[0])
        return {**state, "denoised": denoised, "rows": rows}

    def score(
        self, items: Sequence[int], denoised: Tensor, sigmas: Sequence[float]
    ) -> list[Scores]:
        """See judge.py."""
        del items
        return self.judge.score(self._guider, denoised, sigmas)

    def cost(self, transition: Transition | Whole | None, to: float) -> int:
        """Evaluations of a draw; a stock sampler's are measured when it first runs."""
        return self._whole_cost if isinstance(transition, Whole) else int(to > 0.0)

    def _item(self, item: int) -> tuple[CFGGuider, dict[str, Any], Tensor | None]:
        """The item's guider, its model options with our counter, and its mask."""
        if item not in self._items:
            mask = None if self._mask is None else row_of(self._mask, item)
            self._items[item] = guider_of_row(self._guider, item), self._options(), mask
        return self._items[item]

    def _options(self) -> dict[str, Any]:
        """Model options of our own; some guidance patches append to the ones they are given."""
        options = comfy.model_patcher.create_model_options_clone(self._extra_args["model_options"])
        comfy.patcher_extension.add_wrapper(
            comfy.patcher_extension.WrappersMP.APPLY_MODEL,
            self._counter.wrapper,
            options,
            is_model_options=True,
        )
        return options

    def _run_inner(self, items: Sequence[int], noise: Mapping[str, Tensor]) -> State:
        """Run the stock sampler, row by row: its own noise would depend on the batch."""
        seeds = cast(LazyNoise, noise).inner_seeds()
        starts = zip(noise["start"], seeds, strict=True)
        rows = [self._run_row(items[0], z, seed) for z, seed in starts]
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    def _run_row(self, item: int, z: Tensor, seed: int) -> State:
        guider, _, mask = self._item(item)
        calls = CallCounter(guider)
        extra_args = {"model_options": self._options(), "seed": seed}
        given = (z.unsqueeze(0), self.latent[item].unsqueeze(0), mask)
        with self._counter as counted, translated_oom():
            # uni_pc writes into the sigmas it is given
            sigmas = self._sigmas.clone()
            x = self._inner.sample(calls, sigmas, extra_args, interruptible, *given, True)
        self._whole_cost = calls.calls
        return {
            "x": x.to(z),
            "evaluations": torch.tensor([calls.calls]),
            "rows": torch.tensor([counted.rows]),
        }


class LazyNoise(Mapping[str, Tensor]):
    """Noise rows by purpose, drawn when looked up."""

    def __init__(
        self, problem: HostProblem, items: Sequence[int], keys: Sequence[tuple[int, ...]]
    ) -> None:
        self._problem = problem
        self._rows = list(zip(items, keys, strict=True))

    def __getitem__(self, purpose: str) -> Tensor:
        """Draw the rows of a purpose."""
        code = _PURPOSES[purpose]
        return torch.cat([self._problem.draw(*row, code) for row in self._rows])

    def __iter__(self) -> Iterator[str]:
        """The purposes."""
        return iter(_PURPOSES)

    def __len__(self) -> int:
        """How many purposes there are."""
        return len(_PURPOSES)

    def inner_seeds(self) -> list[int]:
        """Seeds of a stock sampler's own noise, one a row."""
        return [self._problem.inner_seed(*row) for row in self._rows]


def interruptible(*_: object) -> None:
    """Callback for a stock sampler: obey the cancel button between its steps."""
    comfy.model_management.throw_exception_if_processing_interrupted()
