"""The list of rewards: where each is, and what it reads from disk.

One row a reward. The class is imported when it is asked for, so that a missing optional package
costs the one reward that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .sources import (
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
from .weights import Weights

__all__ = ["REWARDS", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A row.

    Attributes:
        module: File of this folder, without .py.
        cls: Name of its class.
        node: Id of the node that makes it.
        weights: Published files it can read, the usual one first.
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
    "clip_score": Entry("clip_score", "ClipScore", "FlowSearchClipScore", FOLDERS),
    "aesthetic": Entry("aesthetic", "Aesthetic", "FlowSearchAesthetic", AESTHETIC),
    "image_match": Entry("image_match", "ImageMatch", "FlowSearchImageMatch", FOLDERS),
    "face_likeness": Entry("face_likeness", "FaceLikeness", "FlowSearchFaceLikeness", FACES),
    "pick_score": Entry("clip_preference", "ClipPreference", _PREFERENCE, (PICK_SCORE,)),
    "hps": Entry("clip_preference", "ClipPreference", _PREFERENCE, (HPS,)),
    "image_reward": Entry(
        "image_reward", "ImageReward", _PREFERENCE, (IMAGE_REWARD, BERT_VOCABULARY)
    ),
    "vqa_score": Entry("vqa_score", "VQAScore", "FlowSearchVQAScore", LANGUAGE_MODELS),
    "vlm_rating": Entry("vlm_rating", "VLMRating", "FlowSearchVLMRating", LANGUAGE_MODELS),
    "vlm_count": Entry("vlm_count", "VLMCount", "FlowSearchVLMCount", LANGUAGE_MODELS),
    "detector_count": Entry(
        "detector_count", "DetectorCount", "FlowSearchDetectorCount", DETECTORS
    ),
    "text_in_image": Entry("text_in_image", "TextInImage", "FlowSearchTextInImage"),
    "judge": Entry("judge", "Judge", "FlowSearchJudge"),
    "image_statistic": Entry("image_statistic", "ImageStatistic", "FlowSearchImageStatistic"),
    "shape_count": Entry("shape_count", "ShapeCount", "FlowSearchShapeCount"),
    "shape_fidelity": Entry("shape_fidelity", "ShapeFidelity", "FlowSearchShapeFidelity"),
    "clap_score": Entry("clap_score", "ClapScore", "FlowSearchClapScore", CLAP),
    "latent": Entry("latent", "LatentReward", "FlowSearchLatentReward"),
    "frames": Entry("frames", "FrameReward", "FlowSearchFrameReward"),
    "combination": Entry("combination", "Combination", "FlowSearchCombineRewards"),
}
"""Name in the spec to row, in the order of the menu."""
