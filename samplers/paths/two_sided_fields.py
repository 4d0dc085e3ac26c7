"""What do one or two of a bridge's fields say about the others at the same state?

    x = alpha x0 + beta x1 + gamma noise,                  noise = -gamma score,
    velocity = alpha' x0 + beta' x1 + gamma' noise,        drift = alpha' x0 + beta' x1

A state and two of the fields give the rest, at times t of shape (B,) on states (B, C, *S). One is
enough where the path has one unknown less: velocity or either end with no gamma, the noise of a
mirror. A source that is known is a field, x1. Conditional means obey the same lines, so that this
is how one or two networks give every field. What a time does not determine is refused, never
repaired.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .two_sided import TwoSided

__all__ = ["FIELDS", "convert_fields"]

FIELDS = {
    "x0": "the target, E[x0]",
    "x1": "the source, E[x1]",
    "noise": "the noise, E[z]",
    "score": "the gradient of the log density, -noise / gamma",
    "velocity": "the speed along the probability flow",
    "drift": "the speed without the noise's part",
}
# how far from determined, of the size of the weights, a wanted field may be
_TOLERANCE = 1e-9


def convert_fields(
    known: Mapping[str, Tensor], x: Tensor, t: Tensor, target: str, path: TwoSided
) -> Tensor:
    """Return one field at the states x from others there.

    The wanted field is a sum of x and the known ones; the weights solve three equations a row, in
    float64.

    Args:
        known: One or two fields by name, each of the shape of x; keys of FIELDS.
        x: States, shape (B, C, *S).
        t: Time of each row, shape (B,).
        target: The field wanted, a key of FIELDS.
        path: The path that x lies on.

    Returns:
        The field, shape and dtype of x.

    Raises:
        ValueError: Unknown or too many fields, shapes that differ, or a time at which the known
            fields do not determine the wanted one.

    Example:
        >>> from flowsearch.samplers.paths.two_sided import two_sided
        >>> one, t = torch.ones(1, 1), torch.tensor([0.5])
        >>> path = two_sided("linear", "brownian")
        >>> convert_fields({"x0": one, "x1": 3 * one}, 2.5 * one, t, "noise", path)
        tensor([[1.]])
    """
    for name in (*known, target):
        if name not in FIELDS:
            raise ValueError(f"unknown field {name!r}; choose one of: {', '.join(FIELDS)}")
    if not 0 < len(known) <= 2:
        raise ValueError(
            f"a state and one or two fields give the others, got {len(known)}: "
            f"{', '.join(known) or 'none'}"
        )
    shapes = {name: tuple(field.shape) for name, field in known.items()}
    if any(shape != tuple(x.shape) for shape in shapes.values()) or t.shape != x.shape[:1]:
        raise ValueError(
            f"the state has shape {tuple(x.shape)}, the fields {shapes} and the times "
            f"{tuple(t.shape)}; fields must be like the state, with one time a row"
        )
    if target in known:
        return known[target]
    times = t.detach().to("cpu", torch.float64)
    rows = torch.stack([_row(name, times, path) for name in ("x", *known)], -1)
    weights = _weights(rows, _row(target, times, path))
    undetermined = weights.isnan().any(-1)
    if bool(undetermined.any()):
        at = float(times[undetermined][0])
        raise ValueError(
            f"{target} cannot be had from {' and '.join(known)} at time {at:g} of the path "
            f"{path.name}, which leaves it open or infinite there; give another field, or stay "
            "inside the path"
        )
    shaped = weights.to(x.device, x.dtype).T.reshape(-1, len(x), *[1] * (x.ndim - 1))
    return (shaped * torch.stack([x, *known.values()])).sum(0)


def _row(name: str, t: Tensor, path: TwoSided) -> Tensor:
    """Return a quantity's coefficients of (x0, x1, noise), shape (B, 3)."""
    zero, one = torch.zeros_like(t), torch.ones_like(t)
    columns = {
        "x": lambda: (path.alpha(t), path.beta(t), path.gamma(t)),
        "x0": lambda: (one, zero, zero),
        "x1": lambda: (zero, one, zero),
        "noise": lambda: (zero, zero, one),
        "score": lambda: (zero, zero, -1.0 / path.gamma(t)),
        "velocity": lambda: (path.alpha_dot(t), path.beta_dot(t), path.gamma_dot(t)),
        "drift": lambda: (path.alpha_dot(t), path.beta_dot(t), zero),
    }
    return torch.stack(columns[name](), -1)


def _weights(rows: Tensor, wanted: Tensor) -> Tensor:
    """Write `wanted` (B, 3) as sums of the columns of `rows` (B, 3, n); NaN where it is none."""
    finite = (rows.isfinite().flatten(1).all(1) & wanted.isfinite().all(1)).unsqueeze(-1)
    rows = torch.where(finite.unsqueeze(-1), rows, 0.0)
    wanted = torch.where(finite, wanted, 0.0)
    sizes = _length(rows, 1)
    sizes = torch.where(sizes > 0.0, sizes, 1.0)
    unit = rows / sizes.unsqueeze(1)
    algebra: Any = torch.linalg  # its functions have no types
    inverse: Tensor = algebra.pinv(unit, rtol=1e-12)
    weights = inverse @ wanted.unsqueeze(-1)
    missed = (unit @ weights).squeeze(-1) - wanted
    close = _length(missed, -1) <= _TOLERANCE * _length(wanted, -1)
    found = finite & close.unsqueeze(-1)
    return torch.where(found, weights.squeeze(-1) / sizes, torch.nan)


def _length(values: Tensor, dim: int) -> Tensor:
    return values.square().sum(dim).sqrt()
