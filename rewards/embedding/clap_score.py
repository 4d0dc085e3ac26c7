"""CLAP Score: how well a sound fits its prompt, as the cosine of their embeddings.

    score = mean over windows of <window, text> / (|window| |text|)        -1 to 1

Up to ten seconds the window is the sound, repeated and padded as the model's own preprocessing has
it. Of longer sounds that takes one piece at random; here as many whole windows as cover it are
taken, the first from its beginning, the last to its end, evenly apart, and their cosines' mean.
Channels are averaged. Wu et al., arXiv:2211.06687.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..base import Assessed, Assessment, RewardSpec, check_audio
from ..gradient import Gradient, holder_gradient
from ..weights.holder import Holder, NetworkReward, dtype_of, widened
from ..weights.pretrained import Foreign, load_network, load_part, model_type
from .encoder import TextEncoder, Tokens
from .log_mel import log_mel
from .transformers_encoder import tokenizer

__all__ = ["ClapScore", "clap_score", "load"]

KINDS = ("clap",)
"""model_type of a folder's config.json."""


def load(folder: Path, dtype: torch.dtype) -> nn.Module:
    """Load a folder's network.

    Args:
        folder: As transformers saves a CLAP model.
        dtype: Of the weights.

    Returns:
        The network on the CPU.

    Raises:
        ValueError: Of another type, or not whole.
    """
    model_type(folder, KINDS)
    return load_network(folder, "ClapModel", dtype)


def clap_score(holder: Holder[Any], folder: Path, prompt: str) -> ClapScore:
    """Join a loaded network with its folder's preprocessing and a prompt.

    Args:
        holder: Keeps what `load` gave.
        folder: The same folder.
        prompt: What should be heard.

    Returns:
        The reward.

    Raises:
        ValueError: A folder without CLAP's preprocessing or a tokenizer, or an empty prompt.
    """
    extractor = load_part(folder, "AutoFeatureExtractor")
    config = holder.network.config
    # the ids of RoBERTa's positions begin after that of its padding
    longest = config.text_config.max_position_embeddings - config.text_config.pad_token_id - 1
    text = TextEncoder(holder, _words, tokenizer(folder, longest), config.projection_dim)
    extract = log_mel(extractor)
    rate = int(extractor.sampling_rate)
    return ClapScore(holder, extract, text, prompt, rate, extract.longest)


@dataclass(frozen=True, eq=False)
class ClapScore(Assessed, NetworkReward):
    """Cosine of the sound's and the prompt's embedding.

    Args:
        holder: Keeps a ClapModel of transformers.
        extract: Windows (N, samples), on the CPU -> what the network reads of them, which autograd
            follows.
        text: Encoder of texts by the same network.
        prompt: Plain words.
        rate: Samples a second that the network was trained on.
        longest: Samples of a window.

    Raises:
        ValueError: An empty prompt.
    """

    holder: Holder[Any]
    extract: Callable[[Tensor], Tensor]
    text: TextEncoder
    prompt: str
    rate: int
    longest: int

    def __post_init__(self) -> None:
        """Check the prompt."""
        if not self.prompt.strip():
            raise ValueError(
                "CLAP Score was given an empty prompt. Say what should be heard, such as "
                "'a dog barks and a car passes'."
            )

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return RewardSpec(
            name="clap_score",
            measures="how well the sound fits the prompt: cosine of their embeddings",
            low=-1.0,
            high=1.0,
            scale=0.1,
            domain="audio",
            sample_rate=self.rate,
            has_gradient=True,
            licence="that of the model's weights",
            source="the folder chosen; arXiv:2211.06687",
        )

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """The network's."""
        return (self.holder,)

    @cached_property
    def _tokens(self) -> Tokens:
        return self.text.tokenize(self.prompt)

    @cached_property
    def _direction(self) -> Tensor:
        return self.text.embed(self._tokens.ids)

    def assess(self, images: Tensor) -> Assessment:
        """Score sounds, and say what each window of a long one got.

        Args:
            images: Sounds (B, channels, samples) at the spec's sample rate, about -1 to 1.

        Returns:
            Cosines; parts "at 20 s" for each window where there are several; a note where the
            prompt is too long.

        Raises:
            ValueError: Not a batch of finite sounds.
        """
        check_audio(images, "CLAP Score")
        if not len(images):
            return Assessment(images.new_zeros(0, dtype=torch.float32))
        starts = self._starts(images.shape[2])
        features = self._features(images.detach().float())
        found = self.holder.run(self._cosines(), features)
        cosines = found.reshape(-1, len(starts))
        names = [f"at {start / self.rate:g} s" for start in starts]
        several = len(starts) > 1
        parts = [{n: float(v) for n, v in zip(names, row, strict=True)} for row in cosines]
        note = self._tokens.note
        return Assessment(
            cosines.mean(dim=1).to(images.device),
            parts if several else (),
            [note] * len(images) if note else (),
        )

    def gradient(self, images: Tensor) -> Gradient:
        """See Differentiable.

        Args:
            images: Sounds, as for score.

        Returns:
            Cosines, and how they change with the sounds.

        Raises:
            ValueError: Not a batch of finite sounds.
        """
        check_audio(images, "CLAP Score")
        cosines = self._cosines()
        with torch.inference_mode(False), torch.enable_grad():
            given = images.clone() if images.is_inference() else images.detach()
            if not len(given):
                return Gradient(given.new_zeros(0, dtype=torch.float32), torch.zeros_like(given))
            features = self._features(given.requires_grad_())
            found = holder_gradient(self.holder, cosines, features.detach())
            count = len(features) // len(given)
            back = cast("Tensor", found.gradient) / count
            (gradient,) = torch.autograd.grad(features, given, back)
            values = found.values.reshape(-1, count).mean(dim=1)
        return Gradient(values.to(images.device), gradient)

    def _features(self, sounds: Tensor) -> Tensor:
        """What the network reads of every window of every sound, on the CPU."""
        mono = sounds.mean(dim=1).cpu()
        starts = self._starts(mono.shape[1])
        windows = torch.stack([mono[:, at : at + self.longest] for at in starts], dim=1)
        return self.extract(windows.flatten(0, 1))

    def _cosines(self) -> Callable[[Foreign, Tensor], Tensor]:
        """What is run of the network."""
        direction = self._direction

        def run(network: Foreign, features: Tensor) -> Tensor:
            found = functional.normalize(widened(_sounds(network, features)), dim=-1)
            return (found @ direction.to(found)).clamp(-1.0, 1.0)

        return run

    def _starts(self, samples: int) -> list[int]:
        """Where windows begin, the fewest that cover so many samples."""
        windows = -(-samples // self.longest)
        last = max(0, samples - self.longest)
        return [last * i // max(1, windows - 1) for i in range(windows)]


def _sounds(network: Foreign, features: Tensor) -> Tensor:
    """Embeddings (B, width) of what was extracted of windows (B, 1 or 4, frames, bands).

    Of a network with feature fusion each window counts as a long one, as the reference has it for a
    sound that comes alone.
    """
    fused = torch.full((len(features), 1), features.shape[1] > 1, device=features.device)
    found = network.get_audio_features(
        input_features=features.to(dtype_of(network)), is_longer=fused
    )
    return found if isinstance(found, Tensor) else found.pooler_output


def _words(network: Foreign, ids: Tensor) -> Tensor:
    found = network.get_text_features(input_ids=ids)
    return found if isinstance(found, Tensor) else found.pooler_output
