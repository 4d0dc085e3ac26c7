"""Language models that see: what rewards ask of one, and those of transformers' folders.

A question about a picture becomes the model's own chat format, and the model predicts the token
that its answer begins with. Both the format and the prediction are the library's own (the
processor's chat template, generate with one new token), so that padding, positions and caches are
what they are there. Pictures are rounded to 8 bits, as the processors' own input is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from ..gradient import Gradient, holder_gradient
from ..weights import pretrained
from ..weights.holder import Holder
from ..weights.pretrained import Foreign
from .answers import Vocabulary
from .picture_twins import twin_of

__all__ = [
    "Ask",
    "DifferentiableModel",
    "FolderModel",
    "LanguageModel",
    "load_network",
    "load_processor",
]


@dataclass(frozen=True)
class Ask:
    """A question.

    Attributes:
        picture: Index of the picture it is about.
        question: Text.
        said: Tokens that the answer begins with already.
    """

    picture: int
    question: str
    said: tuple[int, ...] = ()


class LanguageModel(Protocol):
    """Answers questions about pictures."""

    @property
    def vocabulary(self) -> Vocabulary:
        """What its tokens read."""
        ...

    def tokens(self, text: str) -> tuple[int, ...]:
        """Read what an answer begins with.

        Args:
            text: Any, with its blanks.

        Returns:
            Its tokens, without those that begin or end a text.
        """
        ...

    def next_token(self, images: Tensor, asks: Sequence[Ask]) -> Tensor:
        """Predict the next token of each answer.

        Args:
            images: Shape (B, H, W, 3 or 4), 0 to 1.
            asks: Questions about them, each with equally many tokens said.

        Returns:
            Logits, shape (asks, tokens), float32, on the CPU.
        """
        ...

    def answer(self, images: Tensor, asks: Sequence[Ask], length: int) -> list[str]:
        """Answer greedily.

        Args:
            images: As for next_token.
            asks: Questions about them, with nothing said.
            length: Most tokens of an answer.

        Returns:
            One text a question.
        """
        ...

    def get_models(self) -> Sequence[Any]:
        """What the host's memory manager knows it by."""
        ...


@runtime_checkable
class DifferentiableModel(Protocol):
    """A language model through which pictures can be differentiated, or that says why not."""

    @property
    def no_gradient(self) -> str:
        """Why not; empty where they can."""
        ...

    def gradient(
        self, images: Tensor, questions: Sequence[str], value: Callable[[Tensor], Tensor]
    ) -> Gradient:
        """Differentiate a function of what an answer begins with.

        Args:
            images: As for next_token.
            questions: About each picture.
            value: Logits (questions, B, tokens), on the network's device -> one value a picture.

        Returns:
            Values and gradient.
        """
        ...


def load_processor(path: Path) -> Foreign:
    """Load what makes a model's input.

    Args:
        path: Folder as transformers saves it.

    Returns:
        The processor.

    Raises:
        ValueError: A part is missing, or it is none of pictures and text.
    """
    processor = pretrained.load_part(path, "AutoProcessor")
    if getattr(processor, "tokenizer", None) is None or not hasattr(processor, "image_processor"):
        raise ValueError(
            f"{path.name} has {type(processor).__name__}, which does not read pictures and text; "
            "choose a vision-language model, such as Qwen3-VL, Idefics3 or LLaVA"
        )
    pretrained.need_tokenizer(path)
    return processor


def load_network(path: Path, dtype: torch.dtype) -> nn.Module:
    """Load a model of pictures and text.

    Args:
        path: Folder with config.json and weights as safetensors.
        dtype: Of the weights.

    Returns:
        The network, on the CPU.

    Raises:
        ValueError: A part is missing, or it is no decoder.
    """
    network: Foreign = pretrained.load_network(path, "AutoModelForImageTextToText", dtype)
    if network.config.is_encoder_decoder:
        raise ValueError(
            f"{path.name} is {type(network).__name__}, an encoder with a decoder; choose a model "
            "that is a decoder, such as Qwen3-VL, Idefics3 or LLaVA"
        )
    own = network.generation_config
    make: Foreign = import_module("transformers").GenerationConfig
    # without the folder's own temperature, penalties and beams: answers are greedy
    network.generation_config = make(
        eos_token_id=own.eos_token_id, bos_token_id=own.bos_token_id, pad_token_id=own.pad_token_id
    )
    return network


class FolderModel:
    """A model of transformers."""

    def __init__(self, holder: Holder[Any], processor: Foreign) -> None:
        """Keep them.

        Args:
            holder: Keeps the network.
            processor: Its own; its tokenizer is made to pad at the left, as generating needs.
        """
        self.holder, self.processor = holder, processor
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token_id is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        self._vocabulary: Vocabulary | None = None
        self._twin = twin_of(processor.image_processor)

    @property
    def no_gradient(self) -> str:
        """See DifferentiableModel.no_gradient."""
        if self._twin is not None:
            return ""
        kind = type(self.processor.image_processor).__name__
        return f"what {kind} does with pictures is known only in 8 bits, which have no slope"

    @property
    def vocabulary(self) -> Vocabulary:
        """See LanguageModel.vocabulary; made when it is first asked for."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self.processor.tokenizer.get_vocab())
        return self._vocabulary

    def get_models(self) -> Sequence[Any]:
        """See LanguageModel.get_models."""
        return self.holder.get_models()

    def tokens(self, text: str) -> tuple[int, ...]:
        """See LanguageModel.tokens."""
        return tuple(self.processor.tokenizer(text, add_special_tokens=False)["input_ids"])

    def next_token(self, images: Tensor, asks: Sequence[Ask]) -> Tensor:
        """See LanguageModel.next_token."""

        def run(network: Foreign, rows: Tensor) -> Tensor:
            made = self._generate(network, images, _chosen(asks, rows), 1)
            return made.logits[0].float()

        return self.holder.run(run, torch.arange(len(asks)))

    def answer(self, images: Tensor, asks: Sequence[Ask], length: int) -> list[str]:
        """See LanguageModel.answer."""

        def run(network: Foreign, rows: Tensor) -> Tensor:
            made = self._generate(network, images, _chosen(asks, rows), length)
            tokens = made.sequences[:, -len(made.logits) :]
            filled = tokens.new_full((len(tokens), length), self.processor.tokenizer.pad_token_id)
            filled[:, : tokens.shape[1]] = tokens
            return filled

        tokens = self.holder.run(run, torch.arange(len(asks))).long()
        return self.processor.batch_decode(tokens, skip_special_tokens=True) if asks else []

    def gradient(
        self, images: Tensor, questions: Sequence[str], value: Callable[[Tensor], Tensor]
    ) -> Gradient:
        """See DifferentiableModel.gradient.

        Args:
            images: As for next_token.
            questions: About each picture.
            value: Logits (questions, B, tokens) -> one value a picture.

        Returns:
            Values and gradient.

        Raises:
            ValueError: It has none.
        """
        if self.no_gradient:
            raise ValueError(f"this model has no gradient: {self.no_gradient}. Use another one.")

        def run(network: Foreign, rows: Tensor) -> Tensor:
            return value(torch.stack([self._logits(network, rows, each) for each in questions]))

        return holder_gradient(self.holder, run, images)

    def _logits(self, network: Foreign, rows: Tensor, question: str) -> Tensor:
        """Of the next token, by the library's forward on what the twin makes of pictures."""
        asks = [Ask(i, question) for i in range(len(rows))]
        inputs = self._inputs(rows.detach(), asks).to(network.device)
        if self._twin is not None:
            inputs["pixel_values"] = self._twin(rows, inputs)
        _cast(inputs, network)
        return network(**inputs).logits[:, -1]

    def _generate(
        self, network: Foreign, images: Tensor, asks: Sequence[Ask], length: int
    ) -> Foreign:
        """Let the library generate; its answer holds tokens and unprocessed logits."""
        inputs = self._inputs(images, asks).to(network.device)
        _cast(inputs, network)
        return network.generate(
            **inputs,
            max_new_tokens=length,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )

    def _inputs(self, images: Tensor, asks: Sequence[Ask]) -> Foreign:
        """The processor's input, with what is said behind it."""
        texts = [self._text(ask.question) for ask in asks]
        start = self.processor.tokenizer.bos_token
        inputs = self.processor(
            text=texts,
            images=[[_picture(images[ask.picture])] for ask in asks],
            padding=True,
            return_tensors="pt",
            add_special_tokens=not (start and texts[0].startswith(start)),
        )
        said = torch.tensor([ask.said for ask in asks], dtype=torch.long)
        shape = inputs["input_ids"].shape
        for name, value in list(inputs.items()):
            if said.shape[1] and value.shape[:2] == shape:
                last = value[:, -1:].expand(-1, said.shape[1], *value.shape[2:])
                inputs[name] = torch.cat([value, said if name == "input_ids" else last], dim=1)
        return inputs

    def _text(self, question: str) -> str:
        """The question as the model was taught to read it."""
        tokenizer = self.processor.tokenizer
        template = getattr(self.processor, "chat_template", None)
        if isinstance(template, dict):
            template = cast("dict[str, str]", template)["default"]
        content: Foreign = [{"type": "image"}, {"type": "text", "text": question}]
        if template is None:
            template = tokenizer.chat_template
            content = f"{getattr(self.processor, 'image_token', '')}{question}"
        if template is None:
            return content
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )


def _cast(inputs: Foreign, network: Foreign) -> None:
    """Bring what is not whole numbers to the network's type."""
    for name, value in inputs.items():
        if torch.is_floating_point(value):
            inputs[name] = value.to(network.dtype)


def _chosen(asks: Sequence[Ask], rows: Tensor) -> list[Ask]:
    """Questions by their indices."""
    return [asks[int(i)] for i in rows]


def _picture(image: Tensor) -> Foreign:
    """A picture as processors take it, rounded to 8 bits."""
    from PIL import Image

    pixels = (image[..., :3].float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return Image.fromarray(pixels.cpu().numpy(), "RGB")
