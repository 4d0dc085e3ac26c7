"""Rewards on embeddings of pictures."""

import functools

import encoders
import torch

from flowsearch.rewards.embedding.aesthetic import KINDS, Aesthetic, head_from
from flowsearch.rewards.embedding.clip_score import ClipScore
from flowsearch.rewards.embedding.image_match import ImageMatch
from flowsearch.rewards.frames import FrameReward
from flowsearch.rewards.weights.holder import Local


@functools.cache
def head(index: int):
    """A head of a published kind with seeded weights."""
    generator = torch.Generator().manual_seed(index)
    shapes = KINDS[index].shapes.items()
    return head_from({key: torch.randn(s, generator=generator) / s[-1] ** 0.5 for key, s in shapes})


def clip_score(kind: str, prompt: str = "a photo of three red circles") -> ClipScore:
    encoder = encoders.encoder(kind)
    assert encoder.text is not None
    return ClipScore(encoder.images, encoder.text, prompt)


def image_match(kind: str, rule: str) -> ImageMatch:
    generator = torch.Generator().manual_seed(2)
    references = [torch.rand(n, 40, 40 + n, 3, generator=generator) for n in (1, 2)]
    return ImageMatch(encoders.encoder(kind).images, references, rule)


def aesthetic(index: int) -> Aesthetic:
    kind = "siglip_so400m" if KINDS[index].family == "siglip" else "clip_l"
    return Aesthetic(encoders.encoder(kind).images, Local(head(index)))


CASES = {
    "clip_score": lambda: clip_score("clip"),
    "clip_score:siglip": lambda: clip_score("siglip"),
    "clip_score:naflex": lambda: clip_score("naflex"),
    "frames:clip_score": lambda: FrameReward(clip_score("clip"), count=2),
    "image_match": lambda: image_match("dinov2", "mean"),
    "image_match:max": lambda: image_match("clip", "max"),
    "aesthetic": lambda: aesthetic(0),
    "aesthetic:v1": lambda: aesthetic(1),
    "aesthetic:v2_5": lambda: aesthetic(2),
}
OTHER = {
    "clip_score": lambda: clip_score("clip", "two cats"),
    "clip_score:siglip": lambda: clip_score("siglip", "two cats"),
    "clip_score:naflex": lambda: clip_score("naflex", "two cats"),
    "frames:clip_score": lambda: FrameReward(clip_score("clip", "two cats"), count=2),
}
