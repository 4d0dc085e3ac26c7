"""The list of rewards: where each is, and what it reads from disk.

One row a reward. The class is imported when it is asked for, so that a missing optional package
costs the one reward that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .weights import Weights

__all__ = [
    "AESTHETIC",
    "BERT_VOCABULARY",
    "FOLDERS",
    "HPS",
    "IMAGE_REWARD",
    "LANGUAGE_MODELS",
    "PICK_SCORE",
    "REWARDS",
    "Entry",
]


@dataclass(frozen=True)
class Entry:
    """A row.

    Attributes:
        module: File of this folder, without .py.
        cls: Name of its class.
        node: Id of the node that makes it.
        weights: Published files it can read, the usual one first.
        packages: Optional Python packages it needs, as pip names them.
    """

    module: str
    cls: str
    node: str
    weights: tuple[Weights, ...] = ()
    packages: tuple[str, ...] = ()

    def load(self) -> type[Any]:
        """Import the class.

        Returns:
            The class.
        """
        return getattr(import_module(f".{self.module}", __package__), self.cls)


_HUB = "https://huggingface.co/"

BERT_VOCABULARY = Weights(
    name="bert-base-uncased/vocab.txt",
    page=_HUB + "google-bert/bert-base-uncased",
    licence="Apache-2.0",
    url=_HUB + "google-bert/bert-base-uncased/resolve/main/vocab.txt",
)
"""The words that ImageReward's tokens stand for."""

PICK_SCORE = Weights(
    name="PickScore_v1.safetensors",
    page=_HUB + "yuvalkirstain/PickScore_v1",
    licence="code MIT, none stated for the weights",
    size=3_944_000_000,
    url=_HUB + "yuvalkirstain/PickScore_v1/resolve/main/model.safetensors",
)

HPS = Weights(
    name="HPS_v2.1_compressed.pt",
    page=_HUB + "xswu/HPSv2",
    licence="Apache-2.0",
    size=1_972_000_000,
    url=_HUB + "xswu/HPSv2/resolve/main/HPS_v2.1_compressed.pt",
)

IMAGE_REWARD = Weights(
    name="ImageReward.pt",
    page=_HUB + "THUDM/ImageReward",
    licence="Apache-2.0",
    size=1_787_000_000,
    url=_HUB + "THUDM/ImageReward/resolve/main/ImageReward.pt",
)

_PREFERENCE = "FlowSearchPreference"
FOLDERS = tuple(
    Weights(name, f"https://huggingface.co/{owner}/{name}", licence)
    for name, owner, licence in (
        ("clip-vit-large-patch14", "openai", "MIT"),
        ("siglip-so400m-patch14-384", "google", "Apache-2.0"),
        ("siglip2-so400m-patch14-384", "google", "Apache-2.0"),
        ("siglip2-so400m-patch16-naflex", "google", "Apache-2.0"),
        ("dinov2-base", "facebook", "Apache-2.0"),
    )
)
"""Encoders as transformers saves them."""

AESTHETIC = (
    Weights(
        name="sac+logos+ava1-l14-linearMSE.pth",
        page="https://github.com/christophschuhmann/improved-aesthetic-predictor",
        licence="Apache-2.0",
        size=3_714_759,
        sha256="21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
        url="https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
        "sac%2Blogos%2Bava1-l14-linearMSE.pth",
    ),
    Weights(
        name="sa_0_4_vit_l_14_linear.pth",
        page="https://github.com/LAION-AI/aesthetic-predictor",
        licence="MIT",
        size=4_071,
        sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
        url="https://github.com/LAION-AI/aesthetic-predictor/raw/main/sa_0_4_vit_l_14_linear.pth",
    ),
    Weights(
        name="aesthetic_predictor_v2_5.pth",
        page="https://github.com/discus0434/aesthetic-predictor-v2-5",
        licence="AGPL-3.0",
        url="https://github.com/discus0434/aesthetic-predictor-v2-5/raw/main/models/"
        "aesthetic_predictor_v2_5.pth",
    ),
)
"""Heads on embeddings of CLIP ViT-L/14 (the first two) and SigLIP so400m-patch14-384."""
LANGUAGE_MODELS = (
    Weights(
        "Qwen3-VL-4B-Instruct", "https://huggingface.co/Qwen/Qwen3-VL-4B-Instruct", "Apache-2.0"
    ),
    Weights(
        "SmolVLM-Instruct", "https://huggingface.co/HuggingFaceTB/SmolVLM-Instruct", "Apache-2.0"
    ),
)
"""Folders of vision-language models, of which any other of transformers' does as well."""

REWARDS: Mapping[str, Entry] = {
    "clip_score": Entry("clip_score", "ClipScore", "FlowSearchClipScore", FOLDERS),
    "aesthetic": Entry("aesthetic", "Aesthetic", "FlowSearchAesthetic", AESTHETIC),
    "image_match": Entry("image_match", "ImageMatch", "FlowSearchImageMatch", FOLDERS),
    "shape_count": Entry("shape_count", "ShapeCount", "FlowSearchShapeCount"),
    "shape_fidelity": Entry("shape_fidelity", "ShapeFidelity", "FlowSearchShapeFidelity"),
    "pick_score": Entry("clip_preference", "ClipPreference", _PREFERENCE, (PICK_SCORE,)),
    "hps": Entry("clip_preference", "ClipPreference", _PREFERENCE, (HPS,)),
    "image_reward": Entry(
        "image_reward", "ImageReward", _PREFERENCE, (IMAGE_REWARD, BERT_VOCABULARY)
    ),
    "latent": Entry("latent", "LatentReward", "FlowSearchLatentReward"),
    "combination": Entry("combination", "Combination", "FlowSearchCombineRewards"),
    "vqa_score": Entry("vqa_score", "VQAScore", "FlowSearchVQAScore", LANGUAGE_MODELS),
    "vlm_count": Entry("vlm_count", "VLMCount", "FlowSearchVLMCount", LANGUAGE_MODELS),
    "text_in_image": Entry(
        "text_in_image",
        "TextInImage",
        "FlowSearchTextInImage",
        packages=("rapidocr-onnxruntime",),
    ),
    "image_statistic": Entry("image_statistic", "ImageStatistic", "FlowSearchImageStatistic"),
    "judge": Entry("judge", "Judge", "FlowSearchJudge"),
}
"""Name in the spec to row, in the order of the menu."""
