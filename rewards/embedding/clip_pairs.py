"""Which two files make a whole CLIP: a text model with its projection, and the vision half.

Files cut for image models mostly leave out the projection that leads to the space pictures and
texts share, so a CLIP score cannot be computed from them. The rows name the lightest published
files that are complete. Sizes that are exact were read off a publisher's or a mirror's listing and
are those that the layout gives (tests/support/clip_layouts.py writes the same headers); others are
rounded to a million and called "about".
"""

from __future__ import annotations

from dataclasses import dataclass

from ..weights.files import Weights

__all__ = ["PAIRS", "Pair", "advice"]


@dataclass(frozen=True)
class Pair:
    """A CLIP in two files of the host's own folders.

    Attributes:
        model: Its name.
        width: Numbers of an embedding, by which the halves are told to belong together.
        text: The lightest file whose text model has its projection.
        vision: The lightest file whose vision model has its.
        owned: Where people may have the text half already.
        same: Other files of the vision half that do as well.
    """

    model: str
    width: int
    text: Weights
    vision: Weights
    owned: str = ""
    same: tuple[Weights, ...] = ()


def _file(
    folder: str, name: str, path: str, size: int, sha256: str = "", more: str = ""
) -> Weights:
    """A file of the hub, under the name by which the lists of nodes are to show it."""
    repository, file = "/".join(path.split("/")[:2]), "/".join(path.split("/")[2:])
    page = f"https://huggingface.co/{repository}"
    return Weights(name, page, f"MIT{more}", size, sha256, f"{page}/resolve/main/{file}", folder)


VIT_L = Pair(
    model="CLIP ViT-L/14",
    width=768,
    text=_file(
        "text_encoders",
        "clip_l_with_projection.safetensors",
        "stabilityai/stable-diffusion-3.5-medium/text_encoder/model.safetensors",
        247_323_896,
        "71e183d11db0c6b6282a4d9e0abb74125edc8692393e89ed8ee5571005f35cb1",
        "; the site asks for a sign-in",
    ),
    vision=_file(
        "clip_vision",
        "clip_vision_l_fp16.safetensors",
        "diffusers/stable-diffusion-2-1-unclip-i2i-l/image_encoder/model.fp16.safetensors",
        608_000_000,
    ),
    owned="the diffusers form of SD 3 and SD 3.5 (text_encoder/model.safetensors)",
    same=(
        _file(
            "clip_vision",
            "clip-vit-large-patch14.safetensors",
            "openai/clip-vit-large-patch14/model.safetensors",
            1_710_540_580,
        ),
    ),
)

VIT_G = Pair(
    model="CLIP ViT-bigG/14",
    width=1280,
    text=_file(
        "text_encoders",
        "clip_g.safetensors",
        "Comfy-Org/stable-diffusion-3.5-fp8/text_encoders/clip_g.safetensors",
        1_389_382_176,
        "ec310df2af79c318e24d20511b601a591ca8cd4f1fce1d8dff822a356bcdb1f4",
    ),
    vision=_file(
        "clip_vision",
        "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
        "h94/IP-Adapter/sdxl_models/image_encoder/model.safetensors",
        3_689_912_664,
        "657723e09f46a7c3957df651601029f66b1748afb12b419816330f16ed45d64d",
    ),
    owned="the CLIP of any SDXL checkpoint, before any LoRA",
)

VIT_H = Pair(
    model="CLIP ViT-H/14",
    width=1024,
    text=_file(
        "checkpoints",
        "v2-1_768-ema-pruned.safetensors",
        "Comfy-Org/stable_diffusion_2.1_repackaged/v2-1_768-ema-pruned.safetensors",
        5_214_604_494,
        "dcd690123cfc64383981a31d955694f6acf2072a80537fdb612c8e58ec87a8ac",
        " for the text half, OpenRAIL++ for the rest",
    ),
    vision=_file(
        "clip_vision",
        "CLIP-ViT-H-fp16.safetensors",
        "Kijai/CLIPVisionModelWithProjection_fp16/CLIP-ViT-H-fp16.safetensors",
        1_264_000_000,
        "5846f524f8ebf9c3092cba64d1d2ed63b0997d00e80be32b0124114a592e8474",
    ),
    owned="the CLIP of any SD 2.0 or 2.1 checkpoint",
    same=(
        _file(
            "clip_vision",
            "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
            "h94/IP-Adapter/models/image_encoder/model.safetensors",
            2_528_373_448,
            "6ca9667da1ca9e0b0f75e46bb030f7e011f44f86cbfb8d5a36590fcd7507b030",
        ),
    ),
)

PAIRS = (VIT_L, VIT_G, VIT_H)
"""The lightest first, taken together."""


def advice(width: int = 0) -> str:
    """Say which files make a whole CLIP, for an error or a help page.

    Args:
        width: Numbers of the embedding that is wanted; 0 for any.

    Returns:
        A sentence for each CLIP that gives such an embedding; all of them where none does.
    """
    pairs = [pair for pair in PAIRS if pair.width == width] or PAIRS
    return " ".join(
        f"{pair.model}: {_named(pair.text)}, with {_named(pair.vision)}."
        + (f" Also {pair.owned}." if pair.owned else "")
        for pair in pairs
    )


def _named(weights: Weights) -> str:
    """A file, its size, where it goes and where it comes from."""
    about = "about " if weights.size % 1_000_000 == 0 else ""
    return (
        f"{weights.name} in models/{weights.folder} ({about}{weights.size / 1e6:,.0f} MB, from "
        f"{weights.url})"
    )
