"""Does the picture hold the right number of each object, as a detector counts them?

    absolute    reward = - sum over targets of | counted - wanted |
    squared     reward = - sum over targets of (counted - wanted)^2

The squared rule is that of Kim et al. 2025, arXiv:2503.19385. Where others are wrong, the objects
of all other classes that the detector knows are one more target, of which none is wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor

from ..base import Assessed, Assessment, RewardSpec, check_images
from ..prompts.counting import Target
from ..weights.holder import Holder, NetworkReward
from .detector import Box, Detector, draw_boxes, unknown

__all__ = ["OTHERS", "RULES", "DetectorCount"]

RULES = ("absolute", "squared")
OTHERS = ("ignore", "wrong")


@dataclass(frozen=True)
class DetectorCount(Assessed, NetworkReward):
    """Counts objects by a detector.

    Args:
        detector: Finds them.
        targets: What should be there. A detector with a vocabulary has to know all of it.
        rule: "absolute" or "squared".
        others: What objects of other classes of the vocabulary are: "ignore" or "wrong".
        licence: Of the detector's weights.
        source: Where they come from.
        sha256: Of their file.
    """

    detector: Detector
    targets: tuple[Target, ...]
    rule: str = "absolute"
    others: str = "ignore"
    licence: str = "that of the detector's weights"
    source: str = "the detector's weights"
    sha256: str = ""
    _classes: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Find the targets in the vocabulary."""
        for name, value, allowed in (("rule", self.rule, RULES), ("others", self.others, OTHERS)):
            if value not in allowed:
                raise ValueError(f"{name} is '{value}'; it may be {' or '.join(allowed)}.")
        if not self.targets:
            raise ValueError("Detector Count has no targets. Write them as 'cat: 2, dog: 1'.")
        if self.others == "wrong" and not self.detector.vocabulary:
            raise ValueError(
                "others is 'wrong', but this detector takes any words and has no other classes. "
                "Choose 'ignore', or name what should not be there with a count of 0 ('dog: 0')."
            )
        classes = tuple(self._class(target) for target in self.targets)
        object.__setattr__(self, "_classes", classes)

    def _class(self, target: Target) -> str:
        """The detector's name of a target."""
        if not self.detector.vocabulary:
            return target.name
        known = {name.lower(): name for name in self.detector.vocabulary}
        found = known.get(target.name, known.get(target.plural))
        if found is None:
            raise ValueError(unknown(target.name, self.detector.vocabulary))
        return found

    @property
    def spec(self) -> RewardSpec:
        """What the value means."""
        return RewardSpec(
            name="detector_count",
            measures="how few objects, of those asked for, a detector misses or finds too many of",
            low=-inf,
            high=0.0,
            quantum=1.0,
            scale=1.0,
            licence=self.licence,
            source=self.source,
            sha256=self.sha256,
        )

    @property
    def holders(self) -> Sequence[Holder[Any]]:
        """Those of the detector."""
        return self.detector.holders

    def assess(self, images: Tensor) -> Assessment:
        """See Explained: the count of each target, of others where they are wrong, and of all."""
        counts = [Counter(box.name for box in boxes) for boxes in self._found(images)]
        parts = [self._parts(count) for count in counts]
        values = [0.0 - sum(self._wrong(found)) for found in parts]
        notes = [self._note(found) for found in parts]
        return Assessment(images.new_tensor(values, dtype=torch.float32), parts, notes)

    def draw(self, images: Tensor) -> Tensor:
        """See Annotator: the boxes of what is counted."""
        return draw_boxes(images, self._found(images))

    def _found(self, images: Tensor) -> Sequence[Sequence[Box]]:
        check_images(images, "Detector Count")
        everything = self.others == "wrong"
        names = self.detector.vocabulary if everything else self._classes
        return self.detector.detect(images, names) if images.shape[0] else ()

    def _parts(self, count: Mapping[str, int]) -> dict[str, float]:
        parts = {
            target.name: float(count[name])
            for target, name in zip(self.targets, self._classes, strict=True)
        }
        total = float(sum(count.values()))
        others = {"others": total - sum(parts.values())} if self.others == "wrong" else {}
        return {**parts, **others, "total": total}

    def _wrong(self, parts: Mapping[str, float]) -> list[float]:
        """Size of each error."""
        errors = [abs(parts[target.name] - target.count) for target in self.targets]
        errors.append(parts.get("others", 0.0))
        return [error**2 for error in errors] if self.rule == "squared" else errors

    def _note(self, parts: Mapping[str, float]) -> str:
        """One line: 'apples 3 of 3, dogs 1 of 2'."""
        said = [f"{t.plural} {parts[t.name]:.0f} of {t.count}" for t in self.targets]
        return ", ".join([*said, *([f"others {parts['others']:.0f}"] if "others" in parts else [])])
