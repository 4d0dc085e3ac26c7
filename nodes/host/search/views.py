"""What is a reward shown of latents? Pictures, clips, sound, or the latents: a row of FORMS each.

Each is made when it is first asked for, and by what the user's own graph decodes with: the host's
VAE, and for sound its VAE Decode Audio, so that a reward sees and hears what the user will.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy.sd import VAE
from torch import Tensor

from ....rewards.base import Reward, RewardSpec, spec_of
from ....rewards.foreign import settings_kept
from ....rewards.frames import of_clips
from ....samplers.search.protocol import DecodeError
from ..model.measure import translated_oom
from ..model.packed import Shapes, unpacked
from ..versions import decoded_sound

__all__ = [
    "FORMS",
    "Decoders",
    "Rows",
    "decoded",
    "domains_of",
    "frames_of",
    "is_sound",
    "shrink",
    "strip",
]

STRIP = (64, 256)
"""Height and width of a sound's picture, in pixels."""
SHOWN = 1024
"""Longer side of a picture that is looked at: those of a whole round are there at once."""


def is_sound(vae: VAE, unsaid: int = 3) -> bool:
    """Whether a VAE decodes to sound: those of the host put out left and right, and no colours.

    Args:
        vae: VAE.
        unsaid: Channels of one that does not say how many.

    Returns:
        Whether it does.
    """
    return getattr(vae, "output_channels", unsaid) == 2


def frames_of(shape: Sequence[int]) -> int:
    """Return the frames of a latent of a shape without its batch axis, (C, T, H, W) or other."""
    return int(shape[1]) if len(shape) == 4 else 1


@dataclass(frozen=True)
class Decoders:
    """What makes pictures of latents, and what makes sound.

    Attributes:
        pictures: VAE of pictures or clips; None for none.
        sound: VAE of sound; None for none.
    """

    pictures: VAE | None = None
    sound: VAE | None = None

    @classmethod
    def of(cls, vae: VAE | None, audio_vae: VAE | None = None) -> Decoders:
        """Sort what is connected.

        Args:
            vae: Of pictures, clips or sound; None for none.
            audio_vae: Of sound; None for vae, where that is one of sound.

        Returns:
            The decoders; an audio_vae of pictures is none of them.
        """
        audio_vae = None if audio_vae is None or not is_sound(audio_vae, 2) else audio_vae
        if vae is not None and is_sound(vae):
            return cls(None, audio_vae or vae)
        return cls(vae, audio_vae)

    def instead(self, vae: VAE | None) -> Decoders:
        """Return these with another VAE in place of that which decodes to the same."""
        other = Decoders.of(vae)
        return Decoders(other.pictures or self.pictures, other.sound or self.sound)


class Rows:
    """Latents of several candidates, and what they decode to: the Views of a reward.

    Attributes:
        latents: As LATENT holds them, or packed.
        shapes: See packed_shapes().
        decoders: What decodes them.
        pixels: Pixels of a row as the VAE made it; 0 where nothing has been decoded.
    """

    def __init__(
        self, latents: Tensor, shapes: Shapes, decoders: Decoders, score_size: int = 0
    ) -> None:
        """Decode nothing yet.

        Args:
            latents: As LATENT holds them, or packed: shape (B, 1, L).
            shapes: See packed_shapes().
            decoders: What decodes them.
            score_size: Longer side to which pictures are shrunk; 0 leaves them.
        """
        parts = unpacked(latents, shapes)
        self.latents = latents
        self._parts: list[Tensor] = parts.unbind() if shapes else [parts]
        self.shapes, self.decoders, self._size = shapes, decoders, score_size
        self.pixels = 0
        self._clips: Tensor | None = None
        self._sound: tuple[Tensor, int] | None = None

    def __len__(self) -> int:
        """How many candidates there are."""
        return len(self.latents)

    def __getitem__(self, places: slice) -> Rows:
        """Some of the candidates, with what has been decoded of them."""
        return self._each(lambda tensor: tensor[places])

    def clone(self) -> Rows:
        """Copies of all that may be looked at."""
        return self._each(torch.clone)

    @property
    def is_still(self) -> bool:
        """Whether each is one picture and nothing else."""
        frames = frames_of(self._parts[0].shape[1:])
        return self.decoders.pictures is not None and len(self._parts) == frames == 1

    @property
    def clips(self) -> Tensor:
        """Shape (B, T, H, W, C), float32, 0 to 1; of latents of pictures T is 1."""
        if self._clips is None:
            clips = _decoded(_clips, self.decoders.pictures, self._parts[0])
            self.pixels = clips[0, ..., 0].numel()
            self._clips = shrink(clips, self._size) if self._size else clips
        return self._clips

    @property
    def sound(self) -> tuple[Tensor, int]:
        """Waveforms (B, channels, samples), float32, and their samples a second."""
        if self._sound is not None:
            return self._sound
        found: list[int] = []

        def decode(vae: VAE, latents: Tensor) -> Tensor:
            waveforms, rate = _sound(vae, latents)
            found.append(rate)
            return waveforms

        waveforms = _decoded(decode, self.decoders.sound, self._parts[-1])
        self._sound = waveforms, found[0]
        return self._sound

    def sound_at(self, rate: int) -> Tensor:
        """Return waveforms (B, channels, samples) at so many samples a second; 0: as decoded."""
        waveforms, own = self.sound
        if rate in (0, own):
            return waveforms
        import torchaudio  # the host's, which resamples with it too

        return torchaudio.functional.resample(waveforms, own, rate)

    def of(self, spec: RewardSpec) -> Any:
        """See Views.of.

        Args:
            spec: A reward's.

        Returns:
            What it scores.

        Raises:
            DecodeError: What the VAE does wrong.
        """
        return FORMS[spec.domain](self, spec)

    def shown_to(self, reward: Reward) -> tuple[Reward, Any]:
        """Return a reward and what it scores; one of pictures as one of clips where those are.

        Args:
            reward: Any whose domain is in FORMS.

        Returns:
            What is to be called, and with what.
        """
        if spec_of(reward).domain == "image" and self.clips.shape[1] > 1:
            reward = of_clips(reward)
        spec = spec_of(reward)
        if spec.domain == "several":
            # decoded here, once for all rewards: what a decoder does wrong is no reward's failure
            for domain in domains_of(reward):
                FORMS[domain](self, spec)
        return reward, self.of(spec)

    def thumbnails(self) -> list[Tensor | None]:
        """Return a small thing to look at a row (H, W, C), 0 to 1, of what has been decoded.

        Returns:
            The picture, the middle frame of a clip in memory of its own, the waveform of a sound;
            large ones shrunk, in memory of their own; None where nothing has been decoded.
        """
        if self._clips is not None:
            frames = self._clips.shape[1]
            middle = self._clips[:, frames // 2].cpu()
            shown = shrink(middle, SHOWN)
            return [*(middle.clone() if frames > 1 and shown is middle else shown)]
        if self._sound is not None:
            return [strip(waveform) for waveform in self._sound[0]]
        return [None] * len(self)

    def keepsakes(self) -> list[Callable[[], Tensor | dict[str, Any]]]:
        """Return what decodes all that can be decoded, to be kept as files: one a thing.

        Returns:
            Each gives clips (B, T, H, W, C), or sound as the host's AUDIO.
        """
        ways: list[Callable[[], Tensor | dict[str, Any]]] = []
        if self.decoders.pictures is not None:
            ways.append(lambda: self.clips)
        if self.decoders.sound is not None and (not ways or len(self._parts) > 1):
            ways.append(lambda: {"waveform": self.sound[0], "sample_rate": self.sound[1]})
        return ways

    def _each(self, function: Callable[[Tensor], Tensor]) -> Rows:
        rows = Rows(function(self.latents), self.shapes, self.decoders, self._size)
        rows._clips = None if self._clips is None else function(self._clips)
        rows._sound = None if self._sound is None else (function(self._sound[0]), self._sound[1])
        return rows


FORMS: Mapping[str, Callable[[Rows, RewardSpec], Any]] = {
    "image": lambda rows, _: rows.clips[:, 0],
    "video": lambda rows, _: rows.clips,
    "audio": lambda rows, spec: rows.sound_at(spec.sample_rate),
    "latent": lambda rows, _: rows.latents,
    "several": lambda rows, _: rows,
}
"""Domain of a reward to what it scores."""


def domains_of(reward: Reward) -> set[str]:
    """Return what a reward is shown; of a combination what its members are.

    Args:
        reward: Any.

    Returns:
        Domains other than "several".
    """
    domain = spec_of(reward).domain
    if domain != "several":
        return {domain}
    members: Mapping[str, Reward] = getattr(reward, "members", {})
    return {found for member in members.values() for found in domains_of(member)}


def decoded(vae: VAE, samples: Any) -> Tensor:
    """Decode latents as the host's VAE Decode does, to be looked at.

    Args:
        vae: VAE of pictures or clips.
        samples: As LATENT holds them; of several that were sampled together the first, the video.

    Returns:
        Pictures (B, H, W, C), float32, 0 to 1, the frames of a clip one after another.
    """
    pictures = _clips(vae, samples.unbind()[0] if samples.is_nested else samples)
    return pictures.flatten(0, 1)


def _clips(vae: VAE, latents: Tensor) -> Tensor:
    """Decode to clips (B, T, H, W, C), 0 to 1, where the host keeps what is between models."""
    clips = vae.decode(latents)
    if not isinstance(clips, Tensor):
        raise ValueError(_no_tensor(clips))
    made = tuple(clips.shape)
    if clips.ndim == 4:
        clips = clips.unsqueeze(1)
    several = frames_of(latents.shape[1:]) > 1
    if clips.ndim != 5 or len(clips) != len(latents) or (clips.shape[1] > 1) != several:
        raise ValueError(
            f"the VAE turned latents of shape {tuple(latents.shape)} into {made}; pictures are "
            "(batch, height, width, colours) of latents of one frame, and clips (batch, frames, "
            "height, width, colours) of latents of several. Connect the model's own VAE"
        )
    return _finite(clips).float().clamp(0.0, 1.0)


def _sound(vae: VAE, latents: Tensor) -> tuple[Tensor, int]:
    """Decode as the host's VAE Decode Audio does."""
    waveforms, rate = decoded_sound(vae, latents)
    if not isinstance(waveforms, Tensor):
        raise ValueError(_no_tensor(waveforms))
    if waveforms.ndim != 3 or len(waveforms) != len(latents):
        raise ValueError(
            f"the VAE turned latents of shape {tuple(latents.shape)} into "
            f"{tuple(waveforms.shape)}; sound is (batch, channels, samples). Connect the model's "
            "own audio VAE"
        )
    return _finite(waveforms).float(), rate


def _no_tensor(made: object) -> str:
    return (
        f"the VAE returned an object of the class {type(made).__name__}, where a VAE returns a "
        "tensor; it, or what a pack made of it, does not work: connect another VAE"
    )


def _decoded(decode: Callable[[VAE, Tensor], Tensor], vae: VAE | None, latents: Tensor) -> Tensor:
    """Decode for a reward; what goes wrong is the VAE's fault and not the reward's."""
    if vae is None:
        raise DecodeError("no VAE is connected that decodes what the reward scores")
    comfy.model_management.throw_exception_if_processing_interrupted()
    try:
        with translated_oom(), settings_kept():
            made = decode(vae, latents)
    except (comfy.model_management.InterruptProcessingException, torch.cuda.OutOfMemoryError):
        raise
    except DecodeError:
        raise
    except Exception as cause:
        raise DecodeError(f"the VAE raised {type(cause).__name__}: {cause}") from cause
    comfy.model_management.throw_exception_if_processing_interrupted()
    return made


def _finite(made: Tensor) -> Tensor:
    """Refuse what overflowed, before anything is cut to a range."""
    # both ends are NaN where anything is; no mask as large as a clip is made
    if made.numel() and not bool(torch.stack(torch.aminmax(made)).isfinite().all()):
        raise DecodeError(
            "the VAE decoded latents to values that are not finite (NaN or infinite); start "
            "ComfyUI with --fp32-vae or --bf16-vae, or connect another VAE,"
        )
    return made


def shrink(clips: Tensor, size: int) -> Tensor:
    """Make the longer side of pictures `size`, unless they are smaller.

    Args:
        clips: Shape (B, T, H, W, C), or pictures (B, H, W, C).
        size: Pixels.

    Returns:
        As many of the same proportions.
    """
    height, width = clips.shape[-3:-1]
    scale = size / max(height, width)
    if scale >= 1.0:
        return clips
    new = (max(1, round(width * scale)), max(1, round(height * scale)))
    pictures = clips.flatten(0, -4).movedim(-1, 1)
    moved = comfy.utils.common_upscale(pictures, *new, "area", "disabled").movedim(1, -1)
    return moved.unflatten(0, clips.shape[:-3])


def strip(waveform: Tensor) -> Tensor:
    """Draw a waveform: from its lowest to its highest value at each moment, dark on light.

    Args:
        waveform: Shape (channels, samples), about -1 to 1.

    Returns:
        A picture (H, W, 3), 0 to 1, on the CPU.
    """
    height, width = STRIP
    mono = waveform.detach().float().cpu().mean(dim=0)[None]
    pool = torch.nn.functional.adaptive_max_pool1d
    low, high = -pool(-mono, width)[0], pool(mono, width)[0]
    level = torch.linspace(1.0, -1.0, height)[:, None]
    half = 1.0 / (height - 1)  # so that silence is a line
    inked = (level >= low - half) & (level <= high + half)
    return torch.where(inked[..., None], torch.tensor([0.12, 0.47, 0.71]), torch.ones(3))
