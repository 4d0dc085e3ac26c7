"""Elementary functions that map floats to floats and tensors to tensors."""

import math
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
from torch import Tensor

__all__ = [
    "Function",
    "Number",
    "atan",
    "constant",
    "cos",
    "either",
    "exp",
    "inverse",
    "lesser",
    "log1p",
    "one_minus_exp",
    "positive_part",
    "sin",
    "sqrt",
]

Number = TypeVar("Number", float, Tensor)


class Function(Protocol):
    """A function of time that maps floats to floats and tensors to tensors."""

    def __call__(self, r: Number, /) -> Number: ...


def either(of_tensor: Callable[[Tensor], Tensor], of_float: Callable[[float], float]) -> Function:
    """Join the two versions of an elementary function.

    Args:
        of_tensor: The version of tensors.
        of_float: The version of floats.

    Returns:
        A function of either.
    """

    def function(x: Number, /) -> Number:
        if isinstance(x, Tensor):
            return of_tensor(x)
        return of_float(x)

    return function


def constant(value: float) -> Function:
    """Return the function that is value everywhere."""
    return either(lambda x: torch.full_like(x, value), lambda _: value)


exp = either(torch.exp, math.exp)
sin = either(torch.sin, math.sin)
cos = either(torch.cos, math.cos)
sqrt = either(torch.sqrt, math.sqrt)
atan = either(torch.atan, math.atan)
log1p = either(torch.log1p, math.log1p)
one_minus_exp = either(lambda x: -torch.expm1(x), lambda x: -math.expm1(x))
inverse = either(torch.reciprocal, lambda x: 1.0 / x if x != 0.0 else math.inf)
lesser = either(lambda x: torch.minimum(x, 1.0 - x), lambda x: min(x, 1.0 - x))
positive_part = either(lambda x: x.clamp_min(0.0), lambda x: max(x, 0.0))
