"""Which published files rewards read, and where they are published.

Digests and sizes stand here only where somebody read them off the file itself or its publisher.
"""

from __future__ import annotations

from .files import Weights

__all__ = [
    "AESTHETIC",
    "BERT_VOCABULARY",
    "CLAP",
    "DETECTORS",
    "FACES",
    "FOLDERS",
    "HPS",
    "IMAGE_REWARD",
    "LANGUAGE_MODELS",
    "PICK_SCORE",
]

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

CLAP = tuple(
    Weights(name, f"https://huggingface.co/laion/{name}", "Apache-2.0")
    for name in ("clap-htsat-unfused", "larger_clap_general", "larger_clap_music")
)
"""Encoders of sound and text as transformers saves them."""

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

FACES = tuple(
    Weights(
        name=f"models/{pack}/{file}",
        page=f"https://github.com/deepinsight/insightface/releases/download/v0.7/{pack}.zip",
        licence="non-commercial research only",
        folder="insightface",
    )
    for pack, files in (
        ("buffalo_l", ("det_10g.onnx", "w600k_r50.onnx")),
        ("antelopev2", ("scrfd_10g_bnkps.onnx", "glintr100.onnx")),
    )
    for file in files
)
"""Detector and recogniser of InsightFace's packs, as packs for face adapters keep them."""

LANGUAGE_MODELS = (
    Weights(
        "Qwen3-VL-4B-Instruct", "https://huggingface.co/Qwen/Qwen3-VL-4B-Instruct", "Apache-2.0"
    ),
    Weights(
        "SmolVLM-Instruct", "https://huggingface.co/HuggingFaceTB/SmolVLM-Instruct", "Apache-2.0"
    ),
    Weights(
        "UnifiedReward-2.0-qwen3vl-2b",
        "https://huggingface.co/CodeGoat24/UnifiedReward-2.0-qwen3vl-2b",
        "MIT",
    ),
)
"""Folders of vision-language models, of which any other of transformers' does as well."""

DETECTORS = (
    Weights(
        "FastestDet.onnx",
        "https://github.com/dog-qiuqiu/FastestDet",
        "BSD-3-Clause",
        998169,
        "31cb14c017fce347cb4c846ec62fdf00d76bb3beecdf4be21e7116ac67feb880",
        url="https://github.com/dog-qiuqiu/FastestDet/raw/main/example/onnx-runtime/FastestDet.onnx",
    ),
    Weights(
        "grounding-dino-base",
        "https://huggingface.co/IDEA-Research/grounding-dino-base",
        "Apache-2.0",
    ),
    Weights(
        "owlv2-base-patch16-ensemble",
        "https://huggingface.co/google/owlv2-base-patch16-ensemble",
        "Apache-2.0",
    ),
    Weights("sam-vit-base", "https://huggingface.co/facebook/sam-vit-base", "Apache-2.0"),
)
