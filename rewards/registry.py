"""The list of rewards: where each is, and what it reads from disk.

One row a reward. The class is imported when it is asked for, so that a missing optional package
costs the one reward that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from .weights import Weights

__all__ = ["REWARDS", "Entry"]


@dataclass(frozen=True)
class Entry:
    """A row.

    Attributes:
        module: File of this folder, without .py.
        cls: Name of its class.
        node: Id of the node that makes it.
        weights: Published files it can read, the usual one first.
        packages: Optional Python packages it needs, as pip names them.
    """

    module: str
    cls: str
    node: str
    weights: tuple[Weights, ...] = ()
    packages: tuple[str, ...] = ()

    def load(self) -> type[Any]:
        """Import the class.

        Returns:
            The class.
        """
        return getattr(import_module(f".{self.module}", __package__), self.cls)


DETECTORS = (
    Weights(
        "FastestDet.onnx",
        "https://github.com/dog-qiuqiu/FastestDet",
        "BSD-3-Clause",
        998169,
        "31cb14c017fce347cb4c846ec62fdf00d76bb3beecdf4be21e7116ac67feb880",
        url="https://github.com/dog-qiuqiu/FastestDet/raw/main/example/onnx-runtime/FastestDet.onnx",
    ),
    Weights(
        "grounding-dino-base",
        "https://huggingface.co/IDEA-Research/grounding-dino-base",
        "Apache-2.0",
    ),
    Weights(
        "owlv2-base-patch16-ensemble",
        "https://huggingface.co/google/owlv2-base-patch16-ensemble",
        "Apache-2.0",
    ),
    Weights("sam-vit-base", "https://huggingface.co/facebook/sam-vit-base", "Apache-2.0"),
)

REWARDS: Mapping[str, Entry] = {
    "shape_count": Entry("shape_count", "ShapeCount", "FlowSearchShapeCount"),
    "shape_fidelity": Entry("shape_fidelity", "ShapeFidelity", "FlowSearchShapeFidelity"),
    "detector_count": Entry(
        "detector_count", "DetectorCount", "FlowSearchDetectorCount", DETECTORS, ("onnxruntime",)
    ),
}
"""Name in the spec to row, in the order of the menu."""
