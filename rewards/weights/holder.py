"""Who keeps a reward's network: where it is loaded, in which batches it runs, when it is freed.

A reward never moves a network. It hands a function of (network, rows) to a holder, which loads the
network, splits the rows into batches, brings each to the network's device and puts the results
together. Inside ComfyUI the holder is its memory manager (nodes/host); here is the plain one, for
use without it, which also shows what the other must do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

__all__ = [
    "Holder",
    "Local",
    "NetworkReward",
    "backward_ready",
    "dtype_of",
    "in_batches",
    "widened",
]

N = TypeVar("N", bound=nn.Module)
N_co = TypeVar("N_co", bound=nn.Module, covariant=True)


class Holder(Protocol[N_co]):
    """Keeps one network."""

    @property
    def network(self) -> N_co:
        """The network, wherever it is now; for its configuration, not for calling it."""
        ...

    def run(self, function: Callable[[Any, Tensor], Tensor], rows: Tensor) -> Tensor:
        """Run a function of the network over rows, batch by batch.

        Args:
            function: (network, rows) -> one result a row, shape (rows, ...). The rows are on the
                network's device in the dtype they were given; preprocessing belongs in here, so
                that pictures go to the device once.
            rows: Shape (B, ...); B may be 0, which calls nothing.

        Returns:
            Shape (B, ...), float32 (float64 where the function gives it), on the rows' device.
            Shape (0,) for no rows.
        """
        ...

    def get_models(self) -> Sequence[Any]:
        """What a memory manager knows the network by; nothing where there is none."""
        ...


class NetworkReward(ABC):
    """What a reward with networks inherits, so that the host finds them to free them."""

    @property
    @abstractmethod
    def holders(self) -> Sequence[Holder[Any]]:
        """The holders of its networks."""

    def get_models(self) -> list[Any]:
        """What the host's caches ask an object for: the patchers of its networks."""
        return [model for holder in self.holders for model in holder.get_models()]


def dtype_of(network: nn.Module) -> torch.dtype:
    """Type of the weights, to which preprocessed pictures (float32) are cast before the network.

    Args:
        network: Any.

    Returns:
        That of its first floating point parameter, or float32 without one.
    """
    types = (p.dtype for p in network.parameters() if p.is_floating_point())
    return next(types, torch.float32)


def widened(values: Tensor) -> Tensor:
    """What a network gave, for arithmetic on it.

    Args:
        values: Any.

    Returns:
        They in float32, or as they are where that is float64.
    """
    return values if values.dtype is torch.float64 else values.float()


@contextmanager
def backward_ready(network: nn.Module) -> Generator[None]:
    """Let a backward pass go through a network whose weights were made in inference mode.

    Such tensors cannot be saved for it: those of the host's loaders, and all that were moved to
    another device in a node. For the while, others that share their memory stand in their places;
    where a tensor is of a class of its own (quantised ones are), a clone.

    Args:
        network: Any; parameters and buffers are the same objects again after, whatever happens.

    Yields:
        Nothing. To be entered outside inference mode, in which everything made is of that kind.
    """
    held: list[tuple[dict[str, Any], str, Tensor]] = []
    stands: dict[int, Tensor] = {}
    try:
        for module in network.modules():
            places: list[dict[str, Any]] = [vars(module)[of] for of in ("_parameters", "_buffers")]
            for place, name, tensor in ((p, name, t) for p in places for name, t in p.items()):
                if tensor is not None and tensor.is_inference():
                    held.append((place, name, tensor))
                    if id(tensor) not in stands:
                        stands[id(tensor)] = _normal(tensor)
                    place[name] = stands[id(tensor)]
        yield
    finally:
        for place, name, tensor in held:
            place[name] = tensor


def _normal(tensor: Tensor) -> Tensor:
    """The same numbers in a tensor that a backward pass can save."""
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout is not torch.strided:
        found = tensor.detach().clone()
    else:
        found = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(
            tensor.untyped_storage(),  # pyright: ignore[reportArgumentType]
            int(tensor.storage_offset()),
            tensor.size(),
            tensor.stride(),
        )
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(found, requires_grad=False) if is_parameter else found


def in_batches(
    function: Callable[[Tensor], Tensor],
    rows: Tensor,
    device: torch.device,
    batch: int,
    before: Callable[[], object] = lambda: None,
) -> Tensor:
    """Run a function over rows in batches.

    Args:
        function: Rows on `device` -> one result a row.
        rows: Shape (B, ...).
        device: Where the function works.
        batch: Most rows at once, at least 1.
        before: Called before each batch; it may raise, which is how a run is cancelled.

    Returns:
        The results, float32 (float64 where the function gives it), on the rows' device,
        differentiable where the rows are.
    """
    found: list[Tensor] = []
    with torch.set_grad_enabled(rows.requires_grad):
        for start in range(0, rows.shape[0], batch):
            before()
            piece = function(rows[start : start + batch].to(device))
            found.append(widened(piece.to(rows.device)))
    return torch.cat(found) if found else rows.new_zeros(0, dtype=torch.float32)


class Local(Generic[N]):
    """Keeps a network where it is."""

    def __init__(self, network: N, batch: int = 8) -> None:
        """Keep it.

        Args:
            network: On its device, for ever; it is set to evaluation.
            batch: Most rows at once.
        """
        self._network = network.eval().requires_grad_(False)
        self._batch = batch

    @property
    def network(self) -> N:
        """The network."""
        return self._network

    def run(self, function: Callable[[Any, Tensor], Tensor], rows: Tensor) -> Tensor:
        """See Holder.run."""
        parameter = next(self._network.parameters(), None)
        device = rows.device if parameter is None else parameter.device
        return in_batches(lambda piece: function(self._network, piece), rows, device, self._batch)

    def get_models(self) -> Sequence[Any]:
        """Nothing manages it."""
        return ()
