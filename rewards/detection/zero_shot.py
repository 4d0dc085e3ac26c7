"""Objects found by words: Grounding DINO and OWLv2 of transformers, with SAM's masks if given.

    Grounding DINO   text "a. b."; a box's score is that of its best token, its class the one whose
                     tokens have the best mean
    OWLv2, OWL-ViT   texts "a photo of a"; a box's score and class are those of its best text

Then the filtering of overlap.py. Pictures are prepared by each model's own image processor, which
lies in its folder. Of a box whose best tokens belong to two classes the paper's code makes a class
"a b", which nothing counts; here it is of the better one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert  # pyright: ignore[reportMissingTypeStubs]

from ..weights.holder import Holder, dtype_of
from ..weights.pretrained import Foreign, load_network, load_part, model_type, need_tokenizer
from .detector import Box, boxes_of
from .overlap import confident, distinct

__all__ = ["ZeroShotDetector", "load_processor", "load_sam", "load_zero_shot"]

GROUNDED = ("grounding-dino", "mm-grounding-dino")
OWLS = ("owlv2", "owlvit")
THRESHOLD = 0.2
OWL_TOKENS = 16
NEEDS = "detector or SAM (config.json, model.safetensors, preprocessor and, for words, tokenizer)"


def load_zero_shot(folder: Path) -> nn.Module:
    """Read a detector as transformers saves it.

    Args:
        folder: With config.json and model.safetensors.

    Returns:
        The network, in float32: in half precision its positions and thresholds lose digits.

    Raises:
        ValueError: It is another kind of model, or not whole.
    """
    model_type(folder, (*GROUNDED, *OWLS))
    need_tokenizer(folder)
    return load_network(folder, "AutoModelForZeroShotObjectDetection", torch.float32)


def load_sam(folder: Path) -> nn.Module:
    """Read Segment Anything as transformers saves it.

    Args:
        folder: With config.json and model.safetensors.

    Returns:
        The network, in float32.

    Raises:
        ValueError: It is another kind of model, or not whole.
    """
    model_type(folder, ("sam",))
    return load_network(folder, "SamModel", torch.float32)


def load_processor(folder: Path) -> Foreign:
    """Read the processor of a model: its preparation of pictures and its tokenizer.

    Args:
        folder: With preprocessor_config.json, and the tokenizer's files.

    Returns:
        The processor.

    Raises:
        ValueError: It cannot be loaded.
    """
    return load_part(folder, "AutoProcessor")


@dataclass(frozen=True)
class ZeroShotDetector:
    """Finds objects by words.

    Args:
        holder: Of a network of load_zero_shot.
        processor: That of load_processor.
        threshold: Least score of a box, 0 for the paper's 0.2.
        segment: Holder of load_sam's network and its processor, or None to go by boxes alone.
    """

    holder: Holder[nn.Module]
    processor: Foreign
    threshold: float = 0.0
    segment: tuple[Holder[nn.Module], Foreign] | None = None
    _texts: dict[tuple[str, ...], Any] = field(
        init=False, repr=False, default_factory=dict[tuple[str, ...], Any]
    )

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Any words."""
        return ()

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """The detector's, and SAM's."""
        return (self.holder, *(self.segment[:1] if self.segment else ()))

    def detect(self, images: Tensor, names: Sequence[str]) -> Sequence[Sequence[Box]]:
        """See Detector."""
        rows = self.candidates(images, names)
        return [
            boxes_of(self._filtered(row, image), names)
            for row, image in zip(rows, images, strict=True)
        ]

    def candidates(self, images: Tensor, names: Sequence[str]) -> Tensor:
        """Every box of the network, before any filtering.

        Args:
            images: As for detect.
            names: As for detect.

        Returns:
            Shape (B, queries, 6): x0, y0, x1, y1 in pixels, score, index of the name.
        """
        key = tuple(names)
        kind = _kind(self.holder)
        if key not in self._texts:
            prepare = grounded_text if kind in GROUNDED else owl_text
            self._texts[key] = prepare(self.processor.tokenizer, key)
        text, spans = self._texts[key]
        height, width = images.shape[1:3]
        # OWLv2 sees the picture in the upper left corner of a square; the others see all of it
        side = max(height, width)
        size = (side, side) if kind == "owlv2" else (width, height)
        read = grounded if kind in GROUNDED else owl

        def run(network: nn.Module, rows: Tensor) -> Tensor:
            pixels = prepared(self.processor.image_processor, rows).to(dtype_of(network))
            logits, boxes = read(network, pixels, text, spans)
            scores, classes = logits
            corners = box_convert(boxes.float(), "cxcywh", "xyxy")
            corners = corners * corners.new_tensor([*size, *size])
            return torch.cat([corners, scores[..., None], classes[..., None].float()], dim=-1)

        return self.holder.run(run, images.detach())

    def _filtered(self, rows: Tensor, image: Tensor) -> Tensor:
        """One box an object."""
        rows = rows[rows[:, 4] > (self.threshold or THRESHOLD)]
        rows = rows[confident(rows[:, 4], rows[:, 5].long())]
        edges = rows.new_tensor([image.shape[1], image.shape[0]] * 2)
        rows = torch.cat([rows[:, :4].clamp(min=0).minimum(edges), rows[:, 4:]], dim=1)
        masks = self.masks(rows[:, :4], image) if self.segment and len(rows) else None
        return rows[distinct(rows[:, :4], rows[:, 4], rows[:, 5], masks)]

    def masks(self, boxes: Tensor, image: Tensor) -> Tensor:
        """Where the objects of boxes are: any of the three masks that SAM gives for a box.

        Args:
            boxes: Shape (n, 4), at least one.
            image: Shape (H, W, 3 or 4).

        Returns:
            Shape (n, H, W), boolean.
        """
        if self.segment is None:
            raise ValueError("This detector was made without SAM.")
        holder, processor = self.segment

        def run(network: Foreign, rows: Tensor) -> Tensor:
            given = processor(
                images=list(rows[..., :3].movedim(-1, 1).float()),
                input_boxes=[[[float(edge) for edge in box] for box in boxes]],
                do_rescale=False,
                return_tensors="pt",
            )
            where, dtype = rows.device, dtype_of(network)
            found = network(
                pixel_values=given["pixel_values"].to(where, dtype),
                input_boxes=given["input_boxes"].to(where, dtype),
            )
            sizes = given["original_sizes"], given["reshaped_input_sizes"]
            masks = processor.image_processor.post_process_masks(
                found.pred_masks.float(), *sizes, binarize=True
            )
            return masks[0].any(dim=1)[None]

        return holder.run(run, image.detach()[None])[0] > 0


def _kind(holder: Holder[nn.Module]) -> str:
    """The model_type of a holder's network."""
    config: Any = holder.network.config
    return str(config.model_type)


def prepared(image_processor: Foreign, images: Tensor) -> Tensor:
    """Prepare pictures by a model's own processor.

    Args:
        image_processor: Of transformers.
        images: Shape (B, H, W, 3 or 4), 0 to 1.

    Returns:
        Shape (B, 3, height, width), float32, on the pictures' device.
    """
    pictures = list(images[..., :3].movedim(-1, 1).float().clamp(0, 1))
    given = image_processor(pictures, do_rescale=False, return_tensors="pt")
    return given["pixel_values"].to(images.device)


Text = dict[str, Tensor]
Spans = tuple[tuple[int, int], ...]
Best = tuple[Tensor, Tensor]


def grounded_text(tokenizer: Foreign, names: Sequence[str]) -> tuple[Text, Spans]:
    """Write classes as Grounding DINO reads them.

    Args:
        tokenizer: Of its processor.
        names: The classes.

    Returns:
        Its inputs for one picture, and where each class's tokens begin and end.

    Raises:
        ValueError: The names are too long, or hold full stops.
    """
    text = dict(tokenizer(" ".join(f"{name.lower()}." for name in names), return_tensors="pt"))
    stop = tokenizer.convert_tokens_to_ids(".")
    stops = (text["input_ids"][0] == stop).nonzero().flatten().tolist()
    spans = tuple(zip([1, *(at + 1 for at in stops[:-1])], stops, strict=True))
    if len(spans) != len(names) or text["input_ids"].shape[1] > 256:
        raise ValueError(
            f"Grounding DINO cannot read the targets {_some(names)}: it takes names without "
            "full stops, of 256 tokens in all. Shorten them or name fewer."
        )
    return text, spans


def _some(names: Sequence[str]) -> str:
    """Names for a message: all of few, the first of many."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def grounded(network: Foreign, pixels: Tensor, text: Text, spans: Spans) -> tuple[Best, Tensor]:
    """Run Grounding DINO.

    Args:
        network: Of transformers.
        pixels: Shape (B, 3, height, width).
        text: Of grounded_text.
        spans: Of grounded_text.

    Returns:
        Score and class of each box, shape (B, queries), and boxes, shape (B, queries, 4): centre,
        width and height as shares.
    """
    rows = pixels.shape[0]
    given = {name: value.to(pixels.device).expand(rows, -1) for name, value in text.items()}
    found = network(pixel_values=pixels, **given)
    chances = found.logits.float().sigmoid()
    means = torch.stack([chances[..., a:b].mean(dim=-1) for a, b in spans], dim=-1)
    return (chances.amax(dim=-1), means.argmax(dim=-1)), found.pred_boxes


def owl_text(tokenizer: Foreign, names: Sequence[str]) -> tuple[Text, Spans]:
    """Write classes as OWLv2 reads them.

    Args:
        tokenizer: Of its processor.
        names: The classes.

    Returns:
        Its inputs for one picture; no spans.

    Raises:
        ValueError: A name is too long.
    """
    texts = [f"a photo of a {name}" for name in names]
    given = tokenizer(texts, padding="max_length", max_length=OWL_TOKENS)
    if max(map(len, given["input_ids"])) > OWL_TOKENS:
        raise ValueError(
            f"OWLv2 cannot read the targets {_some(names)}: its text model takes "
            f"{OWL_TOKENS} tokens, with 'a photo of a'. Shorten the longest name."
        )
    return {name: torch.tensor(given[name]) for name in ("input_ids", "attention_mask")}, ()


def owl(network: Foreign, pixels: Tensor, text: Text, _spans: Spans) -> tuple[Best, Tensor]:
    """Run OWLv2 or OWL-ViT.

    Args:
        network: Of transformers.
        pixels: Shape (B, 3, height, width).
        text: Of owl_text.
        _spans: Nothing.

    Returns:
        As grounded does.
    """
    rows = pixels.shape[0]
    given = {name: value.to(pixels.device).repeat(rows, 1) for name, value in text.items()}
    found = network(pixel_values=pixels, **given)
    best = found.logits.float().max(dim=-1)
    return (best.values.sigmoid(), best.indices), found.pred_boxes
