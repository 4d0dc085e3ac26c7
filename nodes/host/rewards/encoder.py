"""Encoders from what the host's own loaders gave, CLIP_VISION for pictures and CLIP for texts, or
from folders, under the host's memory manager.

What the host loaded is not loaded a second time. Pictures get our preprocessing, which is the
reference's (the host's crops SigLIP's and rounds only once); texts get the host's tokenizer
without its prompt syntax: what a prompt holds of it is taken out before (prompt.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.ops
import comfy.sd1_clip
import safetensors
import torch
from torch import Tensor

from ....rewards.embedding import transformers_encoder
from ....rewards.embedding.aesthetic import AestheticHead, head_from
from ....rewards.embedding.clip_pairs import advice
from ....rewards.embedding.encoder import Encoder, ImageEncoder, TextEncoder, Tokens, cut_off
from ....rewards.weights.preprocess import DINOV2_224, Patches, Preprocess
from ..page.remarks import remark
from .reward_files import read, stamp
from .reward_model import Managed, fine_type, kept

__all__ = ["encoder_of", "folder_encoder", "head_of"]

CLIPS = ("clip_l", "clip_g", "clip_h")
"""Attributes of the host's text models and tokenizers that are CLIP's."""


def encoder_of(given: Any, clip: Any = None) -> Encoder:
    """Make encoders of what is connected.

    Args:
        given: A CLIP_VISION, or an Encoder from a folder.
        clip: With a CLIP_VISION, a CLIP for texts; None for pictures only.

    Returns:
        The encoders.

    Raises:
        ValueError: A kind of network that gives no embedding here, or halves that do not fit.
    """
    if isinstance(given, Encoder):
        if clip is not None:
            remark("the encoder comes from a folder and reads texts itself: clip is not used")
        return given
    images = _images(given)
    return Encoder(images, None if clip is None else _text(clip, images))


def folder_encoder(path: Path) -> Encoder:
    """Make encoders of a folder as transformers saves it; its network is kept once.

    Args:
        path: The folder.

    Returns:
        The encoders.
    """
    dtype = fine_type()
    key = ("encoder", *stamp(path), dtype)
    holder = kept(key, lambda: Managed(transformers_encoder.load(path, dtype)))
    return transformers_encoder.encoder(holder, path)


def head_of(path: Path) -> Managed[AestheticHead]:
    """Load the head of an aesthetic reward, in float32; it is kept once.

    Args:
        path: Its file.

    Returns:
        Its holder.
    """
    key = ("aesthetic", *stamp(path))
    return kept(key, lambda: Managed(head_from(read(path), comfy.ops.manual_cast)))


def _images(clip_vision: Any) -> ImageEncoder:
    """Pictures by a CLIP_VISION."""
    kind, config, side = clip_vision.model_type, clip_vision.config, clip_vision.image_size
    mean, std = tuple(clip_vision.image_mean), tuple(clip_vision.image_std)
    holder = Managed(clip_vision.model, patcher=clip_vision.patcher)
    if kind == "clip_vision_model":
        projection = clip_vision.model.visual_projection
        if not isinstance(projection, torch.nn.Linear):
            raise ValueError(
                "This CLIP_VISION has no projection, so its embedding is not CLIP's. These have: "
                f"{advice()}"
            )
        _check(projection.weight, "visual_projection", "the CLIP_VISION")
        preprocess, forward = Preprocess(side, side, mean, std), _embedding
        width, family = config["projection_dim"], "clip"
    elif kind in ("siglip_vision_model", "siglip2_vision_model"):
        flexible = side <= 0
        preprocess = (
            Patches(config["patch_size"], config["num_patches"], mean, std)
            if flexible
            else Preprocess(side, side, mean, std, fit="squash")
        )
        forward, width, family, side = _mean, config["hidden_size"], "siglip", max(side, 0)
    elif kind == "dinov2":
        preprocess, forward = DINOV2_224, _embedding
        width, family, side = config["hidden_size"], "dinov2", DINOV2_224.height
    else:
        raise ValueError(
            f"A CLIP_VISION of kind '{kind}' gives no embedding that rewards can use. Load a CLIP, "
            "SigLIP or DINOv2 vision model, or a folder with Load Reward Encoder."
        )
    return ImageEncoder(
        holder, forward, preprocess, width, family, side, aligned=family == "clip", mutates=True
    )


def _embedding(network: Any, pixels: Tensor) -> Tensor:
    """The host computes in float32 whatever the type of the weights."""
    return network(pixel_values=pixels)[2]


def _mean(network: Any, pixels: Tensor) -> Tensor:
    """The host leaves SigLIP's pooling head out: the mean of what it would pool."""
    return network(pixel_values=pixels)[2].mean(dim=1)


def _text(clip: Any, images: ImageEncoder) -> TextEncoder:
    """Texts by that one of a CLIP's text models which is as wide as the pictures' embedding."""
    model, tokenizers = clip.cond_stage_model, clip.tokenizer
    found = {name: getattr(model, name, None) for name in CLIPS}
    found = {k: v for k, v in found.items() if isinstance(v, comfy.sd1_clip.SDClipModel)}
    widths = {k: v.transformer.text_projection.weight.shape[0] for k, v in found.items()}
    name = next((k for k, width in widths.items() if width == images.width), None)
    if not images.aligned or name is None or getattr(tokenizers, name, None) is None:
        raise ValueError(
            f"The CLIP_VISION is of family {images.family} and gives {images.width} numbers; the "
            f"CLIP holds {widths or 'no CLIP text model'}. ViT-L/14 goes with clip_l (768), ViT-H "
            "with SD 2's (1024), ViT-bigG with clip_g (1280); SigLIP needs a folder by Load "
            f"Reward Encoder. Files that belong together: {advice(images.width)}"
        )
    _check_projection(clip, name, found[name].transformer.text_projection.weight)
    network, tokenizer = found[name], getattr(tokenizers, name)
    positions = network.transformer.text_model.embeddings.position_embedding.weight.shape[0]
    special = network.special_tokens

    def tokenize(text: str) -> Tokens:
        ids = list(tokenizer.tokenizer(text)["input_ids"])
        note = cut_off(len(ids), positions)
        ids = ids if len(ids) <= positions else [*ids[: positions - 1], special["end"]]
        ids += [special["pad"]] * (positions - len(ids))
        return Tokens(torch.tensor([ids]), note)

    holder = Managed(network, patcher=clip.patcher)
    return TextEncoder(holder, _pooled, tokenize, images.width)


def _pooled(network: Any, ids: Tensor) -> Tensor:
    """The projected output at the end of the text; the host's own settings are put back."""
    network.set_clip_options({"projected_pooled": True, "execution_device": ids.device})
    try:
        return network(ids.tolist())[1]
    finally:
        network.reset_clip_options()


def _check_projection(clip: Any, name: str, weight: Tensor) -> None:
    """Refuse a text model whose file had no projection.

    The host leaves such a one as memory happened to be. The file is asked where the loader noted
    it: any square text_projection of the right width; otherwise the values are.
    """
    recipe = getattr(clip.patcher, "cached_patcher_init", None)
    noted = recipe[1][0] if recipe else ()
    paths = [Path(path) for path in ([noted] if isinstance(noted, str) else noted)]
    if paths and all(path.suffix == ".safetensors" for path in paths):
        wanted = [weight.shape[0]] * 2
        if not any(_holds(path, wanted) for path in paths):
            raise ValueError(_without(name, ", ".join(path.name for path in paths), wanted[0]))
    _check(weight, "text_projection", f"{name} of the CLIP")


def _holds(path: Path, shape: list[int]) -> bool:
    """Whether a file holds a text projection of a shape."""
    with safetensors.safe_open(str(path), framework="pt") as file:
        keys = [k for k in file.keys() if k.endswith(("text_projection", "text_projection.weight"))]  # noqa: SIM118
        return any(list(file.get_slice(key).get_shape()) == shape for key in keys)


def _check(weight: Tensor, key: str, whose: str) -> None:
    """Refuse weights that no training leaves: none, not finite, zero rows, or the identity."""
    values = weight.detach().float()
    rows = values.abs().amax(dim=1) if values.ndim == 2 else values
    square = values.ndim == 2 and values.shape[0] == values.shape[1]
    identity = square and torch.equal(values.cpu(), torch.eye(values.shape[0]))
    if not bool(torch.isfinite(values).all()) or bool((rows == 0).any()) or identity:
        raise ValueError(
            _without(whose, f"its file ({key})", values.shape[0] if values.ndim == 2 else 0)
        )


def _without(whose: str, file: str, width: int) -> str:
    return (
        f"{whose} has no projection in {file}, so its embedding is not CLIP's: files cut for image "
        "models leave it out. The lightest files that have it, put there under these names (press "
        f"R in the page): {advice(width)} Or take a folder with Load Reward Encoder."
    )
