"""What is a network of a bridge trained on?

Draw x0, x1, z and t, make x = alpha x0 + beta x1 + gamma z, and minimise over networks f

    L = E[ |f(x, t)|^2 / 2 - y . f(x, t) ]

whose minimum is E[y | x, t], a field of ../paths/two_sided.py: y is alpha' x0 + beta' x1 + gamma' z
for the velocity (L_b), alpha' x0 + beta' x1 for the drift (L_v), z for the noise (L_eta),
-z / gamma for the score (L_s), and x0 or x1 for an end. Above its minimum L is
E|f - E[y | x, t]|^2 / 2.

Near the ends gamma' and 1 / gamma grow without bound, and with them the spread of L_b and L_s, but
not their means: the terms of z and -z nearly cancel. So both are used for every draw (antithetic).

Source: Albergo, Boffi, Vanden-Eijnden 2023, arXiv:2303.08797.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..paths.two_sided import TwoSided

__all__ = ["OBJECTIVES", "loss", "state"]

Network = Callable[[Tensor, Tensor], Tensor]
_Target = Callable[[TwoSided, Tensor, Tensor, Tensor, Tensor], Tensor]


def _drift(path: TwoSided, t: Tensor, x0: Tensor, x1: Tensor, _z: Tensor) -> Tensor:
    return path.alpha_dot(t) * x0 + path.beta_dot(t) * x1


def _velocity(path: TwoSided, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor) -> Tensor:
    drift = _drift(path, t, x0, x1, z)
    return drift + path.gamma_dot(t) * z if path.is_noisy else drift


def _score(path: TwoSided, t: Tensor, _x0: Tensor, _x1: Tensor, z: Tensor) -> Tensor:
    return -z / path.gamma(t)


OBJECTIVES: dict[str, _Target] = {
    "velocity": _velocity,
    "drift": _drift,
    "score": _score,
    "noise": lambda _path, _t, _x0, _x1, z: z,
    "x0": lambda _path, _t, x0, _x1, _z: x0,
    "x1": lambda _path, _t, _x0, x1, _z: x1,
}


def state(path: TwoSided, t: Tensor, x0: Tensor, x1: Tensor, z: Tensor) -> Tensor:
    """Return x = alpha x0 + beta x1 + gamma z.

    Args:
        path: The path.
        t: Time of each row, shape (B,).
        x0: Draws of the target, shape (B, *S).
        x1: Draws of the source.
        z: Standard normal.

    Returns:
        States like x0.
    """
    wide = _like(t, x0)
    return path.alpha(wide) * x0 + path.beta(wide) * x1 + path.gamma(wide) * z


def loss(
    name: str,
    network: Network,
    path: TwoSided,
    t: Tensor,
    x0: Tensor,
    x1: Tensor,
    z: Tensor,
    antithetic: bool = True,
) -> Tensor:
    """Return the objective of each draw; a training script takes the mean, weighted or not.

    Args:
        name: Key of OBJECTIVES: what the network predicts.
        network: network(x, t) with t of shape (B,) returns a field like x.
        path: The path.
        t: Time of each row, shape (B,), inside (0, 1) where gamma' or 1 / gamma is infinite at
            the ends.
        x0: Draws of the target, shape (B, *S).
        x1: Draws of the source, coupled with x0 or not.
        z: Standard normal like x0.
        antithetic: Take the mean over z and -z, with two evaluations.

    Returns:
        Shape (B,).

    Raises:
        ValueError: Unknown name, shapes that differ, or a score or noise of a path that has none.

    Example:
        >>> from flowsearch.samplers.paths.two_sided import two_sided
        >>> zero, one = torch.zeros(2, 3), torch.ones(2, 3)
        >>> at = torch.tensor([0.2, 0.7])
        >>> loss("x0", lambda x, t: one, two_sided(), at, one, zero, zero)
        tensor([-1.5000, -1.5000])
    """
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; choose one of: {', '.join(OBJECTIVES)}")
    if not x0.shape == x1.shape == z.shape or t.shape != x0.shape[:1]:
        raise ValueError(
            f"x0 {tuple(x0.shape)}, x1 {tuple(x1.shape)} and z {tuple(z.shape)} must have one "
            f"shape, with one time a row, not {tuple(t.shape)}"
        )
    if name in ("score", "noise") and not path.is_noisy:
        raise ValueError(f"the path {path.name} has no noise, so there is no {name} to learn")
    signs = (1.0, -1.0) if antithetic and path.is_noisy else (1.0,)
    wide = _like(t, x0)
    terms: list[Tensor] = []
    for sign in signs:
        noise = sign * z
        field = network(state(path, t, x0, x1, noise), t)
        wanted = OBJECTIVES[name](path, wide, x0, x1, noise)
        terms.append((0.5 * field.square() - wanted * field).flatten(1).sum(1))
    return torch.stack(terms).mean(0)


def _like(t: Tensor, x: Tensor) -> Tensor:
    return t.to(x).reshape(-1, *[1] * (x.ndim - 1))
