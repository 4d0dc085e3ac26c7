"""How is a candidate seen and scored? Decode, reward, and give the memory back.

Decoding and scoring may push the diffusion model out of memory, and a model that is pushed out
whole comes back without its patches, silently. So the models in use are noted before and loaded
again after, once a request, whatever happens in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy.samplers import CFGGuider
from comfy.sd import VAE
from torch import Tensor

from ...rewards.base import Reward, assess, models_of, named, spec_of
from ...samplers.search.protocol import DecodeError, Scores
from .held_out import HeldOut
from .measure import translated_oom

__all__ = ["Judge", "decode", "models_kept", "shown"]

SEEN = ("image", "latent")


@contextmanager
def models_kept(memory: float = 0.0) -> Iterator[None]:
    """Load the models that are in use now again at the end.

    Args:
        memory: Bytes that their next call needs.

    Yields:
        Nothing.
    """
    models = comfy.model_management.loaded_models(only_currently_used=True)
    try:
        yield
    finally:
        comfy.model_management.load_models_gpu(models, memory_required=int(memory))


def decode(vae: VAE, latents: Tensor) -> Tensor:
    """Decode latents to pictures.

    Args:
        vae: VAE.
        latents: As LATENT holds them, shape (B, C, H, W) or (B, C, 1, H, W).

    Returns:
        Pictures (B, H, W, C), float32, 0 to 1, where the host keeps what is between models.

    Raises:
        ValueError: The VAE makes something else than one picture a latent.
    """
    pictures = vae.decode(latents)
    if pictures.ndim == 5 and pictures.shape[1] == 1:
        pictures = pictures[:, 0]
    if pictures.ndim != 4 or pictures.shape[0] != latents.shape[0]:
        raise ValueError(
            f"the VAE turned latents of shape {tuple(latents.shape)} into {tuple(pictures.shape)}; "
            "rewards score single pictures, so a search needs latents of one frame each"
        )
    return pictures.float().clamp(0.0, 1.0)


def shown(vae: VAE, samples: Any) -> Tensor | None:
    """Decode latents as the host's VAE Decode does, to be looked at.

    Args:
        vae: VAE.
        samples: As LATENT holds them; of several that were sampled together the first, the video.

    Returns:
        Pictures (B, H, W, C), float32, 0 to 1, on the CPU, the frames of a video one after another;
        None for what is no picture.
    """
    pictures = vae.decode(samples.unbind()[0] if samples.is_nested else samples)
    if pictures.ndim == 5:
        pictures = pictures.flatten(0, 1)
    return pictures.float().cpu().clamp(0.0, 1.0) if pictures.ndim == 4 else None


def _decoded(vae: VAE, latents: Tensor) -> Tensor:
    """Decode for a reward; what goes wrong is the VAE's fault and not the reward's."""
    try:
        with translated_oom():
            pictures = decode(vae, latents)
    except (comfy.model_management.InterruptProcessingException, torch.cuda.OutOfMemoryError):
        raise
    except Exception as cause:
        raise DecodeError(f"the VAE raised {type(cause).__name__}: {cause}") from cause
    if not bool(pictures.isfinite().all()):
        raise DecodeError(
            "the VAE decoded latents to a picture with values that are not finite (NaN or "
            "infinite); start ComfyUI with --fp32-vae or --bf16-vae, or connect another VAE,"
        )
    return pictures


class Judge:
    """A VAE, perhaps a cheaper one, and a reward.

    A reward of latents is given the latents and nothing is decoded for it.

    Attributes:
        reward: The reward.
        vae: Decodes finished pictures; None where only latents are scored.
        held_out: Rewards of finished pictures that are only reported.
        looks: Whether any of the rewards scores pictures; if not, latents may be of any kind.
    """

    def __init__(
        self,
        reward: Reward,
        vae: VAE | None,
        scoring_vae: VAE | None = None,
        score_size: int = 0,
        held_out: Sequence[Reward] = (),
    ) -> None:
        """Keep them.

        Args:
            reward: Scores pictures, or latents.
            vae: Decodes finished pictures, and the others where there is no scoring_vae.
            scoring_vae: Decodes unfinished pictures; None for the same as vae.
            score_size: Longer side of unfinished pictures for the reward; 0 leaves them.
            held_out: Score finished pictures for the report.

        Raises:
            ValueError: A reward of something else, or of pictures where no VAE is connected.
        """
        self.reward = reward
        self.vae = vae
        self.held_out = HeldOut(held_out)
        self._domain = spec_of(reward).domain
        self._scoring_vae = scoring_vae or vae
        self._score_size = score_size
        rewards = [reward, *held_out]
        _require_scorable(rewards, vae)
        self._looks = {spec_of(other).domain for other in held_out}
        self.looks = any(spec_of(r).domain == "image" for r in rewards)
        self._loads = any(spec_of(r).domain == "image" or models_of(r) for r in rewards)

    def score(self, guider: CFGGuider, clean: Tensor, sigmas: Sequence[float]) -> list[Scores]:
        """Score predictions of the clean latent.

        Args:
            guider: The guider inside its sample().
            clean: In the model's space, one row a candidate.
            sigmas: Where each candidate is; 0 for a finished one.

        Returns:
            One Scores a row, with the picture the reward saw, if it saw one, as its thumbnail.
        """
        finished = [sigma == 0.0 for sigma in sigmas]
        latents = guider.inner_model.process_latent_out(clean.float())
        scores: dict[int, Scores] = {}
        memory = guider.inner_model.memory_required([2, *clean.shape[1:]])
        with models_kept(memory) if self._loads else nullcontext():
            for kind in (True, False):
                rows = [i for i, is_kind in enumerate(finished) if is_kind == kind]
                if rows:
                    found = self._score(latents[rows], kind)
                    scores.update(zip(rows, found, strict=True))
        return [scores[i] for i in range(len(sigmas))]

    def _score(self, latents: Tensor, finished: bool) -> list[Scores]:
        comfy.model_management.throw_exception_if_processing_interrupted()
        seen = self._seen(latents, finished)
        comfy.model_management.throw_exception_if_processing_interrupted()
        found = assess(self.reward, seen[self._domain])
        pictures = seen.get("image", [None] * len(latents))
        scores = [
            Scores(
                value,
                dict(parts),
                thumbnail=None if picture is None else picture.cpu(),
                note=note,
            )
            for value, parts, note, picture in zip(
                found.values.tolist(), found.parts, found.notes, pictures, strict=True
            )
        ]
        if not finished or not self.held_out.rewards:
            return scores
        held_out, seconds = self.held_out.score(seen)
        return [
            replace(score, held_out=found, held_out_seconds=seconds)
            for score, found in zip(scores, held_out, strict=True)
        ]

    def _seen(self, latents: Tensor, finished: bool) -> dict[str, Tensor]:
        """By domain what rewards score: pictures only where one looks at them."""
        domains = {self._domain, *(self._looks if finished else ())}
        vae = self.vae if finished else self._scoring_vae
        if "image" not in domains or vae is None:
            return {"latent": latents}
        pictures = _decoded(vae, latents)
        if not finished and self._score_size:
            pictures = shrink(pictures, self._score_size)
        return {"latent": latents, "image": pictures}


def _require_scorable(rewards: Sequence[Reward], vae: VAE | None) -> None:
    """Refuse rewards to which a search has nothing to show."""
    domains = {name: spec_of(reward).domain for name, reward in named(rewards).items()}
    other = [f"{name} scores {domain}s" for name, domain in domains.items() if domain not in SEEN]
    if other:
        raise ValueError(f"{', '.join(other)}; a search shows rewards an image or a latent")
    looking = [name for name, domain in domains.items() if domain == "image"]
    if looking and vae is None:
        raise ValueError(
            f"no VAE is connected, and {', '.join(looking)} can only score decoded pictures. "
            "Connect the model's VAE, or a reward of latents, such as Latent Reward."
        )


def shrink(pictures: Tensor, size: int) -> Tensor:
    """Make the longer side of pictures `size`, unless they are smaller.

    Args:
        pictures: Shape (B, H, W, C).
        size: Pixels.

    Returns:
        Pictures of the same proportions.
    """
    height, width = pictures.shape[1:3]
    scale = size / max(height, width)
    if scale >= 1.0:
        return pictures
    new = (max(1, round(width * scale)), max(1, round(height * scale)))
    moved = comfy.utils.common_upscale(pictures.movedim(-1, 1), *new, "area", "disabled")
    return moved.movedim(1, -1)
