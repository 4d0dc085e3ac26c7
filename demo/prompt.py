"""The embedded model's language: "three red circles and two blue squares".

The grammar is the one of the shape counter (rewards/pixels/shape_count.py), with at most GROUPS
groups of one to MAX_COUNT shapes. An empty prompt means anything. What is not understood is refused
by naming it and listing what is known. Prompts in the network's form: see ``encode``. "no blue
squares" is of the language, for rewards to count, and the network is told nothing of it: it learned
from what scenes show, and what a prompt does not name it draws seldom.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..rewards.pixels.shape_count import COLOURS, NUMBERS, SHAPES, Group, parse_groups

__all__ = ["GROUPS", "MAX_COUNT", "Group", "describe", "encode", "parse"]

GROUPS = 3
MAX_COUNT = 6
_COLOURS, _SHAPES = tuple(COLOURS), tuple(SHAPES)


def parse(text: str) -> tuple[Group, ...]:
    """Read a prompt.

    Args:
        text: The prompt.

    Returns:
        Its groups, in order; none for an empty prompt. A count of 0 for what should not be there.

    Raises:
        ValueError: A word, the form, a count or the number of groups is not of the language.
    """
    if not isinstance(text, str):
        raise ValueError(
            f"The demo model cannot read the prompt: it is a {type(text).__name__}, and a text is "
            "needed"
        )
    try:
        groups = parse_groups(text)
    except ValueError as error:
        raise ValueError(f"The demo model cannot read the prompt: {error}") from None
    limits = (
        f"It knows up to {GROUPS} groups of one to {NUMBERS[MAX_COUNT]} shapes; colours: "
        f"{', '.join(COLOURS)}; shapes: {', '.join(SHAPES)}."
    )
    asked = sum(count > 0 for count, _, _ in groups)
    if asked > GROUPS:
        raise ValueError(f"The prompt asks the demo model for {asked} groups. {limits}")
    for count, colour, shape in groups:
        if count > MAX_COUNT:
            raise ValueError(
                f"The prompt asks the demo model for {count} {colour} {shape}s. {limits}"
            )
    return groups


def describe(groups: Sequence[Group]) -> str:
    """Write groups as a prompt; the inverse of ``parse``."""
    texts = [
        f"{NUMBERS[n] if n else 'no'} {colour} {shape}{'s' * (n != 1)}"
        for n, colour, shape in groups
    ]
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def encode(groups: Sequence[Group]) -> Tensor:
    """Groups in the network's form.

    Args:
        groups: At most GROUPS of them with a count above 0; the others are left out.

    Returns:
        Shape (GROUPS, 14): one-hot count, colour, shape; rows of zeros for no group.
    """
    context = torch.zeros(GROUPS, MAX_COUNT + len(_COLOURS) + len(_SHAPES))
    for row, (count, colour, shape) in enumerate(group for group in groups if group[0]):
        context[row, count - 1] = 1.0
        context[row, MAX_COUNT + _COLOURS.index(colour)] = 1.0
        context[row, MAX_COUNT + len(_COLOURS) + _SHAPES.index(shape)] = 1.0
    return context
