"""Is a value out of JSON of the type that it should be? Each function returns it, or TypeError."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["integer", "integers", "number", "objects", "optional", "table", "text"]

_T = TypeVar("_T")


def integer(value: object) -> int:
    """Return a whole number; true and false are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a whole number, got {value!r:.80}")
    return value


def number(value: object) -> float:
    """Return a number; true and false are none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"expected a number, got {value!r:.80}")
    return value


def text(value: object) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r:.80}")
    return value


def table(value: object) -> dict[str, Any]:
    """Return a dict with strings for keys, a copy."""
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {value!r:.80}")
    return {text(key): entry for key, entry in cast("dict[object, Any]", value).items()}


def objects(value: object) -> list[dict[str, Any]]:
    """Return a list of dicts."""
    return [table(entry) for entry in _list(value)]


def integers(value: object) -> tuple[int, ...]:
    """Return a list of whole numbers, as a tuple."""
    return tuple(integer(entry) for entry in _list(value))


def optional(read: Callable[[object], _T], value: object) -> _T | None:
    """Return None for null, else what the function reads."""
    return None if value is None else read(value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r:.80}")
    return cast("list[object]", value)
