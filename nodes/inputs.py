"""Inputs that nodes of several rooms share, so that the same thing looks the same everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from comfy_api.latest import io

__all__ = ["choice_input", "seed_input", "switch_input", "text_input"]


def text_input(
    name: str, *, tooltip: str, default: str = "", advanced: bool = False
) -> io.String.Input:
    """Several lines of text, which the host takes as they are written.

    Args:
        name: Id of the input.
        tooltip: What it means.
        default: What stands there at first.
        advanced: Whether it may be left out, and is folded away.

    Returns:
        The input.
    """
    folded: dict[str, Any] = {"optional": True, "advanced": True} if advanced else {}
    return io.String.Input(
        name,
        default=default,
        multiline=True,
        dynamic_prompts=False,
        tooltip=tooltip,
        **folded,
    )


def choice_input(name: str, options: Iterable[str], *, tooltip: str) -> io.Combo.Input:
    """A list whose first entry serves well: folded away, and may be left out.

    Args:
        name: Id of the input.
        options: What can be chosen, the default first.
        tooltip: What each means.

    Returns:
        The input.
    """
    names = list(options)
    return io.Combo.Input(
        name, options=names, default=names[0], optional=True, advanced=True, tooltip=tooltip
    )


def switch_input(name: str, *, tooltip: str) -> io.Boolean.Input:
    """A switch that is off: folded away, and may be left out.

    Args:
        name: Id of the input.
        tooltip: What off and on mean.

    Returns:
        The input.
    """
    return io.Boolean.Input(name, default=False, optional=True, advanced=True, tooltip=tooltip)


def seed_input(*, tooltip: str, after: bool | io.ControlAfterGenerate = True) -> io.Int.Input:
    """The host's range of seeds.

    Args:
        tooltip: What is drawn by it.
        after: What the page does with it after a run; True: as the person chooses there.

    Returns:
        The input.
    """
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=after,
        tooltip=tooltip,
    )
