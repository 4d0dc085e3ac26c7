"""Detectors for the reward node: from files, and those that the host itself runs.

RT-DETR and SAM 3 come in by a MODEL socket. They are run as the host's own nodes run them
(comfy_extras/nodes_rtdetr.py, nodes_sam3.py), with its preparation of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.model_management as management
import comfy.utils
import torch
from torch import Tensor, nn

from ....rewards.detection.detector import Box, Detector, boxes_of
from ....rewards.detection.onnx_detector import OnnxDetector, open_onnx
from ....rewards.detection.zero_shot import (
    ZeroShotDetector,
    load_processor,
    load_sam,
    load_zero_shot,
)
from ....rewards.faces.detection import FaceDetector, open_face_detector
from ....rewards.faces.likeness import FaceRecogniser, open_face_recogniser
from ..versions import those_known
from .reward_files import stamp
from .reward_model import Managed, kept

__all__ = ["RTDetr", "Sam3", "face_networks", "file_detector", "host_detector"]

THRESHOLD = 0.5
BATCH = 8


def _scaled(images: Tensor, side: int) -> Tensor:
    """Pictures squashed to a square, channels first, as the host's nodes do it."""
    x = images[..., :3].movedim(-1, 1).float()
    return comfy.utils.common_upscale(x, side, side, "bilinear", crop="disabled")


def _read(rows: Tensor, names: Sequence[str], threshold: float) -> Sequence[Sequence[Box]]:
    """Boxes above the threshold of each picture's rows (x0, y0, x1, y1, score, class)."""
    least = threshold or THRESHOLD
    return [boxes_of(one[one[:, 4] > least], names) for one in rows]


@dataclass(frozen=True)
class RTDetr:
    """The host's RT-DETR: COCO's 80 classes.

    Args:
        holder: Of its network.
        threshold: Least score, 0 for 0.5.
    """

    holder: Managed[Any]
    threshold: float = 0.0

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """See Detector."""
        from comfy.ldm.rt_detr.rtdetr_v4 import COCO_CLASSES

        return tuple(COCO_CLASSES)

    @property
    def holders(self) -> Sequence[Managed[Any]]:
        """See Detector."""
        return (self.holder,)

    def detect(self, images: Tensor, names: Sequence[str]) -> Sequence[Sequence[Box]]:
        """See Detector."""
        height, width = images.shape[1:3]

        def run(network: Any, rows: Tensor) -> Tensor:
            found = network(_scaled(rows, 640), (width, height))
            columns = [
                torch.cat([one["boxes"].T, one["scores"][None], one["labels"][None]]).T
                for one in found
            ]
            return torch.stack(columns)

        rows = self.holder.run(run, images.detach())
        found = _read(rows, self.vocabulary, self.threshold)
        return [[box for box in boxes if box.name in set(names)] for boxes in found]


@dataclass(frozen=True)
class Sam3:
    """The host's SAM 3: any words, one prompt a class.

    Args:
        holder: Of its network.
        clip: CLIP of the same checkpoint.
        threshold: Least score, 0 for 0.5.
    """

    holder: Managed[Any]
    clip: Any
    threshold: float = 0.0
    _texts: dict[str, Any] = field(init=False, repr=False, default_factory=dict)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Any words."""
        return ()

    @property
    def holders(self) -> Sequence[Managed[Any]]:
        """Of the detector and of the text model, which is asked once for each class."""
        return (self.holder, Managed(self.clip.cond_stage_model, patcher=self.clip.patcher))

    def detect(self, images: Tensor, names: Sequence[str]) -> Sequence[Sequence[Box]]:
        """See Detector."""
        texts = [self._text(name) for name in names]
        edges = images.new_tensor([images.shape[2], images.shape[1]] * 2, dtype=torch.float32)

        def run(network: Any, rows: Tensor) -> Tensor:
            x = _scaled(rows, 1008).to(network.dtype)
            found: list[Tensor] = []
            for index, text in enumerate(texts):
                given = {name: value.to(x.device) for name, value in text.items()}
                given["text_embeddings"] = given["text_embeddings"].to(x)
                one = network(x, **given)
                scores = one["scores"].float().sigmoid()[..., None]
                boxes = one["boxes"].float() * edges.to(x.device)
                found.append(torch.cat([boxes, scores, torch.full_like(scores, index)], dim=-1))
            return torch.cat(found, dim=1)

        return _read(self.holder.run(run, images.detach()), names, self.threshold)

    def _text(self, name: str) -> dict[str, Tensor]:
        """What its text model makes of a class."""
        if name not in self._texts:
            found = self.clip.encode_from_tokens(self.clip.tokenize(name), return_dict=True)
            mask = found.get("attention_mask")
            mask = torch.ones(found["cond"].shape[:2], dtype=torch.int64) if mask is None else mask
            self._texts[name] = {"text_embeddings": found["cond"], "text_mask": mask}
        return self._texts[name]


def file_detector(weights: Path, sam: Path | None, threshold: float) -> Detector:
    """Open a detector's file or folder; each is kept once, whoever uses it.

    Args:
        weights: A .onnx file, or a folder as transformers saves it.
        sam: Folder of Segment Anything for a folder, or None.
        threshold: Least score, 0 for the detector's own.

    Returns:
        The detector.

    Raises:
        ValueError: Segment Anything for a detector that does not use it.
    """
    if not weights.is_dir():
        if sam is not None:
            raise ValueError(
                f"'sam' goes with Grounding DINO and OWLv2 only; {weights.name} needs no masks. "
                "Set sam to none."
            )
        before = management.throw_exception_if_processing_interrupted
        opened = kept(("onnx", *stamp(weights)), lambda: open_onnx(weights, before=before))
        return OnnxDetector(opened, threshold, before)
    segment = None if sam is None else _held(sam, load_sam)
    return ZeroShotDetector(*_held(weights, load_zero_shot), threshold, segment)


def face_networks(detector: Path, recogniser: Path) -> tuple[FaceDetector, FaceRecogniser]:
    """Open the networks for faces; each is kept once, whoever uses it.

    Args:
        detector: A .onnx file.
        recogniser: A .onnx file.

    Returns:
        What finds faces, and what tells people apart.
    """
    before = management.throw_exception_if_processing_interrupted
    return (
        kept(("faces", *stamp(detector)), lambda: open_face_detector(detector, before)),
        kept(("people", *stamp(recogniser)), lambda: open_face_recogniser(recogniser, before)),
    )


def _held(folder: Path, load: Callable[[Path], nn.Module]) -> tuple[Managed[Any], Any]:
    """A folder's network under the host's memory manager, and its processor."""
    key = stamp(folder)
    return (
        kept((load.__name__, *key), lambda: Managed(load(folder), batch=BATCH)),
        kept(("processor", *key), lambda: load_processor(folder)),
    )


def host_detector(model: Any, clip: Any, threshold: float) -> Detector:
    """Make a detector of a MODEL.

    Args:
        model: MODEL of the host: RT-DETR or SAM 3.
        clip: CLIP of the same checkpoint, for SAM 3; None otherwise.
        threshold: Least score, 0 for 0.5.

    Returns:
        The detector.

    Raises:
        ValueError: It is another model, or SAM 3 without its CLIP.
    """
    network = model.model.diffusion_model
    if isinstance(network, those_known("comfy.ldm.rt_detr.rtdetr_v4", "RTv4")):
        return RTDetr(Managed(network, patcher=model), threshold)
    if not isinstance(network, those_known("comfy.ldm.sam3.detector", "SAM3Model")):
        raise ValueError(
            f"The connected model is {type(model.model).__name__}, which finds no objects. Connect "
            "RT-DETR or SAM 3, or choose a file in 'weights'."
        )
    if clip is None:
        raise ValueError(
            "SAM 3 finds objects by words: connect the CLIP output of the loader that gave its "
            "model."
        )
    return Sam3(Managed(network, batch=1, patcher=model), clip, threshold)
