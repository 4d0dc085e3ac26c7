"""How does one item of a batch keep its own prompt, mask and hint when it becomes many candidates?

The host repeats conditioning to the rows of a call as 0, 1, ..., 0, 1, ..., and cuts it to its
first rows when there are more. Candidates of item b handed to it as they are would so be guided by
item 0. Here every tensor of a guider's conditioning is cut to the row that item b has in the host's
own batch (b modulo the tensor's rows) before any candidate is predicted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from types import MethodType
from typing import Any

from comfy.conds import CONDConstant, CONDList, CONDRegular
from comfy.controlnet import ControlBase
from comfy.samplers import CFGGuider
from torch import Tensor

__all__ = ["cond_tensors", "conds_of", "copied", "guider_of_row", "row_of"]


def copied(thing: Any) -> Any:
    """Copy an object of any pack so that the copy is itself.

    What it holds stays shared, but for what is bound to it: methods of its instance that are kept
    as attributes (Advanced-ControlNet replaces get_control so), super() and partial of those, and
    itself. In a mere copy all of them would go on working on the original.

    Args:
        thing: An object with a __dict__.

    Returns:
        A shallow copy.
    """
    ours = copy.copy(thing)

    def rebound(held: Any) -> Any:
        if held is thing:
            return ours
        if isinstance(held, MethodType) and held.__self__ is thing:
            return MethodType(held.__func__, ours)
        if type(held) is super and getattr(held, "__self__", None) is thing:
            return super(getattr(held, "__thisclass__"), ours)  # noqa: B009 - typed as having none
        if isinstance(held, partial):
            given = {name: rebound(value) for name, value in held.keywords.items()}
            return partial(rebound(held.func), *map(rebound, held.args), **given)
        return held

    vars(ours).update({name: rebound(held) for name, held in vars(thing).items()})
    return ours


def row_of(tensor: Tensor, row: int) -> Tensor:
    """Return the one row that a batch item has of a tensor which the host repeats or cuts.

    Args:
        tensor: Rows first, any number of them.
        row: Index of the batch item.

    Returns:
        One row, a view.
    """
    index = row % tensor.shape[0]
    return tensor[index : index + 1]


def guider_of_row(guider: CFGGuider, row: int) -> CFGGuider:
    """Return a guider whose conditioning is that of one batch item.

    Args:
        guider: The guider inside its own sample(), with conditioning that the host has prepared.
        row: Index of the batch item.

    Returns:
        A shallow copy of the guider; the original is not modified.
    """
    controls: dict[int, ControlBase] = {}
    ours = copied(guider)
    for name, held in vars(guider).items():
        value: Any = held  # whatever a pack's guider keeps: no truth is asked of it before its type
        if name == "original_conds":
            continue
        if isinstance(value, dict) and value and all(map(_is_conds, value.values())):
            kept = {key: _slice_conds(conds, row, controls) for key, conds in value.items()}
            setattr(ours, name, kept)
        elif isinstance(value, list) and value and _is_conds(value):
            setattr(ours, name, _slice_conds(value, row, controls))
    return ours


def cond_tensors(guider: CFGGuider) -> Iterator[Tensor]:
    """List the tensors of a guider's prepared conditioning, for telling two runs apart.

    Args:
        guider: The guider inside its own sample().

    Yields:
        Tensors in a fixed order.
    """
    for _, conds in sorted(getattr(guider, "conds", {}).items()):
        for cond in conds or ():
            for _, held in sorted(cond.get("model_conds", {}).items()):
                values = held.cond if isinstance(held.cond, list | tuple) else [held.cond]
                yield from (value for value in values if isinstance(value, Tensor))
            yield from (cond[key] for key in ("mask",) if isinstance(cond.get(key), Tensor))


def conds_of(guider: CFGGuider) -> Iterator[dict[str, Any]]:
    """List the prepared conditionings of a guider, whatever it calls them.

    Args:
        guider: The guider inside its own sample().

    Yields:
        The host's dictionaries.
    """
    for name, held in vars(guider).items():
        if name != "original_conds":
            lists = [*held.values()] if isinstance(held, dict) else [held]
            yield from (cond for conds in lists if _is_conds(conds) for cond in conds or ())


def _is_conds(value: object) -> bool:
    """Whether this is a list of the host's prepared conditionings; None is an absent one."""
    if value is None:
        return True
    return isinstance(value, list) and all(
        isinstance(entry, dict) and "model_conds" in entry for entry in value
    )


def _slice_conds(
    conds: list[dict[str, Any]] | None, row: int, controls: dict[int, ControlBase]
) -> list[dict[str, Any]] | None:
    return None if conds is None else [_slice_cond(cond, row, controls) for cond in conds]


def _slice_cond(cond: dict[str, Any], row: int, controls: dict[int, ControlBase]) -> dict[str, Any]:
    ours = cond.copy()
    ours["model_conds"] = {key: _slice_held(held, row) for key, held in cond["model_conds"].items()}
    if isinstance(cond.get("mask"), Tensor):
        ours["mask"] = row_of(cond["mask"], row)
    if cond.get("control") is not None:
        ours["control"] = _slice_control(cond["control"], row, controls)
    return ours


def _slice_held(held: CONDRegular, row: int) -> CONDRegular:
    """Cut one of the host's COND objects; what is not rows of tensors stays as it is."""
    if isinstance(held, CONDConstant) or not isinstance(held, CONDRegular):
        return held
    if isinstance(held, CONDList):
        return _with(held, [row_of(tensor, row) for tensor in held.cond])
    if isinstance(held.cond, Tensor) and held.cond.ndim > 0:
        return _with(held, row_of(held.cond, row))
    return held


def _with(held: CONDRegular, cond: Tensor | list[Tensor]) -> CONDRegular:
    ours = copy.copy(held)
    ours.cond = cond
    return ours


def _slice_control(
    control: ControlBase | None, row: int, controls: dict[int, ControlBase]
) -> ControlBase | None:
    """Copy a chain of ControlNets that the host has prepared, each with its own row's hint.

    Conditionings that share a ControlNet share the copy, because the host compares identities to
    run them together.
    """
    if control is None or id(control) in controls:
        return controls.get(id(control))
    ours = copied(control)
    ours.cond_hint = None  # the host's resized and repeated copies of the hint, made again from it
    ours.extra_concat = None
    ours.previous_controlnet = _slice_control(control.previous_controlnet, row, controls)
    if isinstance(ours.cond_hint_original, Tensor):
        ours.cond_hint_original = row_of(ours.cond_hint_original, row)
    ours.extra_concat_orig = [row_of(extra, row) for extra in ours.extra_concat_orig]
    controls[id(control)] = ours
    others: dict[Any, Any] = getattr(control, "multigpu_clones", {})  # newer hosts: other devices
    clones: Any = {device: _slice_control(other, row, controls) for device, other in others.items()}
    ours.multigpu_clones = clones
    return ours
