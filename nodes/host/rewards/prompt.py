"""A reward's prompt as a person typed it for the sampler: its words, and a word about the rest."""

from __future__ import annotations

from ....rewards.prompts.prompt_syntax import words_of
from ..page.remarks import remark

__all__ = ["plain_prompt"]


def plain_prompt(text: str) -> str:
    """Take a prompt's syntax out, and say so on the node.

    Args:
        text: A prompt.

    Returns:
        Its words.
    """
    words, found = words_of(text)
    if found:
        remark(
            f"{', '.join(found)} of the prompt mean nothing to a reward; it scores: {words:.200}"
        )
    return words
