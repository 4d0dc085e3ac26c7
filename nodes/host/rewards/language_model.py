"""A vision-language model that the host loaded: its next-token logits and its answers.

The host's `generate` predicts tokens and gives only their ids. The last norm of its transformer is
called once a prediction; what leaves it during a generation of one token, taken by a forward hook,
becomes logits by the transformer's own `logits`. Nothing of the host is replaced. The host
generates one text at a time, so questions run one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management as management
import torch
from comfy.sd import CLIP
from torch import Tensor

from ....rewards.language.answers import Vocabulary
from ....rewards.language.vision_language import Ask, LanguageModel
from ..versions import device_context

__all__ = ["HostModel", "language_model"]


def language_model(model: Any) -> LanguageModel:
    """Take what a node's socket gives.

    Args:
        model: A CLIP of the host's, or a LanguageModel.

    Returns:
        A model to ask.
    """
    return HostModel(model) if isinstance(model, CLIP) else model


class HostModel:
    """A CLIP of the host that generates text about pictures, such as Qwen3-VL."""

    def __init__(self, clip: CLIP) -> None:
        """Keep it.

        Args:
            clip: As CLIPLoader gives it.

        Raises:
            ValueError: It does not generate text.
        """
        self._clip = clip
        inner = getattr(clip.cond_stage_model, getattr(clip.cond_stage_model, "clip", ""), None)
        self._transformer: Any = getattr(inner, "transformer", None)
        if not hasattr(self._transformer, "generate"):
            raise _unfit(clip, "generates no text")
        self._vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """See LanguageModel.vocabulary; made when it is first asked for."""
        if self._vocabulary is None:
            tokenizer = getattr(self._clip.tokenizer, self._clip.tokenizer.clip)
            written = {text: token for token, text in tokenizer.inv_vocab.items()}
            self._vocabulary = Vocabulary(written)
        return self._vocabulary

    def get_models(self) -> Sequence[Any]:
        """The host's patcher."""
        return [self._clip.patcher]

    def tokens(self, text: str) -> tuple[int, ...]:
        """See LanguageModel.tokens."""
        tokenizer = getattr(self._clip.tokenizer, self._clip.tokenizer.clip)
        ids: list[int] = tokenizer.tokenizer(text)["input_ids"]
        ends = bool(getattr(tokenizer, "tokenizer_adds_end_token", False))
        return tuple(ids[tokenizer.tokens_start : len(ids) - ends])

    def next_token(self, images: Tensor, asks: Sequence[Ask]) -> Tensor:
        """See LanguageModel.next_token."""
        norm = getattr(getattr(self._transformer, "model", None), "norm", None)
        if norm is None or not hasattr(self._transformer, "logits"):
            raise _unfit(self._clip, "gives no logits (VLM Count can read its text: greedy_text)")
        found: list[Tensor] = []
        for ask in asks:
            left: list[Tensor] = []
            hook = norm.register_forward_hook(lambda _m, _i, out, to=left: to.append(out[:, -1:]))
            try:
                self._generate(images, ask, 1)
            finally:
                hook.remove()
            with device_context(self._clip.patcher.load_device):
                logits = self._transformer.logits(left[-1])
            found.append(logits[:, -1].float().cpu())
        return torch.cat(found)

    def answer(self, images: Tensor, asks: Sequence[Ask], length: int) -> list[str]:
        """See LanguageModel.answer."""
        return [self._clip.decode(self._generate(images, ask, length)) for ask in asks]

    def _generate(self, images: Tensor, ask: Ask, length: int) -> list[int]:
        """Ask, and let the host answer."""
        management.throw_exception_if_processing_interrupted()
        picture = images[ask.picture : ask.picture + 1, ..., :3].float().clamp(0.0, 1.0)
        tokens = self._clip.tokenize(
            ask.question, image=picture, skip_template=False, min_length=1, thinking=False
        )
        for (row,) in tokens.values():
            if not any(isinstance(entry[0], dict) for entry in row):
                raise _unfit(self._clip, "reads no pictures")
            row.extend((token, 1.0) for token in ask.said)
        return self._clip.generate(tokens, do_sample=False, max_length=length)


def _unfit(clip: CLIP, why: str) -> ValueError:
    """An error about a model that cannot be asked."""
    return ValueError(
        f"the CLIP connected as model is {type(clip.cond_stage_model).__name__}, which {why}; "
        "load a vision-language model such as Qwen3-VL by Load CLIP, or a folder by Load "
        "Vision-Language Model"
    )
