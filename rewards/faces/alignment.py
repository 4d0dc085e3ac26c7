"""How is a face put upright? By five points: eyes, nose, corners of the mouth.

    to = s R from + t      s > 0, R a rotation: no shear, no mirror

is fitted by least squares, for which there is a closed form (Umeyama 1991, IEEE Trans. Pattern
Anal. Mach. Intell. 13(4), eq. 39 to 43). Recognisers of the ArcFace kind are trained on faces whose
points were brought to TEMPLATE in this way (Deng et al. 2019, arXiv:1801.07698, section 3.1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["SIDE", "TEMPLATE", "aligned", "similarity"]

SIDE = 112
"""Rows and columns of the picture that TEMPLATE is for."""

TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)
"""x and y of left eye, right eye, nose, left and right corner of the mouth, as one sees them."""


def similarity(start: Tensor, end: Tensor) -> Tensor:
    """Fit a rotation, a scale and a shift that bring points to others.

    Args:
        start: Points, shape (n, 2), at least two of them different.
        end: Where they should come, same shape.

    Returns:
        Shape (2, 3), float64: the matrix of x, y, 1.
    """
    a, b = start.double(), end.double()
    centre_a, centre_b = a.mean(dim=0), b.mean(dim=0)
    a, b = a - centre_a, b - centre_b
    linalg: Any = torch.linalg
    u, sizes, vh = linalg.svd(b.T @ a)
    # where the best orthogonal matrix mirrors, the best rotation turns the weaker axis back
    sign = torch.ones_like(sizes)
    sign[-1] = torch.sign(linalg.det(u) * linalg.det(vh))
    rotation = u @ torch.diag(sign) @ vh
    scale = (sizes * sign).sum() / a.square().sum().clamp(min=1e-12)
    turned = scale * rotation
    return torch.cat([turned, (centre_b - turned @ centre_a)[:, None]], dim=1)


def aligned(picture: Tensor, points: Tensor) -> Tensor:
    """Cut a face out of a picture, upright.

    Args:
        picture: Shape (3, H, W).
        points: Its five points in pixels, shape (5, 2).

    Returns:
        Shape (3, SIDE, SIDE), bilinear between pixels; black where the picture ends.
    """
    forth = similarity(points, torch.tensor(TEMPLATE))
    whole = torch.cat([forth, forth.new_tensor([[0.0, 0.0, 1.0]])])
    linalg: Any = torch.linalg
    back: Tensor = linalg.pinv(whole)[:2]  # points that all coincide have no inverse
    steps = torch.arange(SIDE, dtype=torch.float64)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ back.T
    # a pixel's value stands at its own coordinates, and outside there are zeros
    last = places.new_tensor([picture.shape[2] - 1, picture.shape[1] - 1]).clamp(min=1)
    grid = (2.0 * places / last - 1.0).float()[None]
    return functional.grid_sample(
        picture[None].float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True
    )[0]
