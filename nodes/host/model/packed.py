"""Several latents sampled together, video and audio: the host packs them into one row of numbers.

Inside a guider's sample() a row has shape (1, L), all of one latent's values before the next's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from comfy.nested_tensor import NestedTensor
from comfy.samplers import CFGGuider
from torch import Tensor

__all__ = ["Shapes", "packed_shapes", "unpacked"]

Shapes = Sequence[tuple[int, ...]]


def packed_shapes(guider: CFGGuider) -> list[tuple[int, ...]]:
    """Return the shapes of the latents that the host has packed into each row.

    Args:
        guider: The guider inside its sample().

    Returns:
        Shapes without the batch, in order; empty where a row is one latent as it is.
    """
    found: Any = getattr(guider.inner_model, "latent_shapes", None)  # of newer hosts
    for conds in getattr(guider, "conds", {}).values():
        for cond in conds or ():
            held = cond.get("model_conds", {}).get("latent_shapes")
            found = found or (held and held.cond)
    shapes = [tuple(int(size) for size in shape[1:]) for shape in found or ()]
    return shapes if len(shapes) > 1 else []


def unpacked(rows: Tensor, shapes: Shapes, channels: int | None = None) -> Any:
    """Turn packed rows into what LATENT holds.

    Args:
        rows: Shape (B, 1, L), or latents of any shape where there are no shapes.
        shapes: See packed_shapes().
        channels: How many of the first channels to keep; None for all.

    Returns:
        The host's NestedTensor of latents (B, *shape); rows as they are where there are no shapes.
    """
    if not shapes:
        return rows[:, :channels]
    parts = rows.flatten(1).split([math.prod(shape) for shape in shapes], dim=1)
    both = zip(parts, shapes, strict=True)
    return NestedTensor([part.reshape(-1, *shape)[:, :channels] for part, shape in both])
