"""What does a model's output say about the other quantities at the same state?

    x = alpha x0 + sigma eps,    v = alpha' x0 + sigma' eps,    score = -eps / sigma

Any one of x0, eps, v, score gives the others, at times r of shape (B,) on states (B, C, *S).
Conversions that would divide by zero at an end of the path are refused, never repaired: at
sigma = 0 the state holds no noise to read, at alpha = 0 no data.

`convert` moves a state from one interpolant to another, which is a rescaling and a change of time.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .interpolant import LINEAR, Interpolant, scale

__all__ = ["KINDS", "convert", "convert_prediction"]

KINDS = ("x0", "eps", "v", "score")


class _Coefficients(NamedTuple):
    alpha: Tensor
    sigma: Tensor
    alpha_dot: Tensor
    sigma_dot: Tensor


_Reading = Callable[[Tensor, Tensor, _Coefficients], Tensor]


def _x0_from_x0(value: Tensor, _x: Tensor, _c: _Coefficients) -> Tensor:
    return value


def _x0_from_eps(value: Tensor, x: Tensor, c: _Coefficients) -> Tensor:
    return (x - c.sigma * value) / c.alpha


def _x0_from_v(value: Tensor, x: Tensor, c: _Coefficients) -> Tensor:
    return (c.sigma_dot * x - c.sigma * value) / (c.alpha * c.sigma_dot - c.sigma * c.alpha_dot)


def _x0_from_score(value: Tensor, x: Tensor, c: _Coefficients) -> Tensor:
    return (x + c.sigma**2 * value) / c.alpha


def _eps_from_x0(value: Tensor, x: Tensor, c: _Coefficients) -> Tensor:
    return (x - c.alpha * value) / c.sigma


def _eps_from_eps(value: Tensor, _x: Tensor, _c: _Coefficients) -> Tensor:
    return value


def _eps_from_v(value: Tensor, x: Tensor, c: _Coefficients) -> Tensor:
    return (c.alpha * value - c.alpha_dot * x) / (c.alpha * c.sigma_dot - c.sigma * c.alpha_dot)


def _eps_from_score(value: Tensor, _x: Tensor, c: _Coefficients) -> Tensor:
    return -c.sigma * value


_X0: dict[str, _Reading] = {
    "x0": _x0_from_x0, "eps": _x0_from_eps, "v": _x0_from_v, "score": _x0_from_score,
}  # fmt: skip
_EPS: dict[str, _Reading] = {
    "x0": _eps_from_x0, "eps": _eps_from_eps, "v": _eps_from_v, "score": _eps_from_score,
}  # fmt: skip

# Which coefficient must not be 0 (or, for sigma_dot, must be finite) in each conversion.
_NEEDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("x0", "eps"): ("sigma",), ("x0", "v"): ("sigma",), ("x0", "score"): ("sigma",),
    ("eps", "x0"): ("alpha",), ("eps", "v"): ("alpha", "sigma_dot"), ("eps", "score"): ("sigma",),
    ("v", "x0"): ("sigma_dot",), ("v", "eps"): ("sigma_dot",), ("v", "score"): ("sigma",),
    ("score", "x0"): ("alpha",), ("score", "eps"): (), ("score", "v"): ("alpha", "sigma_dot"),
}  # fmt: skip


def _coefficients(x: Tensor, r: Tensor, interpolant: Interpolant) -> _Coefficients:
    """Evaluate the interpolant in float64 and shape it to broadcast over x."""
    if r.shape != x.shape[:1]:
        raise ValueError(
            f"times have shape {tuple(r.shape)} but the state is {tuple(x.shape)}; "
            f"give one time per row, shape {tuple(x.shape[:1])}"
        )
    r = r.to(device=x.device, dtype=torch.float64)

    def shaped(values: Tensor) -> Tensor:
        return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))

    return _Coefficients(
        shaped(interpolant.alpha(r)),
        shaped(interpolant.sigma(r)),
        shaped(interpolant.alpha_dot(r)),
        shaped(interpolant.sigma_dot(r)),
    )


def convert_prediction(
    value: Tensor,
    x: Tensor,
    r: Tensor,
    source: str,
    target: str,
    interpolant: Interpolant = LINEAR,
) -> Tensor:
    """Turn one of x0, eps, v, score into another at the state x.

    Solves x = alpha x0 + sigma eps, v = alpha' x0 + sigma' eps, score = -eps / sigma.

    Args:
        value: The known quantity, shape (B, C, *S).
        x: State, shape of value.
        r: Time of each row in the interpolant's own time, shape (B,).
        source: What value is, one of KINDS.
        target: What is wanted, one of KINDS.
        interpolant: The path x lies on.

    Returns:
        The wanted quantity, shape and dtype of x.

    Raises:
        ValueError: Unknown kind, shapes that differ, or a time at an end of the path at which the
            conversion has no answer.
    """
    for kind in (source, target):
        if kind not in KINDS:
            raise ValueError(f"unknown quantity {kind!r}; choose one of: {', '.join(KINDS)}")
    if value.shape != x.shape:
        raise ValueError(
            f"{source} has shape {tuple(value.shape)} but the state {tuple(x.shape)}; "
            "both must agree"
        )
    c = _coefficients(x, r, interpolant)
    if source == target:
        return value
    for name in _NEEDS[source, target]:
        coefficient: Tensor = getattr(c, name)
        usable = coefficient.isfinite() & ((coefficient != 0) | (name == "sigma_dot"))
        if not bool(usable.all()):
            where = r[~usable.reshape(-1)]
            raise ValueError(
                f"{target} cannot be had from {source} at time {where[0].item()} of the "
                f"{interpolant.name} interpolant, where {name} is 0 or infinite; "
                "stay inside the path"
            )
    if target == "x0":
        return _X0[source](value, x, c)
    eps = _EPS[source](value, x, c)
    if target == "eps":
        return eps
    if target == "score":
        return -eps / c.sigma
    return c.alpha_dot * _X0[source](value, x, c) + c.sigma_dot * eps


def convert(
    x: Tensor, r: Tensor, source: Interpolant, target: Interpolant
) -> tuple[Tensor, Tensor]:
    """Move states from one interpolant to another without changing what they hold.

        r' = r'(rho(r)),    x' = x (alpha'(r') + sigma'(r')) / (alpha(r) + sigma(r))

    x0 and eps of a state are the same before and after; only their coefficients change.

    Source: Kim et al. 2025, arXiv:2503.19385, eqs. (10)-(11), with c_s = scale ratio.

    Args:
        x: States, shape (B, C, *S).
        r: Their times on source, shape (B,).
        source: The interpolant x lies on.
        target: The interpolant wanted.

    Returns:
        (x', r'), the states and their times on target; shapes and dtypes of x and r.

    Raises:
        ValueError: r has another shape than (B,).
    """
    if r.shape != x.shape[:1]:
        raise ValueError(
            f"times have shape {tuple(r.shape)} but the state is {tuple(x.shape)}; "
            f"give one time per row, shape {tuple(x.shape[:1])}"
        )
    exact = r.to(torch.float64)
    r_target = target.r_from_rho(source.sigma(exact) / source.alpha(exact))
    ratio = scale(target, r_target) / scale(source, exact)
    factor = ratio.to(device=x.device, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 1))
    return x * factor, r_target.to(r.dtype)
