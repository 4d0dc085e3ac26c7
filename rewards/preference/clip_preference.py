"""How much would people prefer a picture for its prompt? PickScore and HPS v2, both a tuned CLIP-H.

    value = f(picture) . g(prompt) / (|f(picture)| |g(prompt)|)

The raw cosine, as in the tables of Inference-Time Scaling (arXiv:2503.19385) and in HPS's own
score(). PickScore's page multiplies by the tuned logit scale, about 100, tables of HPS by 100.

Both files are read into transformers' CLIPModel. PickScore is stored in its names; HPS in those of
open_clip, mapped here: queries, keys and values are stacked there and projections transposed.

Sources: Kirstain et al. 2023, arXiv:2305.01569; Wu et al. 2023, arXiv:2306.09341; preprocessing as
in PickScore's processor (CLIP's own) and in hpsv2 1.2.0 (longer side to 224, black bars).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..base import RewardSpec, check_images
from ..embedding.encoder import cut_off
from ..gradient import Gradient, holder_gradient
from ..weights.holder import Holder, NetworkReward, dtype_of, widened
from ..weights.preprocess import CLIP_224, Preprocess
from ..weights.published import Rules, fill, layers, renamed, shape_of

__all__ = ["ClipPreference", "Towers", "clip_ids", "towers_from", "unread"]

LONGEST = 77
"""Tokens that CLIP reads, with those for start and end."""

LETTERBOX_224 = Preprocess(224, 224, fit="letterbox", fill=0.0, rounded=False)
"""hpsv2's: nothing is cropped away, black bars make it square, and tensors are resized."""

_SIDES = (
    (r"visual\.transformer\.resblocks\.(\d+)", r"vision_model.encoder.layers.\1"),
    (r"transformer\.resblocks\.(\d+)", r"text_model.encoder.layers.\1"),
)
_INSIDE = (
    (r"\.ln_([12])\.(weight|bias)", r".layer_norm\2.\3"),
    (r"\.mlp\.c_fc\.(weight|bias)", r".mlp.fc1.\2"),
    (r"\.mlp\.c_proj\.(weight|bias)", r".mlp.fc2.\2"),
    (r"\.attn\.out_proj\.(weight|bias)", r".self_attn.out_proj.\2"),
    (r"\.attn\.in_proj_(weight|bias)", r".self_attn.qkv_proj.\2"),
)

OPEN_CLIP: Rules = (
    (r"logit_scale", "logit_scale"),
    (r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    (r"visual\.conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
    (r"visual\.ln_pre\.(weight|bias)", r"vision_model.pre_layrnorm.\1"),
    (r"visual\.ln_post\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    (r"visual\.proj", "visual_projection.transposed"),
    (r"token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
    (r"positional_embedding", "text_model.embeddings.position_embedding.weight"),
    (r"ln_final\.(weight|bias)", r"text_model.final_layer_norm.\1"),
    (r"text_projection", "text_projection.transposed"),
    *((side + part, new + end) for side, new in _SIDES for part, end in _INSIDE),
)
"""open_clip's names to transformers'; what is stacked or transposed is taken apart after."""

CLIP: Rules = (
    (r"(?:text|vision)_model\.embeddings\.position_ids", None),  # old versions saved this counter
    (r"(.*)", r"\1"),
)

_DESCRIBED = {
    "pick_score": "PickScore v1 (CLIPModel of transformers)",
    "hps": "HPS v2 (CLIP ViT-H/14 of open_clip)",
}

_SPECS = {
    "pick_score": RewardSpec(
        name="pick_score",
        measures="cosine of picture and prompt in PickScore v1: what users of Pick-a-Pic chose",
        low=-1.0,
        high=1.0,
        scale=0.01,
        input_size=(224, 224),
        has_gradient=True,
        licence="MIT (code; none is stated for the weights)",
        source="https://huggingface.co/yuvalkirstain/PickScore_v1",
    ),
    "hps": RewardSpec(
        name="hps",
        measures="cosine of picture and prompt in HPS v2.1: what raters of HPD v2 preferred",
        low=-1.0,
        high=1.0,
        scale=0.03,
        input_size=(224, 224),
        has_gradient=True,
        licence="Apache-2.0",
        source="https://huggingface.co/xswu/HPSv2",
    ),
}

_HEAD_WIDTH = {1280: 80}
"""Widths of a head that are not 64; 1280 is the picture tower of ViT-H/14."""

_AMBIGUOUS = (768, 1024)
"""Widths of ViT-B's and ViT-L's picture tower: they exist with two activations, which no file
tells apart."""


class Towers(nn.Module):
    """A CLIP with the name of the reward that it was tuned for.

    Attributes:
        clip: transformers' CLIPModel.
        name: "pick_score" or "hps".
    """

    def __init__(self, clip: nn.Module, name: str) -> None:
        """Keep them.

        Args:
            clip: transformers' CLIPModel.
            name: "pick_score" or "hps".
        """
        super().__init__()
        self.clip: Any = clip
        self.name = name

    def text(self, ids: Tensor) -> Tensor:
        """Encode tokens.

        Args:
            ids: Shape (B, L), of one length each, the end-of-text token last.

        Returns:
            Unit vectors (B, D), float32, or float64 of a network of that.
        """
        pooled = self.clip.text_model(input_ids=ids).pooler_output
        return functional.normalize(widened(self.clip.text_projection(pooled)), dim=-1)

    def picture(self, pixels: Tensor) -> Tensor:
        """Encode pictures.

        Args:
            pixels: Preprocessed, shape (B, 3, H, W), in the network's type.

        Returns:
            Unit vectors (B, D), float32, or float64 of a network of that.
        """
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        return functional.normalize(widened(self.clip.visual_projection(pooled)), dim=-1)


def towers_from(weights: Mapping[str, Tensor], dtype: torch.dtype) -> Towers:
    """Make the network of PickScore or HPS from its published file.

    Args:
        weights: Name to tensor, in transformers' names (PickScore) or open_clip's (HPS).
        dtype: Type that the network shall have.

    Returns:
        The network, of the file's size, in evaluation.

    Raises:
        ValueError: A tensor is missing, unknown or of a wrong shape, or the CLIP is not a ViT-H.
    """
    name = "hps" if "visual.conv1.weight" in weights else "pick_score"
    what = _DESCRIBED[name]
    found = renamed(weights, OPEN_CLIP if name == "hps" else CLIP, what)
    found = {part: tensor.to(dtype) for part, tensor in _apart(found).items()}
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(**_config(found, what))
    with torch.device("meta"):
        clip = CLIPModel(config)
    fill(clip, found, what)
    return Towers(clip.eval(), name)


def _apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take apart what open_clip stacks (queries, keys, values), and transpose its projections."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.endswith(".transposed"):
            found[name.removesuffix("transposed") + "weight"] = tensor.t().contiguous()
        elif ".qkv_proj." in name:
            for letter, piece in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace(".qkv_proj.", f".{letter}_proj.")] = piece
        else:
            found[name] = tensor
    return found


def _config(weights: Mapping[str, Tensor], what: str) -> dict[str, Any]:
    """Read the sizes of a CLIP off its tensors."""
    towers: dict[str, dict[str, Any]] = {}
    for side in ("vision", "text"):
        stack = f"{side}_model.encoder.layers."
        inner, width = shape_of(weights, f"{stack}0.mlp.fc1.weight", what)
        towers[side] = {
            "hidden_size": width,
            "intermediate_size": inner,
            "num_hidden_layers": layers(weights, stack),
            "num_attention_heads": width // _HEAD_WIDTH.get(width, 64),
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
        }
    if towers["vision"]["hidden_size"] in _AMBIGUOUS:
        raise ValueError(
            f"The file looks like {what}, but its picture tower is "
            f"{towers['vision']['hidden_size']} wide, which is a ViT-B or ViT-L. PickScore v1 and "
            "HPS v2 are ViT-H/14, 1280 wide; choose one of these."
        )
    embeddings = "vision_model.embeddings."
    patch = shape_of(weights, f"{embeddings}patch_embedding.weight", what)[-1]
    cells = shape_of(weights, f"{embeddings}position_embedding.weight", what)[0] - 1
    towers["vision"] |= {"patch_size": patch, "image_size": patch * round(cells**0.5)}
    embeddings = "text_model.embeddings."
    words = shape_of(weights, f"{embeddings}token_embedding.weight", what)[0]
    length = shape_of(weights, f"{embeddings}position_embedding.weight", what)[0]
    # the end-of-text token is the last word of CLIP's vocabulary; named so, transformers pools at
    # the first one, which is open_clip's argmax and PickScore's (whose file still says 2)
    towers["text"] |= {
        "vocab_size": words,
        "max_position_embeddings": length,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
    }
    joint = shape_of(weights, "text_projection.weight", what)[0]
    return {
        "vision_config": towers["vision"],
        "text_config": towers["text"],
        "projection_dim": joint,
    }


def clip_ids(prompt: str, tokenizer: Path) -> Tensor:
    """Turn a prompt into CLIP's tokens.

    No padding: the text tower is causal and pooled at the end-of-text token, so that what comes
    after it changes nothing (PickScore pads a single prompt with nothing, HPS with zeros).

    Args:
        prompt: Text; HTML entities are read as characters, as open_clip does. From the 76th token
            on it is cut.
        tokenizer: Folder with CLIP's vocab.json and merges.txt, as transformers saves them.

    Returns:
        Shape (1, L), int64, L <= 77, with start and end token.
    """
    from transformers import CLIPTokenizer

    make: Any = CLIPTokenizer
    encode = make.from_pretrained(str(tokenizer), local_files_only=True)
    ids: list[int] = encode(_text(prompt), truncation=True, max_length=LONGEST)["input_ids"]
    return torch.tensor([ids], dtype=torch.int64)


def unread(prompt: str, tokenizer: Path) -> str:
    """Say how much of a prompt is not read.

    Args:
        prompt: As for clip_ids.
        tokenizer: Likewise.

    Returns:
        A line, or nothing when all is read.
    """
    from transformers import CLIPTokenizer

    make: Any = CLIPTokenizer
    encode = make.from_pretrained(str(tokenizer), local_files_only=True)
    # told not to warn by itself: what is too long is cut, and said here
    return cut_off(len(encode(_text(prompt), verbose=False)["input_ids"]), LONGEST)


def _text(prompt: str) -> str:
    return html.unescape(html.unescape(prompt)).strip()


@dataclass(frozen=True, eq=False)
class ClipPreference(NetworkReward):
    """PickScore or HPS, as the network's name says.

    Args:
        holder: Keeps the network.
        ids: The prompt's tokens, of clip_ids.
    """

    holder: Holder[Towers]
    ids: Tensor

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """The one."""
        return (self.holder,)

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return _SPECS[self.holder.network.name]

    @cached_property
    def _text(self) -> Tensor:
        with torch.inference_mode(False):
            return self.holder.run(lambda network, ids: network.text(ids), self.ids)

    def score(self, images: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images: Shape (B, H, W, C), 0 to 1.

        Returns:
            Cosines, shape (B,), float32.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        return self.holder.run(self._cosines(images), images)

    def gradient(self, images: Tensor) -> Gradient:
        """See Differentiable.

        Args:
            images: As for score.

        Returns:
            Cosines, and how they change with the pictures.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        return holder_gradient(self.holder, self._cosines(images), images)

    def _cosines(self, images: Tensor) -> Callable[[Towers, Tensor], Tensor]:
        """What is run of the network, after a look at the pictures."""
        name = self.holder.network.name
        check_images(images, {"pick_score": "PickScore", "hps": "HPS"}[name])
        prepared = LETTERBOX_224 if name == "hps" else CLIP_224
        text = self._text

        def cosines(network: Towers, rows: Tensor) -> Tensor:
            seen = network.picture(prepared(rows).to(dtype_of(network)))
            return (seen * text.to(seen)).sum(dim=-1).clamp(-1.0, 1.0)

        return cosines
