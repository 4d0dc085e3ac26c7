"""How does a reward change with the latents of the host's model? What a guided step asks.

A picture is decoded twice: as the user will see it, for the reward, whose gradient with respect to
the picture comes first; then row by row so that autograd can follow, and that gradient goes back to
the latents. A VAE cuts colours to 0 to 1, and what is cut does not move: its gradient is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import comfy.model_management as management
import torch
from comfy.samplers import CFGGuider
from comfy.sd import VAE
from torch import Tensor

from ....rewards.base import Reward, RewardSpec, spec_of
from ....rewards.gradient import gradient_of
from ....samplers.search.protocol import DecodeError, ModelError, RewardError
from ....samplers.stepping.guidance import GUIDANCE_METHODS, GradientSource, Guidance
from ..model.differentiation import differentiated, twin
from ..model.measure import call_memory, size_of, translated_oom
from ..model.packed import packed_shapes
from ..versions import device_context
from .judge import Judge, models_kept
from .views import FORMS, Decoders, Rows

__all__ = ["FACTOR", "RewardGuidance", "forecast"]

FACTOR = 2.0
"""Memory of a decoding and of the way back through it, in parts of what the host reckons for a
decoding. Measured: 1.55 for the VAE of SD (2.74 if all were kept), 0.33 TAESD, 0.09 a frame of Wan.
"""

NEAR = 0.02
"""Mean difference of two decodings of one latent, in parts of their range, that precision makes."""

NO_WAY = (
    "this model has no way back through its network (an operation without a backward pass, a "
    "compiled or cached call): set through to prediction in Gradient Guidance"
)

Predict = Callable[[Sequence[int], Tensor, float], Tensor]


@dataclass(frozen=True, eq=False)
class RewardGuidance:
    """How a reward's gradient steers, and what it is taken of: a FLOW_GUIDANCE.

    Attributes:
        guidance: How it steers; None for not at all.
        reward: One that has a gradient.
        decoders: Decode what it is shown; without any, those of the search.
        score_size: Longer side of its pictures; 0 leaves them.
    """

    guidance: Guidance | None
    reward: Reward
    decoders: Decoders
    score_size: int = 0

    @property
    def needs_noise(self) -> bool:
        """Whether it changes fresh noise, and does nothing where none is drawn."""
        return (
            self.guidance is not None and GUIDANCE_METHODS[self.guidance.method].noise is not None
        )

    def notes(self, reward: Reward) -> list[str]:
        """Say in a search's report that what steers is another reward than what is searched for."""
        if self.guidance is None or self.reward is reward:
            return []
        return [
            f"steps are steered by the gradient of {spec_of(self.reward).name}, and pictures are "
            f"chosen by {spec_of(reward).name}"
        ]

    def beside(self, decoders: Decoders) -> RewardGuidance:
        """Return this with a search's decoders where it has none of its own."""
        own = Decoders(
            self.decoders.pictures or decoders.pictures, self.decoders.sound or decoders.sound
        )
        return replace(self, decoders=own)

    def source(
        self,
        guider: CFGGuider,
        predict: Predict,
        shape: Sequence[int],
        mask: Tensor | None,
        alone: bool = True,
    ) -> GradientSource:
        """Return what a guided step asks.

        Args:
            guider: The guider inside its sample().
            predict: predict(rows, x, sigma) of rows of the caller's batch.
            shape: Of one row.
            mask: 1 where to sample, 0 where to keep the latent; None for everywhere. One for all
                rows, or one a row.
            alone: Whether a row may be predicted without the others.

        Returns:
            The source.

        Raises:
            ValueError: A reward of what nothing here decodes to.
        """
        judge = Judge(self.reward, self.decoders.pictures, audio_vae=self.decoders.sound)
        judge.require(shape, packed_shapes(guider))
        return _RewardSlope(self, guider, predict, mask, alone)


class _RewardSlope:
    """A GradientSource of the host."""

    def __init__(
        self,
        guidance: RewardGuidance,
        guider: CFGGuider,
        predict: Predict,
        mask: Tensor | None,
        alone: bool,
    ) -> None:
        self._reward, self._size = guidance.reward, guidance.score_size
        self._decoders = guidance.decoders
        self._guider, self._predict = guider, predict
        self._mask, self._alone = mask, alone

    def free(self, rows: Sequence[int]) -> Tensor | None:
        """See GradientSource.free."""
        mask = self._mask
        return None if mask is None else mask[[row % len(mask) for row in rows]]

    def at(self, rows: Sequence[int], clean: Tensor) -> Tensor:
        """See GradientSource.at."""
        slopes, free = self._slopes(rows, clean), self.free(rows)
        return slopes if free is None else slopes * free.to(slopes)

    def _slopes(self, rows: Sequence[int], clean: Tensor) -> Tensor:
        """The gradient with respect to predictions, before a mask keeps anything."""
        management.throw_exception_if_processing_interrupted()
        memory = call_memory(self._guider, tuple(clean.shape), len(clean))
        with models_kept(memory), torch.no_grad():
            slopes = [self._of(row, clean[i : i + 1]) for i, row in enumerate(rows)]
        return torch.cat(slopes)

    def through(self, rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """See GradientSource.through."""
        if not self._alone:
            return self._back(rows, x, sigma)
        pieces = [self._back([row], x[i : i + 1], sigma) for i, row in enumerate(rows)]
        return torch.cat(pieces)

    def _back(self, rows: Sequence[int], x: Tensor, sigma: float) -> Tensor:
        """Predict, and take the gradient at the prediction back through the network."""
        network = self._guider.inner_model.diffusion_model
        with translated_oom(), differentiated(network):
            leaf = twin(x).detach().requires_grad_()
            clean = self._predict(rows, leaf, sigma)
            if not clean.requires_grad:
                raise ModelError(NO_WAY)
            pull = self._slopes(rows, clean.detach())  # what masks is inside the prediction
            try:
                (found,) = torch.autograd.grad(clean, leaf, pull.to(clean))
            except management.InterruptProcessingException:
                raise
            except RuntimeError as error:
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    raise
                raise ModelError(f"{NO_WAY}. What was said: {error}") from error
        return found

    def _of(self, row: int, clean: Tensor) -> Tensor:
        """The gradient of one row's reward with respect to its clean latent."""
        model: Any = self._guider.inner_model
        latents: Tensor = model.process_latent_out(clean.float())
        shapes = packed_shapes(self._guider)
        seen = Rows(latents, shapes, self._decoders, self._size)
        reward, given = seen.shown_to(self._reward)
        try:
            found = gradient_of(reward, given)
        except management.InterruptProcessingException:
            raise
        except (torch.cuda.OutOfMemoryError, DecodeError):
            raise
        except Exception as error:
            name = spec_of(reward).name
            raise RewardError(
                f"the gradient of {name}, of the picture of row {row} alone: {error}"
            ) from error
        slopes = found.gradient
        if isinstance(slopes, Tensor):
            slopes = {spec_of(reward).domain: slopes}
        management.throw_exception_if_processing_interrupted()
        back = self._through_decoders(latents, seen, spec_of(reward), slopes)
        return (back * _scale(model, clean, latents)).to(clean)

    def _through_decoders(
        self, latents: Tensor, seen: Rows, spec: RewardSpec, slopes: Mapping[str, Tensor]
    ) -> Tensor:
        """Take slopes of what a row decodes to back to its latent."""
        followed = [vae and _Followed(vae) for vae in (seen.decoders.pictures, seen.decoders.sound)]
        networks = [each.network for each in followed if each and each.network is not None]
        back = torch.zeros_like(latents)
        with translated(), differentiated(*networks):
            leaf = twin(latents).detach().requires_grad_()
            again = Rows(leaf, seen.shapes, Decoders(*cast("list[Any]", followed)), self._size)
            for domain, slope in slopes.items():
                made = FORMS[domain](again, spec)
                _require_same(made, FORMS[domain](seen, spec))
                (part,) = torch.autograd.grad(made, leaf, slope.to(made), retain_graph=True)
                back = back + part
        return back


class _Followed:
    """A VAE whose decode() autograd can follow; everything else is the VAE's."""

    def __init__(self, vae: VAE) -> None:
        self._vae: Any = vae

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vae, name)

    @property
    def network(self) -> Any:
        """What decodes, where it is one of the host's."""
        return getattr(self._vae, "first_stage_model", None)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode as VAE.decode does, one row, without tiles.

        Args:
            latents: As LATENT holds them, one row.

        Returns:
            As VAE.decode.

        Raises:
            DecodeError: There is not enough memory, or the VAE cuts its own graph.
        """
        vae, network = self._vae, self.network
        if network is None:
            made = vae.decode(latents)
        else:
            stills = vae.latent_dim == 2 and latents.ndim == 5
            given = latents[:, :, 0] if stills else latents
            with device_context(vae.device):
                _load(vae, tuple(given.shape))
                made = network.decode(given.to(vae.device, vae.vae_dtype))
                # in place, and what is cut there has no slope
                made = vae.process_output(made.to(vae.output_device, torch.float32, copy=True))
            made = made.movedim(1, -1)
        if not made.requires_grad:
            raise DecodeError(
                f"the VAE ({type(network or vae).__name__}) decodes without a way back, so there "
                "is no gradient through it: connect a small decoder (TAESD and the like) to vae "
                "of Gradient Guidance, or search without guidance"
            )
        return made


def forecast(vae: VAE, shape: tuple[int, ...]) -> float:
    """Reckon what memory a decoding and the way back through it take.

    Args:
        vae: VAE.
        shape: Of latents.

    Returns:
        Bytes.
    """
    return FACTOR * float(vae.memory_used_decode(shape, vae.vae_dtype))


def _load(vae: Any, shape: tuple[int, ...]) -> None:
    """Load a VAE, with room for the way back, or say that there is none."""
    need = forecast(vae, shape)
    whole = getattr(vae, "disable_offload", False)
    management.load_models_gpu([vae.patcher], memory_required=int(need), force_full_load=whole)
    free = float(vae.patcher.get_free_memory(vae.device))
    if free < need:
        raise DecodeError(
            f"the gradient through the VAE needs about {size_of(need)} for a latent of shape "
            f"{shape[1:]}, and {size_of(free)} are free: connect a small decoder (TAESD and the "
            "like) to vae of Gradient Guidance, or make a smaller picture"
        )


@contextmanager
def translated() -> Iterator[None]:
    """Say of a decoder that runs out of memory what helps: there is no smaller batch than a row."""
    try:
        with translated_oom():
            yield
    except torch.cuda.OutOfMemoryError as error:
        raise DecodeError(
            "memory ran out on the way back through the VAE: connect a small decoder (TAESD and "
            f"the like) to vae of Gradient Guidance, or make a smaller picture. {error}"
        ) from error


def _require_same(made: Tensor, seen: Tensor) -> None:
    """Refuse a gradient of something else than what the reward was shown."""
    apart = float((made.detach().to(seen) - seen).float().abs().mean())
    if apart > NEAR * max(1.0, float(seen.float().std())):
        raise DecodeError(
            f"the VAE decodes to another thing when autograd follows it (mean difference "
            f"{apart:.3g}), as in tiles for lack of memory, so its gradient is not the picture's: "
            "connect a small decoder (TAESD and the like) to vae of Gradient Guidance"
        )


def _scale(model: Any, clean: Tensor, latents: Tensor) -> Tensor:
    """How fast latents as LATENT holds them change with those of the model's space."""
    wide = clean.float()
    none = model.process_latent_out(torch.zeros_like(wide))
    one = model.process_latent_out(torch.ones_like(wide))
    if latents.shape == clean.shape == none.shape:
        scale = one - none
        if torch.allclose(none + scale * wide, latents, rtol=1e-3, atol=1e-3):
            return scale
    raise ModelError(
        f"{type(model).__name__} turns its latents into the VAE's by more than a shift and a "
        "scale of each number, and a gradient is not taken back through that: search without "
        "guidance"
    )
