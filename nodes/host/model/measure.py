"""What does a prediction really take? Calls of the guider, rows of the network, memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from comfy.samplers import CFGGuider
from torch import Tensor

from ..versions import is_oom
from .conditioning import cond_tensors, conds_of, guider_of_row
from .faults import blamed, checked

__all__ = [
    "CallCounter",
    "RowCounter",
    "call_memory",
    "memory_needed",
    "rows_that_fit",
    "size_of",
    "translated_oom",
]

MOST_ROWS = 32


class RowCounter:
    """Counts the rows that reach the network while it is entered.

    Attributes:
        rows: Rows since it was entered; 1 an evaluation at guidance 1, 2 above, more with areas.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        self.rows = 0
        self._lock = threading.Lock()  # the host may spread conditionings over several devices

    def __enter__(self) -> RowCounter:
        """Start counting."""
        self.rows = 0
        return self

    def __exit__(self, *_: object) -> None:
        """Keep the count for reading."""

    def wrapper(
        self, executor: Callable[..., Tensor], x: Tensor, *args: object, **kwargs: object
    ) -> Tensor:
        """The host's APPLY_MODEL wrapper: count the rows of x, then go on.

        Args:
            executor: The host's chain of wrappers.
            x: What the network is given.
            *args: What else it is given.
            **kwargs: Conditioning.

        Returns:
            What the model returns.
        """
        with self._lock:
            self.rows += x.shape[0]
        return executor(x, *args, **kwargs)


class CallCounter:
    """A guider that counts its predictions; everything else is the guider's.

    Attributes:
        calls: Predictions so far.
    """

    def __init__(self, guider: CFGGuider, network: bool = True) -> None:
        """Stand in for a guider.

        Args:
            guider: The guider.
            network: Whether to predict; otherwise every prediction is zero.
        """
        self._guider = guider
        self._network = network
        self.calls = 0

    def __call__(self, *args: object, **kwargs: object) -> Tensor:
        """Count, and predict."""
        self.calls += 1
        if not self._network:
            return torch.zeros_like(cast(Tensor, args[0]))
        x = cast(Tensor, args[0])
        with blamed(x, [*cond_tensors(self._guider)]):
            made = cast(Callable[..., object], self._guider)(*args, **kwargs)
        return checked(made, x)

    def __getattr__(self, name: str) -> object:
        """Everything else is the guider's."""
        return getattr(self._guider, name)


@contextmanager
def translated_oom() -> Iterator[None]:
    """Raise every way in which an accelerator reports full memory as one exception."""
    try:
        yield
    except Exception as error:
        if is_oom(error) and not isinstance(error, torch.cuda.OutOfMemoryError):
            raise torch.cuda.OutOfMemoryError(str(error)) from error
        raise


def call_memory(guider: CFGGuider, shape: tuple[int, ...], rows: int) -> float:
    """Reckon what memory a call takes, as the host does before it joins conditionings in a call.

    Args:
        guider: Of one row; see guider_of_row().
        shape: Shape of a state, rows first.
        rows: Candidates in the call: two rows of the network each, for guidance, with what the
            prompts bring along (reference pictures).

    Returns:
        Bytes.
    """
    sizes: dict[str, list[list[int]]] = {}
    for cond in conds_of(guider):
        for name, held in cond["model_conds"].items():
            first, *rest = held.size()
            sizes.setdefault(name, []).append([rows * first, *rest])
    largest = {name: sorted(found, key=math.prod)[-2:] for name, found in sizes.items()}
    return guider.inner_model.memory_required([2 * rows, *shape[1:]], cond_shapes=largest)


def rows_that_fit(guider: CFGGuider, shape: tuple[int, ...]) -> int:
    """Return how many candidates one call may hold in the memory that is free now.

    Decoding asks for none of it: the host's VAE takes as many latents at once as fit when it comes
    to that, and the models of a search are loaded back after it.

    Args:
        guider: The guider inside its sample().
        shape: Shape of a state, rows first.

    Returns:
        At least 1.
    """
    free = guider.model_patcher.get_free_memory(guider.model_patcher.load_device)
    need = 1.5 * call_memory(guider_of_row(guider, 0), shape, 1)  # the host's own margin
    return max(1, min(MOST_ROWS, int(free / max(need, 1.0))))


def memory_needed(guider: CFGGuider, shape: tuple[int, ...], rows: int) -> str:
    """Say what memory a call takes: as the host reckons and, on an accelerator, as measured.

    Args:
        guider: The guider inside its sample().
        shape: Shape of a state, rows first.
        rows: Candidates in a call.

    Returns:
        Words for a person.
    """
    device = guider.model_patcher.load_device
    need = call_memory(guider_of_row(guider, 0), shape, rows)
    free = guider.model_patcher.get_free_memory(device)
    text = f"{size_of(need)} for a call of {rows} candidates, {size_of(free)} free"
    if device.type == "cuda":
        text += f", peak so far {size_of(torch.cuda.max_memory_allocated(device))}"
    return text


def size_of(count: float) -> str:
    """Say how many bytes, for a person.

    Args:
        count: Bytes.

    Returns:
        Words.
    """
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MB"
