"""The list of rewards: where each is, and what it reads from disk.

One row a reward. The class is imported when it is asked for, so that a missing optional package
costs the one reward that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .weights.files import Weights
from .weights.sources import (
    AESTHETIC,
    BERT_VOCABULARY,
    CLAP,
    DETECTORS,
    FACES,
    FOLDERS,
    HPS,
    IMAGE_REWARD,
    LANGUAGE_MODELS,
    PICK_SCORE,
)

__all__ = ["REWARDS", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A row.

    Attributes:
        module: Module of this package, with its room.
        cls: Name of its class.
        node: Id of the node that makes it.
        weights: Published files it can read, the usual one first.

    Example:
        >>> REWARDS["shape_count"].load().__name__
        'ShapeCount'
    """

    module: str
    cls: str
    node: str
    weights: tuple[Weights, ...] = ()

    def load(self) -> type[Any]:
        """Import the class.

        Returns:
            The class.
        """
        return getattr(import_module(f".{self.module}", __package__), self.cls)


_PREFERENCE = "FlowSearchPreference"

REWARDS: Mapping[str, Entry] = {
    "clip_score": Entry("embedding.clip_score", "ClipScore", "FlowSearchClipScore", FOLDERS),
    "aesthetic": Entry("embedding.aesthetic", "Aesthetic", "FlowSearchAesthetic", AESTHETIC),
    "image_match": Entry("embedding.image_match", "ImageMatch", "FlowSearchImageMatch", FOLDERS),
    "face_likeness": Entry("faces.likeness", "FaceLikeness", "FlowSearchFaceLikeness", FACES),
    "pick_score": Entry("preference.clip_preference", "ClipPreference", _PREFERENCE, (PICK_SCORE,)),
    "hps": Entry("preference.clip_preference", "ClipPreference", _PREFERENCE, (HPS,)),
    "image_reward": Entry(
        "preference.image_reward", "ImageReward", _PREFERENCE, (IMAGE_REWARD, BERT_VOCABULARY)
    ),
    "vqa_score": Entry("language.vqa_score", "VQAScore", "FlowSearchVQAScore", LANGUAGE_MODELS),
    "vlm_rating": Entry("language.vlm_rating", "VLMRating", "FlowSearchVLMRating", LANGUAGE_MODELS),
    "vlm_count": Entry("language.vlm_count", "VLMCount", "FlowSearchVLMCount", LANGUAGE_MODELS),
    "detector_count": Entry(
        "detection.detector_count", "DetectorCount", "FlowSearchDetectorCount", DETECTORS
    ),
    "text_in_image": Entry("reading.text_in_image", "TextInImage", "FlowSearchTextInImage"),
    "judge": Entry("judge.judge", "Judge", "FlowSearchJudge"),
    "image_statistic": Entry(
        "pixels.image_statistic", "ImageStatistic", "FlowSearchImageStatistic"
    ),
    "layout": Entry("pixels.layout", "Layout", "FlowSearchLayoutReward"),
    "shape_count": Entry("pixels.shape_count", "ShapeCount", "FlowSearchShapeCount"),
    "shape_fidelity": Entry("pixels.shape_fidelity", "ShapeFidelity", "FlowSearchShapeFidelity"),
    "clap_score": Entry("embedding.clap_score", "ClapScore", "FlowSearchClapScore", CLAP),
    "latent": Entry("latent", "LatentReward", "FlowSearchLatentReward"),
    "frames": Entry("frames", "FrameReward", "FlowSearchFrameReward"),
    "combination": Entry("combination", "Combination", "FlowSearchCombineRewards"),
}
"""Name in the spec to row, in the order of the menu."""
