"""How is a candidate seen and scored? Decode, reward, and give the memory back.

Decoding and scoring may push the diffusion model out of memory, and a model that is pushed out
whole comes back without its patches, silently. So the models in use are noted before and loaded
again after, once a request, whatever happens in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import comfy.model_management
from comfy.samplers import CFGGuider
from comfy.sd import VAE
from torch import Tensor

from ....rewards.base import Reward, assess, models_of, named
from ....rewards.frames import FrameReward
from ....rewards.paid import Answers
from ....samplers.search.protocol import Scores
from ..model.packed import Shapes, packed_shapes
from .held_out import HeldOut
from .views import FORMS, Decoders, Rows, domains_of, frames_of

__all__ = ["Judge", "models_kept"]

LOOKS = {"image", "video"}
PIXELS = 2**25
"""Of pictures that are decoded together: 32 of 1024 x 1024, 2 of 4096 x 4096. They lie in main
memory, whose end is no error that could be answered by halving, but the end of the server."""
USUAL = 64  # pixels for each place of a latent, until a picture has been seen


@contextmanager
def models_kept(memory: float = 0.0) -> Iterator[None]:
    """Load the models that are in use now again at the end.

    Args:
        memory: Bytes that their next call needs.

    Yields:
        Nothing.
    """
    # the host's list holds None for a model that it could not free ("memory leak with model X")
    listed = comfy.model_management.loaded_models(only_currently_used=True)
    models = [model for model in listed if model is not None]
    try:
        yield
    finally:
        comfy.model_management.load_models_gpu(models, memory_required=int(memory))


class Judge:
    """VAEs, perhaps a cheaper one, and a reward.

    A reward of latents is given the latents and nothing is decoded for it.

    Attributes:
        reward: The reward.
        decoders: Decode finished rows.
        early: Decode the others.
        held_out: Rewards of finished pictures that are only reported.
    """

    def __init__(
        self,
        reward: Reward,
        vae: VAE | None,
        scoring_vae: VAE | None = None,
        score_size: int = 0,
        held_out: Sequence[Reward] = (),
        audio_vae: VAE | None = None,
    ) -> None:
        """Keep them.

        Args:
            reward: Scores pictures, clips, sound or latents.
            vae: Decodes finished rows, and the others where there is no scoring_vae; None where
                only latents are scored.
            scoring_vae: Decodes unfinished pictures; None for the same as vae.
            score_size: Longer side of unfinished pictures for the reward; 0 leaves them.
            held_out: Score finished pictures for the report.
            audio_vae: Decodes the sound of latents of video with sound; None for vae.

        Raises:
            ValueError: A reward of something else, or of what no VAE that is connected decodes to.
        """
        self.reward = reward
        self.decoders = Decoders.of(vae, audio_vae)
        self.held_out = HeldOut(held_out)
        self._given_audio = audio_vae
        self.early = self.decoders.instead(scoring_vae)
        self._score_size = score_size
        self._pixels: dict[bool, int] = {}  # of a picture, finished or not
        self._answers = Answers()  # paid for in calls that failed, such as for lack of memory
        rewards = named([reward, *held_out])
        self._domains = {name: domains_of(each) for name, each in rewards.items()}
        self._rewards = rewards
        _require_scorable(self._domains, self.decoders)
        self._decodes = any(domains - {"latent"} for domains in self._domains.values())
        self._loads = self._decodes or any(models_of(each) for each in rewards.values())

    def require(self, shape: Sequence[int], parts: Shapes) -> None:
        """Refuse latents that the VAE cannot decode to what is scored, before anything is sampled.

        Args:
            shape: Of one row.
            parts: Shapes of the latents packed into it; see packed_shapes().

        Raises:
            ValueError: Latents of sound or of several frames and a VAE of single pictures, or a
                reward of sound and latents without any.
        """
        pieces = [tuple(each) for each in parts or [shape]]
        first, last = pieces[0], pieces[-1]
        looking = [name for name, found in self._domains.items() if found & LOOKS]
        used = {"vae": self.decoders.pictures}  # of whatever is scored, for the image output
        if looking:
            used["scoring_vae"] = self.early.pictures
        for socket, vae in used.items():
            stills = getattr(vae, "latent_dim", 3) == 2
            if vae and (len(first) == 2 or (stills and frames_of(first) > 1)):
                what = "sound" if len(first) == 2 else "a video"
                raise ValueError(
                    f"the latents have shape {first} each, which is {what}, and the VAE connected "
                    f"to {socket} decodes single pictures. Connect the model's own VAE, or for "
                    "sound its audio VAE and a reward of sound, such as CLAP Score"
                )
        hearing = [name for name, found in self._domains.items() if "audio" in found]
        if hearing and len(last) == 4:
            raise ValueError(
                f"the latents have shape {last} each, which is pictures without sound, and "
                f"{', '.join(hearing)} can only score sound. Connect a latent that holds both, for "
                "LTX 2 by LTXVConcatAVLatent, or a reward of pictures"
            )

    def notes(self, shape: Sequence[int], parts: Shapes) -> list[str]:
        """Say what is done that nobody asked for, and what was connected for nothing.

        Args:
            shape: Of one row.
            parts: Shapes of the latents packed into it.

        Returns:
            Sentences for the report.
        """
        return [*self._unneeded(), *self._frames(shape, parts)]

    def _unneeded(self) -> list[str]:
        """What a pack that fills every free socket connected."""
        lines: list[str] = []
        if self._given_audio is not None and self.decoders.sound is not self._given_audio:
            lines.append("the VAE connected to audio_vae decodes pictures and is not used")
        lines += [
            f"the held-out reward {name} is the reward that was searched for: it cannot show "
            "whether that one misleads; connect another"
            for name, reward in self.held_out.rewards.items()
            if reward is self.reward
        ]
        return lines

    def _frames(self, shape: Sequence[int], parts: Shapes) -> list[str]:
        """Rewards of pictures that see frames of a clip."""
        stills = [name for name, found in self._domains.items() if "image" in found]
        if not stills or frames_of((parts or [shape])[0]) == 1:
            return []
        how = FrameReward(self._rewards[stills[0]]).said()
        return [
            f"the latents are clips and {', '.join(stills)} scores pictures: its value is the "
            f"{how}; connect Frame Reward for other frames"
        ]

    def rows(self, guider: CFGGuider, clean: Tensor, finished: bool = True) -> Rows:
        """Return rows of clean latents as they are shown to rewards; nothing is decoded yet.

        Args:
            guider: The guider inside its sample().
            clean: In the model's space, one row a candidate.
            finished: Whether they are; others may be decoded more cheaply.

        Returns:
            The rows.
        """
        latents = guider.inner_model.process_latent_out(clean.float())
        shapes = packed_shapes(guider)
        if finished:
            return Rows(latents, shapes, self.decoders)
        return Rows(latents, shapes, self.early, self._score_size)

    def score(
        self, guider: CFGGuider, clean: Tensor, sigmas: Sequence[float], memory: float
    ) -> list[Scores]:
        """Score predictions of the clean latent.

        Args:
            guider: The guider inside its sample().
            clean: In the model's space, one row a candidate.
            sigmas: Where each candidate is; 0 for a finished one.
            memory: Bytes that the model's next call needs.

        Returns:
            One Scores a row, with what the reward saw, if it saw anything, as its thumbnail.
        """
        with self._answers.kept():
            return self._scored(guider, clean, sigmas, memory)

    def _scored(
        self, guider: CFGGuider, clean: Tensor, sigmas: Sequence[float], memory: float
    ) -> list[Scores]:
        scores: dict[int, Scores] = {}
        # clips and sounds one at a time: decoded ones are large, and each is much to a reward
        stills = frames_of(clean.shape[1:]) == 1 and not packed_shapes(guider)
        large = self._decodes and not (stills and self.decoders.pictures)
        with models_kept(memory) if self._loads else nullcontext():
            for finished in (True, False):
                places = [i for i, sigma in enumerate(sigmas) if (sigma == 0.0) == finished]
                while places:
                    count = 1 if large else self._together(clean, finished)
                    piece, places = places[:count], places[count:]
                    rows = self.rows(guider, clean[piece], finished)
                    found = self._score(rows, finished)
                    self._pixels[finished] = rows.pixels or self._pixels.get(finished, 0)
                    scores.update(zip(piece, found, strict=True))
        return [scores[i] for i in range(len(sigmas))]

    def _together(self, clean: Tensor, finished: bool) -> int:
        """How many pictures are decoded and scored in one call."""
        if not self._decodes:
            return len(clean)
        each = self._pixels.get(finished) or USUAL * clean[0, 0].numel()
        return max(1, PIXELS // each)

    def _score(self, rows: Rows, finished: bool) -> list[Scores]:
        comfy.model_management.throw_exception_if_processing_interrupted()
        reward, given = rows.shown_to(self.reward)
        found = assess(reward, given)
        beside, seconds = self.held_out.score(rows) if finished else ([{}] * len(rows), 0.0)
        return [
            Scores(value, dict(parts), held_out, seconds, thumbnail, note)
            for value, parts, held_out, thumbnail, note in zip(
                found.values.tolist(),
                found.parts,
                beside,
                rows.thumbnails(),
                found.notes,
                strict=True,
            )
        ]


def _require_scorable(scored: Mapping[str, set[str]], decoders: Decoders) -> None:
    """Refuse rewards to which a search has nothing to show."""
    other = [f"{name} scores {domain}s" for name, of in scored.items() for domain in of - {*FORMS}]
    if other:
        shown = ", ".join(form for form in FORMS if form != "several")
        raise ValueError(f"{', '.join(other)}; a search shows rewards one of: {shown}")
    looking = [name for name, of in scored.items() if of & LOOKS]
    if looking and decoders.pictures is None:
        vae = "the VAE connected decodes sound" if decoders.sound else "no VAE is connected"
        raise ValueError(
            f"{vae}, and {', '.join(looking)} can only score decoded pictures. Connect the model's "
            "VAE of pictures, or a reward of latents, such as Latent Reward, or for a model of "
            "sound one of sound, such as CLAP Score."
        )
    hearing = [name for name, of in scored.items() if "audio" in of]
    if hearing and decoders.sound is None:
        vae = "the VAE connected decodes pictures" if decoders.pictures else "no VAE is connected"
        raise ValueError(
            f"{vae}, and {', '.join(hearing)} can only score decoded sound. Connect an audio VAE: "
            "to vae for a model of sound, to audio_vae for a model of video with sound."
        )
