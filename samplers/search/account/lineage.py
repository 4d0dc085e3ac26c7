"""Where did a candidate come from? The states that lead to it, and what its ancestors looked like.

States are kept from the last start or upward move on, pictures further back, at most FRAMES; both
for live candidates only and shared between relatives, so what is kept does not grow with the
budget. Everything else of an ancestor (key, transition, scores) is in the trace, by its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor

from ..protocol import Node, State

__all__ = ["PREFIX", "Frame", "Lineage", "Lineages", "Place"]

FRAMES = 48
SIDE = 128  # pixels of the longer side of a kept picture
PREFIX = "lineage/"


@dataclass(frozen=True, eq=False)
class Place:
    """A state on a candidate's path.

    Attributes:
        id: The ancestor's id.
        state: Its tensors, one row, on the CPU.
    """

    id: int
    state: State


@dataclass(frozen=True, eq=False)
class Frame:
    """What the reward saw of an ancestor.

    Attributes:
        id: The ancestor's id.
        picture: Small, shape (h, w, 3), 0 to 255.
    """

    id: int
    picture: Tensor


@dataclass(frozen=True, eq=False)
class Lineage:
    """Where a candidate came from.

    Attributes:
        path: From its last start or upward move to itself.
        frames: Its scored ancestors and itself, the oldest first.
    """

    path: tuple[Place, ...] = ()
    frames: tuple[Frame, ...] = ()


class Lineages:
    """The lineages of an item's live candidates."""

    def __init__(self) -> None:
        """Start empty."""
        self._lineages: WeakKeyDictionary[Node, Lineage] = WeakKeyDictionary()
        self._nodes: WeakValueDictionary[int, Node] = WeakValueDictionary()
        self._saved: dict[int, Lineage] = {}

    def add(
        self, node: Node, came_from: float | None, state: State | None, thumbnail: object
    ) -> None:
        """Take note of a new candidate.

        Args:
            node: The candidate; its parent must be alive.
            came_from: Sigma of its parent; None for a start.
            state: Its tensors; None where it was read from a log.
            thumbnail: A picture (H, W, 3 or more), 0 to 1; anything else is not kept.
        """
        parent = None if node.parent is None else self._nodes.get(node.parent)
        before = Lineage() if parent is None else self._lineages.get(parent, Lineage())
        lineage = self._saved.pop(node.id, None)
        if lineage is None:
            falls = came_from is not None and node.sigma < came_from
            path = before.path if falls else ()
            frames = before.frames
            if state is not None:
                path = (*path, Place(node.id, {key: value.cpu() for key, value in state.items()}))
            if isinstance(thumbnail, Tensor) and thumbnail.ndim == 3:
                frames = (*frames, Frame(node.id, small(thumbnail)))[-FRAMES:]
            lineage = Lineage(path, frames)
        self._lineages[node] = lineage
        self._nodes[node.id] = node

    def of(self, node: Node) -> Lineage:
        """Return a live candidate's lineage."""
        return self._lineages.get(node, Lineage())

    def save(self, item: int, tensors: dict[str, Tensor]) -> dict[str, list[list[int]]]:
        """Write the lineages down.

        Args:
            item: Batch item, for the names.
            tensors: Receives copies of the tensors.

        Returns:
            Node id to the ids on its path and of its frames.
        """
        table: dict[str, list[list[int]]] = {}
        for node, lineage in list(self._lineages.items()):
            for place in lineage.path:
                for key, value in place.state.items():
                    name = f"{PREFIX}{item}/{place.id}/{key}"
                    if name not in tensors:
                        tensors[name] = value.clone()
            for frame in lineage.frames:
                name = f"{PREFIX}{item}/{frame.id}/{PREFIX}"
                if name not in tensors:  # relatives share them
                    tensors[name] = frame.picture.clone()
            ids = [place.id for place in lineage.path], [frame.id for frame in lineage.frames]
            table[str(node.id)] = [*ids]
        return table

    def load(
        self, item: int, tensors: Mapping[str, Tensor], table: Mapping[str, Any] | None
    ) -> None:
        """Read what save() wrote; each lineage is taken up when its candidate is added.

        Args:
            item: Batch item.
            tensors: Everything that was saved.
            table: What save() returned; None or empty for a checkpoint without lineages.
        """
        states: dict[int, State] = {}
        frames: dict[int, Frame] = {}
        for name, value in tensors.items():
            if name.startswith(f"{PREFIX}{item}/"):
                number, key = name.removeprefix(f"{PREFIX}{item}/").split("/", 1)
                if key == PREFIX:
                    frames[int(number)] = Frame(int(number), value.cpu())
                else:
                    states.setdefault(int(number), {})[key] = value.cpu()
        places = {number: Place(number, state) for number, state in states.items()}
        for node, (path, pictures) in (table or {}).items():
            # what is missing is found missing, and told, where its candidate is needed
            known = tuple(places[i] for i in path if i in places)
            self._saved[int(node)] = Lineage(
                known, tuple(frames[i] for i in pictures if i in frames)
            )


def small(picture: Tensor) -> Tensor:
    """Shrink a picture for keeping.

    Args:
        picture: Shape (H, W, C), 0 to 1.

    Returns:
        Shape (h, w, 3), 0 to 255, on the CPU, memory of its own.
    """
    rows = picture[..., :3].detach().float().cpu().movedim(-1, 0)[None]
    scale = min(1.0, SIDE / max(picture.shape[:2]))
    size = [max(1, round(side * scale)) for side in picture.shape[:2]]
    if scale < 1.0:
        rows = torch.nn.functional.interpolate(rows, size=size, mode="area")
    return (rows[0].movedim(0, -1) * 255.0).round().clamp(0, 255).byte().contiguous()
