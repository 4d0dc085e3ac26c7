"""Objects found by a detector in an ONNX file, through onnxruntime (an optional package).

What a file is, is read from it: FastestDet gives a map, the YOLO family a list of boxes in one of
three layouts. Names of the classes come from the file's metadata, where Ultralytics writes them,
or are COCO's 80.

    layout                       output                      score
    YOLOv8, YOLO11               (B, 4 + classes, boxes)     best class
    YOLOv5                       (B, boxes, 5 + classes)     objectness x best class
    end to end (YOLOv10, YOLO26) (B, boxes, 6)               given, overlaps already removed
    FastestDet                   (B, 5 + classes, h, w)      objectness^.6 x best class^.4
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import batched_nms, box_convert  # pyright: ignore[reportMissingTypeStubs]

from ..weights.holder import Holder
from ..weights.preprocess import Preprocess
from .detector import Box, boxes_of, coco
from .onnx_session import open_session, picture_input, run

__all__ = ["OnnxDetector", "OnnxModel", "open_onnx"]

PACKAGE = (
    "Detectors in .onnx files need the Python package onnxruntime, which is not installed. Install "
    "it into ComfyUI's environment (python -m pip install onnxruntime, or onnxruntime-gpu), or "
    "choose a detector that needs none: a folder of Grounding DINO or OWLv2, or a model of the "
    "host's."
)
UNKNOWN = (
    "no detector known here. Export a YOLO model with format=onnx (one input (B, 3, H, W), one "
    "output), or use FastestDet."
)
YOLO_SIZE = 640
GREY = 114 / 255
MOST = 300
CANDIDATES = 30_000
"""Boxes of a picture, the surest, among which overlaps are looked for; YOLO's own code's number."""
LONGEST = 1_000_000
"""Characters of a file's class names; Open Images' 601 are 13,000."""

Pair = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """How one family of detectors is run.

    Attributes:
        threshold: Its own confidence threshold.
        overlap: Intersection over union above which two boxes of a class are one object.
        prepare: (pictures (B, 3, H, W), height, width) -> (input, scales of x and y, margins at the
            left and above).
        decode: (output, classes) -> rows (B, boxes, 6): x0, y0, x1, y1 in the input's pixels
            (FastestDet: as shares of it), score, class.
    """

    threshold: float
    overlap: float
    prepare: Callable[[Tensor, int, int], tuple[Tensor, Pair, Pair]]
    decode: Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class OnnxModel:
    """An open file.

    Attributes:
        session: onnxruntime's.
        kind: How it is run.
        names: Its classes.
        height: Rows of its input.
        width: Columns of its input.
        batch: Pictures it takes at once.
        file: Name of the file, for messages.
    """

    session: Any
    kind: Kind
    names: tuple[str, ...]
    height: int
    width: int
    batch: int
    file: str = "an ONNX file"


def open_onnx(path: Path, batch: int = 8, before: Callable[[], object] = lambda: None) -> OnnxModel:
    """Open a detector's file, on CUDA where the installed onnxruntime has it, else on the CPU.

    Args:
        path: A .onnx file.
        batch: Most pictures at once, where the file leaves their number open.
        before: Called many times a second meanwhile; it may raise, which ends it.

    Returns:
        The open file.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: The file cannot be read, or is no detector of a layout known here.
    """
    session = open_session(path, PACKAGE, before)
    entry = picture_input(session, path, UNKNOWN)
    outputs = session.get_outputs()
    rank = len(outputs[0].shape)
    if rank not in (3, 4):
        raise ValueError(
            f"{path.name} gives {[(o.name, o.shape) for o in outputs[:20]]}; that is {UNKNOWN}"
        )
    metadata = cast("dict[str, str]", session.get_modelmeta().custom_metadata_map)
    height, width = (size or YOLO_SIZE for size in (entry.height, entry.width))
    kind = FASTESTDET if rank == 4 else YOLO
    most = entry.most(batch, height, width)
    names = _names(metadata.get("names"), path)
    return OnnxModel(session, kind, names, height, width, most, path.name)


def _names(text: str | None, path: Path) -> tuple[str, ...]:
    """Classes written as Python's {0: 'person', ...} or ['person', ...]; COCO's without."""
    if not text:
        return coco()
    try:
        found: object = ast.literal_eval(text[:LONGEST])
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"{path.name}: its class names {text[:80]!r} cannot be read.") from error
    if isinstance(found, dict):
        by_index = cast("dict[object, object]", found)
        found = [by_index.get(i, by_index.get(str(i))) for i in range(len(by_index))]
    names = cast("list[object]", found) if isinstance(found, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path.name}: its class names {text[:80]!r} are no list of names.")
    return tuple(str(name) for name in names)


@dataclass(frozen=True)
class OnnxDetector:
    """Finds objects by an ONNX file.

    Args:
        model: The open file.
        threshold: Least confidence, 0 for the family's own.
        before: Called before each batch and many times a second while the network runs; it may
            raise, which is how a run is cancelled.
    """

    model: OnnxModel
    threshold: float = 0.0
    before: Callable[[], object] = lambda: None

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """See Detector."""
        return self.model.names

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """onnxruntime keeps its network itself."""
        return ()

    def detect(self, images: Tensor, names: Sequence[str]) -> Sequence[Sequence[Box]]:
        """See Detector."""
        model = self.model
        wanted = torch.tensor([model.names.index(name) for name in names], dtype=torch.long)
        found: list[Sequence[Box]] = []
        for start in range(0, images.shape[0], model.batch):
            piece = images[start : start + model.batch, ..., :3].detach().movedim(-1, 1)
            for rows in self._run(piece.float().cpu()):
                keep = torch.isin(rows[:, 5].long(), wanted)
                found.append(boxes_of(rows[keep], model.names))
        return found

    def _run(self, x: Tensor) -> list[Tensor]:
        """Rows x0, y0, x1, y1, score, class of each picture, in its pixels."""
        model = self.model
        # one by one: for a batch, asking for memory takes longer than the arithmetic
        ready = [
            model.kind.prepare(x[i : i + 1].contiguous(), model.height, model.width)
            for i in range(x.shape[0])
        ]
        y, (_, scale, margin) = torch.cat([one for one, _, _ in ready]), ready[0]
        entry = model.session.get_inputs()[0]
        count = y.shape[0]
        if isinstance(entry.shape[0], int) and count < model.batch:
            y = torch.cat([y, y[-1:].expand(model.batch - count, -1, -1, -1)])
        feed = {entry.name: y.contiguous().numpy()}
        output = run(model.session, feed, self.before, model.file)[0]
        if output.ndim != (4 if model.kind is FASTESTDET else 3) or output.shape[0] < count:
            raise ValueError(
                f"{model.file} gave {output.shape} for {y.shape[0]} pictures; that is {UNKNOWN}"
            )
        rows = model.kind.decode(torch.as_tensor(output)[:count], len(model.names))
        edges = (rows[..., :4] - rows.new_tensor(margin * 2)) / rows.new_tensor(scale * 2)
        most = rows.new_tensor([x.shape[3], x.shape[2]] * 2)
        rows = torch.cat([edges.clamp(min=0).minimum(most), rows[..., 4:]], dim=-1)
        threshold = self.threshold or model.kind.threshold
        return [_strongest(one[one[:, 4] > threshold], model.kind.overlap) for one in rows]


def _strongest(rows: Tensor, overlap: float) -> Tensor:
    """Of boxes of one class that overlap, the surest."""
    rows = rows[rows.isfinite().all(dim=1)]
    if len(rows) > CANDIDATES:
        rows = rows[rows[:, 4].topk(CANDIDATES).indices]
    return rows[batched_nms(rows[:, :4], rows[:, 4], rows[:, 5], overlap)[:MOST]]


def letterboxed(x: Tensor, height: int, width: int) -> tuple[Tensor, Pair, Pair]:
    """Fit pictures into the middle of a grey rectangle, as YOLO's training does.

    Args:
        x: Shape (B, 3, H, W), 0 to 1.
        height: Of the rectangle.
        width: Of the rectangle.

    Returns:
        Shape (B, 3, height, width); the scales of x and y; the margins at the left and above.
    """
    scale = min(height / x.shape[2], width / x.shape[3])
    rows, columns = max(1, round(x.shape[2] * scale)), max(1, round(x.shape[3] * scale))
    if (rows, columns) != tuple(x.shape[2:]):
        x = functional.interpolate(x, (rows, columns), mode="bilinear", align_corners=False)
    left, top = (width - columns) // 2, (height - rows) // 2
    margins = (left, width - columns - left, top, height - rows - top)
    y = functional.pad(x.clamp(0, 1), margins, value=GREY)
    return y, (scale, scale), (left, top)


def squashed(x: Tensor, height: int, width: int) -> tuple[Tensor, Pair, Pair]:
    """Ignore proportions and give blue, green, red, as FastestDet's training does.

    Args:
        x: Shape (B, 3, H, W), 0 to 1.
        height: Of its input.
        width: Of its input.

    Returns:
        Shape (B, 3, height, width); the scales from pixels to shares; no margins.
    """
    fit = Preprocess(height, width, (0, 0, 0), (1, 1, 1), "bilinear", "squash")
    return fit(x.movedim(1, -1)).flip(1), (1 / x.shape[3], 1 / x.shape[2]), (0, 0)


def yolo(output: Tensor, classes: int) -> Tensor:
    """Read the output of a YOLO model.

    Args:
        output: In one of the layouts of this module.
        classes: How many classes it has.

    Returns:
        Shape (B, boxes, 6): x0, y0, x1, y1 in pixels of the input, score, class.

    Raises:
        ValueError: Its shape fits no layout.
    """
    shape = tuple(output.shape)
    if shape[1] == 4 + classes:
        table = output.movedim(1, 2)
        boxes, scores = table[..., :4], table[..., 4:]
    elif shape[2] == 5 + classes and shape[2] != 6:
        boxes, scores = output[..., :4], output[..., 4:5] * output[..., 5:]
    elif shape[2] == 6:
        return output.clone()
    else:
        raise ValueError(
            f"This ONNX file gives {shape} for {classes} classes; known are (B, {4 + classes}, "
            f"boxes), (B, boxes, {5 + classes}) and (B, boxes, 6). Export it by Ultralytics, which "
            "also writes the names of the classes."
        )
    best, index = scores.max(dim=-1, keepdim=True)
    return torch.cat([box_convert(boxes, "cxcywh", "xyxy"), best, index.to(best)], dim=-1)


def fastestdet(output: Tensor, classes: int) -> Tensor:
    """Read the output of FastestDet.

    Args:
        output: Shape (B, 5 + classes, h, w): objectness, tanh's argument of dx and dy, sigmoid's
            of width and height, classes.
        classes: How many classes it has.

    Returns:
        Shape (B, h w, 6): x0, y0, x1, y1 as shares of the picture, score, class.

    Raises:
        ValueError: Another number of channels.
    """
    if output.shape[1] != 5 + classes:
        raise ValueError(
            f"This ONNX file gives {tuple(output.shape)}; for {classes} classes FastestDet gives "
            f"{5 + classes} channels."
        )
    height, width = output.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.stack([x + output[:, 1].tanh(), y + output[:, 2].tanh()], dim=1)
    centre = centre / centre.new_tensor([width, height])[:, None, None]
    boxes = torch.cat([centre, output[:, 3:5].sigmoid()], dim=1).flatten(2).movedim(1, 2)
    best, index = output[:, 5:].max(dim=1)
    score = (output[:, 0] ** 0.6 * best**0.4).flatten(1)
    columns = [score[..., None], index.flatten(1)[..., None].to(score)]
    return torch.cat([box_convert(boxes, "cxcywh", "xyxy"), *columns], dim=-1)


FASTESTDET = Kind(threshold=0.65, overlap=0.35, prepare=squashed, decode=fastestdet)
YOLO = Kind(threshold=0.25, overlap=0.7, prepare=letterboxed, decode=yolo)
