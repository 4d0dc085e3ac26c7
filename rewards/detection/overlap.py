"""Which of several detections are one object: the filtering of the paper's counting reward.

    kept scores     s > weak max of its class   or   s > strong
    within a class  smallest first; kept when more than half of it is new area
    across classes  best score first; dropped when at least half of it belongs to better ones

Source: Kim et al. 2025, arXiv:2503.19385, as its code does it with Grounding DINO and SAM. Where an
object lies is given by a mask, or by a box without one. A box of a sofa also holds the dog in front
of it, so boxes of two classes are taken for one object only when they nearly coincide: when their
intersection is at least half of their union.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou  # pyright: ignore[reportMissingTypeStubs]

__all__ = ["cells", "confident", "distinct"]

WEAK, STRONG = 0.6, 0.32
HALF = 0.5


def confident(scores: Tensor, classes: Tensor) -> Tensor:
    """Keep what is nearly as sure as the surest of its class, or sure enough by itself.

    Args:
        scores: Shape (n,).
        classes: Shape (n,), integers from 0.

    Returns:
        Shape (n,), whether it is kept.
    """
    best = scores.new_zeros(int(classes.max()) + 1 if len(classes) else 0)
    best = best.scatter_reduce(0, classes, scores, "amax")
    return (scores > WEAK * best[classes]) | (scores > STRONG)


def cells(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Cut the plane along all edges of boxes, so that areas of unions are sums.

    Args:
        boxes: Shape (n, 4): x0, y0, x1, y1.

    Returns:
        Which cells lie in each box, shape (n, cells), and the cells' areas, shape (cells,).
    """
    x, y = (_different(boxes[:, i::2]) for i in (0, 1))
    column = (x[:-1] >= boxes[:, :1]) & (x[1:] <= boxes[:, 2:3])
    row = (y[:-1] >= boxes[:, 1:2]) & (y[1:] <= boxes[:, 3:])
    inside = row[:, :, None] & column[:, None, :]
    return inside.flatten(1), (y.diff()[:, None] * x.diff()[None, :]).flatten()


def _different(values: Tensor) -> Tensor:
    """The different values, in ascending order."""
    ordered = values.flatten().sort().values
    return ordered[torch.cat([ordered.diff() > 0, ordered.new_ones(1, dtype=torch.bool)])]


def distinct(boxes: Tensor, scores: Tensor, classes: Tensor, masks: Tensor | None) -> Tensor:
    """Keep one detection an object.

    Args:
        boxes: Shape (n, 4): x0, y0, x1, y1.
        scores: Shape (n,).
        classes: Shape (n,).
        masks: Where each object is, boolean, shape (n, H, W), or None to go by the boxes.

    Returns:
        Shape (n,), whether it is kept.
    """
    if not len(boxes):
        return torch.zeros(0, dtype=torch.bool, device=boxes.device)
    if masks is None:
        cover, area = cells(boxes)
    else:
        cover = masks.flatten(1)
        area = cover.new_ones(cover.shape[1], dtype=torch.float32)
    size = torch.stack([area[one].sum() for one in cover])
    keep = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in map(int, size.argsort(stable=True)):
        others = cover[keep & (classes == classes[i])].any(dim=0)
        keep[i] = area[cover[i] & ~others].sum() > HALF * size[i]
    for i in map(int, scores.argsort(descending=True, stable=True)):
        better = keep & (classes != classes[i]) & (scores > scores[i])
        if not keep[i] or not better.any():
            continue
        if masks is None:
            keep[i] = box_iou(boxes[i : i + 1], boxes[better]).max() < HALF
        else:
            keep[i] = area[cover[i] & cover[better].any(dim=0)].sum() < HALF * size[i]
    return keep
