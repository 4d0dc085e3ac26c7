"""How well does a picture please for its prompt? ImageReward v1.0: BLIP and a linear head.

    value = (head(text(prompt | vision(picture))[first token]) - mean) / std

About normal over the pictures it was tuned on: 0 is middling, most lie between -2 and 2. The
published weights are read into transformers' own Blip classes. Its tokens go in as they are, the
first stays [CLS] (BLIP's retrieval would put [ENC] there); padding is masked in the reference, so
here there is none.

Source: Xu et al. 2023, arXiv:2304.05977; sizes, normalisation and preprocessing as in image-reward
1.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base import RewardSpec, check_images
from ..embedding.encoder import cut_off
from ..gradient import Gradient, holder_gradient
from ..weights.holder import Holder, NetworkReward, dtype_of
from ..weights.preprocess import Preprocess
from ..weights.pretrained import Foreign
from ..weights.published import Rules, fill, layers, renamed, shape_of

__all__ = ["Head", "ImageReward", "Judged", "bert_ids", "bert_unread", "judged_from"]

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output over the authors' pictures; in their code, not in the file."""

PREPROCESS = Preprocess(224, 224, centre="even")
"""torchvision's Resize and CenterCrop, as image-reward has them."""

LONGEST = 35
"""Tokens, the first and last included; later words of a prompt are not read."""

ADDED = 2
"""Words that BLIP adds to BERT's vocabulary, [DEC] and [ENC]; never used here."""

WHAT = "ImageReward v1.0"

_VISION = r"blip\.visual_encoder\."
_BLOCK = _VISION + r"blocks\.(\d+)\."
_LAYER = r"vision.encoder.layers.\1."

NAMES: Rules = (
    (_VISION + r"cls_token", "vision.embeddings.class_embedding"),
    (_VISION + r"pos_embed", "vision.embeddings.position_embedding"),
    (_VISION + r"patch_embed\.proj\.(weight|bias)", r"vision.embeddings.patch_embedding.\1"),
    (_VISION + r"norm\.(weight|bias)", r"vision.post_layernorm.\1"),
    (_BLOCK + r"norm([12])\.(weight|bias)", _LAYER + r"layer_norm\2.\3"),
    (_BLOCK + r"attn\.qkv\.(weight|bias)", _LAYER + r"self_attn.qkv.\2"),
    (_BLOCK + r"attn\.proj\.(weight|bias)", _LAYER + r"self_attn.projection.\2"),
    (_BLOCK + r"mlp\.(fc[12])\.(weight|bias)", _LAYER + r"mlp.\2.\3"),
    (r"blip\.text_encoder\.embeddings\.position_ids", None),  # a counter
    (r"blip\.text_encoder\.(.*)", r"text.\1"),
    (r"blip\.(?:vision|text)_proj\.(?:weight|bias)", None),  # of BLIP's contrastive loss
    (r"mlp\.(layers\..*)", r"head.\1"),
)
"""Names of the published file to those of `Judged`."""

_SPEC = RewardSpec(
    name="image_reward",
    measures="ImageReward v1.0: how raters would like the picture for the prompt, 0 is middling",
    low=-float("inf"),
    high=float("inf"),
    scale=1.0,
    input_size=(224, 224),
    has_gradient=True,
    licence="Apache-2.0",
    source="https://huggingface.co/zai-org/ImageReward",
)


class Head(nn.Module):
    """Five linear layers without anything between them (dropout, in training)."""

    def __init__(self, widths: Sequence[int], operations: Any = nn) -> None:  # noqa: ANN401
        """Make it.

        Args:
            widths: Of its input and its layers: 768, 1024, 128, 64, 16, 1.
            operations: Namespace with Linear, such as the host's.
        """
        super().__init__()
        places = (0, 2, 4, 6, 7)
        pairs = zip(places, widths[:-1], widths[1:], strict=True)
        self.layers = nn.ModuleDict({str(i): operations.Linear(a, b) for i, a, b in pairs})

    def forward(self, x: Tensor) -> Tensor:
        """Apply it.

        Args:
            x: Shape (B, D).

        Returns:
            Shape (B,).
        """
        for layer in self.layers.values():
            x = layer(x)
        return x[:, 0]


class Judged(nn.Module):
    """The network: a picture tower, a text tower that looks at it, the head.

    Attributes:
        vision: transformers' BlipVisionModel.
        text: transformers' BlipTextModel with cross attention.
        head: The head, always float32.
    """

    def __init__(self, vision: nn.Module, text: nn.Module, head: Head) -> None:
        """Keep them.

        Args:
            vision: transformers' BlipVisionModel.
            text: transformers' BlipTextModel.
            head: The head.
        """
        super().__init__()
        self.vision: Any = vision
        self.text: Any = text
        self.head = head

    @property
    def words(self) -> int:
        """Rows of the word embedding."""
        return int(self.text.config.vocab_size)

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Judge pictures.

        Args:
            pixels: Preprocessed, shape (B, 3, H, W), in the towers' type.
            ids: The prompt's tokens, shape (1, L).

        Returns:
            Values, shape (B,), float32.
        """
        seen = self.vision(pixel_values=pixels).last_hidden_state
        ids = ids.to(seen.device).expand(seen.shape[0], -1)
        states = self.text(input_ids=ids, encoder_hidden_states=seen).last_hidden_state
        return (self.head(states[:, 0].to(dtype_of(self.head))) - MEAN) / STD


def judged_from(weights: Mapping[str, Tensor], dtype: torch.dtype) -> Judged:
    """Make the network of ImageReward from its published file.

    Args:
        weights: Name to tensor, in the published names.
        dtype: Type that the towers shall have; the head stays float32, as in the reference.

    Returns:
        The network, of the file's size, in evaluation.

    Raises:
        ValueError: A tensor is missing, unknown or of a wrong shape.
    """
    found = renamed(weights, NAMES, WHAT)
    found = {
        name: tensor.to(torch.float32 if name.startswith("head.") else dtype)
        for name, tensor in found.items()
    }
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    places = [f"head.layers.{i}.weight" for i in (0, 2, 4, 6, 7)]
    shapes = [shape_of(found, place, WHAT) for place in places]
    text = BlipTextConfig(**_text_config(found))
    vision = BlipVisionConfig(**_vision_config(found))
    with torch.device("meta"):
        network = Judged(
            BlipVisionModel(vision),
            BlipTextModel(text, add_pooling_layer=False),
            Head([shapes[0][1], *(shape[0] for shape in shapes)]),
        )
    fill(network, found, WHAT)
    return network.eval()


def _vision_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the picture tower's sizes off its tensors."""
    inner, width = shape_of(weights, "vision.encoder.layers.0.mlp.fc1.weight", WHAT)
    patch = shape_of(weights, "vision.embeddings.patch_embedding.weight", WHAT)[-1]
    cells = shape_of(weights, "vision.embeddings.position_embedding", WHAT)[1] - 1
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers(weights, "vision.encoder.layers."),
        "num_attention_heads": width // 64,
        "patch_size": patch,
        "image_size": patch * round(cells**0.5),
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,  # transformers' default is another
    }


def _text_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the text tower's sizes off its tensors."""
    layer = "text.encoder.layer.0."
    inner, width = shape_of(weights, f"{layer}intermediate.dense.weight", WHAT)
    return {
        "vocab_size": shape_of(weights, "text.embeddings.word_embeddings.weight", WHAT)[0],
        "max_position_embeddings": shape_of(
            weights, "text.embeddings.position_embeddings.weight", WHAT
        )[0],
        "hidden_size": width,
        "encoder_hidden_size": shape_of(weights, f"{layer}crossattention.self.key.weight", WHAT)[1],
        "intermediate_size": inner,
        "num_hidden_layers": layers(weights, "text.encoder.layer."),
        "num_attention_heads": width // 64,  # transformers' default is another
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "bos_token_id": None,  # nothing is written by it
        "eos_token_id": None,
        "sep_token_id": None,
        "is_decoder": True,  # makes the cross attention; nothing is masked as a decoder would
    }


def bert_ids(prompt: str, vocabulary: Path, words: int) -> Tensor:
    """Turn a prompt into tokens of bert-base-uncased.

    Args:
        prompt: Text; case and accents do not matter. From the 34th token on it is cut.
        vocabulary: BERT's vocab.txt, a word a line.
        words: Rows of the network's word embedding.

    Returns:
        Shape (1, L), int64, L <= 35, from [CLS] to [SEP].

    Raises:
        ValueError: The vocabulary is not the one that the network was trained with.
    """
    tokenizer = _tokenizer(vocabulary, words)
    tokenizer.enable_truncation(LONGEST)
    return torch.tensor([tokenizer.encode(prompt).ids], dtype=torch.int64)


def bert_unread(prompt: str, vocabulary: Path, words: int) -> str:
    """Say how much of a prompt is not read.

    Args:
        prompt: As for bert_ids.
        vocabulary: Likewise.
        words: Likewise.

    Returns:
        A line, or nothing when all is read.
    """
    return cut_off(len(_tokenizer(vocabulary, words).encode(prompt).ids), LONGEST)


def _tokenizer(vocabulary: Path, words: int) -> Foreign:
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    # not splitlines, which takes characters that are words here for ends of lines
    lines = vocabulary.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if len(lines) + ADDED != words or not {"[UNK]", "[CLS]", "[SEP]"} <= set(lines):
        raise ValueError(
            f"{vocabulary} has {len(lines)} words, but ImageReward needs the {words - ADDED} of "
            "bert-base-uncased. Get vocab.txt from "
            "https://huggingface.co/google-bert/bert-base-uncased."
        )
    make: Any = BertWordPieceTokenizer
    return make({word: number for number, word in enumerate(lines)}, lowercase=True)


@dataclass(frozen=True, eq=False)
class ImageReward(NetworkReward):
    """ImageReward v1.0 for one prompt.

    Args:
        holder: Keeps the network.
        ids: The prompt's tokens, of bert_ids.
    """

    holder: Holder[Judged]
    ids: Tensor

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """The one."""
        return (self.holder,)

    @property
    def spec(self) -> RewardSpec:
        """See RewardSpec."""
        return _SPEC

    def score(self, images: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images: Shape (B, H, W, C), 0 to 1.

        Returns:
            Shape (B,), float32.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "ImageReward")
        return self.holder.run(self._judge, images)

    def gradient(self, images: Tensor) -> Gradient:
        """See Differentiable.

        Args:
            images: As for score.

        Returns:
            Values, and how they change with the pictures.

        Raises:
            ValueError: Not a batch of finite pictures.
        """
        check_images(images, "ImageReward")
        return holder_gradient(self.holder, self._judge, images)

    def _judge(self, network: Judged, rows: Tensor) -> Tensor:
        return network(PREPROCESS(rows).to(dtype_of(network)), self.ids)
