"""The host's model as a search problem: starts, moves, predictions, each candidate as it is alone.

A search sees linear sigmas; states stay in the model's own coordinates (field.py), with noise in
the host's scale. All rows of a call belong to one batch item and are predicted with that item's
conditioning, mask and latent. Scoring is judge.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.samplers import CFGGuider, Sampler
from torch import Tensor

from ....rewards.base import spec_of
from ....samplers.paths.interpolant import r_from_sigma, sigma_from_r
from ....samplers.search.engine.memory import moved
from ....samplers.search.protocol import Scores, State, Whole
from ....samplers.stepping.guidance import GradientSource
from ....samplers.stepping.noise import digest, keyed_normal
from ....samplers.stepping.transition import ODE, Transition
from ..model.batch_row import BatchRow
from ..model.conditioning import row_of
from ..model.differentiation import followed_attention
from ..model.faults import blamed, checked
from ..model.field import batch_keys, coordinates_of
from ..model.flow_sampler import STEP, FlowSampler, Gradients
from ..model.history import Keyframes, fresh_cache, sigmas_with
from ..model.measure import CallCounter, RowCounter, call_memory, translated_oom
from ..model.packed import packed_shapes, unpacked
from ..model.randomness import seeded_as_the_host
from .gradients import RewardGuidance
from .judge import Judge

__all__ = ["HostProblem"]

START = 0  # purpose of a draw, the last integer of its key: the initial noise of a fresh start
INNER = 2  # and the seed of a stock sampler's own noise
MIX = 3  # and which places two pictures exchange
_PURPOSES = {"start": START, "move": STEP, "mix": MIX}


class HostProblem:
    """A guider inside its sample(), a batch, and a judge.

    Attributes:
        judge: Decodes and scores.
        latent: Clean latents of the batch in the model's space, zeros for none.
        linear_sigmas: The run's sigmas on the linear path.
        gradients: Where the gradient of a guided move comes from; None for none.
        parts: Shapes of the latents that lie one after another in a row; empty for one latent.
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
            guider: The guider.
            sigmas: The run's sigmas, as the host gave them.
            extra_args: model_options and seed. Not modified.
            noise: Initial noise, one row an item, all zero where the host disabled it.
            latent: Clean latents in the model's space, like noise.
            mask: 1 where to sample, 0 where to keep the latent; like noise, or None.
            judge: Decodes and scores.
            inner: The SAMPLER that a Whole move runs, without guidance; None where there is none.
        """
        self._model_sampling = guider.inner_model.model_sampling
        self._path = coordinates_of(self._model_sampling)
        self._guider = guider
        self._sigmas = sigmas
        self._extra_args = extra_args
        self._noise = noise
        self.latent = latent
        self._mask = mask
        self.judge = judge
        self._inner: Any = inner.unguided() if isinstance(inner, FlowSampler) else inner
        found = inner.gradients if isinstance(inner, FlowSampler) else None
        self.gradients: Gradients | None = (
            found.beside(judge.early) if isinstance(found, RewardGuidance) else found
        )
        self._varies = isinstance(inner, FlowSampler) and inner.transition.law != ODE.law
        self._noise_scale = float(getattr(self._model_sampling, "noise_scale", 1.0))
        self._keys = batch_keys(noise, latent, extra_args.get("seed"))
        self._whole_costs: dict[tuple[float, ...], int] = {}
        self._counter = RowCounter()
        self.tried = (0, 0)  # evaluations and network rows before the search
        self._widest = 1  # candidates in a call so far: what a reward leaves must hold as many
        self.parts = packed_shapes(guider)
        # exactly the host's where a linear sigma is one of the run's
        own = sigmas.tolist()
        self.linear_sigmas = [sigma_from_r(self._path, s) for s in own]
        self._own_sigmas = dict(zip(self.linear_sigmas, own, strict=True))
        self._at_max = inner is not None and inner.max_denoise(guider, sigmas)
        self._keyframes = Keyframes(guider, sigmas)
        self._items: dict[int, BatchRow] = {}

    @property
    def has_gradient(self) -> bool:
        """Whether guided moves can be made."""
        return self.gradients is not None

    def masks(self) -> list[Tensor]:
        """The mask, if there is one."""
        return [] if self._mask is None else [self._mask]

    @property
    def reward_name(self) -> str:
        """Name of the reward."""
        return spec_of(self.judge.reward).name

    @property
    def reward_paid(self) -> bool:
        """Whether the reward may cost money."""
        return spec_of(self.judge.reward).paid

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
            if self._varies:  # another start is the same latent; what follows draws its own noise
                return self._noise[item : item + 1]
            raise ValueError(
                "the initial noise is disabled, so the search cannot draw other starts; connect "
                "Random Noise, or a Stochastic Flow Sampler with a noise law, whose steps differ "
                "from the latent as given"
            )
        drawn = keyed_normal(self._noise.shape[1:], *self._keys[item], *key, purpose)
        return drawn.unsqueeze(0).to(self._noise)

    def inner_seed(self, item: int, key: tuple[int, ...]) -> int:
        """Seed of a stock sampler's own noise; the host's for the plain sample."""
        seed = self._extra_args.get("seed") or 0
        return digest(*self._keys[item], *key, INNER) >> 1 if key else seed

    @property
    def inner(self) -> Sampler | None:
        """The SAMPLER that a Whole move runs, without guidance."""
        return self._inner

    def own_sigmas(self) -> list[float]:
        """The run's sigmas in the model's coordinates."""
        return self._sigmas.tolist()

    def row_key(self, item: int) -> tuple[int, ...]:
        """What makes a batch row's noise its own."""
        return tuple(self._keys[item])

    def mask_row(self, item: int) -> Any:
        """The item's mask, one row and channel on the CPU, as LATENT holds it; None for none."""
        return None if self._mask is None else self.unpacked(row_of(self._mask, item), 1)

    def unpacked(self, rows: Tensor, channels: int | None = None) -> Any:
        """Rows on the CPU as LATENT holds them; see unpacked() in packed.py."""
        return unpacked(rows.cpu(), self.parts, channels)

    def start_of(self, item: int, key: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Noise and latent, one row each, that a whole run of a key starts from."""
        return self.draw(item, key, START), self.latent[item : item + 1]

    def unmixed(self, item: int, sigma: float, state: Mapping[str, Tensor]) -> tuple[float, Tensor]:
        """Undo the host's rule for mixing latent and noise.

        Args:
            item: Batch row.
            sigma: Linear sigma of the state, above 0.
            state: x and denoised, one row; mask_noise where there is a mask.

        Returns:
            The model's sigma, and the noise that the host mixes with the prediction to x; in what
            a mask keeps, the noise that the host mixes into it.
        """
        own = self._own_sigma(sigma)
        x, clean = (state[key].to(self._noise) for key in ("x", "denoised"))
        at = torch.tensor(own, dtype=torch.float32, device=x.device)
        largest = float(self._model_sampling.sigma_max)
        at_max = own > largest or math.isclose(own, largest, rel_tol=1e-5)  # as euler has it
        none, one = torch.zeros_like(x), torch.ones_like(x)
        of_noise = self._model_sampling.noise_scaling(at, one, none, at_max)
        of_clean = self._model_sampling.noise_scaling(at, none, one, at_max)
        noise = (x - of_clean * clean) / of_noise
        if self._mask is None:
            return own, noise
        kept = state.get("mask_noise", self._noise[item : item + 1]).to(noise)
        return own, torch.where(row_of(self._mask, item) == 0.0, kept, noise)

    def _own_sigma(self, sigma: float) -> float:
        """Turn a linear sigma into the model's."""
        return self._own_sigmas.get(sigma) or r_from_sigma(self._path, sigma)

    def start(self, items: Sequence[int], to: float, noise: Mapping[str, Tensor]) -> State:
        """States at a sigma by the host's own rule for mixing latent and noise."""
        z = noise["start"]
        latent = self.latent[items[0]].expand_as(z)
        sigma = torch.tensor(self._own_sigma(to), dtype=torch.float32, device=z.device)
        at_max = self._at_max and to == self.linear_sigmas[0]
        x = self._model_sampling.noise_scaling(sigma, z, latent, at_max)
        state = {"x": x, "denoised": latent}
        if self._mask is not None:
            state["mask_noise"] = z  # what the host mixes into the kept region for this start
        return state

    def move(
        self,
        items: Sequence[int],
        state: State,
        sigma_from: float,
        to: float,
        transition: Transition | Whole,
        noise: Mapping[str, Tensor],
    ) -> State:
        """One step of any method, or a whole run of the stock sampler."""
        if isinstance(transition, Whole):
            return self._run_inner(items, noise, self._sigmas_of(transition))
        network_rows: list[Tensor] = []

        def draw() -> Tensor:
            return noise["move"] * self._noise_scale

        def predict(rows: list[int], x: Tensor, sigma: float) -> Tensor:
            mask_noise = state["mask_noise"][rows] if "mask_noise" in state else None
            denoised, network = self._denoised(items[0], x, sigma, mask_noise)
            counted = torch.zeros(state["x"].shape[0], dtype=torch.int64)
            counted[rows] = network
            network_rows.append(counted)
            return denoised

        source = None
        if transition.guidance is not None:
            source = self._source(items[0], state, predict)
        out = moved(
            state, sigma_from, to, transition, draw, predict, self._path, self._own_sigma, source
        )
        if network_rows:
            out["rows"] = torch.stack(network_rows).sum(0)
        return out

    def _source(
        self, item: int, state: State, predict: Callable[[list[int], Tensor, float], Tensor]
    ) -> GradientSource | None:
        """What knows the gradient, for rows of one item."""
        if self.gradients is None:
            return None
        own = self._item(item)

        def followed(rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
            with followed_attention(own.options):
                return predict([*rows], x, sigma)

        return self.gradients.source(own.guider, followed, state["x"].shape[1:], own.mask)

    def predict(self, items: Sequence[int], state: State, sigma: float) -> State:
        """Predictions under the item's own conditioning; adds the rows that reached the network."""
        x, own = state["x"], self._own_sigma(sigma)
        denoised, network = self._denoised(items[0], x, own, state.get("mask_noise"))
        return {**state, "denoised": denoised, "rows": torch.full((x.shape[0],), network)}

    def _denoised(
        self, item: int, x: Tensor, sigma: float, mask_noise: Tensor | None
    ) -> tuple[Tensor, int]:
        """Predict states of one item; return also how many rows each took of the network."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        own = self._item(item)
        options, mask = own.options, own.mask
        model: Any = comfy.samplers.KSamplerX0Inpaint(own.guider, self._sigmas)
        model.latent_image = self.latent[item].expand_as(x)
        # a finished picture that is noised again has forgotten its start: the item's own will do
        model.noise = self._noise[item].expand_as(x) if mask_noise is None else mask_noise
        mask = None if mask is None else mask.expand_as(x)
        per_row = x.new_full((x.shape[0],), sigma)
        options["transformer_options"]["sample_sigmas"] = sigmas_with(self._sigmas, sigma)
        self._keyframes.place(per_row[0], options)
        own.controls.place(per_row[0], options)
        with self._counter as counted, translated_oom(), blamed(x, own.prompts):
            seed = self._extra_args.get("seed")
            made = model(x, per_row, mask, model_options=options, seed=seed)
        self._widest = max(self._widest, x.shape[0])
        return checked(made, x), counted.rows // x.shape[0]

    @property
    def foreign_code(self) -> list[Any]:
        """What of other packs takes part in a prediction; see patches.py."""
        return self._item(0).codes

    def memory_kept(self) -> AbstractContextManager[None]:
        """Begin with what such code kept before the search, and leave it so."""
        return self._item(0).fresh()

    def start_at(self, sigma: float, noise: Tensor) -> Tensor:
        """One state of the first item at a sigma of the model's, by the host's own rule."""
        at = torch.tensor(sigma, dtype=torch.float32, device=noise.device)
        return self._model_sampling.noise_scaling(at, noise, self.latent[:1], False)

    def predicted(self, x: Tensor, sigma: float) -> Tensor:
        """Predict states of the first item at a sigma of the model's; counted in `tried`."""
        denoised, network = self._denoised(0, x, sigma, None)
        evaluations, rows = self.tried
        self.tried = (evaluations + len(x), rows + network * len(x))
        return denoised

    def score(
        self, items: Sequence[int], denoised: Tensor, sigmas: Sequence[float]
    ) -> list[Scores]:
        """See judge.py."""
        with translated_oom():
            memory = call_memory(self._item(items[0]).guider, tuple(denoised.shape), self._widest)
            return self.judge.score(self._guider, denoised, sigmas, memory)

    def cost(self, transition: Transition | Whole | None, to: float) -> int:
        """Evaluations of a draw, inner ones too; of a stock sampler, what a dry run counts."""
        if isinstance(transition, Whole):
            key = transition.sigmas
            if key not in self._whole_costs:
                self._whole_costs[key] = self._dry_run(self._sigmas_of(transition))
            return self._whole_costs[key]
        return int(to > 0.0) + (0 if transition is None else transition.calls(to))

    def _item(self, item: int) -> BatchRow:
        """What is the item's own."""
        if item not in self._items:
            given = self._extra_args["model_options"]
            rest = (self._sigmas, self._mask, given, self._options())
            self._items[item] = BatchRow.of(self._guider, item, *rest)
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

    def _sigmas_of(self, whole: Whole) -> Tensor:
        """The model's own sigmas of a whole run; new ones, since uni_pc writes into them."""
        own = [self._own_sigma(sigma) if sigma else 0.0 for sigma in whole.sigmas]
        return self._sigmas.new_tensor(own) if own else self._sigmas.clone()

    def _dry_run(self, sigmas: Tensor) -> int:
        """Count a stock sampler's predictions, where they do not depend on what is predicted."""
        calls = CallCounter(self._guider, network=False)
        extra_args = {"model_options": self._options(), "seed": 0}
        noise, latent = self._noise[:1], self.latent[:1]
        devices = [noise.device] if noise.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            try:
                self._inner.sample(
                    calls, sigmas, extra_args, interruptible, noise, latent, None, True
                )
            except self.interrupts:
                raise
            except Exception:  # noqa: BLE001 - one of another pack may look closer at its model
                return len(sigmas) - 1
        return max(1, calls.calls)

    def _run_inner(
        self, items: Sequence[int], noise: Mapping[str, Tensor], sigmas: Tensor
    ) -> State:
        """Run the stock sampler, row by row: its own noise would depend on the batch."""
        seeds = cast(LazyNoise, noise).inner_seeds()
        starts = zip(noise["start"], seeds, strict=True)
        rows = [self._run_row(items[0], z, seed, sigmas.clone()) for z, seed in starts]
        return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}

    def _run_row(self, item: int, z: Tensor, seed: int, sigmas: Tensor) -> State:
        own = self._item(item)
        calls = CallCounter(own.guider)
        options = self._options()  # some networks and hooks read the list of the run they are in
        options.setdefault("transformer_options", {})["sample_sigmas"] = sigmas.clone()
        fresh_cache(options)
        self._keyframes.restart(options)
        own.controls.restart()
        extra_args = {"model_options": options, "seed": seed}
        given = (z.unsqueeze(0), self.latent[item].unsqueeze(0), own.mask)
        row = self.unpacked(given[0])
        with (
            seeded_as_the_host(row, seed), own.fresh(), self._counter as counted, translated_oom()
        ):  # fmt: skip
            x = self._inner.sample(calls, sigmas, extra_args, interruptible, *given, True)
        return {
            "x": checked(x, given[0], "the sampler").to(z),
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
