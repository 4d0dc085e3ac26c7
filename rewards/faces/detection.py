"""Where are the faces in a picture? By a detector of the SCRFD kind in an ONNX file.

For each stride 8, 16, 32 and each cell of a grid of that step, two anchors say: a score, distances
of the four edges of a box from the cell's corner (left, up, right, down) and offsets of five
points, all in strides. Source: Guo et al. 2021, arXiv:2105.04714; files det_10g.onnx (buffalo_l)
and scrfd_10g_bnkps.onnx (antelopev2) of InsightFace, whose preparation this is: fitted into the
upper left of a black square, red-green-blue, (v - 127.5) / 128.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import nms  # pyright: ignore[reportMissingTypeStubs]

from ..detection.onnx_session import (
    PictureInput,
    Session,
    leading_floats,
    open_session,
    picture_input,
    run,
)

__all__ = ["PACKAGE", "Face", "FaceDetector", "open_face_detector"]

PACKAGE = (
    "Face Likeness runs .onnx files by the Python package onnxruntime, which is not installed. "
    "Install it into ComfyUI's environment (python -m pip install onnxruntime, or onnxruntime-gpu)."
)
UNKNOWN = (
    "no face detector known here. Choose det_10g.onnx of buffalo_l or scrfd_10g_bnkps.onnx of "
    "antelopev2: one input (1, 3, H, W), and scores, boxes and points at strides 8, 16 and 32."
)
STRIDES = (8, 16, 32)
ANCHORS = 2
WIDTHS = (1, 4, 10)
"""Numbers an anchor gives: score, box, points."""

SIZES = (640, 320, 160)
"""Sides of the square, tried in turn where the file leaves it open: a face that fills the picture
is too large for the first, as the detector saw none of that size in its training."""

LARGEST = 1024
THRESHOLD, OVERLAP = 0.5, 0.4
CANDIDATES, MOST = 5000, 100


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes:
        box: Left, upper, right and lower edge, pixels.
        score: The detector's, 0 to 1.
        points: Eyes, nose, corners of the mouth, pixels, shape (5, 2).
    """

    box: tuple[float, float, float, float]
    score: float
    points: Tensor

    @property
    def area(self) -> float:
        """Of the box."""
        x0, y0, x1, y1 = self.box
        return max(0.0, x1 - x0) * max(0.0, y1 - y0)


@dataclass(frozen=True)
class FaceDetector:
    """Finds faces.

    Args:
        session: onnxruntime's.
        entry: Its input.
        file: Name of the file, for messages.
        threshold: Least score of a face.
        before: Called many times a second while it runs; it may raise, which ends it.
    """

    session: Session
    entry: PictureInput
    file: str
    threshold: float = THRESHOLD
    before: Callable[[], object] = lambda: None

    def detect(self, picture: Tensor) -> list[Face]:
        """Find the faces of a picture.

        Args:
            picture: Shape (3, H, W), 0 to 1, on the CPU.

        Returns:
            The faces, surest first.
        """
        fixed = (self.entry.height, self.entry.width)
        for side in SIZES if None in fixed else SIZES[:1]:
            height, width = (size or side for size in fixed)
            faces = self._detect(picture, height, width)
            if faces:
                return faces
        return []

    def _detect(self, picture: Tensor, height: int, width: int) -> list[Face]:
        x, scale = fitted(picture, height, width)
        batch = x.expand(self.entry.batch or 1, -1, -1, -1).contiguous()
        feed, count = {self.entry.name: batch.numpy()}, len(STRIDES) * len(WIDTHS)
        outputs = run(self.session, feed, self.before, self.file, count)
        shapes = [tuple(output.shape) for output in outputs]
        flat = [torch.as_tensor(output) for output in outputs]
        # a batch of one may have its axis or not
        flat = [one[0] if one.ndim == 3 else one for one in flat]
        counts = [ANCHORS * (height // stride) * (width // stride) for stride in STRIDES]
        wanted = [(count, wide) for wide in WIDTHS for count in counts]
        rows = [one[: want[0]] for one, want in zip(flat, wanted, strict=False)]
        if len(flat) != len(wanted) or [tuple(row.shape) for row in rows] != wanted:
            raise ValueError(f"{self.file} gave {shapes[:20]} for {height} x {width}: {UNKNOWN}")
        scores, boxes, points = (torch.cat(self._scaled(rows, i)) for i in range(3))
        centres = torch.cat([anchors(height, width, stride) for stride in STRIDES])
        keep = (scores[:, 0] >= self.threshold) & boxes.isfinite().all(1) & points.isfinite().all(1)
        order = scores[keep, 0].argsort(descending=True, stable=True)[:CANDIDATES]
        index = keep.nonzero()[:, 0][order]
        x0y0, x1y1 = centres[index] - boxes[index, :2], centres[index] + boxes[index, 2:]
        found = torch.cat([x0y0, x1y1], dim=1) / scale
        places = (centres[index][:, None] + points[index].view(-1, 5, 2)) / scale
        return [
            Face(_edges(found[i]), float(scores[index[i], 0]), places[i])
            for i in map(int, nms(found, scores[index, 0], OVERLAP)[:MOST])
        ]

    @staticmethod
    def _scaled(rows: Sequence[Tensor], kind: int) -> list[Tensor]:
        """Rows of a kind at each stride; distances in pixels."""
        three = rows[kind * 3 : kind * 3 + 3]
        factors = STRIDES if kind else (1, 1, 1)
        return [row * factor for row, factor in zip(three, factors, strict=True)]


def _edges(box: Tensor) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(number) for number in box)
    return x0, y0, x1, y1


def anchors(height: int, width: int, stride: int) -> Tensor:
    """Where the anchors of a stride stand.

    Args:
        height: Of the input.
        width: Of the input.
        stride: Of the grid.

    Returns:
        x and y, row by row, each cell twice, shape (2 cells, 2).
    """
    rows, columns = height // stride, width // stride
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    cells = torch.stack([x, y], dim=-1).reshape(-1, 2) * float(stride)
    return cells.repeat_interleave(ANCHORS, dim=0)


def fitted(picture: Tensor, height: int, width: int) -> tuple[Tensor, float]:
    """Prepare a picture as the detector's training did.

    Args:
        picture: Shape (3, H, W), 0 to 1.
        height: Of the input.
        width: Of the input.

    Returns:
        Shape (1, 3, height, width), and how much smaller it has become.
    """
    ratio = picture.shape[1] / picture.shape[2]
    if ratio > height / width:
        rows, columns = height, max(1, int(height / ratio))
    else:
        rows, columns = max(1, int(width * ratio)), width
    x = functional.interpolate(
        picture[None].float(), (rows, columns), mode="bilinear", align_corners=False
    )
    x = (x.clamp(0, 1) * 255).round()
    x = functional.pad(x, (0, width - columns, 0, height - rows))
    return (x - 127.5) / 128.0, rows / picture.shape[1]


def open_face_detector(path: Path, before: Callable[[], object] = lambda: None) -> FaceDetector:
    """Open a detector's file.

    Args:
        path: A .onnx file.
        before: Called many times a second while it opens or runs; it may raise, which ends it.

    Returns:
        The detector.

    Raises:
        ModuleNotFoundError: onnxruntime is not installed.
        ValueError: The file cannot be read, or is no face detector.
    """
    session = open_session(path, PACKAGE, before)
    entry = picture_input(session, path, UNKNOWN)
    outputs = session.get_outputs()
    sides = [side for side in (entry.height, entry.width) if side is not None]
    floats = leading_floats(session)
    if floats != len(STRIDES) * len(WIDTHS) or any(s % 32 or s > LARGEST for s in sides):
        raise ValueError(
            f"{path.name} takes {(entry.batch, 3, entry.height, entry.width)} and has "
            f"{len(outputs)} outputs; that is {UNKNOWN}"
        )
    return FaceDetector(session, entry, path.name, before=before)
