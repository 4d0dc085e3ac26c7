"""From the names in a published file to a network: renamed, checked by name and shape, filled.

A network is made on the meta device, which costs nothing, and takes the file's tensors as they
are, so that there is never a second copy of the weights. A tensor that no rule knows, one that is
missing and one of another shape are refused by name: a file that fits halfway scores nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Rules", "fill", "layers", "renamed", "shape_of"]

Rules = Sequence[tuple[str, str | None]]
"""Pattern of a whole name in the file, and the network's name with its groups (as re.Match.expand
takes them); None for a tensor that is not needed."""


def renamed(weights: Mapping[str, Tensor], rules: Rules, what: str) -> dict[str, Tensor]:
    """Give tensors the names of a network.

    Args:
        weights: Name in the file to tensor.
        rules: The first whose pattern matches a name counts.
        what: The file's kind, for the message.

    Returns:
        Name in the network to tensor.

    Raises:
        ValueError: No rule knows a name.
    """
    known = [(re.compile(pattern), name) for pattern, name in rules]
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in weights.items():
        matches = ((pattern.fullmatch(name), new) for pattern, new in known)
        match, new = next(((match, new) for match, new in matches if match), (None, None))
        if match is None:
            unknown.append(name)
        elif new is not None:
            found[match.expand(new)] = tensor
    if unknown:
        raise ValueError(_refusal(what, [f"{_names(unknown)} in it not known"]))
    return found


def shape_of(weights: Mapping[str, Tensor], name: str, what: str) -> tuple[int, ...]:
    """Look up a shape from which a network's size is read.

    Args:
        weights: Name to tensor.
        name: One that has to be there.
        what: The file's kind, for the message.

    Returns:
        Its shape.

    Raises:
        ValueError: It is not there.
    """
    if name not in weights:
        raise ValueError(_refusal(what, [f"{_names([name])} missing"]))
    return tuple(weights[name].shape)


def layers(weights: Iterable[str], prefix: str) -> int:
    """Count the layers of a stack.

    Args:
        weights: Names.
        prefix: What comes before a layer's number, with the dot.

    Returns:
        One more than the highest number, 0 without any.
    """
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(m[1]) for m in map(pattern.match, weights) if m), default=-1)


def fill(network: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Give a network on the meta device its weights.

    Args:
        network: On the meta device; position ids, which transformers keeps as buffers that no file
            holds, are made here.
        weights: All of its names to tensors, which become its own.
        what: The file's kind, for the message.

    Raises:
        ValueError: Names are missing or unknown, or shapes differ.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    unlike = [
        f"{name} is {given[name]} instead of {shape}"
        for name, shape in wanted.items()
        if name in given and given[name] != shape
    ]
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    reasons = [f"{_names(missing)} missing"] if missing else []
    reasons += [f"{_names(unknown)} in it not known"] if unknown else []
    reasons += [f"of another shape: {'; '.join(unlike[:3])}"] if unlike else []
    if reasons:
        raise ValueError(_refusal(what, reasons))
    network.load_state_dict(dict(weights), assign=True)
    for module in network.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta and name == "position_ids":
                ids = torch.arange(buffer.shape[-1]).expand(buffer.shape)
                module.register_buffer(name, ids, persistent=False)


def _names(names: Sequence[str]) -> str:
    """Name the first three, and say how many there are."""
    shown = ", ".join(names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"


def _refusal(what: str, reasons: Sequence[str]) -> str:
    return (
        f"The file looks like {what}, but does not fit: {'; '.join(reasons)}. "
        "Get the published file again, whole; other versions and models are not read."
    )
