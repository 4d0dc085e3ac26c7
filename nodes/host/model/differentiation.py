"""How is a call of the host's networks differentiated?

The host runs nodes in inference mode, and what it loads there cannot be saved for a backward pass.
So every operation is given a twin of such a tensor, in the same memory: nothing is copied, and
nothing of the host is changed, whether the weights are whole, cast as they are used, patched or
quantised. What a network writes over while a backward pass still needs it is copied before.

What a backward pass needs of a network is most of its memory. Parts that stand in lists, which is
how blocks stand in every network, keep their inputs only, and run again when it comes to them.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from ..versions import training

__all__ = ["differentiated", "followed_attention", "twin"]

_TURN = threading.RLock()  # what is changed of networks and of the host is one for all threads

PLAIN = (Tensor, int, float, bool, str, torch.dtype, torch.device, type(None))


def twin(tensor: Tensor) -> Tensor:
    """Return a tensor that a backward pass can be given, in the same memory.

    Args:
        tensor: Any; made in inference mode, perhaps.

    Returns:
        The same values, of the same type; a parameter without its wish for a gradient.
    """
    if not tensor.is_inference():
        return tensor.detach() if isinstance(tensor, nn.Parameter) else tensor
    with torch.inference_mode(False):
        if type(tensor) not in (Tensor, nn.Parameter):
            return tensor.clone()  # a library's own kind of tensor knows how
        empty = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        place = tensor.storage_offset(), tensor.size(), tensor.stride()
        return empty.set_(tensor.untyped_storage(), *place)  # pyright: ignore[reportArgumentType]


class _Twins(TorchFunctionMode):
    """Gives every operation of torch twins of inference tensors."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        args, kwargs = tree_map_only(Tensor, twin, (args, kwargs or {}))
        return func(*args, **kwargs)


class _Saved:
    """A tensor that a backward pass needs."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Kept(TorchDispatchMode):
    """Copies what was saved for a backward pass before it is written over.

    torch has such a mode (allow_mutation_on_saved_tensors), which cannot be entered again inside a
    backward pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._there: dict[int, list[weakref.ref[_Saved]]] = {}  # by memory, which they keep alive
        self.hooks = saved_tensors_hooks(self._pack, lambda saved: saved.tensor)

    def _pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        self._there.setdefault(_memory(tensor), []).append(weakref.ref(saved))
        return saved

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[place] if place < len(args) else kwargs.get(argument.name)
                for one in given if isinstance(given, list | tuple) else [given]:
                    self._part(one)
        return func(*args, **kwargs)

    def _part(self, written: Tensor | None) -> None:
        """Take what was saved of a tensor's memory away from it."""
        if not self._there or written is None:
            return
        for reference in self._there.pop(_memory(written), []):
            saved = reference()
            if saved is not None:
                saved.tensor = saved.tensor.clone()


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


@contextmanager
def _followed() -> Iterator[None]:
    """Make operations of the host's networks such as autograd can follow."""
    kept = _Kept()
    with torch.enable_grad(), _Twins(), kept.hooks, kept:
        yield


@contextmanager
def differentiated(*networks: nn.Module) -> Iterator[None]:
    """Let autograd follow what is computed, from inference mode too; the backward pass as well.

    Threads take turns: another one waits until this context is left.

    Args:
        *networks: Whose blocks are run again in the backward pass instead of kept.

    Yields:
        Nothing.
    """
    with _TURN, ExitStack() as stack:
        inside: list[bool] = []
        for block in {block: True for network in networks for block in _blocks(network)}:
            stack.enter_context(_rerun(block, inside))
        for context in (torch.inference_mode(False), training(), _followed()):
            stack.enter_context(context)
        yield


@contextmanager
def followed_attention(options: dict[str, Any]) -> Iterator[None]:
    """Let a network attend by torch's own function: faster ones have no way back, silently.

    Args:
        options: Model options of the call; as before at the end.

    Yields:
        Nothing.
    """
    inner: dict[str, Any] = options.setdefault("transformer_options", {})
    key, none = "optimized_attention_override", object()
    before = inner.get(key, none)

    def attend(_: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        return attention_pytorch(*args, **kwargs)

    inner[key] = attend
    try:
        yield
    finally:
        del inner[key]
        if before is not none:
            inner[key] = before


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The parts of a network that stand in lists and have parts of their own."""
    for module in network.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            yield from (part for part in module.children() if next(part.children(), None))


@contextmanager
def _rerun(block: nn.Module, inside: list[bool]) -> Iterator[None]:
    """Keep of a block's calls their inputs, unless they are a part of another block's."""
    held = vars(block)
    own, forward = held.get("forward"), block.forward

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(enumerate(args)), **kwargs}
        moved = [key for key, value in given.items() if _moves(value)]
        if inside or not moved or not all(map(_is_plain, given.values())):
            return forward(*args, **kwargs)
        call = _Call(forward, given, moved, inside)
        leaves = _Rerun.apply(call, *(given[key] for key in moved))
        return tree_unflatten(leaves, call.form)

    held["forward"] = wrapped
    try:
        yield
    finally:
        held.pop("forward", None)
        if own is not None:
            held["forward"] = own


def _moves(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _is_plain(value: Any) -> bool:
    """Whether a call can be given a value twice: not a list, which is a cache that it writes to."""
    if isinstance(value, dict):
        return not any(_moves(one) for one in cast("dict[Any, Any]", value).values())
    return isinstance(value, PLAIN)


class _Call:
    """A block's call, to be made twice."""

    def __init__(
        self,
        forward: Callable[..., Any],
        given: dict[Any, Any],
        moved: list[Any],
        inside: list[bool],
    ) -> None:
        self._forward, self._given, self._moved, self._inside = forward, given, moved, inside
        # the caller writes other things into a dict for its next call
        self._later = {k: dict(v) if isinstance(v, dict) else v for k, v in given.items()}
        self.form: Any = None

    def __call__(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        given, self._given = (
            {**self._given, **dict(zip(self._moved, tensors, strict=True))},
            self._later,
        )
        # some blocks write into what they are given, and what is given twice must be the same
        given = {k: v.clone() if isinstance(v, Tensor) else v for k, v in given.items()}
        named = {key: one for key, one in given.items() if isinstance(key, str)}
        self._inside.append(True)
        try:
            made = self._forward(*(given[i] for i in range(len(given) - len(named))), **named)
        finally:
            self._inside.pop()
        leaves, self.form = tree_flatten(made)
        return tuple(leaves)


class _Rerun(torch.autograd.Function):
    """Runs a call without keeping anything, and again with everything in the backward pass."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *given: Tensor) -> tuple[Any, ...]:
        ctx.call = call
        ctx.save_for_backward(*given)
        # several views of one tensor could not be written into by whoever gets them
        return tuple(one.clone() if isinstance(one, Tensor) else one for one in call(given))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Any, ...]:
        given = [one.detach().requires_grad_() for one in ctx.saved_tensors]
        with _followed():  # torch leaves the modes for a backward pass
            made = ctx.call(given)
        pairs = [p for p in zip(made, slopes, strict=True) if p[1] is not None and _moves(p[0])]
        found = torch.autograd.grad(
            [one for one, _ in pairs], given, [slope for _, slope in pairs], allow_unused=True
        )
        return None, *found
