"""Which reward of human preference is a file, and the network it holds. See clip_preference and
image_reward.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .clip_preference import Towers, towers_from
from .image_reward import Judged, judged_from

__all__ = ["network_from"]


def network_from(weights: Mapping[str, Tensor], dtype: torch.dtype) -> Towers | Judged:
    """Make the network of a published file, whose names tell what it is.

    Args:
        weights: Name to tensor, as in the published file.
        dtype: Type that the network shall have.

    Returns:
        Towers for PickScore and HPS, Judged for ImageReward.

    Raises:
        ValueError: It is none of the three, or not whole.
    """
    if any(name.startswith("blip.") for name in weights):
        return judged_from(weights, dtype)
    if any(name.startswith(("visual.", "vision_model.")) for name in weights):
        return towers_from(weights, dtype)
    first = ", ".join(list(weights)[:3]) or "nothing"
    raise ValueError(
        "The file is none of PickScore v1 (vision_model...), HPS v2 (visual...) and ImageReward "
        f"v1.0 (blip...): it holds {first}. Choose one of the three; the help page says where "
        "they are published."
    )
