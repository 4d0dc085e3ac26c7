"""Encoders from folders as transformers saves them: CLIP, SigLIP, SigLIP 2 (NaFlex too), DINOv2.

The network is the library's; preprocessing is ours, read from the folder's processor. Text follows
each model's own training: CLIP reads up to 77 tokens, SigLIP exactly 64, padded, in lower case.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..weights.holder import Holder, dtype_of
from ..weights.preprocess import Patches, Preprocess
from ..weights.pretrained import Foreign, load_network, load_part, model_type, need_tokenizer
from .encoder import Encoder, ImageEncoder, TextEncoder, Tokens, cut_off

__all__ = ["encoder", "load", "tokenizer"]

FAMILIES = {"clip": "clip", "siglip": "siglip", "siglip2": "siglip", "dinov2": "dinov2"}
"""model_type of a folder's config.json to the family of an encoder."""

NEEDS = "encoder (config.json, *.safetensors, preprocessor and, for texts, tokenizer)"


def load(folder: Path, dtype: torch.dtype) -> nn.Module:
    """Load a folder's network.

    Args:
        folder: As transformers saves a model.
        dtype: Of the weights.

    Returns:
        The network on the CPU.

    Raises:
        ValueError: Of no known type, or not whole.
    """
    model_type(folder, FAMILIES)
    return load_network(folder, "AutoModel", dtype)


def encoder(holder: Holder[Any], folder: Path) -> Encoder:
    """Join a loaded network with its folder's processor and tokenizer.

    Args:
        holder: Keeps what `load` gave.
        folder: The same folder.

    Returns:
        Its encoders.

    Raises:
        ValueError: Of no known type, or its processor does what is not done here.
    """
    config = holder.network.config
    family = FAMILIES[model_type(folder, FAMILIES)]
    processor = load_part(folder, "AutoImageProcessor").to_dict()
    is_flexible = "max_num_patches" in processor
    try:
        preprocess = _flexible(processor) if is_flexible else Preprocess.from_config(processor)
    except ValueError as error:
        raise ValueError(
            f"The image processor of '{folder.name}' cannot be used: {error}."
        ) from error
    vision = config if family == "dinov2" else config.vision_config
    width = config.projection_dim if family == "clip" else vision.hidden_size
    images = ImageEncoder(
        holder,
        forward=_pooled if family == "dinov2" else _patches if is_flexible else _features,
        preprocess=preprocess,
        width=width,
        family=family,
        side=0 if isinstance(preprocess, Patches) else preprocess.height,
        aligned=family != "dinov2",
    )
    if family == "dinov2":
        return Encoder(images)
    longest = config.text_config.max_position_embeddings
    tokenize = tokenizer(folder, longest, padded=family == "siglip")
    return Encoder(images, TextEncoder(holder, _text, tokenize, width))


def _flexible(processor: dict[str, Any]) -> Patches:
    """The preprocessing of a processor of SigLIP 2 for any proportions."""
    names = {2: "bilinear", 3: "bicubic"}
    return Patches(
        patch=processor["patch_size"],
        most=processor["max_num_patches"],
        mean=tuple(processor["image_mean"]),
        std=tuple(processor["image_std"]),
        resample=names[int(processor["resample"])],
    )


def _tensor(found: Foreign) -> Tensor:
    """Features: transformers 4 returns them, 5 the output whose pooler_output they are."""
    return found if isinstance(found, Tensor) else found.pooler_output


def _features(network: Foreign, pixels: Tensor) -> Tensor:
    return _tensor(network.get_image_features(pixel_values=pixels.to(dtype_of(network))))


def _pooled(network: Foreign, pixels: Tensor) -> Tensor:
    return network(pixel_values=pixels.to(dtype_of(network))).pooler_output


def _patches(network: Foreign, pixels: Tensor) -> Tensor:
    """Cut into patches, row by row, channels last, as the reference does.

    The pictures are all of one size, so none is padded.
    """
    patch = network.config.vision_config.patch_size
    count, _, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cut = pixels.reshape(count, 3, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    flat = cut.reshape(count, rows * columns, -1).to(dtype_of(network))
    found = network.get_image_features(
        pixel_values=flat,
        pixel_attention_mask=torch.ones(flat.shape[:2], dtype=torch.int32, device=flat.device),
        spatial_shapes=torch.tensor([[rows, columns]] * count, device=flat.device),
    )
    return _tensor(found)


def _text(network: Foreign, ids: Tensor) -> Tensor:
    return _tensor(network.get_text_features(input_ids=ids))


def tokenizer(folder: Path, longest: int, *, padded: bool = False) -> Callable[[str], Tokens]:
    """Load a function from words to ids that says what it cut off.

    Args:
        folder: With a tokenizer.
        longest: Most tokens that the network reads.
        padded: Whether it reads exactly as many, in lower case.

    Returns:
        Words to Tokens.

    Raises:
        ValueError: No words, or they cannot be loaded.
    """
    need_tokenizer(folder)
    loaded = load_part(folder, "AutoTokenizer")

    def tokenize(text: str) -> Tokens:
        # SigLIP was trained on lower case; not every version of its tokenizers sees to it
        words = text.lower() if padded else text
        count = len(loaded(words)["input_ids"])
        found = loaded(
            words,
            max_length=longest,
            truncation=True,
            padding="max_length" if padded else False,
            return_tensors="pt",
        )
        return Tokens(found["input_ids"], cut_off(count, longest))

    return tokenize
