"""What is owed to a reward that somebody else wrote? A look at its values, and at what it left set.

A reward is any code. What it returns is checked before anything is decided by it, and what it sets
of torch for the whole process is put back, for it would change every later result.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["LARGEST", "settings", "settings_kept", "values_of"]

LARGEST = torch.finfo(torch.float32).max
"""Rewards are numbers of float32: sums and squares of those are safe in float64."""

_NAMES = (
    "default_dtype",
    "default_device",
    "num_threads",
    "float32_matmul_precision",
    "deterministic_debug_mode",
)  # fmt: skip
_SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.is_grad_enabled, torch.set_grad_enabled),
    *(
        (getattr(torch, f"get_{name}"), getattr(torch, f"set_{name}"))
        for name in _NAMES
        if hasattr(torch, f"get_{name}")  # older versions lack some
    ),
)


def settings() -> list[Any]:
    """Return what is set of torch for the whole process."""
    return [read() for read, _ in _SETTINGS]


@contextmanager
def settings_kept() -> Generator[None]:
    """Put back what code of others sets of torch for the whole process.

    Yields:
        Nothing.
    """
    before = settings()
    try:
        yield
    finally:
        for (read, write), value in zip(_SETTINGS, before, strict=True):
            if read() != value:
                write(value)


def values_of(values: object, count: int) -> Tensor:
    """Return what a reward returned, if it is one real number a picture.

    Args:
        values: What it returned.
        count: Pictures it was given.

    Returns:
        The same; it may still hold NaN or infinity.

    Raises:
        ValueError: It is something else, or a number that float32 does not hold.
    """
    if not isinstance(values, Tensor):
        raise ValueError(
            f"it returned an object of the class {type(values).__name__} for {count} pictures; a "
            "reward returns a tensor with one number a picture"
        )
    if tuple(values.shape) != (count,):
        raise ValueError(
            f"it returned values of shape {tuple(values.shape)} for {count} pictures; a reward "
            "returns one value a picture"
        )
    if values.is_complex():
        raise ValueError(
            f"it returned values of type {values.dtype}; a reward returns real numbers"
        )
    if values.dtype is torch.float64:
        large = values[values.isfinite() & (values.abs() > LARGEST)]
        if large.numel():
            raise ValueError(
                f"it returned {float(large[0]):g}; a reward returns numbers of float32, which go "
                f"from {-LARGEST:.3g} to {LARGEST:.3g}"
            )
    return values
